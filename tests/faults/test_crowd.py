"""Many subscribers, some of which never read, and more messages than anybody can take at once."""

import contextlib
import itertools
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import zmq

from streamtwl.messages import AnyMessage, decode
from streamtwl.sinks.journal import Journal
from streamtwl.sinks.journal_file import reader
from streamtwl.sinks.publisher import Publisher
from tests.conftest import PATIENCE_S
from tests.example_messages import event, label, status

ANYWHERE = "tcp://127.0.0.1:*"
CROWD = Path(__file__).with_name("crowd.py")
PROCESSES = 4
LABELS_AN_EVENT, LABELS_A_STATE = 10, 50
STATE_S = 0.2  # from one state to the next, when nothing else is told
PADDING = 600  # bytes in a label, so that one is about 1 kB


class Teller:
    """Publishes labels as fast as they go, with events and states between them."""

    def __init__(self, publisher: Publisher) -> None:
        self.sent: Counter[str] = Counter()
        self._publisher = publisher

    def tell(self, message: AnyMessage) -> None:
        while self._publisher.queued > 500:  # faster it drops them: nobody gets those
            time.sleep(0.0002)
        self._publisher.emit(message)
        self.sent[message.topic] += 1

    def state(self) -> None:
        last = {topic.partition("/")[0]: n - 1 for topic, n in self.sent.items()}
        seq = self.sent["status/mic/"]
        state = status(seq, replay=self._publisher.replay, **last | {"status": seq})
        state.error = str(seq % 2)  # each one a change
        self.tell(state)

    def label(self) -> None:
        """Tell a label, and an event or a state with some of them."""
        seq = self.sent["label/mic/"]
        self.tell(label(seq, padding=PADDING, name=f"Dog {seq % 2}"))  # each one a change
        if seq % LABELS_AN_EVENT == 0:
            self.tell(event(self.sent["event/mic/"]))
        if seq % LABELS_A_STATE == 0:
            self.state()

    def until(self, condition, timeout_s: float) -> None:
        """Tell states until something is so."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline
            self.state()
            time.sleep(STATE_S)


class Crowd:
    """A process of subscribers, its lines read as they come."""

    def __init__(self, endpoint: str, subscribers: int, labels: int) -> None:
        self.lines: list[str] = []
        arguments = [sys.executable, CROWD, endpoint, str(subscribers), str(labels)]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        self.lines.extend(self.process.stdout)

    def results(self) -> list[dict]:
        return [json.loads(line) for line in self.lines if line != "ready\n"]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reading.join()
        self.process.stdout.close()


def drain(deaf: zmq.Socket) -> int:
    """Return how many labels a subscriber that never read was left with."""
    labels = 0
    while deaf.poll(500):
        topic, payload = deaf.recv_multipart()
        labels += topic == b"label/mic/" and decode(payload).seq >= 0
    return labels


@pytest.mark.parametrize(
    ("subscribers", "of_them_deaf", "labels"),
    [(10, 2, 10_000), pytest.param(50, 10, 50_000, marks=pytest.mark.soak)],
)
@pytest.mark.timeout(1800)
def test_who_reads_has_all_in_the_end_though_others_never_read(
    subscribers, of_them_deaf, labels, tmp_path, figure
):
    reading = subscribers - of_them_deaf
    with contextlib.ExitStack() as open_:
        journal = open_.enter_context(contextlib.closing(Journal(tmp_path / "journal.sqlite")))
        publisher = Publisher(ANYWHERE, journal=journal, replay_bind=ANYWHERE)
        open_.enter_context(contextlib.closing(publisher))
        context = open_.enter_context(zmq.Context())
        deaf = [open_.enter_context(context.socket(zmq.SUB)) for _ in range(of_them_deaf)]
        for one in deaf:
            one.setsockopt(zmq.RCVHWM, 1)
            one.setsockopt(zmq.RCVBUF, 4096)
            one.setsockopt(zmq.LINGER, 0)
            one.connect(publisher.endpoint)
            one.subscribe("")
        shares = Counter(itertools.islice(itertools.cycle(range(PROCESSES)), reading))
        crowds = [Crowd(publisher.endpoint, share, labels) for share in shares.values()]
        for crowd in crowds:
            open_.callback(crowd.close)

        def lines(said: str) -> int:
            assert not any(crowd.process.poll() for crowd in crowds), "a subscriber failed"
            return sum(line.startswith(said) for crowd in crowds for line in crowd.lines)

        teller = Teller(publisher)
        teller.until(
            lambda: lines("ready") == reading and all(one.poll(0) for one in deaf), PATIENCE_S
        )
        began = time.monotonic()
        for _ in range(labels):
            teller.label()
        told_s = time.monotonic() - began
        teller.until(lambda: lines("{") == reading, 1200)
        caught_up_s = time.monotonic() - began
        results = [result for crowd in crowds for result in crowd.results()]
        left = [drain(one) for one in deaf]
        with contextlib.closing(reader(journal.path)) as held:
            [(in_journal,)] = held.execute("SELECT count(*) FROM messages").fetchall()
        not_in_journal = teller.sent.total() - in_journal
        assert publisher.figures()["dropped_messages"] == 0

    assert all(count < labels for count in left)  # the drops did happen
    assert publisher.stalls > 0  # and were counted here; by whom they hit, in `seq`
    for result in results:
        assert result["back"] == 0  # each once and in order
        assert result["missed"] == sum(result["lost"].values())  # what is lost is counted
        assert result["had"]["label/mic/"] == labels
        assert result["had"]["event/mic/"] == teller.sent["event/mic/"]
        assert sum(result["lost"].values()) <= not_in_journal
    recovered = [result["recovered"] for result in results]
    figure(
        f"{subscribers} subscribers, {of_them_deaf} never read",
        f"{labels} labels, {teller.sent['event/mic/']} events and {teller.sent['status/mic/']} "
        f"states ({teller.sent.total() / told_s:.0f} a second); each of the {reading} had every "
        f"one, after {caught_up_s:.0f} s, {min(recovered)} to {max(recovered)} of them by replay; "
        f"lost {sum(sum(result['lost'].values()) for result in results)}; the {of_them_deaf} were "
        f"left with {min(left)} to {max(left)} labels, {of_them_deaf * labels - sum(left)} were "
        f"dropped; found full {publisher.stalls} times; "
        f"{journal.errors} messages went out before they were in the journal",
    )
