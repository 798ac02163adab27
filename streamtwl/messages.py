"""The wire schema: what subscribers get, one struct a message.

Frames: topic, payload. Topic `<kind>/<source>/`. Payload MessagePack by default, JSON by option;
tagged by `kind`. Positions are 16 kHz samples from the stream's start. No NaN, no infinity.
"""

from typing import Literal

import msgspec

SCHEMA = "1.0"


class Scored(msgspec.Struct, frozen=True):
    """A category or label with its score in [0, 1]."""

    label: str
    score: float


class Message(msgspec.Struct, kw_only=True, tag_field="kind", tag=str.lower):
    """What every message carries."""

    source: str  # [a-z0-9_-]+
    session: str  # one run of the publisher
    seq: int  # from 0, gapless per session and topic
    position: int  # 16 kHz samples from the stream's start: what this message speaks up to
    captured_at: float | None  # Unix seconds of `position`; null for files
    published_at: float  # Unix seconds
    schema: str = SCHEMA

    @property
    def topic(self) -> str:
        """`<kind>/<source>/`: a subscription to `label/` takes every source's labels."""
        return topic(type(self), self.source)


class Hello(Message):
    """Who publishes: at start, every minute, and to whoever subscribes."""

    labels: list[str]
    settings: dict  # the pipeline, as its TOML has it
    models: dict[str, str]  # name: sha256 of the file
    replay: str | None = None  # endpoint that gives messages again


class Patch(Message):
    """What the backbone made of one window: every hop."""

    top: list[Scored]  # the five strongest categories
    level_dbfs: float  # RMS, at least -120


class Label(Message):
    """The decision in force: every hop, and each refinement of it."""

    label: str | None  # null: nothing the vocabulary has a name for
    confidence: float  # in [0, 1]
    top: list[Scored]  # the five strongest labels
    reasoner: str
    samples: int  # drawn samples that went into it, over all traces
    traces: int
    refinement: int  # 0 is the first decision on a patch
    latency_ms: float  # published minus the window's last sample at the resampler's output


class Event(Message):
    """A label began, ended, or was taken back."""

    id: str  # the same for all messages on one event
    phase: Literal["onset", "offset", "revised"]
    label: str
    start: int  # position
    end: int | None  # position; null while it lasts
    peak: float  # highest confidence
    mean: float  # mean confidence


class Status(Message):
    """How the listening goes: every second, for each source."""

    state: Literal["opening", "listening", "lost", "ended"]
    level_dbfs: float  # of the last window
    dropped_samples: int  # 16 kHz samples missing on the timeline
    dropped_windows: int  # hops that got no decision because of them
    bad_samples: int  # NaN, infinite or absurd, replaced by zero
    clipped_samples: int  # at full scale: turn the gain down
    overflows: int  # PortAudio's own, inside the driver
    reopened: int  # times the device was lost and opened again
    clock_jumps: int  # of the wall clock, by more than a second
    hops: int  # windows decided
    late_hops: int  # first decision came after the next window was due
    queued: int  # messages waiting for the publisher
    dropped_messages: int  # the publisher's queue had no room: nobody got them
    stalled_subscribers: int  # times that one had no room; its `seq` tells it how much it lost
    real_time_factor: float  # seconds of work per second of sound; over 1 cannot keep up
    capture_delay_ms: float | None  # sound card to resampler
    resampling_delay_ms: float
    memory_mb: float  # resident, capture processes included
    last_seq: dict[str, int]  # topic: seq of its newest message
    error: str | None = None  # why the source is lost or ended
    replay: str | None = None


AnyMessage = Hello | Patch | Label | Event | Status

Encoding = Literal["msgpack", "json"]
_msgpack_encoder, _json_encoder = msgspec.msgpack.Encoder(), msgspec.json.Encoder()
_msgpack_decoder = msgspec.msgpack.Decoder(AnyMessage)
_json_decoder = msgspec.json.Decoder(AnyMessage)


def topic(kind: type[Message], source: str) -> str:
    """Return the topic of a kind of message of a source, or of all with source ""."""
    name = kind.__name__.lower()
    return f"{name}/{source}/" if source else f"{name}/"


def encode(message: Message, encoding: Encoding = "msgpack") -> bytes:
    """Return the payload in that encoding."""
    return (_json_encoder if encoding == "json" else _msgpack_encoder).encode(message)


def decode(payload: bytes) -> AnyMessage:
    """Return the message in a payload of either encoding; raises msgspec.DecodeError."""
    return (_json_decoder if payload[:1] == b"{" else _msgpack_decoder).decode(payload)
