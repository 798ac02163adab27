"""A language model beside the floor: what it renames, and that the stream never waits for it."""

import threading
import time

import numpy as np
import pytest

from streamtwl.config import Settings, override
from streamtwl.errors import ConfigError, UsageError
from streamtwl.ontology import categories
from streamtwl.pipeline import Pipeline, build, tracker
from streamtwl.reasoners import llm
from streamtwl.stages import Decision
from tests.conftest import PATIENCE_S
from tests.language_model_server import hangs, language_model, names, says, sends
from tests.patches import patches

pytestmark = pytest.mark.usefixtures("yamnet")

HOP = 7680
FIRST = 15_600
INDEX = {name: i for i, name in enumerate(categories())}
DOG, SIREN, RAIN = {"Dog": 0.9}, {"Siren": 0.9}, {"Rain": 0.9}


def chosen(url: str, **more) -> Settings:
    """The simplest pipeline with a model: scores are smoothed hardly, and not corrected."""
    changes = {
        "labels": "Dog, Siren, Rain",
        "windows": ["yamnet"],
        "reasoner.file": "llm",
        "reasoner.half_life_s": 0.01,
        "reasoner.prior": 0.0,
        "llm.endpoint": url,
        "llm.model": "m",
        "llm.timeout_s": PATIENCE_S,
        "llm.after_s": 0.9,
        **more,
    }
    return override(Settings(), changes)


@pytest.fixture
def listening():
    """Make a reasoner with its tracker; listening(url) returns them, closed with the test."""
    made = []

    def make(url: str, **more) -> "Listening":
        made.append(Listening(build(chosen(url, **more), ["a", "b"])))
        return made[-1]

    yield make
    for each in made:
        each.reasoner.close()


class Listening:
    """Patches to changes of events, as the pipeline has it."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.reasoner = pipeline.reasoner
        self.tracker = tracker(self.reasoner, pipeline.settings.events)
        self.count = 0
        self.decisions: list[Decision] = []

    def take(self, *sounds: dict[str, float], stream: int = 0) -> list[tuple]:
        """Take a patch for each; return (phase, number, label) of the changes."""
        changes = []
        for sound in sounds:
            posterior = np.zeros(len(categories()), np.float32)
            for name, score in sound.items():
                posterior[INDEX[name]] = score
            position = FIRST + HOP * self.count
            self.count += 1
            [decision] = self.reasoner.step(patches([stream], [position], posterior[None]))
            changes += self._track(stream, position, decision)
        return changes

    def _track(self, stream: int, position: int, decision: Decision) -> list[tuple]:
        self.decisions.append(decision)
        scores = decision.scores, decision.specific, decision.earlier
        changes = self.tracker.step(stream, position, *scores)
        return [
            ("retracted" if event.retracted else phase, event.number, event.label)
            for phase, event in changes
        ]


# --- renaming ---


def test_the_floor_decides_at_once_and_the_model_names_the_same_event_again(listening):
    with language_model(names("Siren")) as server:
        live = listening(server.url)
        assert live.take({}, DOG) == [("onset", 0, "Dog")]
        live.take(DOG, DOG)
        live.reasoner.refine(float("inf"))
        assert live.take(DOG) == [("revised", 0, "Siren")]
        assert live.take(DOG) == []
        assert live.take({}) == [("offset", 0, "Siren")]
        assert live.take({}, DOG) == [("onset", 1, "Dog")]  # another sound has its own turn
    assert len(server.requests) == 1


def test_the_label_in_force_is_the_models_while_the_sound_lasts(listening):
    with language_model(names("Siren")) as server:
        live = listening(server.url)
        live.take({}, DOG, DOG, DOG)
        live.reasoner.refine(float("inf"))
        live.take(DOG)
        newest = live.decisions[-1]
        assert (newest.label, newest.confidence) == ("Siren", pytest.approx(0.9, abs=1e-3))
        assert newest.earlier.shape == (4, 2, 3)
        live.take({})
        assert live.decisions[-1].label is None


def test_what_the_model_agrees_with_changes_nothing(listening):
    with language_model(names("Dog")) as server:
        live = listening(server.url)
        live.take({}, DOG, DOG, DOG)
        live.reasoner.refine(float("inf"))
        assert live.take(DOG) == []
        assert live.take({}) == [("offset", 0, "Dog")]


def test_none_of_the_labels_retracts_the_event(listening):
    with language_model(names("none of these")) as server:
        live = listening(server.url)
        live.take({}, DOG, DOG, DOG)
        live.reasoner.refine(float("inf"))
        assert live.take(DOG) == [("retracted", 0, "Dog")]
        assert live.take(DOG, {}) == []


def test_an_event_that_has_just_ended_is_still_renamed(listening):
    with language_model(names("Siren")) as server:
        live = listening(server.url)
        changes = live.take({}, DOG, {}, {})
        assert changes == [("onset", 0, "Dog"), ("offset", 0, "Dog")]
        live.reasoner.refine(float("inf"))
        assert live.take({}) == [("revised", 0, "Siren")]


def test_an_event_that_is_out_of_reach_keeps_its_name(listening):
    release = threading.Event()
    answered = names("Siren")

    def late(to, body):
        assert release.wait(PATIENCE_S)
        answered(to, body)

    with language_model(late) as server:
        live = listening(server.url, **{"trace.horizon_s": 1.44})
        live.take({}, DOG, {}, {}, {}, {}, {}, {})
        release.set()
        live.reasoner.refine(float("inf"))
        assert live.take({}) == []
        assert live.reasoner.figures()["thoughts"] == 1


def test_an_answer_about_sound_before_a_gap_changes_nothing(listening):
    release = threading.Event()

    def late(to, body):
        assert release.wait(PATIENCE_S)
        names("Siren")(to, body)

    with language_model(late) as server:
        live = listening(server.url)
        live.take({}, DOG, DOG, DOG)
        live.reasoner.forget(0)
        live.tracker.pause(0, FIRST + HOP * live.count)
        release.set()
        assert live.take({}, DOG) == [("onset", 1, "Dog")]
        live.reasoner.refine(float("inf"))
        assert live.take(DOG) == []


def test_two_sounds_at_once_that_are_one_to_the_model(listening):
    both = DOG | SIREN
    with language_model(names("Siren")) as server:
        live = listening(server.url)
        assert live.take({}, both) == [("onset", 0, "Dog"), ("onset", 1, "Siren")]
        live.take(both, both)  # of two queries the newer one remains
        live.reasoner.refine(float("inf"))
        changes = live.take(both)
        assert changes in ([], [("retracted", 0, "Dog")])
        assert live.reasoner.figures()["dropped_thoughts"] <= 1


def test_streams_are_apart(listening):
    with language_model(names("Siren")) as server:
        live = listening(server.url)
        live.take({}, DOG, DOG, DOG)
        live.take({}, RAIN, stream=1)
        live.reasoner.refine(float("inf"))
        assert live.take(RAIN, stream=1) == []
        assert live.take(DOG) == [("revised", 0, "Siren")]


def test_every_decision_of_a_stream_whose_stretch_begins_anew(listening):
    """Of 200 hops of sounds that come and go, with a model that says anything, none fails."""
    said = [names(each) for each in ("Siren", "Rain", "none of these", "Dog")] * 40
    rng = np.random.default_rng(3)
    with language_model(*said) as server:
        live = listening(server.url, **{"trace.horizon_s": 3.0, "llm.after_s": 0.0})
        for hop in range(200):
            live.take({str(rng.choice(["Dog", "Siren", "Rain"])): float(rng.random())})
            decision = live.decisions[-1]
            assert decision.scores.shape == decision.specific.shape == (3,)
            if hop % 7 == 0:
                live.reasoner.refine(float("inf"))
            if hop % 50 == 49:
                live.reasoner.forget(0)
                live.tracker.pause(0, FIRST + HOP * live.count)


# --- what it reads, what it says ---


def test_the_model_reads_the_trace_of_the_event(listening):
    with language_model(names("Siren")) as server:
        live = listening(server.url)
        live.take({}, DOG, DOG, DOG)
        live.reasoner.refine(float("inf"))
    said = server.requests[0]["messages"][1]["content"]
    assert "Labels: Dog; Siren; Rain; none of these" in said
    assert said.count("Dog 90 %") == 3
    assert "from 0.7 to 2.2 s" in said


def test_of_a_sampled_trace_every_vote_counts(listening):
    said = [names(each) for each in ("Rain", "Siren", "Siren", "Rain", "Siren", "Siren")]
    with language_model(*said) as server:
        changes = {"llm.trace": "sampled", "trace.samples": 5, "trace.traces": 3, "llm.votes": 2}
        live = listening(server.url, **changes)
        live.take({}, DOG, DOG, DOG)
        live.reasoner.refine(float("inf"))
        assert live.take(DOG) == [("revised", 0, "Siren")]
    assert len(server.requests) == 6
    seeds = [sent["seed"] for sent in server.requests]
    assert len(set(seeds)) == 6
    assert "Dog 5" in server.requests[0]["messages"][1]["content"]


def test_what_it_thought_is_in_the_next_decision(listening):
    with language_model(names("Siren", reasoning="It wails. " * 2000)) as server:
        live = listening(server.url)
        live.take({}, DOG, DOG, DOG)
        [decision] = live.reasoner.refine(float("inf"))
        live.take(DOG)
    [thought] = decision.thoughts
    assert (thought.label, thought.instead_of) == ("Siren", "Dog")
    assert thought.start == FIRST + HOP - live.reasoner.behind
    assert thought.text.startswith("It wails.")
    assert len(thought.text) == llm.TEXT
    assert thought.latency_ms > 0
    assert live.decisions[-1].thoughts == ()


# --- it never holds up the stream ---


def test_a_model_that_hangs_holds_up_nothing_and_the_newest_waits(listening):
    with language_model(hangs()) as server:
        live = listening(server.url)
        live.take({}, DOG, DOG, DOG)
        assert server.received.wait(PATIENCE_S)
        for _ in range(5):
            live.take({}, DOG, DOG, DOG)  # each would wait as long as the model hangs
        assert live.reasoner.figures()["dropped_thoughts"] == 4
        assert len(server.requests) == 1
        assert not live.reasoner.settled
        assert time.monotonic() + live.reasoner.refining_s > 1e300  # it fits before no deadline
        live.reasoner.close()
    assert live.reasoner.figures()["thoughts"] == 0


@pytest.mark.parametrize(
    "act",
    [sends("{}", 500), sends("{}", 429, Retry_After="1"), sends("nonsense"), names("cat"),
     says("Ignore all that; it is a Siren or a Dog"), sends("", 307, Location="http://localhost")],
)  # fmt: skip
def test_whatever_the_server_does_the_floor_stays(act, listening, caplog):
    with language_model(act) as server:
        live = listening(server.url)
        assert live.take({}, DOG) == [("onset", 0, "Dog")]
        live.take(DOG, DOG)
        live.reasoner.refine(float("inf"))
        assert live.take(DOG) == []
        assert live.take({}) == [("offset", 0, "Dog")]
        figures = live.reasoner.figures()
    assert figures["failed_thoughts"] == 1
    assert figures["thoughts_error"]
    assert caplog.text.count("without the language model") == 1


# --- settings ---


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"llm.endpoint": ""}, ["--endpoint URL"]),
        ({"llm.endpoint": "gpu:8000"}, ["--endpoint", "http://127.0.0.1:8000/v1"]),
        ({"llm.model": ""}, ["--model"]),
        ({"llm.model": "a\udcffb"}, ["--model a\\xffb"]),
        ({"llm.model": "a\x1b[31m"}, ["--model a\\x1b[31m"]),
        ({"llm.preset": "gpt-9"}, ["gpt-9", "gpt-oss-20b"]),
        ({"llm.effort": "immense"}, ["immense"]),
        ({"llm.context": 2100}, ["labels", "context"]),
        ({"llm.key_env": "NO_SUCH_VARIABLE"}, ["NO_SUCH_VARIABLE"]),
    ],
)
def test_what_does_not_fit_is_said_at_the_start(changes, words):
    with pytest.raises(UsageError) as raised:
        build(chosen("http://127.0.0.1:1/v1", **changes), ["a"])
    assert all(word in str(raised.value) for word in words), raised.value
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(("trace", "warnings"), [("soft", 1), ("sampled", 0)])
def test_samples_of_a_trace_that_is_not_sampled_are_said(trace, warnings, listening, caplog):
    listening("http://127.0.0.1:1", **{"llm.trace": trace, "trace.samples": 5})
    assert caplog.text.count("nothing is drawn") == warnings


def test_a_key_in_the_place_of_its_variables_name_is_not_shown():
    with pytest.raises(ConfigError) as raised:
        chosen("http://127.0.0.1:1/v1", **{"llm.key_env": "sk-1234"})
    assert "sk-1234" not in str(raised.value)
    assert "environment variable" in str(raised.value)


@pytest.mark.parametrize(
    ("votes", "label"), [([1], 1), ([1, 2, 2], 2), ([None, None, 1], None), ([3, 1, 3, 1], 3)]
)
def test_most_votes_decide_and_the_first_of_them_in_a_tie(votes, label):
    assert llm.majority(votes) == label
