"""The wall clock is set: back by a day, ahead by two months. Numbers, journal and replay go on.

libfaketime fakes it for the listener's process alone; the machine's clock is not touched.
"""

import contextlib
import os
import sys
import time
from functools import partial
from pathlib import Path

import msgspec
import pytest
import zmq

from streamtwl.messages import Hello, Label, ReplayHeader, decode
from streamtwl.sinks.journal_file import reader
from streamtwl.unrolling import unrolled

DAY_S = 86_400
PATIENCE_MS = 600_000
LIBRARIES = sorted(Path("/usr/lib").glob("**/faketime/libfaketimeMT.so.1"))


@pytest.fixture
def clock(tmp_path) -> Path:
    """The file that says how far off the wall clock is, as libfaketime reads it."""
    if not LIBRARIES:
        pytest.skip("no libfaketime: apt-get install faketime")
    (tmp_path / "clock").write_text("+0")
    return tmp_path / "clock"


@pytest.fixture
def listen_by(listen, clock, tmp_path):
    """Start a listener to standard input that lives by that clock."""
    # libfaketime takes Python's sleep, up to a monotonic moment, for one up to a faked moment.
    (tmp_path / "sitecustomize.py").write_text(
        "import select, time\ntime.sleep = lambda s: select.select([], [], [], s) and None\n"
    )
    return partial(
        listen,
        "--stdin",
        env={
            "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path[1:]]),
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        },
    )


def test_the_clock_set_ahead_by_two_months_empties_no_journal(listen_by, clock, figure):
    """Once while it listens, and once more while nobody does."""
    first = listen_by()
    first.feed_until(lambda label: label.seq >= 3)
    clock.write_text("+60d")
    after = first.feed_until(lambda label: label.published_at > time.time() + 30 * DAY_S)
    tended = time.monotonic() + 3  # the journal deletes once a second
    first.feed_until(lambda label: label.seq > after.seq and time.monotonic() > tended)
    assert first.end() == 0
    clock.write_text("+120d")
    second = listen_by()
    second.feed_until(lambda label: label.seq >= 3)
    tended = time.monotonic() + 3
    second.feed_until(lambda label: time.monotonic() > tended)
    assert second.end() == 0
    told = [each for one in (first, second) for each in one.messages if isinstance(each, Label)]
    with contextlib.closing(reader(first.journal)) as connection:
        rows = connection.execute(
            "SELECT payload FROM messages JOIN streams ON streams.id = stream "
            "WHERE topic = 'label/stdin/'"
        )
        held = {(label.session, label.seq) for (row,) in rows for label in unrolled(decode(row))}
    assert {(label.session, label.seq) for label in told} <= held
    figure("clock set ahead twice", f"by 60 days each: {len(told)} labels, none missing")


def test_the_clock_set_back_by_a_day(listen_by, clock, figure):
    listening = listen_by()
    before = listening.feed_until(lambda label: label.seq >= 10)
    assert abs(before.published_at - time.time()) < DAY_S / 2
    clock.write_text("-1d")
    after = listening.feed_until(lambda label: label.published_at < time.time() - DAY_S / 2)
    last = listening.feed_until(lambda label: label.seq >= after.seq + 10)
    labels = [message for message in listening.messages if isinstance(message, Label)]
    assert [label.seq for label in labels] == list(range(labels[0].seq, last.seq + 1))

    hello = next(message for message in listening.messages if isinstance(message, Hello))
    request = {"session": hello.session, "topic": "label/stdin/", "from": 0}
    with zmq.Context() as context, context.socket(zmq.DEALER) as asking:
        asking.connect(hello.replay)
        asking.send(msgspec.msgpack.encode(request))
        assert asking.poll(PATIENCE_MS)
        header, *payloads = asking.recv_multipart()
    assert msgspec.msgpack.decode(header, type=ReplayHeader).newest >= last.seq
    replayed = [decode(payload) for payload in payloads]
    assert [label.seq for label in replayed] == list(range(len(replayed)))
    assert {label.seq: label.label for label in replayed}.items() >= {
        (label.seq, label.label) for label in labels
    }
    assert listening.end() == 0
    back_h = (before.published_at - after.published_at) / 3600
    figure("clock set back", f"by {back_h:.1f} h: {len(labels)} labels, none missing from replay")
