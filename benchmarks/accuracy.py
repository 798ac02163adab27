"""Accuracy of the reasoners of `checkpoints/` and of the trial, beside their baselines.

    .venv/bin/python benchmarks/live_trial.py --corpus CORPUS --out TRIAL
    .venv/bin/python benchmarks/accuracy.py --trial TRIAL --out OUT

Everything goes through the product's own reasoners, patch by patch, from the posteriors of its
front end and backbone. Clips: after 1, 2, 3, 5 and all patches of each ESC-10 clip, by reasoners
of the trial not trained on its fold, against logistic regressions on the same patches. Scenes: the
trial's fold 4, which no shipped checkpoint was trained on: calibration. OUT/accuracy.json,
accuracy.md and accuracy.png hold the result.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from live_trial import DATA, GPT2, slug
from matplotlib.figure import Figure
from quick import add_option
from rich.progress import track
from trial_scenes import TrialScenes, expected_calibration_error, read, reasoner_of, settings

from streamtwl.bench import clip_baselines, compare
from streamtwl.errors import StreamtwlError
from streamtwl.training import datasets
from streamtwl.training import train as training
from streamtwl.training.datasets import Clip
from streamtwl.training.fitting import FILTER
from streamtwl.training.posteriors import Scorer, prefixes

PATCHES = (1, 2, 3, 5)
LINEAR = ("LR, root of mean posterior", "LR, log of mean posterior")
CHECKPOINTS = {"esc10-gpt2": {}, "esc10-hmm": {}, "esc10-paper": {"samples": 16}}


def main() -> None:
    """Read, judge, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--trial", type=Path, required=True, help="what live_trial.py wrote")
    add("--out", type=Path, required=True, help="folder for the results")
    add("--data", type=Path, default=DATA, help="the data (../shared/data)")
    add_option(parser)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    scorer = Scorer(training.best_windows())
    results: dict[str, Any] = {
        "clips": clips_after_patches(options.trial, options.data, scorer),
        "calibration": calibration(TrialScenes(options.trial, scorer)),
    }
    (options.out / "accuracy.json").write_text(json.dumps(results, indent=2) + "\n")
    plot(results["clips"], options.out / "accuracy.png")
    tables = markdown(results)
    (options.out / "accuracy.md").write_text(tables)
    print(tables)


def clips_after_patches(trial: Path, data: Path, scorer: Scorer) -> dict:
    """Return accuracy after so many patches of each clip, of reasoners and of linear models."""
    everything = datasets.load(data / "esc10")
    scored = {clip.path: scorer.score(clip.path) for clip in everything}
    rows = {clip.path: scorer.score_file(clip.path) for clip in everything}
    folds = [f for f in range(1, 6) if (trial / f"fold{f}" / f"{slug(GPT2)}.onnx").exists()]
    clips = [clip for clip in everything if clip.fold in folds]
    right: dict[str, dict[str, dict[Path, float]]] = {}
    for fold in track(folds, "clips"):
        training, test = datasets.split(everything, fold)
        truth = [clip.label for clip in test]
        prefix_scores = {f"{n}": prefixes([scored[c.path] for c in test], n) for n in PATCHES}
        prefix_scores["all"] = [scored[clip.path] for clip in test]
        for name in LINEAR:
            baseline = next(each for each in clip_baselines.BASELINES if each.name == name)
            model, _ = clip_baselines.fit(
                baseline, training, [scored[c.path] for c in training], fold
            )
            for n, part in prefix_scores.items():
                predicted = model.predict(clip_baselines.features(baseline, part, 0))
                _note(right, name, n, test, [a == b for a, b in zip(predicted, truth, strict=True)])
        for name in (FILTER, GPT2):
            file = trial / f"fold{fold}" / f"{slug(name)}.onnx"
            for n in prefix_scores:
                part = [rows[c.path][: None if n == "all" else int(n)] for c in test]
                predicted = clip_labels(str(file), part, scorer)
                _note(right, name, n, test, [a == b for a, b in zip(predicted, truth, strict=True)])
    sources = [clip.source for clip in clips]
    table: dict[str, dict[str, dict]] = {}
    for name, by_n in right.items():
        for n, of in by_n.items():
            values = np.array([of[clip.path] for clip in clips], float)
            row = {"accuracy": asdict(compare.mean_interval(values, sources))}
            if name not in LINEAR:
                for other in LINEAR:
                    others = np.array([right[other][n][clip.path] for clip in clips], float)
                    row[f"against {other}"] = asdict(compare.paired(values, others, sources))
            table.setdefault(name, {})[n] = row
    return table


def _note(right: dict, name: str, n: str, clips: Sequence[Clip], values: Sequence[bool]) -> None:
    of = right.setdefault(name, {}).setdefault(n, {})
    of |= {clip.path: float(value) for clip, value in zip(clips, values, strict=True)}


def clip_labels(file: str, rows: Sequence[np.ndarray], scorer: Scorer) -> list[str]:
    """Return what each clip is by its patches: the label of most belief, each patch's newest."""
    labels = []
    for length in sorted({len(each) for each in rows}):
        of = [i for i, each in enumerate(rows) if len(each) == length]
        reasoner = reasoner_of(settings(file), len(of))
        decided, _ = read(reasoner, np.stack([rows[i] for i in of]), scorer)
        believed = newest(decided)  # n, T, L
        best = np.log(believed + 1e-4).mean(axis=1).argmax(axis=1)
        labels += [(i, reasoner.labels[b]) for i, b in zip(of, best, strict=True)]
    return [label for _, label in sorted(labels)]


def newest(decided: np.ndarray) -> np.ndarray:
    """Return float32[n, T, L], the last decision on each patch, of float32[n, T, 1 + B, L]."""
    n_patches, lags = decided.shape[1], decided.shape[2] - 1
    predicted = [
        decided[:, min(t + lags, n_patches - 1), min(lags, n_patches - 1 - t)]
        for t in range(n_patches)
    ]
    return np.stack(predicted, axis=1)


def plot(clips: dict, path: Path) -> None:
    """Draw the accuracy after so many patches of each method, with its interval."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    lengths = [*map(str, PATCHES), "all"]
    for i, (name, rows) in enumerate(clips.items()):
        each = [rows[n]["accuracy"] for n in lengths]
        mean = np.array([one["mean"] for one in each])
        ends = np.abs([[one[end] for one in each] for end in ("low", "high")] - mean)
        at = np.arange(len(lengths)) + 0.06 * i
        axes.errorbar(at, 100 * mean, 100 * ends, marker="o", capsize=3, label=name)
    axes.set_xticks(range(len(lengths)), lengths)
    axes.set_xlabel("patches of a clip")
    axes.set_ylabel("right, %")
    axes.legend()
    figure.savefig(path, dpi=120)


def calibration(test_scenes: TrialScenes) -> dict[str, float]:
    """Return the expected calibration error of the checkpoints, over all labels and patches.

    The outcome is the share of the next hop in which the label sounds.
    """
    ahead = test_scenes.streams([]).ahead
    errors = {}
    for name, trace in CHECKPOINTS.items():
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
    lines += ["", "### Expected calibration error, scenes of fold 4", ""]
    lines += [f"- {name}: {error:.4f}" for name, error in results["calibration"].items()]
    return "\n".join(lines) + "\n"


def _percent(interval: dict, sign: str = "") -> str:
    low, high = 100 * interval["low"], 100 * interval["high"]
    return f"{100 * interval['mean']:{sign}.1f} ({low:{sign}.1f} to {high:{sign}.1f})"


if __name__ == "__main__":
    try:
        main()
    except StreamtwlError as error:
        sys.exit(f"accuracy.py: {error}")
