import numpy as np
import pytest

from streamtwl.config import ReasonerSettings
from streamtwl.ontology import categories, vocabulary
from streamtwl.reasoners.evidence import Evidence
from streamtwl.reasoners.fusion import Fusion
from streamtwl.reasoners.naming import OpenLabels
from tests.patches import KIND, FrontEndOnly, patches

ROUNDING = 2e-5  # a score of 0 is taken as 1e-5
INDEX = {name: i for i, name in enumerate(categories())}


def posterior(**scores: float) -> np.ndarray:
    heard = np.zeros(521, np.float32)
    for name, score in scores.items():
        heard[INDEX[name]] = score
    return heard


def evidence(labels="Dog, Siren", half_life_s=0.5, ratio=0.2, floor=0.1) -> Evidence:
    backbone = FrontEndOnly()
    backbone.categories = categories()
    settings = ReasonerSettings(half_life_s=half_life_s)
    fusion = Fusion([KIND], [backbone], categories(), settings.prior, {})
    named = vocabulary(labels)
    naming = OpenLabels(named, ratio, floor, np.ones(len(named.labels), bool))
    return Evidence(naming, fusion, settings, 7800)


def step(reasoner: Evidence, seconds: float, heard: np.ndarray, stream: int = 0):
    [decision] = reasoner.step(patches([stream], [round(16_000 * seconds)], heard[None]))
    return decision


def test_the_first_patch_is_taken_as_it_is():
    decision = step(evidence(), 1, posterior(Dog=0.6, Siren=0.3))
    assert decision.label == "Dog"
    assert decision.confidence == pytest.approx(0.6)
    assert decision.scores.tolist() == pytest.approx([0.6, 0.3])
    assert decision.refinement == 0


@pytest.mark.parametrize("hop_s", [0.01, 0.08, 0.48, 0.96, 2.88])
@pytest.mark.parametrize("half_life_s", [0.5, 3.0])
def test_the_past_halves_in_its_half_life_whatever_the_hop(hop_s, half_life_s):
    reasoner = evidence(half_life_s=half_life_s, floor=0)
    step(reasoner, 1, posterior(Dog=0.8))
    for hop in range(1, 1 + round(2.88 / hop_s)):
        decision = step(reasoner, 1 + hop * hop_s, posterior())
    assert decision.scores[0] == pytest.approx(0.8 * 0.5 ** (2.88 / half_life_s), rel=1e-3)


def test_a_gap_fades_the_past_like_silence():
    gapped, silent = evidence(floor=0), evidence(floor=0)
    for reasoner in (gapped, silent):
        step(reasoner, 1, posterior(Dog=0.8))
    for hop in range(1, 9):
        expected = step(silent, 1 + 0.5 * hop, posterior())
    found = step(gapped, 5, posterior())
    assert found.scores == pytest.approx(expected.scores, rel=1e-4)
    assert found.scores[0] == pytest.approx(0.8 / 2**8, abs=ROUNDING)


def test_after_a_long_gap_only_the_new_counts():
    reasoner = evidence()
    step(reasoner, 1, posterior(Dog=0.9))
    decision = step(reasoner, 3600, posterior(Siren=0.4))
    assert decision.label == "Siren"
    assert decision.scores.tolist() == pytest.approx([0, 0.4], abs=ROUNDING)


def test_a_steady_sound_keeps_its_score():
    reasoner = evidence()
    for hop in range(50):
        decision = step(reasoner, 1 + 0.48 * hop, posterior(Dog=0.7, Siren=0.2))
    assert decision.scores.tolist() == pytest.approx([0.7, 0.2])


def test_a_single_odd_patch_does_not_change_the_label():
    reasoner = evidence(half_life_s=2.0)
    for hop in range(10):
        step(reasoner, 1 + 0.48 * hop, posterior(Dog=0.6))
    assert step(reasoner, 5.8, posterior(Siren=0.9)).label == "Dog"


@pytest.mark.parametrize(("score", "label"), [(0.09, None), (0.11, "Dog"), (0.0, None)])
def test_under_the_floor_nothing_is_named(score, label):
    decision = step(evidence(floor=0.1), 1, posterior(Dog=score))
    assert decision.label == label
    assert decision.confidence == pytest.approx(score, abs=ROUNDING)


def test_the_ontology_rule_holds():
    heard = posterior(Animal=0.9, Dog=0.3)
    decision = step(evidence("all", ratio=0.2), 1, heard)
    assert (decision.label, decision.confidence) == ("Dog", pytest.approx(0.3))
    animal = vocabulary("all").labels.index("Animal")
    assert (decision.scores[animal], decision.specific[animal]) == (pytest.approx(0.9), 0)
    assert step(evidence("all", ratio=0.5), 1, heard).label == "Animal"


def test_streams_do_not_hear_each_other():
    together, alone = evidence(), [evidence(), evidence()]
    rng = np.random.default_rng(2)
    for hop in range(12):
        heard = rng.random((2, 521)).astype(np.float32)
        positions = [15_600 + 7680 * hop, 15_600 + 1280 * hop]
        decisions = together.step(patches([7, 3], positions, heard))
        for i, stream in enumerate((7, 3)):
            expected = step(alone[i], positions[i] / 16_000, heard[i], stream)
            assert decisions[i].scores == pytest.approx(expected.scores, abs=1e-6)


def test_what_it_was_given_is_left_alone():
    reasoner, heard = evidence(), posterior(Dog=0.5)
    step(reasoner, 1, heard)
    step(reasoner, 2, posterior(Siren=0.5))
    np.testing.assert_array_equal(heard, posterior(Dog=0.5))


def test_there_is_nothing_to_refine():
    reasoner = evidence()
    step(reasoner, 1, posterior(Dog=0.5))
    assert reasoner.refine(1e9) is None


def test_a_stream_that_is_forgotten_begins_anew():
    reasoner = evidence(half_life_s=100)
    for stream in (0, 1):
        step(reasoner, 1, posterior(Dog=0.8), stream)
    reasoner.forget(0)
    assert step(reasoner, 1.5, posterior(Siren=0.4), 0).scores.tolist() == pytest.approx(
        [0, 0.4], abs=ROUNDING
    )
    assert step(reasoner, 1.5, posterior(Siren=0.4), 1).label == "Dog"
