"""A file that does not answer, as on a network share that is gone: told, and gone on with."""

import threading

import numpy as np
import pytest
import zmq

from streamtwl import session as session_module
from streamtwl.audio.intake import Intake
from streamtwl.audio.source import Chunk, Source
from streamtwl.config import Settings
from streamtwl.messages import Status, decode
from streamtwl.session import Session
from streamtwl.sinks.lines import Nothing, Plain
from streamtwl.sinks.publisher import Publisher


class Share(Source):
    """Two seconds of silence; then a read that does not return until it is told to."""

    def __init__(self) -> None:
        super().__init__("share", paced=False, clocked=False)
        self.answers = threading.Event()
        self._given = 0

    def start(self) -> None:
        self.state = "listening"

    def due_in(self, now: float) -> float:
        return 0.0

    def read(self, now: float) -> Chunk | None:
        if self._given == 32_000:
            self.answers.wait()
        if self._given == 64_000:
            self.state = "ended"
            return None
        start, self._given = self._given, self._given + 16_000
        return Chunk(np.zeros((16_000, 1), np.float32), 16_000, start)

    def stop(self) -> None:
        self.answers.set()


@pytest.mark.usefixtures("yamnet")
def test_a_file_that_does_not_answer_is_told_and_gone_on_with(monkeypatch):
    monkeypatch.setattr(session_module, "STUCK_S", 0.5)
    share = Share()
    publisher = Publisher("tcp://127.0.0.1:*")
    statuses: list[Status] = []
    with zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
        subscriber.subscribe("status/")
        subscriber.connect(publisher.endpoint)
        intake = Intake([share])
        intake.start()
        session = Session(intake, [share], Settings(), publisher, Nothing())
        session.start()
        while session.running():
            session.watch()
            if subscriber.poll(50):
                statuses.append(decode(subscriber.recv_multipart()[1]))
                if statuses[-1].state == "stalled" and len(statuses) > 3:
                    share.answers.set()
        session.close()
        publisher.close()
        while subscriber.poll(500):
            statuses.append(decode(subscriber.recv_multipart()[1]))
    stalled = [status for status in statuses if status.state == "stalled"]
    assert len(stalled) >= 2
    assert "'share' does not answer" in stalled[0].error
    assert "[stalled]" in Plain().line(stalled[0])
    seqs = [status.seq for status in statuses]
    assert seqs == list(range(seqs[0], seqs[-1] + 1))  # though two threads told them
    assert (statuses[-1].state, statuses[-1].position) == ("ended", 64_000)
