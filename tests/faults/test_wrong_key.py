"""Keys that do not fit: nothing is heard and nothing replayed, and both sides say why."""

import contextlib
import logging
import time
from collections.abc import Callable

import msgspec
import pytest
import zmq

from streamtwl import subscribe
from streamtwl.client import subscription
from streamtwl.messages import ReplayHeader, ReplayRequest
from streamtwl.security import ClientKeys, ServerKeys, make_keys
from streamtwl.sinks.journal import Journal
from streamtwl.sinks.publisher import Publisher
from streamtwl.sinks.replay import RateLimit
from tests.conftest import PATIENCE_S
from tests.example_messages import hello, label, status

ANYWHERE = "tcp://127.0.0.1:*"
QUIET_S = 2.0  # long enough for a hundred handshakes


@pytest.fixture
def keys(tmp_path):
    """A publisher's folder of keys with one subscriber's, and keys that are not his."""
    folder = tmp_path / "keys"
    for name in ("server", "client", "stranger", "impostor"):
        make_keys(folder, name)
    (folder / "clients" / "client.key").write_bytes((folder / "client.key").read_bytes())
    return folder


@pytest.fixture
def publisher(keys, tmp_path, monkeypatch):
    """With CURVE and five labels in its journal."""
    monkeypatch.setattr("streamtwl.sinks.publisher.COMMIT_S", 10.0)
    with contextlib.closing(Journal(tmp_path / "journal.sqlite")) as journal:
        security = ServerKeys.load(keys)
        one = Publisher(ANYWHERE, journal=journal, replay_bind=ANYWHERE, security=security)
        with contextlib.closing(one):
            for seq in range(5):
                one.emit(label(seq))
            one.emit(hello(0, replay=one.replay))
            one.emit(status(0, replay=one.replay, label=4))
            yield one


def heard(
    publisher: Publisher, seconds: float, then: Callable[[], bool] = lambda: True, **options
) -> list[int]:
    """Subscribe from the first label on; return which came, by replay but for the last.

    For so many seconds, and on until `then` is true.
    """
    seqs: list[int] = []
    until = time.monotonic() + seconds
    with subscribe(
        publisher.endpoint, ["label"], resume={("s", "label/mic/"): -1}, **options
    ) as one:
        while (time.monotonic() < until or not then()) and len(seqs) < 5:
            assert time.monotonic() < until + PATIENCE_S
            if message := one.receive(0.1):
                seqs.append(message.seq)
    return seqs


@pytest.mark.parametrize(
    ("server_key", "key", "client_says", "publisher_says"),
    [
        ("server", "stranger", "refused our key", "refused 127.0.0.1: its key"),
        ("impostor", "client", "is this its server key?", None),
        (None, None, "does it want a key", None),
    ],
    ids=["a key that is not on the list", "another server's key", "no key"],
)
def test_a_wrong_key_hears_nothing_and_both_sides_say_why(
    server_key, key, client_says, publisher_says, publisher, keys, monkeypatch, caplog, figure
):
    monkeypatch.setattr(subscription, "SILENT_S", QUIET_S / 4)
    options = {}
    if server_key:
        options = {"server_key": keys / f"{server_key}.key", "key": keys / f"{key}.key_secret"}
    with caplog.at_level(logging.WARNING):
        assert heard(publisher, QUIET_S, lambda: client_says in caplog.text, **options) == []
    refused = [record.message for record in caplog.records if "security" in record.name]
    assert len(refused) == (publisher_says is not None)  # once, however often it was tried
    assert publisher_says is None or publisher_says in refused[0]
    right = {"server_key": keys / "server.key", "key": keys / "client.key_secret"}
    assert heard(publisher, PATIENCE_S, **right) == [0, 1, 2, 3, 4]  # the right one, meanwhile
    figure(f"wrong key ({server_key}, {key})", "0 messages of 5, the right one 5 of 5")


def test_a_key_put_on_the_list_is_let_in_without_a_restart(publisher, keys):
    options = {"server_key": keys / "server.key", "key": keys / "stranger.key_secret"}
    assert heard(publisher, 0.5, **options) == []
    (keys / "clients" / "stranger.key").write_bytes((keys / "stranger.key").read_bytes())
    (keys / "clients" / "broken.key").write_text("no key")
    assert heard(publisher, PATIENCE_S, **options) == [0, 1, 2, 3, 4]


def test_without_its_guard_a_publisher_lets_nobody_in(publisher, keys):
    publisher._guard.stop()
    options = {"server_key": keys / "server.key", "key": keys / "stranger.key_secret"}
    assert heard(publisher, QUIET_S, **options) == []


def test_the_rate_of_who_holds_a_key_is_limited_over_all_its_connections(publisher, keys):
    publisher._replay_server._rate = RateLimit(per_s=0, burst=3, most=10)
    errors = []
    with zmq.Context() as context:
        for _ in range(5):
            with context.socket(zmq.DEALER) as asking:
                asking.setsockopt(zmq.LINGER, 0)
                ClientKeys.load(keys / "server.key", keys / "client.key_secret").apply(asking)
                asking.connect(publisher.replay)
                asking.send(msgspec.msgpack.encode(ReplayRequest("s", "label/mic/", 0)))
                assert asking.poll(1000 * PATIENCE_S)
                header = msgspec.msgpack.decode(asking.recv_multipart()[0], type=ReplayHeader)
                errors.append(header.error)
    assert errors[:3] == [None] * 3
    assert all("too many requests" in str(error) for error in errors[3:])


@pytest.mark.parametrize(("key", "answered"), [("client", True), ("stranger", False)])
def test_the_replay_socket_asks_for_the_key_too(key, answered, publisher, keys):
    with zmq.Context() as context, context.socket(zmq.DEALER) as asking:
        asking.setsockopt(zmq.LINGER, 0)
        ClientKeys.load(keys / "server.key", keys / f"{key}.key_secret").apply(asking)
        asking.connect(publisher.replay)
        asking.send(msgspec.msgpack.encode(ReplayRequest("s", "label/mic/", 0)))
        assert bool(asking.poll(1000 * PATIENCE_S if answered else 1000 * QUIET_S)) == answered
        assert not answered or len(asking.recv_multipart()) == 1 + 5
