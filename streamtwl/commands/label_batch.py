"""What `streamtwl label` does with recordings on this machine: find, label, write, sum up."""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamtwl import recordings, results
from streamtwl.archives import dataset
from streamtwl.archives import job as archive_job
from streamtwl.audio.addresses import source_name
from streamtwl.audio.intake import Stream
from streamtwl.audio.recording import is_pipe
from streamtwl.commands.models import pull_backbone
from streamtwl.config import Settings
from streamtwl.errors import AudioError, UsageError
from streamtwl.file_names import one_line
from streamtwl.label_worker import Job
from streamtwl.label_workers import Workers
from streamtwl.labelling import AHEAD, Ended, Progress, date, label_files, progress
from streamtwl.models import runtime
from streamtwl.pipeline import build
from streamtwl.recorded_at import WallClock
from streamtwl.recordings import Found
from streamtwl.results import Labelled, Writer
from streamtwl.signals import stop_requests
from streamtwl.sinks.batch_view import BatchView, SayAbove

BYTES_A_JOB = 2_000_000  # of sound files: some ten seconds of WAV, a minute or more of others

Watch = Callable[[Callable[[], Mapping[int, Progress]]], bool]
Results = Callable[[Watch, Callable[[], int]], Iterator[tuple[int, Labelled]]]


@dataclass(frozen=True)
class BatchOptions:
    """How a batch is decoded, resumed and dated."""

    channel: int | None = None  # from 1; None: the mix
    resume: bool = False
    clock: str | None = None  # name or mtime
    zone: str | None = None
    jobs: int | None = None  # cores; None: as many as are worth it


def run(
    files: Sequence[Path],
    output: Path | None,
    folder: Path | None,
    form: str | None,
    settings: Settings,
    batch: BatchOptions | None = None,
) -> int:
    """Label recordings; return the exit code: 1 where one of them could not be read."""
    batch = batch or BatchOptions()
    form = _result_format(output, folder, form, batch)
    clock = wall_clock(batch)
    found, passed_over = recordings.find(files)
    if passed_over:
        counts = ", ".join(f"{why}: {count}" for why, count in passed_over.items())
        _say(f"passed over in folders: {counts}")
    if not found:
        raise AudioError(f"no recordings in {', '.join(map(str, files))}: name other folders")
    if batch.resume and any(is_pipe(file.path) for file in found):
        raise UsageError("--resume: a pipe has no name to find its result by, leave it out")
    pull_backbone(settings)
    dated = clock is not None
    writer: Writer | dataset.Writer
    if form == "parquet" and output is not None:
        job = archive_job.Job(str(output), settings, batch.channel, batch.clock, batch.zone)
        paths = [file.path for file in found]
        writer = dataset.Writer(str(output), paths, archive_job.options(job), batch.resume)
    else:
        writer = results.Writer(output, folder, form, found, resume=batch.resume, dated=dated)
    kept = len(found) - len(writer.missing)
    if kept:
        _say(f"{kept} of {len(found)} files have a result already")
    jobs = batch.jobs or _worthwhile([found[i].path for i in writer.missing], settings)
    ended = _label_all(found, settings, writer, batch.channel, clock, jobs)
    resumes = output is not None or folder is not None
    for note in ended.notes(kept=kept, of=len(found), resumes=resumes, clock=batch.clock):
        _say(note)
    return ended.exit_code


def _worthwhile(files: Sequence[Path], settings: Settings) -> int:
    """Return how many cores are worth it: a process takes about a second to begin."""
    if runtime.on_gpu(settings.backbone.provider):
        return 1  # processes would share it, each with models of its own
    total = sum(map(recordings.size, files))
    return max(1, min(len(os.sched_getaffinity(0)), total // BYTES_A_JOB))


def _label_all(
    found: Sequence[Found],
    settings: Settings,
    writer: Writer | dataset.Writer,
    channel: int | None,
    clock: WallClock | None,
    jobs: int,
) -> Ended:
    """Label those files whose results are missing, until a signal requests the end."""
    ended = Ended()
    view = BatchView(len(writer.missing), writer.prints)
    level = logging.getLogger().level
    logging.getLogger().handlers[:] = [SayAbove(view)]
    paths = [found[i].path for i in writer.missing]
    how = _here if _processes(paths, jobs) == 1 else _by_workers
    # Before the writer begins: a wrong setting leaves earlier results alone
    with how(paths, settings, channel, jobs, level) as labelled, contextlib.ExitStack() as running:
        running.enter_context(writer)
        stop_requested = running.enter_context(stop_requests())
        running.enter_context(view)

        def watch(files: Callable[[], Mapping[int, Progress]]) -> bool:
            if view.due:
                view.update(files())
            ended.signal = stop_requested()
            return not ended.signal

        for i, result in labelled(watch, stop_requested):
            if clock is not None:
                date(result, clock, paths[i])
            with view.aside():
                writer.write(writer.missing[i], result)
            view.end()
            ended.files += 1
            if result.start_time is None and result.error is None:
                ended.undated += 1
                ended.first_undated = ended.first_undated or result.file
            if result.error is not None:
                ended.failed += 1
                view.say(result.error)
    return ended


def _processes(paths: Sequence[Path], jobs: int) -> int:
    """Return by how many processes files are labelled; a pipe can be read by this one only."""
    return 1 if any(map(is_pipe, paths)) else max(1, min(jobs, len(paths)))


@contextlib.contextmanager
def _here(
    paths: Sequence[Path], settings: Settings, channel: int | None, jobs: int, _level: int
) -> Iterator[Results]:
    """Label files in this process."""
    names = [source_name(path) for path in paths]
    with contextlib.closing(build(settings, names, ahead=AHEAD, threads=jobs)) as pipeline:

        def results(
            watch: Watch, stop_requested: Callable[[], int]
        ) -> Iterator[tuple[int, Labelled]]:
            def watch_streams(streams: list[Stream]) -> bool:
                return watch(lambda: {stream.number: progress(stream) for stream in streams})

            watching = watch_streams, stop_requested
            # One at a time, as in `listen`: a reader's sums depend on what else is read at once
            return label_files(paths, pipeline, channel, None, *watching, width=1)

        yield results


@contextlib.contextmanager
def _by_workers(
    paths: Sequence[Path], settings: Settings, channel: int | None, jobs: int, level: int
) -> Iterator[Results]:
    """Label files in processes of their own."""
    count = _processes(paths, jobs)
    with Workers(paths, Job(settings, channel, jobs // count, level), count) as workers:
        yield lambda watch, _stop: workers.results(lambda: watch(lambda: workers.open))


def _result_format(
    output: Path | None, folder: Path | None, form: str | None, batch: BatchOptions
) -> str:
    """Return the format of results; raises UsageError for options that exclude each other."""
    if output is not None and folder is not None:
        raise UsageError("-o (one file for all) and -d (a file each) exclude each other")
    form = form or results.form_of(output, folder)
    if form == "audacity" and folder is None:
        raise UsageError("--format audacity makes a label track a file: name their folder with -d")
    if form == "audacity" and batch.clock is not None:
        raise UsageError("--clock: a label track has no place for it, add --format jsonl or csv")
    if form == "parquet" and output is None:
        raise UsageError("--format parquet is for -o OUT.parquet")
    if batch.resume and output is None and folder is None:
        raise UsageError("--resume goes on with results that -o or -d names")
    return form


def wall_clock(batch: BatchOptions) -> WallClock | None:
    """Return what dates the recordings; raises UsageError for a zone without a clock."""
    if batch.zone is not None and batch.clock is None:
        raise UsageError(f"--zone {batch.zone} is for --clock name or mtime")
    return WallClock(batch.clock, batch.zone) if batch.clock else None


def _say(line: str) -> None:
    print(f"streamtwl: {one_line(line)}", file=sys.stderr)
