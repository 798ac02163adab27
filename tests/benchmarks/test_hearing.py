"""The arithmetic of `benchmarks/hearing.py`: what counts as right, as wrong and as sure."""

import hearing
import hearing_sounds
import hearing_tables
import numpy as np
import pytest

from streamtwl.labelling import Strength
from streamtwl.sounding import Sounding
from streamtwl.stages import SAMPLE_RATE, Decision

LABELS = ["Animal", "Dog", "Bark", "Cat"]


def decision(label: str | None, confidence: float = 0.5) -> Decision:
    return Decision(label, confidence, np.zeros(4), np.zeros(4))


def test_an_ancestor_of_a_right_name_is_no_wrong_event_and_a_retracted_one_is_none():
    events = [Sounding(i, label, 0, patches=1) for i, label in enumerate(LABELS)]
    events.append(Sounding(4, "Cat", 0, end=0, retracted=True))
    strength = Strength(4)
    strength.add(Decision(None, 0.0, np.zeros(4), np.array([0.1, 0.3, 0.2, 0.4])), first=True)
    taken = hearing.Taken(
        LABELS, strength, [(decision("Cat"), -20.0)], {event.number: event for event in events}
    )
    judged = taken.judged(frozenset({"Dog", "Bark"}))
    assert (judged["right"], judged["among_five"], judged["event"]) == (False, True, True)
    assert judged["wrong_events"] == 1


def test_only_hops_that_sound_count_for_changes_and_confidences():
    decisions = [
        (decision("Dog", 0.9), -20.0),
        (decision("Cat", 0.8), -51.0),  # too far below the loudest
        (decision(None, 0.05), -30.0),
        (decision("Bark", 0.6), -25.0),
    ]
    judged = hearing.Taken(LABELS, Strength(4), decisions).judged(frozenset({"Dog"}))
    assert judged["changes"] == 2
    assert judged["confidences"] == [[0.9, True], [0.6, False]]


def test_a_clip_of_which_nothing_was_named_is_not_right():
    judged = hearing.Taken(LABELS, Strength(4), [(decision(None), -20.0)]).judged(frozenset(LABELS))
    assert (judged["right"], judged["among_five"]) == (False, False)


def test_the_calibration_error_is_the_mean_distance_of_the_bins():
    pairs = [[0.95, True]] * 6 + [[0.25, False]] * 3 + [[0.25, True]]
    results = {("clips", "a", "clean"): {"row": [{"confidences": pairs}]}}
    found = hearing_tables._calibration(results, "row", ["clean"])
    assert found["error"] == pytest.approx(0.6 * 0.05 + 0.4 * 0)
    assert [each[2] for each in found["bins"]] == [4, 6]


def test_no_false_event_still_has_an_upper_limit():
    results = {("hours", "0"): {"row": []}}
    found = hearing_tables._hours(results, "row")
    hours = hearing_tables.HOURS_PARTS * hearing_tables.PART_S / 3600
    assert found["an_hour"] == pytest.approx([0, 0, 3.689 / hours], abs=1e-3)


def test_noise_is_as_far_below_the_clip_as_it_says_and_the_same_each_time(monkeypatch):
    monkeypatch.setattr(hearing_sounds, "NOISE_PIECES", 1)
    hearing_sounds.noises.cache_clear()
    clip = 0.1 * np.sin(np.arange(2 * SAMPLE_RATE, dtype=np.float32))
    made = hearing_sounds.noisy(clip, "a.wav", 10.0, None)
    added = hearing_sounds.rms(made - clip)
    assert 20 * np.log10(hearing_sounds.rms(clip) / added) == pytest.approx(10, abs=0.01)
    assert np.array_equal(made, hearing_sounds.noisy(clip, "a.wav", 10.0, None))
    hearing_sounds.noises.cache_clear()


@pytest.mark.parametrize("channel", hearing_sounds.DISTORTIONS)
def test_a_channel_keeps_the_length_and_the_tone(channel):
    t = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    tone = (0.1 * np.sin(2 * np.pi * 1000 * t)).astype(np.float32)
    made = hearing_sounds.DISTORTIONS[channel](tone)
    assert abs(len(made) - len(tone)) <= 2048  # a coder adds some
    spectrum = np.abs(np.fft.rfft(made))
    assert spectrum.argmax() * SAMPLE_RATE / len(made) == pytest.approx(1000, abs=1)


def test_a_backbone_that_remembers_scores_the_same_features_once():
    calls = []

    class Backbone:
        def score(self, features):
            calls.append(len(features))
            return features.sum(axis=(1, 2))[:, None], features[:, 0]

    remembering = hearing.Remembering(Backbone())
    features = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    first = remembering.score(features)
    again = remembering.score(features[[2, 0]])
    assert calls == [3]
    assert np.array_equal(again[0], first[0][[2, 0]])
    assert np.array_equal(again[1], first[1][[2, 0]])
