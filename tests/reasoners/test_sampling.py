from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamtwl.reasoners.sampling import Sampler, confidence_bin


def posteriors(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 521)).astype(np.float32) ** 8


def sampler(sources=("kitchen",), samples=16, traces=1, temperature=1.0, seed=0) -> Sampler:
    return Sampler(sources, samples, traces, temperature, seed)


def drawn(one: Sampler, heard: np.ndarray, stream: int = 0) -> np.ndarray:
    """Return int[P, M, K, 2]: what is drawn from these posteriors, one patch after the other."""
    return np.stack([one.draw(stream, each) for each in heard])


# --- draws ---


def test_the_same_seed_source_and_audio_give_the_same_samples():
    heard = posteriors(6)
    np.testing.assert_array_equal(drawn(sampler(), heard), drawn(sampler(), heard))


def test_what_else_runs_does_not_matter():
    heard, other = posteriors(6), posteriors(9, seed=1)
    alone = drawn(sampler(["kitchen"], traces=3), heard)
    crowd = sampler(["attic", "kitchen", "cellar"], traces=3)
    crowded = []
    for i, each in enumerate(heard):
        for _ in range(i % 3):
            crowd.draw(2, other[i])
        crowded.append(crowd.draw(1, each))
        crowd.draw(0, other[i + 1])
    np.testing.assert_array_equal(alone, np.stack(crowded))


def test_more_traces_leave_the_first_as_it_was():
    heard = posteriors(4)
    few, many = drawn(sampler(traces=2), heard), drawn(sampler(traces=5), heard)
    np.testing.assert_array_equal(few, many[:, :2])


@pytest.mark.parametrize(
    "other",
    [sampler(seed=1), sampler(seed=-1), sampler(["attic"])],
    ids=["seed 1", "seed -1", "source"],
)
def test_another_seed_or_source_draws_otherwise(other):
    heard = posteriors(4)
    assert (drawn(sampler(), heard) != drawn(other, heard)).mean() > 0.3


def test_traces_and_patches_have_samples_of_their_own():
    heard = np.repeat(posteriors(1), 3, axis=0)
    categories = drawn(sampler(traces=4, samples=64), heard)[..., 0].reshape(12, 64)
    assert len({row.tobytes() for row in categories}) == 12


@pytest.mark.parametrize(("traces", "samples"), [(1, 1), (3, 16), (2, 64)])
def test_samples_are_traces_by_draws_of_category_and_bin(traces, samples):
    heard = posteriors(1)[0]
    draws = sampler(traces=traces, samples=samples).draw(0, heard)
    assert draws.shape == (traces, samples, 2)
    assert draws[..., 0].min() >= 0
    assert draws[..., 0].max() < 521
    np.testing.assert_array_equal(draws[..., 1], confidence_bin(heard[draws[..., 0]]))


def chi_square(posterior, temperature: float, seed: int = 5) -> float:
    """Return the statistic of 40,000 draws against the normalised posterior."""
    one = sampler(samples=4000, temperature=temperature, seed=seed)
    heard = np.repeat(np.array([posterior], np.float32), 10, axis=0)
    counts = np.bincount(drawn(one, heard)[..., 0].ravel(), minlength=len(posterior))
    weights = np.array(posterior) ** (1 / temperature)
    expected = weights / weights.sum() * counts.sum()
    assert counts[expected == 0].sum() == 0
    likely = expected > 0
    return float(((counts - expected)[likely] ** 2 / expected[likely]).sum())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_normalised_posterior(temperature):
    posterior = [0.9, 0.0, 0.3, 0.05, 0.6, 0.0, 0.1]
    assert chi_square(posterior, temperature) < 18.47  # p = 0.001 at 4 degrees of freedom


def test_a_higher_temperature_evens_the_draws_out():
    heard = np.repeat(np.array([[0.9, 0.1, 0.1]], np.float32), 5, axis=0)
    shares = [
        (drawn(sampler(samples=4000, temperature=tau), heard)[..., 0] == 0).mean()
        for tau in (0.25, 0.5, 1, 2, 8)
    ]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.99
    assert shares[-1] < 0.5


@pytest.mark.parametrize("temperature", [0.1, 0.01, 0.001, 1e-6])
def test_a_temperature_near_zero_draws_the_likeliest(temperature):
    one = sampler(samples=100, temperature=temperature)
    draws = one.draw(0, np.array([0.1, 0.02, 0.3, 0.01], np.float32))
    assert set(draws[..., 0].ravel()) == {2}


def test_nothing_heard_draws_every_category_alike():
    heard = np.zeros((10, 5), np.float32)
    samples = drawn(sampler(samples=4000), heard)
    counts = Counter(samples[..., 0].ravel().tolist())
    assert set(counts) == {0, 1, 2, 3, 4}
    assert max(counts.values()) < 1.1 * min(counts.values())
    assert set(samples[..., 1].ravel()) == {0}


def test_a_single_certain_category_is_always_drawn():
    posterior = np.zeros(521, np.float32)
    posterior[520] = 1e-6
    assert set(drawn(sampler(samples=500), posterior[None])[..., 0].ravel()) == {520}


# --- confidence bins ---


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (0, 0),
        (1e-30, 0),
        (np.nextafter(np.float32(2**-12), np.float32(0)), 0),
        (2**-12, 1),
        (np.nextafter(np.float32(2**-11), np.float32(0)), 1),
        (2**-11, 2),
        (0.25, 11),
        (0.5, 12),
        (np.nextafter(np.float32(1), np.float32(0)), 12),
        (1, 13),
        (1.99, 13),
        (2, 14),
        (3.99, 14),
        (4, 15),
        (521, 15),
    ],
)
def test_a_bin_is_an_octave(score, expected):
    assert confidence_bin(score) == expected
    assert confidence_bin(np.array([score, score], np.float32)).tolist() == [expected] * 2


@given(st.floats(0, 600, width=32), st.floats(0, 600, width=32))
def test_bins_grow_with_scores(one, other):
    low, high = sorted((one, other))
    assert 0 <= confidence_bin(low) <= confidence_bin(high) <= 15


# --- streams ---


def test_a_stream_that_is_forgotten_begins_anew():
    given_ = posteriors(3)
    one = sampler(["a", "b"])
    first = drawn(one, given_)
    drawn(one, given_, stream=1)
    one.forget(0)
    one.forget(0)
    np.testing.assert_array_equal(drawn(one, given_), first)
