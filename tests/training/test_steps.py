"""The models that read a stream step by step, against their definitions written out in numpy."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from streamtwl.reasoners import graph
from streamtwl.reasoners.card import Card
from streamtwl.reasoners.recurrent import ENDLESS_S, Recurrent
from streamtwl.training import fitting, hmm, schedule, steps
from tests.fitted import random_patch_model
from tests.patches import patches

RATE = 16_000
HOP = 7680
CATEGORIES = 6
LABELS = ["dog", "rain", "saw"]


def patch_model(seed: int = 0) -> steps.PatchModel:
    return steps.PatchModel(random_patch_model(CATEGORIES, len(LABELS), seed))


def posteriors_of(*shape: int, seed: int = 1) -> torch.Tensor:
    """Posteriors float32[*shape, C]."""
    values = np.random.default_rng(seed).uniform(0, 1, (*shape, CATEGORIES)) ** 3
    return torch.from_numpy(values.astype(np.float32))


def seconds(*rows: list[float]) -> torch.Tensor:
    """float32[n, T] seconds since the patch before, of what came after the first patch."""
    return torch.tensor([[ENDLESS_S, *row] for row in rows])


def likelihoods(step: steps.Filter, posterior: torch.Tensor) -> np.ndarray:
    """float64[..., L + 1] (p(label | patch) / prior) ** exponent, from the weights themselves."""
    patch = step.patch
    mean, scale = patch.features.mean.double().numpy(), patch.features.scale.double().numpy()
    features = (np.log(posterior.double().numpy() + 1e-6) - mean) / scale
    weight, bias = patch.weight.double().numpy(), patch.bias.double().numpy()
    odds = np.exp(features @ weight.T + bias)
    probabilities = odds / odds.sum(axis=-1, keepdims=True)
    return (probabilities / np.exp(patch.log_prior.double().numpy())) ** step.exponent


def transition(step: steps.Filter, elapsed_s: float) -> np.ndarray:
    prior = np.exp(step.patch.log_prior.double().numpy())
    stays = np.exp(-elapsed_s / step.duration_s)
    return stays * np.eye(len(prior)) + (1 - stays) * np.outer(np.ones(len(prior)), prior)


# Features and patch model


def test_a_module_gives_what_the_fitted_model_gives():
    fitted = random_patch_model(CATEGORIES, len(LABELS), embedding=4)
    rows = np.random.default_rng(1).normal(size=(3, 5, CATEGORIES + 4)).astype(np.float32)
    rows[..., :CATEGORIES] = rows[..., :CATEGORIES] ** 2 % 1
    found = steps.PatchModel(fitted)(torch.from_numpy(rows))
    np.testing.assert_allclose(found, fitted(rows), atol=1e-5)


def test_probabilities_of_a_patch_are_of_labels_and_none():
    probabilities = torch.exp(patch_model()(posteriors_of(4, 3)))
    assert probabilities.shape == (4, 3, len(LABELS) + 1)
    np.testing.assert_allclose(probabilities.sum(dim=-1), 1, rtol=1e-5)


# Filter

gaps = st.lists(st.sampled_from([0.0, 0.01, 0.48, 2.0, 60.0]), min_size=4, max_size=4)


@settings(max_examples=25)
@given(st.integers(0, 1000), gaps, st.floats(0.1, 5.0), st.floats(0.2, 1.5))
def test_the_filter_is_the_forward_algorithm(seed, elapsed_s, duration_s, exponent):
    step = steps.Filter(patch_model(seed), duration_s, exponent)
    posteriors = posteriors_of(1, 5, seed=seed)
    given = likelihoods(step, posteriors)[0]
    alpha = np.exp(step.patch.log_prior.double().numpy()) * given[0]
    expected = [alpha / alpha.sum()]
    for t, elapsed in enumerate(elapsed_s, 1):
        alpha = (expected[-1] @ transition(step, elapsed)) * given[t]
        expected.append(alpha / alpha.sum())
    found = steps.run(step, posteriors, seconds(elapsed_s))[0]
    np.testing.assert_allclose(found, np.array(expected)[:, :-1], atol=1e-4)


def test_a_long_gap_makes_the_filter_forget_and_a_short_one_does_not():
    step = steps.Filter(patch_model(), 1.0, 0.3)
    posteriors = posteriors_of(1, 4)
    [fresh] = steps.run(step, posteriors[:, 3:], seconds([]))[0]

    def after(gap_s: float) -> torch.Tensor:
        return steps.run(step, posteriors, seconds([0.48, 0.48, gap_s]))[0, -1]

    np.testing.assert_allclose(after(100.0), fresh, atol=1e-5)
    assert (after(0.48) - fresh).abs().max() > 0.02


def test_long_certainty_does_not_underflow():
    step = steps.Filter(patch_model(), 0.5, 1.0)
    step.patch.weight *= 40
    found = steps.run(step, posteriors_of(2, 150), seconds(*[[0.01] * 149] * 2))
    assert torch.isfinite(found).all()
    assert ((found >= 0) & (found.sum(dim=-1, keepdim=True) < 1.0001)).all()


# As a reasoner's file


CARD = Card(
    name="toy",
    about="a toy",
    kind="recurrent",
    backbone="yamnet",
    hop_s=0.48,
    labels=LABELS,
    on=0.4,
    off=0.2,
    data="none",
    folds=[2, 3],
    command="pytest",
    version="0",
    validation={"f1": 0.5},
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(a model, its file); exporting takes seconds."""
    model = steps.Filter(patch_model(), 1.0, 0.7)
    path = tmp_path_factory.mktemp("reasoners") / "filter.onnx"
    steps.export(model, CATEGORIES, CARD, path)
    return model.eval(), path


def test_a_file_gives_the_scores_of_its_model(exported):
    gives_the_scores_of_its_model(*exported)


def test_the_file_that_needs_no_torch_gives_the_scores_of_the_module(tmp_path):
    fitted = hmm.Filter(random_patch_model(CATEGORIES, len(LABELS)), 1.0, 0.7)
    hmm.write(fitted, CARD, tmp_path / "filter.onnx")
    gives_the_scores_of_its_model(steps.filter_of(fitted), tmp_path / "filter.onnx")


def gives_the_scores_of_its_model(model: torch.nn.Module, path: Path) -> None:
    """Three streams: one has a gap, one joins later, one leaves early; so S is 2, 3 and 1."""
    posteriors = posteriors_of(3, 8)
    positions = np.stack([15_600 + HOP * np.arange(8)] * 3)
    positions[1, 5:] += 5 * RATE
    first, stop = [0, 0, 3], [8, 7, 6]
    expected = [
        steps.run(
            model,
            posteriors[n : n + 1, first[n] : stop[n]],
            torch.from_numpy(fitting.elapsed(positions[n, first[n] : stop[n]]))[None],
        )[0]
        for n in range(3)
    ]
    reasoner = Recurrent(graph.load(path))
    sizes = []
    for t in range(8):
        streams = [n for n in (2, 0, 1) if first[n] <= t < stop[n]]
        sizes.append(len(streams))
        at = [int(positions[n, t]) for n in streams]
        decisions = reasoner.step(patches(streams, at, posteriors[streams, t].numpy()))
        for n, decision in zip(streams, decisions, strict=True):
            np.testing.assert_allclose(decision.scores, expected[n][t - first[n]], atol=1e-5)
    assert sizes == [2, 2, 2, 3, 3, 3, 2, 1]


def test_the_card_comes_back(exported):
    _, path = exported
    reasoner = Recurrent(graph.load(path))
    assert reasoner.card == CARD
    assert (reasoner.name, reasoner.labels) == ("toy", LABELS)


def test_a_file_stands_alone(exported):
    _, path = exported
    onnx.checker.check_model(onnx.load(path, load_external_data=False), full_check=True)
    assert [each.name for each in path.parent.iterdir()] == [path.name]  # no weights beside it


def test_a_file_holds_no_path_of_the_machine_it_was_made_on(tmp_path):
    steps.export(steps.Filter(patch_model(), 1.0, 0.7), CATEGORIES, CARD, tmp_path / "f.onnx")
    written = (tmp_path / "f.onnx").read_bytes()
    assert b".py" not in written
    assert b"stack_trace" not in written


@pytest.mark.parametrize("kept", [b"", b"PK", None])
def test_a_training_whose_state_is_damaged_begins_anew(kept, tmp_path, caplog):
    if kept is not None:
        (tmp_path / "state.pt").write_bytes(kept)
    assert schedule.load(tmp_path / "state.pt") is None
    assert ("is damaged" in caplog.text) == (kept is not None)
