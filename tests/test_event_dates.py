"""When events are said to have begun and ended: where the sound did, not where it was decided."""

import numpy as np
import pytest

from streamtwl.backbones.yamnet import WINDOW
from streamtwl.config import EventSettings, ReasonerSettings
from streamtwl.events import EventTracker
from streamtwl.features.window import samples_in
from streamtwl.reasoners.evidence import Evidence, delay
from streamtwl.reasoners.fusion import Fusion
from streamtwl.reasoners.naming import OwnLabels
from streamtwl.stages import SAMPLE_RATE, Patch, Score, WindowKind
from tests.patches import FrontEndOnly, window

DOG = np.ones(1, np.float32)
SHORT, LONG = WindowKind("short", 0, 0.96), WindowKind("long", 0, 3.0)


def reasoner(kinds, settings, hop_s) -> Evidence:
    """Return a reasoner with one label, on windows of a backbone that has it."""
    backbone = FrontEndOnly()
    backbone.categories = ("dog",)
    fusion = Fusion(kinds, [backbone], ("dog",), 0.0, settings.weights)
    behind = delay(kinds, [backbone], settings, hop_s)
    return Evidence(OwnLabels(["dog"], 0.5), fusion, settings, behind, open=False)


def scores(one: Evidence, kinds, hop_s, began: int, ended: int):
    """Yield (position, score) of a sound: a window's score rises with its share of it."""
    one.forget(0)
    for position in range(WINDOW, 480_000, round(hop_s * SAMPLE_RATE)):
        found = []
        for kind in kinds:
            size = min(position, samples_in(FrontEndOnly(), kind.length_s))
            share = max(0, min(position, ended) - max(position - size, began)) / size
            score = np.array([0.48 + 0.04 * share], np.float32)
            found.append(Score(kind.name, kind.length_s, score, np.empty(0, np.float32)))
        [decision] = one.step([Patch(window(position), tuple(found))])
        yield position, decision.scores


@pytest.mark.parametrize("hop_s", [0.24, 0.48])
@pytest.mark.parametrize("half_life_s", [0.01, 0.35, 2.0])
@pytest.mark.parametrize(
    ("kinds", "weights"),
    [
        ([SHORT], {}),
        ([LONG], {}),
        ([SHORT, LONG], {"short": 0.4, "long": 0.6}),
        ([LONG, SHORT], {"short": 0}),
        ([LONG, SHORT], {}),
    ],
)
def test_the_delay_is_that_of_the_scores_on_average(hop_s, half_life_s, kinds, weights):
    """A delayed step lacks delay x height of the area under one that comes at once."""
    settings = ReasonerSettings(half_life_s=half_life_s, weights=weights)
    hop = round(hop_s * SAMPLE_RATE)
    one, lacking = reasoner(kinds, settings, hop_s), []
    for began in range(160_000, 160_000 + hop, hop // 4):  # anywhere in a hop
        steps = [
            (0.52 - score[0]) / 0.04
            for position, score in scores(one, kinds, hop_s, began, 10**9)
            if position > began
        ]
        lacking.append(hop * sum(steps))
    seen = hop / 2  # from a crossing to the next window's end
    assert one.behind == pytest.approx(np.mean(lacking) + seen, abs=0.02 * one.behind + hop / 20)


@pytest.mark.parametrize(("kind", "half_life_s"), [(SHORT, 0.01), (LONG, 0.01), (LONG, 0.35)])
def test_an_event_begins_and_ends_where_its_sound_did(kind, half_life_s):
    one = reasoner([kind], ReasonerSettings(half_life_s=half_life_s), 0.48)
    for began in (160_000, 164_000):
        ended = began + 100_000
        tracker = EventTracker(["dog"], EventSettings(on=0.5, off=0.5), one.behind)
        changes = [
            change
            for position, score in scores(one, [kind], 0.48, began, ended)
            for change in tracker.step(0, position, score, score, None, 0)
        ]
        assert [phase for phase, _ in changes] == ["onset", "offset"]
        event = changes[0][1]
        assert abs(event.start - began) <= 7680  # a hop
        assert abs(event.end - ended) <= 7680


@pytest.mark.parametrize("behind", [1, 7800, 26_000, 10**9])
@pytest.mark.parametrize("start", [0, 70_000])
def test_nothing_is_dated_before_its_stretch_and_all_in_order(behind, start):
    tracker = EventTracker(["dog"], EventSettings(), behind)
    changes = []
    for hop, score in enumerate([0, 1, 0, 1, 0, 1, 0]):
        at = start + WINDOW + 7680 * hop
        changes += tracker.step(0, at, score * DOG, score * DOG, None, start)
    tracker.step(0, at + 1, DOG, DOG, None, start)  # the last window of a stream may be near
    tracker.close(0, at + 2)
    dates = [date for phase, e in changes if phase == "offset" for date in (e.start, e.end)]
    assert len(dates) == 6
    assert dates == sorted({*dates})
    assert dates[0] >= start


@pytest.mark.parametrize("behind", [1, 7800, 26_000, 10**9])
def test_a_sound_in_the_first_window_begins_with_the_stretch_however_late_scores_are(behind):
    tracker = EventTracker(["dog"], EventSettings(), behind)
    [(_, onset)] = tracker.step(0, 90_000 + WINDOW, DOG, DOG, None, 90_000)
    [(_, ended)] = tracker.step(0, 97_680 + WINDOW, 0 * DOG, 0 * DOG, None, 90_000)
    assert onset.start == 90_000
    assert 90_000 < ended.end < 97_680 + WINDOW


@pytest.mark.parametrize("behind", [1, 7800, 26_000, 10**9])
@pytest.mark.parametrize(("min_duration_s", "onset"), [(0.48, 1), (0.49, 2), (0.96, 2), (1.44, 3)])
def test_a_confidence_has_to_hold_as_long_whatever_events_are_dated_by(
    behind, min_duration_s, onset
):
    tracker = EventTracker(["dog"], EventSettings(min_duration_s=min_duration_s), behind)
    published = [
        hop
        for hop in range(8)
        for phase, _ in tracker.step(0, WINDOW + 7680 * hop, DOG, DOG, None, 0)
    ]
    assert published == [onset]
