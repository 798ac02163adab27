"""The trial's scenes as posteriors, and the decisions of the product's own reasoners on them."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import timeline
from timeline import Scene, Sound
from trial_judging import read_truth
from trial_methods import SNR_DB, scene_name, slug

from streamtwl import config
from streamtwl.pipeline import hearing
from streamtwl.reasoners import choice, graph, reads
from streamtwl.stages import SAMPLE_RATE, Decision, Patch, Reasoner, Score, Window
from streamtwl.training import fitting, scored_scenes
from streamtwl.training.posteriors import Scorer

FOLD = 4  # which no shipped checkpoint was trained on
ONS = tuple(round(0.02 * i, 2) for i in range(1, 49))
BINS = 10  # of the expected calibration error


def reasoner_of(settings: config.Settings, streams: int = 1) -> Reasoner:
    """Return the reasoner that the settings name, for so many streams."""
    names, loaded = [f"{i}" for i in range(streams)], choice.load(settings)
    if loaded is not None:
        settings = config.with_windows(settings, choice.windows(settings, loaded.card))
    return choice.make(settings, loaded, *hearing(settings), names)


def read(
    reasoner: Reasoner, rows: np.ndarray, scorer: Scorer, windows: Sequence[str] = ()
) -> tuple[np.ndarray, float]:
    """Return float32[n, T, 1 + B, L] of n streams side by side, and CPU milliseconds a patch.

    Takes float32[n, T, F] rows of a scorer. `windows` are those that a reasoner without a file
    reads (the scorer's first). All traces are read, however long it takes. B is 0
    where the reasoner does not look back.
    """
    n, n_patches, _ = rows.shape
    card = getattr(reasoner, "card", None)
    names = reads.windows_of(card.reads if card else []) or windows or scorer.windows[:1]
    decided = []
    cpu_s = 0.0

    def scores_of(row: np.ndarray) -> tuple[Score, ...]:
        posteriors, embeddings = (
            [row[scorer.columns[name, output]] for name in names]
            for output in ("posterior", "embedding")
        )
        return tuple(
            Score(name, 0.0, *outputs)
            for name, *outputs in zip(names, posteriors, embeddings, strict=True)
        )

    for t in range(n_patches):
        position = 15_600 + round(t * scorer.hop_s * SAMPLE_RATE)
        patches = [
            Patch(Window(i, position, 0, t == 0, (), 0.0, None, 0.0), scores_of(rows[i, t]))
            for i in range(n)
        ]
        began = time.process_time()
        decisions = reasoner.step(patches)
        while not reasoner.settled:
            decisions = reasoner.refine(np.inf) or decisions
        cpu_s += time.process_time() - began
        decided.append([said(one) for one in decisions])
    return np.array(decided, np.float32).swapaxes(0, 1), 1000 * cpu_s / n_patches / n


def said(decision: Decision) -> np.ndarray:
    """Return float32[1 + B, L] of a hop and of those before it, without labels that yield."""
    rows = [decision.specific[None]]
    if decision.earlier is not None:
        rows.append(decision.earlier[:, 1])
    return np.concatenate(rows)


def settings(reasoner: str, **trace: Any) -> config.Settings:
    """Return the pipeline's settings with a reasoner, all its traces read before a decision."""
    shipped = config.load(config.find("yamnet"))
    changes = {"reasoner.file": reasoner, "labels": "all", "trace.think": "fixed"}
    changes |= {f"trace.{key}": value for key, value in trace.items()}
    return config.override(shipped, changes)


class TrialScenes:
    """The trial's scenes of a fold: rows of all, what sounds in them, what might sound."""

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
        rows = [scorer.score_file(file.with_suffix(".flac")) for file in files]
        self.scorer = scorer
        self.truths: list[list[Sound]] = []
        for file in files:
            truth, self.duration_s = read_truth(file)
            self.truths.append(truth)
        n_patches = min(map(len, rows))
        self.rows = np.stack([each[:n_patches] for each in rows])
        self.positions = scored_scenes.positions(n_patches, scorer.hop_s, self.duration_s)
        self.groups = [number for number, _ in self.names]
        file = trial / f"fold{fold}" / f"{slug(fitting.FILTER)}.onnx"
        self.labels = graph.read_card(graph.open_session(file, 1), file).labels

    def scenes(self, scores: np.ndarray, labels: list[str], on: float, off: float) -> list[Scene]:
        """Return scenes with the events of float32[n, T, L] scores, of these labels only."""
        decided = []
        for (number, snr_db), truth, row in zip(self.names, self.truths, scores, strict=True):
            scene = Scene(
                name=scene_name(self.fold, number, snr_db),
                duration_s=self.duration_s,
                truth=[sound for sound in truth if sound.label in labels],
                events=[],
                positions=self.positions,
                times_s=self.positions / SAMPLE_RATE,
                scores=row,
                labels=labels,
                named=[None] * len(row),
            )
            decided.append(timeline.retrack(scene, on, off))
        return decided

    def streams(self, read: Sequence[reads.Read]) -> fitting.SceneArrays:
        """Return them as arrays, and of their rows what is read; nothing: the first posterior."""
        read = read or [(self.scorer.windows[0], "posterior")]
        made = [
            scored_scenes.ScoredScene(
                "", self.duration_s, self.positions, self.scorer.pick(rows, read), truth
            )
            for rows, truth in zip(self.rows, self.truths, strict=True)
        ]
        return fitting.arrays(made, self.labels, self.scorer.is_posterior(read))


def matched(test_scenes: TrialScenes, scores: np.ndarray, labels: list[str], share: float) -> dict:
    """Return the in-force F1 at two false starts a minute, with its interval, and the threshold.

    The lowest threshold that these scenes allow, or the highest there is; for every method alike.
    """
    minutes = len(test_scenes.names) * test_scenes.duration_s / 60
    scenes: list[Scene] = []
    for on in sorted(ONS, reverse=True):
        more = test_scenes.scenes(scores, labels, on, share * on)
        more_starts = sum(map(timeline.false_starts, more)) / minutes
        if scenes and more_starts > 2.0:
            break
        scenes, chosen, starts = more, on, more_starts
    counts = np.array([timeline.agreement(scene) for scene in scenes])
    f1 = timeline.bootstrap(counts, timeline.f1, test_scenes.groups)
    return {"f1": asdict(f1), "on": chosen, "false_starts_per_minute": starts, "counts": counts}


def expected_calibration_error(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean distance of scores from outcomes in bins, weighted by how full they are.

    Guo et al., On calibration of modern neural networks, ICML 2017, with BINS bins of equal width.
    """
    scores, truth = scores.ravel(), truth.ravel()
    which = np.minimum((scores * BINS).astype(int), BINS - 1)
    count = np.bincount(which, minlength=BINS)
    gap = np.bincount(which, scores - truth, minlength=BINS)
    return float(np.abs(gap).sum() / count.sum())
