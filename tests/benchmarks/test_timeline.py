from dataclasses import replace
from math import inf, isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from timeline import (
    Counts,
    ReceivedEvent,
    Scene,
    Sound,
    agreement,
    agreement_of_label,
    bootstrap,
    bootstrap_paired,
    f1,
    false_starts,
    found,
    merged,
    offset_delays,
    onset_delays,
    read_messages,
    retrack,
)

from streamtwl.backbones.yamnet import WINDOW
from streamtwl.config import EventSettings
from streamtwl.events import EventTracker
from streamtwl.messages import Event, Label, Scored

HOP = 7680
LABELS = ["Dog", "Siren", "Rain"]
DOG = Sound("Dog", 2, 6)
AT_ONCE = ReceivedEvent("Dog", 2, 6, 2, 6)
LATE = ReceivedEvent("Dog", 2, 6, 3, 7)  # where it began and ended is right, it came a second late


def scene(truth, events, duration_s=20.0, times_s=(), named=()) -> Scene:
    n = len(times_s)
    return Scene(
        name="scene",
        duration_s=duration_s,
        truth=truth,
        events=events,
        positions=np.array([round(16000 * at_s) for at_s in times_s], np.int64),
        times_s=np.array(times_s, float),
        scores=np.zeros((n, len(LABELS)), np.float32),
        labels=LABELS,
        named=list(named),
    )


def counted(truth, events, lag_s=0.0) -> tuple[float, ...]:
    """(true positive, false positive, false negative, right) seconds of 20."""
    counts = agreement(scene(truth, events), lag_s)
    assert counts.total_s == 20
    return counts[:4]


# Agreement


def test_who_tells_all_at_once_is_right_throughout():
    assert counted([DOG], [AT_ONCE]) == (4, 0, 0, 20)


def test_no_event_is_right_where_nothing_sounds():
    assert counted([DOG], []) == (0, 0, 4, 16)


def test_no_event_of_silence_is_right():
    assert counted([], []) == (0, 0, 0, 20)


@pytest.mark.parametrize(
    ("lag_s", "expected"),
    [
        (0, (3, 1, 1, 18)),  # believed 3 to 7
        (0.25, (3.25, 0.75, 0.75, 18.5)),
        (1, (4, 0, 0, 20)),
        (5, (4, 0, 0, 20)),  # a lag beyond what was needed changes nothing
    ],
)
def test_a_lag_makes_late_messages_count(lag_s, expected):
    assert counted([DOG], [LATE], lag_s) == expected


def test_belief_does_not_begin_before_the_start_that_was_told():
    assert counted([DOG], [ReceivedEvent("Dog", 4, 6, 5, 6)], lag_s=3) == (2, 0, 2, 18)


def test_belief_before_the_sound_is_false():
    assert counted([DOG], [ReceivedEvent("Dog", 1, 6, 1.5, 6)]) == (4, 0.5, 0, 19.5)
    assert counted([DOG], [ReceivedEvent("Dog", 1, 6, 1.5, 6)], lag_s=1) == (4, 1, 0, 19)


def test_an_end_told_before_it_is_due_is_kept():
    assert counted([DOG], [ReceivedEvent("Dog", 2, 6, 2, 5)]) == (4, 0, 0, 20)


def test_belief_that_is_never_ended_lasts_as_long_as_the_scene():
    assert counted([DOG], [ReceivedEvent("Dog", 2, inf, 2, inf)], lag_s=1) == (4, 14, 0, 6)


def test_two_labels_at_once_are_a_set():
    siren = Sound("Siren", 4, 8)
    assert counted([DOG, siren], [AT_ONCE]) == (4, 0, 4, 16)
    assert counted([DOG, siren], [AT_ONCE, ReceivedEvent("Siren", 4, 8, 5, 8)]) == (
        7,
        0,
        1,
        19,
    )


def test_the_wrong_label_is_false_twice():
    assert counted([DOG], [ReceivedEvent("Siren", 2, 6, 2, 6)]) == (0, 4, 4, 16)


def test_sounds_of_one_label_at_once_count_once():
    assert counted([DOG, Sound("Dog", 4, 8)], [ReceivedEvent("Dog", 2, 8, 2, 8)]) == (6, 0, 0, 20)
    assert counted([DOG], [AT_ONCE, ReceivedEvent("Dog", 3, 5, 3, 5)]) == (4, 0, 0, 20)


def test_only_the_scene_counts():
    events = [ReceivedEvent("Dog", -1, 30, -1, 30)]
    assert counted([Sound("Dog", 15, 25)], events) == (5, 15, 0, 5)


@pytest.mark.parametrize(
    ("lag_s", "expected"),
    [
        (0, (1, 3, 3, 16)),  # siren from 3 to 5, dog from 5 to 7
        (1, (2, 2, 2, 18)),  # siren from 2 to 4, dog from 4 to 6
        (3, (4, 0, 0, 20)),  # the siren was never there
    ],
)
def test_what_is_taken_back_ends_retroactively(lag_s, expected):
    events = [
        ReceivedEvent("Siren", 2, inf, 3, inf, withdrawn_s=5),
        ReceivedEvent("Dog", 2, 6, 5, 7),
    ]
    assert counted([DOG], events, lag_s) == expected


whole = st.integers(0, 12)
sounds = st.builds(
    lambda label, onset, length: Sound(label, onset, onset + length),
    st.sampled_from("AB"),
    whole,
    st.integers(1, 5),
)
received_events = st.builds(
    lambda label, start, length, late, ended, withdrawn: ReceivedEvent(
        label,
        start,
        start + length if ended is not None else inf,
        start + late,
        start + late + ended if ended is not None else inf,
        inf if withdrawn is None else start + late + withdrawn,
    ),
    st.sampled_from("ABC"),
    whole,
    st.integers(0, 5),
    st.integers(0, 3),
    st.none() | st.integers(0, 6),
    st.none() | st.integers(0, 6),
)


def believed(event: ReceivedEvent, t: float, lag_s: float) -> bool:
    """The definition, word for word."""
    now = t + lag_s
    over = event.offset_received_s <= now and event.end_s <= t
    return (
        event.onset_received_s <= now
        and event.start_s <= t
        and not over
        and event.withdrawn_s > now
    )


@given(st.lists(sounds, max_size=5), st.lists(received_events, max_size=6), st.integers(0, 4))
def test_agreement_is_what_sampling_moment_by_moment_gives(truth, events, lag_s):
    moments = [
        (
            {sound.label for sound in truth if sound.onset_s <= t < sound.offset_s},
            {one.label for one in events if believed(one, t, lag_s)},
        )
        for t in np.arange(15) + 0.5
    ]
    counts = agreement(scene(truth, events, duration_s=15.0), lag_s)
    assert counts == (
        sum(len(true & held) for true, held in moments),
        sum(len(held - true) for true, held in moments),
        sum(len(true - held) for true, held in moments),
        sum(true == held for true, held in moments),
        15,
    )


@given(st.lists(sounds, max_size=5), st.lists(received_events, max_size=6), st.floats(0, 5))
def test_true_positives_and_false_negatives_are_all_that_sounds(truth, events, lag_s):
    counts = agreement(scene(truth, events, duration_s=30.0), lag_s)
    sounding = sum(
        end - start
        for label in "AB"
        for start, end in merged((s.onset_s, s.offset_s) for s in truth if s.label == label)
    )
    assert counts.true_positive_s + counts.false_negative_s == pytest.approx(sounding)


def test_f1_of_counts_and_of_rows_of_them():
    assert f1(Counts(3, 1, 1, 18, 20)) == 0.75
    assert f1(np.array([[3, 1, 1, 0, 0], [0, 0, 4, 0, 0], [4, 0, 0, 0, 0]])).tolist() == [
        0.75,
        0,
        1,
    ]
    assert isnan(f1(Counts(0, 0, 0, 20, 20)))


# The label in force


def test_the_label_in_force_lasts_until_the_next_decision():
    scored = scene([DOG], [], times_s=[1, 3, 5, 9], named=[None, "Dog", "Siren", None])
    assert agreement_of_label(scored)[:4] == (2, 4, 2, 15)


def test_the_last_label_stays_in_force_to_the_end():
    assert agreement_of_label(scene([DOG], [], times_s=[4], named=["Dog"]))[:4] == (2, 14, 2, 4)


def test_without_decisions_no_label_is_in_force():
    assert agreement_of_label(scene([DOG], []))[:4] == (0, 0, 4, 16)


# Onsets and offsets


@pytest.mark.parametrize(
    ("events", "delay"),
    [
        ([AT_ONCE], 0),
        ([LATE], 1),
        ([ReceivedEvent("Dog", 1, 6, 1, 6)], 0),  # already in force
        (
            [ReceivedEvent("Dog", 0, 1, 0, 2), ReceivedEvent("Dog", 4, 6, 4.5, 6)],
            2.5,
        ),  # that one was over
        ([ReceivedEvent("Dog", 2, 6, 6, 8)], inf),  # not before the offset
        ([ReceivedEvent("Siren", 2, 6, 2, 6)], inf),
        ([ReceivedEvent("Dog", 2, inf, 4, inf, withdrawn_s=4)], inf),  # in force for no time
        ([], inf),
    ],
)
def test_onset_delay_is_until_the_label_is_in_force(events, delay):
    assert onset_delays(scene([DOG], events)) == [delay]


def test_each_sound_has_its_own_onset_delay():
    truth = [Sound("Siren", 0, 3), DOG, Sound("Dog", 10, 12)]
    assert onset_delays(scene(truth, [LATE, ReceivedEvent("Dog", 10, 12, 10.5, 13)])) == [
        inf,
        1,
        0.5,
    ]


@pytest.mark.parametrize(
    ("events", "delays"),
    [
        ([AT_ONCE], [0]),
        ([LATE], [1]),
        (
            [LATE, ReceivedEvent("Dog", 6.5, 9, 7, 9.5)],
            [3.5],
        ),  # belief goes on without a break
        ([ReceivedEvent("Dog", 2, 5, 2, 5.5)], []),  # no longer in force at the offset
        ([ReceivedEvent("Dog", 2, inf, 3, inf)], [14]),  # to the scene's end
        ([ReceivedEvent("Dog", 2, inf, 3, inf, withdrawn_s=8)], [2]),
        ([ReceivedEvent("Siren", 2, 6, 3, 7)], []),
    ],
)
def test_offset_delay_is_until_the_belief_ends(events, delays):
    assert offset_delays(scene([DOG], events)) == delays


def test_another_sound_of_the_label_takes_the_offset_over():
    events = [ReceivedEvent("Dog", 2, 10, 2, 11)]
    covering, following, later = Sound("Dog", 5, 10), Sound("Dog", 8, 10), Sound("Dog", 12, 13)
    assert offset_delays(scene([DOG, covering], events)) == [1]
    assert offset_delays(scene([DOG, following], events)) == [1]
    assert offset_delays(scene([DOG, later], events)) == [5]
    assert offset_delays(scene([DOG, replace(covering, label="Siren")], events)) == [5]


@pytest.mark.parametrize(
    ("received_s", "false"),
    [(1.99, True), (2.0, False), (6.0, False), (6.97, False), (6.98, True)],
)
def test_a_start_is_false_where_the_label_did_not_sound_in_the_window(received_s, false):
    assert false_starts(
        scene([DOG], [ReceivedEvent("Dog", received_s, inf, received_s, inf)])
    ) == int(false)


def test_false_starts_are_of_one_label_and_stay_false_when_taken_back():
    events = [
        ReceivedEvent("Siren", 2, inf, 3, inf, withdrawn_s=5),
        ReceivedEvent("Dog", 2, 6, 5, 7),
    ]
    assert false_starts(scene([DOG], events)) == 1
    assert false_starts(scene([DOG], [ReceivedEvent("Dog", 9, 9.5, 9, 10)]), tolerance_s=3) == 0


@pytest.mark.parametrize(
    ("events", "count"),
    [
        ([LATE], 1),
        ([ReceivedEvent("Dog", 5.9, inf, 19, inf)], 1),  # however late it came
        ([ReceivedEvent("Dog", 6, 8, 6, 8)], 0),
        ([ReceivedEvent("Dog", 0, 2, 0, 2)], 0),
        ([ReceivedEvent("Siren", 2, 6, 2, 6)], 0),
        ([replace(LATE, withdrawn_s=9)], 0),
    ],
)
def test_found_is_what_the_final_account_has(events, count):
    assert found(scene([DOG], events)) == count


def test_one_event_may_find_two_sounds():
    assert found(scene([DOG, Sound("Dog", 8, 9)], [ReceivedEvent("Dog", 5, 10, 5, 10)])) == 2


# Messages


class Wire:
    """Messages of one source; each kind numbered from 0."""

    def __init__(self) -> None:
        self.messages: list[Label | Event] = []

    def label(self, position, label, latency_ms=0.0, refinement=0, **scores) -> None:
        top = sorted(
            (Scored(name, score) for name, score in scores.items()), key=lambda one: -one.score
        )
        self.messages.append(
            Label(
                **self._common(position),
                label=label,
                confidence=0.5,
                top=top[:5],
                reasoner="evidence",
                samples=16,
                traces=1,
                refinement=refinement,
                latency_ms=latency_ms,
            )
        )

    def event(self, position, phase, id, label, start, end=None) -> None:
        self.messages.append(
            Event(
                **self._common(position),
                phase=phase,
                id=id,
                label=label,
                start=start,
                end=end,
                peak=0.5,
                mean=0.5,
            )
        )

    def scene(self, duration_s=20.0, labels=LABELS) -> Scene:
        return read_messages("one", duration_s, [DOG], labels, self.messages)

    def _common(self, position) -> dict:
        return {
            "source": "mic",
            "session": "s",
            "seq": len(self.messages),
            "position": position,
            "captured_at": None,
            "published_at": 0.0,
        }


def test_messages_come_at_their_position_plus_latency():
    wire = Wire()
    wire.label(16000, None, latency_ms=20, Rain=0.05, Piano=0.04)
    wire.label(32000, "Dog", latency_ms=500, Dog=0.7, Rain=0.25)
    wire.event(32000, "onset", "a", "Dog", 24000)
    wire.label(48000, None, latency_ms=30)
    wire.event(48000, "offset", "a", "Dog", 24000, 40000)
    read = wire.scene()
    assert (read.name, read.duration_s, read.truth) == ("one", 20, [DOG])
    assert read.positions.tolist() == [16000, 32000, 48000]
    assert read.times_s.tolist() == pytest.approx([1.02, 2.5, 3.03])
    assert read.named == [None, "Dog", None]
    np.testing.assert_allclose(read.scores, [[0, 0, 0.05], [0.7, 0, 0.25], [0, 0, 0]])
    assert read.events == [ReceivedEvent("Dog", 1.5, 2.5, 2.5, 3.03)]


def test_an_event_that_lasts_has_no_end():
    wire = Wire()
    wire.label(32000, "Dog", latency_ms=500)
    wire.event(32000, "onset", "a", "Dog", 24000)
    assert wire.scene().events == [ReceivedEvent("Dog", 1.5, inf, 2.5, inf)]


def test_an_event_at_the_end_of_the_stream_has_no_latency():
    wire = Wire()
    wire.label(32000, "Dog", latency_ms=500)
    wire.event(32000, "onset", "a", "Dog", 24000)
    wire.event(36000, "offset", "a", "Dog", 24000, 36000)
    assert wire.scene().events == [ReceivedEvent("Dog", 1.5, 2.25, 2.5, 2.25)]


def test_a_revision_takes_the_event_back_and_tells_another():
    wire = Wire()
    wire.label(32000, "Siren", latency_ms=100)
    wire.event(32000, "onset", "a", "Siren", 24000)
    wire.label(32000, "Dog", latency_ms=700, refinement=1)
    wire.event(32000, "revised", "a", "Dog", 20000)
    wire.label(48000, None, latency_ms=0)
    wire.event(48000, "offset", "a", "Dog", 20000, 40000)
    assert wire.scene().events == [
        ReceivedEvent("Siren", 1.5, inf, 2.1, inf, withdrawn_s=2.7),
        ReceivedEvent("Dog", 1.25, 2.5, 2.7, 3),
    ]


def test_an_event_that_is_over_can_be_revised():
    wire = Wire()
    wire.event(32000, "onset", "a", "Siren", 24000)
    wire.event(48000, "offset", "a", "Siren", 24000, 40000)
    wire.event(64000, "revised", "a", "Dog", 24000, 32000)
    assert wire.scene().events == [
        ReceivedEvent("Siren", 1.5, 2.5, 2, 3, withdrawn_s=4),
        ReceivedEvent("Dog", 1.5, 2, 4, 4),
    ]


def test_an_event_whose_onset_was_missed_is_told_when_it_ends():
    wire = Wire()
    wire.event(48000, "offset", "a", "Dog", 24000, 40000)
    assert wire.scene().events == [ReceivedEvent("Dog", 1.5, 2.5, 3, 3)]


def test_a_silent_source_makes_an_empty_scene():
    read = Wire().scene()
    assert (read.positions.shape, read.times_s.shape, read.scores.shape) == ((0,), (0,), (0, 3))
    assert agreement(read) == agreement_of_label(read) == Counts(0, 0, 4, 16, 20)


# Other thresholds


def published(scores: np.ndarray, end: int, on: float, off: float) -> Wire:
    """What the program publishes of float32[n, L] scores, decided on hop by hop until `end`."""
    tracker, wire = EventTracker(LABELS, EventSettings(on=on, off=off), WINDOW // 2), Wire()

    def note(position, changes) -> None:
        for phase, event in changes:
            wire.event(position, phase, str(event.number), event.label, event.start, event.end)

    for i, row in enumerate(scores):
        position = min(WINDOW + i * HOP, end)
        wire.label(
            position, None, latency_ms=10 * i, **dict(zip(LABELS, row.tolist(), strict=True))
        )
        note(position, tracker.step(0, position, row, row))
    note(end, tracker.close(0, end))
    return wire


@given(
    st.lists(st.lists(st.sampled_from([0.0, 0.3, 0.5, 0.9]), min_size=3, max_size=3), max_size=12),
    st.sampled_from([(0.5, 0.2), (0.4, 0.4), (0.9, 0.5)]),
    st.sampled_from([0, 1, HOP // 2]),
)
def test_retracking_tells_what_the_program_does_with_those_thresholds(rows, thresholds, left):
    scores = np.array(rows, np.float32).reshape(-1, 3)
    end = WINDOW + max(0, len(scores) - 1) * HOP + left
    with_other = published(scores, end, 0.3, 0.1).scene(end / 16000)
    expected = published(scores, end, *thresholds).scene(end / 16000)
    retracked = retrack(with_other, *thresholds)
    assert sorted(retracked.events, key=repr) == sorted(expected.events, key=repr)
    assert retracked.scores is with_other.scores


def test_retracking_is_by_on_and_off():
    scores = np.array([[0.1, 0, 0], [0.6, 0, 0], [0.3, 0, 0], [0.1, 0, 0]], np.float32)
    read = published(scores, WINDOW + 3 * HOP, 0.9, 0.8).scene()
    middle_s, at_s = read.positions / 16000 - 0.4875, read.times_s
    assert read.events == []
    assert retrack(read, 0.5, 0.2).events == [
        ReceivedEvent("Dog", middle_s[1], middle_s[3], at_s[1], at_s[3])
    ]
    assert retrack(read, 0.5, 0.4).events == [
        ReceivedEvent("Dog", middle_s[1], middle_s[2], at_s[1], at_s[2])
    ]


@pytest.mark.parametrize(("left", "latency_s"), [(0, 0.01), (100, 0)])
def test_what_the_end_of_the_stream_ends_is_told_with_the_last_decision_if_that_is_there(
    left, latency_s
):
    end = WINDOW + HOP + left
    read = published(np.array([[0, 0, 0], [0.6, 0, 0]]), end, 0.5, 0.2).scene(end / 16000)
    [event] = retrack(read, 0.5, 0.2).events
    assert [event] == read.events
    assert (event.end_s, event.offset_received_s) == (end / 16000, end / 16000 + latency_s)


# Intervals


def share(stats: np.ndarray) -> np.ndarray:
    return stats[..., 0] / stats[..., 1]


def test_the_bootstrap_is_of_the_ratio_of_sums():
    stats = np.array([[1.0, 1.0], [0.0, 9.0]])
    interval = bootstrap(stats, share, ["a", "b"])
    assert (interval.low, interval.mean, interval.high) == (0, 0.1, 1)


def test_the_bootstrap_interval_is_that_of_a_binomial():
    right = (np.arange(400) % 10 < 9).astype(float)
    interval = bootstrap(np.stack([right, np.ones(400)], axis=1), share, range(400))
    half = 1.96 * np.sqrt(0.9 * 0.1 / 400)
    assert interval.mean == pytest.approx(0.9)
    assert interval.low == pytest.approx(0.9 - half, abs=0.006)
    assert interval.high == pytest.approx(0.9 + half, abs=0.006)


def test_scenes_of_a_group_are_drawn_together():
    right = np.arange(40) % 2
    stats = np.stack([right, np.ones(40)], axis=1)
    alone = bootstrap(stats, share, range(40))
    balanced = bootstrap(stats, share, np.arange(40) // 2)  # each group has one of both
    alike = bootstrap(stats, share, [f"{i % 2}-{i // 20}" for i in range(40)])
    assert (balanced.low, balanced.mean, balanced.high) == (0.5, 0.5, 0.5)
    assert alike.high - alike.low > 2 * (alone.high - alone.low) > 0


def test_paired_methods_are_drawn_together():
    rng = np.random.default_rng(0)
    b = np.stack([rng.random(30), np.ones(30)], axis=1)
    a = b + np.array([0.1, 0])
    better = bootstrap_paired(a, b, share, range(30))
    assert [better.low, better.mean, better.high] == pytest.approx([0.1] * 3)
    worse = bootstrap_paired(b, a, share, range(30))
    assert worse.mean == -better.mean
    shuffled = bootstrap_paired(a, b[::-1], share, range(30))
    assert shuffled.high - shuffled.low > 0.1


def test_the_bootstrap_repeats_itself_by_seed():
    stats = np.random.default_rng(0).random((20, 5))
    assert bootstrap(stats, f1, range(20), seed=1) == bootstrap(stats, f1, range(20), seed=1)
    assert bootstrap(stats, f1, range(20), seed=1) != bootstrap(stats, f1, range(20), seed=2)
