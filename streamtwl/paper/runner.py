"""Cells, run: a reasoner fitted on a split's patches, and its scores of the test.

A cell is one file, named by all that it depends on; so an experiment that was stopped goes on with
the next cell, and one that was changed runs only what changed.
"""

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from threadpoolctl import threadpool_limits

from streamtwl.errors import ConfigError, StreamtwlError, UsageError
from streamtwl.paper import checkpoints, reasoners
from streamtwl.paper import found as found_file
from streamtwl.paper.cells import OWN_WINDOWS, Cell
from streamtwl.paper.data_sets import DataSet, Split
from streamtwl.paper.found import Found
from streamtwl.paper.plan import Checkpoint, Gpt2, LanguageModel, Plan
from streamtwl.paper.reasoners import Draws, Scores, Task
from streamtwl.training.datasets import Clip
from streamtwl.training.posteriors import (
    Augmentation,
    Scored,
    Scorer,
    prefixes,
    white_noise,
    white_noise_between,
)

VERSION = 2  # of the cells: changed where their figures would be
WHOLE = "whole clip"
SHOWN_CLIPS = 3  # of a split, whose decisions over time are kept for the report
SHOWN_SAMPLES = 16  # K at most, of these and of beginnings and noise
SCORING, CELLS, TRAINING = "scoring clips", "cells", "training"
STAGES = (SCORING, CELLS, TRAINING)
Progress = Callable[[str, int, int], None]  # (what, done, of)


class Runner:
    """Runs cells, or reads those that are there."""

    def __init__(self, plan: Plan, out: Path, progress: Progress) -> None:
        """Results are kept in `out`."""
        self.plan, self._progress = plan, progress
        self._folder = out / "cells"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._scorers: dict[tuple[str, ...], Scorer | StreamtwlError] = {}
        self._scored: dict[Any, Any] = {}
        self._digests: dict[str, str] = {}

    def run(self, cell: Cell) -> Found:
        """Return what a cell found; raises StreamtwlError where it cannot be run."""
        if isinstance(cell.row.spec, Checkpoint):
            card = checkpoints.card_of(checkpoints.file_of(cell.row.spec, cell.split))
            scorer = self.scorer(tuple(checkpoints.windows_of(card)))
        else:
            scorer = self.scorer((cell.backbone,))
        kept = self._folder / f"{self._key(cell, scorer)}.npz"
        if (there := found_file.read(kept)) is not None:
            return there
        with threadpool_limits(1):  # of BLAS: cells run side by side
            if isinstance(cell.row.spec, LanguageModel):
                found = self._zero_shot(cell, cell.row.spec, scorer, kept)
            else:
                found = self._fitted(cell, scorer, kept)
        found_file.write(found, kept)
        kept.with_suffix(".training").unlink(missing_ok=True)
        return found

    def is_absent(self, backbone: str) -> bool:
        """Return whether a backbone was tried and cannot be had."""
        return isinstance(self._scorers.get((backbone,)), StreamtwlError)

    def score_all(self, work: Sequence[Cell]) -> None:
        """Score the clips of cells with every backbone that can be had, so that it is cached.

        Raises AudioError for a clip that is none.
        """
        backbones = dict.fromkeys(cell.backbone for cell in work)
        for backbone in [each for each in backbones if each != OWN_WINDOWS]:
            try:
                scorer = self.scorer((backbone,))
            except ConfigError:
                raise  # a wrong window or hop: it will not be had another time
            except StreamtwlError:
                continue  # its cells say so
            clips = {clip.path: clip for cell in work for clip in cell.data.clips}
            self.score(work[0].data, [*clips.values()], scorer, None)

    def scorer(self, windows: tuple[str, ...]) -> Scorer:
        """Return the scorer of some windows; raises StreamtwlError where weights are absent."""
        if windows not in self._scorers:
            try:
                self._scorers[windows] = Scorer(windows, self.plan.hop_s, threads=1)
            except StreamtwlError as error:
                self._scorers[windows] = error
        found = self._scorers[windows]
        if isinstance(found, StreamtwlError):
            raise found
        return found

    def score(
        self,
        data: DataSet,
        clips: Sequence[Clip],
        scorer: Scorer,
        change: Augmentation | None,
        embeddings: bool = False,
    ) -> list[Scored]:
        """Return the patches of clips, without embeddings where these are not wanted."""
        key = data.name, scorer.key, embeddings, change
        if key not in self._scored:  # what is of another backbone is dropped: it may be large
            self._scored = {k: v for k, v in self._scored.items() if k[:3] == key[:3]}
            self._scored[key] = {}
        there = self._scored[key]
        for done, clip in enumerate(clips, 1):
            if clip.path not in there:
                scored = scorer.score(clip.path, change)
                embedding = scored.embeddings if embeddings else scored.embeddings[:, :0]
                there[clip.path] = Scored(scored.posteriors.copy(), embedding.copy())
            if done % 16 == 0 or done == len(clips):
                self._progress(SCORING, done, len(clips))
        return [there[clip.path] for clip in clips]

    def _key(self, cell: Cell, scorer: Scorer) -> str:
        plan, spec = self.plan, cell.row.spec
        parts = [
            VERSION,
            self._digest(cell.data, cell.split),
            scorer.key,
            spec if isinstance(spec, str) else msgspec.json.encode(spec),
            cell.row.soft,
            cell.seed,
            (plan.patches, plan.snr_db, plan.noise_copies),
        ]
        if isinstance(spec, str) and spec.startswith("names-"):
            parts.append(self._names(cell, scorer))
        if cell.row.sampled or isinstance(spec, LanguageModel):
            parts += [plan.samples, plan.traces]
        if isinstance(spec, Checkpoint):
            parts.append(_version(checkpoints.file_of(spec, cell.split)))
        if isinstance(spec, Gpt2) and Path(spec.trunk).exists():
            files = [Path(spec.trunk)] if Path(spec.trunk).is_file() else Path(spec.trunk).iterdir()
            parts.append(sorted((file.name, *_version(file)) for file in files))
        named = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
        shown = re.sub(r"[^\w.+-]", "_", f"{cell.data.name}-{cell.split.name}")[:60]
        return f"{shown}-{named}"

    def _digest(self, data: DataSet, split: Split) -> str:
        """Return what tells these clips, labels and sides from others."""
        name = f"{data.name}/{split.name}"
        if name not in self._digests:
            sides = [
                [(clip.path.name, *_version(clip.path), clip.labels, clip.source) for clip in side]
                for side in (split.training, split.test)
            ]
            self._digests[name] = hashlib.sha256(repr(sides).encode()).hexdigest()
        return self._digests[name]

    def _names(self, cell: Cell, scorer: Scorer) -> dict[str, list[int]]:
        return reasoners.columns_of(cell.data.labels, cell.source.names, scorer.categories)

    def _fitted(self, cell: Cell, scorer: Scorer, kept: Path) -> Found:
        began = time.process_time()
        if isinstance(cell.row.spec, Checkpoint):
            file = checkpoints.file_of(cell.row.spec, cell.split)
            scores = checkpoints.scores(file, cell.data, scorer)
        else:
            scores = self._fit(cell, scorer, kept)
        fit_s = time.process_time() - began
        conditions = self._conditions(cell, scorer)
        names = [clip.path.name for clip in cell.split.test]
        ks = self.plan.samples if cell.row.sampled else [0]
        shown_k = shown_samples(ks)
        found = Found({}, {}, fit_s=fit_s)
        for k in ks:
            traces = self.plan.traces if k else [1]
            whole = conditions[WHOLE]
            began = time.process_time()
            each = scores(whole, names, Draws(k, max(traces), cell.seed))
            cpu_s = time.process_time() - began
            found.cpu_ms[k] = 1000 * cpu_s / len(whole) / max(traces)
            for m in traces:
                found.scores[k, m, WHOLE] = each[:m].mean(axis=0).astype(np.float16)
        draws = Draws(shown_k, 1, cell.seed)
        for condition, scored in conditions.items():
            if condition != WHOLE:
                each = scores(scored, names, draws)[0]
                found.scores[shown_k, 1, condition] = each.astype(np.float16)
        for number in shown(len(whole)):
            grown = [prefixes([whole[number]], n)[0] for n in _lengths(whole[number])]
            found.shown.append(scores(grown, [names[number]] * len(grown), draws)[0])
        return found

    def _fit(self, cell: Cell, scorer: Scorer, kept: Path) -> Scores:
        copies: list[Augmentation | None] = [None]
        copies += [
            Augmentation("white noise 0 to 25 dB", white_noise_between(0, 25), seed)
            for seed in range(1, self.plan.noise_copies + 1)
        ]
        training, wanted = cell.split.training, _reads_embeddings(cell)
        task = Task(
            cell.data.labels,
            cell.data.several,
            training * len(copies),
            [
                one
                for copy in copies
                for one in self.score(cell.data, training, scorer, copy, wanted)
            ],
            np.tile(cell.data.truth(training), (len(copies), 1)),
            scorer.categories,
            scorer.hop_s,
            cell.seed,
            self._names(cell, scorer),
        )
        if isinstance(cell.row.spec, str):
            return reasoners.fit(cell.row.spec, task, self.plan.samples)
        from streamtwl.paper import gpt2

        assert isinstance(cell.row.spec, Gpt2)
        clips = self._digest(cell.data, cell.split)
        parts = clips, scorer.key, cell.seed, self.plan.noise_copies
        read = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
        return gpt2.fit(
            cell.row.spec,
            cell.row.soft,
            task,
            self.plan.samples,
            kept.with_suffix(".training"),
            self._folder / f"trunk-{read}.pt",
            lambda done, of: self._progress(TRAINING, done, of),
        )

    def _conditions(self, cell: Cell, scorer: Scorer) -> dict[str, list[Scored]]:
        test = cell.split.test
        if isinstance(cell.row.spec, Checkpoint):
            whole = [Scored(scorer.score_file(clip.path), np.empty((0, 0))) for clip in test]
            return {WHOLE: whole} | self._beginnings(whole)
        wanted = _reads_embeddings(cell)
        whole = self.score(cell.data, test, scorer, None, wanted)
        noisy = {
            f"{snr} dB": Augmentation(f"white noise {snr} dB", white_noise(snr))
            for snr in self.plan.snr_db
        }
        found = {WHOLE: whole} | self._beginnings(whole)
        return found | {
            name: self.score(cell.data, test, scorer, change, wanted)
            for name, change in noisy.items()
        }

    def _beginnings(self, whole: Sequence[Scored]) -> dict[str, list[Scored]]:
        return {f"{n} patches": prefixes(whole, n) for n in self.plan.patches}

    def _zero_shot(self, cell: Cell, spec: LanguageModel, scorer: Scorer, kept: Path) -> Found:
        try:
            from streamtwl.paper import zero_shot

            zero_shot.check(spec, cell.data)
        except ModuleNotFoundError as error:
            raise UsageError(f"{error.name} is not installed: it is in the extra `llm`") from None
        found = Found({}, {})
        scored = self.score(cell.data, cell.split.test, scorer, None)
        for k in spec.samples:
            traces = max(self.plan.traces) if k else 1
            each, elapsed_s = zero_shot.scores(
                spec,
                cell.data,
                cell.split.test,
                scored,
                scorer,
                k,
                traces,
                cell.seed,
                kept.with_suffix(f".{k}.jsonl"),
                lambda done, of: self._progress(TRAINING, done, of),
            )
            found.cpu_ms[k] = 1000 * elapsed_s
            for m in self.plan.traces if k else [1]:
                found.scores[k, m, WHOLE] = each[m - 1].astype(np.float16)
        return found


def _reads_embeddings(cell: Cell) -> bool:
    return cell.row.spec == "linear-embedding"


def _lengths(scored: Scored) -> range:
    return range(1, len(scored.posteriors) + 1)


def shown_samples(ks: Sequence[int]) -> int:
    """Return the K at which beginnings, noise and decisions over time are looked at."""
    return max([k for k in ks if k <= SHOWN_SAMPLES] or ks[:1])


def shown(n: int) -> list[int]:
    """Return which of n test clips the report shows."""
    return sorted({round(i) for i in np.linspace(0, n - 1, SHOWN_CLIPS + 2)[1:-1]})


def _version(file: Path) -> tuple[int, int]:
    """Return what changes with a file's content; a data set has too much of that to read it all."""
    found = file.stat()
    return found.st_size, found.st_mtime_ns
