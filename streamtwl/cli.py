"""The command line: one short function a command; the work is done elsewhere."""

import contextlib
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperCommand

import streamtwl
from streamtwl import commands
from streamtwl.audio.addresses import channel_number
from streamtwl.config import DEFAULT_PIPELINE
from streamtwl.errors import StreamtwlError, UsageError
from streamtwl.file_names import one_line
from streamtwl.models.wheel import OFFLINE
from streamtwl.sinks import standard_output

app = typer.Typer(
    name="streamtwl",
    help="Listens to live sound, names what it hears, and keeps thinking while it listens.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(
    help="The model weights: what there is, get them, where they are.", no_args_is_help=True
)
app.add_typer(models_app, name="models")
keys_app = typer.Typer(
    help="Keys for publishing to other machines: encrypted, to those who are allowed.",
    no_args_is_help=True,
)
app.add_typer(keys_app, name="keys")

Pipeline = Annotated[
    str,
    typer.Option(help="A pipeline file (.toml), or the name of one that streamtwl ships."),
]
Labels = Annotated[
    str | None,
    typer.Option(
        help="Which sounds to name: 'everyday' (about 70), 'all' (AudioSet's categories), or "
        "names set off by commas, as 'Dog, Siren'. (default: the pipeline's, all)",
        show_default=False,
    ),
]
Hop = Annotated[
    float | None,
    typer.Option(
        help="Seconds from one decision to the next, a multiple of 0.01 up to 0.96; 0.08 is quick."
        " (default: the pipeline's, 0.48)",
        show_default=False,
    ),
]
Reasoner = Annotated[
    str | None,
    typer.Option(
        help="What decides: 'open' (a GPT-2 that reads the trace), 'evidence' (no language model), "
        "or the .onnx file of a trained reasoner with labels of its own, as `streamtwl train` "
        "makes. (default: the pipeline's, open)",
        show_default=False,
    ),
]
Channel = Annotated[
    str,
    typer.Option(
        help="Which channel of a source to use: mix (all; the louder one where they cancel one "
        "another out), left, right, or a number from 1 on."
    ),
]


def _forbid_network(wanted: bool) -> bool:
    if wanted:
        os.environ[OFFLINE] = "1"
    return wanted


Offline = Annotated[
    bool,
    typer.Option(
        "--offline",
        help="Fetch nothing: no model's weights, where they are absent. STREAMTWL_OFFLINE=1 does "
        "the same.",
        callback=_forbid_network,
    ),
]
LogLevel = Annotated[
    commands.LogLevel, typer.Option(help="What is logged to standard error.", case_sensitive=False)
]


Data = Annotated[Path, typer.Argument(help="Your sounds: ESC-50's layout, or a folder per class.")]
Corpus = Annotated[
    Path | None,
    typer.Option(
        help="Backgrounds without your sounds: FOLDER/train/ANY/*.flac, as tools/corpus.sh "
        "makes them. (default: corpus in the cache folder)",
        show_default=False,
    ),
]
LeaveOut = Annotated[
    list[int] | None,
    typer.Option(help="A fold to keep for a test. Repeat it for several. (default: none)"),
]
PatchHop = Annotated[
    float, typer.Option(help="Seconds from one patch to the next.", min=0.01, max=0.96)
]
BENCH_SWITCHES = {  # of `train` once, of `bench train` now
    *("--body", "--train", "--trace", "--residual", "--no-residual", "--rows", "--open", "--names"),
}


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"streamtwl {streamtwl.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and exit.",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Take the options that come before a command."""


@app.command()
def devices() -> None:
    """List the microphones: index, name, channels, default sample rate.

    Exits with 1 where there is none.
    """
    commands.devices(Console())


@app.command()
def listen(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SOURCE]...",
            help="What to listen to: mic: or mic:USB, a file (street.flac or file:street.flac), "
            "stdin:, demo:, a camera (rtsp://host/path, rtsps://), a radio or a file on a web "
            "server (http://host/path, https://). (default: mic:)",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            help="A microphone: its index or (part of) its name, as mic:NAME. Repeat it for more.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option(
            help="A sound file or a film, or - for standard input, played at the pace of real time."
            " Repeat it for several."
        ),
    ] = None,
    stdin: Annotated[
        bool,
        typer.Option(
            "--stdin",
            help="Raw samples, or WAV, from standard input. (Other kinds of sound: --file -)",
        ),
    ] = False,
    demo: Annotated[
        bool, typer.Option("--demo", help="A 20-second scene that streamtwl synthesises.")
    ] = False,
    fast: Annotated[
        bool, typer.Option("--fast", help="Files as fast as the machine can, not in real time.")
    ] = False,
    format: Annotated[
        commands.Encoding,
        typer.Option(help="Of --stdin without a WAV header: interleaved little-endian samples."),
    ] = commands.Encoding.s16le,
    rate: Annotated[
        int, typer.Option(help="Of --stdin without a WAV header: in Hz.", min=4_000, max=768_000)
    ] = 16_000,
    channels: Annotated[
        int, typer.Option(help="Of --stdin without a WAV header.", min=1, max=64)
    ] = 1,
    channel: Channel = "mix",
    name: Annotated[
        list[str] | None,
        typer.Option(
            help="What a source is called on the wire (a-z, 0-9, _ and -). Once a source."
            " (default: mic, or the file's name)"
        ),
    ] = None,
    pipeline: Pipeline = DEFAULT_PIPELINE,
    labels: Labels = None,
    reasoner: Reasoner = None,
    hop: Hop = None,
    samples: Annotated[
        int | None,
        typer.Option(
            help="K, categories drawn from each patch where the trace is sampled (by the paper's "
            "recipe; others read what many come to), 1 to 4096. (default: the pipeline's, 16)",
            show_default=False,
        ),
    ] = None,
    traces: Annotated[
        int | None,
        typer.Option(
            help="M, traces drawn side by side where the trace is sampled; the decision is their "
            "mean, 1 to 256. (default: the pipeline's, 1)",
            show_default=False,
        ),
    ] = None,
    think: Annotated[
        commands.Think | None,
        typer.Option(
            help="off: one trace; fixed: all M before a decision; anytime: a few, then the others "
            "while the decision is open and there is time. Of several traces only. (default: the "
            "pipeline's, anytime)",
            show_default=False,
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            help="How much of a hop is for thinking on, 0 to 1. (default: the pipeline's, 0.5)",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Of the draws. (default: the pipeline's, 0)", show_default=False),
    ] = None,
    bind: Annotated[
        str | None,
        typer.Option(
            help="ZeroMQ endpoint to publish on. (default: the pipeline's, tcp://127.0.0.1:5577)",
            show_default=False,
        ),
    ] = None,
    replay_bind: Annotated[
        str | None,
        typer.Option(
            help="ZeroMQ endpoint that gives journalled messages again, to those who missed some; "
            "'' for none. (default: the pipeline's, tcp://127.0.0.1:5578)",
            show_default=False,
        ),
    ] = None,
    journal: Annotated[
        Path | None,
        typer.Option(
            help="Keep what is told in this SQLite file, for `streamtwl history` and for replay. "
            "(default: journal.sqlite in the user's state folder, or in $STREAMTWL_STATE)",
            show_default=False,
        ),
    ] = None,
    no_journal: Annotated[
        bool, typer.Option("--no-journal", help="Keep nothing; there is no replay then.")
    ] = False,
    curve: Annotated[
        bool,
        typer.Option(
            "--curve", help="Publish encrypted (CURVE), to those whose keys are in keys/clients/."
        ),
    ] = False,
    keys: Annotated[
        Path | None,
        typer.Option(
            help="The folder of keys for --curve, which it implies. (default: keys in the user's "
            "config folder, or in $STREAMTWL_CONFIG)",
            show_default=False,
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure", help="Let --bind and --replay-bind open to the network without keys."
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the wire messages, one JSON object a line.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing; publish only.")] = False,
    duration: Annotated[
        float | None,
        typer.Option(
            help="End after so many seconds of sound. (default: never)",
            min=0.1,
            show_default=False,
        ),
    ] = None,
    offline: Offline = False,
    log_level: LogLevel = commands.LogLevel.warning,
) -> None:
    """Listen, name what is heard, and publish it over ZeroMQ.

    Without a source the default microphone is used. A network source that is lost is connected to
    again; user and password may stand in its address, and are shown nowhere.

    Ctrl-C ends it; what was heard so far is still worked through and published.
    """
    commands.listen(
        commands.SourceOptions(
            [
                *(sources or []),
                *(f"mic:{name}" for name in device or []),
                *(f"file:{path}" for path in file or []),
                *["stdin:"] * stdin,
                *["demo:"] * demo,
            ],
            fast,
            format.value,
            rate,
            channels,
            channel_number(channel),
            name or [],
        ),
        commands.pipeline_settings(
            pipeline,
            {
                "labels": labels,
                "reasoner.file": reasoner,
                "hop_s": hop,
                "trace.samples": samples,
                "trace.traces": traces,
                "trace.think": think and think.value,
                "trace.budget": budget,
                "trace.seed": seed,
                "publish.bind": bind,
                "publish.replay": replay_bind,
                "publish.curve": True if curve or keys else None,
                "publish.keys": str(keys) if keys else None,
                "journal.path": str(journal) if journal else None,
                "journal.enabled": False if no_journal else None,
            },
        ),
        commands.ListenOptions(as_json, quiet, duration, log_level.value, insecure),
    )


@app.command()
def subscribe(
    connect: Annotated[
        str, typer.Option(help="ZeroMQ endpoint of a listening streamtwl.")
    ] = "tcp://127.0.0.1:5577",
    kind: Annotated[
        list[commands.Kind] | None,
        typer.Option(
            help="Only this kind of message. Repeat it for several. (default: all)",
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this source. Repeat it for several. (default: all)", show_default=False
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="Only labels and events of this name; * and ? as in file names. Repeat it for "
            "several. (default: all)",
            show_default=False,
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            help="Remember in this file what was printed, and go on there the next time, with what "
            "the publisher's journal has of the time between.",
            show_default=False,
        ),
    ] = None,
    server_key: Annotated[
        str | None,
        typer.Option(
            help="The publisher's public key, where it publishes with --curve: its server.key, or "
            "the 40 characters in it.",
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            help="Your own secret key, for --server-key. (default: keys/client.key_secret in the "
            "user's config folder, or in $STREAMTWL_CONFIG)",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the messages whole, one JSON object a line.")
    ] = False,
    log_level: LogLevel = commands.LogLevel.warning,
) -> None:
    """Print what a listening streamtwl publishes, until Ctrl-C.

    What was missed on the way is asked for again and printed in its place.
    """
    commands.start_logging(log_level.value)
    commands.subscribe(
        streamtwl.subscribe(
            connect,
            [each.value for each in kind or []],
            source or [],
            label or [],
            state=state,
            server_key=server_key,
            key=key,
        ),
        as_json,
    )


@app.command()
def history(
    since: Annotated[
        str | None,
        typer.Option(
            help="Only from then on: 30m, 2h, 7d or 2w ago; 14:30 today; 2026-11-24, or "
            "'2026-11-24 14:30'. (default: all that is kept)",
            show_default=False,
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Only up to then, told alike. (default: now)")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="Only this label; * and ? as in file names. Repeat it for several."),
    ] = None,
    source: Annotated[str, typer.Option(help="Only this source. (default: all)")] = "",
    kind: Annotated[
        commands.Journalled,
        typer.Option(
            help="event: a line a sound, with its onset, seconds and peak confidence; label: where "
            "the decision changed; status: where the state did."
        ),
    ] = commands.Journalled.event,
    hourly: Annotated[
        bool, typer.Option("--hourly", help="How often and how long each label sounded, by hour.")
    ] = False,
    daily: Annotated[bool, typer.Option("--daily", help="The same, by day.")] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="The messages whole, or the counts: a JSON object a line."),
    ] = False,
    journal: Annotated[
        Path | None,
        typer.Option(
            help="The journal that `streamtwl listen` writes. (default: journal.sqlite in the "
            "user's state folder, or in $STREAMTWL_STATE)",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Print what was heard: the journal, also while somebody listens.

    Times are local, with their offset from UTC; --since and --until take one too.

    The dogs of the last two hours: streamtwl history --since 2h --label 'Dog*'

    What sounded how often, day by day: streamtwl history --daily
    """
    period = "hour" if hourly else "day" if daily else None
    commands.history(journal, kind.value, source, label or [], since, until, period, as_json)


@app.command()
def schema() -> None:
    """Print the JSON Schema of all messages on the wire, for programs in other languages."""
    commands.schema()


@app.command()
def label(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Sound files of any format and rate; folders, which are searched with their "
            "subfolders; - or <(command) for a pipe.",
            readable=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Write all results to this .jsonl or .csv file."
            " (default: JSON lines to standard output)",
            show_default=False,
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "-d",
            "--folder",
            help="Write one result file for each sound file here; for those of a folder, in the "
            "same subfolders.",
        ),
    ] = None,
    format: Annotated[
        commands.LabelFormat | None,
        typer.Option(
            help="Of the results. (default: as -o's name ends; audacity with -d)",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on where the same command was stopped: what -o or -d has is kept, what is half"
            " written or failed is labelled again.",
        ),
    ] = False,
    clock: Annotated[
        commands.Clock | None,
        typer.Option(
            help="Also give each event's wall-clock times (ISO 8601), from the date and time in "
            "the file's name (as AudioMoth, Song Meter and Zoom write them, or ISO 8601), or from "
            "its mtime, the date at which the recording ended (a copy may have another)."
            " (default: seconds only)",
            show_default=False,
        ),
    ] = None,
    zone: Annotated[
        str | None,
        typer.Option(
            help="Of --clock: the time zone of names that have none, as Europe/Berlin, UTC or "
            "+01:00. (default: the computer's; UTC for AudioMoth's 20260514_203000.WAV)",
            show_default=False,
        ),
    ] = None,
    channel: Channel = "mix",
    pipeline: Pipeline = DEFAULT_PIPELINE,
    labels: Labels = None,
    reasoner: Reasoner = None,
    hop: Hop = None,
    offline: Offline = False,
    log_level: LogLevel = commands.LogLevel.warning,
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
    settings = commands.pipeline_settings(
        pipeline, {"labels": labels, "reasoner.file": reasoner, "hop_s": hop}
    )
    commands.start_logging(log_level.value)
    form = format.value if format else None
    batch = commands.BatchOptions(
        channel_number(channel), resume, clock.value if clock else None, zone
    )
    raise typer.Exit(commands.label(files, output, folder, form, settings, batch))


class _Train(TyperCommand):
    """`train`, which hands switches that have moved over to `bench train`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        moved = [each for each in args if each.partition("=")[0] in BENCH_SWITCHES]
        if moved:
            switch = moved[0].partition("=")[0]
            ctx.exit(_moved(f"train {switch}", ["train", *args]))
        return super().parse_args(ctx, args)


@app.command(cls=_Train)
def train(
    data: Data,
    out: Annotated[
        Path, typer.Option("-o", "--output", help="The reasoner's file; its name is its name.")
    ] = Path("reasoner.onnx"),
    corpus: Corpus = None,
    leave_out: LeaveOut = None,
    epochs: Annotated[int, typer.Option(help="At most.", min=1)] = 8,
    seed: Annotated[int, typer.Option(help="Of the scenes and the weights.", min=0)] = 0,
    hop: PatchHop = 0.48,
    offline: Offline = False,
) -> None:
    """Train a reasoner on your own labelled clips (needs the extra `train`).

    The clips are put over backgrounds into scenes. A hidden Markov model learns what sounds when,
    and a language model reads the stream and corrects it. Epochs and thresholds are chosen on clips
    kept apart. `listen --reasoner FILE` then uses it. Stopped, the same command goes on.

    `streamtwl bench train` has the switches of research: other models, other traces, none.
    """
    recipe = {"epochs": epochs, "seed": seed, "hop_s": hop}
    commands.train(data, corpus, out, leave_out or [], recipe)


PASSED_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


@app.command(context_settings=PASSED_ON)
def bench(ctx: typer.Context) -> None:
    """Research: pre-training, baselines, and training with every switch (needs the extra `train`).

    See `streamtwl bench --help`.
    """
    raise typer.Exit(_bench(ctx.args))


@app.command(hidden=True, context_settings=PASSED_ON)
def evaluate(ctx: typer.Context) -> None:
    """Call `bench evaluate` by its old name."""
    raise typer.Exit(_moved("evaluate", ["evaluate", *ctx.args]))


@app.command(hidden=True, context_settings=PASSED_ON)
def pretrain(ctx: typer.Context) -> None:
    """Call `bench pretrain` by its old name."""
    raise typer.Exit(_moved("pretrain", ["pretrain", *ctx.args]))


def _moved(old: str, arguments: list[str]) -> int:
    print(
        f"streamtwl: `streamtwl {old}` is deprecated: it is `streamtwl bench {arguments[0]}` now",
        file=sys.stderr,
    )
    return _bench(arguments)


def _bench(arguments: list[str]) -> int:
    """Run `streamtwl bench ...`; return its exit code."""
    from streamtwl.bench import command_line

    code = command_line.app(arguments, prog_name="streamtwl bench", standalone_mode=False)
    return code if isinstance(code, int) else 0


@app.command()
def labels(
    every: Annotated[
        bool, typer.Option("--all", help="AudioSet's categories instead of the everyday sounds.")
    ] = False,
) -> None:
    """Print the names that --labels takes: the everyday sounds, and what each is made of."""
    commands.labels(every)


@keys_app.command("new")
def keys_new(
    name: Annotated[
        str | None,
        typer.Argument(help="With --client: what to call it. (default: client)"),
    ] = None,
    client: Annotated[
        bool, typer.Option("--client", help="For subscribing, not for publishing.")
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Where. (default: keys in the user's config folder, or in $STREAMTWL_CONFIG)",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make a pair of CURVE keys: a .key file to hand over, a .key_secret file to keep."""
    commands.keys_new(name, client, folder)


@models_app.command("list")
def models_list() -> None:
    """List the models and whether they are here."""
    commands.models_list(Console())


@models_app.command("pull")
def models_pull(
    name: Annotated[str, typer.Argument(help="A model of `streamtwl models list`.")] = "yamnet",
    offline: Offline = False,
) -> None:
    """Get a model's weights, unless they are here and whole."""
    print(commands.pull(name))


@models_app.command("path")
def models_path(
    name: Annotated[str, typer.Argument(help="A model of `streamtwl models list`.")] = "yamnet",
) -> None:
    """Print where a model's file is; exits with 1 if it is not there."""
    commands.models_path(name)


def main() -> None:
    """Run the command line; an error is one line on standard error and an exit code."""
    standard_output.take_over()
    try:
        code = app(standalone_mode=False)
        standard_output.flush_stdout()
    except StreamtwlError as error:
        code = _fail(str(error), error.exit_code)
    except typer.TyperException as error:
        code = _refuse(error)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # whoever read standard output has gone
        code = 1
    with contextlib.suppress(BrokenPipeError, StreamtwlError):  # what failed has been said
        standard_output.flush_stdout()
    sys.exit(code if isinstance(code, int) else 0)


def _refuse(error: typer.TyperException) -> int:
    """Say what is wrong with the options; return the exit code."""
    if type(error).__name__ != "NoArgsIsHelpError":  # which has shown the help: no public class
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "streamtwl"
        problem = error.format_message().rstrip(".")
        _fail(f"{problem}: see `{command} --help`", UsageError.exit_code)
    return UsageError.exit_code


def _fail(message: str, code: int) -> int:
    with contextlib.suppress(OSError):  # standard error may be full or gone as well
        print(f"streamtwl: {one_line(message)}", file=sys.stderr)
    return code
