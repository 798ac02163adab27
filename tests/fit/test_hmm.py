"""The HMM filter in NumPy, against its definition, and as a reasoner's file."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamtwl.reasoners import graph
from streamtwl.reasoners.card import Card
from streamtwl.reasoners.recurrent import ENDLESS_S, Recurrent
from streamtwl.stages import SAMPLE_RATE, Patch, Score
from streamtwl.training import fitting, hmm
from tests.fitted import random_patch_model
from tests.patches import window

LABELS, CATEGORIES, EMBEDDING = ["dog", "rain", "saw"], 6, 4
READS = [("a:1", "posterior"), ("a:1", "embedding")]
CARD = Card(
    name="toy",
    about="a toy",
    kind="recurrent",
    backbone="a",
    hop_s=0.48,
    labels=LABELS,
    on=0.4,
    off=0.2,
    data="none",
    folds=[2, 3],
    command="pytest",
    version="0",
    reads=READS,
)


def rows_of(*shape: int, seed: int = 1) -> np.ndarray:
    """Return float32[*shape, F] rows: scores, then an embedding with numbers of either sign."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0, 1, (*shape, CATEGORIES)) ** 3
    both = np.concatenate((scores, rng.normal(size=(*shape, EMBEDDING))), axis=-1)
    return both.astype(np.float32)


def made(seed: int = 0, duration_s: float = 1.0, exponent: float = 0.7) -> hmm.Filter:
    patch = random_patch_model(CATEGORIES, len(LABELS), seed, EMBEDDING)
    return hmm.Filter(patch, duration_s, exponent)


def scores_of(filter: hmm.Filter, rows: np.ndarray, elapsed_s: np.ndarray) -> np.ndarray:
    return filter.scores(filter.patch(rows), elapsed_s)


gaps = st.lists(st.sampled_from([0.0, 0.01, 0.48, 2.0, 60.0]), min_size=4, max_size=4)


@settings(max_examples=25)
@given(st.integers(0, 1000), gaps, st.floats(0.1, 5.0), st.floats(0.2, 1.5))
def test_it_is_the_forward_algorithm(seed, gaps_s, duration_s, exponent):
    filter, rows = made(seed, duration_s, exponent), rows_of(1, 5, seed=seed)
    prior = np.exp(filter.patch.log_prior.astype(np.float64))
    likelihoods = (np.exp(filter.patch(rows)[0]) / prior) ** exponent
    alpha = prior * likelihoods[0]
    expected = [alpha / alpha.sum()]
    for likelihood, gap_s in zip(likelihoods[1:], gaps_s, strict=True):
        stays = np.exp(-gap_s / duration_s)
        transition = stays * np.eye(len(prior)) + (1 - stays) * prior
        alpha = (expected[-1] @ transition) * likelihood
        expected.append(alpha / alpha.sum())
    found = scores_of(filter, rows, np.array([[ENDLESS_S, *gaps_s]], np.float32))[0]
    np.testing.assert_allclose(found, np.array(expected)[:, :-1], atol=1e-4)


def test_long_certainty_does_not_underflow():
    filter = made(duration_s=0.5, exponent=1.0)
    filter.patch.weight[:] *= 40
    found = scores_of(filter, rows_of(2, 150), np.full((2, 150), 0.01, np.float32))
    assert np.isfinite(found).all()
    assert ((found >= 0) & (found.sum(axis=-1, keepdims=True) < 1.0001)).all()


def test_a_file_gives_the_filters_scores(tmp_path):
    """Two streams, one with a gap; embeddings below 0, where there is no logarithm."""
    filter, path = made(), tmp_path / "filter.onnx"
    hmm.write(filter, CARD, path)
    rows = rows_of(2, 8)
    positions = np.stack([15_600 + 7680 * np.arange(8)] * 2)
    positions[1, 5:] += 5 * SAMPLE_RATE
    expected = scores_of(filter, rows, np.stack([*map(fitting.elapsed, positions)]))
    reasoner = Recurrent(graph.load(path))
    assert (reasoner.card, reasoner.labels) == (CARD, LABELS)
    for t in range(8):
        decisions = reasoner.step(
            [
                Patch(
                    window(int(positions[n, t]), n),
                    (Score("a:1", 1.0, rows[n, t, :CATEGORIES], rows[n, t, CATEGORIES:]),),
                )
                for n in range(2)
            ]
        )
        for n, decision in enumerate(decisions):
            np.testing.assert_allclose(decision.scores, expected[n, t], atol=1e-5)


def test_a_file_stands_alone_and_says_nothing_of_the_machine(tmp_path):
    path = tmp_path / "filter.onnx"
    hmm.write(made(), CARD, path)
    onnx.checker.check_model(onnx.load(path, load_external_data=False), full_check=True)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert str(tmp_path).encode() not in path.read_bytes()


@pytest.mark.parametrize("columns", [CATEGORIES, CATEGORIES + EMBEDDING])
def test_a_gap_makes_it_forget(columns):
    filter = made()
    rows = rows_of(1, 4)
    rows[..., columns:] = 0
    near, far, fresh = (
        scores_of(filter, rows[:, at:], np.array([elapsed_s], np.float32))[0, -1]
        for at, elapsed_s in (
            (0, [ENDLESS_S, 0.48, 0.48, 0.48]),
            (0, [ENDLESS_S, 0.48, 0.48, 100.0]),
            (3, [ENDLESS_S]),
        )
    )
    np.testing.assert_allclose(far, fresh, atol=1e-5)
    assert np.abs(near - fresh).max() > 0.005
