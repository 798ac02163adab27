import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamtwl.features.log_mel import (
    YAMNET_BANDS,
    YAMNET_RANGE_HZ,
    LogMel,
    mel_weights,
    yamnet,
)
from streamtwl.features.spectrum import Spectrum
from tests.patches import log_mel


def mel_matrix() -> np.ndarray:
    """tf.signal.linear_to_mel_weight_matrix(64, 257, 16000, 125, 7500), bin by bin, float64."""

    def mel(hz: float) -> float:
        return 1127 * math.log(1 + hz / 700)

    edges = [mel(125) + i * (mel(7500) - mel(125)) / 65 for i in range(66)]
    weights = np.zeros((257, 64))
    for k in range(1, 257):
        for band in range(64):
            lower, centre, upper = edges[band : band + 3]
            at = mel(k * 16_000 / 512)
            slopes = (at - lower) / (centre - lower), (upper - at) / (upper - centre)
            weights[k, band] = max(0.0, min(slopes))
    return weights


def whole_clip(samples: np.ndarray) -> np.ndarray:
    """YAMNet's front end on a whole clip, one frame after the other, float64."""
    hann = [0.5 - 0.5 * math.cos(2 * math.pi * i / 400) for i in range(400)]
    weights = mel_matrix()
    frames = [
        np.log(np.abs(np.fft.rfft(samples[i : i + 400].astype(np.float64) * hann, 512)) @ weights
               + 0.001)
        for i in range(0, len(samples) - 399, 160)
    ]  # fmt: skip
    return np.array(frames).reshape(-1, 64)


def streamed(samples: np.ndarray, sizes: list[int]) -> np.ndarray:
    """Push samples in blocks of these sizes, over and over."""
    spectrum, front_end, given, at, i = Spectrum(), LogMel(yamnet), [], 0, 0
    while at < len(samples):
        block = samples[at : at + sizes[i % len(sizes)]]
        given.append(front_end.push(block, spectrum.push(block)))
        at, i = at + sizes[i % len(sizes)], i + 1
    return np.concatenate(given)


@pytest.mark.parametrize("size", [1, 160, 441, 100_000])
def test_noise_gives_the_reference_frames_in_blocks_of(size, noise):
    np.testing.assert_allclose(streamed(noise, [size]), whole_clip(noise), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [1, 160, 441, 100_000])
def test_real_audio_gives_the_reference_frames_in_blocks_of(size, real_audio):
    reference = whole_clip(real_audio)
    assert len(reference) == (len(real_audio) - 400) // 160 + 1
    np.testing.assert_allclose(streamed(real_audio, [size]), reference, rtol=0, atol=1e-4)


@given(
    length=st.integers(1, 4000),
    sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=8),
    seed=st.integers(0, 99),
)
def test_block_sizes_do_not_matter(length, sizes, seed):
    samples = np.random.default_rng(seed).uniform(-1, 1, length).astype(np.float32)
    np.testing.assert_allclose(streamed(samples, sizes), whole_clip(samples), rtol=0, atol=1e-4)


def test_an_empty_block_changes_nothing(noise):
    spectrum = Spectrum()
    first = yamnet(spectrum.push(noise[:700]))
    assert yamnet(spectrum.push(noise[:0])).shape == (0, 64)
    frames = np.concatenate((first, yamnet(spectrum.push(noise[700:]))))
    np.testing.assert_allclose(frames, whole_clip(noise), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("samples", "frames"), [(399, 0), (400, 1), (559, 1), (560, 2)])
def test_a_frame_comes_when_its_last_sample_does(samples, frames):
    assert len(log_mel(np.zeros(samples, np.float32))) == frames


def test_silence_is_the_log_of_the_offset():
    frames = log_mel(np.zeros(400, np.float32))
    assert frames.dtype == np.float32
    np.testing.assert_allclose(frames, math.log(0.001), rtol=1e-6)


def test_mel_weights_are_tensorflows():
    np.testing.assert_allclose(
        mel_weights(YAMNET_BANDS, YAMNET_RANGE_HZ), mel_matrix(), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros(400, np.float64),
        np.zeros(400, np.int16),
        np.zeros((400, 1), np.float32),
        np.float32(0),
    ],
    ids=["float64", "int16", "two-dimensional", "scalar"],
)
def test_anything_but_float32_in_one_dimension_is_refused(wrong):
    with pytest.raises(ValueError, match="float32"):
        Spectrum().push(wrong)
