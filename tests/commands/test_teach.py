"""What `teach` takes: --record with a number or without, an event's clip."""

import numpy as np
import pytest
from typer.testing import CliRunner

from streamtwl.cli import app
from streamtwl.commands import teach
from streamtwl.errors import AudioError
from streamtwl.sounds import takes

LOUD = (0.1 * np.random.default_rng(1).standard_normal(8_000)).astype(np.float32)


@pytest.fixture
def asked(monkeypatch):
    """What `_sound` is called with, by position."""
    calls = []
    monkeypatch.setattr(teach, "_sound", lambda *arguments: calls.append(arguments))
    return calls


@pytest.mark.parametrize(
    ("arguments", "record"),
    [
        (["kettle", "--record"], 0),
        (["kettle", "--record", "3"], 3),
        (["--record", "--device", "USB", "kettle"], 0),
        (["kettle", "a.wav"], None),
    ],
)
def test_record_takes_a_number_or_none(asked, arguments, record):
    CliRunner().invoke(app, ["teach", *arguments], catch_exceptions=False)
    assert [call[2] for call in asked] == [record]


def test_several_events_can_teach_a_sound(asked):
    arguments = ["teach", "kettle", "--from-event", "a", "--from-event", "b"]
    CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert asked[0][6] == ["a", "b"]


@pytest.mark.parametrize("name", ["kettle.wav"])
def test_an_event_that_is_not_there_is_one_line(cli, name):
    ended = cli("teach", "kettle", "--from-event", name)
    assert ended.returncode in (1, 2)
    assert len(ended.stderr.splitlines()) == 1, ended.stderr


@pytest.fixture
def microphone(monkeypatch):
    """Blocks of half a second in place of a microphone: microphone(blocks)."""

    def put(blocks):
        class Given:
            def __enter__(self):
                return iter(blocks)

            def __exit__(self, *error):
                return False

        monkeypatch.setattr(takes, "_microphone", lambda device: Given())

    return put


def enter_after(monkeypatch, blocks):
    left = iter([False] * blocks + [True])
    monkeypatch.setattr(takes, "_entered", lambda: next(left))


def test_it_records_until_enter_and_cuts_silence(microphone, monkeypatch):
    quiet = np.zeros_like(LOUD)
    microphone([quiet, quiet, LOUD, LOUD, quiet, quiet, LOUD])
    enter_after(monkeypatch, 5)
    [(how, samples)] = takes.until_enter("", print)
    assert how == "microphone"
    assert len(samples) == pytest.approx(16_000 + 2 * 1_600, abs=320)


def test_ctrl_c_ends_it_as_enter_does(microphone, monkeypatch):
    def interrupted():
        yield LOUD
        yield LOUD
        raise KeyboardInterrupt

    microphone(interrupted())
    monkeypatch.setattr(takes, "_entered", lambda: False)
    [(_, samples)] = takes.until_enter("", print)
    assert len(samples) == 2 * len(LOUD)


def test_it_ends_by_itself_after_half_a_minute(microphone, monkeypatch):
    microphone([LOUD] * 100)
    monkeypatch.setattr(takes, "_entered", lambda: False)
    [(_, samples)] = takes.until_enter("", print)
    assert len(samples) == 30 * 16_000


def test_silence_is_one_line(microphone, monkeypatch):
    microphone([np.zeros_like(LOUD)] * 3)
    enter_after(monkeypatch, 2)
    with pytest.raises(AudioError, match="muted"):
        takes.until_enter("", print)


def test_the_end_of_standard_input_counts_as_enter(monkeypatch, tmp_path):
    (tmp_path / "empty").write_text("")
    with (tmp_path / "empty").open() as empty:
        monkeypatch.setattr(takes.sys, "stdin", empty)
        assert takes._entered()
