"""Kaldi's filter bank, against its definition, frame by frame."""

import math

import numpy as np
import pytest

from streamtwl.features.fbank import Fbank

POWER = np.empty((0, 257), np.float32)  # the shared spectrum, which it does not need


def mel(hz: float) -> float:
    return 1127 * math.log(1 + hz / 700)


def triangles(bands: int) -> np.ndarray:
    """Kaldi's get_mel_banks(bands, 512, 16000, 20, 8000), bin by bin, float64[257, bands]."""
    step = (mel(8000) - mel(20)) / (bands + 1)
    weights = np.zeros((257, bands))
    for k in range(256):
        for band in range(bands):
            left = mel(20) + band * step
            rising, falling = (
                (mel(31.25 * k) - left) / step,
                (left + 2 * step - mel(31.25 * k)) / step,
            )
            weights[k, band] = max(0.0, min(rising, falling))
    return weights


def whole_clip(samples: np.ndarray, bands: int = 128) -> np.ndarray:
    """The filter bank of a whole clip, one frame after the other, float64."""
    hann = [0.5 - 0.5 * math.cos(2 * math.pi * i / 399) for i in range(400)]
    weights, frames = triangles(bands), []
    for start in range(0, len(samples) - 399, 160):
        frame = samples[start : start + 400].astype(float)
        frame -= frame.mean()
        emphasised = [x - 0.97 * frame[max(0, i - 1)] for i, x in enumerate(frame)]
        power = np.abs(np.fft.rfft(np.array(emphasised) * hann, 512)) ** 2
        frames.append(np.log(np.maximum(power @ weights, 2.0**-23)))
    return np.array(frames)


@pytest.mark.parametrize("size", [1, 160, 441, 100_000])
def test_frames_are_kaldis_in_blocks_of(size, noise):
    sound = noise[:4000] + 0.1  # a microphone's offset, which is taken out
    front_end = Fbank()
    parts = [front_end.push(sound[i : i + size], POWER) for i in range(0, len(sound), size)]
    found = np.concatenate(parts)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, whole_clip(sound), rtol=0, atol=1e-3)


def test_silence_is_the_floor_in_every_band():
    found = Fbank(40).push(np.zeros(560, np.float32), POWER)
    np.testing.assert_allclose(found, np.full((2, 40), math.log(2.0**-23)), rtol=1e-6)


def test_other_numbers_of_bands(noise):
    found = Fbank(40).push(noise[:560], POWER)
    np.testing.assert_allclose(found, whole_clip(noise[:560], 40), rtol=0, atol=1e-3)


def test_nothing_gives_no_frames():
    front_end = Fbank()
    assert front_end.push(np.empty(0, np.float32), POWER).shape == (0, 128)
    assert front_end.push(np.zeros(399, np.float32), POWER).shape == (0, 128)
    assert front_end.push(np.zeros(1, np.float32), POWER).shape == (1, 128)
