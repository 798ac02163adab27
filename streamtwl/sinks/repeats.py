"""Labels and states that repeat the one before: held in memory, and summarised in the journal.

    messages -> `is_repeat`? -> no:  an entry, and one for what it ends the repetition of
                             -> yes: held for replay; after a minute one entry for all of them

What changes something is committed one by one, before it is published. Repeats come twice a
second, day and night: one by one they would wear out an SD card. They are grouped in *stretches*,
each of consecutive messages of a topic that say the same; a stretch becomes one row of the journal,
its last message with a `Summary` of all of them, after a minute or when something changes.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable

import msgspec

from streamtwl.messages import AnyMessage, Event, Label, Status, Summary, encode, topic
from streamtwl.sinks.journal import Entry
from streamtwl.stages import SAMPLE_RATE

STRETCH_S = 60.0  # of time, and of sound, that a summary stands for; what a kill may take
ALONG_S = 10.0  # stretches as long as this are written where something else is
MOST = 500  # messages in a summary
LEAST = 0.02  # score of a label that is not the strongest, in a summary: most are below
HELD_S = 600.0  # for replay, one by one
HELD_BYTES = 2_000_000  # of a topic: ten minutes at a hop of 0.16 s

Repeated = Label | Status


class Repeats:
    """Says which messages repeat the one before, and holds those.

    `is_repeat` and `forget` are the sender's, the rest the writer's; `held` may be called from any
    thread.
    """

    def __init__(self, replayed: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        """`replayed`: messages are held for `held`."""
        self._replayed, self._clock = replayed, clock
        self._in_force: dict[str, tuple[object, ...]] = {}  # topic: what its newest message says
        self._topics: dict[str, _Topic] = {}
        self._due_at = math.inf  # a stretch is a minute long then, or was full
        self._lock = threading.Lock()  # of the topics

    def is_repeat(self, message: AnyMessage) -> bool:
        """Return whether a message says what its topic's newest says; it is the newest now."""
        if not isinstance(message, Repeated):
            return False
        says = _says(message)
        repeat = self._in_force.get(message.topic) == says
        self._in_force[message.topic] = says
        return repeat and message.summary is None and not getattr(message, "thoughts", ())

    def forget(self, of: str = "") -> None:
        """Let the next message of a topic, of all with "", be no repeat: the newest was lost."""
        if of:
            self._in_force.pop(of, None)
        else:
            self._in_force.clear()

    def hold(self, message: Repeated, payload: bytes) -> list[Entry]:
        """Take a repeat and its payload; return what is to be written as it does not fit on."""
        with self._lock:
            now = self._clock()
            known = self._topics.setdefault(message.topic, _Topic())
            entries = []
            if known.open is not None and not known.open.fits(message):
                entries = self._close(message.topic, now)
            if known.open is None:
                known.open = _Stretch(message, now)
            known.open.add(message, payload if self._replayed else b"")
            due_at = now if known.open.full else known.open.began + STRETCH_S
            self._due_at = min(self._due_at, due_at)
            return entries

    def before(self, message: AnyMessage) -> list[Entry]:
        """Return what is to be written before a message that is no repeat."""
        with self._lock:
            now = self._clock()
            entries = []
            for kind in (Label, Status):
                named = topic(kind, message.source)
                known = self._topics.get(named)
                ends = named == message.topic or (kind is Label and isinstance(message, Event))
                if known and known.open and (ends or now >= known.open.began + ALONG_S):
                    entries += self._close(named, now)
            return entries

    def due(self, all_of_it: bool = False) -> list[Entry]:
        """Return the summaries of stretches that are a minute long, and what goes along."""
        with self._lock:
            now = self._clock()
            if not all_of_it and now < self._due_at:
                return []
            open_ = {named: known.open for named, known in self._topics.items() if known.open}
            is_due = any(each.full or now >= each.began + STRETCH_S for each in open_.values())
            entries = []
            for named, each in open_.items():
                if all_of_it or (is_due and (each.full or now >= each.began + ALONG_S)):
                    entries += self._close(named, now)
            begun = [known.open.began for known in self._topics.values() if known.open]
            self._due_at = min(begun, default=math.inf) + STRETCH_S
            return entries

    def held(self, session: str, named: str) -> list[tuple[int, bytes]]:
        """Return seq and payload of what is held of a topic in a session, by seq."""
        with self._lock:
            known = self._topics.get(named)
            if known is None:
                return []
            known.drop(self._clock())
            stretches = [*known.closed, *([known.open] if known.open else [])]
            return [
                each
                for stretch in stretches
                if stretch.session == session
                for each in stretch.messages
            ]

    def _close(self, named: str, now: float) -> list[Entry]:
        known = self._topics[named]
        stretch, known.open = known.open, None
        assert stretch is not None
        stretch.closed = now
        known.closed.append(stretch)
        known.drop(now)
        row = stretch.entry()
        stretch.slim()
        return [row]


class _Topic:
    """The repeats of a topic."""

    def __init__(self) -> None:
        self.open: _Stretch | None = None
        self.closed: deque[_Stretch] = deque()  # that are still held, each whole or not at all

    def drop(self, now: float) -> None:
        """Drop what is too old or too much."""
        size = sum(stretch.size for stretch in self.closed)
        while self.closed and (now > self.closed[0].closed + HELD_S or size > HELD_BYTES):
            size -= self.closed.popleft().size


class _Stretch:
    """Consecutive repeats, and what is known of them."""

    def __init__(self, first: Repeated, now: float) -> None:
        self.session = first.session
        self.began, self.closed = now, 0.0
        self.messages: list[tuple[int, bytes]] = []  # seq, payload as it was sent
        self.size = 0  # bytes
        self._first, self._newest = first, first
        self._count = 0
        self._step: int | None = None  # samples from one hop to the next
        self._labels: dict[str, int] = {}
        self._hops: list[list[int]] = []
        self._confidences: list[float] = []

    @property
    def full(self) -> bool:
        """Whether it is to be written: as long as a stretch may be."""
        samples = self._newest.position - self._first.position
        return samples >= STRETCH_S * SAMPLE_RATE or self._count >= MOST

    def fits(self, message: Repeated) -> bool:
        """Return whether a message goes on with it: says the same, a hop later or a refinement."""
        if message.session != self.session or _says(message) != _says(self._first) or self.full:
            return False
        step = message.position - self._newest.position
        return not isinstance(message, Label) or step in (0, self._step or max(step, 0))

    def add(self, message: Repeated, payload: bytes) -> None:
        """Add a message that fits."""
        if isinstance(message, Label):
            self._confidences.append(message.confidence)
            step = message.position - self._newest.position
            if self._count and step == 0:  # a refinement of that hop
                self._hops.pop()
            elif self._count:
                self._step = step
            hop: list[int] = []
            for each in (*message.top[:1], *(e for e in message.top[1:] if e.score >= LEAST)):
                index = self._labels.setdefault(each.label, len(self._labels))
                hop += index, round(1000 * each.score)
            self._hops.append(hop)
        self._newest = message
        self._count += 1
        if payload:
            self.messages.append((message.seq, payload))
            self.size += len(payload)

    def slim(self) -> None:
        """Drop all but the messages: the row is written."""
        self._hops, self._confidences, self._labels = [], [], {}

    def entry(self) -> Entry:
        """Return the row that stands for it; for a single message that message."""
        first, last = self._first, self._newest
        summary = None
        if self._count > 1:
            confidences = self._confidences  # of labels; states have none
            summary = Summary(
                first.seq,
                first.position,
                first.published_at,
                self._count,
                highest=max(confidences, default=None),
                mean=sum(confidences) / len(confidences) if confidences else None,
                labels=[*self._labels],
                hops=self._hops,
            )
        row = msgspec.structs.replace(last, journalled=True, repeat=False, summary=summary)
        return entry(row, encode(row))  # MessagePack: JSON has twice the size


def entry(message: AnyMessage, payload: bytes) -> Entry:
    """Return a message as the journal holds it."""
    label = getattr(message, "label", None)
    at = message.published_at
    return Entry(message.session, message.topic, message.seq, at, label, payload)


def _says(message: Repeated) -> tuple[object, ...]:
    """Return what makes a message more than a repeat where it is another than before."""
    if isinstance(message, Label):
        return message.session, message.label, message.reasoner
    problems = message.error, message.journal, message.thoughts_error
    return message.session, message.state, message.replay, *problems
