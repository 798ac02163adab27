"""What the commands do, apart from the parsing of their options."""

import contextlib
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from streamtwl import config, folders, plugins
from streamtwl.audio.addresses import SourceOptions, make_sources, source_name
from streamtwl.audio.intake import Intake, Stream
from streamtwl.audio.microphone import list_inputs
from streamtwl.config import Settings
from streamtwl.errors import AudioError, DeviceError, ModelError, UsageError
from streamtwl.models import registry
from streamtwl.signals import stop_requests

if TYPE_CHECKING:
    from streamtwl.client import Subscription
    from streamtwl.pipeline import Pipeline
    from streamtwl.recorded_at import WallClock
    from streamtwl.recordings import Found
    from streamtwl.results import Writer
    from streamtwl.security import ServerKeys
    from streamtwl.session import Session
    from streamtwl.sinks.journal import Journal
    from streamtwl.sinks.publisher import Publisher
    from streamtwl.sinks.screen import Screen, View
    from streamtwl.stages import Sink

LogLevel = StrEnum("LogLevel", ["debug", "info", "warning", "error"])
Encoding = StrEnum("Encoding", ["s16le", "s24le", "s32le", "f32le", "u8"])
Kind = StrEnum("Kind", ["hello", "patch", "label", "event", "status"])
Think = StrEnum("Think", ["off", "fixed", "anytime"])
Journalled = StrEnum("Journalled", ["event", "label", "status"])
Clock = StrEnum("Clock", ["name", "mtime"])
LabelFormat = StrEnum("LabelFormat", ["jsonl", "csv", "audacity"])

_log = logging.getLogger(__name__)

WATCH_S = 0.05  # for signals and the end
STOP_GRACE_S = 3.0  # for what is to be told before the end


@dataclass(frozen=True)
class ListenOptions:
    """How `listen` shows what it hears, and for how long."""

    as_json: bool
    quiet: bool
    duration_s: float | None
    log_level: str
    insecure: bool  # may be open to the network without keys


@dataclass(frozen=True)
class BatchOptions:
    """How `label` hears, goes on, and dates."""

    channel: int | None = None  # from 1; None: the mix
    resume: bool = False
    clock: str | None = None  # name or mtime
    zone: str | None = None


def pipeline_settings(pipeline: str, changes: dict[str, Any]) -> Settings:
    """Return the settings of a pipeline, with those options that were given."""
    given = {key: value for key, value in changes.items() if value is not None}
    return config.override(config.load(config.find(pipeline)), given)


def start_logging(level: str) -> None:
    """Log to standard error."""
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"
    )


def devices(console: Console) -> None:
    """Print the microphones; raises DeviceError where there is none."""
    inputs = list_inputs()
    if not inputs:
        raise DeviceError("PortAudio sees no microphone: plug one in, or try --demo")
    table = Table("index", "name", "channels", "default rate", "")
    for device in inputs:
        table.add_row(
            str(device["index"]),
            device["name"],
            str(device["channels"]),
            f"{device['default_rate_hz']:.0f} Hz",
            "default" if device["is_default"] else "",
        )
    console.print(table)


def listen(wanted: SourceOptions, settings: Settings, options: ListenOptions) -> None:
    """Listen until the sound ends, the time is up, or somebody stops it."""
    start_logging(options.log_level)
    if options.duration_s is not None and not math.isfinite(options.duration_s):
        raise UsageError(f"--duration {options.duration_s}: it takes a number of seconds")
    _pull_backbone(settings)
    sources = make_sources(wanted)
    with stop_requests() as stop_requested, contextlib.closing(Intake(sources)) as intake:
        for source in sources:
            source.stop_requested = stop_requested
        intake.start()  # a microphone takes a while to open, as do these imports
        for stream in intake.streams:
            if stream.error is not None:
                raise stream.error
        from streamtwl.session import Session
        from streamtwl.sinks.publisher import Publisher
        from streamtwl.sinks.screen import Screen

        lossless = not all(source.paced for source in sources)
        with contextlib.ExitStack() as open_sinks:
            journal = _journal(settings)
            if journal is not None:
                open_sinks.callback(journal.close)
            publish = settings.publish
            publisher = Publisher(
                publish.bind,
                publish.encoding,
                lossless,
                journal,
                publish.replay,
                _keys(settings),
                options.insecure,
            )
            open_sinks.callback(publisher.close)
            sinks: list[Sink] = [publisher]
            for name, table in settings.sinks.items():
                sinks.append(plugins.load("sinks", name, {})(table))
                open_sinks.callback(sinks[-1].close)
            view = _view(options, lossless, publisher)
            screen = Screen(view)
            sinks.append(screen)
            session = Session(intake, sources, settings, sinks, options.duration_s)
            session.start()
            try:
                _wait_for(session, screen, stop_requested)
            finally:
                view.gone = view.gone or session.running()  # nobody is to wait for it
                try:
                    session.close()
                finally:
                    screen.close()
            if screen.problem is not None:
                raise screen.problem


def _wait_for(session: "Session", screen: "Screen", stop_requested: Callable[[], int]) -> None:
    """Return when the session has ended; ask it to where somebody wants that or nobody looks."""
    asked_at = math.inf
    while session.running():
        time.sleep(WATCH_S)
        session.watch()
        if (stop_requested() or screen.view.gone) and asked_at == math.inf:
            session.stop()
            asked_at = time.monotonic()
        if time.monotonic() > asked_at + STOP_GRACE_S:
            return  # held back by a reader who does not read


def subscribe(subscription: "Subscription", as_json: bool) -> None:
    """Print what arrives, until somebody stops it or nobody reads it."""
    from streamtwl.messages import encode
    from streamtwl.sinks.lines import Plain

    plain = Plain()
    with subscription, stop_requests() as stop_requested:
        while True:
            message = subscription.receive(0.1)  # the one before has been printed
            if stop_requested():
                return
            if message is not None:
                line = encode(message, "json").decode() if as_json else plain.line(message)
                if line and not _printed(line):
                    return


def keys_new(name: str | None, client: bool, folder: Path | None) -> None:
    """Make keys and say what to do with them."""
    from streamtwl import security

    if name and not client:
        raise UsageError(f"'{name}': a name is for --client, a publisher's key is called server")
    folder = folders.expand(folder) if folder else security.keys_folder()
    print(
        security.make_keys(folder, name or (security.CLIENT if client else security.SERVER)),
        flush=True,
    )
    print(
        f"copy it into the publisher's keys/{security.CLIENTS}/"
        if client
        else f"copy it to the subscribers, and their .key files into {folder / security.CLIENTS}",
        file=sys.stderr,
    )


def _printed(line: str) -> bool:
    """Print a line; return False where whoever read them has gone."""
    from streamtwl.sinks.standard_output import silence_stdout

    try:
        print(line, flush=True)
    except BrokenPipeError:
        silence_stdout()
        return False
    return True


def history(
    path: Path | None,
    kind: str,
    source: str,
    labels: Sequence[str],
    since: str | None,
    until: str | None,
    period: str | None,
    as_json: bool,
) -> None:
    """Print what the journal holds."""
    from streamtwl import history
    from streamtwl.sinks.journal_file import default_path

    wanted = history.asked(kind, source, labels, since, until)
    if period and kind != "event":
        raise UsageError("--hourly and --daily count events: leave --kind out")
    path = path or default_path()
    line = None
    for line in history.lines(path, wanted, period, as_json):
        if not _printed(line):
            return
    if line is None:
        why = history.why_nothing(path, wanted)
        print(f"streamtwl: {path} holds nothing of the kind{why and f': {why}'}", file=sys.stderr)


def schema() -> None:
    """Print the wire schema."""
    import msgspec

    from streamtwl.messages import json_schema

    print(msgspec.json.format(msgspec.json.encode(json_schema()), indent=2).decode())


def label(
    files: Sequence[Path],
    output: Path | None,
    folder: Path | None,
    form: str | None,
    settings: Settings,
    batch: BatchOptions | None = None,
) -> int:
    """Label recordings; return the exit code: 1 where one of them could not be read."""
    from streamtwl import recordings, results
    from streamtwl.audio.recording import is_pipe
    from streamtwl.pipeline import build

    batch = batch or BatchOptions()
    form = _label_form(output, folder, form, batch)
    clock = _wall_clock(batch)
    found, passed_over = recordings.find(files)
    if passed_over:
        counts = ", ".join(f"{why}: {count}" for why, count in passed_over.items())
        _say(f"passed over in folders: {counts}")
    if not found:
        raise AudioError(f"no recordings in {', '.join(map(str, files))}: name other folders")
    if batch.resume and any(is_pipe(file.path) for file in found):
        raise UsageError("--resume: what came from a pipe cannot be told apart, leave it out")
    _pull_backbone(settings)
    dated = clock is not None
    writer = results.Writer(output, folder, form, found, resume=batch.resume, dated=dated)
    kept = len(found) - len(writer.missing)
    if kept:
        _say(f"{kept} of {len(found)} files have a result already")
    settings = config.override(settings, {"backbone.threads": os.cpu_count() or 1})
    pipeline = build(settings, [source_name(found[i].path) for i in writer.missing])
    ended = _label_all(found, pipeline, writer, batch.channel, clock)
    if ended.signal:
        resume = "; --resume goes on there" if output or folder else ""
        _say(f"stopped: {kept + ended.files} of {len(found)} files have a result{resume}")
        return 128 + ended.signal
    if ended.undated:
        first = ended.first_undated
        _say(f"--clock {batch.clock}: no date and time for {ended.undated} files, first {first}")
    return 1 if ended.failed else 0


@dataclass
class _Ended:
    """What became of a batch."""

    files: int = 0
    failed: int = 0
    undated: int = 0
    first_undated: str = ""
    signal: int = 0  # that ended it before its end


def _label_all(
    found: "Sequence[Found]",
    pipeline: "Pipeline",
    writer: "Writer",
    channel: int | None,
    clock: "WallClock | None",
) -> _Ended:
    """Label those files whose results are missing, until a signal asks for the end."""
    from streamtwl import labelling
    from streamtwl.sinks.batch_view import BatchView, SayAbove

    ended = _Ended()
    view = BatchView(len(writer.missing), writer.prints)
    logging.getLogger().handlers[:] = [SayAbove(view)]
    with writer, stop_requests() as stop_requested, view:

        def watch(streams: list[Stream]) -> bool:
            view.update(streams)
            ended.signal = stop_requested()
            return not ended.signal

        paths = [found[i].path for i in writer.missing]
        for i, result in labelling.label_files(
            paths, pipeline, channel, clock, watch, stop_requested
        ):
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


def _label_form(
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
    if output is None and folder is None:
        if batch.resume:
            raise UsageError("--resume goes on with results that -o or -d names")
        if sys.stdout is None:
            raise UsageError("standard output is closed: name a file for the results with -o")
    return form


def _wall_clock(batch: BatchOptions) -> "WallClock | None":
    from streamtwl.recorded_at import WallClock

    if batch.zone is not None and batch.clock is None:
        raise UsageError(f"--zone {batch.zone} is for --clock name or mtime")
    return WallClock(batch.clock, batch.zone) if batch.clock else None


def _say(line: str) -> None:
    from streamtwl.file_names import one_line

    print(f"streamtwl: {one_line(line)}", file=sys.stderr)


@contextlib.contextmanager
def extra(command: str) -> Iterator[None]:
    """Say what to install where something of the extra `train` is not there."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{command} needs {error.name}: in a clone, .venv/bin/pip install -e '.[cpu,train]'"
        ) from None


def train(
    data: Path,
    corpus: Path | None,
    out: Path,
    leave_out: Sequence[int],
    recipe: dict[str, Any],
    names: Path | None = None,
) -> None:
    """Train a reasoner on a data set and say how it did on the validation split."""
    with extra("train"):
        from streamtwl.training import train as training
    corpus = corpus or folders.cache() / "corpus"
    asked = training.Recipe(**recipe)
    with bars(training.STAGES) as advance:
        card = training.train(data, corpus, out, leave_out, asked, advance, names)
    figures = card.validation
    print(
        f"{out}: {len(card.labels)} labels; on validation scenes in-force F1 "
        f"{figures['in_force_f1']:.3f} at {figures['false_starts_per_minute']:.1f} false starts "
        f"a minute\nListen with it: streamtwl listen --reasoner {out}"
    )


def labels(every: bool) -> None:
    """Print the names of sounds, one a line."""
    from streamtwl.ontology import categories, everyday

    if every:
        print("\n".join(categories()))
    else:
        for name, members in everyday().items():
            print(f"{name}: {'; '.join(members)}")


def models_list(console: Console) -> None:
    """Print the models."""
    table = Table("name", "what", "here")
    for model in registry.MODELS.values():
        here = "yes" if registry.checksum(model) else "no, `streamtwl models pull` gets it"
        table.add_row(model.name, model.about, here)
    console.print(table)


def models_path(name: str) -> None:
    """Print where a model's file is; raises ModelError if it is not there."""
    model = registry.find(name)
    if registry.checksum(model) is None:
        raise ModelError(f"{name} is not here yet: run `streamtwl models pull {name}`")
    print(registry.path(model))


def _pull_backbone(settings: Settings) -> None:
    """Get the backbone's file; that of another package's backbone is its own affair."""
    if settings.backbone.model not in plugins.names("backbones"):
        pull(settings.backbone.model)


def pull(name: str) -> Path:
    """Return a model's file, fetched with a progress bar if it is not here."""
    model = registry.find(name)
    if registry.checksum(model) is not None:
        return registry.path(model)
    with _progress(DownloadColumn()) as progress:
        bar = progress.add_task(name, total=model.carrier.size)

        def advance(done: int, _total: int) -> None:
            progress.update(bar, completed=done)

        def announce(line: str) -> None:
            progress.console.print(
                f"streamtwl: {line}", markup=False, highlight=False, soft_wrap=True
            )

        return registry.pull(model, advance, announce)


@contextlib.contextmanager
def bars(stages: Sequence[str]) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar for each stage; give what moves them: (stage, done, of)."""
    with _progress() as progress:
        tasks = {stage: progress.add_task(stage, total=None) for stage in stages}
        yield lambda stage, done, of: progress.update(tasks[stage], completed=done, total=of)


def _progress(*columns: ProgressColumn) -> Progress:
    columns = columns or (MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        console=console,
        disable=not console.is_terminal,  # a log has no use for a bar
    )


def _journal(settings: Settings) -> "Journal | None":
    from streamtwl.sinks.journal import Journal
    from streamtwl.sinks.journal_file import default_path

    asked = settings.journal
    if not asked.enabled:
        return None
    path = folders.expand(asked.path) if asked.path else default_path()
    return Journal(path, asked.max_age_days, asked.max_mb)


def _keys(settings: Settings) -> "ServerKeys | None":
    from streamtwl.security import ServerKeys, keys_folder

    asked = settings.publish
    if not asked.curve:
        return None
    return ServerKeys.load(folders.expand(asked.keys) if asked.keys else keys_folder())


def _view(options: ListenOptions, lossless: bool, publisher: "Publisher") -> "View":
    """Return what shows the messages: nothing, lines, or the live view in a terminal."""
    from streamtwl.sinks.lines import Lines, Nothing
    from streamtwl.sinks.live_view import LiveView, LogAbove

    if options.quiet:
        return Nothing()
    if options.as_json or not sys.stdout.isatty():
        return Lines(options.as_json, lossless)
    view = LiveView(publisher.endpoint)
    logging.getLogger().handlers[:] = [LogAbove(view)]
    return view
