"""Recordings labelled as fast as the machine can: one result a file, whatever happens to it."""

import contextlib
import csv
import io
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

import msgspec
import numpy as np

from streamtwl.audio.block import SAMPLE_RATE
from streamtwl.audio.intake import Intake, Stream
from streamtwl.audio.recording import Recording
from streamtwl.errors import SinkError, UsageError
from streamtwl.events import Sounding
from streamtwl.messages import Scored
from streamtwl.pipeline import Outcome, Pipeline

WIDTH = 8  # files at once, sharing model calls
TOP = 5


class Span(msgspec.Struct):
    """One event in a file."""

    label: str
    start_s: float
    end_s: float
    peak: float
    mean: float


class Labelled(msgspec.Struct):
    """The result for one file."""

    file: str
    duration_s: float = 0.0
    label: str | None = None  # the strongest over the whole file, if any was in force
    top: list[Scored] = []  # mean confidence over the file's decisions
    events: list[Span] = []
    bad_samples: int = 0  # NaN, infinite or absurd, taken as zero
    error: str | None = None


class _File:
    """What is gathered of one file while it runs."""

    def __init__(self, stream: Stream, n_labels: int) -> None:
        self.stream = stream
        self.total = np.zeros(n_labels)
        self.decisions = 0
        self.named = False
        self.events: dict[int, Sounding] = {}  # by number, as last told


def label_files(files: Sequence[Path], pipeline: Pipeline) -> Iterator[tuple[int, Labelled]]:
    """Yield (index, result) of each file as it ends; the pipeline's streams are the files."""
    intake = Intake((Recording(file.name, file) for file in files), WIDTH)
    running: dict[int, _File] = {}
    done: list[int] = []

    def take(outcome: Outcome) -> None:
        gathered = running[outcome.stream]
        gathered.events |= {event.number: event for _, event in outcome.changes}
        if outcome.last:
            done.append(outcome.stream)
        elif outcome.decision is not None and outcome.final:
            gathered.total += outcome.decision.specific
            gathered.decisions += 1
            gathered.named |= outcome.decision.label is not None

    pipeline.subscribe(take)
    intake.start()
    with contextlib.closing(intake):
        for blocks in intake.ticks():
            for stream in intake.streams:
                running.setdefault(stream.number, _File(stream, len(pipeline.reasoner.labels)))
            pipeline.push(blocks)
            while done:
                number = done.pop()
                yield number, _result(files[number], running.pop(number), pipeline.reasoner.labels)


def form_of(output: Path | None, folder: Path | None) -> str:
    """Return the format that the name of an output file, or a folder, asks for."""
    if folder is not None:
        return "audacity"
    if output is None:
        return "jsonl"
    form = output.suffix.lstrip(".")
    if form not in ("jsonl", "csv"):
        raise UsageError(f"-o {output}: it takes a name that ends in .jsonl or .csv")
    return form


class Writer:
    """Writes results as they come: to one file, to a file each, or to standard output.

    Raises SinkError where they cannot be written.
    """

    def __init__(
        self, output: Path | None, folder: Path | None, form: str, files: Sequence[Path]
    ) -> None:
        self._form = form
        self._target = folder or output or Path("standard output")
        self._tracks: list[Path] = []
        self._waiting: dict[int, str] = {}  # results of files that an earlier one is holding up
        self._next = 0  # the file whose result is to be written next
        self._out: TextIO = sys.stdout
        with self._named_errors():
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
                self._tracks = _tracks(files, folder, ".txt" if form == "audacity" else f".{form}")
            elif output is not None:
                self._out = output.open("w", newline="")
            if form == "csv" and folder is None:
                self._out.write(_CSV_HEADER)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_error: object) -> None:
        with self._named_errors():
            self._out.writelines(self._waiting[number] for number in sorted(self._waiting))
            if self._out is not sys.stdout:
                self._out.close()

    def write(self, number: int, result: Labelled) -> None:
        """Write the result of file `number`; a label track only where the file could be read."""
        text = _FORMS[self._form](result)
        with self._named_errors():
            if not self._tracks:
                self._waiting[number] = text
                while self._next in self._waiting:  # in the order of the files
                    self._out.write(self._waiting.pop(self._next))
                    self._next += 1
                self._out.flush()
            elif self._form != "audacity" or result.error is None:
                header = _CSV_HEADER if self._form == "csv" else ""
                self._tracks[number].write_text(header + text)

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            raise SinkError(f"cannot write {self._target}: {error.strerror}") from None


def _tracks(files: Sequence[Path], folder: Path, suffix: str) -> list[Path]:
    """Return a path in `folder` a file, named after it; numbered where a name is taken."""
    tracks: list[Path] = []
    taken: set[str] = set()
    for file in files:
        numbered = (f"{file.stem}-{n}" for n in itertools.count(2))
        stem = next(s for s in itertools.chain([file.stem], numbered) if s not in taken)
        taken.add(stem)
        tracks.append(folder / f"{stem}{suffix}")
    return tracks


def _jsonl(result: Labelled) -> str:
    return msgspec.json.encode(result).decode() + "\n"


def _csv(result: Labelled) -> str:
    """Return a row an event, and one for a file without."""
    rows: list[tuple] = [(*msgspec.structs.astuple(event), "") for event in result.events]
    rows = rows if rows and not result.error else [*rows, ("", "", "", "", "", result.error)]
    return _rows(((result.file, *row) for row in rows), ",")


def _audacity(result: Labelled) -> str:
    """Return Audacity's label track: start, end and label, set off by tabs."""
    spans = ((f"{e.start_s:.6f}", f"{e.end_s:.6f}", e.label) for e in result.events)
    return _rows(spans, "\t")


def _rows(rows: Iterable[tuple], delimiter: str) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return text.getvalue()


_CSV_HEADER = "file,label,start_s,end_s,peak,mean,error\n"
_FORMS = {"jsonl": _jsonl, "csv": _csv, "audacity": _audacity}


def _result(file: Path, gathered: _File, labels: list[str]) -> Labelled:
    mean = gathered.total / max(1, gathered.decisions)
    strongest = np.argsort(-mean, kind="stable")[:TOP]
    top = [Scored(labels[i], round(float(mean[i]), 4)) for i in strongest]
    return Labelled(
        file=str(file),
        duration_s=round(gathered.stream.position / SAMPLE_RATE, 3),
        label=top[0].label if gathered.named else None,
        top=top if gathered.decisions else [],
        events=[
            Span(
                event.label,
                round(event.start / SAMPLE_RATE, 3),
                round((event.end or event.start) / SAMPLE_RATE, 3),
                round(event.peak, 4),
                round(event.mean, 4),
            )
            for event in sorted(gathered.events.values(), key=lambda event: event.start)
            if not event.retracted
        ],
        bad_samples=gathered.stream.bad_samples,
        error=str(gathered.stream.error) if gathered.stream.error else None,
    )
