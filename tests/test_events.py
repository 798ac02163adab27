import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamtwl.backbones.yamnet import WINDOW
from streamtwl.config import EventSettings
from streamtwl.events import EventTracker
from streamtwl.sounding import Change

HOP = 7680
LABELS = ["Dog", "Siren", "Door bell"]


def position(hop: int) -> int:
    return WINDOW + hop * HOP


def middle(hop: int) -> int:
    """Where a crossing in this hop's window is placed."""
    return position(hop) - WINDOW // 2


class Tracked:
    """A tracker, stepped hop by hop."""

    def __init__(self, **settings) -> None:
        self._tracker = EventTracker(LABELS, EventSettings(**settings), WINDOW // 2)

    def step(self, hop: int, row, specific=None, stream: int = 0) -> list[Change]:
        scores = np.array([*np.atleast_1d(row), 0.0, 0.0][:3], np.float32)
        specific = scores if specific is None else np.array(specific, np.float32)
        return self._tracker.step(stream, position(hop), scores, specific)

    def pause(self, at: int, stream: int = 0) -> list[Change]:
        return self._tracker.pause(stream, at)

    def close(self, at: int, stream: int = 0) -> list[Change]:
        return self._tracker.close(stream, at)


def follow(one: Tracked, *rows) -> list[tuple[int, str, str]]:
    """Step through rows of scores; return (hop, phase, label) of each change."""
    return [
        (hop, phase, event.label)
        for hop, row in enumerate(rows)
        for phase, event in one.step(hop, row)
    ]


def dog(one: Tracked, *scores: float) -> list[tuple[int, str]]:
    return [(hop, phase) for hop, phase, _ in follow(one, *scores)]


def test_an_event_lasts_from_on_to_below_off():
    scores = (0.39, 0.41, 0.25, 0.2, 0.19, 0.3, 0.5)
    assert dog(Tracked(on=0.4, off=0.2), *scores) == [(1, "onset"), (4, "offset"), (6, "onset")]


@pytest.mark.parametrize("on", [0.5, 0.0])
def test_on_itself_is_on(on):
    assert dog(Tracked(on=on, off=0, include=["Dog"]), on) == [(0, "onset")]


def test_crossings_are_placed_in_the_middle_of_their_windows():
    one = Tracked()
    for hop in range(3):
        one.step(hop, 0)
    [(_, event)] = one.step(3, 0.9)
    assert (event.start, event.end) == (middle(3), None)
    one.step(4, 0.7)
    [(_, ended)] = one.step(5, 0.1)
    assert (ended.start, ended.end) == (middle(3), middle(5))


def test_peak_and_mean_are_those_while_it_lasted():
    one = Tracked()
    follow(one, 0.5, 0.9, 0.4)
    [(phase, event)] = one.step(3, 0.1)
    assert phase == "offset"
    assert event.peak == pytest.approx(0.9)
    assert event.mean == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("min_duration_s", "onset"), [(0.0, 2), (0.01, 3), (0.48, 3), (0.49, 4), (0.96, 4), (2.0, None)]
)
def test_an_onset_is_published_once_it_has_lasted(min_duration_s, onset):
    one = Tracked(min_duration_s=min_duration_s)
    changes = dog(one, 0, 0, 0.5, 0.5, 0.5, 0)
    assert changes == ([] if onset is None else [(onset, "onset"), (5, "offset")])


def test_a_late_onset_still_begins_where_it_began():
    one = Tracked(min_duration_s=1.0)
    changes = []
    for hop in range(4):
        changes += one.step(hop, 0.5 + 0.1 * hop)
    [(_, event)] = changes
    assert event.start == 0
    assert event.peak == pytest.approx(0.8)
    assert event.mean == pytest.approx(0.65)


def test_what_falls_below_on_before_its_time_was_nothing():
    one = Tracked(on=0.4, off=0.2, min_duration_s=0.96)
    assert dog(one, 0.5, 0.3, 0.5, 0.5, 0.3, 0.5, 0.5) == []
    [(phase, event)] = one.step(7, 0.5)
    assert (phase, event.start, event.number) == ("onset", middle(5), 0)


@pytest.mark.parametrize(("cooldown_s", "again"), [(0, 2), (0.48, 2), (0.49, 3), (1.0, 4)])
def test_a_label_rests_after_its_offset(cooldown_s, again):
    changes = dog(Tracked(cooldown_s=cooldown_s), 0.5, 0, 0.5, 0.5, 0.5, 0.5)
    assert changes == [(0, "onset"), (1, "offset"), (again, "onset")]


def test_a_rest_is_the_labels_own():
    changes = follow(Tracked(cooldown_s=9), [0.5, 0], [0, 0.5])
    assert changes == [(0, "onset", "Dog"), (1, "offset", "Dog"), (1, "onset", "Siren")]


def test_several_are_open_at_once():
    one = Tracked()
    rows = [[0.5, 0, 0], [0.5, 0.5, 0.9], [0, 0.5, 0.9]]
    assert follow(one, *rows) == [
        (0, "onset", "Dog"), (1, "onset", "Siren"), (1, "onset", "Door bell"), (2, "offset", "Dog"),
    ]  # fmt: skip
    ended = [(phase, event.label, event.number) for phase, event in one.close(position(3))]
    assert ended == [("offset", "Siren", 1), ("offset", "Door bell", 2)]


def test_a_label_that_yields_begins_nothing_but_goes_on():
    one = Tracked()
    assert one.step(0, [0.9, 0.9], specific=[0, 0.9, 0])[0][1].label == "Siren"
    assert [event.label for _, event in one.step(1, [0.9, 0.9])] == ["Dog"]
    assert one.step(2, [0.9, 0.9], specific=[0, 0, 0]) == []  # both still sound
    assert [phase for phase, _ in one.step(3, [0, 0])] == ["offset", "offset"]


def test_streams_have_events_of_their_own():
    one = Tracked()
    for stream in (3, 8):
        [(phase, event)] = one.step(0, 0.5, stream=stream)
        assert (phase, event.number) == ("onset", 0)
    assert [phase for phase, _ in one.step(1, 0, stream=3)] == ["offset"]
    assert one.close(position(2), stream=3) == []
    assert [phase for phase, _ in one.close(position(2), stream=8)] == ["offset"]


def test_the_end_of_the_stream_ends_what_is_open():
    one = Tracked()
    follow(one, [0.5, 0.5], [0.5, 0])
    [(phase, event)] = one.close(position(1) + 77)
    assert (phase, event.label, event.end) == ("offset", "Dog", position(1) + 77)
    assert one.close(position(9)) == []


def test_the_end_of_the_stream_tells_nothing_of_what_was_too_short():
    one = Tracked(min_duration_s=5)
    follow(one, 0.5, 0.5)
    assert one.close(position(2)) == []


@pytest.mark.parametrize(
    ("settings", "heard"),
    [
        ({}, {"Dog", "Siren", "Door bell"}),
        ({"include": ["Dog"]}, {"Dog"}),
        ({"include": ["dog", "SIREN"]}, {"Dog", "Siren"}),
        ({"include": ["Do*"]}, {"Dog", "Door bell"}),
        ({"include": ["D?g"]}, {"Dog"}),
        ({"exclude": ["* bell"]}, {"Dog", "Siren"}),
        ({"exclude": ["*"]}, set()),
        ({"include": ["Do*"], "exclude": ["dog"]}, {"Door bell"}),
        ({"include": ["Do"]}, set()),
    ],
)
def test_only_labels_that_are_wanted_make_events(settings, heard):
    changes = follow(Tracked(**settings), [0.9, 0.9, 0.9])
    assert {label for _, _, label in changes} == heard


def test_a_label_may_have_its_own_thresholds():
    one = Tracked(on=0.4, off=0.2, label={"Siren": {"on": 0.1, "off": 0.05}})
    rows = [[0.15, 0.15], [0.45, 0.06], [0.3, 0.04], [0.1, 0]]
    assert follow(one, *rows) == [
        (0, "onset", "Siren"), (1, "onset", "Dog"), (2, "offset", "Siren"), (3, "offset", "Dog"),
    ]  # fmt: skip


def test_a_label_may_have_its_own_times():
    own = {"min_duration_s": 0.48, "cooldown_s": 9.0}
    one = Tracked(label={"Dog": own})
    rows = [[0.5, 0.5], [0.5, 0.5], [0, 0], [0.5, 0.5], [0.5, 0.5]]
    changes = follow(one, *rows)
    assert [hop for hop, phase, label in changes if (phase, label) == ("onset", "Dog")] == [1]
    assert [hop for hop, phase, label in changes if (phase, label) == ("onset", "Siren")] == [0, 3]


settings_strategy = st.fixed_dictionaries(
    {
        "on": st.sampled_from([0.3, 0.5, 0.7]),
        "off": st.sampled_from([0.0, 0.2, 0.3]),
        "min_duration_s": st.sampled_from([0.0, 0.3, 0.48, 1.0]),
        "cooldown_s": st.sampled_from([0.0, 0.48, 2.0]),
        "label": st.sampled_from([{}, {"Dog": {"on": 0.6, "cooldown_s": 1.0}}]),
    }
)
row_strategy = st.tuples(*[st.sampled_from([0.0, 0.1, 0.25, 0.4, 0.6, 0.9])] * 3)


@given(
    settings=settings_strategy,
    rows=st.lists(st.tuples(st.integers(1, 3), row_strategy), max_size=40),
)
def test_onsets_and_offsets_alternate_and_make_sense(settings, rows):
    """Rows come with the hops since the one before: gaps happen."""
    one = Tracked(**settings)
    own = {label: settings | settings["label"].get(label, {}) for label in LABELS}
    published, opened, ended = [], {}, {}
    hop = 0

    def take(changes) -> None:
        for phase, event in changes:
            assert event.start >= 0
            if phase == "onset":
                assert event.label not in opened
                assert event.end is None
                rest_s = (event.start - ended.get(event.label, -1e9)) / 16_000
                assert rest_s >= own[event.label]["cooldown_s"]
                opened[event.label] = event
                published.append(event.number)
            else:
                assert opened.pop(event.label) is event
                assert event.start <= event.end
                assert event.mean <= event.peak + 1e-6
                assert event.peak >= own[event.label]["on"] - 1e-6
                ended[event.label] = event.end

    for hops, row in rows:
        hop += hops
        take(one.step(hop, row))
        for label, score in zip(LABELS, row, strict=True):
            assert label not in opened or score >= own[label]["off"]
    take(one.close(position(hop)))
    assert opened == {}
    assert published == list(range(len(published)))  # unique, gapless, in order


def test_what_is_on_in_the_first_window_began_with_the_stretch():
    one = Tracked()
    [(phase, event)] = one.step(0, 0.9)
    assert (phase, event.start, event.end) == ("onset", 0, None)
    [(phase, event)] = one.step(1, 0)
    assert (phase, event.start, event.end) == ("offset", 0, middle(1))


@pytest.mark.parametrize(("length", "cooldown_s", "start"), [(4000, 0.0, 70_000), (4000, 9.0, None),
                                                             (WINDOW, 1.5, 71_800)])  # fmt: skip
def test_a_stretch_may_begin_anywhere_and_a_label_rests_into_it(length, cooldown_s, start):
    tracker = EventTracker(LABELS, EventSettings(cooldown_s=cooldown_s), WINDOW // 2)
    loud = np.array([0.9, 0, 0], np.float32)
    tracker.step(0, WINDOW, loud, loud, None, 0)
    assert [event.end for _, event in tracker.pause(0, 47_800)] == [47_800]
    changes = tracker.step(0, 70_000 + length, loud, loud, None, 70_000)
    assert [event.start for _, event in changes] == ([start] if start else [])


def test_where_the_sound_breaks_off_events_end_at_once_and_only_once():
    one = Tracked()
    one.step(0, 0.9)
    one.step(1, 0.9)
    [(phase, event)] = one.pause(position(1) + 99)
    assert (phase, event.number, event.end) == ("offset", 0, position(1) + 99)
    assert one.pause(position(1) + 99) == []
    [(phase, event)] = one.step(9, 0.9)
    assert (phase, event.number, event.start) == ("onset", 1, position(1) + 99)


def test_a_stream_without_a_patch_has_nothing_to_end():
    assert Tracked().pause(100) == Tracked().close(100) == []
