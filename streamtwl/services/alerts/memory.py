"""What is known of rules and sources: events that last or counted, silence, a clock each."""

import msgspec

from streamtwl.messages import Event, Label, Status
from streamtwl.stages import SAMPLE_RATE

STEP_S = 60.0  # from one status to the next; a longer one is a gap, no silence
SESSIONS = 16  # remembered of a source
DATED_BACK = 2 * SAMPLE_RATE  # at most: an end may be, as far as the onset was


class Open(msgspec.Struct):
    """An event that lasts, of a rule's label."""

    event: Event
    until: int  # position of the newest decision in which it was
    onset: int  # position of the decision that found it
    confirmed: int = 0
    confirmed_to: int = -1  # position
    late: bool = False

    def hear(self, label: Label) -> None:
        """Take a decision of its time, or of another."""
        event = self.event
        over = event.end is not None and label.position > event.position
        if label.session != event.session or label.position < event.start or over:
            return
        if label.label == event.label and label.position > self.confirmed_to:
            self.confirmed, self.confirmed_to = self.confirmed + 1, label.position
        if event.label in (label.label, *(each.label for each in label.top)):
            self.until = max(self.until, label.position)

    @property
    def lasted_s(self) -> float:
        """How long it lasted; while it does, how long for certain, were it over by now."""
        event = self.event
        if event.end is not None:
            return (event.end - event.start) / SAMPLE_RATE
        until = max(self.until, event.position)
        dated_back = min(self.onset - event.start, DATED_BACK)
        return max(0, until - event.start - dated_back) / SAMPLE_RATE


class Counted(msgspec.Struct):
    """What a rule counted that now waits for silence."""

    event: Event  # the last one
    count: int


class Track(msgspec.Struct):
    """A rule at a source."""

    open: dict[str, Open] = {}  # by id
    done: list[str] = []  # ids of events that counted
    times: dict[str, float] = {}  # id: when it did, by the source's clock
    ended: tuple[str, int] = ("", 0)  # session and position: the newest end of its label
    silent_s: float = 0.0  # of sound, since then
    counted: Counted | None = None  # since the last silence
    fired_silence: bool = False
    fired_at: float = -1e18  # by the source's clock

    def sounds(self, session: str) -> bool:
        """Whether its label sounds; an event of a session that is over does not."""
        lasting = (each.event for each in self.open.values() if each.event.end is None)
        return any(event.session == session for event in lasting)

    def end(self, event: Event, clock: "Clock") -> None:
        """Take the end of an event, or a newer one of the same."""
        ended = event.session, event.position if event.end is None else event.end
        if ended[0] != self.ended[0] or ended[1] > self.ended[1]:
            self.ended, self.fired_silence = ended, False
            self.silent_s = clock.since(*ended)

    def forget(self, event: Event) -> None:
        """Take an event that was none, or none of the label: it counts only if it has acted."""
        self.open.pop(event.id, None)
        if self.times.pop(event.id, None) is not None and event.id in self.done:
            self.done.remove(event.id)
        if self.counted is not None and self.counted.event.id == event.id:
            self.counted = None


class Clock(msgspec.Struct):
    """Seconds of a source: the wall clock's where a session began, and its samples from there on.

    So a wall clock that leaps moves no duration within a session.
    """

    began: dict[str, float] = {}  # session: seconds at its position 0, the newest sessions
    session: str = ""  # the one of now, by its states
    since_at: float = 0.0  # Unix seconds of its first state
    position: int = 0  # the newest in it
    listening: bool = False

    def take(self, message: Event | Label | Status) -> int | None:
        """Take a message; return from which position on there was sound up to it, if it says so."""
        at_start = message.published_at - message.position / SAMPLE_RATE
        self.began.setdefault(message.session, at_start)
        while len(self.began) > SESSIONS:
            del self.began[next(iter(self.began))]
        if not isinstance(message, Status):
            return None
        same, before = message.session == self.session, self.position
        listened, self.listening = self.listening, message.state == "listening"
        if not same:
            self.session, self.since_at = message.session, message.published_at
        self.position = message.position
        gap = message.position - before > STEP_S * SAMPLE_RATE
        return before if same and listened and not gap else None

    def at(self, session: str, position: int) -> float:
        """Return a position in seconds of this source's own count."""
        return self.began[session] + position / SAMPLE_RATE

    def since(self, session: str, position: int) -> float:
        """Return the seconds from a position of a moment ago to the newest state, else 0."""
        seconds = (self.position - position) / SAMPLE_RATE
        return seconds if session == self.session and 0 <= seconds <= STEP_S else 0.0

    def is_over(self, event: Event) -> bool:
        """Whether an event is of a session before the one of now: it lasts no more."""
        return event.session != self.session and event.published_at < self.since_at


class Memory(msgspec.Struct):
    """What is known of all rules and sources; kept when the program ends."""

    tracks: dict[str, Track] = {}  # by rule and source, with a line break between
    clocks: dict[str, Clock] = {}  # by source
    hop_s: float = 0.48  # from one decision to the next: what a late event's length is worth
