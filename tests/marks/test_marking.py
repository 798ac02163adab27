"""Marks are kept, learnt from and taken back; a clip teaches what it was."""

import concurrent.futures
import sqlite3
import stat
import time

import numpy as np
import pytest

from streamtwl.clips import moments
from streamtwl.clips.moments import Moments
from streamtwl.errors import SoundsError, StreamtwlError, UsageError
from streamtwl.history import Wanted
from streamtwl.marks import marking, store
from streamtwl.marks.store import Mark, Marks
from streamtwl.messages import Event, encode
from streamtwl.sinks.journal import Entry, Journal
from streamtwl.sounds import recording
from streamtwl.sounds.store import Store

SESSION = "0123456789abcdef"


def event(number=0, label="Rain", **more):
    start = 16_000 * (1 + 10 * number)
    figures = {"start": start, "end": start + 32_000, "peak": 0.8, "mean": 0.7}
    stamp = {"position": start + 40_000, "captured_at": 1e9 + 10 * number, "published_at": 1e9}
    head = {"source": "mic", "session": SESSION, "seq": number, "id": f"{SESSION}-mic-{number}"}
    return Event(phase="offset", label=label, **head, **figures, **stamp, **more)


@pytest.fixture
def journal(tmp_path):
    """Three events in a journal, with embeddings; the first one has a clip."""
    path = tmp_path / "journal.sqlite"
    events = [event(0), event(1, "Dog"), event(2)]
    writer = Journal(path, max_age_days=36_500)
    entries = [Entry(SESSION, "event/mic/", e.seq, time.time(), e.label, encode(e)) for e in events]
    assert writer.commit(entries, patience_s=60.0)
    writer.close()
    kept, rng = Moments(path), np.random.default_rng(1)
    clip = moments.clip_path(tmp_path / "clips", events[0].id)
    moments.write_clip(clip, recording.encode(0.1 * rng.standard_normal(16_000).astype("f4")))
    for i, each in enumerate(events):
        kept.add(each, time.time(), clip if i == 0 else None, {"mn04:3@x": np.full((2, 3), i)})
    kept.close()
    return path


@pytest.fixture
def marks(tmp_path):
    return Marks(tmp_path / "data" / "marks.sqlite")


@pytest.fixture
def sounds(tmp_path):
    return Store(tmp_path / "data" / "sounds")


def test_a_mark_is_there_for_the_next_reader_with_its_embeddings(journal, marks, sounds):
    marking.mark(journal, event(2), "wrong", "", marks, sounds)
    [mark] = Marks(marks.path).all()
    assert (mark.event, mark.label, mark.verdict) == (event(2).id, "Rain", "wrong")
    assert mark.began_at == pytest.approx(1e9 + 20 - 2.5)
    np.testing.assert_array_equal(mark.embeddings["mn04:3@x"], np.full((2, 3), 2.0))
    assert stat.S_IMODE(marks.path.stat().st_mode) == 0o600


def test_what_has_no_mark_is_left_the_newest_first(journal, marks, sounds):
    left = marking.unmarked(journal, Wanted(), marks)
    assert [each.id for each in left] == [event(i).id for i in (2, 1, 0)]
    marking.mark(journal, event(1), "right", "", marks, sounds)
    left = marking.unmarked(journal, Wanted(), marks)
    assert [each.id for each in left] == [event(i).id for i in (2, 0)]


def test_a_second_mark_takes_the_place_of_the_first(journal, marks, sounds):
    marking.mark(journal, event(0), "wrong", "fridge", marks, sounds)
    marking.mark(journal, event(0), "right", "", marks, sounds)
    assert [mark.verdict for mark in marks.all()] == ["right"]
    assert sounds.sounds() == []


def test_a_clip_teaches_what_it_was_and_forgets_it_when_the_mark_is_taken_back(
    journal, marks, sounds
):
    sounds.add("fridge", [("mine.wav", 0.1 * np.ones(16_000, np.float32))])
    marking.mark(journal, event(0), "wrong", "Fridge", marks, sounds)
    [fridge] = sounds.sounds()
    assert [each.origin for each in fridge.examples] == ["mine.wav", f"event {event(0).id}"]
    marking.unmark(event(0).id, marks, sounds)
    [fridge] = sounds.sounds()
    assert [each.origin for each in fridge.examples] == ["mine.wav"]
    assert marks.all() == []


def test_the_same_mark_again_keeps_its_recording(journal, marks, sounds):
    for _ in range(2):
        marking.mark(journal, event(0), "wrong", "fridge", marks, sounds)
    [fridge] = sounds.sounds()
    assert [each.file for each in fridge.examples] == [marks.find(event(0).id).recording]


def test_a_mark_that_cannot_be_made_leaves_the_one_before(journal, marks, sounds, monkeypatch):
    marking.mark(journal, event(0), "wrong", "fridge", marks, sounds)
    monkeypatch.setattr(recording, "trim", lambda samples: samples[:0])  # nothing sounds in it
    with pytest.raises(StreamtwlError):
        marking.mark(journal, event(0), "wrong", "kettle", marks, sounds)
    assert [mark.was for mark in marks.all()] == ["fridge"]
    assert [sound.name for sound in sounds.sounds()] == ["fridge"]


def test_a_new_sound_goes_with_its_only_recording(journal, marks, sounds):
    marking.mark(journal, event(0), "wrong", "fridge", marks, sounds)
    assert [sound.name for sound in sounds.sounds()] == ["fridge"]
    marking.unmark(event(0).id, marks, sounds)
    assert sounds.sounds() == []


def test_one_clip_does_not_take_the_place_of_an_audioset_label(journal, marks, sounds):
    mark = marking.mark(journal, event(0), "wrong", "dog", marks, sounds)
    assert (mark.was, mark.recording, sounds.sounds()) == ("dog", "", [])


def test_without_a_clip_what_it_was_is_only_noted(journal, marks, sounds):
    mark = marking.mark(journal, event(2), "wrong", "fridge", marks, sounds)
    assert (mark.was, mark.recording, sounds.sounds()) == ("fridge", "", [])


@pytest.mark.parametrize(
    ("verdict", "was", "problem"),
    [
        ("right", "fridge", "marked as wrong"),
        ("wrong", "rain", "mark it as right"),
        ("wrong", "a*", "patterns"),
        ("wrong", "x" * 61, "1 to 60"),
    ],
)
def test_what_contradicts_itself_is_refused(journal, marks, sounds, verdict, was, problem):
    with pytest.raises(UsageError, match=problem):
        marking.mark(journal, event(0), verdict, was, marks, sounds)
    assert marks.all() == []


@pytest.mark.parametrize("name", ["x", "../../x", f"{SESSION}-mic-9", f"{SESSION}-mic-1' OR 1"])
def test_an_event_that_is_not_there_is_one_line(journal, name):
    with pytest.raises(UsageError, match="history --ids"):
        marking.find(journal, name)


def test_the_id_leads_to_the_event_and_its_clip(journal):
    assert marking.find(journal, event(1).id).label == "Dog"
    assert marking.clip(journal, event(0).id).name == f"{event(0).id}.flac"
    with pytest.raises(UsageError, match="no clip of event"):
        marking.clip(journal, event(1).id)


def test_marks_made_at_once_are_all_kept(marks):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        made = [Mark(f"{SESSION}-mic-{i}", "wrong", "Rain") for i in range(24)]
        list(pool.map(lambda mark: Marks(marks.path).put(mark), made))
    assert len(marks.all()) == 24


def test_there_is_a_bound_and_a_line_that_says_so(marks, monkeypatch):
    monkeypatch.setattr(store, "MAX_MARKS", 1)
    marks.put(Mark("a", "wrong", "Rain"))
    marks.put(Mark("a", "right", "Rain"))
    with pytest.raises(SoundsError, match="review --undo"):
        marks.put(Mark("b", "wrong", "Rain"))


def test_a_damaged_file_is_one_line(marks):
    marks.path.parent.mkdir(parents=True)
    marks.path.write_bytes(b"no database, but long enough to be looked at" * 30)
    with pytest.raises(SoundsError, match=r"marks\.sqlite"):
        marks.all()


def test_embeddings_that_are_damaged_teach_nothing_and_break_nothing(marks):
    marks.put(Mark("a", "wrong", "Rain", embeddings={"mn04:3@x": np.ones((1, 3))}))
    with sqlite3.connect(marks.path) as connection:
        connection.execute("UPDATE marks SET embeddings = x'0102'")
    [mark] = marks.all()
    assert mark.embeddings == {}


def test_precision_is_of_the_marks_of_a_label():
    marks = [Mark(str(i), "right" if i else "wrong", "Rain") for i in range(4)]
    marks.append(Mark("d", "wrong", "Dog"))
    found = [(each.label, each.right, each.marked) for each in marking.precisions(marks)]
    assert found == [("Rain", 3, 4), ("Dog", 0, 1)]
