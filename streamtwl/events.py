"""Decisions to events: when did each sound begin and end?"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Literal

import numpy as np

from streamtwl.config import EventSettings, LabelEventSettings
from streamtwl.stages import SAMPLE_RATE


@dataclass(slots=True)
class Sounding:
    """One event, pending, open or over."""

    number: int  # in its stream, from 0, in order of onset
    label: str
    start: int  # position
    end: int | None = None  # position; None while it lasts
    peak: float = 0.0
    mean: float = 0.0
    retracted: bool = False  # there was no such event after all; `end` is `start` then
    patches: int = field(default=0, repr=False)

    def add(self, score: float) -> None:
        """Take the score of one more patch."""
        self.patches += 1
        self.peak = max(self.peak, score)
        self.mean += (score - self.mean) / self.patches


Change = tuple[Literal["onset", "offset", "revised"], Sounding]


class EventTracker:
    """Hysteresis per stream and label; several events may be open at once.

    A label's event begins when its score reaches `on`, unless the label then yields to a
    descendant, and has stayed there for `min_duration_s`. It ends when the score falls below `off`;
    after that the label rests for `cooldown_s`. A crossing is placed `behind` samples before the
    end of the window in which it happened: the moment that a score is about; what is on in the
    first window of a stretch without gaps began with the stretch.
    """

    def __init__(self, labels: Sequence[str], settings: EventSettings, behind: int = 0) -> None:
        self._behind = max(1, behind)  # what begins with the last window has a length
        self._rules = rules(labels, settings)
        self._labels = labels
        self._on = np.full(len(labels), np.inf)
        for i, rule in self._rules.items():
            self._on[i] = rule.on
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
        """Take a decision's float32[L] `scores` and `specific`; return the onsets and offsets.

        `stretch` is the position at which the window's gapless stretch begins; None: where the one
        before broke off. `earlier` is ignored: see `revisions.py`.
        """
        state = self._streams.setdefault(stream, _StreamEvents())
        changes: list[Change] = []
        if not state.stretch.is_news(position):
            return []
        state.stretch.take(position, stretch)
        at = max(state.stretch.start, position - self._behind)
        begins = state.stretch.start if position == state.stretch.first else at
        for label in [*state.tracked]:
            change = self._advance(state, label, at, float(scores[label]))
            changes += [change] if change else []
        for label in map(int, np.flatnonzero(specific >= self._on)):
            rest_until = state.rest_until.get(label, 0)
            if label not in state.tracked and at >= rest_until:
                event = Sounding(-1, self._labels[label], max(begins, rest_until))
                state.tracked[label] = event
                event.add(float(scores[label]))
                if self._rules[label].min_duration_s == 0:
                    changes.append(_begin(state, label))
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
        changes = [self._end(state, label, position) for label in sorted(state.open)]
        state.tracked.clear()
        state.stretch.end(position)
        return changes

    def _advance(self, state: "_StreamEvents", label: int, at: int, score: float) -> Change | None:
        event, rule = state.tracked[label], self._rules[label]
        if label in state.open:
            if score < rule.off:
                return self._end(state, label, at)
            event.add(score)
        elif score < rule.on:
            del state.tracked[label]
        else:
            event.add(score)
            # Of the first window no more counts: nothing shows that it lasted longer.
            since = max(event.start, (state.stretch.first or 0) - self._behind)
            if at - since >= rule.min_duration_s * SAMPLE_RATE:
                return _begin(state, label)
        return None

    def _end(self, state: "_StreamEvents", label: int, position: int) -> Change:
        event = state.tracked.pop(label)
        state.open.discard(label)
        event.end = position
        rest = round(self._rules[label].cooldown_s * SAMPLE_RATE)
        state.rest_until[label] = event.end + rest
        return "offset", event


@dataclass(slots=True)
class Stretch:
    """Sound without gaps, of which the first patch covers everything from its start."""

    start: int = 0  # position
    first: int | None = None  # position of its first patch; None: there was none yet
    decided_to: int = 0  # position of the newest patch, or where the sound broke off

    def is_news(self, position: int) -> bool:
        """Whether a patch covers anything that came after the sound broke off."""
        return self.first is not None or position > self.decided_to

    def take(self, position: int, start: int | None) -> None:
        """Take the position of a patch; the first one of a stretch begins it."""
        if self.first is None:
            self.start = max(self.decided_to, start or 0)
            self.first = position
        self.decided_to = position

    def end(self, position: int) -> None:
        """The sound broke off."""
        self.first, self.decided_to = None, position


@dataclass(slots=True)
class _StreamEvents:
    """The events of one stream, by the index of their label."""

    stretch: Stretch = field(default_factory=Stretch)
    tracked: dict[int, Sounding] = field(default_factory=dict)  # pending or open
    open: set[int] = field(default_factory=set)  # whose onset was published
    rest_until: dict[int, int] = field(default_factory=dict)  # position
    count: int = 0


def _begin(state: _StreamEvents, label: int) -> Change:
    event = state.tracked[label]
    event.number, state.count = state.count, state.count + 1
    state.open.add(label)
    return "onset", event


def rules(labels: Sequence[str], settings: EventSettings) -> dict[int, LabelEventSettings]:
    """Return the rules of those labels, by index, whose events are wanted."""
    found = {i: _rule(label, settings) for i, label in enumerate(labels)}
    return {i: rule for i, rule in found.items() if rule is not None}


def _rule(label: str, settings: EventSettings) -> LabelEventSettings | None:
    """Return the rule for a label, or None where its events are not wanted."""
    if settings.include and not _matches(label, settings.include):
        return None
    if _matches(label, [*settings.audioset.exclude, *settings.exclude]):
        return None
    return settings.rule(label)


def _matches(label: str, patterns: list[str]) -> bool:
    return any(fnmatch(label.lower(), pattern.lower()) for pattern in patterns)
