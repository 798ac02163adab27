"""What sounded: the journal, read only, on threads of its own."""

import asyncio
import contextlib
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from streamtwl import folders, history
from streamtwl.errors import JournalError, MessageError
from streamtwl.history import Wanted
from streamtwl.label_filter import fits
from streamtwl.messages import Event, Label, Level, decode
from streamtwl.services.web import heat
from streamtwl.services.web.live import Hub
from streamtwl.services.web.shown import dated, event_of
from streamtwl.services.web.what_if import Hops
from streamtwl.sinks import journal_file
from streamtwl.sinks.repeats import STRETCH_S
from streamtwl.stages import SAMPLE_RATE
from streamtwl.unrolling import unrolled

READERS = 2  # threads at once
KEPT_S = 6.0  # that a result serves others
RESULTS = 4
MOST_KEPT = 30_000  # events in a result that is kept
MOST_EVENTS = 500  # in an answer
AROUND_S = 6.0  # that is shown before and after an event
MOST_HOPS = 2000
DECISION = ("position", "label", "confidence", "top", "thoughts")  # what is shown of one
HOPS_KEPT_S = 60.0
DAY_S = 86_400.0

_SESSION = 16  # letters
_OF_EVENT = """
SELECT payload FROM messages
WHERE stream = (SELECT id FROM streams WHERE session = ? AND topic = ?) AND instr(payload, ?)
ORDER BY seq
"""  # those whose ids begin alike, too
MOST_MESSAGES = 100  # on an event
_AROUND = f"""
SELECT payload FROM messages
WHERE stream = (SELECT id FROM streams WHERE session = ? AND topic = ?) AND at BETWEEN ? AND ?
ORDER BY seq LIMIT {MOST_HOPS}
"""
_LABELS = """
SELECT payload FROM messages
WHERE stream IN (SELECT id FROM streams WHERE topic GLOB 'label/*') AND at >= ? ORDER BY stream, seq
"""

Found = TypeVar("Found")


class NoHistoryError(JournalError):
    """There is no journal here."""


class Past:
    """Reads one journal: the one named, else the one that the listener says it writes.

    Raises JournalError, UsageError.
    """

    def __init__(self, path: Path | None, hub: Hub | None, owned: bool) -> None:
        """`hub` knows the newest decisions and the listener's settings; None where it is on another
        machine and there is no journal. `owned`: the page keeps the journal itself."""
        self._path, self._hub, self._owned = path, hub, owned
        self._reading = asyncio.Semaphore(READERS)
        self._filling = asyncio.Lock()  # pages that open at once share what one of them reads
        self._results: dict[Wanted, tuple[float, list[Any]]] = {}
        self._hops: tuple[float, Hops] | None = None

    @property
    def path(self) -> Path:
        """Where the journal is; raises NoHistoryError where there is none."""
        if self._path is not None:
            return self._path
        if self._hub is None:
            raise NoHistoryError(
                "the listener is on another machine: with `journal` under [services.web] the page "
                "keeps a journal of its own"
            )
        for known in self._hub.sources.values():
            if known.hello is not None:
                journal = known.hello.settings.get("journal", {})
                if not journal.get("enabled", True):
                    raise NoHistoryError("the listener keeps no journal")
                if journal.get("path"):
                    return folders.expand(journal["path"])
        return journal_file.default_path()

    async def events(
        self,
        since: float,
        until: float,
        labels: Sequence[str] = (),
        source: str = "*",
        began: bool = False,
    ) -> list[Event]:
        """Return the events that sounded in a time, newest first; those that `began` in it."""
        events = await self._in(since, until)
        if began:
            events = [each for each in events if since <= history.began_at(each) < until]
        return await asyncio.to_thread(_those, events, labels, source)

    def shown(self, event: Event) -> dict[str, Any]:
        """Return an event as the pages have it, open where its listener is there and it sounds."""
        known = self._hub.sources.get(event.source) if self._hub else None
        goes_on = bool(known and known.session == event.session and known.away_s is None)
        return event_of(event) | {"open": event.end is None and goes_on}

    async def counts(
        self, period: str, until: float, labels: Sequence[str] = (), source: str = "*"
    ) -> dict[str, Any]:
        """Return how often and how long each label sounded, by hours or days up to `until`.

        `columns` are the periods' beginnings, Unix seconds; `rows` the most frequent labels;
        `labels` how many there are; `sources` those of all events in this time.
        """
        columns = heat.beginnings(period, until)
        events = await self._in(columns[0], until)

        def count() -> dict[str, Any]:
            sources = sorted({event.source for event in events})
            found = heat.cells(period, columns, _those(events, labels, source))
            return found | {"sources": sources}

        return await asyncio.to_thread(count)

    async def totals(self, until: float) -> dict[str, int]:
        """Return how often each label sounded in 24 hours, the most frequent first."""
        events = await self._in(heat.beginnings("hour", until)[0], until)
        return dict(Counter(event.label for event in events).most_common())

    async def event(self, identity: str) -> dict[str, Any] | None:
        """Return all messages on an event, and the decisions around it; None: there is none."""
        newest = self._newest()
        return await self._read(lambda: self._event(identity, newest))

    async def levels(self, since: float, until: float, source: str) -> list[dict[str, Any]]:
        """Return how loud each minute was."""
        wanted = Wanted("level", "*", (), since, until)
        minutes = await self._cached(wanted, lambda: self._levels(wanted))
        return [each for each in minutes if source in ("*", each["source"])]

    async def what_if(self, label: str, on: float, off: float) -> dict[str, Any]:
        """Return what these thresholds would have done in the last day."""
        newest = self._newest()
        return await self._read(lambda: self._hops_of_day(newest).events(label, on, off))

    async def labels(self) -> list[str]:
        """Return the labels that were among the strongest five in the last day."""
        newest = self._newest()
        return await self._read(lambda: self._hops_of_day(newest).labels())

    async def _in(self, since: float, until: float) -> list[Event]:
        """Return all events of a time, newest first."""
        wanted = Wanted("event", "*", (), since, until)
        return await self._cached(wanted, lambda: self._events(wanted))

    async def _read(self, work: Callable[[], Found]) -> Found:
        async with self._reading:
            return await asyncio.to_thread(work)

    async def _cached(self, key: Wanted, work: Callable[[], list[Found]]) -> list[Found]:
        async with self._filling:
            known = self._results.pop(key, None)
            if known is None or time.monotonic() > known[0] + KEPT_S:
                known = time.monotonic(), await self._read(work)
            if len(known[1]) <= MOST_KEPT:
                self._results[key] = known
            while len(self._results) > RESULTS:
                self._results.pop(next(iter(self._results)))
        return known[1]

    def _events(self, wanted: Wanted) -> list[Event]:
        return sorted(history.events(self.path, wanted), key=history.began_at, reverse=True)

    def _event(self, identity: str, heard: list[dict[str, Any]]) -> dict[str, Any] | None:
        session, source = identity[:_SESSION], _source(identity)
        with self._connection() as connection:
            key = (session, f"event/{source}/", identity.encode())
            its = (
                message
                for message in _decoded(connection.execute(_OF_EVENT, key))
                if isinstance(message, Event) and message.id == identity
            )
            messages = list(islice(its, MOST_MESSAGES))
            if not messages:
                return None
            newest = messages[-1]
            end = newest.end if newest.end is not None else newest.position
            until = newest.published_at + AROUND_S + STRETCH_S  # a summary is dated by its end
            span = (messages[0].published_at - 3 * AROUND_S, until)
            key_around = (session, f"label/{source}/", *span)
            first, last = newest.start - AROUND_S * SAMPLE_RATE, end + AROUND_S * SAMPLE_RATE
            labels = [
                each
                for label in _decoded(connection.execute(_AROUND, key_around))
                for each in unrolled(label)
            ]
        decisions = [_decision(each) for each in labels if isinstance(each, Label)]
        kept = {each["position"] for each in decisions}
        decisions += [
            {name: each[name] for name in DECISION}
            for each in heard
            if (each["session"], each["source"]) == (session, source)
            and each["position"] not in kept
        ]
        hops = [
            each | {"confidence": round(each["confidence"], 3)}
            for each in sorted(decisions, key=lambda each: each["position"])
            if first <= each["position"] <= last
        ]
        last_known = history.up_to_now(self.path, dated(newest, messages[0]))
        return {
            "event": self.shown(last_known),
            "messages": [
                event_of(each) | {"published_at": each.published_at, "position": each.position}
                for each in messages
            ],
            "hops": hops[:MOST_HOPS],
        }

    def _levels(self, wanted: Wanted) -> list[dict[str, Any]]:
        return [
            {
                "source": each.source,
                "at": each.captured_at or each.published_at,
                "leq_dba": each.leq_dba,
                "l10_dba": each.l10_dba,
                "l90_dba": each.l90_dba,
                "max_dba": each.max_dba,
                "calibrated": each.calibrated,
            }
            for each in history.messages(self.path, wanted)
            if isinstance(each, Level)
        ]

    def _newest(self) -> list[dict[str, Any]]:
        """Return the newest decisions: those of the last minute may not be in the journal."""
        sources = self._hub.sources.values() if self._hub else ()
        return [hop for known in sources for hop in known.hops]

    def _hops_of_day(self, newest: list[dict[str, Any]]) -> Hops:
        now = time.monotonic()
        if self._hops is None or now > self._hops[0] + HOPS_KEPT_S:
            with self._connection() as connection:
                rows = connection.execute(_LABELS, (time.time() - DAY_S,))
                self._hops = now, Hops((payload for (payload,) in rows), newest)
        return self._hops[1]

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        path = self.path
        try:
            with contextlib.closing(journal_file.reader(path)) as connection:
                yield connection
        except sqlite3.Error as error:
            raise journal_file.unreadable(path, error) from None


def _those(events: list[Event], labels: Sequence[str], source: str) -> list[Event]:
    names = {each.label for each in events}
    wanted = {name for name in names if fits(name, labels)} if labels else names
    return [e for e in events if e.label in wanted and source in ("*", e.source)]


def _source(identity: str) -> str:
    """Return the source in an event's id."""
    return identity[_SESSION + 1 :].rpartition("-")[0].removesuffix("-loud")


def _decision(label: Label) -> dict[str, Any]:
    return {name: getattr(label, name) for name in DECISION}


def _decoded(rows: sqlite3.Cursor) -> Iterator[Any]:
    for (payload,) in rows:
        with contextlib.suppress(MessageError):  # of a version to come
            yield decode(payload)
