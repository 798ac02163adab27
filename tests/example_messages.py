"""Messages of one source, as a listener would publish them."""

import time

from streamtwl.messages import Event, Hello, Label, Patch, Scored, Status

REPLAY = "tcp://127.0.0.1:5578"


def label(
    seq: int, session: str = "s", source: str = "mic", name: str | None = "Dog", padding: int = 0
) -> Label:
    return Label(
        source=source, session=session, seq=seq, position=0, captured_at=None,
        published_at=time.time(),
        label=name, confidence=0.5, top=[Scored("x" * padding, 0.5)], reasoner="evidence",
        samples=0, traces=0, refinement=0, latency_ms=1.0,
    )  # fmt: skip


def event(seq: int, session: str = "s") -> Event:
    return Event(
        source="mic", session=session, seq=seq, position=0, captured_at=None,
        published_at=time.time(),
        id="e", phase="onset", label="Dog", start=0, end=None, peak=0.5, mean=0.5,
    )  # fmt: skip


def patch(seq: int, session: str = "s") -> Patch:
    return Patch(
        source="mic", session=session, seq=seq, position=0, captured_at=None,
        published_at=time.time(),
        top=[], level_dbfs=-20.0,
    )  # fmt: skip


def status(seq: int, session: str = "s", replay: str | None = REPLAY, **last_seq: int) -> Status:
    counts = dict.fromkeys(
        ("dropped_samples", "dropped_windows", "bad_samples", "clipped_samples", "overflows",
         "reopened", "clock_jumps", "hops", "late_hops", "queued", "dropped_messages",
         "stalled_subscribers"), 0
    )  # fmt: skip
    return Status(
        source="mic", session=session, seq=seq, position=0, captured_at=None,
        published_at=time.time(),
        state="listening", level_dbfs=-20.0, real_time_factor=0.0, capture_delay_ms=None,
        resampling_delay_ms=0.0, memory_mb=0.0, replay=replay,
        last_seq={f"{kind}/mic/": n for kind, n in last_seq.items()} | {"status/mic/": seq},
        **counts,
    )  # fmt: skip


def hello(
    seq: int,
    session: str = "s",
    replay: str | None = REPLAY,
    source: str = "mic",
    labels: tuple[str, ...] = ("Dog", "Cat"),
    earlier: tuple[str, ...] = (),
) -> Hello:
    return Hello(
        source=source, session=session, seq=seq, position=0, captured_at=None,
        published_at=time.time(),
        labels=list(labels), settings={}, models={}, replay=replay, earlier=list(earlier),
    )  # fmt: skip
