"""A listener without sound, services in a thread, a real broker."""

import asyncio
import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from streamtwl.messages import AnyMessage, Event
from streamtwl.services import server
from streamtwl.services.service import Feed
from streamtwl.sinks.journal import Journal
from streamtwl.sinks.publisher import Publisher
from tests.browser import Browser, chromium
from tests.conftest import PATIENCE_S
from tests.example_messages import event, status

ANYWHERE = "tcp://127.0.0.1:*"


def wait_until(condition: Callable[[], object], what: str = "nothing comes") -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.02)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


class Listener:
    """A publisher with a journal that says each 50 ms what it has published."""

    def __init__(self, publisher: Publisher, session: str = "s", source: str = "mic") -> None:
        self.publisher, self.session, self.source = publisher, session, source
        self._seqs = itertools.count()
        self._newest = -1
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._states = itertools.count()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def feed(self) -> Feed:
        topics = ("event", "label", "status")
        begin = {(self.session, f"{kind}/mic/"): -1 for kind in topics}
        return Feed(self.publisher.endpoint, begin=begin)

    def sounds(self, label: str, phase: str = "onset", number: int = 0, **more) -> Event:
        """Publish an event message of now."""
        with self._lock:
            self._newest = next(self._seqs)
            now = {"published_at": time.time(), "captured_at": time.time()} | more
            end = None if phase == "onset" else 16_000
            one = msgspec.structs.replace(
                event(self._newest, self.session),
                **{"label": label, "phase": phase, "id": f"{self.session}-{number}"},
                **{"position": 16_000, "start": 0, "end": end} | now,
            )
            self.publisher.emit(one)
            return one

    def emit(self, message: AnyMessage) -> None:
        with self._lock:
            self.publisher.emit(message)

    def _run(self) -> None:
        while not self._over.wait(0.05):
            with self._lock:
                seq = next(self._states)
                newest = {"event": self._newest} if self._newest >= 0 else {}
                one = status(seq, self.session, self.publisher.replay, **newest)
                last_seq = {
                    topic.replace("/mic/", f"/{self.source}/"): each
                    for topic, each in one.last_seq.items()
                }
                more = {"source": self.source, "last_seq": last_seq}
                self.publisher.emit(msgspec.structs.replace(one, published_at=time.time(), **more))

    def close(self) -> None:
        self._over.set()
        self._thread.join()


class Running:
    """Services in a loop of their own."""

    def __init__(self, services, feed: Feed) -> None:
        self._services, self._feed = services, feed
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(server.serve(self._services, self._feed, self._stop))
        except Exception as error:
            self.error = error
        self._loop.close()

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE_S)


@pytest.fixture
def listening(tmp_path, monkeypatch):
    """Return what runs a listener: `with listening(session) as one`; they share a journal."""
    monkeypatch.setenv("STREAMTWL_STATE", str(tmp_path / "state"))
    monkeypatch.setattr("streamtwl.sinks.publisher.COMMIT_S", PATIENCE_S)

    @contextlib.contextmanager
    def start(
        session: str = "s", source: str = "mic", file: str = "journal.sqlite"
    ) -> Iterator[Listener]:
        with (
            contextlib.closing(Journal(tmp_path / file)) as journal,
            contextlib.closing(Publisher(ANYWHERE, "msgpack", False, journal, ANYWHERE)) as one,
            contextlib.closing(Listener(one, session, source)) as listener,
        ):
            yield listener

    return start


@pytest.fixture
def listener(listening):
    with listening() as one:
        yield one


@pytest.fixture
def running():
    """Run services: running([service], feed) returns what has `close`; all end with the test."""
    with contextlib.ExitStack() as stack:

        def start(services, feed: Feed) -> Running:
            return stack.enter_context(contextlib.closing(Running(services, feed)))

        yield start


@pytest.fixture(scope="module")
def browser():
    if chromium() is None:
        pytest.skip("no chromium: apt-get install chromium")
    one = Browser()
    yield one
    one.close()


class Mosquitto:
    """A broker that can be stopped and started."""

    def __init__(self, folder: Path, password: str = "", *more: str) -> None:
        self.port, self._folder = free_port(), folder
        self._program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
        if self._program is None:
            pytest.skip("no mosquitto: apt-get install mosquitto")
        config = [
            f"listener {self.port} 127.0.0.1",
            *more,
            "persistence true",
            f"persistence_location {folder}/",
            "max_queued_messages 0",
        ]
        if password:
            file = folder / "passwords"
            file.touch(mode=0o600)
            subprocess.run(["mosquitto_passwd", "-b", file, "ears", password], check=True)
            config += ["allow_anonymous false", f"password_file {file}"]
        else:
            config += ["allow_anonymous true"]
        if os.getuid() == 0:
            config += ["user root"]
        (folder / "mosquitto.conf").write_text("\n".join(config) + "\n")
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [self._program, "-c", self._folder / "mosquitto.conf"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._answers, "mosquitto does not start")

    def _answers(self) -> bool:
        assert self._process.poll() is None, "mosquitto ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


@pytest.fixture
def mosquitto(tmp_path):
    """Start brokers: mosquitto(password="...")."""
    with contextlib.ExitStack() as stack:

        def start(password: str = "", *more: str) -> Mosquitto:
            folder = tmp_path / f"mosquitto{free_port()}"
            folder.mkdir()
            broker = Mosquitto(folder, password, *more)
            stack.callback(broker.stop)
            return broker

        yield start
