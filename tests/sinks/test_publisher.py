import itertools
import sqlite3
import threading
import time

import pytest
import zmq
from msgspec.structs import replace

from streamtwl.errors import SinkError, UsageError
from streamtwl.messages import JOURNALLED, AnyMessage, Event, Hello, Label, Scored, decode
from streamtwl.sinks import publisher as publisher_module
from streamtwl.sinks.journal import Journal
from streamtwl.sinks.journal_file import reader
from streamtwl.sinks.publisher import Publisher

ANYWHERE = "tcp://127.0.0.1:*"
PATIENCE_MS = 600_000  # a message that takes longer does not come
SETTLED_MS = 300  # nothing more comes after this long


def label(seq: int, source: str = "kitchen", padding: int = 0, name: str = "Dog") -> Label:
    return Label(
        source=source, session="s", seq=seq, position=seq * 7680, captured_at=None,
        published_at=0.0, label=name, confidence=0.5, top=[Scored("x" * padding, 0.5)],
        reasoner="evidence", samples=0, traces=0, refinement=0, latency_ms=1.0,
    )  # fmt: skip


def hello(seq: int, source: str = "kitchen") -> Hello:
    return Hello(
        source=source, session="s", seq=seq, position=0, captured_at=None, published_at=0.0,
        labels=["Dog"], settings={}, models={},
    )  # fmt: skip


def event(seq: int) -> Event:
    return Event(
        source="kitchen", session="s", seq=seq, position=0, captured_at=None, published_at=0.0,
        id="s-kitchen-0", phase="onset", label="Dog", start=0, end=None, peak=0.5, mean=0.5,
    )  # fmt: skip


@pytest.fixture
def publisher():
    """Make publishers, closed with the test."""
    made = []

    def make(*arguments, **keywords) -> Publisher:
        made.append(Publisher(*(arguments or (ANYWHERE,)), **keywords))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def journal(tmp_path):
    one = Journal(tmp_path / "journal.sqlite")
    yield one
    one.close()


@pytest.fixture
def subscriber():
    """Make SUB sockets: subscriber(publisher, "label/")."""
    with zmq.Context() as context:
        made = []

        def make(publisher: Publisher, *topics: str, **options) -> zmq.Socket:
            socket = context.socket(zmq.SUB)
            made.append(socket)
            for option, value in options.items():
                socket.setsockopt(getattr(zmq, option), value)
            socket.connect(publisher.endpoint)
            for topic in topics or ("",):
                socket.subscribe(topic)
            return socket

        yield make
        for socket in made:
            socket.close(0)


def receive(socket: zmq.Socket, count: int) -> list[AnyMessage]:
    messages = []
    while len(messages) < count:
        assert socket.poll(PATIENCE_MS), f"only {len(messages)} of {count} messages came"
        topic, payload = socket.recv_multipart()
        message = decode(payload)
        assert message.topic.encode() == topic
        messages.append(message)
    return messages


def heard(publisher: Publisher, socket: zmq.Socket, seqs=itertools.count(10**6)) -> None:  # noqa: B008
    """Wait until the subscription has got through: connecting takes its time."""
    until = time.monotonic() + PATIENCE_MS / 1000
    while not socket.poll(20):
        assert time.monotonic() < until, "nothing comes"
        publisher.emit(label(next(seqs)))
    while socket.poll(SETTLED_MS):
        socket.recv_multipart()


def sent(publisher: Publisher) -> None:
    """Wait until the publisher has taken all that it was given."""
    until = time.monotonic() + PATIENCE_MS / 1000
    while publisher.queued:
        assert time.monotonic() < until
        time.sleep(0.001)


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
def test_messages_come_in_order_with_their_topics(encoding, publisher, subscriber):
    one = publisher(ANYWHERE, encoding)
    socket = subscriber(one)
    heard(one, socket)
    messages = [label(0), event(0), hello(0), label(1)]
    for message in messages:
        one.emit(message)
    assert receive(socket, 4) == messages


def test_the_payload_is_in_the_encoding_asked_for(publisher, subscriber):
    for encoding, first in (("json", b"{"), ("msgpack", None)):
        one = publisher(ANYWHERE, encoding)
        one.emit(label(0))
        sent(one)
        socket = subscriber(one)
        assert socket.poll(PATIENCE_MS)
        _, payload = socket.recv_multipart()
        assert (payload[:1] == b"{") == (first == b"{")


def test_a_subscriber_gets_only_what_it_asked_for(publisher, subscriber):
    one = publisher()
    socket = subscriber(one, "label/kitchen/")
    heard(one, socket)
    for message in (label(0, "attic"), event(0), label(0, "kitchen-2"), label(7, "kitchen")):
        one.emit(message)
    assert receive(socket, 1) == [label(7, "kitchen")]
    assert not socket.poll(SETTLED_MS)


def test_a_late_subscriber_gets_the_newest_hello_and_label_of_each_source(publisher, subscriber):
    one = publisher()
    for seq in range(3):
        for message in (hello(seq), label(seq), event(seq), label(seq, "attic")):
            one.emit(message)
    sent(one)
    socket = subscriber(one)
    messages = receive(socket, 3)
    assert sorted((message.topic, message.seq) for message in messages) == [
        ("hello/kitchen/", 2), ("label/attic/", 2), ("label/kitchen/", 2),
    ]  # fmt: skip
    assert not socket.poll(SETTLED_MS)


def test_a_late_subscriber_to_one_topic_gets_only_that(publisher, subscriber):
    one = publisher()
    for message in (hello(0), label(3), label(4, "attic")):
        one.emit(message)
    sent(one)
    socket = subscriber(one, "label/kitchen/")
    assert receive(socket, 1) == [label(3)]
    assert not socket.poll(SETTLED_MS)


def test_every_late_subscriber_is_greeted(publisher, subscriber):
    one = publisher()
    one.emit(hello(0))
    sent(one)
    for _ in range(3):
        assert receive(subscriber(one, "hello/"), 1) == [hello(0)]


def test_a_subscriber_that_never_reads_blocks_nobody_and_is_counted(publisher, subscriber):
    one = publisher()
    deaf = subscriber(one, RCVHWM=1, RCVBUF=4096)
    reader = subscriber(one, "label/", RCVHWM=0)
    heard(one, reader)
    assert deaf.poll(PATIENCE_MS)  # it is there
    got, count = [], 3000

    def read() -> None:
        while len(got) < count and reader.poll(PATIENCE_MS):
            got.append(decode(reader.recv_multipart()[1]).seq)

    reading = threading.Thread(target=read)
    reading.start()
    for seq in range(count):
        one.emit(label(seq, padding=10_000))
        while one.queued > 50:
            time.sleep(0.0005)
    reading.join()
    assert one.stalls > 0
    assert got == list(range(count))  # whoever reads misses nothing and gets nothing twice


def test_nothing_is_dropped_where_all_read(publisher, subscriber):
    one = publisher()
    socket = subscriber(one, "label/", RCVHWM=0)
    heard(one, socket)
    for seq in range(500):
        one.emit(label(seq))
        while one.queued > 50:
            time.sleep(0.0005)
    assert [message.seq for message in receive(socket, 500)] == list(range(500))
    assert one.figures()["dropped_messages"] == 0


def test_a_subscription_beyond_measure_is_hung_up_on(publisher, subscriber):
    one = publisher()
    with zmq.Context() as context, context.socket(zmq.XSUB) as stranger:
        stranger.setsockopt(zmq.LINGER, 0)
        monitor = stranger.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        stranger.connect(one.endpoint)
        stranger.send(b"\x01" + bytes(publisher_module.SUBSCRIPTION_BYTES))
        assert monitor.poll(PATIENCE_MS)
        stranger.disable_monitor()
    heard(one, subscriber(one, "label/"))  # others are served


def test_without_subscribers_nothing_counts_as_dropped(publisher):
    one = publisher()
    for seq in range(200):
        one.emit(label(seq))
    sent(one)
    assert one.figures()["dropped_messages"] == 0


def test_lossless_waits_for_a_slow_reader(publisher, subscriber):
    one = publisher(ANYWHERE, lossless=True)
    socket = subscriber(one, "label/", RCVHWM=1, RCVBUF=4096)
    heard(one, socket)
    count = 3000

    def produce() -> None:
        for seq in range(count):
            one.emit(label(seq, padding=10_000))

    producing = threading.Thread(target=produce)
    producing.start()
    time.sleep(0.5)  # long enough to fill every queue on the way
    assert producing.is_alive()
    seqs = [message.seq for message in receive(socket, count)]
    producing.join()
    assert seqs == list(range(count))
    assert one.figures()["dropped_messages"] == 0


def test_a_batch_is_queued_as_far_as_there_is_room(publisher, monkeypatch):
    one = publisher()
    entered, go = threading.Event(), threading.Event()

    def held_up(batch) -> None:
        entered.set()
        go.wait(PATIENCE_MS / 1000)
        forward(batch)

    forward = one._forward
    monkeypatch.setattr(one, "_forward", held_up)
    one.emit(label(0))
    assert entered.wait(PATIENCE_MS / 1000)
    one.emit_all([label(seq) for seq in range(1, publisher_module.QUEUE + 5)])
    go.set()
    sent(one)
    assert one.figures()["dropped_messages"] == 5  # the one in hand counts as queued


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("lossless", [True, False])
def test_a_thread_that_has_ended_is_an_error_and_not_waited_for(lossless, publisher, monkeypatch):
    one = publisher(ANYWHERE, lossless=lossless)

    def fails(batch) -> None:
        raise SystemExit

    monkeypatch.setattr(one, "_forward", fails)
    one.emit(label(0))
    one._thread.join(PATIENCE_MS / 1000)
    with pytest.raises(SinkError, match="ended"):
        one.emit(label(1))


def test_close_publishes_what_is_queued(subscriber):
    one = Publisher(ANYWHERE)
    socket = subscriber(one, "label/")
    heard(one, socket)
    for seq in range(100):
        one.emit(label(seq))
    one.close()
    assert [message.seq for message in receive(socket, 100)] == list(range(100))


def test_what_arrives_is_in_the_journal_already(publisher, subscriber, journal):
    one = publisher(ANYWHERE, lossless=True, journal=journal)
    socket = subscriber(one)
    heard(one, socket)
    messages = [label(0, name="Cat"), event(0), hello(0), label(1)]
    for message in messages:
        one.emit(message)
    assert not messages[0].journalled  # what other sinks have taken is left as it is
    messages = [replace(m, journalled=True) if isinstance(m, JOURNALLED) else m for m in messages]
    assert receive(socket, 4) == messages
    connection = reader(journal.path)
    held = [payload for (payload,) in connection.execute("SELECT payload FROM messages")]
    connection.close()
    assert [decode(payload) for payload in held[-3:]] == [messages[0], messages[1], messages[3]]


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
def test_what_the_journal_does_not_take_goes_out_and_says_so(
    encoding, publisher, subscriber, journal
):
    one = publisher(ANYWHERE, encoding, journal=journal)
    socket = subscriber(one)
    heard(one, socket)
    before = one.figures()["journal_errors"]  # a slow machine may have had some
    other = sqlite3.connect(journal.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    messages = [label(0, name="Cat"), event(0), hello(0)]
    for message in messages:
        one.emit(message)
    received = receive(socket, 3)
    assert received == messages
    assert [getattr(message, "journalled", None) for message in received] == [False, False, None]
    assert one.figures()["journal_errors"] == before + 2
    assert "journal.sqlite" in one.figures()["journal"]
    other.execute("COMMIT")
    other.close()


def test_without_a_journal_nothing_says_that_it_is_in_one(publisher, subscriber):
    one = publisher()
    socket = subscriber(one)
    heard(one, socket)
    one.emit(label(0))
    assert not receive(socket, 1)[0].journalled
    assert (one.figures()["journal_errors"], one.figures()["journal"]) == (0, None)


@pytest.mark.parametrize("option", ["--bind", "--replay-bind"])
def test_the_option_to_blame_is_named(option, publisher, journal):
    one = publisher()
    binds = {"--bind": one.endpoint, "--replay-bind": ANYWHERE}
    binds = binds if option == "--bind" else {"--bind": ANYWHERE, "--replay-bind": one.endpoint}
    with pytest.raises(SinkError, match=f"in use.* with {option}$"):
        Publisher(binds["--bind"], journal=journal, replay_bind=binds["--replay-bind"])


def test_nan_is_refused_where_it_is_sent(publisher):
    message = label(0)
    message.confidence = float("nan")
    with pytest.raises(ValueError, match="confidence"):
        publisher().emit(message)


def test_a_port_in_use_is_a_sink_error_with_a_way_out(publisher):
    one = publisher()
    with pytest.raises(SinkError, match=r"in use.*--bind") as raised:
        Publisher(one.endpoint)
    assert one.endpoint in str(raised.value)


def test_a_port_can_be_used_again_after_close():
    one = Publisher(ANYWHERE)
    one.close()
    Publisher(one.endpoint).close()


@pytest.mark.parametrize(
    "bind",
    [
        "",
        "5577",
        "127.0.0.1:5577",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:99999",
        "tcp://nowhere.invalid:5577",
        "tcp://203.0.113.7:5577",
        "smoke://signals",
        "udp://127.0.0.1:5577",
        "ipc:///nowhere/at/all",
    ],
)
def test_a_bad_endpoint_is_an_error_that_names_it(bind):
    with pytest.raises((SinkError, UsageError)) as raised:
        Publisher(bind)
    assert bind in str(raised.value)
