"""The files of a batch: those named, and the recordings in the folders named."""

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from streamtwl.audio.recording import STDIN
from streamtwl.errors import AudioError

SUFFIXES = (  # of sound and of video, as FFmpeg reads them
    ".3g2", ".3gp", ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".asf", ".au",
    ".avi", ".bwf", ".caf", ".dff", ".dsf", ".dts", ".eac3", ".flac", ".flv", ".m2ts", ".m4a",
    ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp2", ".mp3", ".mp4", ".mpc", ".mpeg", ".mpg",
    ".mts", ".oga", ".ogg", ".ogv", ".opus", ".rf64", ".snd", ".spx", ".tak", ".ts", ".tta",
    ".voc", ".vob", ".w64", ".wav", ".wave", ".webm", ".wma", ".wmv", ".wv",
)  # fmt: skip


class Found(NamedTuple):
    """A file of the batch, and where its own result file lies below the folder for them."""

    path: Path
    place: Path


def find(arguments: Iterable[Path]) -> tuple[list[Found], Counter[str]]:
    """Return the files that arguments name, each once, and what was skipped in folders.

    A folder is searched with its subfolders, in the order of their names, for names that end like
    a recording's. One that cannot be listed is returned itself, so that its result says so.
    """
    paths = [STDIN if path == Path("-") else path for path in arguments]
    folders = {path for path in paths if _is_folder(path)}
    base = os.path.commonpath([_absolute(folder) for folder in folders]) if folders else ""
    passed_over: Counter[str] = Counter()
    found: dict[str, Found] = {}
    for path in paths:
        if path not in folders:
            found.setdefault(_absolute(path), Found(path, Path(path.name)))
            continue
        for each in _recordings_in(path, passed_over):
            below = os.path.relpath(_absolute(each), base)
            place = Path(each.name if below == os.curdir else below)
            found.setdefault(_absolute(each), Found(each, place))
    return list(found.values()), passed_over


def size(path: Path) -> int:
    """Return the bytes of a file; of one that cannot be looked at, or is none, 0."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _absolute(path: Path) -> str:
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        raise AudioError(f"{path}: the working folder is gone, go to another") from None


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return False


def _recordings_in(folder: Path, passed_over: Counter[str]) -> Iterator[Path]:
    unlisted: list[Path] = []
    for here, subfolders, names in os.walk(
        folder, onerror=lambda error: unlisted.append(Path(error.filename))
    ):
        yield from unlisted
        unlisted.clear()
        for name in [each for each in subfolders if each.startswith(".")]:
            passed_over["hidden"] += 1
            subfolders.remove(name)
        for _ in [each for each in subfolders if Path(here, each).is_symlink()]:
            passed_over["linked folders"] += 1
        subfolders.sort()
        for name in sorted(names):
            why = _why_not(Path(here, name))
            if why is None:
                yield Path(here, name)
            else:
                passed_over[why] += 1
    yield from unlisted


def _why_not(path: Path) -> str | None:
    if path.name.startswith("."):
        return "hidden"
    if path.suffix.lower() not in SUFFIXES:
        return "not named like recordings"
    try:
        mode = path.stat().st_mode
    except OSError:
        return None  # its result says what is wrong
    return None if stat.S_ISREG(mode) else "pipes or devices"
