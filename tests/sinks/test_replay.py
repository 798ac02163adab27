import itertools
import time
from pathlib import Path

import msgspec
import pytest
import zmq

from streamtwl.messages import ReplayHeader, decode, encode
from streamtwl.sinks import replay
from streamtwl.sinks.journal import Entry, Journal
from streamtwl.sinks.publisher import Publisher
from streamtwl.sinks.replay import BURST, PAGE_BYTES, PAGE_MESSAGES, RateLimit

from .test_publisher import ANYWHERE, event, hello, label, sent

PATIENCE_MS = 600_000


@pytest.fixture
def journal(tmp_path):
    one = Journal(tmp_path / "journal.sqlite")
    yield one
    one.close()


@pytest.fixture
def publisher(journal):
    """Make publishers with the journal, closed with the test."""
    made = []

    def make(encoding="msgpack") -> Publisher:
        made.append(Publisher(ANYWHERE, encoding, True, journal, ANYWHERE))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def client():
    """Make sockets that ask: client(publisher), or client(publisher, zmq.REQ)."""
    with zmq.Context() as context:
        made = []

        def make(publisher: Publisher, kind: int = zmq.DEALER) -> zmq.Socket:
            socket = context.socket(kind)
            made.append(socket)
            socket.connect(publisher.replay)
            return socket

        yield make
        for socket in made:
            socket.close(0)


def ask(socket: zmq.Socket, request, encoding: str = "msgpack") -> tuple[ReplayHeader, list[bytes]]:
    """Return the header and the payloads that a request, or raw frames, is answered with."""
    library = msgspec.json if encoding == "json" else msgspec.msgpack
    if isinstance(request, dict):
        socket.send(library.encode(request))
    else:
        socket.send_multipart(request)
    assert socket.poll(PATIENCE_MS), "no answer"
    header, *payloads = socket.recv_multipart()
    header = library.decode(header, type=ReplayHeader)
    assert header.count == len(payloads)
    return header, payloads


def wanted(topic="label/kitchen/", start=0, to=None, session="s") -> dict:
    return {"session": session, "topic": topic, "from": start, "to": to}


def seqs(payloads: list[bytes]) -> list[int]:
    return [decode(payload).seq for payload in payloads]


@pytest.mark.parametrize(
    ("stored", "asked"), list(itertools.product(["msgpack", "json"], repeat=2))
)
@pytest.mark.parametrize("kind", [zmq.DEALER, zmq.REQ])
def test_messages_come_again_as_they_were_sent(stored, asked, kind, publisher, client):
    one = publisher(stored)
    given = [label(seq, name=f"Dog {seq}") for seq in range(5)]
    for message in [*given, event(0), label(0, "attic")]:
        one.emit(message)
    sent(one)
    messages = [msgspec.structs.replace(message, journalled=True) for message in given]
    header, payloads = ask(client(one, kind), wanted(), asked)
    assert [decode(payload) for payload in payloads] == messages
    assert payloads == [encode(message, asked) for message in messages]
    assert header == ReplayHeader(session="s", topic="label/kitchen/", count=5, newest=4)


@pytest.mark.parametrize(
    ("request_", "expected", "newest"),
    [
        (wanted(start=3), [3, 4], 4),
        (wanted(start=1, to=2), [1, 2], 4),
        (wanted(start=4, to=4), [4], 4),
        (wanted(start=5), [], 4),
        (wanted(start=3, to=2), [], 4),
        (wanted(to=2**63 - 1), [0, 1, 2, 3, 4], 4),
        (wanted(start=2**63 - 1), [], 4),
        (wanted(session="another"), [], None),
        (wanted("label/attic/"), [], None),
        (wanted("event/kitchen/"), [0], 0),
    ],
)
def test_a_range_is_given_as_far_as_it_is_there(request_, expected, newest, publisher, client):
    one = publisher()
    for message in [*(label(seq) for seq in range(5)), event(0)]:
        one.emit(message)
    sent(one)
    header, payloads = ask(client(one), request_)
    assert (seqs(payloads), header.newest) == (expected, newest)
    assert (header.next, header.error) == (None, None)


def test_pages_follow_each_other_without_a_gap(publisher, client):
    one = publisher()
    for seq in range(2 * PAGE_MESSAGES + 7):
        one.emit(label(seq))
    sent(one)
    socket, start, pages = client(one), 0, []
    while start is not None:
        header, payloads = ask(socket, wanted(start=start))
        pages.append(seqs(payloads))
        start = header.next
    assert [len(page) for page in pages] == [PAGE_MESSAGES, PAGE_MESSAGES, 7]
    assert list(itertools.chain(*pages)) == list(range(2 * PAGE_MESSAGES + 7))


def test_a_page_is_limited_in_bytes_and_one_message_always_fits(publisher, client):
    one = publisher()
    for seq in range(5):
        one.emit(label(seq, padding=100_000))
    one.emit(label(5, padding=2 * PAGE_BYTES))
    sent(one)
    socket, start, pages = client(one), 0, []
    while start is not None:
        header, payloads = ask(socket, wanted(start=start))
        pages.append(seqs(payloads))
        start = header.next
    assert pages == [[0, 1], [2, 3], [4], [5]]


def test_what_the_journal_lacks_is_left_out(publisher, journal, client):
    one = publisher()
    journal.commit(
        [Entry("s", "label/kitchen/", seq, time.time(), None, encode(label(seq))) for seq in (1, 4)]
    )
    header, payloads = ask(client(one), wanted())
    assert (seqs(payloads), header.newest, header.next) == ([1, 4], 4, None)


@pytest.mark.parametrize("damaged", [b"{no json", b"\xc1", b"\x81\x01\x02"])
@pytest.mark.parametrize("encoding", ["msgpack", "json"])
def test_what_is_damaged_in_the_journal_harms_nobody(encoding, damaged, publisher, journal, client):
    one = publisher()
    held = [encode(label(0)), damaged, encode(label(2))]
    entries = [
        Entry("s", "label/kitchen/", seq, time.time(), None, payload)
        for seq, payload in enumerate(held)
    ]
    assert journal.commit(entries, 10)
    socket = client(one)
    for _ in range(2):  # it is alive
        header, payloads = ask(socket, wanted(), encoding)
        assert (header.error, [decode(payloads[i]).seq for i in (0, 2)]) == (None, [0, 2])


def test_hello_is_not_journalled(publisher, client):
    one = publisher()
    one.emit(hello(0))
    sent(one)
    header, payloads = ask(client(one), wanted("hello/kitchen/"))
    assert "only label/, event/, status/" in header.error
    assert payloads == []


@pytest.mark.parametrize(
    ("frames", "encoding", "said"),
    [
        ([b"hello"], "msgpack", "malformed request"),
        ([b"{"], "json", "malformed request"),
        ([b'{"session": "s", "topic": "label/a/"}'], "json", "`from`"),
        ([b'{"session": "s", "topic": "label/a/", "from": -1}'], "json", "$.from"),
        ([b'{"session": 7, "topic": "label/a/", "from": 0}'], "json", "$.session"),
        ([b'{"session": "s", "topic": "label/a/", "from": 1e400}'], "json", "malformed request"),
        ([b'{"session": "s", "topic": "label/a/", "from": 0, "x": 1}'], "json", "`x`"),
        ([b"{" + b" " * 2000], "json", "2001 bytes, at most 1024"),
        ([b"\x80", b"\x80"], "msgpack", "2 frames, it takes one"),
        ([b"", b"\x80", b""], "msgpack", "2 frames, it takes one"),
        ([b""], "msgpack", "malformed request"),
    ],
)
def test_what_is_malformed_is_answered_with_what_was_wrong(
    frames, encoding, said, publisher, client
):
    one = publisher()
    socket = client(one)
    if frames[0] == b"" and len(frames) > 1:  # as of a REQ socket: it is given back
        socket.send_multipart(frames)
        assert socket.poll(PATIENCE_MS)
        delimiter, header = socket.recv_multipart()
        assert delimiter == b""
        error = msgspec.msgpack.decode(header, type=ReplayHeader).error
    else:
        error = ask(socket, frames, encoding)[0].error
    assert error.startswith("malformed request")
    assert said in error
    assert ask(socket, wanted())[0].error is None  # alive


def test_who_asks_too_often_is_told_so_and_others_are_served(publisher, client, monkeypatch):
    monkeypatch.setattr(replay, "REQUESTS_PER_S", 0.0)
    one = publisher()
    greedy, modest = client(one), client(one)
    errors = [ask(greedy, wanted())[0].error for _ in range(int(BURST) + 1)]
    assert errors[:-1] == [None] * int(BURST)
    assert errors[-1].startswith("too many requests")
    assert ask(modest, wanted())[0].error is None


def test_who_does_not_read_his_pages_holds_nobody_up(publisher, client):
    one = publisher()
    for seq in range(20):
        one.emit(label(seq, padding=100_000))
    sent(one)
    deaf, reader = client(one), client(one)
    deaf.setsockopt(zmq.RCVHWM, 1)
    for _ in range(int(BURST)):
        deaf.send(msgspec.msgpack.encode(wanted()))
    assert ask(reader, wanted())[1]


@pytest.mark.slow
def test_damage_that_a_request_comes_upon_sets_the_journal_aside(
    publisher, client, tmp_path, monkeypatch
):
    monkeypatch.setattr("streamtwl.sinks.journal.CHECKPOINT_S", 0.05)
    one = publisher()
    for seq in range(20):
        one.emit(label(seq, padding=10_000))
    sent(one)
    [journal] = tmp_path.glob("*.sqlite")
    socket = client(one)
    assert len(ask(socket, wanted())[1]) == 20
    for file in (journal, Path(f"{journal}-wal")):
        file.write_bytes(b"\xff" * file.stat().st_size)
    error = ask(socket, wanted())[0].error
    assert error == "the journal cannot be read now: try again later"
    until = time.monotonic() + PATIENCE_MS / 1000
    while not list(tmp_path.glob("*-damaged-*.sqlite")):
        assert time.monotonic() < until
        time.sleep(0.01)
    one.emit(label(20, name="Cat"))
    sent(one)
    while ask(socket, wanted())[0].newest != 20:
        assert time.monotonic() < until
        time.sleep(0.1)


def test_without_a_journal_there_is_no_replay():
    one = Publisher(ANYWHERE, replay_bind=ANYWHERE)
    assert one.replay is None
    one.close()


def test_the_rate_limit_is_a_bucket_that_fills():
    limit = RateLimit(per_s=10, burst=3, most=2)
    assert [limit.allows(b"a", 0.0) for _ in range(5)] == [True, True, True, False, False]
    assert [limit.allows(b"a", 0.1) for _ in range(2)] == [True, False]
    assert [limit.allows(b"a", 100.0) for _ in range(4)] == [True, True, True, False]


def test_the_rate_limit_remembers_only_the_last_clients():
    limit = RateLimit(per_s=0, burst=1, most=2)
    for client in (b"a", b"b", b"a", b"c"):  # b was seen longest ago
        limit.allows(client, 0.0)
    assert len(limit) == 2
    assert not limit.allows(b"a", 0.0)
    assert limit.allows(b"b", 0.0)


def numbered(payloads: list[bytes]) -> list[tuple[int, int]]:
    """First seq and seq of each message."""
    messages = [decode(payload) for payload in payloads]
    return [(m.summary.first_seq if m.summary else m.seq, m.seq) for m in messages]


def test_repeats_come_one_by_one_as_long_as_they_are_held_and_then_as_a_summary(
    publisher, client, monkeypatch
):
    one = publisher()
    for seq in range(300):  # 144 s of sound, two minutes of which have a row in the journal
        one.emit(label(seq))
    one.emit(event(0))
    sent(one)
    socket = client(one)
    header, payloads = ask(socket, wanted(start=3))
    assert numbered(payloads) == [(seq, seq) for seq in range(3, 300)]
    assert {decode(payload).repeat for payload in payloads} == {True}
    assert (header.newest, header.next) == (299, None)
    monkeypatch.setattr("streamtwl.sinks.repeats.HELD_S", -1.0)
    header, payloads = ask(socket, wanted())
    assert numbered(payloads) == [(0, 0), (1, 126), (127, 252), (253, 299)]
    assert [decode(payload).journalled for payload in payloads] == [True] * 4
    header, payloads = ask(socket, wanted(start=130, to=140))  # the one that they are in
    assert numbered(payloads) == [(127, 252)]
    assert numbered(ask(socket, wanted(start=130, to=260))[1]) == [(127, 252), (253, 299)]
    assert ask(socket, wanted(start=300))[1] == []


def test_the_next_page_begins_where_a_summary_does(publisher, client, monkeypatch):
    monkeypatch.setattr("streamtwl.sinks.repeats.HELD_S", -1.0)
    monkeypatch.setattr(replay, "PAGE_MESSAGES", 2)
    one = publisher()
    for seq in range(300):
        one.emit(label(seq))
    one.emit(event(0))
    sent(one)
    socket = client(one)
    header, payloads = ask(socket, wanted())
    assert (numbered(payloads), header.next) == ([(0, 0), (1, 126)], 127)
    header, payloads = ask(socket, wanted(start=127))
    assert (numbered(payloads), header.next) == ([(127, 252), (253, 299)], None)


def test_levels_are_replayed(publisher, client):
    assert ask(client(publisher()), wanted("level/kitchen/"))[0].error is None
