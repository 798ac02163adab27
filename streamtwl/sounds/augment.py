"""A recording as it may sound live: quieter, farther, noisier, duller, over something else.

Everything is drawn from a generator that the recording's own samples seed, so the same recordings
always give the same embeddings.
"""

from collections.abc import Iterator
from zlib import crc32

import numpy as np

from streamtwl.stages import SAMPLE_RATE

BED_DBFS = (-75.0, -50.0)  # of the room around a recording
LEVEL_DBFS = (-45.0, -18.0)  # RMS of the recording
SNR_DB = (5.0, 30.0)  # against noise; half of the variants
OVERLAP_DB = (0.0, 20.0)  # against another sound; a third of them
DECAY_S = (0.2, 0.8)  # in which a room's sound falls by 60 dB; half of them
WET = (0.2, 1.2)  # the room's share, as an amplitude
LOW_PASS_HZ = (2500.0, 7000.0)  # half of them
HIGH_PASS_HZ = (60.0, 400.0)
LEAD_S = (0.5, 3.5)  # of the room before the recording
TAIL_S = 2.0  # and after it


def variants(
    samples: np.ndarray, count: int, others: list[np.ndarray] | None = None
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield `count` times float32[m] with the recording in it, and the position where it begins.

    The first is the recording as it is, in a quiet room; `others` are sounds to overlap it with.
    """
    rng = np.random.default_rng(crc32(samples.tobytes()))
    others = others or []
    for number in range(count):
        sound = samples.astype(np.float64)
        if number:
            sound = _changed(sound, rng)
        lead = round(rng.uniform(*LEAD_S) * SAMPLE_RATE)
        length = lead + len(sound) + round(TAIL_S * SAMPLE_RATE)
        bed_dbfs = rng.uniform(*BED_DBFS)
        mix = noise(length, rng) * _amplitude(bed_dbfs)
        level = _rms(sound)
        if number and rng.random() < 0.5:
            mix += noise(length, rng) * level * _amplitude(-rng.uniform(*SNR_DB))
        if number and others and rng.random() < 1 / 3:
            other = others[rng.integers(len(others))]
            start = rng.integers(max(1, len(other) - len(sound)))
            piece = np.resize(other[start:], len(sound))
            gain = level / max(_rms(piece), 1e-9) * _amplitude(-rng.uniform(*OVERLAP_DB))
            mix[lead : lead + len(sound)] += gain * piece
        mix[lead : lead + len(sound)] += sound
        yield np.clip(mix, -1, 1).astype(np.float32), lead


def noise(length: int, rng: np.random.Generator) -> np.ndarray:
    """Return float64[length] of noise with RMS 1, white to brown."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    hz = np.fft.rfftfreq(length, 1 / SAMPLE_RATE)
    corner = 10 ** rng.uniform(1.5, 4)
    shaped = np.fft.irfft(spectrum / (1 + hz / corner) ** rng.choice([1, 2]), length)
    return shaped / max(_rms(shaped), 1e-9)


def _changed(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.5:
        sound = _reverberant(sound, rng.uniform(*DECAY_S), rng.uniform(*WET), rng)
    if rng.random() < 0.5:
        sound = _band_limited(sound, rng.uniform(*HIGH_PASS_HZ), rng.uniform(*LOW_PASS_HZ))
    gain = _amplitude(rng.uniform(*LEVEL_DBFS)) / max(_rms(sound), 1e-9)
    return sound * min(gain, 1 / max(np.abs(sound).max(), 1e-9))


def _reverberant(
    dry: np.ndarray, decay_s: float, wet: float, rng: np.random.Generator
) -> np.ndarray:
    """Add the tail of a room: convolution with noise that loses 60 dB in `decay_s`."""
    t = np.arange(round(decay_s * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(len(t)) * 10 ** (-3 * t / decay_s)
    size = len(dry) + len(tail)
    echo = np.fft.irfft(np.fft.rfft(dry, size) * np.fft.rfft(tail, size), size)[: len(dry)]
    return dry + wet * _rms(dry) / max(_rms(echo), 1e-9) * echo


def _band_limited(sound: np.ndarray, low_hz: float, high_hz: float) -> np.ndarray:
    """Take out what is below and above, second order on both sides."""
    hz = np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE)
    gain = 1 / np.sqrt((1 + (low_hz / np.maximum(hz, 1)) ** 4) * (1 + (hz / high_hz) ** 4))
    return np.fft.irfft(np.fft.rfft(sound) * gain, len(sound))


def _rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples)))) if len(samples) else 0.0


def _amplitude(db: float) -> float:
    return float(10 ** (db / 20))
