"""Does thinking pay? The shipped reasoners and the trial's, beside their baselines.

    .venv/bin/python benchmarks/live_trial.py --corpus CORPUS --out TRIAL
    .venv/bin/python benchmarks/accuracy.py --trial TRIAL --out OUT

Everything is read by the product's own reasoners, patch by patch, from the posteriors that its
front end and model give. Clips: after 1, 2, 3, 5 and all patches of each ESC-10 clip, by reasoners
of the trial that never heard its fold, against logistic regressions on the same patches. Scenes:
the trial's fold 4, which no shipped checkpoint has heard: calibration, and the open vocabulary
through esc50_audioset.csv with the ontology rule. OUT/accuracy.json, accuracy.md and
accuracy.png hold the result.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bodiless import NoBody
from live_trial import DATA, READER, SEED, SNR_DB, read_truth, right_names, scene_name, slug
from matplotlib.figure import Figure
from rich.progress import track

import streamtwl
from streamtwl import config
from streamtwl.audio.block import SAMPLE_RATE
from streamtwl.backbones.yamnet import Patch
from streamtwl.errors import StreamtwlError
from streamtwl.evaluation import baselines, compare, datasets, streams, timeline
from streamtwl.evaluation.baselines import FILTER
from streamtwl.evaluation.datasets import Clip
from streamtwl.evaluation.posteriors import Scored, Scorer, prefixes
from streamtwl.evaluation.timeline import Scene, Sound
from streamtwl.features.window import Window
from streamtwl.models import registry
from streamtwl.ontology import categories, vocabulary
from streamtwl.pipeline import make_reasoner
from streamtwl.reasoners import graph
from streamtwl.reasoners.decision import Reasoner
from streamtwl.trace import Tracer
from streamtwl.training import lessons, reader, reading
from streamtwl.training import train as training
from streamtwl.training.reader import Reader
from streamtwl.training.tasks import Open, names_of
from streamtwl.training.train import Recipe

PATCHES = (1, 2, 3, 5)
LINEAR = ("LR, root of mean posterior", "LR, log of mean posterior")
SHIPPED = {"esc10-gpt2": {}, "esc10-hmm": {}, "esc10-paper": {"samples": 16}}
OPEN = "open"
FOLD = 4
NO_BODY = "open, without a body"
OPEN_EPOCHS = 6  # at most
LEFT_OUT = ("rooster", "rain")  # drawn by lot
ONS = tuple(round(0.02 * i, 2) for i in range(1, 49))
BINS = 10  # of the expected calibration error


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
        help="also teach an open reasoner without a body, and one without two classes (an hour)",
    )
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    scorer = Scorer()
    results: dict[str, Any] = {
        "clips": clips_after_patches(asked.trial, asked.data, scorer),
        "open_clips": open_clips(asked.data, scorer),
    }
    heard = Heard(asked.trial, scorer)
    results["calibration"] = calibration(heard)
    right = right_names(asked.data)
    readers: dict[str, str | Reader] = {OPEN: OPEN}
    if asked.corpus is not None:
        readers[NO_BODY] = teach_bodiless(asked.data, asked.corpus, asked.trial)
    results["open_scenes"] = open_scenes(heard, right, readers)
    if asked.corpus is not None:
        file = teach_without(asked.data, asked.corpus, asked.trial)
        some = {name: right[name] for name in LEFT_OUT}
        results["left_out"] = open_scenes(heard, some, {"not taught these": str(file)})
    (asked.out / "accuracy.json").write_text(json.dumps(results, indent=2) + "\n")
    plot(results["clips"], asked.out / "accuracy.png")
    tables = markdown(results)
    (asked.out / "accuracy.md").write_text(tables)
    print(tables)


def read(
    reasoner: Reasoner,
    posteriors: np.ndarray,
    trace: config.TraceSettings | None = None,
    hop_s: float = 0.48,
) -> tuple[np.ndarray, float]:
    """Return float32[n, T, 1 + B, L] of n streams side by side, and CPU milliseconds a patch.

    By every trace, however long it takes. With B 0 where the reasoner does not look back.
    """
    trace = trace or config.TraceSettings(samples=1)
    n, n_patches, _ = posteriors.shape
    tracer = Tracer([f"{i}" for i in range(n)], trace, hop_s)
    nothing, told = np.zeros((0, 0), np.float32), []
    cpu_s = 0.0
    for t in range(n_patches):
        position = 15_600 + round(t * hop_s * SAMPLE_RATE)
        windows = [Window(i, position, nothing, 0.0, None, 0.0) for i in range(n)]
        drawn = tracer.draw([Patch(*each) for each in zip(windows, posteriors[:, t], strict=True)])
        samples = np.stack([one.draws.samples for one in drawn])
        began = time.process_time()
        decisions = reasoner.step(list(range(n)), [position] * n, samples, posteriors[:, t])
        while not reasoner.settled:
            decisions = reasoner.refine(np.inf) or decisions
        cpu_s += time.process_time() - began
        told.append([_told(one) for one in decisions])
    return np.array(told, np.float32).swapaxes(0, 1), 1000 * cpu_s / n_patches / n


def _told(decision: Any) -> np.ndarray:
    rows = [decision.specific[None]]
    if decision.earlier is not None:
        rows.append(decision.earlier[:, 1])
    return np.concatenate(rows)


def settings(reasoner: str, **trace: Any) -> config.Settings:
    """Return the pipeline's settings with a reasoner, all its traces read before a decision."""
    shipped = config.load(config.find(config.DEFAULT_PIPELINE))
    changes = {"reasoner.file": reasoner, "labels": "all", "trace.think": "fixed"}
    changes |= {f"trace.{key}": value for key, value in trace.items()}
    return config.override(shipped, changes)


# Clips


def clips_after_patches(trial: Path, data: Path, scorer: Scorer) -> dict:
    """Return accuracy after so many patches of each clip, of readers and of linear models."""
    everything = datasets.load(data / "esc10")
    scored = {clip.path: scorer.score(clip.path) for clip in everything}
    folds = [f for f in range(1, 6) if (trial / f"fold{f}" / f"{slug(READER)}.onnx").exists()]
    clips = [clip for clip in everything if clip.fold in folds]
    right: dict[str, dict[str, dict[Path, float]]] = {}
    for fold in track(folds, "clips"):
        training, test = datasets.split(everything, fold)
        truth = [clip.label for clip in test]
        heard = {f"{n}": prefixes([scored[c.path] for c in test], n) for n in PATCHES}
        heard["all"] = [scored[clip.path] for clip in test]
        for name in LINEAR:
            baseline = next(each for each in baselines.BASELINES if each.name == name)
            model, _ = baselines.fit(baseline, training, [scored[c.path] for c in training], fold)
            for n, part in heard.items():
                said = model.predict(baselines.features(baseline, part, 0))
                _note(right, name, n, test, [a == b for a, b in zip(said, truth, strict=True)])
        for name in (FILTER, READER):
            file = trial / f"fold{fold}" / f"{slug(name)}.onnx"
            for n, part in heard.items():
                said = clip_labels(str(file), part)
                _note(right, name, n, test, [a == b for a, b in zip(said, truth, strict=True)])
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


def clip_labels(file: str, heard: Sequence[Scored]) -> list[str]:
    """Return what each clip is by its patches: the label of most belief, each patch's newest."""
    labels = []
    for length in sorted({len(each.posteriors) for each in heard}):
        of = [i for i, each in enumerate(heard) if len(each.posteriors) == length]
        reasoner = make_reasoner(settings(file))
        told, _ = read(reasoner, np.stack([heard[i].posteriors for i in of]))
        believed = newest(told)  # n, T, L
        best = np.log(believed + 1e-4).mean(axis=1).argmax(axis=1)
        labels += [(i, reasoner.labels[b]) for i, b in zip(of, best, strict=True)]
    return [label for _, label in sorted(labels)]


def newest(told: np.ndarray) -> np.ndarray:
    """Return float32[n, T, L]: the last that was said of each patch, of float32[n, T, 1 + B, L]."""
    n_patches, lags = told.shape[1], told.shape[2] - 1
    said = [
        told[:, min(t + lags, n_patches - 1), min(lags, n_patches - 1 - t)]
        for t in range(n_patches)
    ]
    return np.stack(said, axis=1)


def open_clips(data: Path, scorer: Scorer) -> dict:
    """Return top-1 of fold 4's clips through the map, the open reasoner beside the evidence."""
    clips = [clip for clip in datasets.load(data / "esc10") if clip.fold == FOLD]
    scored = [scorer.score(clip.path) for clip in clips]
    right = right_names(data)
    hits = {}
    for name, file in (("evidence", "evidence"), (READER, OPEN)):
        said = clip_labels(file, scored)
        hits[name] = np.array(
            [s in right[c.label] for s, c in zip(said, clips, strict=True)], float
        )
    sources = [clip.source for clip in clips]
    return {
        **{name: asdict(compare.mean_interval(each, sources)) for name, each in hits.items()},
        "difference": asdict(compare.paired(hits[READER], hits["evidence"], sources)),
    }


# Scenes


class Heard:
    """The trial's scenes of a fold: posteriors of all, and what sounds in them."""

    def __init__(
        self, trial: Path, scorer: Scorer, fold: int = FOLD, snrs_db: Sequence[int] = SNR_DB
    ) -> None:
        self.fold = fold
        self.names = [
            (number, snr_db)
            for snr_db in snrs_db
            for number in range(99)
            if (trial / "scenes" / f"{scene_name(fold, number, snr_db)}.flac").exists()
        ]
        files = [trial / "scenes" / scene_name(fold, *name) for name in self.names]
        posteriors = [scorer.score(file.with_suffix(".flac")).posteriors for file in files]
        self.truths: list[list[Sound]] = []
        for file in files:
            truth, self.duration_s = read_truth(file)
            self.truths.append(truth)
        n_patches = min(map(len, posteriors))
        self.posteriors = np.stack([each[:n_patches] for each in posteriors])
        self.positions = streams.positions(n_patches, scorer.hop_s, self.duration_s)
        self.groups = [number for number, _ in self.names]
        self.labels = sorted({sound.label for truth in self.truths for sound in truth})

    def scenes(self, scores: np.ndarray, labels: list[str], on: float, off: float) -> list[Scene]:
        """Return what would be told of float32[n, T, L] scores, of these labels only."""
        told = []
        for (number, snr_db), truth, row in zip(self.names, self.truths, scores, strict=True):
            scene = Scene(
                name=scene_name(self.fold, number, snr_db),
                duration_s=self.duration_s,
                truth=[sound for sound in truth if sound.label in labels],
                told=[],
                positions=self.positions,
                times_s=self.positions / SAMPLE_RATE,
                scores=row,
                labels=labels,
                named=[None] * len(row),
            )
            told.append(timeline.retrack(scene, on, off))
        return told

    def streams(self) -> baselines.Streams:
        """Return them as arrays."""
        made = [
            streams.Stream("", self.duration_s, self.positions, posteriors, truth)
            for posteriors, truth in zip(self.posteriors, self.truths, strict=True)
        ]
        return baselines.arrays(made, self.labels)


def matched(heard: Heard, scores: np.ndarray, labels: list[str], share: float) -> dict:
    """Return the in-force F1 at two false starts a minute, with its interval, and the threshold.

    The lowest threshold that these scenes allow, or the highest there is; for every method alike.
    """
    minutes = len(heard.names) * heard.duration_s / 60
    scenes: list[Scene] = []
    for on in sorted(ONS, reverse=True):
        more = heard.scenes(scores, labels, on, share * on)
        more_starts = sum(map(timeline.false_starts, more)) / minutes
        if scenes and more_starts > 2.0:
            break
        scenes, chosen, starts = more, on, more_starts
    counts = np.array([timeline.agreement(scene) for scene in scenes])
    f1 = timeline.bootstrap(counts, timeline.f1, heard.groups)
    return {"f1": asdict(f1), "on": chosen, "false_starts_per_minute": starts, "counts": counts}


def calibration(heard: Heard) -> dict[str, float]:
    """Return the expected calibration error of what ships, over all labels and patches.

    Guo et al., On calibration of modern neural networks, ICML 2017, with BINS bins of equal width;
    the outcome is the share of the next hop in which the label sounds.
    """
    ahead = heard.streams().ahead
    errors = {}
    for name, trace in SHIPPED.items():
        asked = settings(name, **trace)
        told, _ = read(make_reasoner(asked), heard.posteriors, asked.trace)
        errors[name] = expected_calibration_error(told[:, :, 0], ahead)
    return errors


def expected_calibration_error(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean distance of scores from outcomes in bins, weighted by how full they are."""
    scores, truth = scores.ravel(), truth.ravel()
    which = np.minimum((scores * BINS).astype(int), BINS - 1)
    count = np.bincount(which, minlength=BINS)
    gap = np.bincount(which, scores - truth, minlength=BINS)
    return float(np.abs(gap).sum() / count.sum())


def open_scenes(
    heard: Heard, right: dict[str, frozenset[str]], readers: Mapping[str, str | Reader]
) -> dict[str, dict]:
    """Return in-force F1 of these classes, as shipped and at two false starts a minute.

    Readers are files, or have none.
    """
    labels = sorted(right)
    ahead = heard.streams().ahead[:, :, [heard.labels.index(label) for label in labels]]
    results: dict[str, dict] = {}
    names = vocabulary("all").labels
    columns = [[i for i, n in enumerate(names) if n in right[c]] for c in labels]
    on, off = config.LabelEventSettings().on, config.LabelEventSettings().off
    for name, one in {"evidence": "evidence", **readers}.items():
        told, cpu_ms = said(one, heard)
        scores = np.stack([told[:, :, each].max(axis=-1) for each in columns], axis=-1)
        scenes = heard.scenes(scores, labels, on, off)
        counts = np.array([timeline.agreement(scene) for scene in scenes])
        starts = sum(map(timeline.false_starts, scenes)) / len(scenes) / heard.duration_s * 60
        at = matched(heard, scores, labels, 0.5)
        results[name] = {
            "cpu_ms": cpu_ms,
            "calibration": expected_calibration_error(scores, ahead),
            "on": on,
            "as_shipped": asdict(timeline.bootstrap(counts, timeline.f1, heard.groups)),
            "false_starts_per_minute": starts,
            "at_two": at["f1"],
            "at_two_on": at["on"],
            "_counts": [counts, at["counts"]],
        }
    pairs = [(name, "evidence", "more") for name in readers]
    if NO_BODY in readers:
        pairs.append((OPEN, NO_BODY, "more_by_the_body"))
    for name, other, key in pairs:
        both = results[name]["_counts"], results[other]["_counts"]
        for at, ours, theirs in zip(("as_shipped", "at_two"), *both, strict=True):
            more = timeline.bootstrap_paired(ours, theirs, timeline.f1, heard.groups)
            results[name][f"{key}_{at}"] = asdict(more)
    for each in results.values():
        del each["_counts"]
    return results


def said(one: str | Reader, heard: Heard) -> tuple[np.ndarray, float | None]:
    """Return (float32[n, T, L] of each patch by vocabulary("all"), CPU milliseconds a patch)."""
    asked = settings(one if isinstance(one, str) else OPEN)
    if isinstance(one, str):
        told, cpu_ms = read(make_reasoner(asked), heard.posteriors)
        return told[:, :, 0], cpu_ms
    task = Open({}, heard.labels, asked.reasoner.half_life_s)
    scores = reading.read(one, task.readings(heard.streams(), task.residual([])), 0, 0)[:, :, 0]
    ratio, names = asked.reasoner.specific_ratio, vocabulary("all")
    told = [[names.most_specific(names.scores(row), ratio) for row in rows] for rows in scores]
    return np.array(told), None


def teach_bodiless(data: Path, corpus: Path, trial: Path) -> Reader:
    """Return a reader without a body, taught what the shipped open one was, as many epochs."""
    kept = trial / "open-bodiless.pt"
    if kept.exists():
        return torch.load(kept, weights_only=False)
    card = graph.read_card(graph.open_session(registry.find_reasoner(OPEN), 1), Path(OPEN))
    clips = [clip for clip in datasets.load(data / "esc10") if clip.fold != FOLD]
    recipe = Recipe(seed=SEED, epochs=OPEN_EPOCHS, open=True)
    given, task = open_lessons(clips, data, corpus)
    everything = [*given.parts, given.choose]
    torch.manual_seed(SEED)
    made = Reader(
        NoBody(),
        len(categories()),
        len(task.labels),
        task.lags,
        soft=True,
        residual=task.residual(everything),
        floored=task.floored,
    )
    reading.fit(
        made,
        training.lesson_readings(task, everything, recipe),
        SEED,
        int(card.validation["epochs"]),
        kept.with_suffix(".training"),
        lambda *_: None,
        of_epochs=OPEN_EPOCHS,
    )
    torch.save(made, kept)
    return made


def open_lessons(clips: Sequence[Clip], data: Path, corpus: Path) -> tuple[lessons.Lessons, Open]:
    """Return what an open reasoner is taught with, and its task."""
    given = lessons.prepare(
        clips, corpus, None, [SEED, FOLD], Scorer(threads=1), lambda *_: None, cleaner=True
    )
    names = names_of(given.labels, data / "esc50_audioset.csv")
    return given, Open(names, given.labels, config.Settings().reasoner.half_life_s)


def teach_without(data: Path, corpus: Path, trial: Path) -> Path:
    """Return an open reasoner taught as the shipped one, but for LEFT_OUT; trained if not there."""
    out = trial / "open-left-out.onnx"
    if out.exists():
        return out
    clips = [
        clip
        for clip in datasets.load(data / "esc10")
        if clip.fold != FOLD and clip.label not in LEFT_OUT
    ]
    recipe = Recipe(seed=SEED, epochs=OPEN_EPOCHS, open=True)
    given, task = open_lessons(clips, data, corpus)
    kept = training.train_reader(given, task, recipe, out.with_suffix(".training"), lambda *_: None)
    common = {
        "name": out.stem,
        "backbone": "yamnet",
        "hop_s": recipe.hop_s,
        "data": "esc10",
        "folds": sorted({clip.fold for clip in clips}),
        "command": "benchmarks/accuracy.py",
        "version": streamtwl.__version__,
    }
    reader.export(kept.reader, recipe.hop_s, training.reader_card(kept, task, recipe, common), out)
    return out


# Tables


def markdown(results: dict) -> str:
    """Return the tables."""
    lines = ["### Clips: accuracy after so many patches, the trial's folds", ""]
    heard = [*map(str, PATCHES), "all"]
    lines += [f"| method | {' | '.join(heard)} |", "|" + " --- |" * (len(heard) + 1)]
    for name, rows in results["clips"].items():
        cells = [_percent(rows[n]["accuracy"]) for n in heard]
        lines.append(f"| {name} | {' | '.join(cells)} |")
        for other in LINEAR:
            if f"against {other}" in rows["1"]:
                cells = [_percent(rows[n][f"against {other}"]["difference"], "+") for n in heard]
                lines.append(f"| {name} against {other} | {' | '.join(cells)} |")
    lines += ["", "### Clips of fold 4, open vocabulary through the map, top-1", ""]
    lines += ["| evidence | GPT-2 | difference |", "| --- | --- | --- |"]
    of = results["open_clips"]
    difference = _percent(of["difference"]["difference"], "+")
    lines.append(f"| {_percent(of['evidence'])} | {_percent(of[READER])} | {difference} |")
    lines += [""]
    lines += ["### Expected calibration error, scenes of fold 4", ""]
    lines += [f"- {name}: {error:.4f}" for name, error in results["calibration"].items()]
    for key, title in (
        ("open_scenes", "Open vocabulary, scenes of fold 4, through the map"),
        ("left_out", "The same, two classes that were left out of the teaching"),
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
            if "more_by_the_body_at_two" in each:
                by_body = [each[f"more_by_the_body_{at}"] for at in ("as_shipped", "at_two")]
                both = "; ".join(_plain(one, "+") for one in by_body)
                lines += ["", f"{name}, over the same without a body: {both}."]
    lines += [
        "",
        "Decisions as they first come, all labels at the thresholds named; at 2 a minute: at the "
        "threshold at which these scenes, all SNRs together, have two false starts a minute, for "
        "every method alike.",
    ]
    return "\n".join(lines) + "\n"


def plot(clips: dict, path: Path) -> None:
    """Draw the accuracy after so many patches of each method, with its interval."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    heard = [*map(str, PATCHES), "all"]
    for i, (name, rows) in enumerate(clips.items()):
        each = [rows[n]["accuracy"] for n in heard]
        mean = np.array([one["mean"] for one in each])
        ends = np.abs([[one[end] for one in each] for end in ("low", "high")] - mean)
        at = np.arange(len(heard)) + 0.06 * i
        axes.errorbar(at, 100 * mean, 100 * ends, marker="o", capsize=3, label=name)
    axes.set_xticks(range(len(heard)), heard)
    axes.set_xlabel("patches heard of a clip")
    axes.set_ylabel("right, %")
    axes.legend()
    figure.savefig(path, dpi=120)


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
