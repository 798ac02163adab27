"""What holds of every event, whatever is decided, thought over, interrupted or ended."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamtwl.backbones.yamnet import WINDOW
from streamtwl.config import EventSettings
from streamtwl.events import EventTracker
from streamtwl.sounding import Change, Sounding

LABELS = ["dog", "rain"]
SCORE = st.sampled_from([0.0, 0.2, 0.4, 0.6, 1.0])
TIMES = st.sampled_from([0.0, 0.3, 0.48, 1.0])
RULES = st.builds(
    EventSettings,
    on=st.sampled_from([0.4, 0.6]),
    off=st.sampled_from([0.0, 0.2, 0.4]),
    min_duration_s=TIMES,
    cooldown_s=TIMES,
    label=st.sampled_from([{}, {"rain": {"on": 0.9, "min_duration_s": 0.5, "cooldown_s": 0.9}}]),
)
ROW = st.tuples(SCORE, SCORE)
PATCH = st.tuples(ROW, st.lists(ROW, min_size=2, max_size=2))  # on itself; on the two before it
STRETCH = st.tuples(
    st.lists(PATCH, min_size=1, max_size=8),
    st.integers(1, 7680),  # samples after the last but one window: more than 0, at most a hop
    st.integers(0, 30_000),  # samples missing after it; 0: the source only paused
    st.sampled_from(["pause", "close"]),
)
MOST = settings(max_examples=400)
# "dog" is renamed "rain" when another "rain" has ended, and hindsight then joins the two
JOINED = [
    ([((0.0, 0.0), [(0.0, 0.0)] * 2)], 1, 0, "pause"),
    (
        [
            ((0.0, 0.0), [(0.0, 0.0)] * 2),
            ((0.4, 0.4), [(0.0, 0.4), (0.0, 0.0)]),
            ((0.0, 0.4), [(0.0, 0.0), (0.0, 0.4)]),
            ((0.0, 0.0), [(0.0, 0.2), (0.0, 0.2)]),
        ],
        1,
        0,
        "pause",
    ),
]


class Listener:
    """Follows the events of one stream, and checks each change."""

    def __init__(self, tracker) -> None:
        self._tracker = tracker
        self.known: dict[int, Sounding] = {}  # by number, as last published
        self.stretches: list[tuple[int, int]] = []

    def stretch(self, start: int, patches: list, hop: int, over: str) -> int:
        """Follow a stretch that begins at `start`; return where it ends."""
        end = start
        for i, (now, earlier) in enumerate(patches):
            last = i == len(patches) - 1
            end = start + WINDOW + 7680 * i if not last else max(end, start) + hop
            scores, past = np.array(now, np.float32), np.array(earlier, np.float32)
            twice = np.stack((past, past), axis=1)
            changes = self._tracker.step(0, end, scores, scores, twice, start)
            self.take(changes, end)
        self.stretches.append((start, end))
        self.take(getattr(self._tracker, over)(0, end), end)
        assert not [e for e in self.known.values() if e.end is None]
        return end

    def take(self, changes: list[Change], now: int) -> None:
        for phase, event in changes:
            assert (phase == "onset") == (event.number not in self.known)
            assert phase != "onset" or event.number == len(self.known)
            assert 0 <= event.start <= now
            if event.retracted:
                assert (phase, event.end) == ("revised", event.start)
            elif event.end is not None:
                assert event.start < event.end <= now
            self.known[event.number] = replace(event)

    def check(self) -> None:
        """Events of one label do not overlap, and none lies outside of a stretch."""
        for label in LABELS:
            real = [e for e in self.known.values() if e.label == label and not e.retracted]
            real.sort(key=lambda event: event.start)
            for event in real:
                assert any(start <= event.start < event.end <= end for start, end in self.stretches)
            assert all(a.end <= b.start for a, b in itertools.pairwise(real))


@MOST
@pytest.mark.parametrize(
    ("lags", "behind"), [(0, 1), (0, 0), (2, 0), (2, 1), (0, 7800), (0, 30_000), (2, 7800)]
)
@given(rules=RULES, stretches=st.lists(STRETCH, min_size=1, max_size=4))
@example(rules=EventSettings(on=0.4, off=0.2), stretches=JOINED)
def test_every_event_has_a_length_or_is_retracted(lags, behind, rules, stretches):
    tracker = EventTracker(LABELS, rules, behind, lags)
    listener, position = Listener(tracker), 0
    for patches, hop, missing, over in stretches:
        end = listener.stretch(position, patches, hop, over)
        if over == "close":
            listener.check()
            listener, position = Listener(tracker), 0
        else:
            position = end + missing
    listener.take(tracker.close(0, end), end)
    listener.check()
