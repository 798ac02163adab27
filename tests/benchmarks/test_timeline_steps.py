"""The timeline baselines' models, step by step, against their definitions written out in numpy."""

import itertools

import numpy as np
import pytest
import torch
from timeline_baselines import GAP_S, Gru, MovingAverage, WindowTop, smooth

from streamtwl.reasoners.recurrent import ENDLESS_S
from streamtwl.training import steps
from tests.fitted import random_patch_model
from tests.training.test_steps import (
    CARD,
    CATEGORIES,
    LABELS,
    gives_the_scores_of_its_model,
    likelihoods,
    patch_model,
    posteriors_of,
    seconds,
    transition,
)

# Smoother


def all_paths(step: steps.Filter, posterior: torch.Tensor, elapsed_s: list[float]) -> np.ndarray:
    """float64[T, L + 1], each state's share of all state paths, weighed by their probability."""
    evidence = likelihoods(step, posterior)
    matrices = [transition(step, each) for each in elapsed_s]
    prior = np.exp(step.patch.log_prior.double().numpy())
    shares = np.zeros(evidence.shape)
    for path in itertools.product(range(evidence.shape[1]), repeat=len(evidence)):
        weight = prior[path[0]] * np.prod([evidence[t, state] for t, state in enumerate(path)])
        weight *= np.prod([matrices[t][path[t], path[t + 1]] for t in range(len(matrices))])
        shares[range(len(evidence)), path] += weight
    return shares / shares.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(4))
def test_the_smoother_is_what_all_state_paths_add_up_to(seed):
    patch = steps.PatchModel(random_patch_model(CATEGORIES, 2, seed))
    step = steps.Filter(patch, duration_s=0.8, exponent=0.7)
    posteriors = posteriors_of(2, 5, seed=seed)
    elapsed_s = [[0.48, 0.48, 0.1, 3.0], [0.05, 0.9, 0.48, 0.48]]
    found = smooth(step, posteriors.numpy(), seconds(*elapsed_s).numpy())
    assert found.shape == (2, 5, 2)
    for n in range(2):
        expected = all_paths(step, posteriors[n], elapsed_s[n])[:, :-1]
        np.testing.assert_allclose(found[n], expected, atol=2e-5)


def test_at_the_last_patch_the_smoother_knows_no_more_than_the_filter():
    step = steps.Filter(patch_model(), 1.0, 0.7)
    posteriors, elapsed_s = posteriors_of(3, 20), seconds(*[[0.48] * 19] * 3)
    smoothed = smooth(step, posteriors.numpy(), elapsed_s.numpy())
    filtered = steps.run(step, posteriors, elapsed_s)
    np.testing.assert_allclose(smoothed[:, -1], filtered[:, -1], atol=1e-5)
    assert np.abs(smoothed[:, :-1] - filtered[:, :-1].numpy()).max() > 0.05


def test_the_smoother_does_not_underflow():
    patch = steps.PatchModel(random_patch_model(CATEGORIES, len(LABELS), std=40))
    step, elapsed_s = steps.Filter(patch, 0.5, 1.0), seconds(*[[0.01] * 149] * 2)
    assert np.isfinite(smooth(step, posteriors_of(2, 150).numpy(), elapsed_s.numpy())).all()


def gru(seed: int = 0) -> Gru:
    torch.manual_seed(seed)
    return Gru(patch_model(seed).features, len(LABELS), hidden=5).requires_grad_(False).eval()


# Moving average, window top, GRU


@pytest.mark.parametrize("half_life_s", [0.3, 1.2])
def test_the_past_of_the_moving_average_halves_in_its_half_life(half_life_s):
    step = MovingAverage(patch_model(), half_life_s)
    posteriors = posteriors_of(1, 3)
    evidence = torch.exp(step.patch(posteriors))[0, :, :-1]
    found = steps.run(step, posteriors, seconds([half_life_s, 2 * half_life_s]))[0]
    np.testing.assert_allclose(found[0], evidence[0], rtol=1e-6)
    np.testing.assert_allclose(found[1], (evidence[0] + evidence[1]) / 2, rtol=1e-5)
    np.testing.assert_allclose(found[2], found[1] / 4 + 3 * evidence[2] / 4, rtol=1e-5)


def test_window_top_keeps_only_the_strongest_and_nothing_where_none_is():
    patch = patch_model()
    patch.weight.zero_()
    for bias, expected in (
        ([1.0, 3.0, 2.0, 0.0], [0, np.e**3, 0]),
        ([1.0, 3.0, 2.0, 4.0], [0, 0, 0]),
    ):
        patch.bias = torch.tensor(bias)
        found = steps.run(WindowTop(patch), posteriors_of(1, 1), seconds([]))[0, 0]
        np.testing.assert_allclose(found, np.array(expected) / np.exp(bias).sum(), rtol=1e-5)


def test_window_top_has_no_memory():
    step = WindowTop(patch_model())
    posteriors = posteriors_of(1, 6)
    together = steps.run(step, posteriors, seconds([0.48] * 5))[0]
    for t in range(6):
        alone = steps.run(step, posteriors[:, t : t + 1], seconds([]))[0, 0]
        np.testing.assert_allclose(together[t], alone, rtol=1e-5)


def test_the_gru_reads_a_stream_as_it_steps():
    model = gru()
    posteriors = posteriors_of(3, 9)
    at_once, last = model.read_stream(posteriors, torch.zeros(3, 5))
    stepped = steps.run(model, posteriors, seconds(*[[0.48] * 8] * 3))
    np.testing.assert_allclose(stepped, at_once, atol=1e-6)
    assert last.shape == (3, 5)
    backwards, _ = model.read_stream(posteriors.flip(1), torch.zeros(3, 5))
    assert (backwards.flip(1) - at_once).abs().max() > 1e-3  # it does remember


@pytest.mark.parametrize(
    ("gap_s", "anew"), [(GAP_S, False), (GAP_S + 0.01, True), (ENDLESS_S, True)]
)
def test_the_gru_starts_anew_after_a_gap(gap_s, anew):
    model = gru()
    posteriors = posteriors_of(1, 5)
    fresh = steps.run(model, posteriors[:, 3:], seconds([0.48]))[0]
    found = steps.run(model, posteriors, seconds([0.48, 0.48, gap_s, 0.48]))[0, 3:]
    assert torch.allclose(found, fresh, atol=1e-6) == anew


@pytest.mark.parametrize(
    "model",
    [WindowTop(patch_model()), MovingAverage(patch_model(), 0.5), gru()],
    ids=["top", "average", "gru"],
)
def test_its_file_gives_the_scores_of_its_model(model, tmp_path):
    model.train()  # as a loop of training leaves it: a file has no dropout all the same
    steps.export(model, CATEGORIES, CARD, tmp_path / "model.onnx")
    gives_the_scores_of_its_model(model.eval(), tmp_path / "model.onnx")
