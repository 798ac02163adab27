"""Strangers at the replay socket: whatever they send, the next request is answered."""

import os
import socket
import time

import hypothesis
import msgspec
import pytest
import zmq
from hypothesis import strategies as st

from streamtwl.messages import ReplayHeader, encode
from streamtwl.sinks import replay
from streamtwl.sinks.journal import Entry, Journal
from streamtwl.sinks.publisher import Publisher
from tests.sinks.test_publisher import ANYWHERE, label

PATIENCE_MS = 600_000
GOOD = {"session": "s", "topic": "label/kitchen/", "from": 0, "to": None}

words = st.text(max_size=30) | st.sampled_from(
    [
        "s'; DROP TABLE messages; --",
        '" OR ""="',
        "label/%/",
        "label/*/",
        "status/\x00/",
        "../../etc/passwd",
        "label/" + "x" * 400,
        "ſ" * 100,
    ]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words | st.binary(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=8,
)
almost = st.builds(
    lambda changes, dropped: {k: v for k, v in (GOOD | changes).items() if k != dropped},
    st.dictionaries(st.sampled_from([*GOOD, "more"]), values, max_size=3),
    st.sampled_from([*GOOD, None]),
)


def packed(value) -> bytes:
    """MessagePack, as far as it goes: beyond 64 bits there is none."""
    try:
        return msgspec.msgpack.encode(value)
    except (OverflowError, UnicodeEncodeError):
        return b"\xc1"


def written(value) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (TypeError, UnicodeEncodeError, msgspec.MsgspecError):
        return b"{"


frame = st.one_of(
    st.binary(max_size=100),
    st.binary(min_size=1000, max_size=1100),
    st.integers(2000, replay.FRAME_BYTES).map(lambda size: b"{" * size),
    st.integers(2000, 2 * replay.FRAME_BYTES).map(lambda size: os.urandom(size)),
    values.map(packed),
    almost.map(packed),
    values.map(written),
    almost.map(written),
    st.just(b'{"session": "\\ud800", "topic": "label/a/", "from": 0}'),
    st.just(b"[" * 1000),
    st.just(b"\x91" * 1000),
)
requests = st.one_of(
    frame.map(lambda one: [one]), st.lists(frame, min_size=1, max_size=5), st.just([b""] * 50)
)


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.soak)])
@pytest.mark.timeout(900)
def test_it_is_alive_after_each(count, tmp_path, monkeypatch, figure):
    monkeypatch.setattr(replay, "BURST", 1e9)  # as if they were many
    journal = Journal(tmp_path / "journal.sqlite")
    held = encode(label(0))
    assert journal.commit([Entry("s", "label/kitchen/", 0, time.time(), "Dog", held)], 10)
    publisher = Publisher(ANYWHERE, journal=journal, replay_bind=ANYWHERE)
    answers = {"answered with an error": 0, "answered with a page": 0}
    with zmq.Context() as context, context.socket(zmq.DEALER) as honest:
        honest.connect(publisher.replay)

        @hypothesis.settings(
            max_examples=count, derandomize=True, database=None, deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )  # fmt: skip
        @hypothesis.given(requests)
        def attack(frames: list[bytes]) -> None:
            with context.socket(zmq.DEALER) as stranger:
                stranger.setsockopt(zmq.LINGER, 1000)
                stranger.connect(publisher.replay)
                stranger.send_multipart(frames)
                if stranger.poll(20):
                    header = stranger.recv_multipart()
                    header = header[1] if header[0] == b"" else header[0]
                    library = msgspec.json if header[:1] == b"{" else msgspec.msgpack
                    error = library.decode(header, type=ReplayHeader).error
                    answers["answered with an error" if error else "answered with a page"] += 1
            assert_alive(honest, held)

        attack()
        for _ in range(20):  # not even ZeroMQ
            with socket.create_connection(address(publisher.replay)) as raw:
                raw.sendall(os.urandom(1000))
            assert_alive(honest, held)
    assert publisher._replay_server.refused > count / 10
    publisher.close()
    journal.close()
    figure(
        f"{count} malformed requests, 20 of them no ZeroMQ besides", f"alive after each; {answers}"
    )


def address(endpoint: str) -> tuple[str, int]:
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return host, int(port)


def assert_alive(honest: zmq.Socket, held: bytes) -> None:
    honest.send(msgspec.msgpack.encode(GOOD))
    assert honest.poll(PATIENCE_MS), "it is dead"
    header, *payloads = honest.recv_multipart()
    assert msgspec.msgpack.decode(header, type=ReplayHeader).error is None
    assert payloads == [held]
