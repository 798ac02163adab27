"""A subscriber that is killed and started again, again and again, while the publisher runs."""

import contextlib
import itertools
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streamtwl.sinks.journal import Journal
from streamtwl.sinks.publisher import Publisher
from tests.conftest import PATIENCE_S

from .test_crowd import ANYWHERE, Teller

RESTARTED = Path(__file__).with_name("restarted.py")
LONGEST_S = 2.0  # that it lives, and that it is away
LABEL_S = 0.01  # from one label to the next
LAST = 10**6  # the seq of the label after which it ends


@pytest.mark.parametrize("how", ["state", "resume"])
@pytest.mark.parametrize("kills", [4, pytest.param(30, marks=pytest.mark.soak)])
@pytest.mark.timeout(900)
def test_it_has_every_message_since_its_first(how, kills, tmp_path, monkeypatch, figure):
    # Whether a commit comes in time is another test's; here all that is sent is in the journal.
    monkeypatch.setattr("streamtwl.sinks.publisher.COMMIT_S", 30.0)
    moments = random.Random(kills)
    written = tmp_path / "had.txt"
    with contextlib.ExitStack() as open_:
        journal = open_.enter_context(contextlib.closing(Journal(tmp_path / "journal.sqlite")))
        publisher = Publisher(ANYWHERE, journal=journal, replay_bind=ANYWHERE)
        open_.enter_context(contextlib.closing(publisher))
        teller = Teller(publisher)

        def start() -> subprocess.Popen:
            last = str(teller.sent["label/mic/"] if over else LAST)
            arguments = [sys.executable, RESTARTED, how, publisher.endpoint, tmp_path, last]
            process = subprocess.Popen(arguments)
            open_.callback(process.wait)
            open_.callback(process.kill)
            return process

        def tell(seconds: float) -> None:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                teller.label()
                time.sleep(LABEL_S)

        over = False
        process = start()
        while not written.exists() or not written.stat().st_size:
            tell(0.1)
        for _ in range(kills):
            tell(moments.uniform(0.0, LONGEST_S))
            process.kill()  # SIGKILL
            process.wait()
            tell(moments.uniform(0.0, LONGEST_S))
            process = start()
        process.kill()
        process.wait()
        over = True
        process = start()
        teller.label()  # the last label, told while it starts; only states follow
        teller.until(lambda: process.poll() is not None, PATIENCE_S)
        assert process.returncode == 0

    lines = [line.split() for line in written.read_text().splitlines()]
    again = 0
    for topic in ("label/mic/", "event/mic/"):
        seqs = [int(seq) for _, named, seq in lines if named == topic]
        had = sorted(set(seqs))
        assert had == list(range(had[0], had[-1] + 1))
        if topic == "label/mic/":
            assert had[-1] == teller.sent[topic] - 1
        again += len(seqs) - len(had)
        steps = [b - a for a, b in itertools.pairwise(seqs)]
        assert all(step == 1 or step <= 0 for step in steps)  # back at a restart, never ahead
    assert how == "state" or again == 0
    figure(
        f"killed and restarted {kills} times, by {how}",
        f"{len(lines)} messages from the first to the last, 0 missing, {again} came again",
    )
