from dataclasses import replace
from math import inf

import numpy as np
import pytest
from sound_events import psds, sed_eval_metrics
from timeline import ReceivedEvent, Scene, Sound

from streamtwl.backbones.yamnet import WINDOW

HOP = 7680
LABELS = ["Dog", "Siren", "Rain"]
DURATION_S = 120.0
HOPS = 249
MIDDLE_S = (WINDOW + HOP * np.arange(HOPS)) / 16000 - 0.4875
TRUTH = [Sound("Dog", 10, 15), Sound("Siren", 12, 18), Sound("Dog", 40, 44)]


def scene(truth, events=(), scores=None, positions=None, labels=LABELS) -> Scene:
    positions = WINDOW + HOP * np.arange(HOPS) if positions is None else np.array(positions)
    return Scene(
        name="scene",
        duration_s=DURATION_S,
        truth=list(truth),
        events=list(events),
        positions=positions,
        times_s=positions / 16000,
        scores=np.zeros((len(positions), 3), np.float32) if scores is None else scores,
        labels=labels,
        named=[None] * len(positions),
    )


def received(label, start_s, end_s, **more) -> ReceivedEvent:
    return ReceivedEvent(label, start_s, end_s, start_s + 1, end_s + 1, **more)


def scored(*sounds: tuple[Sound, float]) -> np.ndarray:
    """Return float32[n, 3] scores: each sound's while it lasts."""
    scores = np.zeros((HOPS, 3), np.float32)
    for sound, score in sounds:
        sounding = (sound.onset_s <= MIDDLE_S) & (sound.offset_s > MIDDLE_S)
        scores[sounding, LABELS.index(sound.label)] = score
    return scores


PERFECT = [received(s.label, s.onset_s, s.offset_s) for s in TRUTH]


# sed_eval


def test_a_perfect_account_gets_all():
    metrics = sed_eval_metrics([scene(TRUTH, PERFECT)])
    assert metrics == pytest.approx(
        {
            "segment_f1_micro": 1,
            "segment_f1_macro": 1,
            "segment_error_rate": 0,
            "event_f1_micro": 1,
            "event_f1_macro": 1,
            "event_error_rate": 0,
        }
    )


def test_an_empty_account_gets_nothing():
    metrics = sed_eval_metrics([scene(TRUTH)])
    errors = {"segment_error_rate": 1, "event_error_rate": 1}
    assert metrics == pytest.approx(dict.fromkeys(metrics, 0) | errors)


def test_segments_are_seconds():
    # 15 seconds sound. Published: 3 and a bit of the first Dog (4 segments), and 2 of Rain.
    metrics = sed_eval_metrics(
        [scene(TRUTH, [received("Dog", 10, 13.5), received("Rain", 60, 62)])]
    )
    assert metrics["segment_f1_micro"] == pytest.approx(2 * 4 / (15 + 6))
    assert metrics["segment_f1_macro"] == pytest.approx((2 * 4 / (9 + 4) + 0) / 2)  # Dog, Siren
    assert metrics["segment_error_rate"] == pytest.approx((11 + 2) / 15)


@pytest.mark.parametrize(
    ("start_s", "end_s", "right"),
    [
        (9.6, 15, True),
        (10.4, 15, True),
        (10.6, 15, False),
        (10, 12.6, True),  # within half of 5 s
        (10, 12.4, False),
        (10, 17.4, True),
    ],
)
def test_an_event_is_right_within_its_collars(start_s, end_s, right):
    metrics = sed_eval_metrics([scene(TRUTH[:1], [received("Dog", start_s, end_s)])])
    assert metrics["event_f1_micro"] == metrics["event_f1_macro"] == float(right)


def test_the_offset_collar_of_a_short_sound_is_half_a_second():
    short = [Sound("Dog", 10, 10.2)]
    assert sed_eval_metrics([scene(short, [received("Dog", 10, 10.6)])])["event_f1_micro"] == 1
    assert sed_eval_metrics([scene(short, [received("Dog", 10, 10.8)])])["event_f1_micro"] == 0


def test_scenes_are_pooled():
    metrics = sed_eval_metrics([scene(TRUTH, PERFECT), scene(TRUTH)])
    assert metrics["segment_f1_micro"] == pytest.approx(2 / 3)
    assert metrics["event_f1_micro"] == pytest.approx(2 / 3)


def test_what_was_taken_back_is_not_in_the_account():
    wrong = received("Rain", 60, 70)
    assert sed_eval_metrics([scene(TRUTH, [*PERFECT, wrong])])["segment_f1_micro"] < 1
    withdrawn = replace(wrong, withdrawn_s=80)
    assert sed_eval_metrics([scene(TRUTH, [*PERFECT, withdrawn])])["segment_f1_micro"] == 1


def test_an_event_without_end_lasts_to_the_scene_end():
    metrics = sed_eval_metrics([scene([Sound("Dog", 110, 120)], [received("Dog", 110, inf)])])
    assert metrics["segment_f1_micro"] == metrics["event_f1_micro"] == 1


def test_other_labels_and_other_times_are_left_out():
    others = [received("Piano", 10, 15), received("Dog", 121, 130)]
    truth = [*TRUTH, Sound("Piano", 50, 60)]
    assert sed_eval_metrics([scene(truth, [*PERFECT, *others])])["event_f1_micro"] == 1


def test_sounds_that_overlap_are_one_event():
    truth = [Sound("Dog", 10, 15), Sound("Dog", 14, 18)]
    assert sed_eval_metrics([scene(truth, [received("Dog", 10, 18)])])["event_f1_micro"] == 1


# PSDS


def perfect() -> Scene:
    return scene(TRUTH, scores=scored(*((sound, 0.9) for sound in TRUTH)))


def test_perfect_scores_get_all():
    assert psds([perfect()]) == pytest.approx({"psds1": 1, "psds2": 1})


def test_scores_of_nothing_get_nothing():
    assert psds([scene(TRUTH)]) == {"psds1": 0, "psds2": 0}
    no_decisions = scene(TRUTH, positions=np.empty(0, np.int64))
    assert psds([no_decisions]) == {"psds1": 0, "psds2": 0}


def test_below_the_lowest_score_the_scene_is_one_event():
    # Known of the metric: 20 of 120 s are more than the tenth that scenario 2 asks of an event.
    assert psds([scene([Sound("Dog", 10, 30)])]) == {"psds1": 0, "psds2": 1}
    assert psds([scene([Sound("Dog", 10, 20)])]) == {"psds1": 0, "psds2": 0}


def test_half_of_the_sounds_get_half():
    dogs = [TRUTH[0], TRUTH[2]]
    found_one = scene(dogs, scores=scored((dogs[0], 0.9)))
    assert psds([found_one]) == pytest.approx({"psds1": 0.5, "psds2": 0.5})


def test_a_false_alarm_above_the_sound_costs_its_rate():
    # One in 2 minutes is 30 an hour: below that rate nothing is found, above it all is.
    dog, absent = Sound("Dog", 10, 15), Sound("Dog", 60, 65)
    below = scene([dog], scores=scored((dog, 0.9), (absent, 0.8)))
    above = scene([dog], scores=scored((dog, 0.8), (absent, 0.9)))
    assert psds([below])["psds1"] == pytest.approx(1)
    assert psds([above])["psds1"] == pytest.approx(0.7)


def test_a_confusion_costs_only_in_scenario_2():
    # Rain scores for the dog: 30 false alarms an hour, and a cross trigger for 10 s of dog.
    dog, rain = Sound("Dog", 10, 20), Sound("Rain", 60, 70)
    for_dog = Sound("Rain", 10, 20)
    confused = scene([dog, rain], scores=scored((dog, 0.9), (rain, 0.8), (for_dog, 0.9)))
    # Below the false alarms' rate one of two labels is found: mean less deviation is 0.
    assert psds([confused])["psds1"] == pytest.approx(0.7)
    assert psds([confused])["psds2"] == pytest.approx(0)  # 30 + 0.5 x 360 an hour


def test_labels_that_are_found_unequally_cost():
    one_label = scene(TRUTH, scores=scored((TRUTH[0], 0.9), (TRUTH[2], 0.9)))
    assert psds([one_label]) == pytest.approx({"psds1": 0, "psds2": 0})  # mean 0.5, deviation 0.5


def test_labels_that_never_sound_take_no_part():
    scores = perfect().scores
    scores[:, LABELS.index("Rain")] = 0.99
    assert psds([scene(TRUTH, scores=scores)])["psds1"] == pytest.approx(1)


@pytest.mark.parametrize(("shift", "expected"), [(-1, 0), (0, 1), (1, 0)])
def test_a_decision_speaks_for_the_hop_around_its_windows_middle(shift, expected):
    sound = Sound("Dog", MIDDLE_S[50] - 0.24, MIDDLE_S[50] + 0.24)
    scores = np.zeros((HOPS, 3), np.float32)
    scores[50 + shift, 0] = 0.9
    assert psds([scene([sound], scores=scores)])["psds1"] == pytest.approx(expected)


def test_the_first_and_the_last_decision_reach_the_scenes_ends():
    truth = [Sound("Dog", 0, 0.6), Sound("Dog", DURATION_S - 0.6, DURATION_S)]
    scores = np.zeros((HOPS, 3), np.float32)
    scores[[0, -1], 0] = 0.9
    assert psds([scene(truth, scores=scores)])["psds1"] == pytest.approx(1)


def test_the_last_decision_on_a_position_speaks():
    positions = np.repeat(WINDOW + HOP * np.arange(HOPS), 2)
    scores = np.repeat(perfect().scores, 2, axis=0)
    scores[::2] = np.random.default_rng(0).random((HOPS, 3))  # refined away
    refined = scene(TRUTH, scores=scores, positions=positions)
    assert psds([refined]) == pytest.approx({"psds1": 1, "psds2": 1})


def test_sounds_that_overlap_or_touch_are_one():
    truth = [Sound("Dog", 10, 15), Sound("Dog", 14, 18), Sound("Dog", 18, 20)]
    found = scene(truth, scores=scored((Sound("Dog", 10, 20), 0.9)))
    assert psds([found])["psds1"] == pytest.approx(1)


def test_scenes_of_one_name_are_two_scenes():
    assert psds([perfect(), scene(TRUTH)])["psds1"] == pytest.approx(0.5)


@pytest.mark.parametrize("score", [psds, sed_eval_metrics])
def test_what_cannot_be_scored_is_refused(score):
    with pytest.raises(ValueError, match="nothing to score"):
        score([scene([])])
    with pytest.raises(ValueError, match="nothing to score"):
        score([])
    with pytest.raises(ValueError, match="labels differ"):
        score([scene(TRUTH), scene(TRUTH, labels=["Dog", "Siren", "Piano"])])
