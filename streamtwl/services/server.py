"""`streamtwl serve`: the services in one event loop, each kept up by itself."""

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from streamtwl.audio.back_off import BACK_OFF_S
from streamtwl.client import subscription
from streamtwl.config import ServicesSettings
from streamtwl.errors import StreamtwlError, UsageError
from streamtwl.services import choice
from streamtwl.services.service import Feed, Figures, Service

_log = logging.getLogger(__name__)

CALM_S = 60.0  # a service that ran for so long has recovered
QUIET_S = 0.3  # for which nothing is missing, and nothing waits
DRAIN_S = 5.0  # for what a listener has published when it ends
FLUSH_S = 2.0  # for services to send it, and again to end
LOOK_S = 0.1
REPEAT_S = 5.0
READY = b"ready\n"


class Listener(msgspec.Struct):
    """What a listener says of itself to the `serve` that it starts, in a line of JSON."""

    connect: str
    session: str
    topics: list[str]  # of the session, to be read from its start
    name: str = ""  # the endpoint as the settings have it
    server_key: str | None = None
    key: str | None = None

    def feed(self) -> Feed:
        """Return its messages."""
        begin = {(self.session, topic): -1 for topic in self.topics}
        key = Path(self.key) if self.key else None
        return Feed(self.connect, self.server_key, key, begin, name=self.name)


class Once(logging.Filter):
    """Lets through one of the lines that are logged alike within `repeat_s`."""

    def __init__(self, repeat_s: float) -> None:
        super().__init__()
        self._repeat_s = repeat_s
        self._logged_at: dict[str, float] = {}  # of the newest line of each kind

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is new."""
        error = record.exc_info[1] if record.exc_info else None
        text, now = f"{record.getMessage()} {error!r}", time.monotonic()
        again = now < self._logged_at.get(text, -self._repeat_s) + self._repeat_s
        if not again:
            fresh = {line: at for line, at in self._logged_at.items() if now < at + self._repeat_s}
            self._logged_at = fresh | {text: now}
        return not again


_once = Once(REPEAT_S)


async def serve(
    services: Sequence[Service], feed: Feed, stop: asyncio.Event, refuse: bool = True
) -> None:
    """Run the services until `stop`.

    Raises UsageError of one that cannot start, as where its port is in use; unless `refuse`: it is
    tried again then, as it is where it fails later, and the others run.
    """

    def figures() -> dict[str, Figures]:
        return {service.name: service.figures() for service in services}

    feed.figures = figures
    logging.getLogger(subscription.__name__).addFilter(_once)  # each service has one
    stopping = asyncio.create_task(stop.wait())
    tasks = [asyncio.create_task(_keep_up(service, feed, refuse)) for service in services]
    try:
        await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in [stopping, *tasks]:
            task.cancel()
        done, _ = await asyncio.wait(tasks, timeout=FLUSH_S)
        logging.getLogger(subscription.__name__).removeFilter(_once)
    for task in done:
        if not task.cancelled():
            task.result()


async def _keep_up(service: Service, feed: Feed, refuse: bool) -> None:
    """Run a service, and again after a while where it fails; `refuse`: UsageError at first."""
    failures, said = 0, ""
    while True:
        began = time.monotonic()
        try:
            await service.run(feed)
            return
        except Exception as error:
            if refuse and isinstance(error, UsageError):
                raise
            refuse = False
            failures = 0 if time.monotonic() > began + CALM_S else failures
            if said != (said := _why(error)) or not failures:
                _log.warning("%s: %s: it is tried again", service.name, said)
                _log.debug("%s", service.name, exc_info=True)
        await asyncio.sleep(BACK_OFF_S[min(failures, len(BACK_OFF_S) - 1)])
        failures += 1


def _why(error: Exception) -> str:
    """Return an error in one line; one that nobody expected with its type."""
    text = " ".join(str(error).split())
    return (
        text if isinstance(error, StreamtwlError | OSError) else f"{type(error).__name__}: {text}"
    )


def run(services: Sequence[Service], feed: Feed) -> None:
    """Serve until a signal requests the end."""

    async def until_signal() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
                loop.add_signal_handler(number, stop.set)
        await serve(services, feed, stop)

    asyncio.run(until_signal())


def run_as_child(stdin: BinaryIO) -> None:
    """Serve for the listener that started us: its settings and then itself, a line of JSON each.

    It reads "ready" when the services are there. The end of `stdin` is the listener's end: what it
    has published until then is still served.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; ours to outlive
    services = choice.make(msgspec.json.decode(stdin.readline(), type=ServicesSettings))
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    if line := stdin.readline():
        feed = msgspec.json.decode(line, type=Listener).feed()
        asyncio.run(_until_end(services, feed, stdin.fileno()))


async def _until_end(services: Sequence[Service], feed: Feed, stdin: int) -> None:
    """Serve until the end of `stdin` and of what comes then."""
    ended, stop, loop = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop()

    def look() -> None:
        if not os.read(stdin, 1024):
            loop.remove_reader(stdin)
            ended.set()

    async def drain() -> None:
        await ended.wait()
        for each in feed.opened:
            each.finish()
        await _until(lambda: not any(each.lacking for each in feed.opened), DRAIN_S)
        await _until(lambda: not any(map(_waits, services)), FLUSH_S)
        stop.set()

    loop.add_reader(stdin, look)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    draining = asyncio.create_task(drain())
    await serve(services, feed, stop, refuse=False)
    draining.cancel()


def _waits(service: Service) -> bool:
    """Whether a service has something to send, and someone to send it to."""
    figures = service.figures()
    return bool(figures.get("waiting", 0)) and bool(figures.get("connected", True))


async def _until(condition: Callable[[], bool], limit_s: float) -> None:
    """Wait until a condition holds for a while, or no longer than that."""
    end = time.monotonic() + limit_s
    held = 0.0
    while held < QUIET_S and time.monotonic() < end:
        await asyncio.sleep(LOOK_S)
        held = held + LOOK_S if condition() else 0.0
