"""Killed in the middle: what a subscriber had seen is in the journal, and the journal is whole.

But for the repeats since its last row, of a minute at most.
"""

import contextlib
import random
import sqlite3
import time

import pytest

from streamtwl.audio import demo
from streamtwl.messages import Event, Label, Status, decode
from streamtwl.sinks.journal_file import reader
from streamtwl.sinks.repeats import STRETCH_S


@pytest.mark.parametrize("kills", [4, pytest.param(30, marks=pytest.mark.soak)])
@pytest.mark.timeout(900)
def test_what_was_seen_survives_the_kill(kills, listen, wav, figure):
    sound = wav("long.wav", demo.scene()[: 16_000 * 20].repeat(10))
    moments = random.Random(5)
    seen, marked, repeats, lost, longest_s, sessions = 0, 0, 0, 0, 0.0, set()
    for kill in range(kills):
        hop, after_s = (("0.05", 0.0), ("0.48", STRETCH_S + 5.0))[kill % 2]
        listening = listen("--file", sound, "--fast", "--hop", hop, "--labels", "everyday")
        listening.until(lambda message: isinstance(message, Label))
        while listening.messages[-1].position < 16_000 * after_s:
            listening.hear()
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
                (session, topic, seq): decode(payload)
                for session, topic, seq, payload in connection.execute(
                    "SELECT session, topic, seq, payload FROM messages "
                    "JOIN streams ON streams.id = stream"
                )
            }
        summed = {
            (session, topic, seq)
            for (session, topic, last), row in held.items()
            if getattr(row, "summary", None)
            for seq in range(row.summary.first_seq, last + 1)
        }
        newest = {key[:2]: held[key] for key in sorted(held, key=lambda key: key[2])}
        for message in told:
            key = (message.session, message.topic, message.seq)
            if message.journalled:
                assert held[key] == message
            elif getattr(message, "repeat", False):
                repeats += 1
                if key not in held and key not in summed:
                    last = newest[key[:2]]
                    assert message.seq > last.seq
                    lost += 1
                    longest_s = max(longest_s, (message.position - last.position) / 16_000)
            else:
                marked += 1
        seen += len(told)
        sessions |= {message.session for message in told}
    assert lost < repeats
    with contextlib.closing(sqlite3.connect(listening.journal)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        payloads = [payload for (payload,) in connection.execute("SELECT payload FROM messages")]
    messages = [decode(payload) for payload in payloads]
    assert {message.session for message in messages} == sessions
    assert len(sessions) == kills
    assert seen - marked > kills
    figure(
        f"killed {kills} times",
        f"{seen} labels, events and states seen; of {seen - marked - repeats} that changed "
        f"something 0 missing from the journal, {marked} marked as not in it; {lost} of {repeats} "
        f"repeats missing, of the last {longest_s:.1f} s of sound at most; {len(messages)} rows, "
        "none unreadable",
    )
