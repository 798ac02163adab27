"""A job: recordings in folders or object stores, labelled here or on a cluster, to a data set."""

import contextlib
import logging
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from streamtwl import recordings
from streamtwl.archives import stretches
from streamtwl.archives.dataset import Dataset, file_id, location
from streamtwl.archives.store import find, is_remote
from streamtwl.archives.stretches import Stretch
from streamtwl.archives.worker import Done, Job, Remote, Task, Worker
from streamtwl.config import Settings
from streamtwl.errors import AudioError, UsageError
from streamtwl.file_names import one_line
from streamtwl.labelling import BatchRecording, Ended

LEAST_S = 600.0  # of sound, that a stretch is worth its decoding
FEW = 4  # files a core: of more, none is cut, as all cores are busy without

StopRequested = Callable[[], int]
Engine = Callable[[Job, Sequence[Task], StopRequested], Generator[Done, None, None]]


def options(job: Job) -> dict[str, Any]:
    """Return what a data set's results depend on."""
    return {
        "clock": job.clock,
        "zone": job.zone,
        "channel": job.channel,
        "settings": msgspec.to_builtins(
            msgspec.structs.replace(job.settings, backbone=Settings().backbone)
        ),
    }


def run(arguments: Sequence[str], job: Job, engine: str | None, resume: bool) -> int:
    """Label recordings; return the exit code, as that of `label`."""
    from streamtwl.signals import stop_requests
    from streamtwl.sinks.batch_view import BatchView, SayAbove

    if job.clock == "mtime" and any(map(is_remote, arguments)):
        raise UsageError("--clock mtime: a store has the date of its upload, take --clock name")
    found = _found(arguments)
    dataset = Dataset(job.output)
    dataset.begin(options(job), resume)
    done = dataset.done() if resume else set()
    missing = [file for file in found if file_id(file) not in done]
    kept = len(found) - len(missing)
    if kept:
        _say(f"{kept} of {len(found)} files have a result already")
    with stop_requests() as stop_requested, _opened(engine) as (cores, labelled):
        view = BatchView(len(missing), False)
        logging.getLogger().handlers[:] = [SayAbove(view)]
        with view:
            tasks = plan(missing, job, cores)
            ended = _watch(labelled, job, tasks, stop_requested, view)
    for note in ended.notes(kept=kept, of=len(found), resumes=True, clock=job.clock):
        _say(note)
    return ended.exit_code


def _found(arguments: Sequence[str]) -> list[str]:
    """Return all recordings that arguments name, each once."""
    here = [Path(each) for each in arguments if not is_remote(each)]
    local, passed_over = recordings.find(here)
    if passed_over:
        counts = ", ".join(f"{why}: {count}" for why, count in passed_over.items())
        _say(f"passed over in folders: {counts}")
    names = [location(str(file.path)) for file in local]
    names += [file for each in arguments if is_remote(each) for file in find(each)]
    if not names:
        raise AudioError(f"no recordings in {', '.join(arguments)}: name other folders")
    return list(dict.fromkeys(names))


def plan(files: Sequence[str], job: Job, cores: int) -> list[list[Task]]:
    """Return the tasks, in two steps: what can be done at once, and what needs all stretches.

    A file is cut where there are fewer files than keep all cores busy, and it is longer than a
    core's share of them.
    """
    counts: dict[str, tuple[float, int]] = {}
    if cores > 1 and len(files) < FEW * cores and stretches.may_cut(job.settings):
        lengths = {file: _duration_s(file, job.channel) for file in files}
        share_s = max(LEAST_S, sum(lengths.values()) / cores)
        for file, duration_s in lengths.items():
            counts[file] = duration_s, min(stretches.MOST, round(duration_s / share_s))
    first: list[Task] = []
    then: list[Task] = []
    for file in files:
        duration_s, count = counts.get(file, (0.0, 1))
        if count < 2:
            first.append(Task(file))
            continue
        pieces: list[Stretch] = stretches.cut(duration_s, job.settings.hop_s, count)
        first += [Task(file, piece) for piece in reversed(pieces)]  # the last takes longest
        then.append(Task(file, of=count))
    return [first, then]


def _duration_s(file: str, channel: int | None) -> float:
    """Return the seconds that a header promises; 0 where it is unreadable."""
    opened = Remote(file, channel) if is_remote(file) else BatchRecording(Path(file), channel)
    with contextlib.closing(opened):
        try:
            opened.start()
        except AudioError:
            return 0.0
        return opened.duration_s


def _watch(
    labelled: Engine,
    job: Job,
    steps: Iterable[Sequence[Task]],
    stop_requested: StopRequested,
    view: Any,
) -> Ended:
    """Label until a signal requests the end."""
    ended = Ended()
    for tasks in steps:
        if not tasks:
            continue
        with contextlib.closing(labelled(job, tasks, stop_requested)) as results:
            for done in results:
                ended.signal = stop_requested()
                if ended.signal:
                    return ended
                if not done.ended:
                    continue
                ended.files += 1
                view.end()
                view.update({})
                if done.undated:
                    ended.undated += 1
                    ended.first_undated = ended.first_undated or done.file
                if done.error is not None:
                    ended.failed += 1
                    view.say(done.error)
        ended.signal = stop_requested()
        if ended.signal:
            return ended
    return ended


@contextlib.contextmanager
def _opened(engine: str | None) -> Generator[tuple[int, Engine], None, None]:
    """Yield the cores that there are, and what labels with them."""
    if engine is None:
        yield 1, _here
        return
    from streamtwl.archives import ray_engine

    with ray_engine.cluster(engine) as cores:
        yield cores, ray_engine.labelled


def _here(
    job: Job, tasks: Sequence[Task], stop_requested: StopRequested
) -> Generator[Done, None, None]:
    worker = Worker(job)
    for task in tasks:
        if stop_requested():
            return
        yield worker.do(task, stop_requested)


def check_engine(engine: str) -> None:
    """Raise UsageError for an engine that there is not."""
    name, _, address = engine.partition("://")
    if name != "ray" or ("://" in engine and not address):
        raise UsageError(
            f"--engine {engine}: it takes ray, for this machine, or ray://HOST:PORT of a cluster"
        )


def _say(line: str) -> None:
    print(f"streamtwl: {one_line(line)}", file=sys.stderr)
