"""Accuracy of the reasoners of `checkpoints/` and of the trial, beside their baselines.

    .venv/bin/python benchmarks/live_trial.py --corpus CORPUS --out TRIAL
    .venv/bin/python benchmarks/accuracy.py --trial TRIAL --out OUT

Everything goes through the product's own reasoners, patch by patch, from the posteriors of its
front end and backbone. Clips: after 1, 2, 3, 5 and all patches of each ESC-10 clip, by reasoners
of the trial not trained on its fold, against logistic regressions on the same patches. Scenes: the
trial's fold 4, which no shipped checkpoint was trained on: calibration, and the open vocabulary
through esc50_audioset.csv with the ontology rule. OUT/accuracy.json, accuracy.md and
accuracy.png hold the result. Models trained for it stay in TRIAL and are not trained again: after a
change to their training, delete TRIAL/open-*.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from after_patches import LINEAR, OPEN, PATCHES, clips_after_patches, open_clips, plot
from live_trial import DATA, GPT2, right_names
from open_vocabulary import (
    LEFT_OUT,
    NO_TRUNK,
    open_scenes,
    train_without_classes,
    train_without_trunk,
)
from quick import add_option
from trial_scenes import TrialScenes, expected_calibration_error, read, reasoner_of, settings

from streamtwl.errors import StreamtwlError
from streamtwl.training import train as training
from streamtwl.training.posteriors import Scorer
from streamtwl.training.trace_model import TraceModel

SHIPPED = {"esc10-gpt2": {}, "esc10-hmm": {}, "esc10-paper": {"samples": 16}}


def main() -> None:
    """Read, judge, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--trial", type=Path, required=True, help="what live_trial.py wrote")
    add("--out", type=Path, required=True, help="folder for the results")
    add("--data", type=Path, default=DATA, help="esc10/ and esc50_audioset.csv (../shared/data)")
    add(
        "--corpus",
        type=Path,
        help="also train an open reasoner without a trunk, and one without two classes (an hour)",
    )
    add_option(parser)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    scorer = Scorer(training.best_windows())
    results: dict[str, Any] = {
        "clips": clips_after_patches(options.trial, options.data, scorer),
        "open_clips": open_clips(options.data, scorer),
    }
    test_scenes = TrialScenes(options.trial, scorer)
    results["calibration"] = calibration(test_scenes)
    right = right_names(options.data)
    models: dict[str, str | TraceModel] = {OPEN: OPEN}
    if options.corpus is not None:
        models[NO_TRUNK] = train_without_trunk(options.data, options.corpus, options.trial)
    results["open_scenes"] = open_scenes(test_scenes, right, models)
    if options.corpus is not None:
        file = train_without_classes(options.data, options.corpus, options.trial)
        some = {name: right[name] for name in LEFT_OUT}
        results["left_out"] = open_scenes(test_scenes, some, {"not trained on these": str(file)})
    (options.out / "accuracy.json").write_text(json.dumps(results, indent=2) + "\n")
    plot(results["clips"], options.out / "accuracy.png")
    tables = markdown(results)
    (options.out / "accuracy.md").write_text(tables)
    print(tables)


def calibration(test_scenes: TrialScenes) -> dict[str, float]:
    """Return the expected calibration error of what ships, over all labels and patches.

    The outcome is the share of the next hop in which the label sounds.
    """
    ahead = test_scenes.streams([]).ahead
    errors = {}
    for name, trace in SHIPPED.items():
        chosen = settings(name, **trace)
        reasoner = reasoner_of(chosen, len(test_scenes.rows))
        decided, _ = read(reasoner, test_scenes.rows, test_scenes.scorer)
        errors[name] = expected_calibration_error(decided[:, :, 0], ahead)
    return errors


def markdown(results: dict) -> str:
    """Return the tables."""
    lines = ["### Clips: accuracy after so many patches, the trial's folds", ""]
    lengths = [*map(str, PATCHES), "all"]
    lines += [f"| method | {' | '.join(lengths)} |", "|" + " --- |" * (len(lengths) + 1)]
    for name, rows in results["clips"].items():
        cells = [_percent(rows[n]["accuracy"]) for n in lengths]
        lines.append(f"| {name} | {' | '.join(cells)} |")
        for other in LINEAR:
            if f"against {other}" in rows["1"]:
                cells = [_percent(rows[n][f"against {other}"]["difference"], "+") for n in lengths]
                lines.append(f"| {name} against {other} | {' | '.join(cells)} |")
    lines += ["", "### Clips of fold 4, open vocabulary through the map, top-1", ""]
    lines += ["| evidence | GPT-2 | difference |", "| --- | --- | --- |"]
    of = results["open_clips"]
    difference = _percent(of["difference"]["difference"], "+")
    lines.append(f"| {_percent(of['evidence'])} | {_percent(of[GPT2])} | {difference} |")
    lines += [""]
    lines += ["### Expected calibration error, scenes of fold 4", ""]
    lines += [f"- {name}: {error:.4f}" for name, error in results["calibration"].items()]
    for key, title in (
        ("open_scenes", "Open vocabulary, scenes of fold 4, through the map"),
        ("left_out", "The same, two classes that were left out of training"),
    ):
        if key not in results:
            continue
        lines += ["", f"### {title}", ""]
        lines += [
            "| method | as shipped | false starts a minute | at 2 a minute | more | calibration "
            "error |"
        ]
        lines += ["| --- | --- | --- | --- | --- | --- |"]
        for name, each in results[key].items():
            more = ""
            if "more_at_two" in each:
                more = f"{_plain(each['more_as_shipped'], '+')}; {_plain(each['more_at_two'], '+')}"
            lines.append(
                f"| {name} | {_plain(each['as_shipped'])} | {each['false_starts_per_minute']:.2f} "
                f"| {_plain(each['at_two'])} | {more} | {each['calibration']:.4f} |"
            )
        for name, each in results[key].items():
            if "more_by_the_trunk_at_two" in each:
                by_trunk = [each[f"more_by_the_trunk_{at}"] for at in ("as_shipped", "at_two")]
                both = "; ".join(_plain(one, "+") for one in by_trunk)
                lines += ["", f"{name}, over the same without a trunk: {both}."]
    lines += [
        "",
        "Decisions as they first come, all labels at the thresholds named; at 2 a minute: at the "
        "threshold at which these scenes, all SNRs together, have two false starts a minute, for "
        "every method alike.",
    ]
    return "\n".join(lines) + "\n"


def _percent(interval: dict, sign: str = "") -> str:
    low, high = 100 * interval["low"], 100 * interval["high"]
    return f"{100 * interval['mean']:{sign}.1f} ({low:{sign}.1f} to {high:{sign}.1f})"


def _plain(interval: dict, sign: str = "") -> str:
    low, high = interval["low"], interval["high"]
    return f"{interval['mean']:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


if __name__ == "__main__":
    try:
        main()
    except StreamtwlError as error:
        sys.exit(f"accuracy.py: {error}")
