"""What goes wrong in a stage, or in who takes the outcomes, is raised where blocks are pushed."""

import numpy as np
import pytest

from streamtwl.config import LabelEventSettings, ReasonerSettings, Settings, override
from streamtwl.errors import ConfigError, UsageError
from streamtwl.ontology import categories, everyday
from streamtwl.pipeline import Pipeline, build
from streamtwl.reasoners.gpt2 import Gpt2
from streamtwl.stages import Block, Patch, Score, Window

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


def test_the_open_model_names_everyday_sounds(real_audio):
    settings = override(Settings(), {"labels": "everyday", "reasoner.file": "open"})
    pipeline = build(settings, ["mic"])
    assert isinstance(pipeline.reasoner, Gpt2)
    assert pipeline.reasoner.labels == list(everyday())
    outcomes = []
    pipeline.subscribe(outcomes.append)
    pipeline.push([Block(0, 0, real_audio, None, 0.0, last=True)])
    decisions = [outcome.decision for outcome in outcomes if outcome.decision is not None]
    assert {decision.label for decision in decisions} <= {*everyday(), None}
    assert "Dog" in {decision.label for decision in decisions}
    for decision in decisions:
        assert decision.scores.shape == (len(everyday()),)
        assert decision.earlier.shape == (pipeline.reasoner.lags, 2, len(everyday()))
    published = {event.label for outcome in outcomes for _, event in outcome.changes}
    assert "Dog" in published
    assert published <= set(everyday())


# The settings of events


def ruled(own: dict, file: str) -> Pipeline:
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


@pytest.mark.parametrize("file", ["open", ""])
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
def test_a_users_rules_come_after_those_for_audiosets_words(file, label, own, expected):
    found = ruled(own, file).settings.events.rule(label)
    unruled = LabelEventSettings() if file else ReasonerSettings()
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


def test_an_open_models_card_does_not_overrule_the_pipelines_thresholds():
    pipeline = build(override(Settings(), {"reasoner.file": "open"}), ["mic"])
    card, events = pipeline.reasoner.card, pipeline.settings.events
    assert card.open
    assert (events.on, events.off) == (0.4, 0.2) != (card.on, card.off)


class Trumpet:
    """Scores windows as if a trumpet sounded, at 0.18 in the end; the model makes 0.07 of that."""

    def __init__(self, first: float) -> None:
        self._levels = iter([first] * 2 + [0.18] * 18)

    def score(self, windows: list[Window]) -> list[Patch]:
        posterior = np.full(len(categories()), 1e-4, np.float32)
        posterior[categories().index("Trumpet")] = next(self._levels)
        return [
            Patch(window, (Score("yamnet:0.96", 0.975, posterior, posterior),))
            for window in windows
        ]


@pytest.mark.parametrize(
    ("labels", "label"), [("all", "Trumpet"), ("everyday", "Music"), ("Trumpet,Music", "Trumpet")]
)
@pytest.mark.parametrize(
    ("first", "rule", "lasts"),
    [
        (0.9, {"off": 0.15}, True),
        (0.9, {"off": 0.2}, False),
        (0.18, {"on": 0.1, "off": 0.05}, True),
        (0.18, {"on": 0.3, "off": 0.05}, False),
    ],
)
def test_an_event_begins_and_lasts_by_the_evidence_over_its_own_off(
    labels, label, first, rule, lasts
):
    """The open model says what it was not trained on at least as surely as the evidence does."""
    events = {"events.label": {label: rule}, "labels": labels, "reasoner.file": "open"}
    pipeline = build(override(Settings(), events), ["mic"])
    pipeline.bank = Trumpet(first)
    outcomes = []
    pipeline.subscribe(outcomes.append)
    pipeline.push([Block(0, 0, np.zeros(15_600 + 19 * 7_680, np.float32), None, 0.0, last=True)])
    assert (label in {event.label for _, event in outcomes[-1].changes}) == lasts


@pytest.mark.parametrize("key", ["label", "audioset.label"])
def test_a_rule_of_no_sound_is_refused_with_where_it_is(key):
    with pytest.raises(UsageError, match=rf"^\[events\.{key}\]: .*'Dgo'.*Dog"):
        build(override(Settings(), {f"events.{key}": {"Dgo": {"on": 0.9}}}), ["mic"])


@pytest.mark.parametrize("file", ["open", "esc10-gpt2"])
@pytest.mark.parametrize("on", [None, 0.7])
def test_a_model_refines_what_is_near_the_threshold_of_events(file, on):
    pipeline = build(override(Settings(), {"reasoner.file": file, "events.on": on}), ["mic"])
    assert set(pipeline.reasoner._begins) == {pipeline.settings.events.on}


@pytest.mark.parametrize("file", ["open", "evidence", "reader", "esc10-hmm"])
def test_rules_that_do_not_fit_together_are_refused_with_both_names(file):
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
        ("open", {"samples": 4}, "draws no samples"),
        ("open", {"traces": 4}, "draws no samples"),
        ("esc10-paper", {"samples": 20}, "K = 1 to 16"),
        ("esc10-paper", {"temperature": 2.0}, "a temperature of 1"),
        ("esc10-paper", {"samples": 4, "traces": 4}, None),
        ("open", {}, None),
    ],
)
def test_a_trace_that_it_was_not_trained_on_is_warned_of(caplog, file, trace, said):
    changes = {"reasoner.file": file} | {f"trace.{key}": value for key, value in trace.items()}
    build(override(Settings(), changes), ["mic"])
    assert (said in caplog.text) if said else not caplog.text
