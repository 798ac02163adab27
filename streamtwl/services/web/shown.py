"""Messages as the pages have them: what is left out, rounded, and dated."""

from collections import deque
from typing import Any

import msgspec

from streamtwl.messages import Event, Status


def dated(event: Event, first: Event) -> Event:
    """Return an event as `history` dates it: one in a recording by the first message on it."""
    if event.captured_at is not None or event is first:
        return event
    return msgspec.structs.replace(event, published_at=first.published_at)


def event_of(event: Event) -> dict[str, Any]:
    """Return an event as the pages have it, with its times of day."""
    from streamtwl.history import began_at, lasted_s  # which needs SQLite

    return {
        "id": event.id,
        "source": event.source,
        "label": event.label,
        "phase": event.phase,
        "began_at": round(began_at(event), 2),
        "seconds": round(lasted_s(event), 2),
        "start": event.start,
        "end": event.end,
        "peak": round(event.peak, 3),
        "mean": round(event.mean, 3),
        "open": event.end is None,
        "retracted": event.void,
    }


def status_of(status: Status) -> dict[str, Any]:
    """Return a status as the pages have it."""
    plain = msgspec.to_builtins(status)
    for name in ("last_seq", "replay", "seq", "schema", "kind"):
        plain.pop(name, None)
    return plain


def quantiles(values: deque[float]) -> dict[str, float] | None:
    """Return median and 99th percentile, None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    last = len(ordered) - 1
    return {"p50": round(ordered[last // 2], 1), "p99": round(ordered[round(0.99 * last)], 1)}
