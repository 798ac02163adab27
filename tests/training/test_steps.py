"""The models that read a stream step by step, against their definitions written out in numpy."""

import itertools

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from streamtwl.reasoners import graph
from streamtwl.reasoners.card import Card
from streamtwl.reasoners.recurrent import ENDLESS_S, Recurrent
from streamtwl.training import steps
from tests.patches import patches

RATE = 16_000
HOP = 7680
CATEGORIES = 6
LABELS = ["dog", "rain", "saw"]


def log_posterior(seed: int = 0) -> steps.LogPosterior:
    posteriors = np.random.default_rng(seed).uniform(0, 1, (50, CATEGORIES)) ** 3
    return steps.LogPosterior(torch.from_numpy(posteriors.astype("f4")))


def patch_model(seed: int = 0, labels: int = len(LABELS)) -> steps.PatchModel:
    torch.manual_seed(seed)
    model = steps.PatchModel(log_posterior(seed), labels)
    model.log_prior = torch.log_softmax(torch.randn(labels + 1), dim=0)
    torch.nn.init.normal_(model.linear.weight)
    return model.requires_grad_(False)


def gru(seed: int = 0) -> steps.Gru:
    torch.manual_seed(seed)
    return steps.Gru(log_posterior(seed), len(LABELS), hidden=5).requires_grad_(False).eval()


def heard(*shape: int, seed: int = 1) -> torch.Tensor:
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
    weight, bias = patch.linear.weight.double().numpy(), patch.linear.bias.double().numpy()
    odds = np.exp(features @ weight.T + bias)
    probabilities = odds / odds.sum(axis=-1, keepdims=True)
    return (probabilities / np.exp(patch.log_prior.double().numpy())) ** step.exponent


def transition(step: steps.Filter, elapsed_s: float) -> np.ndarray:
    prior = np.exp(step.patch.log_prior.double().numpy())
    stays = np.exp(-elapsed_s / step.duration_s)
    return stays * np.eye(len(prior)) + (1 - stays) * np.outer(np.ones(len(prior)), prior)


# Features and patch model


def test_features_of_the_training_data_have_no_mean_and_unit_variance():
    posteriors = heard(200)
    features = steps.LogPosterior(posteriors)(posteriors)
    np.testing.assert_allclose(features.mean(dim=0), 0, atol=1e-5)
    np.testing.assert_allclose(features.std(dim=0), 1, atol=1e-4)


def test_a_category_that_is_always_silent_or_never_heard_before_stays_finite():
    posteriors = heard(20)
    posteriors[:, 2] = 0
    features = steps.LogPosterior(posteriors)
    assert torch.isfinite(features(torch.zeros(1, CATEGORIES))).all()
    assert torch.isfinite(features(torch.ones(1, CATEGORIES))).all()


def test_probabilities_of_a_patch_are_of_labels_and_none():
    probabilities = torch.exp(patch_model()(heard(4, 3)))
    assert probabilities.shape == (4, 3, len(LABELS) + 1)
    np.testing.assert_allclose(probabilities.sum(dim=-1), 1, rtol=1e-5)


# Filter and smoother

gaps = st.lists(st.sampled_from([0.0, 0.01, 0.48, 2.0, 60.0]), min_size=4, max_size=4)


@settings(max_examples=25)
@given(st.integers(0, 1000), gaps, st.floats(0.1, 5.0), st.floats(0.2, 1.5))
def test_the_filter_is_the_forward_algorithm(seed, elapsed_s, duration_s, exponent):
    step = steps.Filter(patch_model(seed), duration_s, exponent)
    posteriors = heard(1, 5, seed=seed)
    given = likelihoods(step, posteriors)[0]
    alpha = np.exp(step.patch.log_prior.double().numpy()) * given[0]
    expected = [alpha / alpha.sum()]
    for t, elapsed in enumerate(elapsed_s, 1):
        alpha = (expected[-1] @ transition(step, elapsed)) * given[t]
        expected.append(alpha / alpha.sum())
    found = steps.run(step, posteriors, seconds(elapsed_s))[0]
    np.testing.assert_allclose(found, np.array(expected)[:, :-1], atol=1e-4)


def all_paths(step: steps.Filter, posterior: torch.Tensor, elapsed_s: list[float]) -> np.ndarray:
    """float64[T, L + 1], each state's share of all state paths, weighed by their probability."""
    given = likelihoods(step, posterior)
    matrices = [transition(step, each) for each in elapsed_s]
    prior = np.exp(step.patch.log_prior.double().numpy())
    shares = np.zeros(given.shape)
    for path in itertools.product(range(given.shape[1]), repeat=len(given)):
        weight = prior[path[0]] * np.prod([given[t, state] for t, state in enumerate(path)])
        weight *= np.prod([matrices[t][path[t], path[t + 1]] for t in range(len(matrices))])
        shares[range(len(given)), path] += weight
    return shares / shares.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(4))
def test_the_smoother_is_what_all_state_paths_add_up_to(seed):
    step = steps.Filter(patch_model(seed, labels=2), duration_s=0.8, exponent=0.7)
    posteriors = heard(2, 5, seed=seed)
    elapsed_s = [[0.48, 0.48, 0.1, 3.0], [0.05, 0.9, 0.48, 0.48]]
    found = step.smooth(posteriors, seconds(*elapsed_s))
    assert found.shape == (2, 5, 2)
    for n in range(2):
        expected = all_paths(step, posteriors[n], elapsed_s[n])[:, :-1]
        np.testing.assert_allclose(found[n], expected, atol=2e-5)


def test_at_the_last_patch_the_smoother_knows_no_more_than_the_filter():
    step = steps.Filter(patch_model(), 1.0, 0.7)
    posteriors, elapsed_s = heard(3, 20), seconds(*[[0.48] * 19] * 3)
    smoothed, filtered = step.smooth(posteriors, elapsed_s), steps.run(step, posteriors, elapsed_s)
    np.testing.assert_allclose(smoothed[:, -1], filtered[:, -1], atol=1e-5)
    assert np.abs(smoothed[:, :-1] - filtered[:, :-1].numpy()).max() > 0.05


def test_a_long_gap_makes_the_filter_forget_and_a_short_one_does_not():
    step = steps.Filter(patch_model(), 1.0, 0.3)
    posteriors = heard(1, 4)
    [fresh] = steps.run(step, posteriors[:, 3:], seconds([]))[0]

    def after(gap_s: float) -> torch.Tensor:
        return steps.run(step, posteriors, seconds([0.48, 0.48, gap_s]))[0, -1]

    np.testing.assert_allclose(after(100.0), fresh, atol=1e-5)
    assert (after(0.48) - fresh).abs().max() > 0.02


def test_long_certainty_does_not_underflow():
    step = steps.Filter(patch_model(), 0.5, 1.0)
    torch.nn.init.normal_(step.patch.linear.weight, std=40)
    found = steps.run(step, heard(2, 150), seconds(*[[0.01] * 149] * 2))
    assert torch.isfinite(found).all()
    assert ((found >= 0) & (found.sum(dim=-1, keepdim=True) < 1.0001)).all()
    assert np.isfinite(step.smooth(heard(2, 150), seconds(*[[0.01] * 149] * 2))).all()


# Moving average, window top, GRU


@pytest.mark.parametrize("half_life_s", [0.3, 1.2])
def test_the_past_of_the_moving_average_halves_in_its_half_life(half_life_s):
    step = steps.MovingAverage(patch_model(), half_life_s)
    posteriors = heard(1, 3)
    given = torch.exp(step.patch(posteriors))[0, :, :-1]
    found = steps.run(step, posteriors, seconds([half_life_s, 2 * half_life_s]))[0]
    np.testing.assert_allclose(found[0], given[0], rtol=1e-6)
    np.testing.assert_allclose(found[1], (given[0] + given[1]) / 2, rtol=1e-5)
    np.testing.assert_allclose(found[2], found[1] / 4 + 3 * given[2] / 4, rtol=1e-5)


def test_window_top_keeps_only_the_strongest_and_nothing_where_none_is():
    patch = patch_model()
    torch.nn.init.zeros_(patch.linear.weight)
    for bias, expected in (
        ([1.0, 3.0, 2.0, 0.0], [0, np.e**3, 0]),
        ([1.0, 3.0, 2.0, 4.0], [0, 0, 0]),
    ):
        patch.linear.bias = torch.nn.Parameter(torch.tensor(bias), requires_grad=False)
        found = steps.run(steps.WindowTop(patch), heard(1, 1), seconds([]))[0, 0]
        np.testing.assert_allclose(found, np.array(expected) / np.exp(bias).sum(), rtol=1e-5)


def test_window_top_has_no_memory():
    step = steps.WindowTop(patch_model())
    posteriors = heard(1, 6)
    together = steps.run(step, posteriors, seconds([0.48] * 5))[0]
    for t in range(6):
        alone = steps.run(step, posteriors[:, t : t + 1], seconds([]))[0, 0]
        np.testing.assert_allclose(together[t], alone, rtol=1e-5)


def test_the_gru_reads_a_stream_as_it_steps():
    model = gru()
    posteriors = heard(3, 9)
    at_once, last = model.read_stream(posteriors, torch.zeros(3, 5))
    stepped = steps.run(model, posteriors, seconds(*[[0.48] * 8] * 3))
    np.testing.assert_allclose(stepped, at_once, atol=1e-6)
    assert last.shape == (3, 5)
    backwards, _ = model.read_stream(posteriors.flip(1), torch.zeros(3, 5))
    assert (backwards.flip(1) - at_once).abs().max() > 1e-3  # it does remember


@pytest.mark.parametrize(
    ("gap_s", "anew"), [(steps.GAP_S, False), (steps.GAP_S + 0.01, True), (ENDLESS_S, True)]
)
def test_the_gru_starts_anew_after_a_gap(gap_s, anew):
    model = gru()
    posteriors = heard(1, 5)
    fresh = steps.run(model, posteriors[:, 3:], seconds([0.48]))[0]
    found = steps.run(model, posteriors, seconds([0.48, 0.48, gap_s, 0.48]))[0, 3:]
    assert torch.allclose(found, fresh, atol=1e-6) == anew


def test_seconds_since_the_patch_before():
    positions = np.array([15_600, 23_280, 23_280 + RATE, 40_000])
    found = steps.elapsed(positions, RATE)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [ENDLESS_S, 0.48, 1.0, 720 / RATE], rtol=1e-6)


# As a reasoner's file


def models() -> dict[str, steps.Step]:
    return {
        "top": steps.WindowTop(patch_model()),
        "average": steps.MovingAverage(patch_model(), 0.5),
        "filter": steps.Filter(patch_model(), 1.0, 0.7),
        "gru": gru(),
    }


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


@pytest.fixture(scope="module", params=["top", "average", "filter", "gru"])
def exported(request, tmp_path_factory):
    """(a model, its file); exporting takes seconds."""
    model = models()[request.param]
    model.train()  # as a loop of training leaves it: a file has no dropout all the same
    path = tmp_path_factory.mktemp("reasoners") / f"{request.param}.onnx"
    steps.export(model, CATEGORIES, CARD, path)
    return model.eval(), path


def test_a_file_gives_the_scores_of_its_model(exported):
    """Three streams: one has a gap, one joins later, one leaves early; so S is 2, 3 and 1."""
    model, path = exported
    posteriors = heard(3, 8)
    positions = np.stack([15_600 + HOP * np.arange(8)] * 3)
    positions[1, 5:] += 5 * RATE
    first, stop = [0, 0, 3], [8, 7, 6]
    expected = [
        steps.run(
            model,
            posteriors[n : n + 1, first[n] : stop[n]],
            torch.from_numpy(steps.elapsed(positions[n, first[n] : stop[n]], RATE))[None],
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
    assert (reasoner.kind, reasoner.labels) == ("toy", LABELS)


def test_a_file_stands_alone(exported):
    _, path = exported
    onnx.checker.check_model(onnx.load(path, load_external_data=False), full_check=True)
    assert [each.name for each in path.parent.iterdir()] == [path.name]  # no weights beside it


def test_a_file_holds_no_path_of_the_machine_it_was_made_on(tmp_path):
    steps.export(steps.WindowTop(patch_model()), CATEGORIES, CARD, tmp_path / "top.onnx")
    written = (tmp_path / "top.onnx").read_bytes()
    assert b".py" not in written
    assert b"stack_trace" not in written
