"""What goes wrong in a stage, or in who takes the outcomes, is raised where blocks are pushed."""

import numpy as np
import pytest

from streamtwl.config import LabelEventSettings, ReasonerSettings, Settings, override
from streamtwl.errors import ConfigError, UsageError
from streamtwl.pipeline import Pipeline, build
from streamtwl.stages import Block

pytestmark = pytest.mark.usefixtures("yamnet")  # so that its file is there

TWO_SECONDS = Block(0, 0, np.zeros(32_000, np.float32), None, 0.0, last=True)


class Broken(Exception):
    pass


def broken(*_arguments):
    raise Broken


def test_every_window_and_the_end_have_an_outcome():
    pipeline = build(Settings(), ["mic"])
    outcomes = []
    pipeline.subscribe(outcomes.append)
    pipeline.push([TWO_SECONDS])
    positions = [(outcome.position, outcome.decision is None) for outcome in outcomes]
    assert positions == [
        (15_600, False), (23_280, False), (30_960, False), (32_000, False), (32_000, True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "verb"),
    [("reasoner", "step"), ("events", "step"), ("events", "close"), ("reasoner", "forget")],
)
def test_an_error_in_a_stage_is_raised_by_push(stage, verb):
    pipeline = build(Settings(), ["mic"])
    pipeline.subscribe(lambda outcome: None)
    setattr(getattr(pipeline, stage), verb, broken)
    with pytest.raises(Broken):
        pipeline.push([TWO_SECONDS])


@pytest.mark.parametrize("at_the_end", [False, True])
def test_an_error_of_who_takes_the_outcomes_is_raised_by_push(at_the_end):
    pipeline = build(Settings(), ["mic"])
    pipeline.subscribe(
        lambda outcome: broken() if (outcome.decision is None) == at_the_end else None
    )
    with pytest.raises(Broken):
        pipeline.push([TWO_SECONDS])


# The settings of events


def ruled(own: dict, file: str = "") -> Pipeline:
    """Return a pipeline whose user has rules of their own, beside those for AudioSet's words."""
    changes = {
        "reasoner.file": file,
        "events.audioset.label": {
            "Wind": {"on": 0.8, "off": 0.4},
            "S*": {"on": 0.9, "off": 0.7, "cooldown_s": 3.0},
        },
        "events.label": own,
    }
    return build(override(Settings(), changes), ["mic"])


@pytest.mark.parametrize(
    ("label", "own", "expected"),
    [
        ("Wind", {}, (0.8, 0.4, 0)),
        ("Wind", {"Wind": {"on": 0.9}}, (0.9, 0.4, 0)),
        ("Wind", {"wind": {"on": 0.9}}, (0.9, 0.4, 0)),
        ("Wind", {"Wi*": {"on": 0.6, "off": 0.5}, "Wind": {"off": 0.3}}, (0.6, 0.3, 0)),
        ("Wind", {"Wind": {"off": 0.3}, "Wi*": {"on": 0.6, "off": 0.5}}, (0.6, 0.5, 0)),
        ("Siren", {"Siren": {"on": 0.3, "off": 0.1}}, (0.3, 0.1, 3)),
        ("Siren", {"S*": {"on": 0.8}}, (0.8, 0.7, 3)),
        ("Dog", {"Wind": {"on": 0.9}}, None),
    ],
)
def test_a_users_rules_come_after_those_for_audiosets_words(label, own, expected):
    found = ruled(own).settings.events.rule(label)
    unruled = ReasonerSettings()
    assert (found.on, found.off, found.cooldown_s) == (expected or (unruled.on, unruled.off, 0))


def test_a_model_with_labels_of_its_own_ignores_those_for_audiosets_words():
    pipeline = ruled({"Wind": {"cooldown_s": 2.0}}, "esc10-hmm")
    card, rule = pipeline.reasoner.card, pipeline.settings.events.rule
    assert rule("Wind") == LabelEventSettings(on=card.on, off=card.off, cooldown_s=2)
    assert rule("siren") == LabelEventSettings(on=card.on, off=card.off)


@pytest.mark.parametrize("verb", ["exclude", "include"])
def test_what_a_user_excludes_is_beside_what_audiosets_words_exclude(verb):
    changes = {"events.audioset.exclude": ["Hum", "Static"], f"events.{verb}": ["Siren", "Hum"]}
    events = build(override(Settings(), changes), ["mic"]).events
    published = {events._labels[i] for i in events._rules}
    assert not published & {"Hum", "Static"}
    assert ("Siren" in published) == (verb == "include")
    assert ("Dog" in published) == (verb == "exclude")


@pytest.mark.parametrize("key", ["label", "audioset.label"])
def test_a_rule_of_no_sound_is_refused_with_where_it_is(key):
    with pytest.raises(UsageError, match=rf"^\[events\.{key}\]: .*'Dgo'.*Dog"):
        build(override(Settings(), {f"events.{key}": {"Dgo": {"on": 0.9}}}), ["mic"])


@pytest.mark.parametrize("on", [None, 0.7])
def test_a_model_refines_what_is_near_the_threshold_of_events(on):
    rule = {"reasoner.file": "esc10-gpt2", "events.on": on}
    pipeline = build(override(Settings(), rule), ["mic"])
    assert set(pipeline.reasoner._begins) == {pipeline.settings.events.on}


@pytest.mark.parametrize("file", ["evidence", "reader", "esc10-hmm"])
def test_rules_that_do_not_fit_together_are_refused_with_both_names(file, mn04):
    rules = {"D*": {"on": 0.9, "off": 0.5}, "*g": {"on": 0.3}}
    with pytest.raises(
        ConfigError, match=r'events.label."D\*" with label."\*g": off .* is above on'
    ):
        build(override(Settings(), {"reasoner.file": file, "events.label": rules}), ["mic"])


def test_a_model_refines_what_is_near_a_labels_own_threshold():
    rule = {"reasoner.file": "esc10-gpt2", "events.label": {"dog": {"on": 0.93}}}
    reasoner = build(override(Settings(), rule), ["mic"]).reasoner
    assert reasoner._begins[reasoner.labels.index("dog")] == 0.93
    assert np.count_nonzero(reasoner._begins == reasoner.card.on) == len(reasoner.labels) - 1


@pytest.mark.parametrize(
    ("file", "trace", "said"),
    [
        ("esc10-gpt2", {"samples": 4}, "draws no samples"),
        ("esc10-gpt2", {"traces": 4}, "draws no samples"),
        ("esc10-paper", {"samples": 20}, "K = 1 to 16"),
        ("esc10-paper", {"temperature": 2.0}, "a temperature of 1"),
        ("esc10-paper", {"samples": 4, "traces": 4}, None),
        ("esc10-gpt2", {}, None),
    ],
)
def test_a_trace_that_it_was_not_trained_on_is_warned_of(caplog, file, trace, said):
    changes = {"reasoner.file": file} | {f"trace.{key}": value for key, value in trace.items()}
    build(override(Settings(), changes), ["mic"])
    assert (said in caplog.text) if said else not caplog.text
