"""The offline trial's own parts: changes of the label, events in background."""

import hearing_trial
import numpy as np
import pytest
import timeline
from hearing_trial import FILTER, METHODS
from score import Played
from timeline import ReceivedEvent, Scene

from streamtwl.stages import SAMPLE_RATE
from streamtwl.training.scored_scenes import ScoredScene, Sound


def named(*labels: str | None) -> tuple[list[str | None], ScoredScene]:
    """Labels in force after decisions at 1, 2, ... seconds."""
    at = SAMPLE_RATE * np.arange(1, 1 + len(labels))
    return [*labels], ScoredScene("s", len(labels) + 1.0, at, np.empty((len(labels), 0)), [])


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ((None, "Dog", "Dog", "Dog", None), {"name": 1, "rightness": 1, "named": 1}),
        ((None, "Dog", "Bark", "Dog", None), {"name": 3, "rightness": 1, "named": 1}),
        ((None, "Rain", "Wind", None, None), {"name": 3, "rightness": 2, "named": 0}),
        (("Dog", "Dog", "Dog", "Dog", None), {"name": 0, "rightness": 0, "named": 1}),
        ((None, None, None, None, "Dog"), {"name": 0, "rightness": 0, "named": 0}),
    ],
)
def test_changes_of_the_label_while_a_sound_sounds(labels, expected):
    sound = Sound("dog", 1.5, 4.5)  # decisions at 2, 3 and 4 s
    assert hearing_trial.changes(*named(*labels), sound, frozenset({"Dog", "Bark"})) == expected


def test_a_sound_is_alone_that_no_other_overlaps():
    dog, rain, siren = Sound("dog", 0, 2), Sound("rain", 1, 3), Sound("siren", 3, 4)
    truth = [dog, rain, siren]
    assert [hearing_trial.is_alone(each, truth) for each in truth] == [False, False, True]


def scene(truth: list[Sound], *events: tuple[float, float]) -> Scene:
    received = [ReceivedEvent("dog", start, end, start, end) for start, end in events]
    none = np.empty(0)
    return Scene("s", 60.0, truth, received, none, none, np.empty((0, 1)), ["dog"], [])


def judged(*swept: tuple[float, int, int], events: int) -> hearing_trial.Judged:
    sounds = scene([Sound("dog", 1, 2), Sound("dog", 5, 6)], (1.0, 2.0))
    background = scene([], *((float(i), i + 0.5) for i in range(events)))
    return {
        "played": {method: [Played(1, 0, 10, sounds, 0.5)] for method in METHODS},
        "background": {method: Played(1, 0, 0, background, 0.5) for method in METHODS},
        "swept": [*swept],
        "settings": {},
    }


def test_events_in_background_at_the_highest_threshold_that_finds_enough():
    folds = [
        judged((0.1, 9, 30), (0.5, 8, 10), (0.9, 4, 0), events=4),
        judged((0.1, 9, 20), (0.5, 6, 4), (0.9, 5, 2), events=2),
    ]
    found = hearing_trial.in_background(folds, 0.5, enough=12)
    assert found["as_set"][FILTER] == 6.0  # 6 events in two half hours
    assert found["found"] == 2
    assert found["at_recall"] == {"on": 0.5, "events": 14.0}
    assert hearing_trial.in_background(folds, 0.5, enough=19)["at_recall"] is None


def test_the_figures_are_paired_with_the_scenes_of_what_is_to_be_beaten(monkeypatch):
    monkeypatch.setattr(hearing_trial, "SNR_DB", (10,))
    truth = [Sound("dog", 0.0, 10.0)]
    played = [Played(1, n, 10, scene(truth, (0.0, 10.0)), 0.5) for n in range(2)]
    to_beat = [Played(1, n, 10, scene(truth, (0.0, 5.0)), 0.5) for n in range(2)]
    found = hearing_trial.in_force(played, to_beat)["10"]
    assert found["f1"]["mean"] == 1.0
    assert found["more"]["mean"] == pytest.approx(1 - 2 / 3)
    assert found["false_starts_per_minute"] == 0.0
    assert timeline.f1(timeline.agreement(to_beat[0].scene)) == pytest.approx(2 / 3)
