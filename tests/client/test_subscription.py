"""Subscriptions to real publishers, over real sockets."""

import asyncio
import contextlib
import itertools
import logging
import shutil
import socket
import time
from pathlib import Path

import msgspec
import pytest
import zmq

from streamtwl import subscribe
from streamtwl.client import Subscription, subscription
from streamtwl.client import state as state_file
from streamtwl.errors import UsageError
from streamtwl.messages import JOURNALLED, AnyMessage, encode
from streamtwl.security import ServerKeys, make_keys
from streamtwl.sinks.journal import Entry, Journal
from streamtwl.sinks.publisher import Publisher
from tests.conftest import PATIENCE_S
from tests.example_messages import event, hello, label, patch, status

ANYWHERE = "tcp://127.0.0.1:*"
SETTLED_S = 0.3  # nothing more comes after this long


@pytest.fixture
def journal(tmp_path):
    with contextlib.closing(Journal(tmp_path / "journal.sqlite")) as one:
        yield one


@pytest.fixture
def publisher(journal, monkeypatch):
    """Make publishers with the journal, closed with the test; a busy disk is no matter here."""
    monkeypatch.setattr("streamtwl.sinks.publisher.COMMIT_S", PATIENCE_S)
    with contextlib.ExitStack() as open_:

        def make(bind: str = ANYWHERE, replay_bind: str = ANYWHERE, **options) -> Publisher:
            one = Publisher(bind, journal=journal, replay_bind=replay_bind, **options)
            return open_.enter_context(contextlib.closing(one))

        yield make


def heard(publisher: Publisher, one: Subscription, session: str = "s") -> int:
    """Wait until a subscription to states has got through; return the seq of the last state."""
    until = time.monotonic() + PATIENCE_S
    for seq in itertools.count():
        publisher.emit(status(seq, session, replay=publisher.replay))
        if one.receive(0.05):
            break
        assert time.monotonic() < until, "nothing comes"
    while one.receive(SETTLED_S):
        pass
    return seq


def received(one: Subscription, count: int) -> list[AnyMessage]:
    """Return so many messages as the publisher was given them; it marks those that it journals."""
    messages: list[AnyMessage] = []
    while len(messages) < count:
        message = one.receive(PATIENCE_S)
        assert message is not None, f"only {len(messages)} of {count} came"
        messages.append(as_given(message))
    return messages


def as_given(message: AnyMessage) -> AnyMessage:
    if not isinstance(message, JOURNALLED):
        return message
    marks = {"journalled": False} | ({"repeat": False} if hasattr(message, "repeat") else {})
    return msgspec.structs.replace(message, **marks)


def numbers(messages: list[AnyMessage]) -> list[tuple[str, int]]:
    return [(message.session, message.seq) for message in messages]


def test_messages_come_typed_and_in_order(publisher):
    one = publisher()
    with subscribe(one.endpoint) as mine:
        heard(one, mine)
        messages = [label(0), event(0), patch(0), hello(0), label(1)]
        for message in messages:
            one.emit(message)
        assert received(mine, 5) == messages
        assert mine.receive(SETTLED_S) is None


def test_only_what_was_asked_for_comes(publisher):
    one = publisher()
    with subscribe(one.endpoint, ["label", "event"], ["mic"], ["d?g", "*ALARM"]) as mine:
        one.emit(status(0))
        assert mine.receive(SETTLED_S) is None
        wanted = [label(1), event(0), label(3, name="Smoke alarm")]
        passed_over = [label(0, name=None), label(2, name="Dogs"), label(0, source="attic")]
        messages = sorted(wanted + passed_over + [patch(0)], key=lambda message: message.seq)
        for message in messages:
            one.emit(message)
        assert sorted(received(mine, 3), key=messages.index) == sorted(wanted, key=messages.index)
        assert mine.receive(SETTLED_S) is None
        assert not mine.lost


def test_an_event_that_fitted_comes_to_its_end_though_it_was_another_labels(publisher):
    one = publisher()
    begun, other = event(0), event(1)
    other.id, other.label = "another", "Cat"
    revised, after = event(2), event(3)
    revised.phase, revised.label = "revised", "Cat"
    after.phase, after.label = "offset", "Cat"
    with subscribe(one.endpoint, ["event"], labels=["dog"]) as mine:
        while mine.receive(0.1) is None:
            one.emit(begun)
        for message in (other, revised, after):
            one.emit(message)
        assert received(mine, 2) == [revised, after]
        assert mine.receive(SETTLED_S) is None


def test_one_name_need_not_be_in_a_list(publisher):
    one = publisher()
    with subscribe(one.endpoint, "label", "mic", "Dog") as mine:
        one.emit(label(0, name="D"))
        one.emit(label(1))
        assert [received(mine, 1)[0].seq, mine.receive(SETTLED_S)] == [1, None]


def test_a_newcomer_has_the_newest_hello_and_label_at_once(publisher):
    one = publisher()
    messages = [hello(0), label(0), label(1)]
    for message in messages:
        one.emit(message)
    while one.queued:
        time.sleep(0.01)
    with subscribe(one.endpoint, ["hello", "label"]) as mine:
        assert received(mine, 2) == [messages[0], messages[2]]
        assert mine.receive(SETTLED_S) is None


def flood(publisher: Publisher, count: int) -> None:
    """Publish faster than anybody reads who does not read."""
    for seq in range(count):
        publisher.emit(label(seq, padding=10_000, name=f"Dog {seq % 2}"))
        while publisher.queued > 50:
            time.sleep(0.0005)


def test_what_a_slow_reader_missed_comes_in_its_place_the_last_included(publisher):
    one, count = publisher(), 4000
    with subscribe(one.endpoint, ["label", "status"]) as mine:
        state = heard(one, mine)
        flood(one, count)
        assert one.stalls > 0
        labels: list[int] = []
        while len(labels) < count:
            if (message := mine.receive(0.5)) is None:  # as each second; the first may be missed
                state += 1
                one.emit(status(state, replay=one.replay, label=count - 1))
            elif message.topic == "label/mic/":
                labels.append(message.seq)
        assert labels == list(range(count))
        assert mine.recovered > 0
        assert not mine.lost


def test_the_same_with_async_for_while_others_run(publisher):
    one, count = publisher(), 300

    async def read() -> list[int]:
        seqs = []
        async with subscribe(one.endpoint, ["label"], resume={("s", "label/mic/"): 9}) as mine:
            async for message in mine:
                seqs.append(message.seq)
                if message.seq == count - 1:
                    return seqs

    async def beat() -> None:
        for seq in itertools.count():
            one.emit(status(seq, replay=one.replay, label=count - 1))
            await asyncio.sleep(0.05)

    async def both() -> list[int]:
        beating = asyncio.create_task(beat())
        try:
            return await asyncio.wait_for(read(), PATIENCE_S)
        finally:
            beating.cancel()

    for seq in range(count):
        one.emit(label(seq))
    assert asyncio.run(both()) == list(range(10, count))


def unwanted(mine: Subscription) -> None:
    """Have labels come without an end, none of which is wanted."""
    seqs = itertools.count()
    mine._link.take = lambda: label(next(seqs))


def test_a_flood_of_what_is_not_wanted_keeps_nobody_from_stopping(publisher):
    with subscribe(publisher().endpoint, ["label"], labels=["cat"]) as mine:
        unwanted(mine)
        assert mine.receive(0.1) is None

    async def read() -> None:
        async with subscribe(publisher().endpoint, ["label"], labels=["cat"]) as mine:
            unwanted(mine)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(anext(mine), 0.1)

    asyncio.run(read())


def test_async_waiting_can_be_cancelled_and_taken_up_again(publisher):
    one, message = publisher(), hello(0)

    async def read() -> AnyMessage:
        async with subscribe(one.endpoint, ["hello"]) as mine:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(anext(mine), SETTLED_S)
            one.emit(message)
            return await asyncio.wait_for(anext(mine), PATIENCE_S)

    assert asyncio.run(read()) == message


def test_waiting_takes_no_processor_time(publisher, monkeypatch):
    one, waits = publisher(), []
    poll = Subscription._poll
    monkeypatch.setattr(Subscription, "_poll", lambda *of: waits.append(of) or poll(*of))
    with subscribe(one.endpoint) as mine:
        heard(one, mine)
        waits.clear()
        assert mine.receive(SETTLED_S) is None
    assert len(waits) < 5

    async def read() -> None:
        async with subscribe(one.endpoint, ["hello"]) as mine:
            one.emit(hello(0))
            await asyncio.wait_for(anext(mine), PATIENCE_S)
            waits.clear()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(anext(mine), SETTLED_S)

    asyncio.run(read())
    assert len(waits) < 5


def test_it_outlives_the_publisher_and_has_the_end_of_the_old_session_from_the_journal(
    publisher, journal
):
    old = Publisher(ANYWHERE, journal=journal, replay_bind=ANYWHERE)
    with subscribe(old.endpoint, ["label", "event"]) as mine:
        old.emit(label(0, "old"))
        while mine.receive(0.1) is None:
            old.emit(hello(0, "old", replay=old.replay))
        for seq in range(20):  # as each second: its subscription to states may not be through yet
            old.emit(status(seq, "old", replay=old.replay))
            assert mine.receive(0.05) is None
        old.close()
        # Killed between the commit and the sending, as far as anybody can tell.
        unheard = [label(1, "old"), event(0, "old")]
        assert journal.commit(
            [Entry(m.session, m.topic, m.seq, time.time(), m.label, encoded(m)) for m in unheard],
            PATIENCE_S,
        )
        new = publisher(old.endpoint, old.replay)
        for message in (label(0, "new"), label(1, "new"), event(0, "new"), label(2, "new")):
            new.emit(message)  # nobody is connected yet
        new.emit(hello(0, "new", replay=new.replay))
        messages = [mine.receive(PATIENCE_S)]  # connected again
        for seq in range(40):  # as each second: its subscription to states may not be through yet
            if len(messages) < 6:
                new.emit(status(seq, "new", replay=new.replay, label=2, event=0))
                messages += filter(None, [mine.receive(0.5)])
    labels, events = ([m for m in messages if m.topic == f"{k}/mic/"] for k in ("label", "event"))
    assert numbers(events) == [("old", 0), ("new", 0)]
    assert numbers(labels) == [("old", 1), ("new", 0), ("new", 1), ("new", 2)]
    assert not mine.lost


def encoded(message: AnyMessage) -> bytes:
    from streamtwl.messages import encode

    return encode(message)


def test_it_goes_on_from_its_state(publisher, tmp_path):
    one, file = publisher(), tmp_path / "state.json"
    one.emit(label(0))
    with subscribe(one.endpoint, ["label"], state=file) as mine:
        assert mine.receive(PATIENCE_S).seq == 0
        one.emit(label(1))
        assert mine.receive(PATIENCE_S).seq == 1  # at hand, and not done with
    for seq in range(2, 6):
        one.emit(label(seq))
    one.emit(status(0, replay=one.replay, label=5))
    with subscribe(one.endpoint, ["label"], state=file) as mine:
        one.emit(hello(0, replay=one.replay))
        assert [each.seq for each in received(mine, 5)] == [1, 2, 3, 4, 5]
        assert not mine.lost


def test_its_state_is_kept_also_while_it_has_much_at_hand(publisher, tmp_path, monkeypatch):
    monkeypatch.setattr(subscription, "SAVE_S", 0.0)
    one, file, at = publisher(), tmp_path / "state.json", ("s", "label/mic/")
    for seq in range(100):
        one.emit(label(seq))
    one.emit(hello(0, replay=one.replay))
    with subscribe(one.endpoint, ["label"], state=file, resume={at: -1}) as mine:
        for seq in range(5):  # of one page
            assert mine.receive(PATIENCE_S).seq == seq
            assert seq == 0 or state_file.load(file) == {at: seq - 1}


@pytest.mark.parametrize("content", ["", "{}", '[{"session": 1}]', "\x00\xff"])
def test_a_damaged_state_is_one_line_with_a_way_out(content, tmp_path):
    file = tmp_path / "state.json"
    file.write_text(content)
    with pytest.raises(UsageError, match=r"state\.json is not a subscriber's state.*delete it"):
        subscribe(state=file)


def test_a_state_that_cannot_be_written_is_said_and_nothing_ends(publisher, tmp_path, caplog):
    one = publisher()
    one.emit(label(0))
    with subscribe(one.endpoint, ["label"], state=tmp_path / "gone" / "state") as mine:
        mine.receive(PATIENCE_S)
        mine.receive(0)
    assert "cannot write the state" in caplog.text


def test_a_replay_that_does_not_answer_does_not_stop_the_others(publisher, monkeypatch):
    monkeypatch.setattr("streamtwl.client.sequencer.TIMEOUT_S", 0.1)
    one = publisher(replay_bind="")
    with zmq.Context() as context, context.socket(zmq.ROUTER) as deaf:
        deaf.setsockopt(zmq.LINGER, 0)
        deaf.bind(ANYWHERE)
        endpoint = deaf.getsockopt_string(zmq.LAST_ENDPOINT)
        with subscribe(one.endpoint, ["label", "event", "status"]) as mine:
            heard(one, mine)
            messages = [hello(0, replay=endpoint), label(0), label(2), event(0), event(1)]
            for message in messages:
                one.emit(message)
            assert received(mine, 4) == [messages[1], *messages[3:], messages[2]]
            assert mine.lost == {"label": 1}
        assert deaf.poll(0)  # it was asked


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
def test_what_a_newer_publisher_says_breaks_nobody(encoding, caplog):
    library = msgspec.json if encoding == "json" else msgspec.msgpack
    known = msgspec.to_builtins(label(0))
    newer = known | {"schema": "1.9", "mood": ["glad"]}
    payloads = [known | {"kind": "poem"}, known | {"schema": "2.0"}, "noise", newer]
    with zmq.Context() as context, context.socket(zmq.XPUB) as other:
        other.setsockopt(zmq.LINGER, 0)
        other.bind(ANYWHERE)
        with subscribe(other.getsockopt_string(zmq.LAST_ENDPOINT), ["label"]) as mine:
            for _ in ("hello/", "label/", "status/"):
                assert other.poll(1000 * PATIENCE_S)
                other.recv()
            for payload in payloads:
                other.send_multipart([b"label/mic/", library.encode(payload)])
            [message] = received(mine, 1)
            assert (message.schema, message.label) == ("1.9", "Dog")
            assert not mine.lost
    assert "'poem'" in caplog.text
    assert "2.0" in caplog.text


def test_one_damaged_message_in_an_answer_is_lost_and_not_its_page(publisher, journal, caplog):
    one = publisher()
    held = [b"\xc1" if seq == 1 else encoded(label(seq)) for seq in range(4)]
    entries = [Entry("s", "label/mic/", n, time.time(), None, held[n]) for n in range(4)]
    assert journal.commit(entries, PATIENCE_S)
    one.emit(hello(0, replay=one.replay))
    one.emit(label(4))
    with subscribe(one.endpoint, ["label"], resume={("s", "label/mic/"): -1}) as mine:
        assert [message.seq for message in received(mine, 4)] == [0, 2, 3, 4]
        assert mine.lost == {"label": 1}
    assert "cannot read" in caplog.text


@pytest.mark.parametrize(
    ("why", "said"),
    [
        ("nobody", "no publisher at tcp://127.0.0.1:"),
        ("nothing", "publishes nothing"),
    ],
)
def test_silence_is_explained(why, said, publisher, monkeypatch, caplog):
    monkeypatch.setattr(subscription, "SILENT_S", 0.5)
    endpoint = publisher().endpoint
    if why == "nobody":
        with contextlib.closing(Publisher(ANYWHERE)) as gone:
            endpoint = gone.endpoint
    with subscribe(endpoint) as mine, caplog.at_level(logging.WARNING):
        assert mine.receive(1.5) is None
    assert said in caplog.text
    assert len(caplog.records) == 1  # once


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"connect": "nowhere"}, "nowhere"),
        ({"connect": "tcp://127.0.0.1:99999"}, "99999"),
        ({"kinds": ["gossip"]}, "gossip.*patch"),
        ({"sources": ["Kitchen Mic"]}, "Kitchen Mic"),
        ({"server_key": "no-such.key", "key": "/nowhere"}, "/nowhere.*keys new --client"),
    ],
)
def test_what_cannot_be_meant_is_said(arguments, said):
    with pytest.raises(UsageError, match=said):
        subscribe(**arguments)


def warnings(caplog) -> list[str]:
    return [record.message for record in caplog.records if record.levelname == "WARNING"]


def test_a_label_that_the_publisher_does_not_have_is_warned_of_once_a_session(publisher, caplog):
    one, other = publisher(), publisher()
    told = [
        hello(0, labels=("Bird", "Dog", "kettle")),
        hello(0, source="attic", labels=("Bird", "Dog", "kettle")),
        hello(1, labels=("Bird", "Dog", "kettle")),
        hello(0, session="new", labels=("Bird", "Dog", "kettle")),
    ]
    with subscribe(one.endpoint, ["hello"], labels=["Brid", "d?g", "KETTLE", "zzz*"]) as mine:
        while mine.receive(0.1) is None:
            one.emit(told[0])
        first = warnings(caplog)
        assert len(first) == 2
        assert one.endpoint in first[0]
        assert "no sound is called 'Brid' (did you mean: Bird" in first[0]
        assert "no sound is called 'zzz*' (it has Bird, Dog, kettle)" in first[1]
        for each in told[1:3]:
            one.emit(each)
        received(mine, 2)
        assert warnings(caplog) == first
        one.emit(told[3])
        received(mine, 1)
        assert warnings(caplog) == first * 2
    with subscribe(other.endpoint, ["hello"], labels=["b*"]) as mine:
        while mine.receive(0.1) is None:
            other.emit(told[0])
    assert warnings(caplog) == first * 2


@pytest.mark.parametrize("kinds", [["event"], ["hello", "event"]])
def test_a_source_that_the_publisher_does_not_have_is_warned_of(
    publisher, caplog, monkeypatch, kinds
):
    monkeypatch.setattr("streamtwl.client.subscription.SILENT_S", 0.2)
    one = publisher()
    with subscribe(one.endpoint, kinds, sources=["mik"]) as mine:
        until = time.monotonic() + PATIENCE_S
        while not any("is called" in each for each in warnings(caplog)):
            one.emit(hello(0))
            assert mine.receive(0.1) is None
            assert time.monotonic() < until
        assert "no source is called 'mik' (did you mean: mic)" in warnings(caplog)[-1]
        assert not mine.lost


def test_the_package_imports_the_client_only_where_it_is_used(cli, tmp_path):
    import subprocess
    import sys

    script = (
        "import sys, streamtwl\n"
        "print('zmq' in sys.modules)\n"
        "from streamtwl import subscribe\n"
        "print(sorted(sys.modules.keys() & {'zmq', 'onnxruntime', 'numpy', 'sounddevice'}))"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.stdout.splitlines() == ["False", "['zmq']"]


def test_positions_of_one_are_where_the_next_resumes(publisher):
    one = publisher()
    one.emit(label(0))
    with subscribe(one.endpoint, ["label"]) as mine:
        mine.receive(PATIENCE_S)
        mine.receive(0)
        positions = mine.positions
    assert positions == {("s", "label/mic/"): 0}
    message = label(1)
    one.emit(message)
    one.emit(hello(0, replay=one.replay))
    with subscribe(one.endpoint, ["label"], resume=positions) as mine:
        assert received(mine, 1) == [message]


def test_state_is_bounded_and_whole(tmp_path: Path):
    from streamtwl.client import state

    file = tmp_path / "state"
    positions = {("s", f"label/{n}/"): n - 1 for n in range(100)}
    state.save(file, positions)
    assert state.load(file) == positions
    assert list(tmp_path.iterdir()) == [file]


# --- IPv6 ---


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as one:
        one.bind(("::1", 0))
        return True
    return False


@pytest.mark.skipif(not has_ipv6(), reason="no ::1 on this machine")
@pytest.mark.parametrize("curve", [False, True], ids=["open", "curve"])
@pytest.mark.parametrize(
    ("host", "replay_host"),
    [("[::1]", "[::1]"), ("[::1]", "127.0.0.1"), ("127.0.0.1", "[::1]"), ("[::]", "[::]")],
)
def test_ipv6_is_bound_connected_to_and_asked_for_what_was_missed(
    host, replay_host, curve, publisher, tmp_path
):
    own, security = {}, None
    if curve:
        for name in ("server", "client"):
            public = make_keys(tmp_path / "keys", name)
        shutil.copy(public, tmp_path / "keys" / "clients")
        security = ServerKeys.load(tmp_path / "keys")
        own = {"server_key": tmp_path / "keys" / "server.key"}
        own["key"] = tmp_path / "keys" / "client.key_secret"
    binds = f"tcp://{host}:*", f"tcp://{replay_host}:*"
    one = publisher(*binds, security=security, insecure=True)
    assert one.endpoint.startswith(f"tcp://{host}:")
    assert one.replay.startswith(f"tcp://{replay_host}:")
    for seq in range(3):
        one.emit(label(seq))
    while one.queued:  # until they were published, to nobody
        time.sleep(0.01)
    connect = one.endpoint.replace("[::]", "[::1]")
    with subscribe(connect, ["label"], resume={("s", "label/mic/"): -1}, **own) as mine:
        until, had = time.monotonic() + PATIENCE_S, []
        for seq in itertools.count():
            one.emit(status(seq, replay=one.replay, label=2))
            if message := mine.receive(0.05):
                had.append(message)
            if len(had) == 3:
                break
            assert time.monotonic() < until, f"only {len(had)} came"
    assert numbers(had) == [("s", 0), ("s", 1), ("s", 2)]


def test_what_no_status_named_comes_when_the_session_is_over(publisher, journal):
    source = publisher()
    for seq in range(3):  # published before anyone was there
        one = event(seq)
        at = one.published_at
        assert journal.commit([Entry("s", one.topic, seq, at, "Dog", encode(one))], PATIENCE_S)
    source.emit(hello(0, replay=source.replay))
    with subscribe(source.endpoint, ["event"], resume={("s", "event/mic/"): -1}) as one:
        assert one.receive(SETTLED_S) is None
        one.finish()
        assert [one.receive(PATIENCE_S).seq for _ in range(3)] == [0, 1, 2]
        assert one.receive(SETTLED_S) is None
        assert not one.lacking
        assert one.lost.total() == 0
