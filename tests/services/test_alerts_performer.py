"""Alerts: an action on what waits for it."""

import asyncio
import contextlib
import json
import logging

import pytest

from streamtwl.services.alerts import performer
from streamtwl.services.alerts.actions import ActionError
from streamtwl.services.alerts.performer import Performer
from streamtwl.services.outbox import Outbox
from streamtwl.services.service import Feed
from tests.conftest import PATIENCE_S


@pytest.fixture
def outbox(tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMTWL_STATE", str(tmp_path))
    with contextlib.closing(Outbox("alerts", Feed("tcp://127.0.0.1:5577"))) as one:
        yield one


def put(outbox, *rules: str) -> None:
    outbox.save({}, None, [("a", json.dumps({"rule": rule}).encode()) for rule in rules])


class Act:
    """An action that fails on some rules."""

    def __init__(self, failing: dict[str, Exception] | None = None) -> None:
        self.failing, self.done = failing or {}, []
        self.counts = {"sent": 0, "failed": 0, "given_up": 0}
        self.begun, self.goes_on, self.ended = asyncio.Event(), asyncio.Event(), False
        self.goes_on.set()

    async def __call__(self, payload: bytes) -> None:
        self.begun.set()
        try:
            await self.goes_on.wait()
        except asyncio.CancelledError:
            self.ended = True
            raise
        rule = json.loads(payload)["rule"]
        if rule in self.failing:
            raise self.failing[rule]
        self.done.append(rule)


def perform(act: Act, outbox, until) -> None:
    """Perform what waits, until a condition holds."""

    async def run() -> None:
        running = asyncio.create_task(Performer("a", act, 60, act.counts).run(outbox))
        async with asyncio.timeout(PATIENCE_S):
            while not until():
                await asyncio.sleep(0.001)
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(run())


def test_one_that_always_fails_holds_no_later_one_up(outbox, monkeypatch):
    monkeypatch.setattr(performer, "BACK_OFF_S", (1000.0,))
    put(outbox, "poison", "x", "y")
    act = Act({"poison": ActionError("no")})
    perform(act, outbox, lambda: len(act.done) == 2)
    assert act.done == ["x", "y"]
    assert json.loads(outbox.first().payload)["rule"] == "poison"


def test_a_clock_that_leaps_back_holds_none_up(outbox, monkeypatch):
    monkeypatch.setattr(performer, "BACK_OFF_S", (1000.0,))
    put(outbox, "x")
    act = Act({"x": ActionError("no")})
    perform(act, outbox, lambda: act.counts["failed"])
    act.failing.clear()
    now = performer.time.time()
    monkeypatch.setattr(performer.time, "time", lambda: now - 86_400)
    perform(act, outbox, lambda: act.done)


def test_an_error_that_nobody_expected_is_a_failure_like_another(outbox, caplog, monkeypatch):
    monkeypatch.setattr(performer, "BACK_OFF_S", (0.001,))
    put(outbox, "x")
    act = Act({"x": KeyError("s3cret")})
    perform(act, outbox, lambda: act.counts["failed"] >= 3)
    said = [record.getMessage() for record in caplog.records]
    assert said == ["action 'a' failed: KeyError"]


def test_what_is_given_up_is_said_once_until_it_succeeds(outbox, caplog):
    act = Act({"x": ActionError("403", passing=False)})
    put(outbox, "x", "x", "x")
    with caplog.at_level(logging.WARNING):
        perform(act, outbox, lambda: act.counts["given_up"] == 3)
        assert caplog.text.count("given up") == 1
        put(outbox, "good", "x")
        perform(act, outbox, lambda: act.counts["given_up"] == 4)
    assert caplog.text.count("given up") == 2


def end_while_it_runs(act: Act, outbox) -> None:
    async def run() -> None:
        act.begun, act.goes_on = asyncio.Event(), asyncio.Event()
        running = asyncio.create_task(Performer("a", act, 60, act.counts).run(outbox))
        await act.begun.wait()
        running.cancel()
        await asyncio.sleep(0.01)
        act.goes_on.set()
        await asyncio.wait([running])

    asyncio.run(run())


def test_an_end_lets_what_runs_be_done_and_noted(outbox, monkeypatch):
    monkeypatch.setattr(performer, "END_S", PATIENCE_S)
    put(outbox, "x")
    act = Act()
    end_while_it_runs(act, outbox)
    assert (act.done, act.counts["sent"], outbox.waiting) == (["x"], 1, 0)


def test_an_end_does_not_wait_for_long(outbox, monkeypatch):
    monkeypatch.setattr(performer, "END_S", 0.0)
    put(outbox, "x")
    act = Act()
    end_while_it_runs(act, outbox)
    assert (act.done, act.ended, outbox.waiting) == ([], True, 1)
