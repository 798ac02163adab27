"""Rows of patches: what the live path scores, kept by the content of a file."""

import numpy as np
import pytest
import soundfile

from streamtwl import config
from streamtwl.backbones.bank import Bank
from streamtwl.config import Settings
from streamtwl.errors import AudioError
from streamtwl.features.window import Windower
from streamtwl.pipeline import hearing
from streamtwl.reasoners import reads
from streamtwl.stages import SAMPLE_RATE, Block, End
from streamtwl.training.posteriors import (
    Augmentation,
    Scorer,
    read,
    white_noise,
    white_noise_between,
)

WINDOWS = ("yamnet:0.96", "mn04:0.96", "mn04:2")


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    """Noise of 17 s, several blocks of the scorer, that grows louder."""
    noise = np.random.default_rng(3).standard_normal(17 * SAMPLE_RATE)
    return (noise * np.linspace(0.001, 0.1, len(noise))).astype(np.float32)


@pytest.fixture
def scorer(mn04, tmp_path) -> Scorer:
    """Of three windows of two backbones, with a cache of its own."""
    return Scorer(WINDOWS, threads=1, folder=tmp_path / "rows")


def test_a_row_has_what_a_reasoner_reads_live(scorer, samples):
    settings = config.with_windows(Settings(), [*WINDOWS])
    backbones, kinds = hearing(settings)
    windower, bank = Windower(settings.hop_s, backbones, kinds), Bank(backbones, kinds)
    patches = []
    for at in range(0, len(samples), 1600):  # as a microphone gives it
        last = at + 1600 >= len(samples)
        cut = windower.push([Block(0, at, samples[at : at + 1600], None, 0.0, last=last)])
        patches += [
            p for windows in cut if not isinstance(windows, End) for p in bank.score(windows)
        ]
    what = reads.of_windows(WINDOWS)
    live = np.stack([reads.row(patch, what) for patch in patches])
    rows = scorer.pick(scorer.score_samples(samples), what)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, live, atol=1e-5)
    is_posterior = scorer.is_posterior(what)
    assert is_posterior.sum() == 521 + 527
    assert ((live[:, is_posterior] >= 0) & (live[:, is_posterior] <= 1)).all()
    assert live[:, ~is_posterior].min() < 0


def test_a_file_is_scored_once(scorer, samples, wav, monkeypatch):
    file = wav("noise.wav", samples[: 3 * SAMPLE_RATE])
    rows = scorer.score_file(file)
    monkeypatch.setattr(Scorer, "score_samples", None)  # from here on only the cache
    np.testing.assert_array_equal(scorer.score_file(file), rows)
    scored = scorer.score(file)
    np.testing.assert_array_equal(scored.posteriors, rows[:, :521])
    np.testing.assert_array_equal(scored.embeddings, rows[:, 521 : 521 + 1024])
    with pytest.raises(TypeError):
        Scorer(WINDOWS[:2], threads=1, folder=scorer.folder).score_file(file)


def test_scores_are_cached_by_content_model_hop_and_change(yamnet, wav, monkeypatch, tmp_path):
    path = wav("hiss.wav", 0.1 * np.random.default_rng(3).standard_normal(2 * SAMPLE_RATE))
    scorer = Scorer()
    noisy = Augmentation("white 0 dB", white_noise(0.0), seed=1)
    first, changed = scorer.score(path), scorer.score(path, noisy)
    assert not np.allclose(first.posteriors, changed.posteriors)
    monkeypatch.setattr(Scorer, "score_samples", None)  # from here on only the cache
    copied = tmp_path / "copy.wav"
    copied.write_bytes(path.read_bytes())
    np.testing.assert_array_equal(scorer.score(copied).posteriors, first.posteriors)
    np.testing.assert_array_equal(scorer.score(path, noisy).posteriors, changed.posteriors)
    with pytest.raises(TypeError):
        scorer.score(path, Augmentation("white 0 dB", white_noise(0.0), seed=2))


def test_what_is_no_audio_is_named(yamnet, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    with pytest.raises(AudioError, match=r"bad\.wav' is not audio"):
        Scorer().score(tmp_path / "bad.wav")


def test_noise_of_a_training_copy_is_of_any_level_between():
    t = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    tone = np.sin(2 * np.pi * 440 * t).astype(np.float32)
    change = white_noise_between(0, 25)
    snrs_db = []
    for seed in range(200):
        noise = change(tone, np.random.default_rng(seed)) - tone
        snrs_db.append(10 * np.log10(np.mean(tone**2) / np.mean(noise**2)))
    assert -0.5 < min(snrs_db) < 2.0
    assert 23.0 < max(snrs_db) < 25.5
    assert abs(np.mean(snrs_db) - 12.5) < 2.0


@pytest.mark.parametrize("frames", [0, 100, 16_000 * 8, (1 << 36) - 1])
def test_a_length_in_a_header_that_is_wrong_costs_nothing(frames, samples, tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, samples[: 4 * SAMPLE_RATE], SAMPLE_RATE)
    content = bytearray(path.read_bytes())
    packed = int.from_bytes(content[18:26])  # rate, channels and bits, then 36 bits of the length
    content[18:26] = (packed >> 36 << 36 | frames).to_bytes(8)
    path.write_bytes(content)
    read_anew = read(path)
    assert len(read_anew) in (100, 4 * SAMPLE_RATE)
    np.testing.assert_allclose(read_anew, samples[: len(read_anew)], atol=1e-4)


def test_channels_that_cancel_one_another_are_heard(samples, tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([samples, -samples], axis=1), SAMPLE_RATE)
    np.testing.assert_allclose(np.abs(read(path)), np.abs(samples), atol=1e-4)


def test_floats_that_are_scaled_as_integers_are_refused(samples, tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, 32767 * samples, SAMPLE_RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"a\.wav.*numbers in it that are no sound"):
        read(path)
