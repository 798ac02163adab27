"""What is retained at the broker: states of sources, by topic."""

import time
from collections import deque
from collections.abc import Sequence

import msgspec

from streamtwl.history import began_at
from streamtwl.messages import AnyMessage, Event, Label, Status
from streamtwl.ontology import taken_in
from streamtwl.services.mqtt.topics import LONGEST, OFF, OFFLINE, ON, ONLINE, Topics
from streamtwl.services.service import Lateness

GONE_S = 15.0  # without a message, where a status comes each second
SESSIONS = 16  # remembered of a source
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


class Memory(msgspec.Struct):
    """What is kept when the program ends."""

    sounding: dict[str, dict[str, str]] = {}  # source: id of an event that lasts: its label
    states: dict[str, State] = {}  # by source
    announced: list[str] = []  # topics of discovery
    sessions: dict[str, list[str]] = {}  # source: its newest sessions, the last one of now


class States:
    """Takes messages; `changes` has what is to be published, `all` everything that is retained."""

    def __init__(self, topics: Topics, labels: Sequence[str], memory: Memory) -> None:
        """`labels` get a binary sensor each, which is on for their kinds, too: "Dog" for "Bark"."""
        self._topics, self.memory = topics, memory
        self._takes_in = {label: taken_in(label) for label in labels}
        self.changes: deque[tuple[str, bytes]] = deque(maxlen=CHANGES)
        self.all: dict[str, bytes] = {}
        self.lateness = Lateness()
        self._had_at: dict[str, float] = {}  # source: monotonic seconds of its last message
        self._level_at: dict[str, float] = {}
        self._available: dict[str, bool] = {}
        self._stale: dict[str, bool] = {}  # whether its last message was history
        for source in memory.states:
            self._publish(source)

    @property
    def sources(self) -> list[str]:
        """The sources known so far."""
        return list(self.memory.states)

    def take(self, message: AnyMessage) -> None:
        """Take a message; one that is late changes states but switches nothing."""
        source, memory = message.source, self.memory
        state = memory.states.setdefault(source, State())
        if isinstance(message, Status):
            self.lateness.take(message)
        fresh = not self.lateness.is_late(message.published_at)
        self._had_at[source] = time.monotonic()
        sessions = memory.sessions.setdefault(source, [])
        if isinstance(message, Status) and message.session not in sessions:
            memory.sessions[source] = [*sessions, message.session][-SESSIONS:]
            sounding = memory.sounding.get(source, {})  # a listener that was killed ended none
            memory.sounding[source] = {
                each: label for each, label in sounding.items() if each.startswith(message.session)
            }
        changed = False
        if isinstance(message, Event):
            self._event(message, state)
            changed = True
        elif isinstance(message, Label):
            changed = state.label != message.label
            state.label = message.label
        elif isinstance(message, Status):
            changed = state.state != message.state
            state.state = message.state
            if changed or self._had_at[source] >= self._level_at.get(source, 0.0) + LEVEL_S:
                self._level_at[source] = self._had_at[source]
                state.level_dbfs = round(message.level_dbfs, 1)
                weighted = message.level_dba
                state.level_dba = None if weighted is None else round(weighted, 1)
                changed = True
            self._available[source] = message.state in LISTENING
        stale, self._stale[source] = self._stale.get(source, True), not fresh
        if fresh and (changed or stale):
            self._publish(source)

    def look(self) -> None:
        """Note which sources have gone."""
        now = time.monotonic()
        for source, at in self._had_at.items():
            if self._available.get(source) and now > at + GONE_S:
                self._available[source] = False
                self._publish(source)

    def _event(self, event: Event, state: State) -> None:
        sounding = self.memory.sounding.setdefault(event.source, {})
        over = event.session in self.memory.sessions.get(event.source, [])[:-1]
        if event.end is None and not event.void and not over:
            sounding[event.id] = event.label
        else:
            sounding.pop(event.id, None)
        if not event.void:
            state.last_sound = event.label[:LONGEST]
            state.confidence = round(100 * event.peak, 1)
            state.last_sound_at = round(began_at(event), 3)

    def _publish(self, source: str) -> None:
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
