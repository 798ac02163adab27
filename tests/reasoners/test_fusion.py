"""Prior correction and joining, against arithmetic written out."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamtwl.errors import ConfigError, UsageError
from streamtwl.reasoners.fusion import Fusion, logit, sigmoid
from streamtwl.stages import Score, WindowKind

NAMES = ("Dog", "Bell", "Wind")


class Backbone:
    """What a fusion reads of a backbone."""

    def __init__(self, name="a", categories=NAMES, prior=(-3.0, -4.0, -8.0)) -> None:
        self.name, self.categories = name, tuple(categories)
        self.prior = None if prior is None else np.array(prior, np.float32)


def kinds(*named: str) -> list[WindowKind]:
    """Return windows of backbones "a" and "b"."""
    return [WindowKind(each, "ab".index(each[0]), float(each[2:])) for each in named]


def score(window: str, *posterior: float) -> Score:
    return Score(window, 1.0, np.array(posterior, np.float32), np.empty(0, np.float32))


def by_hand(p: float) -> float:
    return math.log(p / (1 - p))


def single(share: float, prior=(-3.0, -4.0, -8.0)) -> Fusion:
    return Fusion(kinds("a:1"), [Backbone(prior=prior)], NAMES, share, {})


# --- correction ---


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 1.0, 2.0])
def test_a_share_of_the_prior_less_its_mean_is_taken_from_the_logits(share):
    found = single(share).corrected(score("a:1", 0.5, 0.2, 0.01))
    assert found.dtype == np.float32
    for p, prior, corrected in zip((0.5, 0.2, 0.01), (-3, -4, -8), found, strict=True):
        expected = 1 / (1 + math.exp(-(by_hand(p) - share * (prior + 5))))
        assert corrected == pytest.approx(expected, rel=1e-5)


def test_a_rare_category_gains_and_a_usual_one_loses():
    dog, _, wind = single(0.6).corrected(score("a:1", 0.3, 0.3, 0.3))
    assert dog < 0.3 < wind


@pytest.mark.parametrize("prior", [None, (-5.0, -5.0, -5.0)])
def test_without_a_prior_nothing_is_taken(prior):
    found = single(0.6, prior).corrected(score("a:1", 0.5, 0.2, 0.01))
    np.testing.assert_allclose(found, [0.5, 0.2, 0.01], rtol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.6, 2.0])
def test_zero_and_one_stay_finite_and_in_range(share):
    found = single(share, (-0.5, -40.0, 40.0)).corrected(score("a:1", 0.0, 1.0, 0.5))
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1


@given(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), st.integers(0, 2),
       st.floats(0, 1, width=32))  # fmt: skip
def test_more_posterior_is_not_less_when_corrected(posterior, at, more):
    raised = list(posterior)
    raised[at] = max(raised[at], more)
    fusion = single(0.6)
    below, above = (fusion.corrected(score("a:1", *each)) for each in (posterior, raised))
    assert (above >= below).all()


# --- joining ---


def two(weights=None, second=NAMES, joint=NAMES) -> Fusion:
    """Return a fusion of "a" and of "b", which has the categories `second` and no prior."""
    backbones = [Backbone(), Backbone("b", second, None)]
    return Fusion(kinds("a:1", "b:3"), backbones, joint, 0.6, weights or {})


def arrays(*rows: tuple[float, ...]) -> dict[str, np.ndarray]:
    return dict(zip(("a:1", "b:3"), np.array(rows, np.float32), strict=True))


A, B = (0.5, 0.2, 0.01), (0.9, 0.6, 0.001)


@pytest.mark.parametrize(
    "weights", [{}, {"a:1": 0.4, "b:3": 0.6}, {"b:3": 3.0}, {"a:1": 1000.0}, {"a:1": 0.0}]
)
def test_windows_are_joined_by_the_weighted_mean_of_their_logits(weights):
    first, second = weights.get("a:1", 1.0), weights.get("b:3", 1.0)
    joined = two(weights).join(arrays(A, B))
    for p, q, found in zip(A, B, joined, strict=True):
        expected = (first * by_hand(p) + second * by_hand(q)) / (first + second)
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_one_window_alone_is_its_logits():
    joined = single(0.6).join({"a:1": np.array(A, np.float32)})
    np.testing.assert_allclose(joined, [by_hand(p) for p in A], rtol=1e-4, atol=1e-6)


def test_a_category_that_one_backbone_lacks_is_the_others():
    fusion = Fusion(
        kinds("a:1", "b:3"),
        [Backbone(), Backbone("b", ("Wind", "Siren"), (-6.0, -4.0))],
        (*NAMES, "Siren"),
        0.6,
        {"a:1": 0.4, "b:3": 0.6},
    )
    first = fusion.corrected(score("a:1", 0.5, 0.2, 0.3))
    second = fusion.corrected(score("b:3", 0.8, 0.7))
    joined = fusion.join({"a:1": first, "b:3": second})
    dog, bell = by_hand(0.5) - 0.6 * 2, by_hand(0.2) - 0.6 * 1
    wind = 0.4 * (by_hand(0.3) + 0.6 * 3) + 0.6 * (by_hand(0.8) + 0.6 * 1)
    siren = by_hand(0.7) - 0.6 * 1
    np.testing.assert_allclose(joined, [dog, bell, wind, siren], rtol=1e-4)


def test_a_category_whose_only_window_counts_nothing_is_as_unlikely_as_can_be():
    fusion = two({"b:3": 0.0}, ("Siren",), (*NAMES, "Siren"))
    scores = {"a:1": fusion.corrected(score("a:1", *A)), "b:3": fusion.corrected(score("b:3", 0.9))}
    joined = fusion.join(scores)
    assert np.isfinite(joined).all()
    assert sigmoid(joined[3]) == pytest.approx(1e-5, rel=0.01)


PROBABILITIES = st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3)
SHARES = st.lists(st.floats(0, 1000), min_size=3, max_size=3).filter(lambda each: sum(each) > 0.01)


@given(rows=st.lists(PROBABILITIES, min_size=3, max_size=3), shares=SHARES)
def test_the_order_of_windows_changes_nothing(rows, shares):
    named = ("a:1", "a:2", "b:3")
    weights = dict(zip(named, shares, strict=True))
    scores = dict(zip(named, np.array(rows, np.float32), strict=True))
    found = []
    for order in itertools.permutations(named):
        fusion = Fusion(kinds(*order), [Backbone(), Backbone("b")], NAMES, 0.6, weights)
        found.append(fusion.join({window: scores[window] for window in order}))
    for each in found:
        np.testing.assert_allclose(each, found[0], rtol=1e-4, atol=1e-4)


@given(rows=st.lists(PROBABILITIES, min_size=2, max_size=2), shares=SHARES,
       window=st.integers(0, 1), at=st.integers(0, 2), more=st.floats(0, 1, width=32))  # fmt: skip
def test_more_in_one_window_is_not_less_in_all(rows, shares, window, at, more):
    fusion = two({"a:1": shares[0], "b:3": shares[1] + 0.01})
    below = fusion.join(arrays(*rows))
    rows[window][at] = max(rows[window][at], more)
    above = fusion.join(arrays(*rows))
    assert (above >= below - 1e-5).all()


@given(rows=st.lists(PROBABILITIES, min_size=2, max_size=2))
def test_the_joint_score_is_between_those_of_the_windows(rows):
    joined = sigmoid(two({"a:1": 0.4, "b:3": 0.6}).join(arrays(*rows)))
    clipped = sigmoid(logit(np.array(rows, np.float32)))
    assert (joined >= clipped.min(axis=0) - 1e-6).all()
    assert (joined <= clipped.max(axis=0) + 1e-6).all()


# --- what is refused ---


def test_a_weight_of_no_window_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match=r"reasoner\.weights: b:2 .*a:1, b:3") as raised:
        two({"a:1": 1.0, "b:2": 1.0})
    assert "\n" not in str(raised.value)


def test_weights_that_leave_no_window_are_refused():
    with pytest.raises(ConfigError, match=r"reasoner\.weights"):
        two({"a:1": 0.0, "b:3": 0.0})


def test_a_backbone_without_any_of_the_categories_is_refused():
    with pytest.raises(UsageError, match="b has none of"):
        two(second=("Machine 1",))
