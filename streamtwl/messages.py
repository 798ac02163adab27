"""The wire schema: what subscribers get, one struct per message; `streamtwl schema` prints it.

Frames: topic, payload. Topic `<kind>/<source>/`. Payload MessagePack by default, JSON by option;
tagged by `kind`. Positions are 16 kHz samples from the stream's start. No NaN, no infinity.

SCHEMA is `major.minor`. A new minor version only adds kinds, and fields that have a default, so a
reader of 1.1 also reads 1.2 and 1.0; any other change makes a new major version, which older
readers refuse. `tests/schema/` keeps a snapshot of every version.
"""

import inspect
import math
import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from streamtwl.errors import UNDECODABLE, MessageError, UnknownKind

SCHEMA = "1.8"
MAJOR = SCHEMA.partition(".")[0]
SOURCE_NAME = re.compile("[a-z0-9_-]+")

Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0)]
Dbfs = Annotated[float, Meta(ge=-120)]
Journalled = Annotated[
    bool, Meta(description="It was in the publisher's journal before it was sent.")
]
Repeat = Annotated[
    bool,
    Meta(
        description="It says what the one before says (the same label, or state and error). It is "
        "held in memory for replay for ten minutes, and becomes part of a summary in the journal. "
        "New in 1.7."
    ),
]
Calibrated = Annotated[
    bool,
    Meta(description="A-weighted levels are sound pressure levels; else they are dB full scale."),
]
Replay = Annotated[
    str | None,
    Meta(description="ZeroMQ endpoint that replays messages (a ROUTER); null: there is none."),
]


class Scored(msgspec.Struct, frozen=True):
    """A category or label with its score."""

    label: Annotated[str, Meta(description="Its name.")]
    score: Annotated[Share, Meta(description="In [0, 1].")]


Top = Annotated[list[Scored], Meta(description="The five strongest, strongest first.")]


class WindowTop(msgspec.Struct, frozen=True):
    """What a backbone says of one more window."""

    window: Annotated[str, Meta(description="As in the pipeline's `windows`: mn04:3.")]
    top: Top


class Summary(msgspec.Struct, frozen=True):
    """What is kept of repeats that the last one of them, which carries this, stands for."""

    first_seq: Annotated[Count, Meta(description="Of the first of them.")]
    first_position: Annotated[Count, Meta(description="Of the first of them.")]
    first_published_at: Annotated[float, Meta(description="Of the first of them.")]
    count: Annotated[Count, Meta(description="So many they are, the last one included.")]
    highest: Annotated[
        Share | None, Meta(description="Highest confidence of a label; null for states.")
    ] = None
    mean: Annotated[
        Share | None, Meta(description="Mean confidence of a label; null for states.")
    ] = None
    labels: Annotated[list[str], Meta(description="The labels in `hops`.")] = []
    hops: Annotated[
        list[list[int]],
        Meta(
            description="`top` of each hop, at equal distances from `first_position` to "
            "`position`: an index into `labels`, its score in thousandths, the next index ...; "
            "without those below 0.02 that are not the strongest; empty for states."
        ),
    ] = []


Summarised = Annotated[
    Summary | None,
    Meta(
        description="In a replay of older ones: the repeats from `first_seq` to this one, which "
        "are not kept one by one; null: it stands for itself. New in 1.7."
    ),
]


class Message(msgspec.Struct, kw_only=True, tag_field="kind", tag=str.lower):
    """What every message carries."""

    source: Annotated[str, Meta(pattern="^[a-z0-9_-]+$", description="Name of the source.")]
    session: Annotated[str, Meta(description="One run of the publisher.")]
    seq: Annotated[Count, Meta(description="From 0, gapless per session and topic.")]
    position: Annotated[
        Count,
        Meta(description="End of the sound it covers: 16 kHz samples from the stream's start."),
    ]
    captured_at: Annotated[
        float | None, Meta(description="Unix seconds of `position`; null for files and pipes.")
    ]
    published_at: Annotated[float, Meta(description="Unix seconds.")]
    schema: Annotated[str, Meta(description="Version of this schema, major.minor.")] = SCHEMA

    @property
    def topic(self) -> str:
        """`<kind>/<source>/`: a subscription to `label/` takes every source's labels."""
        return topic(type(self), self.source)


class Thought(msgspec.Struct, frozen=True):
    """What a language model says that an event is."""

    label: Annotated[str | None, Meta(description="Null: none of the labels.")]
    instead_of: Annotated[str, Meta(description="The event's label until then.")]
    start: Annotated[Count, Meta(description="Position at which the event began.")]
    text: Annotated[
        str, Meta(description="What it thought, cut short; empty where it does not say.")
    ]
    latency_ms: Annotated[float, Meta(description="From the query to its answer.")]


class Hello(Message):
    """Who publishes: at start, every minute, and to each new subscriber."""

    labels: Annotated[list[str], Meta(description="All that `label` can be.")]
    settings: Annotated[dict[str, Any], Meta(description="The pipeline, as in its TOML file.")]
    models: Annotated[dict[str, str], Meta(description="Name: SHA-256 of the file.")]
    replay: Replay = None
    providers: Annotated[
        dict[str, str],
        Meta(
            description="Backbone: what ONNX Runtime runs it on, as CPUExecutionProvider; without "
            "those that run elsewhere. New in 1.3."
        ),
    ] = {}
    earlier: Annotated[
        list[str],
        Meta(
            description="Sessions before this one that `replay` has messages of this source from, "
            "oldest first, at most the newest 100. New in 1.8."
        ),
    ] = []


class Patch(Message):
    """The backbone's scores for one window: every hop."""

    top: Top
    level_dbfs: Annotated[Dbfs, Meta(description="RMS of the newest hop, dB full scale.")]
    drawn: Annotated[
        list[Scored],
        Meta(
            description="The categories drawn most often for the trace, with their share of the "
            "samples; for a soft trace, of which nothing is drawn, the strongest, with their share "
            "of the posterior's sum; empty where the reasoner reads no trace."
        ),
    ] = []
    others: Annotated[
        list[WindowTop],
        Meta(description="The pipeline's other windows, whose ends are the same. New in 1.6."),
    ] = []


class Label(Message):
    """The decision in force: every hop, and each refinement of it."""

    label: Annotated[
        str | None, Meta(description="Null: no sound that the vocabulary has a name for.")
    ]
    confidence: Annotated[Share, Meta(description="In [0, 1].")]
    top: Top
    reasoner: Annotated[str, Meta(description="What decided.")]
    samples: Annotated[Count, Meta(description="Drawn samples used for it, over all traces.")]
    traces: Annotated[Count, Meta(description="Traces used for it.")]
    refinement: Annotated[Count, Meta(description="0: the first decision on a patch.")]
    latency_ms: Annotated[
        float,
        Meta(description="From the window's last sample at the resampler's output to publication."),
    ]
    journalled: Journalled = False
    thoughts: Annotated[
        list[Thought],
        Meta(
            description="Answers of a language model that came since the last decision; the event "
            "that it names otherwise is `revised`."
        ),
    ] = []
    repeat: Repeat = False
    summary: Summarised = None


class Event(Message):
    """A sound began, ended, or was revised."""

    id: Annotated[str, Meta(description="The same for all messages on one event.")]
    phase: Annotated[Literal["onset", "offset", "revised"], Meta(description="Of the event.")]
    label: Annotated[str, Meta(description="What sounds.")]
    start: Annotated[Count, Meta(description="Position, 16 kHz samples.")]
    end: Annotated[int | None, Meta(description="Position; null while it lasts.")]
    peak: Annotated[Share, Meta(description="Highest confidence so far.")]
    mean: Annotated[Share, Meta(description="Mean confidence so far.")]
    journalled: Journalled = False
    retracted: Annotated[
        bool,
        Meta(
            description="There was no such event after all; `end` is then `start`, which is how "
            "readers of 1.1 recognise it. Every other event has a length."
        ),
    ] = False

    @property
    def void(self) -> bool:
        """Whether it is not an event: retracted, or, before 1.2, of zero length."""
        return self.retracted or (self.end is not None and self.end <= self.start)


class Status(Message):
    """The state of a source and of the program: every second, for each source."""

    state: Annotated[
        str,  # not a Literal: an older reader has to accept states that were added later
        Meta(
            description="opening, listening, silent (only zeros), stalled (connected, but sends "
            "no sound), lost, ended."
        ),
    ]
    level_dbfs: Annotated[Dbfs, Meta(description="RMS of the last hop, dB full scale.")]
    dropped_samples: Annotated[Count, Meta(description="16 kHz samples missing on the timeline.")]
    dropped_windows: Annotated[
        Count, Meta(description="Hops that got no decision because of missing samples.")
    ]
    bad_samples: Annotated[Count, Meta(description="NaN, infinite or absurd, replaced by zero.")]
    clipped_samples: Annotated[Count, Meta(description="At full scale: turn the gain down.")]
    overflows: Annotated[Count, Meta(description="PortAudio's own, inside the driver.")]
    reopened: Annotated[Count, Meta(description="Times the device was lost and opened again.")]
    clock_jumps: Annotated[Count, Meta(description="Of the wall clock, by more than a second.")]
    hops: Annotated[Count, Meta(description="Windows decided.")]
    late_hops: Annotated[
        Count, Meta(description="First decision came after the next window was due.")
    ]
    queued: Annotated[Count, Meta(description="Messages waiting for the publisher.")]
    dropped_messages: Annotated[
        Count, Meta(description="Messages sent to no one, as the publisher's queue was full.")
    ]
    stalled_subscribers: Annotated[
        Count,
        Meta(description="Times that one's queue was full; gaps in `seq` show what it lost."),
    ]
    real_time_factor: Annotated[
        float, Meta(ge=0, description="Seconds of work per second of sound; over 1: too slow.")
    ]
    capture_delay_ms: Annotated[float | None, Meta(description="Sound card to resampler.")]
    resampling_delay_ms: Annotated[float, Meta(ge=0, description="In the resampler.")]
    memory_mb: Annotated[
        float, Meta(ge=0, description="Resident, 10^6 bytes, capture processes included.")
    ]
    last_seq: Annotated[
        dict[str, int],
        Meta(description="Topic: seq of its newest message, for each topic of this source."),
    ]
    error: Annotated[
        str | None,
        Meta(description="Why the source is silent, stalled, lost or ended; null: all is well."),
    ] = None
    replay: Replay = None
    journalled: Journalled = False
    journal_errors: Annotated[
        Count, Meta(description="Messages that went out without being in the journal.")
    ] = 0
    journal: Annotated[
        str | None, Meta(description="Why the journal fails; null: it works, or is off.")
    ] = None
    thoughts: Annotated[Count, Meta(description="Answers of the language model.")] = 0
    dropped_thoughts: Annotated[
        Count, Meta(description="Events that it never saw, as a newer one came.")
    ] = 0
    failed_thoughts: Annotated[
        Count, Meta(description="Queries to its server that led to no label.")
    ] = 0
    thoughts_error: Annotated[
        str | None, Meta(description="Why it does not answer; null: it does, or there is none.")
    ] = None
    held_windows: Annotated[
        Count,
        Meta(
            description="Times that a window kept its score of a hop before: the first window "
            "heard nothing (the pipeline's `gate`), or the hop was late."
        ),
    ] = 0
    kept_clips: Annotated[
        Count, Meta(description="Events whose sound was kept (`--clips`). New in 1.6.")
    ] = 0
    withheld_clips: Annotated[
        Count,
        Meta(description="Events whose sound was not, as somebody may speak in it. New in 1.6."),
    ] = 0
    dropped_clips: Annotated[
        Count, Meta(description="Events of which nothing could be kept in time. New in 1.6.")
    ] = 0
    level_dba: Annotated[
        float | None,
        Meta(
            description="A-weighted, fast (125 ms), at the source's own rate; null: not measured. "
            "New in 1.6."
        ),
    ] = None
    calibrated: Calibrated = False
    repeat: Repeat = False
    summary: Summarised = None


class Level(Message):
    """How loud a minute was: A-weighted by IEC 61672-1, at the source's own rate. New in 1.6."""

    seconds: Annotated[float, Meta(ge=0, description="Of sound, whatever gaps are between.")]
    leq_dba: Annotated[float, Meta(description="Level of the mean power.")]
    l10_dba: Annotated[float, Meta(description="Fast level, exceeded for a tenth of the time.")]
    l90_dba: Annotated[float, Meta(description="Exceeded for nine tenths: the background.")]
    max_dba: Annotated[float, Meta(description="The highest fast level (125 ms).")]
    leq_dbfs: Annotated[Dbfs, Meta(description="Level of the mean power, unweighted, full scale.")]
    calibrated: Calibrated
    journalled: Journalled = False


AnyMessage = Hello | Patch | Label | Event | Status | Level
KINDS: dict[str, type[Message]] = {
    kind.__name__.lower(): kind for kind in (Hello, Patch, Label, Event, Status, Level)
}


class ReplayRequest(msgspec.Struct, forbid_unknown_fields=True):
    """One frame to the replay socket, to get the messages of a topic in a session again."""

    session: Annotated[str, Meta(max_length=64, description="Whose `seq` it is.")]
    topic: Annotated[
        str, Meta(max_length=256, description="label/, event/, status/ or level/<source>/")
    ]
    from_: Annotated[int, Meta(ge=0, le=2**63 - 1, description="The first seq wanted.")] = (
        msgspec.field(name="from")
    )
    to: Annotated[
        Annotated[int, Meta(ge=0, le=2**63 - 1)] | None,
        Meta(description="The last seq wanted; null: up to the newest."),
    ] = None


class ReplayHeader(msgspec.Struct, kw_only=True):
    """First frame of the answer, in the request's encoding; then one frame per message, by seq.

    What the journal does not hold (never journalled, or too old) is left out: `seq` shows it.
    Repeats older than ten minutes come as the last one of them, with a `summary`; its `seq` may be
    beyond `to`.
    """

    session: Annotated[str, Meta(description="As requested.")] = ""
    topic: Annotated[str, Meta(description="As requested.")] = ""
    from_: Annotated[Count, Meta(description="As requested.")] = msgspec.field(
        name="from", default=0
    )
    next: Annotated[
        int | None, Meta(description="The seq at which the next page begins; null: no more.")
    ] = None
    count: Annotated[Count, Meta(description="Frames that follow.")] = 0
    newest: Annotated[
        int | None, Meta(description="Newest seq of the topic in the journal; null: none.")
    ] = None
    error: Annotated[str | None, Meta(description="Why there is no answer.")] = None


JOURNALLED = (Label, Event, Status, Level)  # the kinds that the journal keeps
Encoding = Literal["msgpack", "json"]
_msgpack_encoder, _json_encoder = msgspec.msgpack.Encoder(), msgspec.json.Encoder()
_msgpack_decoder = msgspec.msgpack.Decoder(AnyMessage)
_json_decoder = msgspec.json.Decoder(AnyMessage)


class _Outline(msgspec.Struct):
    """The fields of a message that explain why it cannot be read."""

    kind: str
    schema: str = SCHEMA


_msgpack_outline = msgspec.msgpack.Decoder(_Outline)
_json_outline = msgspec.json.Decoder(_Outline)


def topic(kind: type[Message], source: str) -> str:
    """Return the topic of a kind of message of a source, or of all with source ""."""
    name = kind.__name__.lower()
    return f"{name}/{source}/" if source else f"{name}/"


def encode(message: Message, encoding: Encoding = "msgpack") -> bytes:
    """Return the payload in that encoding; raises ValueError for NaN or infinity in it."""
    _check_finite(message, type(message).__name__)
    return (_json_encoder if encoding == "json" else _msgpack_encoder).encode(message)


def decode(payload: bytes) -> AnyMessage:
    """Return the message in a payload of either encoding.

    Raises UnknownKind for a kind that a newer version has (skip it), MessageError for a newer major
    version and for anything else that is not a message.
    """
    as_json = payload[:1] == b"{"
    try:
        message: AnyMessage = (_json_decoder if as_json else _msgpack_decoder).decode(payload)
    except UNDECODABLE as error:
        try:
            outline = (_json_outline if as_json else _msgpack_outline).decode(payload)
        except UNDECODABLE:
            raise MessageError(f"this is not a message of streamtwl: {error}") from None
        _check_major(outline.schema)
        if outline.kind not in KINDS:
            raise UnknownKind(
                f"a message of the kind '{outline.kind}' (schema {outline.schema}), which this "
                f"version (schema {SCHEMA}) does not know"
            ) from None
        raise MessageError(f"a damaged message of the kind '{outline.kind}': {error}") from None
    _check_major(message.schema)
    return message


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of all messages, and of replay's requests and answers."""
    (messages, *_), definitions = msgspec.json.schema_components(
        [AnyMessage, ReplayRequest, ReplayHeader], ref_template="#/$defs/{name}"
    )
    for each in definitions.values():  # docstrings: Python 3.13 takes their indentation off
        if "description" in each:
            each["description"] = inspect.cleandoc(each["description"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"streamtwl {SCHEMA}",
        **messages,
        "$defs": definitions,
    }


def _check_major(schema: str) -> None:
    if schema != SCHEMA and schema.partition(".")[0] != MAJOR:
        raise MessageError(
            f"the publisher uses schema {schema}, this program {SCHEMA}: "
            "install the same major version of streamtwl on both sides"
        )


def _check_finite(value: object, where: str) -> None:
    """Raise ValueError for NaN and infinity, which JSON does not have."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}, which cannot be published")
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            _check_finite(getattr(value, name), f"{where}.{name}")
    elif isinstance(value, dict):
        for name, each in value.items():
            _check_finite(each, f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for each in value:
            _check_finite(each, where)
