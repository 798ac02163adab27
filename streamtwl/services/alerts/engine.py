"""Which rules apply: messages in, firings out. The same messages lead to the same firings.

Events come by one subscription and labels and states by another, so either may be ahead of the
other: what is counted goes by positions, not by what came first.
"""

from collections import deque

import msgspec

from streamtwl.history import began_at, lasted_s, local
from streamtwl.messages import AnyMessage, Event, Hello, Label, Status
from streamtwl.services.alerts.memory import Clock, Counted, Memory, Open, Track
from streamtwl.services.alerts.rules import SILENCE, TEXT, Rule
from streamtwl.stages import SAMPLE_RATE

REMEMBERED = 50  # events of a rule at a source that are over and counted
OPEN = 100  # events that last, of a rule at a source
RECENT = 50  # labels of a source, for events that come after them


class Firing(msgspec.Struct):
    """A rule applies: what its actions get, as JSON."""

    id: str  # of this firing: the same if it comes twice
    rule: str
    source: str
    text: str
    at: float  # Unix seconds of the sound's onset; where it is of silence, of the decision
    label: str | None = None
    event: str | None = None  # id of the event that was the last to count; none for `silence_s`
    lasted_s: float | None = None  # so far
    peak: float | None = None
    count: int = 1  # events that counted


class Engine:
    """Takes events, labels and states: each kind in its order, and live ones as they come."""

    def __init__(self, rules: list[Rule], memory: Memory | None = None) -> None:
        """`memory` is changed; keep it with the position in the messages."""
        self._rules, self.memory = rules, memory or Memory()
        self._recent: dict[str, deque[Label]] = {}  # labels, by source
        names = {rule.name for rule in rules}
        for key in list(self.memory.tracks):
            if key.partition("\n")[0] not in names:
                del self.memory.tracks[key]  # of a rule that is no more
        for clock in self.memory.clocks.values():
            clock.listening = False  # up to the first state: nobody counted

    def take(self, message: AnyMessage, late: bool = False) -> list[Firing]:
        """Return which rules apply now; `late`: an event without the labels of its time."""
        if isinstance(message, Hello):
            self.memory.hop_s = float(message.settings.get("hop_s", self.memory.hop_s))
        if not isinstance(message, Event | Label | Status):
            return []
        clock = self.memory.clocks.setdefault(message.source, Clock())
        since = clock.take(message)
        if isinstance(message, Label):
            self._recent.setdefault(message.source, deque(maxlen=RECENT)).append(message)
        fired = []
        for rule in self._rules:
            if not rule.at(message.source):
                continue
            track = self.memory.tracks.setdefault(f"{rule.name}\n{message.source}", Track())
            if isinstance(message, Event):
                fired += self._event(rule, track, clock, message, late)
            elif isinstance(message, Label):
                fired += self._label(rule, track, clock, message)
            else:
                fired += self._status(rule, track, clock, message, since)
        return fired

    def _event(
        self, rule: Rule, track: Track, clock: Clock, event: Event, late: bool
    ) -> list[Firing]:
        if event.void or not rule.hears(event.label):
            track.forget(event)
            return []
        over = clock.is_over(event)
        sounding = self._sounding(track, event)
        sounding.late = sounding.late or late or over
        fired = self._qualify(rule, track, clock, sounding, event.position)
        if track.counted is not None and track.counted.event.id == event.id:
            track.counted.event = event
        if over or event.end is not None:
            track.end(event, clock)
            if over or not rule.confirmed:  # else the label of that decision may be to come
                del track.open[event.id]
        while len(track.open) > OPEN:
            del track.open[next(iter(track.open))]
        return fired

    def _sounding(self, track: Track, event: Event) -> Open:
        """Return what is known of an event, with the labels that came before it."""
        known = track.open.get(event.id)
        if known is not None and known.event.label == event.label:
            known.event = event
            return known
        onset = event.position if known is None else known.onset
        known = track.open[event.id] = Open(event, event.position, onset)
        for label in self._recent.get(event.source, ()):
            known.hear(label)
        return known

    def _label(self, rule: Rule, track: Track, clock: Clock, label: Label) -> list[Firing]:
        fired = []
        for sounding in [*track.open.values()]:
            event = sounding.event
            if label.session == event.session:
                sounding.hear(label)
                fired += self._qualify(rule, track, clock, sounding, label.position)
                if event.end is not None and label.position >= event.position:
                    del track.open[event.id]
        return fired

    def _status(
        self, rule: Rule, track: Track, clock: Clock, status: Status, since: int | None
    ) -> list[Firing]:
        """Count sound in which there was nothing of the rule's label."""
        for sounding in [*track.open.values()]:
            if clock.is_over(sounding.event):  # a listener that was killed ended none
                track.end(sounding.event, clock)
                del track.open[sounding.event.id]
        if not rule.of_silence or track.sounds(status.session):
            return []
        if since is not None:
            if track.ended[0] == status.session:
                since = max(since, track.ended[1])
            track.silent_s += max(0, status.position - since) / SAMPLE_RATE
        return self._silence(rule, track, clock, status)

    def _qualify(
        self, rule: Rule, track: Track, clock: Clock, sounding: Open, position: int
    ) -> list[Firing]:
        """Let an event count, once, when it is all that the rule wants."""
        event, so_far_s = sounding.event, sounding.lasted_s
        confirmed_late = sounding.late and so_far_s >= rule.confirmed * self.memory.hop_s
        if (
            event.id in track.done
            or event.peak < rule.confidence
            or so_far_s < rule.lasting_s
            or (sounding.confirmed < rule.confirmed and not confirmed_late)
            or not (rule.of_silence or rule.awake(began_at(event)))
        ):
            return []
        last = [each for each in track.done if each in track.open]  # may outlast many others
        over = [each for each in track.done if each not in track.open]
        track.done = [*last, *over[-REMEMBERED:], event.id]
        now = clock.at(event.session, position)
        times = {id_: at for id_, at in track.times.items() if 0 <= now - at < rule.within_s}
        track.times = times | {event.id: now}
        if len(track.times) < rule.times:
            return []
        count, track.times = len(track.times), {}
        if rule.of_silence:
            track.counted = Counted(event, count)
            return []
        return self._fire(rule, track, event, now, Counted(event, count), so_far_s)

    def _silence(self, rule: Rule, track: Track, clock: Clock, status: Status) -> list[Firing]:
        due = (rule.silence_s and track.silent_s >= rule.silence_s and not track.fired_silence) or (
            rule.silence_after_s and track.counted and track.silent_s >= rule.silence_after_s
        )
        at = status.captured_at or status.published_at
        if not due or not rule.awake(at):
            return []
        counted, track.fired_silence, track.counted = track.counted, True, None
        now = clock.at(status.session, status.position)
        if rule.silence_s or counted is None:
            return self._fire(rule, track, status, now)
        return self._fire(rule, track, status, now, counted, lasted_s(counted.event))

    def _fire(
        self,
        rule: Rule,
        track: Track,
        message: Event | Status,
        now: float,
        counted: Counted | None = None,
        lasted_s: float = 0.0,
    ) -> list[Firing]:
        if 0 <= now - track.fired_at < rule.cooldown_s:
            return []
        track.fired_at = now
        if isinstance(message, Event):
            at, key = began_at(message), message.id
        else:
            at = message.captured_at or message.published_at
            key = f"{message.session}-{message.source}-{message.position}"
        firing = Firing(f"{rule.name}/{key}", rule.name, message.source, "", at)
        if counted is not None:
            event, firing.count = counted.event, counted.count
            firing.label, firing.event, firing.peak = event.label, event.id, event.peak
            firing.lasted_s = round(lasted_s, 2)
        firing.text = _text(rule, firing)
        return [firing]


def _text(rule: Rule, firing: Firing) -> str:
    """Return what people read; no other braces than ours mean anything."""
    text = rule.text or (SILENCE if rule.of_silence else TEXT)
    when = local(firing.at).strftime("%Y-%m-%d %H:%M:%S")
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
