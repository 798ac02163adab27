"""The labelled sounds of the live trial: ESC-10 by its five folds, kitchen20 by its one split."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from streamtwl.ontology import everyday
from streamtwl.training import datasets
from streamtwl.training.datasets import Clip

KITCHEN_TRAINING = (1, 2, 3, 5)
KITCHEN_TEST = (6, 7, 8, 9)  # as one fold, the first of them


@dataclass(frozen=True, slots=True)
class Sounds:
    """A data set in the folder that holds them all."""

    data: Path  # ../shared/data
    name: str

    @property
    def folds(self) -> Sequence[int]:
        """The test folds."""
        return FOLDS[self.name]

    @property
    def labels(self) -> list[str]:
        """Its classes, sorted."""
        return sorted({clip.label for clip in self.clips})

    @property
    def clips(self) -> list[Clip]:
        """All its clips, without those for testing whose recording is also trained on."""
        return _clips(self.data, self.name)

    @property
    def right_names(self) -> dict[str, frozenset[str]]:
        """The names that are right for each class, everyday ones too; none where AudioSet has none.

        For the judging of an open vocabulary.
        """
        return _right_names(self.data, self.name)


FOLDS = {"esc10": (1, 2, 3, 4, 5), "kitchen20": KITCHEN_TEST[:1]}


@cache
def _clips(data: Path, name: str) -> list[Clip]:
    clips = datasets.load(data / name)
    if name != "kitchen20":
        return clips
    trained = {clip.source for clip in clips if clip.fold in KITCHEN_TRAINING}
    return [
        replace(clip, fold=KITCHEN_TEST[0]) if clip.fold in KITCHEN_TEST else clip
        for clip in clips
        if clip.fold in KITCHEN_TRAINING
        or (clip.fold in KITCHEN_TEST and clip.source not in trained)
    ]


@cache
def _right_names(data: Path, name: str) -> dict[str, frozenset[str]]:
    own = Path(__file__).with_name("kitchen20_audioset.csv")
    with (own if name == "kitchen20" else data / "esc50_audioset.csv").open(newline="") as file:
        named = {row["category"]: set(row["audioset"].split("|")) for row in csv.DictReader(file)}
    right = {clip.label: named.get(clip.label, set()) - {""} for clip in _clips(data, name)}
    return {
        label: frozenset(names | {sound for sound, of in everyday().items() if names & {*of}})
        for label, names in right.items()
    }
