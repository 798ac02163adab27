"""Killed in the middle: what a subscriber had seen is in the journal, and the journal is whole."""

import contextlib
import random
import sqlite3
import time

import pytest

from streamtwl.audio import demo
from streamtwl.messages import Event, Label, Status, decode
from streamtwl.sinks.journal_file import reader


@pytest.mark.parametrize("kills", [4, pytest.param(30, marks=pytest.mark.soak)])
@pytest.mark.timeout(900)
def test_what_was_seen_survives_the_kill(kills, listen, wav, figure):
    sound = wav("long.wav", demo.scene()[: 16_000 * 20].repeat(10))
    moments = random.Random(5)
    seen, marked, sessions = 0, 0, set()
    for _ in range(kills):
        listening = listen("--file", sound, "--fast", "--hop", "0.05", "--labels", "everyday")
        listening.until(lambda message: isinstance(message, Label))
        until = time.monotonic() + moments.uniform(0.0, 1.0)
        while time.monotonic() < until:
            listening.hear(0.01)
        listening.process.kill()  # SIGKILL
        listening.process.wait()
        while listening.hear(0.2):
            pass  # what was on its way
        told = [each for each in listening.messages if isinstance(each, Label | Event | Status)]
        with contextlib.closing(reader(listening.journal)) as connection:
            held = {
                (session, topic, seq): payload
                for session, topic, seq, payload in connection.execute(
                    "SELECT session, topic, seq, payload FROM messages "
                    "JOIN streams ON streams.id = stream"
                )
            }
        for message in told:
            if message.journalled:
                assert decode(held[message.session, message.topic, message.seq]) == message
            else:
                marked += 1
        seen += len(told)
        sessions |= {message.session for message in told}
    with contextlib.closing(sqlite3.connect(listening.journal)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        payloads = [payload for (payload,) in connection.execute("SELECT payload FROM messages")]
    messages = [decode(payload) for payload in payloads]
    assert {message.session for message in messages} == sessions
    assert len(sessions) == kills
    assert seen - marked > kills
    figure(
        f"killed {kills} times",
        f"{seen} labels, events and states seen, 0 missing from the journal, {marked} marked as "
        f"not in it; {len(messages)} in the journal, none unreadable",
    )
