"""`review` through a pipe, `history --marked`, and what is printed of it."""

import time

import numpy as np
import pytest
from typer.testing import CliRunner

from streamtwl.cli import app
from streamtwl.clips.moments import Moments
from streamtwl.commands import teach
from streamtwl.errors import SoundsError
from streamtwl.marks import playing
from streamtwl.messages import encode
from streamtwl.sinks.journal import Entry, Journal
from tests.marks.test_marking import SESSION, event


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the command line beside a journal of three events: run("review", input="w\\n")."""
    state = tmp_path / "state"
    writer = Journal(state / "journal.sqlite", max_age_days=36_500)
    events = [event(0), event(1, "Dog"), event(2)]
    entries = [Entry(SESSION, "event/mic/", e.seq, time.time(), e.label, encode(e)) for e in events]
    assert writer.commit(entries, patience_s=60.0)
    writer.close()
    Moments(state / "journal.sqlite").close()
    monkeypatch.setenv("STREAMTWL_STATE", str(state))
    monkeypatch.setenv("STREAMTWL_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(teach, "teacher_of_default", NoWindows)

    def run(*arguments, input=None):
        ended = CliRunner().invoke(app, arguments, input=input, catch_exceptions=False)
        assert ended.exit_code == 0, ended.output
        return ended.stdout

    return run


class NoWindows:
    windows = ()


def test_keys_come_a_line_each_and_the_rest_is_left_for_the_next_time(run):
    assert "2 marked" in run("review", "--mute", input="w\nx\ni fridge\nq\n")
    printed = run("review", "--mute", input="u\nr\n")
    assert "1 of 1" in printed
    assert "1 marked" in printed
    printed = run("history", "--marked")
    assert printed.splitlines() == ["  50%     1 of    2  Rain", "   0%     0 of    1  Dog"]
    assert run("history", "--marked", "--label", "d*").endswith("1  Dog\n")
    assert '"right":1,"marked":2' in run("history", "--marked", "--json")
    assert "no event is left" in run("review", input="")


def test_a_mark_is_undone_by_a_key_and_by_the_events_id(run):
    run("review", "--mute", input="w\nu\nw\nw\n")
    listed = run("review", "--list").splitlines()
    assert [line.split()[0] for line in listed] == [event(i).id for i in (2, 1)]
    run("review", "--undo", event(2).id)
    assert len(run("review", "--list").splitlines()) == 1
    with pytest.raises(SoundsError, match="is not marked"):
        run("review", "--undo", event(2).id)


def test_ids_stand_in_the_history_and_lead_to_one_event(run):
    lines = run("history", "--ids").splitlines()
    assert [line.split()[-1] for line in lines] == [event(i).id for i in range(3)]
    printed = run("review", event(1).id, "--mute", input="r\n")
    assert "Dog" in printed
    assert "1 marked" in printed


def test_a_picture_shows_which_band_sounds_when():
    time_s = np.arange(32_000) / 16_000
    tone = 0.3 * np.sin(2 * np.pi * 1500 * time_s) * (time_s > 1.0)
    lines = playing.picture(tone.astype(np.float32))
    rows = {line.split()[0]: line.partition("|")[2] for line in lines[:-1]}
    assert rows["2"][-10:] == "@@@@@@@@@@|"[-10:]
    assert rows["2"][:20].strip() == ""
    assert rows["8"][25:].count("@") == 0
    assert playing.picture(np.zeros(10, np.float32)) == []


def test_without_a_program_that_plays_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(playing.shutil, "which", lambda name: None)
    player = playing.Player()
    assert "no program here plays" in player.problem
    player.play(tmp_path / "x.flac")
    player.stop()


def test_a_player_is_ended_with_its_clip(monkeypatch, tmp_path):
    monkeypatch.setattr(playing, "PLAYERS", (("sleep", "600", "--"),))
    monkeypatch.setattr(playing, "_found", lambda command: ["sh", "-c", "sleep 600"])
    player = playing.Player()
    player.play(tmp_path / "x.flac")
    process = player._playing
    player.stop()
    assert process.poll() is not None
