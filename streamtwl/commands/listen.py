"""`streamtwl listen`: live sound, named and published."""

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from streamtwl.commands import serve
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
from streamtwl.commands.serve import Alerts, Metrics, Mqtt, MqttLabels, MqttPasswordFile, Web
from streamtwl.config import DEFAULT_PIPELINE
from streamtwl.errors import UsageError

# how --help groups the options; a test holds that each is in one group
PANELS = {
    "Sources": "device file stdin demo fast format rate channels channel name shard",
    "Decisions": "pipeline labels reasoner endpoint preset model hop samples traces think budget "
    "seed provider",
    "Publishing": "bind replay_bind curve keys insecure",
    "Journal and clips": "journal no_journal clips clips_days clips_mb",
    "Services": "mqtt mqtt_labels mqtt_password_file web alerts metrics",
    "Running": "no_control as_json quiet duration offline log_level help",
}

Encoding = StrEnum("Encoding", ["s16le", "s24le", "s32le", "f32le", "u8"])
ThinkMode = StrEnum("ThinkMode", ["off", "fixed", "anytime"])

Sources = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SOURCE]...",
        help="What to listen to: mic: or mic:USB, a file (street.flac or file:street.flac), "
        "stdin:, demo:, a camera (rtsp://host/path, rtsps://), a radio or a file on a web "
        "server (http://host/path, https://). (default: mic:)",
        show_default=False,
    ),
]
Device = Annotated[
    list[str] | None,
    typer.Option(
        help="A microphone: its index or (part of) its name, as mic:NAME. Repeat it for more.",
        show_default=False,
    ),
]
File = Annotated[
    list[Path] | None,
    typer.Option(
        help="A sound file or a film, or - for standard input, played at the pace of real time."
        " Repeat it for several."
    ),
]
Stdin = Annotated[
    bool,
    typer.Option(
        "--stdin",
        help="Raw samples, or WAV, from standard input. (Other kinds of sound: --file -)",
    ),
]
Demo = Annotated[bool, typer.Option("--demo", help="A 20-second scene that streamtwl synthesises.")]
Fast = Annotated[
    bool, typer.Option("--fast", help="Files as fast as the machine can, not in real time.")
]
Format = Annotated[
    Encoding,
    typer.Option(help="Of --stdin without a WAV header: interleaved little-endian samples."),
]
Rate = Annotated[
    int, typer.Option(help="Of --stdin without a WAV header: in Hz.", min=4_000, max=768_000)
]
Channels = Annotated[int, typer.Option(help="Of --stdin without a WAV header.", min=1, max=64)]
Name = Annotated[
    list[str] | None,
    typer.Option(
        help="What a source is called on the wire (a-z, 0-9, _ and -). Once a source."
        " (default: mic, or the file's name)"
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(
        metavar="I/N",
        help="Of the sources listen only to those that fall to shard I of N, by a hash of their "
        "names: for many, over several processes or machines. docs/scale.md.",
        show_default=False,
    ),
]
Samples = Annotated[
    int | None,
    typer.Option(
        help="K, categories drawn from each patch where the trace is sampled (by the paper's "
        "recipe; other reasoners read the soft trace), 1 to 4096. (default: the pipeline's, 16)",
        show_default=False,
    ),
]
Traces = Annotated[
    int | None,
    typer.Option(
        help="M, traces drawn side by side where the trace is sampled; the decision is their "
        "mean, 1 to 256. (default: the pipeline's, 1)",
        show_default=False,
    ),
]
Think = Annotated[
    ThinkMode | None,
    typer.Option(
        help="off: one trace; fixed: all M before a decision; anytime: a few, then the others "
        "while the decision is open and there is time. Of several traces only. (default: the "
        "pipeline's, anytime)",
        show_default=False,
    ),
]
Budget = Annotated[
    float | None,
    typer.Option(
        help="How much of a hop is for thinking on, 0 to 1. (default: the pipeline's, 0.5)",
        show_default=False,
    ),
]
Seed = Annotated[
    int | None, typer.Option(help="Of the draws. (default: the pipeline's, 0)", show_default=False)
]
Endpoint = Annotated[
    str | None,
    typer.Option(
        help="Of --reasoner llm: an OpenAI-compatible server of a language model, as "
        "http://127.0.0.1:8000/v1. What was recognised is sent there, in words; never sound.",
        show_default=False,
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="Of --reasoner llm: the kind of model, gpt-oss-20b, qwen3-14b, chat (any other) or "
        "base (without a chat template). (default: the pipeline's, chat)",
        show_default=False,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        help="Of --reasoner llm: the model as its server calls it. (default: the preset's)",
        show_default=False,
    ),
]
Bind = Annotated[
    str | None,
    typer.Option(
        help="ZeroMQ endpoint to publish on. (default: the pipeline's, tcp://127.0.0.1:5577)",
        show_default=False,
    ),
]
ReplayBind = Annotated[
    str | None,
    typer.Option(
        help="ZeroMQ endpoint that gives journalled messages again, to those who missed some; "
        "'' for none. (default: the pipeline's, tcp://127.0.0.1:5578)",
        show_default=False,
    ),
]
Journal = Annotated[
    Path | None,
    typer.Option(
        help="Keep what is published in this SQLite file, for `streamtwl history` and for replay; "
        "its folder has to be there. (default: journal.sqlite in the user's state folder, or in "
        "$STREAMTWL_STATE)",
        show_default=False,
    ),
]
NoJournal = Annotated[
    bool, typer.Option("--no-journal", help="Keep nothing; there is no replay then.")
]
Clips = Annotated[
    Path | None,
    typer.Option(
        help="Keep each event's SOUND in this folder, with a second before and after (30 s at "
        "most), as FLAC, to listen to it again in `streamtwl review`: off unless you name one. "
        "Where somebody speaks nothing is kept. A clip goes with its event, or earlier by the two "
        "limits below.",
        metavar="FOLDER",
        show_default=False,
    ),
]
ClipsDays = Annotated[
    float | None,
    typer.Option(
        help="Of --clips: how many days they are kept. (default: the pipeline's, 7)",
        min=0.01,
        show_default=False,
    ),
]
ClipsMb = Annotated[
    float | None,
    typer.Option(
        help="Of --clips: how many megabytes, the oldest go first. (default: the pipeline's, 200)",
        min=0.1,
        show_default=False,
    ),
]
Curve = Annotated[
    bool,
    typer.Option(
        "--curve", help="Publish encrypted (CURVE), to those whose keys are in keys/clients/."
    ),
]
Keys = Annotated[
    Path | None,
    typer.Option(
        help="The folder of keys for --curve, which it implies. (default: keys in the user's "
        "config folder, or in $STREAMTWL_CONFIG)",
        show_default=False,
    ),
]
Insecure = Annotated[
    bool,
    typer.Option(
        "--insecure", help="Let --bind and --replay-bind open to the network without keys."
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print the wire messages, one JSON object a line.")
]
NoControl = Annotated[
    bool,
    typer.Option(
        "--no-control",
        help="Open no control socket: `streamtwl teach` then has neither new sounds taken in nor "
        "--last. (default: a Unix socket in the state folder that only you can open)",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing; publish only.")]
Duration = Annotated[
    float | None,
    typer.Option(
        help="End after so many seconds of sound. (default: never)", min=0.1, show_default=False
    ),
]


class Command(serve.Command):
    """The command with its options in groups."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options, each with its group for --help."""
        params: list[Any] = [*super().get_params(ctx)]
        panels = {name: panel for panel, names in PANELS.items() for name in names.split()}
        for param in params:
            param.rich_help_panel = panels.get(param.name)
        return params


def listen(
    sources: Sources = None,
    device: Device = None,
    file: File = None,
    stdin: Stdin = False,
    demo: Demo = False,
    fast: Fast = False,
    format: Format = Encoding.s16le,
    rate: Rate = 16_000,
    channels: Channels = 1,
    channel: Channel = "mix",
    name: Name = None,
    shard: Shard = None,
    pipeline: Pipeline = DEFAULT_PIPELINE,
    labels: Labels = None,
    reasoner: Reasoner = None,
    endpoint: Endpoint = None,
    preset: Preset = None,
    model: Model = None,
    hop: Hop = None,
    samples: Samples = None,
    traces: Traces = None,
    think: Think = None,
    budget: Budget = None,
    seed: Seed = None,
    bind: Bind = None,
    replay_bind: ReplayBind = None,
    journal: Journal = None,
    no_journal: NoJournal = False,
    clips: Clips = None,
    clips_days: ClipsDays = None,
    clips_mb: ClipsMb = None,
    curve: Curve = False,
    keys: Keys = None,
    insecure: Insecure = False,
    mqtt: Mqtt = None,
    mqtt_labels: MqttLabels = None,
    mqtt_password_file: MqttPasswordFile = None,
    web: Web = None,
    alerts: Alerts = None,
    metrics: Metrics = None,
    no_control: NoControl = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    duration: Duration = None,
    provider: Provider = None,
    offline: Offline = False,
    log_level: LogLevel = Level.warning,
) -> None:
    """Listen, name the sounds, and publish them over ZeroMQ.

    \b
    streamtwl listen --labels everyday --web
    streamtwl listen mic:USB rtsp://camera/1 --mqtt mqtt://broker

    The first listens to the default microphone, and shows what it names on a page at
    http://127.0.0.1:8765; the second listens to two sources and sends their events to a broker.
    docs/using.md explains the options, docs/reach.md the services.

    Without a source the default microphone is used. A network source that is lost is connected to
    again; user and password may stand in its address, and are shown nowhere.

    Ctrl-C ends it; what was received so far is still processed and published.
    """
    from streamtwl import listening
    from streamtwl.audio.addresses import SourceOptions, channel_number

    if duration is not None and not math.isfinite(duration):
        raise UsageError(f"--duration {duration}: it takes a number of seconds")
    addresses = [
        *(sources or []),
        *(f"mic:{each}" for each in device or []),
        *(f"file:{path}" for path in file or []),
        *["stdin:"] * stdin,
        *["demo:"] * demo,
    ]
    number = channel_number(channel)
    wanted = SourceOptions(addresses, fast, format.value, rate, channels, number, name or [], shard)
    changes = {
        "labels": labels,
        "backbone.provider": provider and provider.value,
        "reasoner.file": reasoner,
        "llm.endpoint": endpoint,
        "llm.preset": preset,
        "llm.model": model,
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
        "clips.folder": str(clips) if clips else None,
        "clips.max_age_days": clips_days,
        "clips.max_mb": clips_mb,
        **serve.changes(mqtt, mqtt_labels, mqtt_password_file, web, alerts, metrics),
    }
    start_logging(log_level.value)
    settings = pipeline_settings(pipeline, changes)
    serve.check(changes, settings.services.mqtt.url)
    listening.mind_clips(settings)
    pull_backbone(settings)
    listening.run(
        wanted,
        settings,
        listening.Options(as_json, quiet, duration, insecure, not no_control, log_level.value),
    )
