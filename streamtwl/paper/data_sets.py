"""Data sets of an experiment: labels, published folds, no recording on both sides of a split."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streamtwl.errors import UsageError
from streamtwl.paper.plan import Data, data_name
from streamtwl.training import datasets
from streamtwl.training.datasets import Clip

DEVELOPMENT, EVALUATION = 1, 2  # FSD50K's two parts, as folds
PARTS = {"dev": DEVELOPMENT, "eval": EVALUATION}


@dataclass(frozen=True, slots=True)
class Split:
    """What is trained on, and what is tested on."""

    name: str
    training: list[Clip]
    test: list[Clip]
    left_out: int  # test clips whose recording also stands in training


@dataclass(frozen=True, slots=True)
class DataSet:
    """Clips with one label each, or, where `several`, with any number."""

    name: str
    labels: list[str]
    clips: list[Clip]
    splits: list[Split]
    several: bool

    @property
    def tested(self) -> list[Clip]:
        """The test clips of all splits, in their order."""
        return [clip for split in self.splits for clip in split.test]

    def truth(self, clips: Sequence[Clip]) -> np.ndarray:
        """Return bool[n, L], the labels of clips."""
        index = {label: i for i, label in enumerate(self.labels)}
        found = np.zeros((len(clips), len(self.labels)), bool)
        for row, clip in zip(found, clips, strict=True):
            row[[index[label] for label in clip.labels]] = True
        return found


def load(data: Data) -> DataSet:
    """Return a data set in ESC-50's or FSD50K's layout, or a folder per class.

    Test clips whose recording also stands in the training folds are left out. Raises UsageError.
    """
    folder = Path(data.folder)
    tables = _ground_truth(folder)
    clips = [*_fsd50k(folder, tables)] if tables else datasets.load(folder)
    clips = _limited(clips, data.clips)
    train, test = data.train, data.test
    if tables and not test:
        train, test = [DEVELOPMENT], [EVALUATION]
    folds = {clip.fold for clip in clips}
    for fold in (*train, *test):
        if fold not in folds:
            there = ", ".join(map(str, sorted(folds)))
            raise UsageError(f"{folder}: no fold {fold}: it has {there}")
    turns = (test or sorted(folds))[: data.folds or None]
    pairs = [(train, test)] if train else [([*(folds - {fold})], [fold]) for fold in turns]
    splits = [_split(clips, *pair) for pair in pairs]
    if tables and len({frozenset(clip.labels) for split in splits for clip in split.test}) < 2:
        raise UsageError(f"{folder}: all test clips have the same labels: it takes others as well")
    labels = sorted({label for clip in clips for label in clip.labels})
    return DataSet(data_name(data), labels, clips, splits, bool(tables))


def validation_split(
    clips: Sequence[Clip], seed: int, several: bool
) -> tuple[list[Clip], list[Clip]]:
    """Split training clips by recording into (four fifths to fit, a fifth to choose by)."""
    if not several:
        return datasets.validation_split(clips, seed)
    sources = sorted({clip.source for clip in clips})
    drawn = np.random.default_rng(seed).permutation(sources)
    chosen = set(drawn[: max(1, len(drawn) // datasets.FOLDS)].tolist())
    fit = [clip for clip in clips if clip.source not in chosen]
    return fit, [clip for clip in clips if clip.source in chosen]


def _split(clips: Sequence[Clip], train: Sequence[int], test: Sequence[int]) -> Split:
    training = [clip for clip in clips if clip.fold in train]
    sources = {clip.source for clip in training}
    tested = [clip for clip in clips if clip.fold in test]
    kept = [clip for clip in tested if clip.source not in sources]
    name = "+".join(map(str, test))
    known = {label for clip in training for label in clip.labels}
    unknown = sorted({label for clip in kept for label in clip.labels} - known)
    if unknown:
        raise UsageError(
            f"{unknown[0]} is in the test folds {name}, but not in those to train on: "
            "choose other folds"
        )
    if not kept:
        raise UsageError(f"no test clip of the folds {name} is of a recording of its own")
    return Split(name, training, kept, len(tested) - len(kept))


def _ground_truth(folder: Path) -> dict[str, Path]:
    """Return FSD50K's tables, dev and eval; empty where it is another layout."""
    for place in (folder / "FSD50K.ground_truth", folder / "ground_truth"):
        tables = {part: place / f"{part}.csv" for part in PARTS}
        if all(table.is_file() for table in tables.values()):
            return tables
    return {}


def _fsd50k(folder: Path, tables: dict[str, Path]) -> Iterator[Clip]:
    """Yield the clips of FSD50K: fname, labels set off by commas; a Freesound sound each."""
    for part, table in tables.items():
        places = [folder / f"FSD50K.{part}_audio", folder / f"{part}_audio"]
        sounds = next((place for place in places if place.is_dir()), None)
        if sounds is None:
            raise UsageError(f"{folder} has {table.name}, but no folder {places[0].name}")
        there = {file.stem: file for file in sounds.iterdir()}
        for row in datasets.read_table(table):
            labels = dict.fromkeys(filter(None, (row.get("labels") or "").split(",")))
            if not row.get("fname") or not labels:
                raise UsageError(f"{table} takes the columns fname and labels, in every row")
            path = there.get(row["fname"])
            if path is None:
                raise UsageError(f"{table} names {row['fname']}, which {sounds} has not")
            first, *more = labels
            source = row.get("src_file") or row["fname"]
            yield Clip(path, first, source, PARTS[part], tuple(more))


def _limited(clips: list[Clip], limit: int) -> list[Clip]:
    """Return the first so many clips of each class and fold, or few more; 0: all.

    One with several labels is there for each of them that has too few clips so far.
    """
    taken: Counter[tuple[str, int]] = Counter()
    kept = []
    for clip in clips:
        keys = [(label, clip.fold) for label in clip.labels]
        if not limit or any(taken[key] < limit for key in keys):
            kept.append(clip)
            taken.update(keys)
    return kept
