"""One query at a time, the newest first, failures said once."""

import logging
import threading

import pytest

from streamtwl.errors import EndpointError
from streamtwl.reasoners import thinker as module
from streamtwl.reasoners.thinker import Thinker
from tests.conftest import PATIENCE_S


class Model:
    """Work that waits until it may go on, and fails where a test wants it to."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.working, self.may_end = threading.Semaphore(0), threading.Semaphore(0)
        self.fails: EndpointError | None = None
        self.ended = threading.Event()

    def work(self, query: int) -> int:
        self.begun.append(query)
        self.working.release()
        assert self.may_end.acquire(timeout=PATIENCE_S)
        if self.fails:
            raise self.fails
        return 10 * query

    def let(self) -> None:
        """Wait until it works, and let it end."""
        assert self.working.acquire(timeout=PATIENCE_S)
        self.may_end.release()


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def thinker(model, monkeypatch):
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    made = Thinker(model.work, model.ended.set)
    yield made
    made.close()
    model.may_end.release()
    made.join(PATIENCE_S)
    assert model.ended.is_set()


def test_a_result_is_taken_once(thinker, model):
    thinker.put(1)
    assert not thinker.idle
    model.let()
    thinker.wait()
    assert not thinker.idle  # its result was not taken yet
    assert thinker.take() == [10]
    assert thinker.take() == []
    assert thinker.idle


def test_the_newest_waits_and_the_others_are_counted(thinker, model):
    thinker.put(1)
    assert model.working.acquire(timeout=PATIENCE_S)
    for query in (2, 3, 4):
        thinker.put(query)
    model.may_end.release()
    model.let()
    thinker.wait()
    assert model.begun == [1, 4]
    assert thinker.take() == [10, 40]
    assert thinker.figures() == {
        "thoughts": 2, "dropped_thoughts": 2, "failed_thoughts": 0, "thoughts_error": None,
    }  # fmt: skip


def test_a_failure_is_said_once_until_there_is_an_answer(thinker, model, caplog, monkeypatch):
    monkeypatch.setattr(module, "AGAIN_S", 0.0)
    model.fails = EndpointError("it is down")
    for _ in range(3):
        thinker.put(1)
        model.let()
        thinker.wait()
    assert caplog.text.count("it is down") == 1
    assert thinker.figures()["failed_thoughts"] == 3
    assert thinker.figures()["thoughts_error"] == "it is down"
    model.fails = None
    thinker.put(2)
    model.let()
    thinker.wait()
    assert caplog.text.count("answers again") == 1
    assert thinker.figures()["thoughts_error"] is None
    model.fails = EndpointError("it is down")
    thinker.put(3)
    model.let()
    thinker.wait()
    assert caplog.text.count("it is down") == 2
    assert all(each.levelno == logging.WARNING for each in caplog.records)


def test_of_a_model_that_errs_every_other_time_it_is_said_once(thinker, model, caplog):
    for query in range(6):
        model.fails = None if query % 2 else EndpointError("no label")
        thinker.put(query)
        model.let()
        thinker.wait()
        thinker.take()
    assert caplog.text.count("no label") == caplog.text.count("answers again") == 1
    assert (thinker.figures()["failed_thoughts"], thinker.figures()["thoughts"]) == (3, 3)


def test_nobody_waits_for_a_thread_that_broke(model, monkeypatch):
    broken = []
    monkeypatch.setattr(threading, "excepthook", broken.append)
    made = Thinker(lambda _query: 1 / 0, model.ended.set)
    made.put(1)
    made.wait()
    assert model.ended.wait(PATIENCE_S)
    made.put(2)
    made.wait()
    made.join(PATIENCE_S)
    assert broken[0].exc_type is ZeroDivisionError


def test_a_wait_ends_when_the_end_is_requested(thinker, model):
    thinker.put(1)
    assert model.working.acquire(timeout=PATIENCE_S)
    thinker.wait(lambda: 2)
    assert not thinker.idle
    model.may_end.release()


def test_during_a_pause_the_newest_waits_and_nobody_waits_for_it(thinker, model):
    model.fails = EndpointError("too many", retry_after_s=PATIENCE_S)
    thinker.put(1)
    model.let()
    thinker.wait()
    for query in (2, 3):
        thinker.put(query)
    thinker.wait()
    assert thinker.idle
    assert model.begun == [1]
    assert thinker.figures()["dropped_thoughts"] == 1


def test_after_a_pause_the_newest_is_next(thinker, model):
    model.fails = EndpointError("too many", retry_after_s=0.2)
    thinker.put(1)
    model.let()
    thinker.wait()
    model.fails = None
    for query in (2, 3):
        thinker.put(query)
    model.let()
    thinker.wait()
    assert model.begun == [1, 3]


def test_pauses_grow_to_a_bound(thinker, model, monkeypatch):
    monkeypatch.setattr(module, "PAUSE_S", 1.0)
    thinker._pause_s = 0.0
    pauses = []
    for _ in range(9):
        thinker._fail(EndpointError("down"))
        pauses.append(thinker._pause_s)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_closing_ends_it_in_a_pause(model, monkeypatch):
    made = Thinker(model.work, model.ended.set)
    model.fails = EndpointError("down", retry_after_s=PATIENCE_S)
    made.put(1)
    model.let()
    made.wait()
    made.put(2)
    made.close()
    made.join(PATIENCE_S)
    assert model.ended.is_set()
    assert model.begun == [1]
