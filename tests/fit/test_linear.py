"""The softmax regression on single patches, without torch."""

import numpy as np
import pytest

from streamtwl.training import linear
from streamtwl.training.linear import FLOOR, Features

LABELS, CATEGORIES, EMBEDDING = 2, 6, 3
IS_POSTERIOR = np.arange(CATEGORIES + EMBEDDING) < CATEGORIES


def rows_of(n: int, seed: int = 0) -> np.ndarray:
    """Return float16[n, F]: scores, then numbers of either sign."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0, 1, (n, CATEGORIES)) ** 3
    return np.hstack((scores, rng.normal(size=(n, EMBEDDING)))).astype(np.float16)


def problem(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows, and bool[n, L]: label 0 shows in a score, label 1 in an embedding."""
    rows = rows_of(n, seed)
    sounding = np.random.default_rng(seed + 100).random((n, LABELS)) < 0.3
    rows[:, 2] = np.where(sounding[:, 0], 0.9, 0.01)
    rows[:, CATEGORIES + 1] = np.where(sounding[:, 1], 2.0, -1.0)
    return rows, sounding


def test_features_are_logarithms_of_scores_and_embeddings_as_they_are():
    rows = rows_of(200)
    features = Features.of(rows, IS_POSTERIOR)
    logs = rows.astype(np.float64)
    logs[:, :CATEGORIES] = np.log(logs[:, :CATEGORIES] + FLOOR)
    expected = (logs - logs.mean(axis=0)) / logs.std(axis=0)
    np.testing.assert_allclose(features(rows), expected, atol=2e-4)
    np.testing.assert_array_equal(rows, rows_of(200))  # as it was


def test_a_category_that_is_always_silent_or_never_scored_before_stays_small():
    rows = rows_of(20)
    rows[:, 2] = 0
    features = Features.of(rows, IS_POSTERIOR)
    for value in (0.0, 3e-8, 1.0):
        rows[:, 2] = value
        assert np.abs(features(rows)[:, 2]).max() < 14 / linear.LEAST_SCALE
    rows[:, 2] = 3e-8  # nothing that is worth a word
    assert np.abs(features(rows.astype(np.float32))[:, 2]).max() < 10


def test_it_learns_which_column_is_whose():
    model = linear.fit(*with_mask(problem(400, 1)), 1e-3)
    rows, sounding = problem(200, 2)
    found = np.exp(model(rows))
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    single = sounding.sum(axis=1) <= 1
    expected = np.where(sounding.any(axis=1), sounding.argmax(axis=1), LABELS)
    assert (found.argmax(axis=1) == expected)[single].mean() > 0.95
    assert (found[sounding.all(axis=1)][:, :2] > 0.2).all()  # where two sound, each is half


def with_mask(made: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows, sounding = made
    return rows, IS_POSTERIOR, sounding


def test_the_prior_is_the_share_of_time():
    rows, sounding = problem(300, 3)
    model = linear.fit(rows, IS_POSTERIOR, sounding, 1e-3)
    share = linear.shares(sounding).mean(axis=0)
    np.testing.assert_allclose(np.exp(model.log_prior), share, rtol=1e-4)
    never = linear.fit(rows, IS_POSTERIOR, np.zeros_like(sounding), 1e-3)
    assert np.isfinite(never(rows)).all()


def test_it_is_where_the_penalised_loss_is_least():
    """A step in any direction from it makes it worse; from a start elsewhere it comes there too."""
    rows, sounding = problem(300, 1)
    model = linear.fit(rows, IS_POSTERIOR, sounding, 1e-2)
    target, features = linear.shares(sounding), model.features(rows).astype(np.float64)

    def loss(weight: np.ndarray) -> float:
        logits = features @ weight.T + model.bias
        logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return -(target * logs).sum(axis=1).mean() + 1e-2 / 2 * np.square(weight).sum()

    rng = np.random.default_rng(0)
    least = loss(model.weight)
    for _ in range(20):
        assert loss(model.weight + 0.05 * rng.normal(size=model.weight.shape)) > least
    start = linear.fit(rows, IS_POSTERIOR, sounding, 1.0)
    again = linear.fit(rows, IS_POSTERIOR, sounding, 1e-2, start)
    np.testing.assert_allclose(again.weight, model.weight, atol=5e-3)


@pytest.mark.parametrize("penalty", [1e-4, 1.0])
def test_a_penalty_keeps_weights_small(penalty):
    model = linear.fit(*with_mask(problem(300, 1)), penalty)
    size = np.linalg.norm(model.weight)
    assert size > 3 if penalty < 1 else size < 1
