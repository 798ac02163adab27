"""`streamtwl label`: recordings, as fast as the machine can."""

from collections.abc import Sequence
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
from streamtwl.errors import UsageError

if TYPE_CHECKING:
    from streamtwl.commands.label_batch import BatchOptions

ClockKind = StrEnum("ClockKind", ["name", "mtime"])
ResultFormat = StrEnum("ResultFormat", ["jsonl", "csv", "audacity"])

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
    from streamtwl.commands import label_batch

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
    batch = label_batch.BatchOptions(channel_number(channel), resume, dates, zone, jobs)
    if _is_archive(files, output, engine):
        raise typer.Exit(_archive(files, output, folder, form, settings, batch, engine))
    paths, out = [Path(file) for file in files], Path(output) if output else None
    raise typer.Exit(label_batch.run(paths, out, folder, form, settings, batch))


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
    batch: "BatchOptions",
    engine: str | None,
) -> int:
    from streamtwl import results
    from streamtwl.archives import job
    from streamtwl.commands import label_batch

    if engine is not None:
        job.check_engine(engine)
    named = output is not None and results.form_of(Path(output), None) == "parquet"
    if output is None or folder is not None or form is not None or not named:
        raise UsageError("--engine, and files in stores, go with -o OUT.parquet alone")
    label_batch.wall_clock(batch)  # so that a wrong --zone is reported now
    pull_backbone(settings)
    wanted = job.Job(output, settings, batch.channel, batch.clock, batch.zone)
    return job.run(files, wanted, engine, batch.resume)
