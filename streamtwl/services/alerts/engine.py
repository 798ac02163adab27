"""Which rules apply: messages in, firings out. The same messages lead to the same firings."""

from datetime import datetime
from typing import Any

import msgspec

from streamtwl.history import began_at
from streamtwl.messages import AnyMessage, Event, Label, Status
from streamtwl.services.alerts.rules import SILENCE, TEXT, Rule
from streamtwl.stages import SAMPLE_RATE

REMEMBERED = 50  # events of a rule at a source that are dealt with
OPEN = 100  # events that last, of a rule at a source
HOP_S = 0.48  # from one decision to the next: what a late event's length is worth
STEP_S = 60.0  # from one status to the next; a longer one is a gap, no silence
LONGEST_GAP_S = 30 * 86_400.0  # between two sessions, as the clock has it


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
    cool_at: float = -1e18  # by the source's clock
    firings: int = 0


class Clock(msgspec.Struct):
    """Seconds of a source: samples within a session, the wall clock's between two.

    So a wall clock that leaps moves no duration of a session.
    """

    session: str = ""
    base_s: float = 0.0
    position: int = 0
    published_at: float = 0.0
    listening: bool = False

    def take(self, message: AnyMessage) -> float:
        """Take a message; return the seconds since the newest before, 0 across sessions."""
        now = message.published_at
        if message.session != self.session:
            gap = min(max(0.0, now - self.published_at), LONGEST_GAP_S) if self.session else 0.0
            self.base_s += self.position / SAMPLE_RATE + gap - message.position / SAMPLE_RATE
            self.session, self.position, step = message.session, message.position, 0.0
        else:
            step = max(0, message.position - self.position) / SAMPLE_RATE
            self.position = max(self.position, message.position)
        self.published_at = now
        return step

    def at(self, position: int) -> float:
        """Return a position of the session in seconds of this source's own count."""
        return self.base_s + position / SAMPLE_RATE


class Memory(msgspec.Struct):
    """What is known of all rules and sources; kept when the program ends."""

    tracks: dict[str, Track] = {}  # by rule and source, with a line break between
    clocks: dict[str, Clock] = {}  # by source


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
        if not isinstance(message, Event | Label | Status):
            return []
        clock = self.memory.clocks.setdefault(message.source, Clock())
        fresh_session = clock.session not in ("", message.session)
        step = clock.take(message)
        listened = isinstance(message, Status) and clock.listening
        if isinstance(message, Status):
            clock.listening = message.state == "listening"
        fired = []
        for rule in self._rules:
            if not rule.at(message.source):
                continue
            track = self.memory.tracks.setdefault(f"{rule.name}\n{message.source}", Track())
            if fresh_session:
                track.open.clear()  # a listener that was killed ended none
            if isinstance(message, Event):
                fired += self._event(rule, track, clock, message, late)
            elif isinstance(message, Label):
                fired += self._label(rule, track, clock, message)
            elif rule.of_silence:
                if listened:
                    self._count(track, step)
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
        confirmed_late = sounding.late and lasted >= rule.confirmed * HOP_S
        if (
            event.id in track.done
            or event.peak < rule.confidence
            or lasted < rule.lasting_s
            or (sounding.confirmed < rule.confirmed and not confirmed_late)
            or not (rule.of_silence or rule.awake(began_at(event)))
        ):
            return []
        track.done = [*track.done, event.id][-REMEMBERED:]
        now = clock.at(position)
        track.times = [*(at for at in track.times if at > now - rule.within_s), now]
        if len(track.times) < rule.times:
            return []
        count, track.times = len(track.times), []
        if rule.of_silence:
            track.sounded = True
            return []
        return self._fire(rule, track, clock, event, now, count)

    def _silence(self, rule: Rule, track: Track, clock: Clock, message: Status) -> list[Firing]:
        due = (rule.silence_s and track.silent_s >= rule.silence_s and not track.fired_silence) or (
            rule.silence_after_s and track.sounded and track.silent_s >= rule.silence_after_s
        )
        at = message.captured_at or message.published_at
        if not due or not rule.awake(at):
            return []
        track.fired_silence, track.sounded = True, False
        return self._fire(rule, track, clock, message, clock.at(message.position))

    def _fire(
        self,
        rule: Rule,
        track: Track,
        clock: Clock,
        message: Event | Status,
        now: float,
        count: int = 1,
    ) -> list[Firing]:
        if now < track.cool_at:
            return []
        track.cool_at = now + rule.cooldown_s
        track.firings += 1
        of_event: dict[str, Any] = {}
        at = message.captured_at or message.published_at
        key = f"{message.session}-{message.source}-{message.position}"
        if isinstance(message, Event):
            at, key = began_at(message), message.id
            of_event = {"label": message.label, "event": message.id, "peak": message.peak}
            end = max(message.position, clock.position) if message.end is None else message.end
            of_event["lasted_s"] = round((end - message.start) / SAMPLE_RATE, 2)
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
