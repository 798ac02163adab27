"""What is retained at the broker: states of sources, by topic."""

import time
from collections import deque
from collections.abc import Sequence

import msgspec

from streamtwl.history import began_at
from streamtwl.messages import AnyMessage, Event, Label, Status
from streamtwl.ontology import taken_in
from streamtwl.services.mqtt.topics import LONGEST, OFF, OFFLINE, ON, ONLINE, Topics
from streamtwl.services.roll import Roll
from streamtwl.services.service import Lateness

GONE_S = 15.0  # without a message, where a status comes each second
LOST_S = 5.0  # for which an event that there is has not come, nor is requested
SESSIONS = 16  # remembered of a source
SOUNDS = 8  # that may be retracted
LEVEL_S = 10.0  # from one level to the next
CHANGES = 1000  # that wait for the broker; it is sent all states when it comes back
LISTENING = ("listening", "silent")


class State(msgspec.Struct):
    """PREFIX/SOURCE/state."""

    label: str | None = None
    confidence: float = 0.0  # percent, of the last sound
    last_sound: str | None = None
    last_sound_at: float | None = None  # Unix seconds
    level_dbfs: float | None = None
    level_dba: float | None = None
    state: str = "opening"


class Sound(msgspec.Struct):
    """An event, as the last sound."""

    id: str
    label: str
    confidence: float
    at: float  # Unix seconds, as its first message had it


class Memory(msgspec.Struct):
    """What is kept when the program ends."""

    sounding: dict[str, dict[str, str]] = {}  # source: id of an event that lasts: its label
    sounds: dict[str, list[Sound]] = {}  # source: those that began last
    taken: dict[str, tuple[str, int]] = {}  # source: session and seq of the last event taken
    states: dict[str, State] = {}  # by source
    announced: list[str] = []  # all topics that are retained
    sessions: dict[str, list[str]] = {}  # source: its newest sessions, the last one of now
    instance: str = ""  # the name of this `serve` at the broker


class States:
    """Takes messages; `changes` has what is to be published, `all` everything that is retained.

    What is published is of now: nothing of a source while events of before are still to come, be
    it by replay or since this program was started. An event that has just begun does not wait.
    """

    def __init__(self, topics: Topics, labels: Sequence[str], memory: Memory) -> None:
        """`labels` get a binary sensor each, which is on for their kinds, too: "Dog" for "Bark"."""
        self._topics, self.memory = topics, memory
        self._takes_in = {label: taken_in(label) for label in labels}
        self.changes: deque[tuple[str, bytes]] = deque(maxlen=CHANGES)
        self.all: dict[str, bytes] = {}
        self.lateness = Lateness()
        self._roll = Roll(memory.states)
        self._had_at: dict[str, float] = {}  # source: monotonic seconds of its last message
        self._level_at: dict[str, float] = {}
        self._available: dict[str, bool] = {}
        self._behind = set(memory.states)  # sources of which events are to come
        self._waits: dict[str, tuple[int, float]] = {}  # those: the last event, monotonic seconds
        self._due = set(memory.states)  # sources that have changed since they were published
        for source in memory.states:
            self._set(topics.of(source, "availability"), OFFLINE)

    @property
    def sources(self) -> list[str]:
        """The sources known so far."""
        return list(self.memory.states)

    def retained(self, source: str) -> list[str]:
        """Return the topics of a source's states; its availability is the last."""
        labels = [self._topics.label(source, label) for label in self._takes_in]
        return labels + [self._topics.of(source, what) for what in ("state", "availability")]

    def take(self, message: AnyMessage, lacking: bool = False) -> None:
        """Take a message; one that is late changes states but switches nothing.

        `lacking`: events are being requested again.
        """
        source, memory = message.source, self.memory
        if isinstance(message, Status):
            self.lateness.take(message)
        fresh = not self.lateness.is_late(message.published_at)
        if source not in memory.states:
            if not fresh:  # it may be there no more
                return
            memory.states[source] = State()
            self._due.add(source)
        self._had_at[source] = time.monotonic()
        if isinstance(message, Event):
            self._take_event(message)
        elif isinstance(message, Label):
            self._take_label(message)
        elif isinstance(message, Status) and fresh:
            self._take_status(message, lacking)
        current = isinstance(message, Event) or source not in self._behind
        if fresh and current and source in self._due:
            self._publish(source)

    def look(self) -> None:
        """Note which sources have gone."""
        now = time.monotonic()
        for source, at in self._had_at.items():
            if self._available.get(source) and now > at + GONE_S:
                self._available[source] = False
                self._set(self._topics.of(source, "availability"), OFFLINE)
        for source in self._roll.gone():
            for topic in self.retained(source):
                self.all.pop(topic, None)
            memory = self.memory
            for of in (memory.states, memory.sounding, memory.sounds, memory.taken):
                of.pop(source, None)
            for own in (memory.sessions, self._had_at, self._level_at, self._available):
                own.pop(source, None)

    def _take_label(self, message: Label) -> None:
        state = self.memory.states[message.source]
        if state.label != message.label:
            state.label = message.label
            self._due.add(message.source)

    def _take_status(self, message: Status, lacking: bool) -> None:
        source, memory = message.source, self.memory
        self._roll.take(source, message.session)
        sessions = memory.sessions.setdefault(source, [])
        if message.session not in sessions:
            memory.sessions[source] = [*sessions, message.session][-SESSIONS:]
            sounding = memory.sounding.get(source, {})  # a listener that was killed ended none
            memory.sounding[source] = {
                each: label for each, label in sounding.items() if each.startswith(message.session)
            }
        if self._has_all(message, lacking):
            self._behind.discard(source)
        else:
            self._behind.add(source)
        state, available = memory.states[source], message.state in LISTENING
        changed = (state.state, self._available.get(source)) != (message.state, available)
        state.state, self._available[source] = message.state, available
        if changed or self._had_at[source] >= self._level_at.get(source, 0.0) + LEVEL_S:
            self._level_at[source] = self._had_at[source]
            state.level_dbfs = round(message.level_dbfs, 1)
            weighted = message.level_dba
            state.level_dba = None if weighted is None else round(weighted, 1)
            self._due.add(source)

    def _has_all(self, message: Status, lacking: bool) -> bool:
        """Whether all events of a source have been taken; those that do not come are lost."""
        source, taken, now = message.source, self.memory.taken, time.monotonic()
        newest = message.last_seq.get(f"event/{source}/", -1)
        session, seq = taken.setdefault(source, (message.session, newest))  # it begins here
        seq = seq if session == message.session else -1
        if newest <= seq:
            self._waits.pop(source, None)
            return True
        waits = self._waits.get(source)
        if waits is None or waits[0] != seq or lacking:
            self._waits[source] = seq, now
            return False
        if now < waits[1] + LOST_S:
            return False
        taken[source] = message.session, newest
        self.memory.sounding.pop(source, None)  # their ends may be among what is lost
        self._due.add(source)
        return True

    def _take_event(self, event: Event) -> None:
        source, memory = event.source, self.memory
        sounding = memory.sounding.setdefault(source, {})
        session, seq = memory.taken.get(source, ("", -1))
        if session == event.session and event.seq > seq + 1:
            sounding.clear()  # the ends may be among what was lost
        memory.taken[source] = event.session, event.seq
        over = event.session in memory.sessions.get(source, [])[:-1]
        if event.end is None and not event.void and not over:
            sounding[event.id] = event.label
        else:
            sounding.pop(event.id, None)
        self._note_last(event)
        self._due.add(source)

    def _note_last(self, event: Event) -> None:
        """Keep the sound that began last, without those that were none."""
        sounds = self.memory.sounds.setdefault(event.source, [])
        known = next((each for each in sounds if each.id == event.id), None)
        if known is None:
            if event.void or event.phase != "onset":
                return
            known = Sound(event.id, "", 0.0, round(began_at(event), 3))
            sounds.append(known)
            del sounds[:-SOUNDS]
        elif event.void:
            sounds.remove(known)
        known.label, known.confidence = event.label[:LONGEST], round(100 * event.peak, 1)
        state, last = self.memory.states[event.source], sounds[-1] if sounds else None
        state.last_sound = last.label if last else None
        state.confidence = last.confidence if last else 0.0
        state.last_sound_at = last.at if last else None

    def _publish(self, source: str) -> None:
        self._due.discard(source)
        available = ONLINE if self._available.get(source) else OFFLINE
        self._set(self._topics.of(source, "availability"), available)
        payload = msgspec.json.encode(self.memory.states[source])
        self._set(self._topics.of(source, "state"), payload)
        sounding = {each.lower() for each in self.memory.sounding.get(source, {}).values()}
        for label, names in self._takes_in.items():
            on = not names.isdisjoint(sounding)
            self._set(self._topics.label(source, label), ON if on else OFF)

    def _set(self, topic: str, payload: bytes) -> None:
        if self.all.get(topic) != payload:
            self.all[topic] = payload
            self.changes.append((topic, payload))
