"""`streamtwl serve`: what keeps services up, and the child of a listener."""

import asyncio
import contextlib
import logging

import pytest

from streamtwl.commands.serve import split, with_addresses
from streamtwl.config import ServicesSettings
from streamtwl.errors import SinkError, UsageError
from streamtwl.services import choice, server
from streamtwl.services.service import Feed
from streamtwl.sinks.journal import Journal
from streamtwl.sinks.publisher import Publisher
from tests.conftest import PATIENCE_S
from tests.example_messages import event, status

ANYWHERE = "tcp://127.0.0.1:*"


class Stub:
    """A service that keeps what it gets, after some failures."""

    name = "stub"

    def __init__(self, *failures: Exception) -> None:
        self.failures, self.got = list(failures), []

    async def run(self, feed: Feed) -> None:
        if self.failures:
            raise self.failures.pop(0)
        async with feed.open(["event"], from_start=True) as messages:
            async for message in messages:
                self.got.append(message)

    def figures(self):
        return {"got": len(self.got)}


@pytest.fixture
def publisher(tmp_path):
    with (
        contextlib.closing(Journal(tmp_path / "journal.sqlite")) as journal,
        contextlib.closing(Publisher(ANYWHERE, journal=journal, replay_bind=ANYWHERE)) as one,
    ):
        yield one


def serve(service, feed, until, refuse=True):
    """Run one service until a condition holds."""

    async def run():
        stop = asyncio.Event()
        serving = asyncio.create_task(server.serve([service], feed, stop, refuse))
        async with asyncio.timeout(PATIENCE_S):
            while not serving.done() and not until():
                await asyncio.sleep(0.01)
        stop.set()
        await serving

    asyncio.run(run())


def test_a_service_gets_a_listeners_session_from_its_start(publisher):
    publisher.emit(event(0))
    publisher.emit(event(1))
    stub = Stub()
    feed = Feed(publisher.endpoint, begin={("s", "event/mic/"): -1})

    def until():
        publisher.emit(status(until.seq, replay=publisher.replay, event=1))
        until.seq += 1
        return len(stub.got) == 2

    until.seq = 0
    serve(stub, feed, until)
    assert [message.seq for message in stub.got] == [0, 1]
    assert feed.figures() == {"stub": {"got": 2}}


def test_what_all_subscriptions_say_is_logged_once_and_again_later():
    once = server.Once(1000.0)

    def passes(text: str) -> bool:
        return once.filter(logging.LogRecord("c", logging.WARNING, "", 0, text, (), None))

    assert [passes("nobody publishes"), passes("nobody publishes"), passes("lost")] == [1, 0, 1]
    once._repeat_s = 0.0
    assert passes("nobody publishes")
    assert len(once._logged_at) <= 2


def test_a_service_that_fails_is_tried_again_and_said_once(monkeypatch, caplog):
    monkeypatch.setattr(server, "BACK_OFF_S", (0.01,))
    stub = Stub(SinkError("the broker is away"), SinkError("the broker is away"), OSError("no"))
    with caplog.at_level(logging.WARNING):
        serve(stub, Feed("tcp://127.0.0.1:1"), lambda: not stub.failures)
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "stub: the broker is away: it is tried again",
        "stub: no: it is tried again",
    ]


def test_an_error_that_nobody_expected_ends_no_other_service(monkeypatch, caplog):
    monkeypatch.setattr(server, "BACK_OFF_S", (0.01,))
    stub = Stub(ValueError("year 33658\nis out of range"))
    with caplog.at_level(logging.WARNING):
        serve(stub, Feed("tcp://127.0.0.1:1"), lambda: not stub.failures)
    said = [record.getMessage() for record in caplog.records]
    assert said == ["stub: ValueError: year 33658 is out of range: it is tried again"]


def test_beside_a_listener_one_that_cannot_start_ends_no_other(monkeypatch, caplog):
    monkeypatch.setattr(server, "BACK_OFF_S", (0.01,))
    stub = Stub(
        UsageError("another streamtwl serves it"), UsageError("another streamtwl serves it")
    )
    serve(stub, Feed("tcp://127.0.0.1:1"), lambda: not stub.failures, refuse=False)
    assert caplog.text.count("stub: another streamtwl serves it: it is tried again") == 1


def test_a_users_mistake_ends_it():
    with pytest.raises(UsageError, match="no such"):
        serve(Stub(UsageError("no such thing")), Feed("tcp://127.0.0.1:1"), lambda: False)


@pytest.mark.parametrize("command", ["serve", "listen"])
def test_options_of_a_broker_that_is_not_named_are_refused(cli, command):
    done = cli(command, "--mqtt-labels", "Dog")
    assert done.returncode == UsageError.exit_code
    assert "--mqtt-labels needs a broker: --mqtt mqtt://host" in done.stderr


def test_nothing_runs_that_is_not_switched_on():
    assert choice.make(ServicesSettings()) == []


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("", ""),
        ("--web", "--web 127.0.0.1:8765"),
        ("--web 80 demo:", "--web 80 demo:"),
        ("--web demo:", "--web 127.0.0.1:8765 demo:"),
        ("--web mic:0", "--web 127.0.0.1:8765 mic:0"),
        ("--metrics --web [::1]:80", "--metrics 127.0.0.1:9765 --web [::1]:80"),
        ("--web=1 x", "--web=1 x"),
    ],
)
def test_an_address_may_be_left_out(given, meant):
    assert with_addresses(given.split()) == meant.split()


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        ("Doorbell, Dog", ["Doorbell", "Dog"]),
        ("Dog,smoke detector, smoke alarm,x,", ["Dog", "smoke detector, smoke alarm", "x"]),
    ],
)  # fmt: skip
def test_labels_with_commas_stay_whole(listed, names):
    assert split(listed) == names
