"""Labelled clips: ESC-50's layout, or a folder per class; split so that no recording leaks."""

import csv
import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from streamtwl.errors import UsageError

_log = logging.getLogger(__name__)

AUDIO = {".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".opus"}
FOLDS = 5
FOLD_DIGITS = 18


@dataclass(frozen=True, slots=True)
class Clip:
    """One labelled recording."""

    path: Path
    label: str
    source: str  # the recording that it was cut from: never in training and test at once
    fold: int
    more: tuple[str, ...] = ()  # labels beside the first, of data where several may sound at once

    @property
    def labels(self) -> tuple[str, ...]:
        """All its labels."""
        return (self.label, *self.more)


def load(folder: Path, seed: int = 0) -> list[Clip]:
    """Return the clips of a data set, in the order of their paths.

    ESC-50's layout (`meta/*.csv` with filename, fold, category and src_file, sound in `audio/`)
    keeps its published folds; without the column fold it gets five, no src_file in two of them. A
    folder per class gets five folds, every file taken for a recording of its own; where files are
    cut from one recording, use ESC-50's layout, which can say so. Folds are stratified by class.
    Files that are not AUDIO are passed over with a warning. Raises UsageError for anything else.
    """
    if not os.path.isdir(folder):
        raise UsageError(f"no such folder: {folder}")
    tables = sorted(filter(os.path.isfile, (folder / "meta").glob("[!.]*.csv")))
    clips = _published(folder, tables[0], seed) if tables else _folder_per_class(folder, seed)
    if len({clip.label for clip in clips}) < 2:
        raise UsageError(
            f"{folder} is no data set: it takes ESC-50's layout (meta/*.csv and audio/), "
            "or a folder per class with five sound files or more in each"
        )
    refuse_twice(clip.path for clip in clips)
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


def refuse_twice(paths: Iterable[Path]) -> None:
    """Raise UsageError for a file that is there twice: it would be on both sides of a split."""
    known: dict[str, Path] = {}
    for path in paths:
        other = known.setdefault(os.path.realpath(path), path)
        if other is not path:
            raise UsageError(f"{path} is there twice, the first time as {other}: leave one out")


def read_table(table: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file; raises UsageError where it is none."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise UsageError(f"{table} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{table} is no table: CSV in UTF-8 ({error})") from None


def _published(folder: Path, table: Path, seed: int) -> list[Clip]:
    rows = read_table(table)
    needed = {"filename", "category"}
    if not rows or not all(row.get(name) for row in rows for name in needed):
        columns = f"{', '.join(sorted(needed))}, fold, src_file"
        raise UsageError(f"{table} takes the columns {columns}, the first two in every row")
    sounds = folder / "audio"
    absent = [row["filename"] for row in rows if not os.path.isfile(sounds / row["filename"])]
    if absent:
        raise UsageError(f"{table} names {len(absent)} file(s) that {sounds} has not: {absent[0]}")
    labels = [row["category"] for row in rows]
    sources = [row.get("src_file") or row["filename"] for row in rows]
    if "fold" in rows[0]:
        wrong = [row["fold"] for row in rows if not _is_fold(row["fold"])]
        if wrong:
            raise UsageError(f"{table}: the fold '{str(wrong[0])[:20]}' is no number of a fold")
        folds = [int(row["fold"]) for row in rows]
    else:
        folds = _folds_by_source(table, labels, sources, seed)
    return [
        Clip(sounds / row["filename"], label, source, fold)
        for row, label, source, fold in zip(rows, labels, sources, folds, strict=True)
    ]


def _is_fold(said: str | None) -> bool:
    return said is not None and said.isdecimal() and len(said) <= FOLD_DIGITS


def _folds_by_source(
    table: Path, labels: Sequence[str], sources: Sequence[str], seed: int
) -> list[int]:
    """Return five folds, stratified by class, no recording in two of them."""
    recordings = Counter(label for label, _ in set(zip(labels, sources, strict=True)))
    scarce = min(recordings, key=lambda label: recordings[label])
    if recordings[scarce] < FOLDS:
        raise UsageError(
            f"{table} has no column fold, and {scarce} is of {recordings[scarce]} recording(s): "
            f"it takes {FOLDS} to make folds"
        )
    folds = [0] * len(labels)
    splits = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splits.split(labels, labels, sources), 1):
        for i in held_out:
            folds[i] = fold
    return folds


def _folder_per_class(folder: Path, seed: int) -> list[Clip]:
    found = sorted(filter(os.path.isfile, folder.glob("[!.]*/[!.]*")))
    paths = [path for path in found if path.suffix.lower() in AUDIO]
    labels = [path.parent.name for path in paths]
    others = [path for path in found if path.suffix.lower() not in AUDIO]
    if others:
        said = _passed_over(folder, others, set(labels))
        if not paths:
            raise UsageError(said)
        _log.warning(said)
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


def _passed_over(folder: Path, others: Sequence[Path], labels: set[str]) -> str:
    """Say which files of a data set are not read."""
    kinds = Counter(path.suffix.lower() or "no ending" for path in others).most_common()
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds)
    empty = sorted({path.parent.name for path in others} - labels)
    nothing = f", all there is of {', '.join(empty)}" if empty else ""
    return (
        f"{folder}: {len(others)} file(s) passed over ({counts}){nothing}; "
        f"it reads {', '.join(sorted(AUDIO))}: convert the others, as with ffmpeg"
    )
