"""What a batch writes: one result per file, as JSON lines, CSV or Audacity's label tracks.

A result is written when its file has ended, and is complete from then on.
"""

import contextlib
import io
import itertools
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TextIO

import msgspec
from msgspec import UNSET, UnsetType

from streamtwl import earlier
from streamtwl.errors import SinkError, UsageError
from streamtwl.file_names import readable
from streamtwl.messages import Scored
from streamtwl.recordings import Found

NAME_BYTES = 255  # the longest name that file systems take


class Span(msgspec.Struct):
    """One event in a file."""

    label: str
    start_s: float
    end_s: float
    peak: float
    mean: float
    start_time: str | UnsetType | None = UNSET  # ISO 8601, of the wall clock, with --clock
    end_time: str | UnsetType | None = UNSET


class Labelled(msgspec.Struct):
    """The result for one file."""

    file: str
    duration_s: float = 0.0
    label: str | None = None  # the strongest over the whole file, if any was in force
    top: list[Scored] = []  # mean confidence over the file's decisions
    events: list[Span] = []
    bad_samples: int = 0  # NaN, infinite or absurd, taken as zero
    skipped_packets: int = 0  # damaged
    error: str | None = None
    start_time: str | UnsetType | None = UNSET  # None: unknown


def form_of(output: Path | None, folder: Path | None) -> str:
    """Return the format that follows from the name of an output file, or from a folder."""
    if folder is not None:
        return "audacity"
    if output is None:
        return "jsonl"
    form = output.suffix.lstrip(".")
    if form not in ("jsonl", "csv", "parquet"):
        raise UsageError(f"-o {output}: it takes a name that ends in .jsonl, .csv or .parquet")
    return form


class Writer:
    """Writes results as they come: to one file, to one file each, or to standard output.

    With `resume`, complete results of an earlier run are kept; `missing` are the files without one.
    `dated`: results have wall-clock times. Raises SinkError where results cannot be written,
    UsageError where the output exists and is something else.
    """

    def __init__(
        self,
        output: Path | None,
        folder: Path | None,
        form: str,
        files: Sequence[Found],
        *,
        resume: bool = False,
        dated: bool = False,
    ) -> None:
        self._form = form
        self._folder = folder
        self._target = folder or output or Path("standard output")
        self._header = earlier.csv_text([earlier.columns(dated)]) if form == "csv" else ""
        self._tracks: list[Path] = []
        self._output = output
        self._out: TextIO = sys.stdout
        self._kept: set[str] = set()
        done: list[int] = []
        if output is not None:
            _spare([output], files, "-o")
        with self._named_errors():
            if folder is not None:
                suffix = ".txt" if form == "audacity" else f".{form}"
                self._tracks = _tracks([file.place for file in files], folder, suffix)
                _spare(self._tracks, files, "-d")
                done = self._whole_tracks(files, dated) if resume else []
            elif output is not None and resume:
                self._kept = earlier.keep_whole(output, form, dated)
                done = [i for i, file in enumerate(files) if readable(str(file.path)) in self._kept]
        self.prints = output is None and folder is None  # to standard output
        self.missing = sorted(set(range(len(files))) - set(done))

    def __enter__(self) -> "Writer":
        with self._named_errors():
            if self._folder is not None:
                self._folder.mkdir(parents=True, exist_ok=True)
                return self
            if self._output is not None:
                mode: Literal["a", "w"] = "a" if self._kept else "w"
                self._out = self._output.open(mode, encoding="utf-8", newline="")
            elif isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(encoding="utf-8")  # JSON is, whatever the locale
            self._out.write("" if self._kept else self._header)
        return self

    def __exit__(self, *_error: object) -> None:
        if self._out is not sys.stdout:
            with self._named_errors():
                self._out.close()

    def write(self, number: int, result: Labelled) -> None:
        """Write the result of file `number`; a label track only where the file could be read."""
        text = _FORMS[self._form](result)
        with self._named_errors():
            if self._folder is None:
                self._out.write(text)
                self._out.flush()
            elif self._form != "audacity" or result.error is None:
                self._replace(self._tracks[number], self._header + text)

    def _replace(self, track: Path, text: str) -> None:
        """Write a track that is complete or absent, whenever the program is killed."""
        assert self._folder is not None
        track.parent.mkdir(parents=True, exist_ok=True)
        part = self._folder / f".streamtwl-{os.getpid()}.part"
        try:
            part.write_text(text, encoding="utf-8", newline="")
            part.replace(track)
        finally:
            part.unlink(missing_ok=True)

    def _whole_tracks(self, files: Sequence[Found], dated: bool) -> list[int]:
        """Return which files have a result file of an earlier run.

        A label track does not name its recording: where two files share a stem, neither has one.
        """
        if self._form == "audacity":
            stems = Counter(file.place.with_suffix("") for file in files)
            alone = [stems[file.place.with_suffix("")] == 1 for file in files]
            return [i for i, track in enumerate(self._tracks) if alone[i] and track.is_file()]
        names = [readable(str(file.path)) for file in files]
        return [
            i
            for i, track in enumerate(self._tracks)
            if earlier.is_whole(track, self._form, names[i], dated)
        ]

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            raise SinkError(f"cannot write {self._target}: {error.strerror}") from None


def _spare(targets: Iterable[Path], files: Iterable[Found], option: str) -> None:
    """Raise UsageError where a result would overwrite a recording."""
    recordings = {os.path.realpath(file.path) for file in files}
    for target in targets:
        if os.path.realpath(target) in recordings:
            raise UsageError(f"{option}: {target} is one of the recordings: choose another path")


def _tracks(places: Iterable[Path], folder: Path, suffix: str) -> list[Path]:
    """Return a path in `folder` for each file, named after it; numbered where a name is taken."""
    tracks: dict[Path, None] = {}
    candidates: dict[tuple[Path, str], Iterator[Path]] = {}
    for place in places:
        named = _numbered(folder / place.parent, place.stem, suffix)
        untried = candidates.setdefault((place.parent, place.stem), named)
        tracks[next(path for path in untried if path not in tracks)] = None
    return list(tracks)


def _numbered(folder: Path, stem: str, suffix: str) -> Iterator[Path]:
    for number in itertools.count(1):
        ending = suffix if number == 1 else f"-{number}{suffix}"
        short = stem
        while len(os.fsencode(short + ending)) > NAME_BYTES:
            short = short[:-1]
        yield folder / f"{short}{ending}"


def _jsonl(result: Labelled) -> str:
    return msgspec.json.encode(result).decode() + "\n"


def _csv(result: Labelled) -> str:
    """Return a row per event, and one for a file without events."""
    rows: list[tuple] = []
    for event in result.events:
        dates = () if event.start_time is UNSET else (event.start_time, event.end_time)
        rows.append((event.label, event.start_s, event.end_s, event.peak, event.mean, "", *dates))
    if result.error or not rows:
        dates = () if result.start_time is UNSET else ("", "")
        rows.append(("", "", "", "", "", result.error, *dates))
    return earlier.csv_text((result.file, *row) for row in rows)


def _audacity(result: Labelled) -> str:
    """Return Audacity's label track: start, end and label, separated by tabs."""
    spans = ((f"{e.start_s:.6f}", f"{e.end_s:.6f}", e.label) for e in result.events)
    return earlier.csv_text(spans, "\t")


_FORMS = {"jsonl": _jsonl, "csv": _csv, "audacity": _audacity}
