"""Decisions to events: when each sound began and ended, and what is revised of it later.

A label is on or off at each patch, by hysteresis over the newest belief on that patch; a stretch of
on is an event, from its first patch's position to the first one that is off. A reasoner that
revises its decisions also gives newer beliefs on the last `lags` patches: events may turn out to
have begun earlier, to have ended, to have been another label's, or not to have happened at all.
Whatever differs from what was published is published again. With other reasoners (`lags` is 0) no
event is revised.

The first patch of a stretch without gaps covers all of it so far: what is on there began with the
stretch. A sound that was over before that patch's position is off there in hindsight, but did
happen: such an event ends at the first patch, and is neither retracted nor given to another label.
Of 200 sounds of 0.4 s at a recording's start, followed by room tone, that keeps 78; without the
rule none are kept, and 56 if they may be given to other labels.

An event is first published when the newest belief itself reaches `on`. One that was not published
by the time it is out of reach is dropped: no event begins there, and no rest follows; the same
holds for the remainder of an event that is cut in two. Publishing events that only hindsight shows
gave twice the false events, and hardly more correct ones. A label that has not lasted for
`min_duration_s` yet stays pending beyond reach, as long as it stays at `on`.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from streamtwl.config import EventSettings, LabelEventSettings
from streamtwl.sounding import Change, Sounding, Stretch, rules
from streamtwl.stages import SAMPLE_RATE

ONGOING = SAMPLE_RATE  # samples for which an open event is assumed to continue
Span = tuple[int, int | None]  # positions; None: still on


class EventTracker:
    """Hysteresis per stream and label; several events may be open at once.

    A label's event begins when its score reaches `on`, unless the label then yields to a
    descendant, and has been on for `min_duration_s`. It ends when the score falls below `off`;
    after that the label rests for `cooldown_s`. Events of the last `lags` patches are revised.
    """

    def __init__(
        self, labels: Sequence[str], settings: EventSettings, behind: int = 0, lags: int = 0
    ) -> None:
        """`behind`: samples from the moment that a score is about to the end of its window."""
        self._labels = labels
        self._rules = rules(labels, settings)
        self._on = np.full(len(labels), np.inf)
        for i, rule in self._rules.items():
            self._on[i] = rule.on
        self._behind = behind
        self._lags = lags
        self._streams: dict[int, _StreamEvents] = {}

    def step(
        self,
        stream: int,
        position: int,
        scores: np.ndarray,
        specific: np.ndarray,
        earlier: np.ndarray | None = None,
        stretch: int | None = None,
    ) -> list[Change]:
        """Take a decision's float32[L] scores and float32[lags, 2, L] on the patches before.

        Returns the changes: onsets, offsets and revisions. A label that yields to a descendant (0
        among `specific`) counts only once it is on. `stretch` is the position at which the
        gapless stretch that the decision is on begins; None: where the one before broke off.
        """
        state = self._streams.setdefault(stream, _StreamEvents(deque(maxlen=self._lags + 1)))
        if not state.stretch.is_news(position):
            return []
        at = state.stretch.take(position, stretch, self._behind)
        if len(state.patches) == self._lags + 1:
            self._settle(state)
        known = [*state.settled, *(event.index for event in state.published)]
        now = specific.copy()
        now[known] = scores[known]
        state.patches.append((at, now))
        before = list(state.patches)[-2::-1]  # newest first
        for patch, by_now in zip(before, () if earlier is None else earlier, strict=False):
            patch[1][:] = by_now[1]
            begun = [event.index for event in state.published if event.sounding.start <= patch[0]]
            patch[1][begun] = by_now[0, begun]
        return self._compare(state)

    def replace_labels(
        self, kept: int, labels: Sequence[str], settings: EventSettings
    ) -> list[tuple[int, int, list[Change]]]:
        """Have other labels after the first `kept`; return (stream, position, changes) of each.

        Events of the first ones go on. Those of the others end where the newest patch is.
        """
        self._labels = labels
        self._rules = rules(labels, settings)
        self._on = np.full(len(labels), np.inf)
        for i, rule in self._rules.items():
            self._on[i] = rule.on
        return [
            (stream, state.stretch.decided_to, self._drop(state, kept, len(labels)))
            for stream, state in self._streams.items()
        ]

    def _drop(self, state: "_StreamEvents", kept: int, count: int) -> list[Change]:
        """Forget what is known of labels beyond the first `kept`; `count` is of the new ones."""
        changes: list[Change] = []
        for event in [event for event in state.published if event.index >= kept]:
            state.published.remove(event)
            if event.sounding.end is None:
                end = max(state.stretch.newest, event.sounding.start + 1)
                changes += _update(event, (event.sounding.start, end))
        for known in (state.settled, state.pending, state.rest_until):
            for label in [label for label in known if label >= kept]:
                del known[label]
        for i, (at, belief) in enumerate(state.patches):
            nothing = np.zeros(count - kept, belief.dtype)
            state.patches[i] = at, np.concatenate((belief[:kept], nothing))
        return changes

    def pause(self, stream: int, position: int) -> list[Change]:
        """End what is open: the sound broke off at `position`, and a gap follows."""
        state = self._streams.get(stream)
        return [] if state is None else self._end_all(state, position)

    def close(self, stream: int, position: int) -> list[Change]:
        """The stream ended at `position`: end what is open, and forget it."""
        changes = self.pause(stream, position)
        self._streams.pop(stream, None)
        return changes

    def _end_all(self, state: "_StreamEvents", position: int) -> list[Change]:
        changes: list[Change] = []
        for event in state.published:
            if event.sounding.end is None:
                start = event.sounding.start
                if start == position:  # on since the newest patch, at which the sound broke off
                    start = self._earliest(state, event.index)
                span = (start, position)
                changes += _update(event, span) if start < position else _retract(event)
            self._rest(state, event.index, event.sounding.end or 0)
        state.published.clear()
        state.settled.clear()
        state.pending.clear()
        state.patches.clear()
        state.stretch.end(position)
        return changes

    def _earliest(self, state: "_StreamEvents", label: int) -> int:
        """Return the earliest start of an event that has been on since the newest patch only."""
        before = state.patches[-2][0] if len(state.patches) > 1 else state.stretch.start
        return max(before, state.rest_until.get(label, 0))

    def _rest(self, state: "_StreamEvents", label: int, end: int) -> None:
        """Let a label rest after an event that ended at `end`."""
        until = end + round(self._rules[label].cooldown_s * SAMPLE_RATE)
        state.rest_until[label] = max(until, state.rest_until.get(label, 0))

    def _settle(self, state: "_StreamEvents") -> None:
        """Fix where events at the oldest patch began: it is out of reach from now on."""
        position, belief = state.patches[0]
        for label in {*state.settled, *state.pending, *(event.index for event in state.published)}:
            pending = state.pending.get(label)
            on = self._rules[label].is_on(belief[label], label in state.settled)
            published = on and state.is_published(label, (position, position + 1))
            waits = pending is not None and pending.start <= position
            if on and (published or waits):
                state.settled.setdefault(label, state.begins(label, position))
                if pending and not published:
                    pending.add(float(belief[label]))
            elif label in state.settled:
                span = (state.settled.pop(label), position)
                if pending is None or state.is_published(label, span):
                    self._rest(state, label, position)
                if pending:
                    state.pending[label] = Sounding(-1, self._labels[label], position)
        second = state.patches[1][0] if len(state.patches) > 1 else state.stretch.newest
        state.published = [
            e for e in state.published if e.sounding.end is None or e.sounding.end >= second
        ]

    def _compare(self, state: "_StreamEvents") -> list[Change]:
        """Return the changes from the events as published to the events as they look now."""
        beliefs = np.stack([belief for _, belief in state.patches])
        active = {int(i) for i in np.flatnonzero((beliefs >= self._on).any(axis=0))}
        active |= {*state.settled, *state.pending, *(event.index for event in state.published)}
        changes: list[Change] = []
        known = [*state.published]
        gone: list[_Revisable] = []
        new: list[tuple[int, Span]] = []
        for label in sorted(active):
            same_label = [event for event in state.published if event.index == label]
            same_label.sort(key=lambda event: event.sounding.start)  # a renamed one may be older
            for span in self._spans(state, label, beliefs[:, label]):
                same = next((event for event in same_label if _overlap(event.span, span)), None)
                if same is None:
                    new.append((label, span))
                else:
                    same_label.remove(same)
                    start = same.sounding.start if state.is_from_first(same) else span[0]
                    changes += _update(same, (min(start, span[0]), span[1]))
            gone += same_label
        changeable = [event for event in gone if not state.is_from_first(event)]
        for label, span in new:
            was = next((event for event in changeable if _mostly(event.span, span)), None)
            if was is not None:  # it changes its label
                gone.remove(was)
                changeable.remove(was)
                was.index = label
                was.sounding = self._sounding(state, was.sounding.number, label, span)
                known.remove(was)  # its figures are new
                changes.append(("revised", was.sounding))
            elif span[1] is None and beliefs[-1, label] >= self._on[label]:
                changes.append(self._publish(state, label, span))
        first = state.stretch.first or 0
        for event in gone:
            within_first = (event.sounding.start, first)
            rule = self._rules[event.index]
            if state.is_from_first(event) and self._long_enough(state, within_first, rule):
                changes += _update(event, within_first)
                self._rest(state, event.index, first)
            else:
                state.published.remove(event)
                changes += _retract(event)
        newest = beliefs[-1]
        for event in known:
            if event.sounding.end is None:
                event.sounding.add(float(newest[event.index]))
        return changes

    def _spans(self, state: "_StreamEvents", label: int, beliefs: np.ndarray) -> list[Span]:
        """Return the stretches in which a label is on, as far as they can still change."""
        rule = self._rules.get(label)
        if rule is None:
            return []
        began, rest_until = state.settled.get(label), state.rest_until.get(label, 0)
        spans: list[Span] = []
        waits = label in state.pending and state.pending[label].patches > 0
        for (position, _), belief in zip(state.patches, beliefs, strict=True):
            on = rule.is_on(belief, began is not None and not waits)
            if began is None and on and position >= rest_until:
                began = state.begins(label, position)
            elif began is not None and not on:
                spans.append((began, position))
                if state.is_published(label, spans[-1]):
                    rest_until = position + round(rule.cooldown_s * SAMPLE_RATE)
                began = None
        if began is not None:
            spans.append((began, None))
        long_enough = [span for span in spans if self._long_enough(state, span, rule)]
        is_long = spans[-1:] == long_enough[-1:] and label not in state.settled
        reached = beliefs[-1] >= rule.on or label in state.pending
        if began is None or is_long or not reached or state.is_published(label, (began, None)):
            if state.pending.pop(label, None) and waits:
                del state.settled[label]
        else:
            pending = state.pending.setdefault(label, Sounding(-1, self._labels[label], began))
            pending.start = began
        return long_enough

    def _long_enough(self, state: "_StreamEvents", span: Span, rule: LabelEventSettings) -> bool:
        since = max(span[0], state.stretch.first or 0)  # nothing shows that it lasted longer
        until = state.stretch.newest if span[1] is None else span[1]
        lasted = state.stretch.window_end(until) - state.stretch.window_end(since)
        return lasted >= rule.min_duration_s * SAMPLE_RATE

    def _publish(self, state: "_StreamEvents", label: int, span: Span) -> Change:
        sounding = self._sounding(state, state.count, label, span)
        state.count += 1
        state.published.append(_Revisable(label, sounding))
        return "onset", sounding

    def _sounding(self, state: "_StreamEvents", number: int, label: int, span: Span) -> Sounding:
        """Return an event with the figures of its own label, as far back as patches are kept."""
        known = state.pending.pop(label, None) or Sounding(number, self._labels[label], 0)
        sounding = replace(known, number=number, start=span[0], end=span[1])
        for position, belief in state.patches:
            if position >= span[0] and (span[1] is None or position < span[1]):
                sounding.add(float(belief[label]))
        return sounding


@dataclass(slots=True)
class _Revisable:
    """An event that was published and can still be revised."""

    index: int  # of its label
    sounding: Sounding

    @property
    def span(self) -> Span:
        """Its start and end as last published."""
        return self.sounding.start, self.sounding.end


@dataclass(slots=True)
class _StreamEvents:
    """The events of one stream."""

    patches: deque[tuple[int, np.ndarray]]  # position, float32[L]: the newest belief on it
    published: list[_Revisable] = field(default_factory=list)
    settled: dict[int, int] = field(default_factory=dict)  # label on before `patches`: since when
    # Not long enough to be published; with the scores of the patches before `patches`
    pending: dict[int, Sounding] = field(default_factory=dict)
    rest_until: dict[int, int] = field(default_factory=dict)  # position
    stretch: Stretch = field(default_factory=Stretch)
    count: int = 0

    def begins(self, label: int, position: int) -> int:
        """Return where a sound began that has been on since the patch at `position`."""
        if position != self.stretch.first:
            return position
        return max(self.stretch.start, self.rest_until.get(label, 0))

    def is_from_first(self, event: "_Revisable") -> bool:
        """Whether an event was published as beginning before the first patch of the stretch."""
        return self.stretch.first is not None and event.sounding.start < self.stretch.first

    def is_published(self, label: int, span: Span) -> bool:
        """Whether an event of a label that overlaps a span was published."""
        return any(event.index == label and _overlap(event.span, span) for event in self.published)


def _update(event: _Revisable, span: Span) -> list[Change]:
    """Move an event to `span`; an end that comes in time is an offset, not a revision."""
    sounding = event.sounding
    ends = sounding.end is None and span[1] is not None
    moved = sounding.start != span[0] or (not ends and sounding.end != span[1])
    if not (moved or ends):
        return []
    sounding.start, sounding.end = span
    return [("offset" if ends and not moved else "revised", sounding)]


def _retract(event: _Revisable) -> list[Change]:
    """Mark an event as one that never happened."""
    event.sounding.end, event.sounding.retracted = event.sounding.start, True
    return [("revised", event.sounding)]


def _overlap(a: Span, b: Span) -> bool:
    return _seconds_shared(a, b) > 0


def _mostly(a: Span, b: Span) -> bool:
    """Whether two spans share more than half of the longer one."""
    now = max(position for position in (*a, *b) if position is not None) + ONGOING
    longer = max((now if end is None else end) - start for start, end in (a, b))
    return 2 * _seconds_shared(a, b) > longer


def _seconds_shared(a: Span, b: Span) -> int:
    now = max(position for position in (*a, *b) if position is not None) + ONGOING
    ends = [now if end is None else end for _, end in (a, b)]
    return max(0, min(ends) - max(a[0], b[0]))
