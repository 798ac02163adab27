"""Labelled clips: ESC-50's layout, or a folder per class; split so that no recording leaks."""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from streamtwl.errors import UsageError

AUDIO = {".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".opus"}
FOLDS = 5


@dataclass(frozen=True, slots=True)
class Clip:
    """One labelled recording."""

    path: Path
    label: str
    source: str  # the recording that it was cut from: never in training and test at once
    fold: int


def load(folder: Path, seed: int = 0) -> list[Clip]:
    """Return the clips of a data set, in the order of their paths.

    ESC-50's layout (`meta/*.csv` with filename, fold, category and src_file, sound in `audio/`)
    keeps its published folds. A folder per class gets five folds, stratified by class, every file
    taken for a recording of its own; where files are cut from one recording, use ESC-50's layout,
    which can say so. Raises UsageError for anything else.
    """
    if not folder.is_dir():
        raise UsageError(f"no such folder: {folder}")
    tables = sorted((folder / "meta").glob("*.csv"))
    clips = _published(folder, tables[0]) if tables else _folder_per_class(folder, seed)
    if len({clip.label for clip in clips}) < 2:
        raise UsageError(
            f"{folder} is no data set: it takes ESC-50's layout (meta/*.csv and audio/), "
            "or a folder per class with five sound files or more in each"
        )
    return sorted(clips, key=lambda clip: clip.path)


def split(clips: Sequence[Clip], test_fold: int | None) -> tuple[list[Clip], list[Clip]]:
    """Return (training, test) clips; raises UsageError if they share a source recording."""
    training = [clip for clip in clips if clip.fold != test_fold]
    test = [clip for clip in clips if clip.fold == test_fold]
    refuse_leaks(training, test)
    return training, test


def validation_split(clips: Sequence[Clip], seed: int) -> tuple[list[Clip], list[Clip]]:
    """Split training clips into (four fifths to fit, a fifth to choose by), by source."""
    labels, sources = [clip.label for clip in clips], [clip.source for clip in clips]
    recordings: dict[str, set[str]] = {}
    for clip in clips:
        recordings.setdefault(clip.label, set()).add(clip.source)
    fewest, scarce = min((len(of), label) for label, of in recordings.items())
    if fewest < 2:
        raise UsageError(f"{scarce} has clips of one recording only: it takes two or more")
    folds = StratifiedGroupKFold(min(FOLDS, fewest), shuffle=True, random_state=seed)
    fit, choose = next(folds.split(labels, labels, sources))
    return [clips[i] for i in fit], [clips[i] for i in choose]


def refuse_leaks(training: Sequence[Clip], test: Sequence[Clip]) -> None:
    """Raise UsageError if a source recording is in both."""
    shared = {clip.source for clip in training} & {clip.source for clip in test}
    if shared:
        some = ", ".join(sorted(shared)[:3])
        raise UsageError(
            f"training and test share {len(shared)} source recording(s), as {some}: "
            "put all clips of a recording into one fold"
        )


def _published(folder: Path, table: Path) -> list[Clip]:
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    needed = {"filename", "fold", "category"}
    if not rows or not needed <= rows[0].keys():
        raise UsageError(f"{table} takes the columns {', '.join(sorted(needed))}, src_file")
    return [
        Clip(
            folder / "audio" / row["filename"],
            row["category"],
            row.get("src_file") or row["filename"],
            int(row["fold"]),
        )
        for row in rows
    ]


def _folder_per_class(folder: Path, seed: int) -> list[Clip]:
    paths = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in AUDIO)
    labels = [path.parent.name for path in paths]
    if not paths or min(Counter(labels).values()) < FOLDS:
        return []
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    fold_of: dict[int, int] = {}
    for fold, (_, held_out) in enumerate(folds.split(paths, labels), 1):
        fold_of |= dict.fromkeys(held_out.tolist(), fold)
    return [
        Clip(path, label, str(path.relative_to(folder)), fold_of[i])
        for i, (path, label) in enumerate(zip(paths, labels, strict=True))
    ]
