"""Taught sounds beside a reasoner's labels: scores, what is in force, whose place they take."""

from dataclasses import dataclass

import numpy as np
import pytest

from streamtwl.config import EventSettings
from streamtwl.events import EventTracker
from streamtwl.pipeline import with_rules
from streamtwl.reasoners.taught import Taught
from streamtwl.stages import Decision
from tests.patches import patches

LABELS = ["Dog", "Siren"]


class Own:
    """A reasoner that decides what it is given, and revises two hops."""

    name, sha256, open, on, off, lags, behind = "own", "", True, 0.43, 0.22, 2, 0
    settled, refining_s = True, 0.0

    def __init__(self, scores, earlier=None, in_force=None):
        self.labels, self.forgotten, self.got = LABELS, [], None
        self._decision = Decision(
            "Dog", float(scores[0]), scores, scores, earlier=earlier, in_force=in_force
        )

    def step(self, patches):
        return [self._decision for _ in patches]

    def refine(self, deadline):
        return None

    def forget(self, stream):
        self.forgotten.append(stream)

    def thresholds(self, on, off):
        self.got = on, off


@dataclass
class Given:
    """Heads that say what they are given."""

    labels: list
    confidences: list

    def score(self, patch):
        return np.array(self.confidences, np.float32)


def scores(*values):
    return np.array(values, np.float32)


def decide(own, heads, hops=1):
    taught = Taught(own, heads)
    for _ in range(hops):
        [decision] = taught.step(patches([0], [16_000], np.zeros((1, 3), np.float32)))
    return taught, decision


def test_they_come_after_the_reasoners_own_labels():
    taught, decision = decide(Own(scores(0.6, 0.1)), Given(["kettle", "pot"], [0.2, 0.3]))
    assert taught.labels == ["Dog", "Siren", "kettle", "pot"]
    assert decision.scores == pytest.approx([0.6, 0.1, 0.2, 0.3])
    assert decision.label == "Dog"
    assert (taught.name, taught.on, taught.lags) == ("own", 0.43, 2)


@pytest.mark.parametrize(
    ("confidence", "label"), [(0.7, "kettle"), (0.55, "Dog"), (0.49, "Dog"), (0.0, "Dog")]
)
def test_one_is_in_force_where_it_is_on_and_the_strongest(confidence, label):
    _, decision = decide(Own(scores(0.6, 0.1)), Given(["kettle"], [confidence]))
    assert decision.label == label


def test_one_that_is_not_on_is_not_in_force_however_weak_the_others():
    own = Own(scores(0.0, 0.0))
    own._decision = Decision(None, 0.0, scores(0, 0), scores(0, 0))
    assert decide(own, Given(["kettle"], [0.45]))[1].label is None
    assert decide(own, Given(["kettle"], [0.55]))[1].label == "kettle"


@pytest.mark.parametrize("name", ["Dog", "dog"])
def test_one_with_the_name_of_a_label_takes_its_place(name):
    _, decision = decide(Own(scores(0.9, 0.1)), Given([name], [0.1]))
    assert decision.scores == pytest.approx([0.0, 0.1, 0.1])
    assert decision.label is None
    assert decide(Own(scores(0.9, 0.1)), Given([name], [0.8]))[1].label == name


def test_what_was_said_before_is_said_again_of_the_hops_before():
    earlier = np.full((2, 2, 2), 0.4, np.float32)
    own, heads = Own(scores(0.6, 0.1), earlier, scores(0.5, 0.1)), Given(["kettle"], [0.1])
    taught = Taught(own, heads)
    for confidence in (0.1, 0.2, 0.3):
        heads.confidences = [confidence]
        [decision] = taught.step(patches([0], [16_000], np.zeros((1, 3), np.float32)))
    assert decision.earlier[:, :, :2] == pytest.approx(earlier)
    assert decision.earlier[:, 0, 2] == pytest.approx([0.2, 0.1])
    assert decision.in_force == pytest.approx([0.5, 0.1, 0.3])
    taught.forget(0)
    assert own.forgotten == [0]
    [decision] = taught.step(patches([0], [16_000], np.zeros((1, 3), np.float32)))
    assert decision.earlier[:, 0, 2] == pytest.approx([0, 0])


def test_thresholds_of_its_own_labels_reach_the_reasoner():
    own = Own(scores(0.6, 0.1))
    Taught(own, Given(["kettle"], [0.1])).thresholds(np.arange(3), np.arange(3))
    assert own.got[0].tolist() == [0, 1]


def test_a_reasoner_that_waits_can_still_be_stopped():
    own = Own(scores(0.6, 0.1))
    taught = Taught(own, Given(["kettle"], [0.1]))
    assert not hasattr(taught, "stop_requested")
    own.stop_requested = lambda: 0
    assert hasattr(taught, "stop_requested")
    taught.stop_requested = lambda: 7
    assert own.stop_requested() == 7


def test_their_rules_are_their_own_and_the_user_overrides_them():
    heads = Given(["kettle", "Hum"], [0, 0])
    events = EventSettings(on=0.9, off=0.8, include=["Dog"], label={"Hum": {"on": 0.7, "off": 0.1}})
    events.audioset.exclude = ["Hum", "Noise"]
    with_them = with_rules(events, heads)
    assert (with_them.rule("kettle").on, with_them.rule("Hum").on) == (0.5, 0.7)
    assert with_them.rule("Dog").on == 0.9
    wanted = [name for name in ("Dog", "Siren", "kettle", "Hum", "Noise") if with_them.wants(name)]
    assert wanted == ["Dog", "kettle", "Hum"]
    assert with_rules(events, None) is events


def test_new_sounds_end_the_events_of_those_before_and_no_others():
    settings = with_rules(EventSettings(on=0.4, off=0.2), Given(["kettle"], [0]))
    tracker = EventTracker(["Dog", "kettle"], settings, 0, 2)
    tracker.step(0, 16_000, scores(0.9, 0.9), scores(0.9, 0.9))
    tracker.step(0, 24_000, scores(0.9, 0.9), scores(0.9, 0.9))
    settings = with_rules(EventSettings(on=0.4, off=0.2), Given(["pot", "pan"], [0, 0]))
    [(stream, position, changes)] = tracker.replace_labels(1, ["Dog", "pot", "pan"], settings)
    assert (stream, position) == (0, 24_000)
    assert [(phase, event.label) for phase, event in changes] == [("offset", "kettle")]
    after = tracker.step(0, 32_000, scores(0.9, 0.1, 0.9), scores(0.9, 0.1, 0.9))
    assert [(phase, event.label) for phase, event in after] == [("onset", "pan")]
    ended = tracker.step(0, 40_000, scores(0.0, 0.1, 0.0), scores(0.0, 0.1, 0.0))
    assert [(phase, event.label) for phase, event in ended] == [
        ("offset", "Dog"),
        ("offset", "pan"),
    ]
