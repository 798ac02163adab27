import numpy as np
import pytest

from streamtwl.reasoners.candidates import NOTHING, Candidates
from streamtwl.reasoners.fusion import Fusion, logit
from streamtwl.stages import WindowKind
from tests.patches import FrontEndOnly

NAMES = ("Animal", "Dog", "Bark", "Siren", "Silence")
KINDS = [frozenset({1, 2}), frozenset({2}), frozenset(), frozenset(), frozenset()]
A, B = WindowKind("a:1", 0, 1.0), WindowKind("b:3", 0, 3.0)


def candidates(count: int = 3, unwanted: tuple[str, ...] = ("Silence",)) -> Candidates:
    backbone = FrontEndOnly()
    backbone.categories = NAMES
    fusion = Fusion([A, B], [backbone], NAMES, 0.0, {})
    wanted = np.array([name not in unwanted for name in NAMES])
    return Candidates(fusion, [A.name, B.name], KINDS, wanted, count)


def scores(**of_a: float) -> dict[str, np.ndarray]:
    a = np.array([of_a.get(name, 0.01) for name in NAMES], np.float32)
    return {A.name: a, B.name: a**2}


def test_a_hop_is_what_the_module_says():
    newest, smoothed = scores(Dog=0.8, Siren=0.3), scores(Dog=0.5)
    hop = candidates().hop(newest, smoothed)
    expected = (logit(smoothed[A.name]) + logit(smoothed[B.name])) / 2
    assert hop.joined == pytest.approx(expected)
    assert hop.own.shape == (5, 3 + 4 * 2)
    assert hop.own[:, 0] == pytest.approx(hop.joined)
    assert hop.own[:, 1] == pytest.approx(logit(newest[A.name]))
    assert hop.own[:, 2] == pytest.approx(logit(newest[B.name]))
    assert hop.own[:, 4] == pytest.approx(logit(smoothed[B.name]))
    assert hop.own[1, 5] == 0  # nothing is above the dog in the first window ...
    assert hop.own[3, 5] == pytest.approx(logit(0.3) - logit(0.8), abs=1e-5)
    assert hop.own[[1, 3], 7] == pytest.approx([0, np.log(2)])  # ... and one is above the siren
    assert hop.around.shape == (10,)
    assert hop.around[0] == pytest.approx(logit(0.8))


def test_relatives_are_the_best_of_them():
    hop = candidates().hop(scores(), scores(Dog=0.5, Bark=0.7))
    above, below = hop.own[:, -2], hop.own[:, -1]
    assert below[0] == pytest.approx(hop.joined[2])  # of Animal: Bark
    assert above[2] == pytest.approx(hop.joined[1])  # of Bark: Dog
    assert above[0] == below[2] == above[3] == below[3] == NOTHING


def test_no_category_is_told_from_another_by_what_is_read():
    swapped = scores(Siren=0.8, Silence=0.3), scores(Siren=0.5)
    hop = candidates().hop(scores(Silence=0.8, Siren=0.3), scores(Silence=0.5))
    other = candidates().hop(*swapped)
    assert hop.own[[3, 4]] == pytest.approx(other.own[[4, 3]])
    assert hop.around == pytest.approx(other.around)


def test_those_with_the_highest_joined_logits_are_picked_and_none_unwanted():
    some = candidates(count=2, unwanted=("Dog", "Silence"))
    hop = some.hop(scores(), scores(Dog=0.9, Siren=0.5, Bark=0.4, Silence=0.9))
    assert some.pick(hop).tolist() == [2, 3]
    assert candidates(count=16).count == 4  # all that are wanted
