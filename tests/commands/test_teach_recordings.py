"""`streamtwl teach`: what it takes, and what it says of recordings that it takes in part or not."""

import numpy as np
import pytest

from streamtwl.commands import teach
from streamtwl.errors import AudioError, UsageError

RATE = 16_000


def test_of_a_long_recording_the_beginning_is_taken_and_a_line_says_so(wav, capsys):
    noise = 0.1 * np.random.default_rng(1).standard_normal(31 * RATE)
    assert len(teach.cut(wav("long.wav", noise))) == 30 * RATE
    assert "long.wav: learnt from its first 30 s" in capsys.readouterr().err
    teach.cut(wav("short.wav", noise[: 29 * RATE]))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("samples", [np.full(800, 0.2), np.zeros(RATE)])
def test_what_is_silent_or_too_short_is_said_to_be(wav, samples):
    with pytest.raises(AudioError, match=r"nothing in it sounds for 0\.1 s"):
        teach.cut(wav("a.wav", samples))


def test_a_forgotten_name_is_not_taken_from_the_recordings(wav, tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMTWL_DATA", str(tmp_path / "data"))
    first, second = (str(wav(f"{n}.wav", np.full(RATE, 0.2))) for n in (1, 2))
    with pytest.raises(UsageError, match=r"1\.wav is a file: name the sound first"):
        teach.teach(first, [second])
    assert not (tmp_path / "data").exists()


def test_a_microphone_is_not_opened_where_the_sound_could_not_be_learnt(tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMTWL_DATA", str(tmp_path / "data"))
    recorded = []
    monkeypatch.setattr("streamtwl.sounds.takes.record", lambda *_: recorded.append(1) or [])

    def absent():
        raise UsageError("no weights")

    monkeypatch.setattr(teach, "teacher_of_default", absent)
    with pytest.raises(UsageError, match="no weights"):
        teach.teach("kettle", record=1)
    assert not recorded
