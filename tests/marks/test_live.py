"""From an event to its mark to what is not believed any more, through sessions with a journal."""

import threading
import time

import numpy as np
import pytest

from streamtwl import history
from streamtwl.audio.addresses import SourceOptions, make_sources
from streamtwl.audio.intake import Intake
from streamtwl.clips import keeper
from streamtwl.clips.keeper import RECENT_S, Keeper
from streamtwl.config import Settings, override
from streamtwl.history import Wanted
from streamtwl.marks import marking
from streamtwl.marks.store import Marks
from streamtwl.session import Session
from streamtwl.sinks import choice


class NoSpeech:
    def finds(self, samples):
        return False


@pytest.fixture
def listen(tmp_path, wav, monkeypatch, yamnet):
    """Listen to a sound, as `listen --fast --clips` does; return the journal's events."""
    monkeypatch.setenv("STREAMTWL_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(keeper, "SpeechDetector", NoSpeech)
    monkeypatch.setattr(keeper, "SPOKEN", 1.1)

    def run(samples, name="journal", midway=lambda session: None):
        file = wav("dog.wav", samples)
        changes = {"journal.path": str(tmp_path / f"{name}.sqlite"), "publish.replay": ""}
        changes |= {"clips.folder": str(tmp_path / "clips"), "publish.bind": "tcp://127.0.0.1:*"}
        settings = override(Settings(), changes)
        sources = make_sources(SourceOptions([str(file)], fast=True))
        intake = Intake(sources)
        intake.start()
        middle = len(samples) // 2
        with choice.opened(settings, True, False) as (publisher, [kept]):
            assert isinstance(kept, Keeper)
            session = Session(intake, sources, settings, [publisher, kept], None, RECENT_S)
            names = [source.name for source in sources]
            session.outcomes.subscribe(kept.attach(names, session.by_window, session.between))
            passed = []

            def at_the_middle(outcome):
                if outcome.position >= middle and not passed:
                    passed.append(True)
                    other = threading.Thread(target=midway, args=(session,))
                    other.start()
                    other.join()

            session.outcomes.subscribe(at_the_middle)
            session.start()
            while session.running():
                time.sleep(0.01)
            session.close()
        intake.close()
        path = tmp_path / f"{name}.sqlite"
        return path, sorted(history.events(path, Wanted()), key=lambda event: event.start)

    return run


def test_events_marked_wrong_do_not_come_again_also_where_it_listens_already(listen, real_audio):
    barks = np.concatenate([np.roll(real_audio, 3_000 * i) for i in range(5)])
    journal, events = listen(barks)
    label = max({each.label for each in events}, key=[each.label for each in events].count)
    mine = [event for event in events if event.label == label]
    assert len(mine) >= 3
    for event in mine[:2]:
        marking.mark(journal, event, "wrong")
    assert marking.clip(journal, mine[0].id).stat().st_size > 1000
    _, after = listen(barks, "after")
    assert not [event for event in after if event.label == label]
    marks = Marks().all()
    for mark in marks:
        marking.unmark(mark.event)

    def mark_meanwhile(session):
        for mark in marks:
            Marks().put(mark)
        session.reload()

    _, half = listen(barks, "half", mark_meanwhile)
    begun = [event.start for event in half if event.label == label]
    assert begun
    assert max(begun) < len(barks) // 2 + 16_000
