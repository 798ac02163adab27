"""Listening and classifying inside a program of one's own."""

import time

import pytest
import reactivex.operators as ops

import streamtwl
from streamtwl.audio.addresses import SourceOptions, make_sources
from streamtwl.audio.intake import Intake
from streamtwl.config import Settings, override
from streamtwl.errors import AudioError, UsageError
from streamtwl.session import Session

pytestmark = pytest.mark.usefixtures("yamnet")


def test_the_demos_events_in_a_loop():
    events = list(streamtwl.listen("demo:", fast=True, labels="everyday"))
    assert all(isinstance(event, streamtwl.Event) for event in events)
    assert {"Bird", "Siren"} <= {event.label for event in events}


def test_it_ends_when_the_program_has_enough():
    listening = streamtwl.listen("demo:", kinds=["label"])
    assert isinstance(next(listening), streamtwl.Label)
    listening.close()  # of 20 s in real time


def test_nothing_is_lost_on_a_program_that_is_slow_with_a_recording():
    seqs = []
    for label in streamtwl.listen("demo:", fast=True, kinds=["label"]):
        time.sleep(0.01)
        seqs.append(label.seq)
    assert seqs == list(range(len(seqs)))


def test_a_recording_is_classified(wav, real_audio):
    result = streamtwl.classify(wav("a.wav", real_audio), labels="everyday")
    assert result.label in [event.label for event in result.events]


def test_what_is_wrong_is_raised(tmp_path):
    with pytest.raises(AudioError, match="no such file"):
        streamtwl.classify(tmp_path / "none.wav")
    with pytest.raises(UsageError, match="no such file, and no address"):
        next(streamtwl.listen("nowhere.wav"))


def test_a_session_can_be_observed():
    intake = Intake(make_sources(SourceOptions(["demo:"], fast=True)))
    intake.start()
    session = Session(intake, [stream.source for stream in intake.streams], Settings(), [])
    loud, sirens, ended = [], [], []
    session.patches.pipe(
        ops.filter(lambda patch: patch.window.level_dbfs > -40),
        ops.map(lambda patch: patch.window.position),
    ).subscribe(loud.append)
    session.messages.pipe(
        ops.filter(lambda message: getattr(message, "phase", "") == "onset"),
        ops.map(lambda event: event.label),
        ops.buffer_with_count(2),
    ).subscribe(sirens.append, on_completed=lambda: ended.append(True))
    session.start()
    while session.running():
        session.watch()
        time.sleep(0.01)
    session.close()
    intake.close()
    assert loud == sorted(loud)
    assert 5 < len(loud) < 41
    assert any("Siren" in pair for pair in sirens)
    assert ended == [True]


def test_what_an_observer_raises_ends_the_session():
    intake = Intake(make_sources(SourceOptions(["demo:"], fast=True)))
    intake.start()
    session = Session(intake, [stream.source for stream in intake.streams], Settings(), [])
    session.outcomes.subscribe(lambda outcome: 1 / 0)
    session.start()
    while session.running():
        time.sleep(0.01)
    with pytest.raises(ZeroDivisionError):
        session.close()
    intake.close()


def test_what_sinks_and_services_are_set_to_is_not_published():
    intake = Intake(make_sources(SourceOptions(["demo:"], fast=True)))
    intake.start()
    services = {"mqtt": {"url": "mqtt://me@house"}}
    settings = override(Settings(), {"sinks": {"mqtt": {"password": "hush"}}, "services": services})
    session = Session(intake, [stream.source for stream in intake.streams], settings, [])
    hellos = []
    session.messages.pipe(ops.filter(lambda m: isinstance(m, streamtwl.Hello))).subscribe(
        hellos.append
    )
    session.start()
    while session.running():
        time.sleep(0.01)
    session.close()
    intake.close()
    assert hellos[0].settings["sinks"] == {"mqtt": {}}
    assert hellos[0].settings["services"] == {}
