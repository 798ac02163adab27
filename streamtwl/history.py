"""The journal, filtered, as lines or counts. Can be read while a listener writes."""

import contextlib
import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from streamtwl.errors import DamagedJournal, MessageError, UsageError
from streamtwl.label_filter import LabelFilter, unknown_names
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
from streamtwl.ontology import categories, everyday
from streamtwl.sinks import journal_file
from streamtwl.sinks.lines import Plain, in_recording
from streamtwl.stages import SAMPLE_RATE

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
FOREVER = float(2**53)
UNKNOWN_S = 65.0  # that a listener's newest may not be in the journal: repeats are, once a minute
LONGEST_EVENT_S = 604_800.0  # events without an end that began earlier are not found
LATEST = datetime(9999, 12, 30, tzinfo=UTC).timestamp()  # that a date can have, in any zone
TIMES = "30m, 2h, 7d (that long ago), 14:30 (today), 2026-11-24 or '2026-11-24 14:30'"

_LABELS = "SELECT DISTINCT label FROM messages WHERE label IS NOT NULL"
_TOPICS = "SELECT topic FROM streams"
PIECE = 50  # messages of a damaged journal that are read at once
UNREAD_PIECES = 20_000  # in a row, of a million messages: beyond them nothing more is looked for

_MESSAGES = """
SELECT messages.id, payload FROM messages JOIN streams ON streams.id = stream
WHERE typeof(payload) = 'blob' AND topic GLOB ? AND at BETWEEN ? AND ? ORDER BY messages.id
"""
# of events alone, by an index that has little else in it
_EVENTS = _MESSAGES.replace("AND at BETWEEN", "AND lasting = 1 AND +at BETWEEN")
_PIECE = """
SELECT payload FROM messages JOIN streams ON streams.id = stream
WHERE typeof(payload) = 'blob' AND topic GLOB ? AND +at BETWEEN ? AND ?
AND messages.id BETWEEN ? AND ? ORDER BY messages.id
"""
_NEXT = "SELECT min(id) FROM messages WHERE id >= ?"
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

    period: str  # 2026-10-25 for the day, 2026-10-25 02:00+02:00 for one of its hours
    label: str
    events: int = 0
    seconds: float = 0.0


def query(
    kind: str, source: str, labels: Sequence[str], since: str | None, until: str | None
) -> Wanted:
    """Return the query that options make; raises UsageError that names the one that is wrong."""
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
    """Return the Unix seconds of a time as people write it; raises UsageError that names `option`.

    Without an offset it is local. A time that occurs twice, or not at all, when the clocks change
    is the earlier of the two for --since and the later for --until.
    """
    if ago := re.fullmatch(r"(\d+(?:\.\d+)?) ?([smhdw])", said.strip()):
        return now - float(ago[1]) * UNITS_S[ago[2]]
    named = re.sub(r"^(\d):", r"0\1:", said.strip())
    if re.fullmatch(r"\d{2}:\d{2}(:\d{2})?", named):
        named = f"{local(now):%Y-%m-%d} {named}"
    try:
        named_at = datetime.fromisoformat(named)
        either = [named_at.replace(fold=fold).timestamp() for fold in (0, 1)]
        return max(either) if option == "--until" else min(either)
    except (ValueError, OverflowError, OSError):
        raise UsageError(f"{option} '{said}': it takes {TIMES}") from None


def is_archive(path: Path) -> bool:
    """Whether a path is a data set that `label -o OUT.parquet` made, rather than a journal."""
    return path.suffix == ".parquet"


def messages(path: Path, wanted: Wanted) -> Iterator[AnyMessage]:
    """Yield the messages in the order of their publication.

    Raises JournalError; of a damaged journal after what can still be read.
    """
    if is_archive(path):
        if wanted.kind != "event":
            raise UsageError(f"{path} has events only: leave --kind out")
        yield from events(path, wanted)
        return
    labels = LabelFilter(wanted.labels)
    with contextlib.closing(journal_file.reader(path)) as connection:
        try:
            for payload in _payloads(connection, wanted):
                with contextlib.suppress(MessageError):  # of a version to come
                    message = decode(payload)
                    if labels.takes(message):
                        yield message
        except sqlite3.Error as error:
            raise journal_file.unreadable(path, error) from None


def _payloads(connection: sqlite3.Connection, wanted: Wanted) -> Iterator[bytes]:
    """Yield the payloads of a query; around damage, piece by piece, and raise its error at the
    end."""
    chosen = (f"{wanted.kind}/{wanted.source}/", wanted.since, wanted.until)
    statement = _EVENTS if wanted.kind == "event" else _MESSAGES
    first = 0
    try:
        for number, payload in connection.execute(statement, chosen):
            yield payload
            first = number + 1
    except sqlite3.Error as error:
        if not journal_file.damaged(error):
            raise
        damage = error
    else:
        return
    number, unread = first, 0
    while unread < UNREAD_PIECES:
        unread += 1
        with contextlib.suppress(sqlite3.DatabaseError):
            [there] = connection.execute(_NEXT, (number,)).fetchone()
            if there is None:
                break
            number = there
            rows = connection.execute(_PIECE, (*chosen, number, number + PIECE - 1))
            yield from (payload for (payload,) in rows)
            unread = 0
        number += PIECE
    raise damage


def events(path: Path, wanted: Wanted) -> Iterator[Event]:
    """Yield the newest message on each event that sounded in the time wanted, by onset.

    Retracted events are left out. One without an end lasts up to its listener's last message in the
    journal, which may be a minute old. Those in recordings and pipes are dated by the publication
    of their onset.
    Raises JournalError; for a damaged journal, after what can still be read.
    """
    if is_archive(path):
        from streamtwl.archives import query

        yield from query.events(path, wanted)
        return
    newest: dict[str, Event] = {}
    oldest: dict[str, Event] = {}
    since = max(0.0, wanted.since - LONGEST_EVENT_S)
    damage = None
    try:
        # its end, its label, or its retraction may come later
        for message in messages(path, replace(wanted, since=since, until=FOREVER, labels=())):
            if isinstance(message, Event):
                known = newest.setdefault(message.id, message)
                newest[message.id] = max(known, message, key=lambda event: event.seq)  # late ones
                known = oldest.setdefault(message.id, message)
                oldest[message.id] = min(known, message, key=lambda event: event.seq)
    except DamagedJournal as error:
        damage = error
    labels = LabelFilter(wanted.labels)
    for event in newest.values():
        if event.captured_at is None:
            onset = oldest[event.id].published_at
            event = msgspec.structs.replace(event, published_at=onset)
        if not event.void and began_at(event) <= wanted.until and labels.takes(event):
            event = up_to_now(path, event)
            unknown_s = UNKNOWN_S if event.end is None else 0.0
            if max(0.0, ended_at(event)) + unknown_s >= wanted.since:
                yield event
    if damage is not None:
        raise damage


def up_to_now(path: Path, event: Event) -> Event:
    """Return an event without an end, up to the newest message on its source in its session.

    Raises JournalError.
    """
    if event.end is not None:
        return event
    with contextlib.closing(journal_file.reader(path)) as connection:
        for kind in (Label, Status):
            key = (event.session, topic(kind, event.source))
            try:
                [(payload,)] = connection.execute(_NEWEST, key).fetchall() or [(b"",)]
            except sqlite3.Error as error:
                raise journal_file.unreadable(path, error) from None
            with contextlib.suppress(MessageError):  # there is none, or one of a version to come
                newest = decode(payload)
                if newest.position > event.position:
                    now = {"position": newest.position, "captured_at": newest.captured_at}
                    event = msgspec.structs.replace(event, **now)
    return event


def why_nothing(path: Path, wanted: Wanted) -> str:
    """Return which label or source of a query cannot be in this journal, "" if all can."""
    if is_archive(path):
        return ""
    with contextlib.closing(journal_file.reader(path)) as connection:
        try:
            labels = [name for (name,) in connection.execute(_LABELS)]
            sources = {topic.split("/")[1] for (topic,) in connection.execute(_TOPICS)}
        except sqlite3.Error as error:
            raise journal_file.unreadable(path, error) from None
    problems = [
        *unknown_names(wanted.labels, [*labels, *everyday(), *categories()]),
        *unknown_names([wanted.source], sources, "source", f"it has {', '.join(sorted(sources))}"),
    ]
    return "; ".join(problems)


def counts(path: Path, wanted: Wanted, period: str) -> list[Count]:
    """Return how often each label began in each "hour" or "day", the most frequent first."""
    found: dict[tuple[str, str], Count] = {}
    for event in events(path, wanted):
        began = local(began_at(event))
        hour = began.replace(minute=0).isoformat(" ", "minutes")  # twice 02:00, of two offsets
        named = hour if period == "hour" else f"{began:%Y-%m-%d}"
        count = found.setdefault((named, event.label), Count(named, event.label))
        count.events += 1
        count.seconds = round(count.seconds + lasted_s(event), 2)
    return sorted(
        found.values(),
        key=lambda count: (datetime.fromisoformat(count.period), -count.events, count.label),
    )


def lines(
    path: Path, wanted: Wanted, period: str | None, as_json: bool, ids: bool = False
) -> Iterator[str]:
    """Yield the lines to print: counts, messages as JSON, or plain text, events with their ids."""
    if period:
        for count in counts(path, wanted, period):
            yield msgspec.json.encode(count).decode() if as_json else _count_line(count)
    elif as_json:
        for message in messages(path, wanted):
            yield encode(message, "json").decode()
    elif wanted.kind == "event":
        yield from (event_line(event, ids) for event in events(path, wanted))
    else:
        yield from filter(None, map(Plain(_when).line, messages(path, wanted)))


def began_at(event: Event) -> float:
    """Return the Unix seconds of an event's onset; in a recording, of its publication."""
    if event.captured_at is None:
        return event.published_at
    return event.captured_at - (event.position - event.start) / SAMPLE_RATE


def ended_at(event: Event) -> float:
    """Return the Unix seconds of an event's end."""
    return began_at(event) + lasted_s(event)


def lasted_s(event: Event) -> float:
    """Return how long an event lasted, so far where it has no end."""
    return ((event.end or event.position) - event.start) / SAMPLE_RATE


def local(at: float) -> datetime:
    """Return the local time of Unix seconds, with its offset from UTC."""
    return datetime.fromtimestamp(min(max(at, 0.0), LATEST), UTC).astimezone()  # if damaged


def _when(message: AnyMessage) -> str:
    if message.captured_at is not None:
        stamp = local(message.captured_at).isoformat(" ", "milliseconds")
        return stamp[:22] + stamp[23:]  # to a hundredth, as elsewhere
    at = local(message.published_at).isoformat(" ", "seconds")
    return f"{at} (at {in_recording(message.position)})"


def event_line(event: Event, with_id: bool = False) -> str:
    """Return an event in a line of plain text."""
    at = local(began_at(event)).isoformat(" ", "seconds")
    if event.captured_at is None:
        at += f" (at {in_recording(event.start)})"
    named = f"  {event.id}" if with_id else ""
    lasted = f"{'over ' if event.end is None else ''}{lasted_s(event):.1f} s"
    return f"{at}  {event.source:<10} {event.label}, {lasted}, peak {event.peak:.2f}{named}"


def _count_line(count: Count) -> str:
    return f"{count.period}  {count.events:>5} x  {count.seconds:>8.1f} s  {count.label}"
