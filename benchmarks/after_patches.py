"""Clips of ESC-10, after so many patches of each: reasoners beside linear models."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from live_trial import GPT2, right_names, slug
from matplotlib.figure import Figure
from rich.progress import track
from trial_scenes import FOLD, read, reasoner_of, settings

from streamtwl.bench import clip_baselines, compare
from streamtwl.training import datasets
from streamtwl.training.datasets import Clip
from streamtwl.training.fitting import FILTER
from streamtwl.training.posteriors import Scorer, prefixes

PATCHES = (1, 2, 3, 5)
LINEAR = ("LR, root of mean posterior", "LR, log of mean posterior")
OPEN = "open"


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


def open_clips(data: Path, scorer: Scorer) -> dict:
    """Return top-1 of fold 4's clips through the map, the open reasoner beside the evidence."""
    clips = [clip for clip in datasets.load(data / "esc10") if clip.fold == FOLD]
    rows = [scorer.score_file(clip.path) for clip in clips]
    right = right_names(data)
    hits = {}
    for name, file in (("evidence", "evidence"), (GPT2, OPEN)):
        predicted = clip_labels(file, rows, scorer)
        hits[name] = np.array(
            [s in right[c.label] for s, c in zip(predicted, clips, strict=True)], float
        )
    sources = [clip.source for clip in clips]
    return {
        **{name: asdict(compare.mean_interval(each, sources)) for name, each in hits.items()},
        "difference": asdict(compare.paired(hits[GPT2], hits["evidence"], sources)),
    }


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
