"""The wall clock is set back by a day: numbers, journal and replay go on.

libfaketime fakes it for the listener's process alone; the machine's clock is not touched.
"""

import os
import sys
import time
from pathlib import Path

import msgspec
import pytest
import zmq

from streamtwl.messages import Hello, Label, ReplayHeader, decode

DAY_S = 86_400
PATIENCE_MS = 10_000
LIBRARIES = sorted(Path("/usr/lib").glob("**/faketime/libfaketimeMT.so.1"))


@pytest.mark.timeout(120)
def test_the_clock_set_back_by_a_day(listen, tmp_path, figure):
    if not LIBRARIES:
        pytest.skip("no libfaketime: apt-get install faketime")
    clock = tmp_path / "clock"
    clock.write_text("+0")
    # libfaketime takes Python's sleep, up to a monotonic moment, for one up to a faked moment.
    (tmp_path / "sitecustomize.py").write_text(
        "import select, time\ntime.sleep = lambda s: select.select([], [], [], s) and None\n"
    )
    listening = listen(
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
