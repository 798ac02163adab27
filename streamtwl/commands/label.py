"""`streamtwl label`: recordings, as fast as the machine can."""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamtwl.commands.models import pull_backbone
from streamtwl.commands.options import (
    Channel,
    Hop,
    Labels,
    Level,
    LogLevel,
    Offline,
    Pipeline,
    Provider,
    Reasoner,
    pipeline_settings,
    start_logging,
)
from streamtwl.config import DEFAULT_PIPELINE, Settings
from streamtwl.errors import AudioError, UsageError
from streamtwl.file_names import one_line

if TYPE_CHECKING:
    from streamtwl.archives.dataset import Writer as ParquetWriter
    from streamtwl.audio.intake import Stream
    from streamtwl.labelling import Ended, Progress
    from streamtwl.recorded_at import WallClock
    from streamtwl.recordings import Found
    from streamtwl.results import Labelled, Writer

BYTES_A_JOB = 2_000_000  # of sound files: some ten seconds of WAV, a minute or more of others

ClockKind = StrEnum("ClockKind", ["name", "mtime"])
ResultFormat = StrEnum("ResultFormat", ["jsonl", "csv", "audacity"])
Watch = Callable[[Callable[[], "Mapping[int, Progress]"]], bool]
Results = Callable[[Watch, Callable[[], int]], "Iterator[tuple[int, Labelled]]"]

Files = Annotated[
    list[str],
    typer.Argument(
        help="Sound files of any format and rate; folders, which are searched with their "
        "subfolders; - or <(command) for a pipe; with -o OUT.parquet also s3://bucket/folder or "
        "another store.",
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        help="Write all results to this .jsonl or .csv file, or their events to this .parquet "
        "folder, by day and source. (default: JSON lines to standard output)",
        show_default=False,
    ),
]
Folder = Annotated[
    Path | None,
    typer.Option(
        "-d",
        "--folder",
        help="Write one result file for each sound file here; for those of a folder, in the "
        "same subfolders.",
    ),
]
Format = Annotated[
    ResultFormat | None,
    typer.Option(
        help="Of the results. (default: as -o's name ends; audacity with -d)",
        show_default=False,
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on where the same command was stopped: what -o or -d has is kept, what is half"
        " written or failed is labelled again.",
    ),
]
Clock = Annotated[
    ClockKind | None,
    typer.Option(
        help="Also give each event's wall-clock times (ISO 8601), from the date and time in "
        "the file's name (as AudioMoth, Song Meter and Zoom write them, or ISO 8601), or from "
        "its mtime, the date at which the recording ended (a copy may have another)."
        " (default: seconds only)",
        show_default=False,
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        help="Of -o OUT.parquet: 'ray' uses all cores of this machine, ray://HOST:PORT a Ray "
        "cluster. docs/scale.md. (default: this process)",
        show_default=False,
    ),
]
Zone = Annotated[
    str | None,
    typer.Option(
        help="Of --clock: the time zone of names that have none, as Europe/Berlin, UTC or "
        "+01:00. (default: the computer's; UTC for AudioMoth's 20260514_203000.WAV)",
        show_default=False,
    ),
]


Jobs = Annotated[
    int | None,
    typer.Option(
        "-j",
        "--jobs",
        help="Processor cores to use, each file on one; of a single file, one reads and decides, "
        "the others score its windows. (default: all; one for a few short files, or where the "
        "networks run on a GPU)",
        show_default=False,
        min=1,
    ),
]


@dataclass(frozen=True)
class BatchOptions:
    """How a batch is decoded, resumed and dated."""

    channel: int | None = None  # from 1; None: the mix
    resume: bool = False
    clock: str | None = None  # name or mtime
    zone: str | None = None
    jobs: int | None = None  # cores; None: as many as are worth it


def label(
    files: Files,
    output: Output = None,
    folder: Folder = None,
    format: Format = None,
    resume: Resume = False,
    jobs: Jobs = None,
    clock: Clock = None,
    zone: Zone = None,
    engine: Engine = None,
    channel: Channel = "mix",
    pipeline: Pipeline = DEFAULT_PIPELINE,
    labels: Labels = None,
    reasoner: Reasoner = None,
    hop: Hop = None,
    provider: Provider = None,
    offline: Offline = False,
    log_level: LogLevel = Level.warning,
) -> None:
    r"""Label recordings as fast as the machine can: which sounds, from when to when.

    Every file gets a result, written when it ends; one that cannot be read gets its error, and the
    exit code is then 1. Folders are searched for names that end like a recording's (.wav, .flac,
    .mp3, .mp4, ...), hidden ones and linked folders left out. Bytes of a name that are not UTF-8
    are written as \xff.

    Ctrl-C ends it; --resume then goes on, with the same options: it compares the files' names and
    nothing else. Of two label tracks of the same name both are made again, and of a .csv the last
    file.
    """
    from streamtwl.audio.addresses import channel_number

    start_logging(log_level.value)
    settings = pipeline_settings(
        pipeline,
        {
            "labels": labels,
            "backbone.provider": provider and provider.value,
            "reasoner.file": reasoner,
            "hop_s": hop,
        },
    )
    form = format.value if format else None
    dates = clock.value if clock else None
    batch = BatchOptions(channel_number(channel), resume, dates, zone, jobs)
    if _is_archive(files, output, engine):
        raise typer.Exit(_archive(files, output, folder, form, settings, batch, engine))
    paths, out = [Path(file) for file in files], Path(output) if output else None
    raise typer.Exit(run(paths, out, folder, form, settings, batch))


def _is_archive(files: Sequence[str], output: str | None, engine: str | None) -> bool:
    """Whether it takes more than this process, or files that are elsewhere."""
    from streamtwl.archives.store import is_remote

    return engine is not None or any(map(is_remote, [*files, output or ""]))


def _archive(
    files: Sequence[str],
    output: str | None,
    folder: Path | None,
    form: str | None,
    settings: Settings,
    batch: BatchOptions,
    engine: str | None,
) -> int:
    from streamtwl import results
    from streamtwl.archives import job

    if engine is not None:
        job.check_engine(engine)
    named = output is not None and results.form_of(Path(output), None) == "parquet"
    if output is None or folder is not None or form is not None or not named:
        raise UsageError("--engine, and files in stores, go with -o OUT.parquet alone")
    _wall_clock(batch)  # so that a wrong --zone is reported now
    pull_backbone(settings)
    wanted = job.Job(output, settings, batch.channel, batch.clock, batch.zone)
    return job.run(files, wanted, engine, batch.resume)


def run(
    files: Sequence[Path],
    output: Path | None,
    folder: Path | None,
    form: str | None,
    settings: Settings,
    batch: BatchOptions | None = None,
) -> int:
    """Label recordings; return the exit code: 1 where one of them could not be read."""
    from streamtwl import recordings, results
    from streamtwl.archives import dataset
    from streamtwl.archives import job as archive_job
    from streamtwl.audio.recording import is_pipe

    batch = batch or BatchOptions()
    form = _result_format(output, folder, form, batch)
    clock = _wall_clock(batch)
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
    writer: Writer | ParquetWriter
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
    if ended.signal:
        resume = "; --resume goes on there" if output or folder else ""
        _say(f"stopped: {kept + ended.files} of {len(found)} files have a result{resume}")
        return 128 + ended.signal
    if ended.undated:
        first = ended.first_undated
        _say(f"--clock {batch.clock}: no date and time for {ended.undated} files, first {first}")
    return 1 if ended.failed else 0


def _worthwhile(files: Sequence[Path], settings: Settings) -> int:
    """Return how many cores are worth it: a process takes about a second to begin."""
    from streamtwl.models import runtime

    if runtime.on_gpu(settings.backbone.provider):
        return 1  # processes would share it, each with models of its own
    sizes = [file.stat().st_size for file in files if file.is_file()]
    return max(1, min(len(os.sched_getaffinity(0)), sum(sizes) // BYTES_A_JOB))


def _label_all(
    found: "Sequence[Found]",
    settings: Settings,
    writer: "Writer | ParquetWriter",
    channel: int | None,
    clock: "WallClock | None",
    jobs: int,
) -> "Ended":
    """Label those files whose results are missing, until a signal requests the end."""
    from streamtwl.labelling import Ended, date
    from streamtwl.signals import stop_requests
    from streamtwl.sinks.batch_view import BatchView, SayAbove

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

        def watch(files: "Callable[[], Mapping[int, Progress]]") -> bool:
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
    from streamtwl.audio.recording import is_pipe

    return 1 if any(map(is_pipe, paths)) else max(1, min(jobs, len(paths)))


@contextlib.contextmanager
def _here(
    paths: Sequence[Path], settings: Settings, channel: int | None, jobs: int, _level: int
) -> "Iterator[Results]":
    """Label files in this process."""
    from streamtwl.audio.addresses import source_name
    from streamtwl.labelling import AHEAD, label_files, progress
    from streamtwl.pipeline import build

    names = [source_name(path) for path in paths]
    with contextlib.closing(build(settings, names, ahead=AHEAD, threads=jobs)) as pipeline:

        def results(
            watch: Watch, stop_requested: Callable[[], int]
        ) -> "Iterator[tuple[int, Labelled]]":
            def watch_streams(streams: "list[Stream]") -> bool:
                return watch(lambda: {stream.number: progress(stream) for stream in streams})

            watching = watch_streams, stop_requested
            # One at a time, as in `listen`: a reader's sums depend on what else is read at once
            return label_files(paths, pipeline, channel, None, *watching, width=1)

        yield results


@contextlib.contextmanager
def _by_workers(
    paths: Sequence[Path], settings: Settings, channel: int | None, jobs: int, level: int
) -> "Iterator[Results]":
    """Label files in processes of their own."""
    from streamtwl.label_worker import Job
    from streamtwl.label_workers import Workers

    count = _processes(paths, jobs)
    with Workers(paths, Job(settings, channel, jobs // count, level), count) as workers:
        yield lambda watch, _stop: workers.results(lambda: watch(lambda: workers.open))


def _result_format(
    output: Path | None, folder: Path | None, form: str | None, batch: BatchOptions
) -> str:
    """Return the format of results; raises UsageError for options that exclude each other."""
    from streamtwl import results

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


def _wall_clock(batch: BatchOptions) -> "WallClock | None":
    from streamtwl.recorded_at import WallClock

    if batch.zone is not None and batch.clock is None:
        raise UsageError(f"--zone {batch.zone} is for --clock name or mtime")
    return WallClock(batch.clock, batch.zone) if batch.clock else None


def _say(line: str) -> None:
    print(f"streamtwl: {one_line(line)}", file=sys.stderr)
