"""Events of a reasoner that revises its decisions: what is published, and what is revised."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from streamtwl.config import EventSettings
from streamtwl.events import EventTracker

HOP = 7680
LABELS = ["dog", "rain"]
LAGS = 3
RULES = EventSettings(on=0.5, off=0.3)
FIRST = -15_600 / HOP  # where the first patch's stretch begins, in hops from its end


def at(patch: int) -> int:
    return 15600 + HOP * patch


def published(rows: list[list], rules: EventSettings = RULES, close: bool = False) -> list[tuple]:
    """Step through [now, 1 ago, 2 ago, 3 ago] of "dog", or of each label; return all changes."""
    tracker = EventTracker(LABELS, rules, lags=LAGS)
    news = []
    for patch, row in enumerate(rows):
        beliefs = np.array([b if isinstance(b, tuple) else (b, 0) for b in row], np.float32)
        changes = tracker.step(0, at(patch), beliefs[0], beliefs[0], twice(beliefs[1:]))
        news += [_news(patch, phase, event) for phase, event in changes]
    if close:
        news += [_news(len(rows), *change) for change in tracker.close(0, at(len(rows)))]
    return news


def twice(beliefs: np.ndarray) -> np.ndarray:
    """Scores of labels of which none is a kind of another: what is specific is the same."""
    return np.stack((beliefs, beliefs), axis=1)


def _news(patch, phase, event) -> tuple:
    end = None if event.end is None else (event.end - at(0)) / HOP
    return patch, phase, event.number, event.label, (event.start - at(0)) / HOP, end


def test_what_comes_and_goes_in_time_is_not_revised():
    rows = [[0, 0, 0, 0], [0.9, 0, 0, 0], [0.9, 0.9, 0, 0], [0.1, 0.9, 0.9, 0], [0, 0, 0.9, 0.9]]
    assert published(rows) == [(1, "onset", 0, "dog", 1, None), (3, "offset", 0, "dog", 1, 3)]


def test_an_onset_says_where_it_began():
    assert published([[0, 0, 0, 0], [0.4, 0, 0, 0], [0.9, 0.8, 0, 0]]) == [
        (2, "onset", 0, "dog", 1, None)
    ]


def test_an_event_that_began_earlier_is_revised():
    rows = [[0, 0, 0, 0], [0.4, 0, 0, 0], [0.9, 0.4, 0, 0], [0.9, 0.9, 0.8, 0]]
    assert published(rows) == [(2, "onset", 0, "dog", 2, None), (3, "revised", 0, "dog", 1, None)]


def test_an_event_that_was_nothing_is_taken_back():
    rows = [[0, 0, 0, 0], [0.9, 0, 0, 0], [0, 0.1, 0, 0], [0, 0, 0, 0]]
    assert published(rows) == [(1, "onset", 0, "dog", 1, None), (2, "revised", 0, "dog", 1, 1)]


def test_an_event_that_was_another_labels_is_revised():
    rows = [
        [(0, 0), (0, 0), (0, 0), (0, 0)],
        [(0.9, 0), (0, 0), (0, 0), (0, 0)],
        [(0.1, 0.9), (0.1, 0.9), (0, 0), (0, 0)],
    ]
    assert published(rows) == [(1, "onset", 0, "dog", 1, None), (2, "revised", 0, "rain", 1, None)]


def test_an_event_that_ended_early_goes_on_after_all():
    rows = [[0, 0, 0, 0], [0.9, 0, 0, 0], [0.1, 0.9, 0, 0], [0.9, 0.9, 0.9, 0]]
    assert published(rows) == [
        (1, "onset", 0, "dog", 1, None),
        (2, "offset", 0, "dog", 1, 2),
        (3, "revised", 0, "dog", 1, None),
    ]


def test_what_is_only_seen_afterwards_is_not_published():
    rows = [[0, 0, 0, 0], [0, 0, 0, 0], [0.1, 0.9, 0, 0], [0.4, 0.9, 0.9, 0]]
    assert published(rows) == []
    assert published([*rows, [0.9, 0.9, 0.9, 0.9]]) == [(4, "onset", 0, "dog", 1, None)]


def test_what_was_only_seen_afterwards_is_forgotten():
    """No event begins there once it is out of reach, and none after it is held back."""
    rows = [[0, 0, 0, 0], [0, 0, 0, 0], [0.4, 0.9, 0, 0], *[[0.4, 0.4, 0.4, 0.4]] * 6, [0.9] * 4]
    assert published(rows) == [(9, "onset", 0, "dog", 6, None)]
    resting = EventSettings(on=0.5, off=0.3, cooldown_s=5.0)
    blip = [[0, 0, 0, 0], [0.1, 0.9, 0, 0], *[[0, 0, 0, 0]] * 3, [0.9, 0, 0, 0]]
    assert published(blip, resting) == [(5, "onset", 0, "dog", 5, None)]


def test_the_mean_counts_each_belief_once():
    tracker = EventTracker(LABELS, RULES, lags=LAGS)
    nothing = np.zeros((LAGS, 2, 2), np.float32)
    for patch, score in enumerate((0.9, 0.5)):
        scores = np.array([score, 0], np.float32)
        past = nothing.copy()
        past[:patch, :, 0] = 0.9
        tracker.step(0, at(patch), scores, scores, past)
    [(_, event)] = tracker.close(0, at(2))
    assert (round(event.mean, 3), round(event.peak, 3)) == (0.7, 0.9)


def test_an_event_that_was_another_labels_has_the_figures_of_its_own():
    tracker = EventTracker(LABELS, RULES, lags=LAGS)
    silence, dog = np.zeros(2, np.float32), np.array([0.99, 0], np.float32)
    tracker.step(0, at(0), silence, silence, twice(np.zeros((LAGS, 2), np.float32)))
    tracker.step(0, at(1), dog, dog, twice(np.zeros((LAGS, 2), np.float32)))
    past = np.zeros((LAGS, 2), np.float32)
    past[0] = (0.1, 0.55)
    rain = np.array([0.1, 0.65], np.float32)
    [(phase, event)] = tracker.step(0, at(2), rain, rain, twice(past))
    assert (phase, event.label) == ("revised", "rain")
    assert (round(event.mean, 3), round(event.peak, 3)) == (0.6, 0.65)


def test_nothing_is_revised_beyond_reach():
    rows = [[0, 0, 0, 0], [0.9, 0, 0, 0], [0.9, 0.9, 0, 0], [0.9, 0.9, 0.9, 0]]
    rows += [*[[0.9, 0.9, 0.9, 0.9]] * 5, [0.9, 0.0, 0.9, 0.9]]
    news = published(rows)
    assert news[0] == (1, "onset", 0, "dog", 1, None)
    assert news[1:] == [(9, "offset", 0, "dog", 1, 8), (9, "onset", 1, "dog", 9, None)]


def test_events_end_with_the_stream():
    rows = [[0, 0, 0, 0], [0.9, 0, 0, 0]]
    assert published(rows, close=True)[-1] == (2, "offset", 0, "dog", 1, 2)


@pytest.mark.parametrize("verb", ["pause", "close"])
@pytest.mark.parametrize(("rests_s", "start"), [(0.0, at(1)), (0.3, at(1) + 4800)])
def test_an_event_that_begins_where_the_sound_breaks_off_has_a_length(verb, rests_s, start):
    rules = EventSettings(on=0.5, off=0.3, cooldown_s=rests_s)
    tracker = EventTracker(LABELS, rules, lags=0)
    loud, silence = np.array([0.9, 0], np.float32), np.zeros(2, np.float32)
    for patch, scores in enumerate((loud, silence, loud)):
        tracker.step(0, at(patch), scores, scores)
    [(phase, event)] = getattr(tracker, verb)(0, at(2))
    assert (phase, event.start, event.end) == ("revised", start, at(2))


# The first patch of a stretch


@pytest.mark.parametrize("by_hindsight", [0.0, 0.1, 0.25])
def test_a_sound_that_is_over_in_the_first_window_is_an_event_all_the_same(by_hindsight):
    rows = [[0.9, 0, 0, 0], [0, by_hindsight, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0] * 4]
    assert published(rows) == [
        (0, "onset", 0, "dog", FIRST, None),
        (1, "offset", 0, "dog", FIRST, 0),
    ]


def test_a_sound_in_the_first_window_that_lasts_began_with_the_stretch():
    rows = [[0.9, 0, 0, 0], [0.9, 0.9, 0, 0], [0, 0.9, 0.9, 0]]
    assert published(rows) == [
        (0, "onset", 0, "dog", FIRST, None),
        (2, "offset", 0, "dog", FIRST, 2),
    ]


def test_a_sound_in_the_first_window_that_is_only_seen_afterwards_began_with_the_stretch():
    assert published([[0.4, 0, 0, 0], [0.9, 0.8, 0, 0]]) == [(1, "onset", 0, "dog", FIRST, None)]


def test_a_sound_in_the_first_window_is_not_what_follows_it():
    rows = [
        [(0.9, 0), (0, 0), (0, 0), (0, 0)],
        [(0.1, 0.9), (0.1, 0.9), (0, 0), (0, 0)],
    ]
    assert published(rows) == [
        (0, "onset", 0, "dog", FIRST, None),
        (1, "onset", 1, "rain", FIRST, None),
        (1, "offset", 0, "dog", FIRST, 0),
    ]


def test_a_sound_in_the_first_window_that_goes_on_keeps_its_beginning():
    """It is off at the first patch by hindsight, and on at the next one."""
    assert published([[0.9, 0, 0, 0], [0.9, 0.1, 0, 0]]) == [(0, "onset", 0, "dog", FIRST, None)]


def test_a_label_rests_after_what_was_in_the_first_window():
    rules = EventSettings(on=0.5, off=0.3, cooldown_s=1.0)
    rows = [[0.9, 0, 0, 0], [0, 0, 0, 0], [0.9, 0, 0, 0], [0.9, 0.9, 0, 0], [0.9, 0.9, 0.9, 0]]
    assert published(rows, rules)[1:] == [(1, "offset", 0, "dog", FIRST, 0),
                                     (3, "onset", 1, "dog", 3, None)]  # fmt: skip


def test_what_had_to_last_longer_than_the_first_window_says_is_none():
    rules = EventSettings(on=0.5, off=0.3, min_duration_s=0.4)
    assert published([[0.9, 0, 0, 0], [0, 0.1, 0, 0]], rules) == []
    assert published([[0.9, 0, 0, 0], [0.9, 0.9, 0, 0], [0, 0.1, 0.1, 0]], rules) == [
        (1, "onset", 0, "dog", FIRST, None),
        (2, "revised", 0, "dog", FIRST, FIRST),
    ]


def test_where_the_sound_breaks_off_events_end_at_once_and_what_follows_is_new():
    tracker = EventTracker(LABELS, RULES, lags=LAGS)
    loud, nothing = np.array([0.9, 0], np.float32), np.zeros((LAGS, 2, 2), np.float32)
    tracker.step(0, at(0), loud, loud, nothing, 0)
    [(phase, event)] = tracker.pause(0, at(0) + 99)
    assert (phase, event.start, event.end) == ("offset", 0, at(0) + 99)
    assert tracker.pause(0, at(0) + 99) == []
    resumed = at(0) + 99
    [(phase, event)] = tracker.step(0, resumed + 15_600, loud, loud, nothing, resumed)
    assert (phase, event.number, event.start) == ("onset", 1, resumed)


def test_a_short_event_waits_until_it_is_long_enough():
    rules = EventSettings(on=0.5, off=0.3, min_duration_s=0.9)
    rows = [[0.9, 0, 0, 0], [0, 0.9, 0, 0], [0.9, 0, 0.9, 0], [0.9, 0.9, 0, 0.9]]
    assert published(rows, rules) == []
    assert published([*rows, [0.9, 0.9, 0.9, 0]], rules) == [(4, "onset", 0, "dog", 2, None)]


def test_no_event_of_a_label_while_it_rests():
    rules = EventSettings(on=0.5, off=0.3, cooldown_s=1.0)
    rows = [[0.9, 0, 0, 0], [0, 0.9, 0, 0], [0.9, 0, 0.9, 0], [0, 0.9, 0, 0.9], [0, 0, 0.9, 0]]
    assert [each[:3] for each in published(rows, rules)] == [(0, "onset", 0), (1, "offset", 0)]


def test_on_second_thoughts_too_a_label_yields_to_a_kind_of_its_own_until_it_is_on():
    """ "rain" is taken for the parent of "dog": it had a score of its own, and yielded."""
    tracker = EventTracker(LABELS, RULES, lags=1)
    both, yielded = np.array([0.9, 0.9], np.float32), np.array([0.9, 0], np.float32)
    changes = tracker.step(0, at(0), both, yielded, np.zeros((1, 2, 2), np.float32))
    assert [(phase, event.label) for phase, event in changes] == [("onset", "dog")]
    assert tracker.step(0, at(1), both, yielded, np.stack((both, yielded))[None]) == []
    alone = np.array([0, 0.9], np.float32)
    [ended, began] = tracker.step(0, at(2), alone, alone, np.stack((both, yielded))[None])
    assert (ended[0], ended[1].label, ended[1].end) == ("offset", "dog", at(2))
    assert (began[0], began[1].label, began[1].start) == ("onset", "rain", at(2))
    still = tracker.step(0, at(3), both, yielded, np.stack((alone, alone))[None])
    assert [(phase, event.label) for phase, event in still] == [("onset", "dog")]


@settings(max_examples=300, deadline=None)
@given(arrays(np.float32, (25, LAGS + 1, 2), elements=st.sampled_from([0.0, 0.2, 0.4, 0.6, 1.0])))
@pytest.mark.parametrize("lags", [0, LAGS])
def test_what_was_published_adds_up(lags, rows):
    """By the end every event is over, and those of a label lie where it was last believed on:
    without revisions all over it, else wherever it was on at once and stayed so, as did
    those before it: what is left of an event that is cut in two is published when it is on anew.
    The first patch, of which that does not hold, is silent.
    """
    for lag in range(LAGS + 1):
        rows[lag, lag] = 0
    tracker = EventTracker(LABELS, RULES, lags=lags)
    known: dict[int, tuple] = {}
    final = np.zeros((25, 2), np.float32)
    for patch, beliefs in enumerate(rows):
        past = twice(beliefs[1 : lags + 1])
        for phase, event in tracker.step(0, at(patch), beliefs[0], beliefs[0], past):
            assert (phase == "onset") == (event.number not in known)
            known[event.number] = (event.label, event.start, event.end)
        for lag in range(min(lags, patch) + 1):
            final[patch - lag] = beliefs[lag]
    for phase, event in tracker.close(0, at(25)):
        assert phase == "offset"
        known[event.number] = (event.label, event.start, event.end)
    for i, label in enumerate(LABELS):
        published_on = np.zeros(25, bool)
        for named, start, end in known.values():
            assert end is not None
            if named == label:
                published_on[(start - at(0)) // HOP : (end - at(0)) // HOP] = True
        on, expected = False, []
        for belief in final[:, i]:
            on = belief >= (RULES.off if on else RULES.on)
            expected.append(on)
        assert not published_on[~np.array(expected)].any()
        if not lags:
            assert published_on.tolist() == expected
        for patch in np.flatnonzero(~published_on):
            near = range(max(0, patch - LAGS), patch + 1)
            assert not all(_always_on(rows[:, :, i], each) for each in near)


def _always_on(beliefs: np.ndarray, patch: int) -> bool:
    """Whether a patch was on at once, and on all thoughts after."""
    return all(beliefs[patch + lag, lag] >= RULES.on for lag in range(min(LAGS + 1, 25 - patch)))


# What has to last for longer than revisions reach back


LONG = EventSettings(on=0.5, off=0.3, min_duration_s=2.0)  # five hops; they reach three


def test_an_event_that_has_to_last_beyond_reach_begins_where_it_began():
    rows = [[0, 0, 0, 0], [0.4, 0, 0, 0], [0.9, 0.6, 0, 0], [0.7, 0.9, 0.6, 0]]
    rows += [
        [0.7, 0.7, 0.9, 0.6],
        *[[0.7, 0.7, 0.7, 0.9]] * 3,
        [0, 0.7, 0.7, 0.7],
        [0, 0, 0.7, 0.7],
    ]
    assert published(rows, LONG) == [(6, "onset", 0, "dog", 1, None), (8, "offset", 0, "dog", 1, 8)]


@pytest.mark.parametrize("newest", [0, 0.4])
def test_what_falls_below_on_before_its_time_was_nothing(newest):
    rows = [[0, 0, 0, 0], *[[0.9, 0.9, 0.9, 0.9]] * 4, [newest, 0.9, 0.9, 0.9]]
    rows += [[0.9, newest, 0.9, 0.9], [0.9, 0.9, newest, 0.9], [0.9, 0.9, 0.9, newest]]
    assert published([*rows, *[[0.9] * 4] * 2], LONG) == []
    assert published([*rows, *[[0.9] * 4] * 9], LONG)[0][4] == 6


def test_what_was_too_short_keeps_no_label_from_an_event():
    resting = EventSettings(on=0.5, off=0.3, min_duration_s=2.0, cooldown_s=9.0)
    rows = [[0, 0, 0, 0], *[[0.9, 0.9, 0.9, 0.9]] * 4, *[[0, 0, 0, 0]] * 5]
    assert published([*rows, *[[0.9, 0.9, 0.9, 0.9]] * 9], resting) != []


def test_an_event_that_had_to_last_has_the_figures_of_all_of_it():
    tracker = EventTracker(LABELS, LONG, lags=LAGS)
    scores = [0.0, 1.0, 0.6, 0.6, 0.6, 0.6, 0.8]
    for patch, score in enumerate(scores):
        past = np.array([[s, 0] for s in [*scores[:patch][::-1], 0, 0, 0][:LAGS]], np.float32)
        now = np.array([score, 0], np.float32)
        changes = tracker.step(0, at(patch), now, now, twice(past))
    [(phase, event)] = changes
    assert (phase, event.start, event.peak) == ("onset", at(1), 1.0)
    assert event.mean == pytest.approx(4.2 / 6)


TIMES_S = st.sampled_from([0.0, 0.48, 1.0, 2.0, 3.0])


@settings(max_examples=300, deadline=None)
@given(
    arrays(np.float32, (25, 2), elements=st.sampled_from([0.0, 0.2, 0.6, 0.9])), TIMES_S, TIMES_S
)
def test_second_thoughts_that_are_as_the_first_change_nothing(rows, lasts_s, rests_s):
    rules = EventSettings(on=0.5, off=0.3, min_duration_s=lasts_s, cooldown_s=rests_s)
    news: dict[int, list] = {}
    for lags in (0, LAGS):
        tracker = EventTracker(LABELS, rules, lags=lags)
        news[lags] = []
        for patch, now in enumerate(rows):
            past = twice(np.concatenate((rows[:patch][::-1], np.zeros((LAGS, 2), "f4")))[:lags])
            changes = tracker.step(0, at(patch), now, now, past if lags else None)
            news[lags] += sorted(_news(patch, *change)[:2] + _news(patch, *change)[3:]
                                 for change in changes)  # fmt: skip
        news[lags] += sorted(_news(25, *change)[1] for change in tracker.close(0, at(25)))
    assert news[0] == news[LAGS]
