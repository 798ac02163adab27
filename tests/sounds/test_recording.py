"""What is kept of a recording: what sounds in it, as FLAC."""

import numpy as np
import pytest

from streamtwl.errors import AudioError
from streamtwl.sounds import recording
from streamtwl.stages import SAMPLE_RATE


def padded(noise, room, lead_s=1.0, tail_s=0.5):
    rng = np.random.default_rng(1)
    lead, tail = (room * rng.standard_normal(round(s * SAMPLE_RATE)) for s in (lead_s, tail_s))
    return np.concatenate((lead, noise, tail)).astype(np.float32)


@pytest.mark.parametrize("room", [0.0, 1e-5, 0.01])
def test_silence_and_the_room_around_a_sound_are_cut_off(noise, room):
    cut = recording.trim(padded(noise, room))
    assert len(noise) <= len(cut) <= len(noise) + 0.3 * SAMPLE_RATE
    assert np.corrcoef(cut[: len(noise) + 1600][-len(noise) :], noise)[0, 1] > 0.9


def test_a_pause_within_a_sound_stays(noise):
    twice = np.concatenate((noise, np.zeros(SAMPLE_RATE, np.float32), noise))
    assert len(recording.trim(twice)) == len(twice)


def test_a_sound_that_fills_the_recording_is_kept_whole(noise):
    assert len(recording.trim(noise)) == len(noise)


def test_of_silence_nothing_is_left():
    assert len(recording.trim(np.full(SAMPLE_RATE, 1e-5, np.float32))) == 0
    assert len(recording.trim(np.zeros(10, np.float32))) <= 10


def test_flac_keeps_16_bits(noise):
    again = recording.decode(recording.encode(noise), "it")
    assert len(again) == len(noise)
    assert np.abs(again - noise).max() <= 1 / 32767
    assert np.array_equal(recording.decode(recording.encode(again), "it"), again)


def test_what_is_not_such_a_file_is_refused(noise, wav):
    flac = recording.encode(noise)
    stereo = wav("stereo.flac", np.stack((noise, noise), axis=1)).read_bytes()
    fast = wav("fast.flac", noise, 44_100).read_bytes()
    for wrong in (b"", b"RIFF", flac[:50], stereo, fast):
        with pytest.raises(AudioError, match=r"^it: "):
            recording.decode(wrong, "it")


def test_any_rate_and_format_is_read(noise, wav):
    assert len(recording.read(wav("a.wav", noise, 8_000))) == pytest.approx(2 * len(noise), abs=99)
    assert len(recording.read(wav("b.wav", np.tile(noise, 3)), longest_s=1.5)) == 24_000
