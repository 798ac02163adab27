"""A web service beside a real publisher, with its journal, for tests."""

import asyncio
import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from streamtwl.config import WebSettings
from streamtwl.messages import Event, Hello, Label, Level, Patch, Scored, WindowTop
from streamtwl.services import server
from streamtwl.services.service import Feed
from streamtwl.services.web import make
from streamtwl.services.web.page import Web
from streamtwl.sinks.journal import Journal
from streamtwl.sinks.publisher import Publisher
from tests.conftest import PATIENCE_S
from tests.example_messages import status

ANYWHERE = "tcp://127.0.0.1:*"
SESSION = "0123456789abcdef"
HOP = 7680
TOP = [Scored("Dog", 0.8), Scored("Bark", 0.5), Scored("Cat", 0.2), Scored("Speech", 0.1)]


class Story:
    """What a listener would publish, from some time ago until now."""

    def __init__(self, publisher: Publisher, journal: Path, source: str = "kitchen") -> None:
        self._publisher, self._journal, self._source = publisher, journal, source
        self.session = SESSION
        self.seq: dict[str, int] = {}
        self._status = status(0)
        self.began = time.time() - 3600.0

    def _common(self, kind: str, position: int) -> dict[str, Any]:
        seq = self.seq[kind] = self.seq.get(kind, -1) + 1
        at = self.began + position / 16_000
        return {
            "source": self._source,
            "session": self.session,
            "seq": seq,
            "position": position,
            "captured_at": at,
            "published_at": at + 0.05,
        }

    def hello(self) -> None:
        settings = {
            "journal": {"path": str(self._journal)}, "windows": ["yamnet:0.96", "mn04:3"],
            "hop_s": 0.48, "events": {"on": 0.43, "off": 0.22}, "reasoner": {"file": "reader"},
        }  # fmt: skip
        self._publisher.emit(
            Hello(**self._common("hello", 0), labels=["Dog", "Cat"], settings=settings, models={})
        )

    def hop(
        self, position: int, name: str | None = "Dog", score: float = 0.8, drawn: Any = ()
    ) -> None:
        top = [Scored(name or "Dog", score), *TOP[1:]]
        self._publisher.emit(
            Patch(
                **self._common("patch", position),
                top=TOP,
                level_dbfs=-30.0,
                others=[WindowTop("mn04:3", TOP)],
                drawn=list(drawn),
            )
        )
        self._publisher.emit(
            Label(
                **self._common("label", position), label=name, confidence=score, top=top,
                reasoner="reader", samples=0, traces=0, refinement=0, latency_ms=12.0,
            )
        )  # fmt: skip

    def event(self, number: int, phase: str, start: int, end: int | None, name: str) -> None:
        self._publisher.emit(
            Event(
                **self._common("event", end or start),
                id=f"{self.session}-{self._source}-{number}",
                phase=phase,
                label=name,
                start=start,
                end=end,
                peak=0.8,
                mean=0.6,
            )
        )

    def level(self, position: int) -> None:
        self._publisher.emit(
            Level(
                **self._common("level", position), seconds=60.0, leq_dba=50.0, l10_dba=55.0,
                l90_dba=40.0, max_dba=70.0, leq_dbfs=-40.0, calibrated=True,
            )
        )  # fmt: skip

    def status(self, position: int) -> None:
        common = self._common("status", position)
        seqs = {f"{kind}/{self._source}/": seq for kind, seq in self.seq.items()}
        replay = self._publisher.replay
        self._publisher.emit(
            msgspec.structs.replace(self._status, **common, last_seq=seqs, replay=replay)
        )


class Served:
    """A running service."""

    def __init__(self, web: Web, story: Story, journal: Path) -> None:
        self.web, self.story, self.journal = web, story, journal

    def connect(self) -> http.client.HTTPConnection:
        host, _, port = str(self.web.address).partition("://")[2].rpartition(":")
        return http.client.HTTPConnection(host, int(port), timeout=PATIENCE_S)

    @property
    def key(self) -> dict[str, str]:
        """The header of one who may hear."""
        return {"authorization": f"Bearer {self.web.link.partition('key=')[2]}"}

    def get(self, path: str, method: str = "GET", body: Any = None, **headers: str):
        """Return status, content (JSON, where it is) and headers."""
        with contextlib.closing(self.connect()) as connection:
            sent = None if body is None else json.dumps(body)
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, sent, named)
            answer = connection.getresponse()
            content = answer.read()
            is_json = answer.headers["content-type"].startswith("application/json")
            return answer.status, json.loads(content) if is_json else content, answer.headers

    def wait(self, condition, what: str = "") -> None:
        until = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < until, what
            time.sleep(0.02)

    def told(self, source: str = "kitchen", known: bool = True) -> None:
        """Wait until what was published has come, the subscription being there first or not.

        What a subscriber missed is found by the next status, so they go on as they would. `known`:
        the listener has said hello.
        """
        hub = self.web._hub
        first = self.story.seq["status"]
        due = 0.0

        def come() -> bool:
            nonlocal due
            if time.monotonic() > due:
                due = time.monotonic() + 0.3
                self.story.status(60 * HOP)
            its = hub.sources.get(source)
            newest = its and its.status and its.status.seq
            return bool(newest is not None and newest > first and (its.hello or not known))

        self.wait(come, f"{hub.sources}")


@contextlib.contextmanager
def serving(folder: Path, settings: WebSettings | None = None) -> Iterator[Served]:
    """Run a service in a thread of its own, subscribed to a publisher."""
    path = folder / "journal.sqlite"
    with (
        contextlib.closing(Journal(path)) as journal,
        contextlib.closing(
            Publisher(ANYWHERE, journal=journal, replay_bind=ANYWHERE, lossless=True)
        ) as publisher,
    ):
        web = make(settings or WebSettings(address="127.0.0.1:0"))
        story = Story(publisher, path)
        feed = Feed(publisher.endpoint)
        loop, stop = asyncio.new_event_loop(), asyncio.Event()
        ended = []

        def run() -> None:
            try:
                loop.run_until_complete(server.serve([web], feed, stop))
            except BaseException as error:
                ended.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        served = Served(web, story, path)
        try:
            served.wait(lambda: web.address or ended)
            if ended:
                raise ended[0]
            story.status(0)
            served.told(known=False)
            yield served
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
            loop.close()
