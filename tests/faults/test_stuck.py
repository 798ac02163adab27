"""A file that does not answer, as on a network share that is gone: published, and gone on with."""

import threading

import numpy as np
import pytest
import zmq

from streamtwl import session as session_module
from streamtwl.audio import demo
from streamtwl.audio.intake import Intake
from streamtwl.config import Settings
from streamtwl.messages import Event, Status, decode
from streamtwl.session import Session
from streamtwl.sinks.lines import Plain
from streamtwl.sinks.publisher import Publisher
from streamtwl.stages import Chunk, Source


class Share(Source):
    """Two seconds of sound; then a read that does not return until it is told to; two more."""

    def __init__(self, sound: np.ndarray) -> None:
        super().__init__("share", paced=False, clocked=False)
        self.answers = threading.Event()
        self._sound = sound
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
        return Chunk(self._sound[start : self._given, None], 16_000, start)

    def stop(self) -> None:
        self.answers.set()


@pytest.mark.usefixtures("yamnet")
def test_a_file_that_does_not_answer_is_told_and_gone_on_with(monkeypatch):
    monkeypatch.setattr(session_module, "STUCK_S", 0.5)
    [siren] = [sound for sound in demo.TIMELINE if sound.label == "Siren"]
    share = Share(np.resize(demo.scene()[int(siren.start_s * 16_000) :][:32_000], 64_000))
    publisher = Publisher("tcp://127.0.0.1:*")
    statuses: list[Status] = []
    events: list[Event] = []
    with zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
        subscriber.subscribe("")
        subscriber.connect(publisher.endpoint)
        intake = Intake([share])
        intake.start()
        session = Session(intake, [share], Settings(), [publisher])
        session.start()
        while session.running():
            session.watch()
            if subscriber.poll(50):
                message = decode(subscriber.recv_multipart()[1])
                statuses += [message] if isinstance(message, Status) else []
                events += [message] if isinstance(message, Event) else []
                if statuses and statuses[-1].state == "stalled" and len(statuses) > 3:
                    share.answers.set()
            if not share.answers.is_set():
                while_stalled = list(events)
        session.close()
        publisher.close()
        while subscriber.poll(500):
            message = decode(subscriber.recv_multipart()[1])
            statuses += [message] if isinstance(message, Status) else []
            events += [message] if isinstance(message, Event) else []
    stalled = [status for status in statuses if status.state == "stalled"]
    assert len(stalled) >= 2
    assert "'share' does not answer" in stalled[0].error
    assert "[stalled]" in Plain().line(stalled[0])
    seqs = [status.seq for status in statuses]
    assert seqs == list(range(seqs[0], seqs[-1] + 1))  # though two threads told them
    assert (statuses[-1].state, statuses[-1].position) == ("ended", 64_000)
    ended = {event.id: event for event in while_stalled}.values()  # while it did not answer
    assert all(event.end is not None for event in ended)
    assert max(event.end for event in ended if not event.void) == 32_000
    after = {event.id: event for event in events if event.id not in {e.id for e in ended}}.values()
    assert any(event.start >= 32_000 for event in after)
    assert all(event.void or 32_000 <= event.start < event.end <= 64_000 for event in after)
