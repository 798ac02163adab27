"""What sounds now: the newest of each source, and what every open page is still to get.

A page that does not read has a bounded queue, of which the oldest go; it is told how many. Nobody
waits for it.
"""

import asyncio
import base64
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from streamtwl.control import client
from streamtwl.errors import ControlError
from streamtwl.messages import AnyMessage, Event, Hello, Label, Level, Patch, Status
from streamtwl.services.service import Figures
from streamtwl.services.web.shown import dated, event_of, status_of

PAGES, OF_ONE = 64, 32  # open at once; of one network, and of all who may not hear
QUEUE = 200  # messages that a page may lag behind: a minute of two sources
SOURCES = 50  # remembered
HOPS = 250  # of each source, for a page that opens: two minutes
EVENTS = 100  # of each source
LATENCIES = 1200
AWAY_S = 5.0  # without a message; a status comes each second
LOOK_S = 1.0  # from one look for sources that are away to the next
DRAW_S = 0.24  # from one look at new frames of the spectrogram to the next
FRAMES = 1000  # at once
DRAWN = 90  # pieces of each source's spectrogram, for a page that opens: 43 s
KEPT_S = 60.0  # while no page shows it: one that is loaded again has it at once
FAR = "it is sound, and the listener is on another machine"
STRANGER = "it is sound: open the link that streamtwl printed at its start, or set a password"
RETRY_S = 5.0  # where there are none
SAID_S = 3600.0  # from one line on pages that do not read to the next

_log = logging.getLogger(__name__)


class Page:
    """What one open page is still to get."""

    def __init__(self, wants_frames: bool, trusted: bool = False, of: str = "") -> None:
        self.wants_frames, self.trusted = wants_frames, trusted
        self.of = of  # which network
        self.missed = 0  # messages
        self.over = False
        self._waiting: deque[bytes] = deque()
        self._news = asyncio.Event()

    def put(self, chunk: bytes) -> int:
        """Queue a chunk; return how many went for it."""
        gone = len(self._waiting) >= QUEUE
        if gone:
            self._waiting.popleft()
            self.missed += 1
        self._waiting.append(chunk)
        self._news.set()
        return int(gone)

    def end(self) -> None:
        """Let the page's connection end."""
        self.over = True
        self._news.set()

    async def take(self, patience_s: float) -> bytes | None:
        """Return all that waits, b"" where nothing comes for `patience_s`, None at the end."""
        try:
            await asyncio.wait_for(self._news.wait(), patience_s)
        except TimeoutError:
            return b""
        self._news.clear()
        chunks = b"".join(self._waiting)
        self._waiting.clear()
        return None if self.over else chunks


class Sounding:
    """What is known of a source."""

    def __init__(self) -> None:
        self.session = ""
        self.hello: Hello | None = None
        self.status: Status | None = None
        self.patch: Patch | None = None
        self.level: Level | None = None
        self.hops: deque[dict[str, Any]] = deque(maxlen=HOPS)
        self.events: OrderedDict[str, Event] = OrderedDict()
        self.latencies: deque[float] = deque(maxlen=LATENCIES)  # ms
        self.received_at = time.monotonic()  # its newest message

    @property
    def away_s(self) -> float | None:
        """For how long nothing has come of it, None while messages come."""
        silent_s = time.monotonic() - self.received_at
        return round(silent_s, 1) if silent_s >= AWAY_S else None

    def hop(self, label: Label) -> dict[str, Any]:
        """Return a decision with what the backbones said of its window."""
        self.latencies.append(label.latency_ms)
        patch = self.patch if self.patch and self.patch.position == label.position else None
        return {
            "source": label.source,
            "session": label.session,
            "position": label.position,
            "at": label.captured_at if label.captured_at is not None else label.published_at,
            "label": label.label,
            "confidence": label.confidence,
            "top": label.top,
            "reasoner": label.reasoner,
            "refinement": label.refinement,
            "thoughts": label.thoughts,
            "latency_ms": round(label.latency_ms, 1),
            "level_dbfs": patch and round(patch.level_dbfs, 1),
            "heard": patch and patch.top,
            "others": patch.others if patch else [],
            "drawn": patch.drawn if patch else [],
        }


class Hub:
    """Takes the listener's messages; pages take theirs."""

    def __init__(self) -> None:
        self.pages: set[Page] = set()
        self.over = False
        self.sources: OrderedDict[str, Sounding] = OrderedDict()
        self.dropped = 0  # messages that pages did not take in time
        self._said_at = -SAID_S  # monotonic, that there are such pages
        self.spectrogram = False
        self.no_spectrogram: str | None = None  # why there is none
        self.figures: Callable[[], Mapping[str, Figures]] = dict
        self._next: dict[tuple[str, str], int] = {}  # source, session: where its next frame begins
        self._again_at: dict[str, float] = {}  # source without frames: monotonic, the next request
        self._drawn: dict[str, deque[bytes]] = {}  # source: its newest frames, as they were sent

    def begin(self, figures: Callable[[], Mapping[str, Figures]], spectrogram: bool) -> None:
        """Begin to serve; `spectrogram`: frames may be requested from the listener here."""
        self.figures, self.spectrogram, self.over = figures, spectrogram, False
        self.no_spectrogram = None if spectrogram else FAR

    def take(self, message: AnyMessage) -> None:
        """Take a message of the listener."""
        known = self.sources.get(message.source)
        if known is None:
            known = self.sources[message.source] = Sounding()
            if len(self.sources) > SOURCES:
                gone, _ = self.sources.popitem(last=False)
                self._drawn.pop(gone, None)
        known.received_at = time.monotonic()
        if message.session != known.session:  # its positions begin anew
            known.session = message.session
            known.hops.clear()
            self._drawn.pop(message.source, None)
            self._again_at.pop(message.source, None)
        if isinstance(message, Hello):
            known.hello = message
        elif isinstance(message, Patch):
            known.patch = message
        elif isinstance(message, Label):
            known.hops.append(hop := known.hop(message))
            self._send("hop", hop)
        elif isinstance(message, Event):
            first = known.events.get(message.id, message)
            message = dated(message, first)
            known.events[message.id] = message
            while len(known.events) > EVENTS:
                known.events.popitem(last=False)
            self._send("event", event_of(message))
        elif isinstance(message, Status):
            known.status = message
            self._send("status", status_of(message))
        elif isinstance(message, Level):
            known.level = message
            self._send("level", message)

    def about_spectrogram(self, trusted: bool) -> dict[str, Any]:
        """Return whether one who may hear, or may not, gets it, and why not."""
        reason = self.no_spectrogram if trusted or not self.spectrogram else STRANGER
        return {"spectrogram": self.spectrogram and trusted, "no_spectrogram": reason}

    def open(self, wants_frames: bool, trusted: bool = False, of: str = "") -> Page | None:
        """Return a new page, None where there are too many; `trusted`: it may have frames.

        `of`: whose it is.
        """
        like = sum(page.of == of and page.trusted == trusted for page in self.pages)
        strangers = 0 if trusted else sum(not page.trusted for page in self.pages)
        if len(self.pages) >= PAGES or max(like, strangers) >= OF_ONE:
            return None
        page = Page(wants_frames and self.spectrogram and trusted, trusted, of)
        self.pages.add(page)
        page.put(_chunk("all", self.snapshot(trusted)))
        if page.wants_frames:
            page.put(b"".join(chunk for drawn in self._drawn.values() for chunk in drawn))
        if self.over:  # a browser connects again at once when its stream ends
            page.end()
        return page

    def close(self, page: Page) -> None:
        """Forget a page."""
        self.pages.discard(page)

    def end(self) -> None:
        """End all pages, and those that open from now on."""
        self.over = True
        for page in self.pages:
            page.end()

    def snapshot(self, trusted: bool = False) -> dict[str, Any]:
        """Return what a page that opens has to know; `trusted`: who opens it may hear."""
        return {
            "sources": {
                name: {
                    "away_s": known.away_s,
                    "status": known.status and status_of(known.status),
                    "hops": [*known.hops],
                    "events": [event_of(each) for each in known.events.values() if not each.void],
                    "level": known.level,
                    "windows": _windows(known.hello),
                }
                for name, known in self.sources.items()
            },
            **self.about_spectrogram(trusted),
        }

    async def watch(self) -> None:
        """Tell the pages which sources are away, as long as they are."""
        while True:
            await asyncio.sleep(LOOK_S)
            for source, known in self.sources.items():
                if (away_s := known.away_s) is not None:
                    self._send("away", {"source": source, "away_s": away_s})

    async def draw(self) -> None:
        """Pass on frames of the spectrogram while a page shows it."""
        wanted_at = time.monotonic()
        while True:
            await asyncio.sleep(DRAW_S)
            wanting = [page for page in self.pages if page.wants_frames]
            if not wanting:
                if time.monotonic() - wanted_at > KEPT_S:
                    self._next.clear()
                    self._again_at.clear()
                    self._drawn.clear()
                continue
            wanted_at = time.monotonic()
            for source, known in [*self.sources.items()]:
                if time.monotonic() < self._again_at.get(source, 0.0):
                    continue
                try:
                    await self._draw(source, known.session, wanting)
                    self.no_spectrogram = None
                except ControlError as error:
                    self.no_spectrogram = str(error)
                    self._again_at[source] = time.monotonic() + RETRY_S

    async def _draw(self, source: str, session: str, wanting: list[Page]) -> None:
        key = source, session  # two listeners may have sources of one name
        answer = await asyncio.to_thread(
            client.mel, source, self._next.get(key, 0), FRAMES, session
        )
        self._next[key] = answer.next
        if answer.mel:
            frames = {
                "source": source,
                "position": answer.position,
                "frames": base64.b64encode(answer.mel).decode(),
            }
            chunk = _chunk("mel", frames)
            self._drawn.setdefault(source, deque(maxlen=DRAWN)).append(chunk)
            for page in wanting:
                self._put(page, chunk)

    def _send(self, kind: str, content: Any) -> None:
        if self.pages:
            chunk = _chunk(kind, content)
            for page in self.pages:
                self._put(page, chunk)

    def _put(self, page: Page, chunk: bytes) -> None:
        """Queue a chunk for a page; log that one does not read, now and then."""
        gone = page.put(chunk)
        self.dropped += gone
        if gone and time.monotonic() > self._said_at + SAID_S:
            self._said_at = time.monotonic()
            _log.warning("web: a page does not read: the oldest of what waits for it is dropped")


def _windows(hello: Hello | None) -> list[str]:
    windows = hello.settings.get("windows") if hello else None
    return windows if isinstance(windows, list) else []


def _chunk(kind: str, content: Any) -> bytes:
    """Return a server-sent event; JSON has no line breaks."""
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode(content))
