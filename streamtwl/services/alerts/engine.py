"""Which rules apply: messages in, firings out. The same messages lead to the same firings."""

from datetime import datetime
from typing import Any

import msgspec

from streamtwl.history import began_at
from streamtwl.messages import AnyMessage, Event, Hello, Label, Status
from streamtwl.services.alerts.rules import SILENCE, TEXT, Rule
from streamtwl.stages import SAMPLE_RATE

REMEMBERED = 50  # events of a rule at a source that are over and counted
OPEN = 100  # events that last, of a rule at a source
STEP_S = 60.0  # from one status to the next; a longer one is a gap, no silence
SESSIONS = 16  # remembered of a source


class Firing(msgspec.Struct):
    """A rule applies: what its actions get, as JSON."""

    id: str  # of this firing: the same if it comes twice
    rule: str
    source: str
    text: str
    at: float  # Unix seconds of the sound's onset; where it is of silence, of the decision
    label: str | None = None
    event: str | None = None  # id of the event that was the last to count
    lasted_s: float | None = None  # so far
    peak: float | None = None
    count: int = 1  # events that counted


class Open(msgspec.Struct):
    """An event that lasts, of a rule's label."""

    event: Event
    confirmed: int = 0
    late: bool = False


class Track(msgspec.Struct):
    """A rule at a source."""

    open: dict[str, Open] = {}  # by id
    done: list[str] = []  # ids of events that counted
    times: list[float] = []  # when they did, by the source's clock
    silent_s: float = 0.0  # of sound, since the last of its label
    sounded: bool = False  # one counted since the last silence
    fired_silence: bool = False
    fired_at: float = -1e18  # by the source's clock


class Clock(msgspec.Struct):
    """Seconds of a source: the wall clock's where a session began, and its samples from there on.

    So a wall clock that leaps moves no duration within a session.
    """

    began: dict[str, float] = {}  # session: seconds at its position 0, the newest sessions
    session: str = ""  # the one of now
    position: int = 0  # the newest in it
    listening: bool = False

    def take(self, message: Event | Label | Status) -> float:
        """Take a message; return the seconds of sound since the state before, 0 if unknown."""
        at_start = message.published_at - message.position / SAMPLE_RATE
        self.began.setdefault(message.session, at_start)
        while len(self.began) > SESSIONS:
            del self.began[next(iter(self.began))]
        if not isinstance(message, Status):
            return 0.0
        same, before = message.session == self.session, self.position
        listened, self.listening = self.listening, message.state == "listening"
        self.session, self.position = message.session, message.position
        return max(0, message.position - before) / SAMPLE_RATE if same and listened else 0.0

    def at(self, session: str, position: int) -> float:
        """Return a position in seconds of this source's own count."""
        return self.began[session] + position / SAMPLE_RATE


class Memory(msgspec.Struct):
    """What is known of all rules and sources; kept when the program ends."""

    tracks: dict[str, Track] = {}  # by rule and source, with a line break between
    clocks: dict[str, Clock] = {}  # by source
    hop_s: float = 0.48  # from one decision to the next: what a late event's length is worth


class Engine:
    """Takes events, labels and states: each kind in its order, and live ones as they come."""

    def __init__(self, rules: list[Rule], memory: Memory | None = None) -> None:
        """`memory` is changed; keep it with the position in the messages."""
        self._rules, self.memory = rules, memory or Memory()
        names = {rule.name for rule in rules}
        for key in list(self.memory.tracks):
            if key.partition("\n")[0] not in names:
                del self.memory.tracks[key]  # of a rule that is no more

    def take(self, message: AnyMessage, late: bool = False) -> list[Firing]:
        """Return which rules apply now; `late`: an event without the labels of its time."""
        if isinstance(message, Hello):
            self.memory.hop_s = float(message.settings.get("hop_s", self.memory.hop_s))
        if not isinstance(message, Event | Label | Status):
            return []
        clock = self.memory.clocks.setdefault(message.source, Clock())
        new_session = bool(clock.began) and message.session not in clock.began
        step_s = clock.take(message)
        fired = []
        for rule in self._rules:
            if not rule.at(message.source):
                continue
            track = self.memory.tracks.setdefault(f"{rule.name}\n{message.source}", Track())
            if new_session:
                track.open.clear()  # a listener that was killed ended none
            if isinstance(message, Event):
                fired += self._event(rule, track, clock, message, late)
            elif isinstance(message, Label):
                fired += self._label(rule, track, clock, message)
            elif rule.of_silence:
                self._count(track, step_s)
                fired += self._silence(rule, track, clock, message)
        return fired

    def _event(
        self, rule: Rule, track: Track, clock: Clock, event: Event, late: bool
    ) -> list[Firing]:
        if event.void or not rule.hears(event.label):
            track.open.pop(event.id, None)
            return []
        sounding = track.open.setdefault(event.id, Open(event))
        sounding.event, sounding.late = event, sounding.late or late
        fired = self._qualify(rule, track, clock, sounding, event.position)
        if late and event.session != clock.session:
            track.open.pop(event.id, None)  # of a session that is over
        if event.end is not None:
            track.open.pop(event.id, None)
            track.silent_s, track.fired_silence = 0.0, False
        while len(track.open) > OPEN:
            del track.open[next(iter(track.open))]
        return fired

    def _label(self, rule: Rule, track: Track, clock: Clock, label: Label) -> list[Firing]:
        fired = []
        for sounding in track.open.values():
            if label.label == sounding.event.label and not label.refinement:
                sounding.confirmed += 1
            fired += self._qualify(rule, track, clock, sounding, label.position)
        return fired

    def _count(self, track: Track, step_s: float) -> None:
        """Count sound in which there was nothing of the rule's label."""
        if track.open:
            track.silent_s, track.fired_silence = 0.0, False
        elif step_s <= STEP_S:
            track.silent_s += step_s

    def _qualify(
        self, rule: Rule, track: Track, clock: Clock, sounding: Open, position: int
    ) -> list[Firing]:
        """Let an event count, once, when it is all that the rule wants."""
        event = sounding.event
        end = event.end if event.end is not None else max(position, event.position)
        lasted = (end - event.start) / SAMPLE_RATE
        confirmed_late = sounding.late and lasted >= rule.confirmed * self.memory.hop_s
        if (
            event.id in track.done
            or event.peak < rule.confidence
            or lasted < rule.lasting_s
            or (sounding.confirmed < rule.confirmed and not confirmed_late)
            or not (rule.of_silence or rule.awake(began_at(event)))
        ):
            return []
        last = [each for each in track.done if each in track.open]  # may outlast many others
        over = [each for each in track.done if each not in track.open]
        track.done = [*last, *over[-REMEMBERED:], event.id]
        now = clock.at(event.session, position)
        track.times = [*(at for at in track.times if 0 <= now - at < rule.within_s), now]
        if len(track.times) < rule.times:
            return []
        count, track.times = len(track.times), []
        if rule.of_silence:
            track.sounded = True
            return []
        return self._fire(rule, track, event, now, lasted, count)

    def _silence(self, rule: Rule, track: Track, clock: Clock, message: Status) -> list[Firing]:
        due = (rule.silence_s and track.silent_s >= rule.silence_s and not track.fired_silence) or (
            rule.silence_after_s and track.sounded and track.silent_s >= rule.silence_after_s
        )
        at = message.captured_at or message.published_at
        if not due or not rule.awake(at):
            return []
        track.fired_silence, track.sounded = True, False
        now = clock.at(message.session, message.position)
        return self._fire(rule, track, message, now)

    def _fire(
        self,
        rule: Rule,
        track: Track,
        message: Event | Status,
        now: float,
        lasted_s: float = 0.0,
        count: int = 1,
    ) -> list[Firing]:
        if 0 <= now - track.fired_at < rule.cooldown_s:
            return []
        track.fired_at = now
        of_event: dict[str, Any] = {}
        at = message.captured_at or message.published_at
        key = f"{message.session}-{message.source}-{message.position}"
        if isinstance(message, Event):
            at, key = began_at(message), message.id
            of_event = {"label": message.label, "event": message.id, "peak": message.peak}
            of_event["lasted_s"] = round(lasted_s, 2)
        firing = Firing(f"{rule.name}/{key}", rule.name, message.source, "", at, **of_event)
        firing.count = count
        firing.text = _text(rule, firing)
        return [firing]


def _text(rule: Rule, firing: Firing) -> str:
    """Return what people read; no other braces than ours mean anything."""
    text = rule.text or (SILENCE if rule.of_silence else TEXT)
    when = datetime.fromtimestamp(firing.at).strftime("%Y-%m-%d %H:%M:%S")
    values = {
        "label": firing.label or "",
        "source": firing.source,
        "rule": firing.rule,
        "time": when,
        "lasted_s": f"{firing.lasted_s or 0:g}",
        "peak": f"{firing.peak or 0:.2f}",
        "count": str(firing.count),
    }
    parts = text.replace("{", "\0{").replace("}", "}\0").split("\0")
    return "".join(values.get(part[1:-1], part) if part[:1] == "{" else part for part in parts)
