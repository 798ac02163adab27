"""What was heard: the journal, filtered, as lines or counts. Reads also while a listener writes."""

import contextlib
import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import msgspec

from streamtwl.audio.block import SAMPLE_RATE
from streamtwl.errors import JournalError, MessageError, UsageError
from streamtwl.label_filter import LabelFilter
from streamtwl.messages import (
    SOURCE_NAME,
    AnyMessage,
    Event,
    Label,
    Status,
    decode,
    encode,
    topic,
)
from streamtwl.sinks import journal_file
from streamtwl.sinks.lines import Plain, in_recording

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
PERIODS = {"hour": "%Y-%m-%d %H:00", "day": "%Y-%m-%d"}
FOREVER = float(2**53)
TIMES = "30m, 2h, 7d (so long ago), 14:30 (today), 2026-11-24 or '2026-11-24 14:30'"

_MESSAGES = """
SELECT payload FROM messages JOIN streams ON streams.id = stream
WHERE topic GLOB ? AND at BETWEEN ? AND ? ORDER BY messages.id
"""
_NEWEST = """
SELECT payload FROM messages
WHERE stream = (SELECT id FROM streams WHERE session = ? AND topic = ?) ORDER BY seq DESC LIMIT 1
"""


@dataclass(frozen=True)
class Wanted:
    """Which messages."""

    kind: str = "event"
    source: str = "*"
    labels: Sequence[str] = ()  # with wildcards, of any case; none: all
    since: float = 0.0  # Unix seconds
    until: float = FOREVER


class Count(msgspec.Struct):
    """How often and for how long a label sounded in an hour or a day, of local time."""

    period: str
    label: str
    events: int = 0
    seconds: float = 0.0


def asked(
    kind: str, source: str, labels: Sequence[str], since: str | None, until: str | None
) -> Wanted:
    """Return what the options ask for; raises UsageError that names the one that is wrong."""
    if source and not SOURCE_NAME.fullmatch(source):
        raise UsageError(f"--source '{source}': it takes a-z, 0-9, _ and -")
    now = time.time()
    return Wanted(
        kind,
        source or "*",
        labels,
        moment(since, "--since", now) if since is not None else 0.0,
        moment(until, "--until", now) if until is not None else FOREVER,
    )


def moment(said: str, option: str, now: float) -> float:
    """Return the Unix seconds of a time as people say it; raises UsageError that names `option`."""
    if ago := re.fullmatch(r"(\d+(?:\.\d+)?) ?([smhdw])", said.strip()):
        return now - float(ago[1]) * UNITS_S[ago[2]]
    if re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", said.strip()):
        said = f"{datetime.fromtimestamp(now):%Y-%m-%d} {said.strip():0>5}"
    try:
        return datetime.fromisoformat(said.strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        raise UsageError(f"{option} '{said}': it takes {TIMES}") from None


def messages(path: Path, wanted: Wanted) -> Iterator[AnyMessage]:
    """Yield the messages in the order of their publication; raises JournalError."""
    topics = f"{wanted.kind}/{wanted.source}/"
    labels = LabelFilter(wanted.labels)
    with contextlib.closing(journal_file.reader(path)) as connection:
        try:
            rows = connection.execute(_MESSAGES, (topics, wanted.since, wanted.until))
            for (payload,) in rows:
                with contextlib.suppress(MessageError):  # of a version to come
                    message = decode(payload)
                    if labels.takes(message):
                        yield message
        except sqlite3.Error as error:
            raise JournalError(f"cannot read the journal {path}: {error}") from None


def events(path: Path, wanted: Wanted) -> list[Event]:
    """Return the newest word on each event that sounded in the time wanted, by their onsets.

    One that was retracted is none. One without an end speaks up to what its listener said last.
    """
    newest: dict[str, Event] = {}
    everything = replace(wanted, since=0.0, until=FOREVER, labels=())  # news may come at any time
    for message in messages(path, everything):
        if isinstance(message, Event):
            known = newest.setdefault(message.id, message)
            newest[message.id] = max(known, message, key=lambda event: event.seq)  # late ones come
    found = [_up_to_now(path, event) for event in newest.values() if not event.void]
    labels = LabelFilter(wanted.labels)
    return [
        event
        for event in found
        if began_at(event) <= wanted.until
        and ended_at(event) >= wanted.since
        and labels.takes(event)
    ]


def _up_to_now(path: Path, event: Event) -> Event:
    """Return an event that has no end as of the newest message on its source in its session."""
    if event.end is not None:
        return event
    with contextlib.closing(journal_file.reader(path)) as connection:
        for kind in (Label, Status):
            key = (event.session, topic(kind, event.source))
            try:
                [(payload,)] = connection.execute(_NEWEST, key).fetchall() or [(b"",)]
            except sqlite3.Error as error:
                raise JournalError(f"cannot read the journal {path}: {error}") from None
            with contextlib.suppress(MessageError):  # there is none, or one of a version to come
                newest = decode(payload)
                if newest.position > event.position:
                    now = {"position": newest.position, "captured_at": newest.captured_at}
                    event = msgspec.structs.replace(event, **now)
    return event


def counts(path: Path, wanted: Wanted, period: str) -> list[Count]:
    """Return how often each label began in each "hour" or "day", the most frequent first."""
    found: dict[tuple[str, str], Count] = {}
    for event in events(path, wanted):
        named = f"{datetime.fromtimestamp(began_at(event)):{PERIODS[period]}}"
        count = found.setdefault((named, event.label), Count(named, event.label))
        count.events += 1
        count.seconds = round(count.seconds + lasted_s(event), 2)
    return sorted(found.values(), key=lambda count: (count.period, -count.events, count.label))


def lines(path: Path, wanted: Wanted, period: str | None, as_json: bool) -> Iterator[str]:
    """Yield what is to be printed: counts, messages as JSON, or words for people."""
    if period:
        for count in counts(path, wanted, period):
            yield msgspec.json.encode(count).decode() if as_json else _count_line(count)
    elif as_json:
        for message in messages(path, wanted):
            yield encode(message, "json").decode()
    elif wanted.kind == "event":
        yield from map(_event_line, events(path, wanted))
    else:
        plain = Plain()
        for message in messages(path, wanted):
            if line := plain.line(message):
                at = datetime.fromtimestamp(message.captured_at or message.published_at)
                recorded = message.captured_at is None  # then the line has the time in it
                yield f"{at:%Y-%m-%d %H:%M:%S }{line}" if recorded else f"{at:%Y-%m-%d} {line}"


def began_at(event: Event) -> float:
    """Return the Unix seconds of an event's onset; in a recording, of when that was told."""
    if event.captured_at is None:
        return event.published_at
    return event.captured_at - (event.position - event.start) / SAMPLE_RATE


def ended_at(event: Event) -> float:
    """Return the Unix seconds of an event's end; in a recording, of when that was published."""
    began = began_at(event)
    return began if event.captured_at is None else began + lasted_s(event)


def lasted_s(event: Event) -> float:
    """Return how long an event lasted, so far where it has no end."""
    return ((event.end or event.position) - event.start) / SAMPLE_RATE


def _event_line(event: Event) -> str:
    at = f"{datetime.fromtimestamp(began_at(event)):%Y-%m-%d %H:%M:%S}"
    if event.captured_at is None:
        at += f" (at {in_recording(event.start)})"
    lasted = f"{'over ' if event.end is None else ''}{lasted_s(event):.1f} s"
    return f"{at}  {event.source:<10} {event.label}, {lasted}, peak {event.peak:.2f}"


def _count_line(count: Count) -> str:
    return f"{count.period}  {count.events:>5} x  {count.seconds:>8.1f} s  {count.label}"
