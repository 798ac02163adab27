"""What labels one file after another, with its models loaded once: a core of an archive's job."""

import contextlib
import logging
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from streamtwl import config
from streamtwl.archives import stretches
from streamtwl.archives.dataset import Dataset, file_id
from streamtwl.archives.store import Store, is_remote, open_recording
from streamtwl.archives.stretches import SeamError, Stretch
from streamtwl.audio.addresses import source_name
from streamtwl.audio.intake import Stream
from streamtwl.config import Settings
from streamtwl.file_names import readable
from streamtwl.labelling import BatchRecording, Gathered, date, label_files
from streamtwl.pipeline import Pipeline, build
from streamtwl.recorded_at import WallClock
from streamtwl.results import Labelled

TRIES = 3  # of a file that ends the process which labels it

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What a worker has to know; it is sent to each."""

    output: str
    settings: Settings
    channel: int | None = None
    clock: str | None = None
    zone: str | None = None


@dataclass(frozen=True)
class Task:
    """A file; or a stretch of it to be scored, or its scored stretches (`of`) to be decided on."""

    file: str
    stretch: Stretch | None = None
    of: int = 0


@dataclass(frozen=True)
class Done:
    """What became of a task."""

    file: str
    ended: bool  # the file has its result
    error: str | None = None
    duration_s: float = 0.0
    events: int = 0
    undated: bool = False


class Remote(BatchRecording):
    """A recording in an object store."""

    def __init__(self, address: str, channel: int | None) -> None:
        super().__init__(Path(PurePosixPath(address).name), channel)
        self._address = address

    def start(self) -> None:
        """Open it there."""
        with self._failures():
            self._file = open_recording(self._address)
        super().start()


class Worker:
    """Labels files, one at a time: what a file does to it ends that file and nothing else."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._dataset = Dataset(job.output)
        self._store = Store(job.output)
        self._clock = WallClock(job.clock, job.zone) if job.clock else None
        self._source = [""]  # of the file under way: reasoners that draw key their samples by it
        self._pipeline: Pipeline | None = None

    def do(self, task: Task, stop_requested: Callable[[], int] = lambda: 0) -> Done:
        """Do a task. What another worker has done, which was lost then, is not done again."""
        number = file_id(task.file)
        part = "" if task.stretch is None else f"-{task.stretch.number}-of-{task.stretch.of}"
        tries = f"_tries/{number}{part}"
        known = self._store.names(tries)
        if len(known) >= TRIES:
            for each in known:  # the next job tries it again
                self._store.remove(f"{tries}/{each}")
            if task.stretch is not None:
                return Done(task.file, ended=False)  # and it is labelled unbroken
            error = f"'{task.file}' ended the process that labelled it {TRIES} times"
            return self._write(task.file, Labelled(task.file, error=error))
        attempt = f"{tries}/{uuid.uuid4().hex}"
        self._store.put(attempt, b"")
        if task.stretch is not None:
            self._score(task.file, task.stretch)
            done = Done(task.file, ended=False)
        else:
            result = self._label(task, stop_requested)
            if result is None:  # stopped
                done = Done(task.file, ended=False)
            else:
                done = self._write(task.file, result)
        for each in [*known, attempt.rpartition("/")[2]]:
            self._store.remove(f"{tries}/{each}")
        return done

    def _write(self, file: str, result: Labelled) -> Done:
        self._dataset.write(file, result)
        undated = self._clock is not None and result.start_time is None and result.error is None
        return Done(
            file, True, result.error, result.duration_s, len(result.events), undated=undated
        )

    def _label(self, task: Task, stop_requested: Callable[[], int]) -> Labelled | None:
        try:
            if task.of:
                with contextlib.suppress(SeamError):
                    return self._decide(task)
                _log.warning(
                    "'%s': its stretches do not fit, so it is labelled unbroken", task.file
                )
                self.forget()
            return self._whole(task.file, stop_requested)
        except Exception as error:  # whatever it is, the next file is well
            _log.exception("'%s'", task.file)
            self.forget()
            said = f"'{task.file}' cannot be labelled: {type(error).__name__}: {error}"
            return Labelled(readable(task.file), error=readable(said))

    def _whole(self, file: str, stop_requested: Callable[[], int]) -> Labelled | None:
        pipeline = self._ready(file)

        def make(_path: Path, channel: int | None) -> BatchRecording:
            return self._recording(file, channel)

        for _, result in label_files(
            [Path(file)],
            pipeline,
            self._job.channel,
            self._clock,
            lambda _open: not stop_requested(),
            stop_requested,
            make=make,
        ):
            return result
        self.forget()
        return None

    def _score(self, file: str, stretch: Stretch) -> None:
        """Keep a stretch's scores until all of the file's are there; none where that fails."""
        name = _piece(file, stretch.number, stretch.of)
        if name.rpartition("/")[2] in self._store.names(name.rpartition("/")[0]):
            return
        try:
            recording = self._recording(file, self._job.channel)
            self._store.put(name, stretches.score(stretch, recording, self._ready(file)))
        except SeamError:
            return  # it is labelled unbroken
        except Exception:  # whatever it is: labelling it unbroken shows it again
            _log.exception("'%s'", file)

    def _decide(self, task: Task) -> Labelled:
        """Return the result of a file whose stretches have been scored; raises SeamError."""
        pipeline = self._ready(task.file)
        recording = self._recording(task.file, self._job.channel)
        stream = Stream(0, recording)
        gathered = Gathered(len(pipeline.reasoner.labels))
        unsubscribe = pipeline.subscribe(gathered.take)
        facts = stretches.decide(self._pieces(task), pipeline)
        unsubscribe()
        stream.position, stream.bad_samples = facts.position, facts.bad_samples
        result = gathered.result(task.file, stream, pipeline.reasoner.labels)
        result.skipped_packets = facts.skipped_packets
        if self._clock is not None:
            date(result, self._clock, Path(task.file))
        for i in range(task.of):
            self._store.remove(_piece(task.file, i, task.of))
        return result

    def _pieces(self, task: Task) -> Iterator[bytes]:
        for i in range(task.of):
            piece = self._store.get(_piece(task.file, i, task.of))
            if piece is None:
                raise SeamError
            yield piece

    def _recording(self, file: str, channel: int | None) -> BatchRecording:
        return Remote(file, channel) if is_remote(file) else BatchRecording(Path(file), channel)

    def _ready(self, file: str) -> Pipeline:
        """Return the pipeline, for a file."""
        self._source[0] = source_name(Path(file))
        if self._pipeline is None:
            settings = config.override(self._job.settings, {"backbone.threads": 1})
            self._pipeline = build(settings, self._source)
        return self._pipeline

    def forget(self) -> None:
        """Begin anew with the next file: this one may have left anything behind."""
        if self._pipeline is not None:
            self._pipeline.close()
        self._pipeline = None


def _piece(file: str, number: int, of: int) -> str:
    return f"_stretches/{file_id(file)}-of-{of}/{number}.npz"
