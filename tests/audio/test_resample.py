import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from streamtwl.audio.resample import Resampler
from streamtwl.errors import AudioError

RATES = [8000, 11025, 16000, 22050, 44100, 48000, 96000, 192000]


def noise(length: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(3).standard_normal(length)).astype(np.float32)


def resampled(samples: np.ndarray, rate: int, sizes: list[int]) -> np.ndarray:
    resampler, given, at, i = Resampler(rate), [], 0, 0
    while at < len(samples):
        size = sizes[i % len(sizes)]
        given.append(resampler.push(samples[at : at + size]))
        at, i = at + size, i + 1
    return np.concatenate([*given, resampler.flush()])


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("seconds", [0.01, 1.0, 2.71])
def test_length_is_right_to_a_sample(rate, seconds):
    length = int(seconds * rate)
    given = resampled(noise(length), rate, [rate // 50])
    assert given.dtype == np.float32
    assert abs(len(given) - length * 16_000 / rate) <= 1


@pytest.mark.parametrize("rate", RATES)
def test_equals_the_whole_clip_resampled_at_once(rate):
    samples = noise(rate)
    given = resampled(samples, rate, [441])
    whole = soxr.resample(samples, rate, 16_000, quality="HQ") if rate != 16_000 else samples
    shared = min(len(given), len(whole))
    assert abs(len(given) - len(whole)) <= 1
    np.testing.assert_allclose(given[:shared], whole[:shared], rtol=0, atol=1e-5)


@given(
    rate=st.sampled_from(RATES),
    length=st.integers(0, 20_000),
    sizes=st.lists(st.integers(1, 10_000), min_size=1, max_size=6),
)
@settings(max_examples=40)
def test_block_sizes_do_not_matter(rate, length, sizes):
    samples = noise(length)
    given, whole = resampled(samples, rate, sizes), resampled(samples, rate, [max(1, length)])
    assert len(given) == len(whole)
    np.testing.assert_allclose(given, whole, rtol=0, atol=1e-6)


def test_a_tone_keeps_its_pitch_and_level():
    tone = np.sin(2 * np.pi * 1000 * np.arange(48_000) / 48_000).astype(np.float32)
    given = resampled(tone, 48_000, [960])
    expected = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(given[200:-200], expected[200:-200], rtol=0, atol=1e-3)


@pytest.mark.parametrize("rate", RATES)
def test_delay_is_what_has_not_come_out(rate):
    resampler = Resampler(rate)
    out = sum(len(resampler.push(noise(rate // 50))) for _ in range(25))
    taken_s = 25 * (rate // 50) / rate
    assert resampler.delay_s == pytest.approx(taken_s - out / 16_000)
    assert resampler.delay_s >= -1 / 16_000
    resampler.flush()
    assert abs(resampler.delay_s) <= 1 / 16_000


@pytest.mark.parametrize("rate", [0, -1, 3999, 768_001])
def test_rates_beyond_the_range_are_refused(rate):
    with pytest.raises(AudioError, match=f"{rate} Hz.*4000 to 768000"):
        Resampler(rate)


def test_resamplers_of_the_limits_are_made():
    assert len(resampled(noise(8000), 8000, [8000])) == 16_000
    assert len(resampled(noise(19_200), 192_000, [19_200])) == 1600
