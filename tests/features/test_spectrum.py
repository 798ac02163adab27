import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamtwl.features import log_mel
from streamtwl.features.spectrum import Spectrum


def whole_clip(samples: np.ndarray) -> np.ndarray:
    """The power spectra of a whole clip, one frame after the other, float64."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    starts = range(0, len(samples) - 399, 160)
    frames = [np.fft.rfft(samples[at : at + 400].astype(float) * hann, 512) for at in starts]
    return np.abs(np.array(frames).reshape(-1, 257)) ** 2


def streamed(samples: np.ndarray, sizes: list[int]) -> np.ndarray:
    """Push samples in blocks of these sizes, over and over."""
    spectrum, frames, at = Spectrum(), [], 0
    while at < len(samples):
        size = sizes[len(frames) % len(sizes)]
        frames.append(spectrum.push(samples[at : at + size]))
        at += size
    return np.concatenate(frames)


@pytest.mark.parametrize("size", [1, 160, 441, 100_000])
def test_frames_are_those_of_the_whole_in_blocks_of(size, noise):
    expected = whole_clip(noise)
    found = streamed(noise, [size])
    assert found.dtype == np.float32
    assert len(found) == (len(noise) - 400) // 160 + 1
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@given(
    length=st.integers(1, 4000),
    sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=8),
)
def test_block_sizes_do_not_matter(length, sizes):
    samples = np.random.default_rng(length).uniform(-1, 1, length).astype(np.float32)
    np.testing.assert_array_equal(streamed(samples, sizes), streamed(samples, [length]))


def test_an_empty_block_changes_nothing(noise):
    spectrum = Spectrum()
    first = spectrum.push(noise[:700])
    assert spectrum.push(noise[:0]).shape == (0, 257)
    found = np.concatenate((first, spectrum.push(noise[700:])))
    np.testing.assert_array_equal(found, streamed(noise, [len(noise)]))


def test_a_quiet_bin_beside_a_loud_tone_keeps_its_power():
    t = np.arange(400) / 16_000
    samples = (0.9 * np.sin(2 * np.pi * 1000 * t)).astype(np.float32)
    [frame] = Spectrum().push(samples)
    np.testing.assert_allclose(frame, whole_clip(samples)[0], rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "wrong",
    [np.zeros(400), np.zeros(400, np.int16), np.zeros((400, 1), np.float32), np.float32(0)],
    ids=["float64", "int16", "two-dimensional", "scalar"],
)
def test_anything_but_float32_in_one_dimension_is_refused(wrong):
    with pytest.raises(ValueError, match="float32"):
        Spectrum().push(wrong)


# --- EfficientAT's front end on it ---


def test_silence_is_the_log_of_the_offset():
    found = log_mel.efficientat(np.zeros((2, 257), np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.full((2, 128), (np.log(1e-5) + 4.5) / 5), rtol=1e-6)


@pytest.mark.parametrize("bin", [3, 40, 100, 200])
def test_a_tones_power_is_that_at_32_khz_after_pre_emphasis(bin):
    """A tone on a bin, against EfficientAT's own front end of the same tone at 32 kHz."""
    hz = bin * 31.25
    symmetric = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(800) / 799)
    tone = 0.1 * np.sin(2 * np.pi * hz * np.arange(4001) / 32_000)
    power = np.abs(np.fft.rfft((tone[1:] - 0.97 * tone[:-1])[1000:1800] * symmetric, 1024)) ** 2
    samples = (0.1 * np.sin(2 * np.pi * hz * np.arange(1200) / 16_000)).astype(np.float32)
    frame = Spectrum().push(samples)[2:3]
    [ours] = log_mel.efficientat(frame)
    mel = 1127 * np.log1p(np.arange(513) * 31.25 / 700)
    edges = np.linspace(0, 1127 * np.log1p(15_000 / 700), 130)[:, None]
    rising = (mel - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mel) / (edges[2:] - edges[1:-1])
    theirs = np.log(np.maximum(np.minimum(rising, falling), 0) @ power + 1e-5)
    loudest = theirs.argmax()
    assert ours[loudest] == pytest.approx((theirs[loudest] + 4.5) / 5, abs=0.01)


@pytest.mark.slow
def test_efficientats_mel_weights_are_kaldis():
    kaldi = pytest.importorskip("torchaudio.compliance.kaldi")
    theirs, _ = kaldi.get_mel_banks(128, 1024, 32_000.0, 0.0, 15_000.0, 100.0, -500.0, 1.0)
    ours = log_mel.mel_weights(log_mel.EFFICIENTAT_BANDS, log_mel.EFFICIENTAT_RANGE_HZ)
    np.testing.assert_allclose(ours[:256], theirs.numpy().T[:256], rtol=0, atol=1e-4)
