"""The outbox: one user at a time, bounded, whole after damage."""

import contextlib
import logging

import msgspec
import pytest

from streamtwl.errors import SinkError, UsageError
from streamtwl.services.outbox import Outbox
from streamtwl.services.service import Feed

FEED = Feed("tcp://127.0.0.1:5577")
KEY = ("s", "event/mic/")


class State(msgspec.Struct):
    count: int = 0


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMTWL_STATE", str(tmp_path))
    return tmp_path


def opened(**options):
    return contextlib.closing(Outbox("mqtt", FEED, **options))


def test_what_is_saved_is_there_again():
    with opened() as one:
        assert (one.positions, one.first(), one.state(State)) == ({}, None, State())
        one.save({KEY: 7}, State(3), [("a", b"1"), ("b", b"2"), ("a", b"3")])
    with opened() as one:
        assert (one.positions, one.state(State), one.waiting) == ({KEY: 7}, State(3), 3)
        first = one.next_due("a")
        one.failed(first, 60)
        assert one.first().tries == 1
        third = one.next_due("a")  # before the one that waits
        assert third.payload == b"3"
        one.done(third)
        assert one.next_due("a").payload == b"1"  # which is not due: there is none


def test_two_cannot_use_one():
    with opened(), pytest.raises(UsageError, match="another streamtwl serves tcp"):
        Outbox("mqtt", FEED)
    with contextlib.closing(Outbox("mqtt", Feed("x", name="tcp://*:1"))) as other:
        assert other.path.parent.name == "services"


def test_the_oldest_give_way_and_are_counted():
    with opened(limit=3) as one:
        one.save({}, State(), [("a", b"%d" % number) for number in range(5)])
        assert (one.waiting, one.dropped, one.first().payload) == (3, 2, b"2")


def test_a_damaged_one_is_set_aside(folder, caplog):
    with opened() as one:
        one.save({KEY: 7}, State(), [("a", b"1")])
        path = one.path
    for extra in ("-wal", "-shm"):
        path.with_name(path.name + extra).unlink(missing_ok=True)
    path.write_bytes(b"not a database" * 100)
    with caplog.at_level(logging.WARNING), opened() as one:
        assert one.waiting == 0
    assert "is damaged" in caplog.text
    assert list(path.parent.glob("*damaged*"))


def test_a_folder_that_cannot_be_written_is_said(folder):
    (folder / "services").write_text("a file")
    with pytest.raises(SinkError, match="cannot write"):
        Outbox("mqtt", FEED)
