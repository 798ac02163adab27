"""Recordings labelled as fast as the machine can: one result per file, whatever happens to it."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np

from streamtwl.audio.intake import Intake, Stream
from streamtwl.audio.recording import Recording
from streamtwl.errors import AudioError
from streamtwl.file_names import readable
from streamtwl.messages import Scored
from streamtwl.pipeline import Outcome, Pipeline
from streamtwl.recorded_at import WallClock
from streamtwl.results import Labelled, Span
from streamtwl.sounding import Sounding
from streamtwl.stages import SAMPLE_RATE, Chunk, Decision

WIDTH = 8  # files at once, sharing model calls; a reader's scores then differ in the last digit
AHEAD = 16  # windows in one model call, of one file or several
TOP = 5


@dataclass
class Ended:
    """What became of a batch of recordings."""

    files: int = 0
    failed: int = 0
    undated: int = 0
    first_undated: str = ""
    signal: int = 0  # that ended it before its end

    @property
    def exit_code(self) -> int:
        """1 where a recording could not be read, 128 and the signal that ended it."""
        return 128 + self.signal if self.signal else min(self.failed, 1)

    def notes(self, *, kept: int, of: int, resumes: bool, clock: str | None) -> list[str]:
        """Return what is to be said at its end, of so many, `kept` of which had a result before."""
        if self.signal:
            resume = "; --resume goes on there" if resumes else ""
            return [f"stopped: {kept + self.files} of {of} files have a result{resume}"]
        if not self.undated:
            return []
        where = f"for {self.undated} files, first {self.first_undated}"
        return [f"--clock {clock}: no date and time {where}"]


class BatchRecording(Recording):
    """A recording whose every failure is an AudioError: it ends this file, not the batch."""

    def __init__(self, file: Path, channel: int | None = None) -> None:
        super().__init__(file.name, file, channel=channel)
        self.path = file

    def start(self) -> None:
        """Open the file."""
        with self._failures():
            super().start()

    def read(self, now: float) -> Chunk | None:
        """Return the next frames."""
        with self._failures():
            return super().read(now)

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except AudioError:
            raise
        except Exception as error:  # decoders raise what they like, and the next file is well
            problem = f"{type(error).__name__}: {error}"
            raise AudioError(f"'{self.path}' cannot be decoded: {problem}") from error


class Strength:
    """How strong each label is over a recording: its mean score, as it was last revised."""

    def __init__(self, n_labels: int) -> None:
        self.decisions = 0
        self._settled = np.zeros(n_labels)
        self._open: list[np.ndarray] = []  # float32[L] of the hops that may be revised, newest last

    def add(self, decision: Decision, first: bool) -> None:
        """Take the final decision on a hop; the first one after a gap revises none before it."""
        lags = 0 if first or decision.earlier is None else len(decision.earlier)
        lags = min(lags, len(self._open))
        for specific in self._open[: len(self._open) - lags]:
            self._settled += specific
        revised = [] if not lags or decision.earlier is None else [*decision.earlier[:lags, 1]]
        self._open = [*revised[::-1], decision.specific]
        self.decisions += 1

    def mean(self) -> np.ndarray:
        """Return float64[L]; zeros where there was no hop."""
        return np.sum([self._settled, *self._open], axis=0) / max(1, self.decisions)


class Gathered:
    """What is collected of one recording's outcomes."""

    def __init__(self, n_labels: int) -> None:
        self.strength = Strength(n_labels)
        self.named = False
        self.events: dict[int, Sounding] = {}  # by number, as last published

    def take(self, outcome: Outcome) -> None:
        """Take what the pipeline says of this recording."""
        self.events |= {event.number: event for _, event in outcome.changes}
        decided = outcome.decision is not None and outcome.final and not outcome.last
        if decided and outcome.patch is not None and outcome.decision is not None:
            self.strength.add(outcome.decision, outcome.patch.window.first)
            self.named |= outcome.decision.label is not None

    def result(self, file: str, stream: Stream, labels: list[str]) -> Labelled:
        """Return the result of a recording that has ended."""
        mean = self.strength.mean()
        strongest = np.argsort(-mean, kind="stable")[:TOP]
        top = [Scored(labels[i], round(float(mean[i]), 4)) for i in strongest]
        assert isinstance(stream.source, Recording)
        return Labelled(
            file=readable(file),
            duration_s=round(stream.position / SAMPLE_RATE, 3),
            label=top[0].label if self.named else None,
            top=top if self.strength.decisions else [],
            events=[
                Span(
                    event.label,
                    round(event.start / SAMPLE_RATE, 3),
                    round((event.end or event.start) / SAMPLE_RATE, 3),
                    round(event.peak, 4),
                    round(event.mean, 4),
                )
                for event in sorted(self.events.values(), key=lambda event: event.start)
                if not event.retracted
            ],
            bad_samples=stream.bad_samples,
            skipped_packets=stream.source.skipped_packets,
            error=readable(str(stream.error)) if stream.error else None,
        )


def label_files(
    files: Iterable[Path],
    pipeline: Pipeline,
    channel: int | None = None,
    clock: WallClock | None = None,
    watch: Callable[[list[Stream]], bool] = lambda _open: True,
    stop_requested: Callable[[], int] = lambda: 0,
    width: int | None = None,
    make: Callable[[Path, int | None], "BatchRecording"] = BatchRecording,
) -> Iterator[tuple[int, Labelled]]:
    """Yield (index, result) of each file as it ends; the pipeline's streams are the files.

    `channel` is the one to use, from 1; None: the mix of all.
    `watch` is called many times a second with the files that are open; the batch ends when it
    returns False. `stop_requested` is polled while waiting for a pipe, or for a reasoner that has
    an attribute of that name. `width` files are open at once, WIDTH where None; the next one is
    taken of `files` when there is room for it. `make` is what opens a file.
    """

    def recordings() -> Iterator[BatchRecording]:
        for file in files:
            paths.append(file)
            recording = make(file, channel)
            recording.stop_requested = stop_requested
            yield recording

    labels = pipeline.reasoner.labels
    paths: list[Path] = []  # opened so far
    intake = Intake(recordings(), width or WIDTH)
    running: dict[int, tuple[Stream, Gathered]] = {}
    done: list[int] = []

    def take(outcome: Outcome) -> None:
        running[outcome.stream][1].take(outcome)
        if outcome.last:
            done.append(outcome.stream)

    if hasattr(pipeline.reasoner, "stop_requested"):
        pipeline.reasoner.stop_requested = stop_requested
    intake.start()
    with contextlib.closing(intake), contextlib.ExitStack() as at_end:
        at_end.callback(pipeline.subscribe(take))
        for blocks in intake.ticks():
            for stream in intake.streams:
                running.setdefault(stream.number, (stream, Gathered(len(labels))))
            pipeline.push(blocks)
            if stop_requested():
                done.clear()  # a pipe may have been cut off
            while done:
                number = done.pop(0)
                stream, gathered = running.pop(number)
                result = gathered.result(str(paths[number]), stream, labels)
                if clock is not None:
                    date(result, clock, paths[number])
                yield number, result
            if not watch(intake.streams):
                return


class Progress(NamedTuple):
    """How far an open file is."""

    name: str
    done_s: float
    total_s: float  # by its header, or estimated; 0: unknown


def progress(stream: Stream) -> Progress:
    """Return how far one of the files is that `watch` gets."""
    assert isinstance(stream.source, Recording)
    total_s = stream.source.duration_s
    return Progress(stream.source.name, stream.position / SAMPLE_RATE, total_s)


def date(result: Labelled, clock: WallClock, file: Path) -> None:
    """Add wall-clock times to the seconds; None where they are unknown."""
    start = clock.start(file, result.duration_s)

    def time_at(seconds: float) -> str | None:
        if start is None:
            return None
        return (start + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")

    result.start_time = time_at(0)
    for event in result.events:
        event.start_time, event.end_time = time_at(event.start_s), time_at(event.end_s)
