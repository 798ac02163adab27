"""How long the web page takes for a day of 10,000 events, and what a page costs.

    .venv/bin/python benchmarks/web.py            # writes a day into a journal, and loads it
    .venv/bin/python benchmarks/web.py --quick    # a short day: measures nothing

The journal has a decision each 0.48 s and 10,000 events. Chromium loads History from it; the
same is requested by itself, first and again. Then twenty pages are open, one of which never reads,
while a publisher sends a hundred decisions a second: how late they are at the others, and the
processor time of it all.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from streamtwl.config import WebSettings
from streamtwl.messages import Event, Label, Scored, encode
from streamtwl.services import server
from streamtwl.services.service import Feed
from streamtwl.services.web import make
from streamtwl.services.web.page import Web
from streamtwl.sinks.journal import Entry, Journal
from streamtwl.sinks.publisher import Publisher

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browser import Browser, chromium

SESSION = "0123456789abcdef"
HOP, RATE = 7680, 16_000
DAY_S = 86_400.0
LABELS = [f"Label {number}" for number in range(60)]
PAGES = 20
WHAT_IF = "what-if?label=Label%203&on=0.5&off=0.2"


def main() -> None:
    """Measure, and print lines of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a short day")
    parser.add_argument("--seconds", type=float, default=20.0, help="with twenty pages")
    options = parser.parse_args()
    hops, events = (2000, 100) if options.quick else (180_000, 10_000)
    seconds = 1.0 if options.quick else options.seconds
    with tempfile.TemporaryDirectory() as folder:
        os.environ["STREAMTWL_STATE"] = folder  # the page's key is the benchmark's own
        path = Path(folder) / "journal.sqlite"
        write_day(path, hops, events)
        print(json.dumps({"journal_mb": round(path.stat().st_size / 1e6, 1), "events": events}))
        with serving(WebSettings(address="127.0.0.1:0", journal=str(path))) as (web, publisher):
            for what in ("events?limit=100", "counts?period=hour", WHAT_IF):
                took = [timed(f"{web.address}/api/{what}") for _ in range(2)]
                print(json.dumps({"request": what, "first_s": took[0], "again_s": took[1]}))
            if chromium():
                print(json.dumps({"chromium": "history", "seconds": history(web)}))
            time.sleep(6.0)  # what was read is forgotten
            if chromium():
                print(json.dumps({"chromium": "history, again", "seconds": history(web)}))
            print(json.dumps(twenty_pages(web, publisher, seconds)))


def write_day(path: Path, hops: int, events: int) -> None:
    """Write decisions and events, up to now."""
    journal, entries, every = Journal(path), [], hops // events
    began = time.time() - hops * HOP / RATE
    for hop in range(hops):
        label, event = decision(hop, began), hop // every
        entries.append(entry(label))
        if hop % every == 0 and event < events:
            entries += map(entry, event_of(event, hop, began))
        if len(entries) > 5000 or hop == hops - 1:
            journal.commit(entries, 60.0)
            entries = []
    journal.close()


def decision(hop: int, began: float) -> Label:
    """Return a decision with a label that changes each nine hops."""
    top = [Scored(LABELS[(hop // 9 + i) % len(LABELS)], round(0.8 / (i + 1), 4)) for i in range(5)]
    return Label(
        **common(hop * HOP, hop, began), label=top[0].label, confidence=top[0].score, top=top,
        reasoner="reader", samples=0, traces=0, refinement=0, latency_ms=12.0, journalled=True,
    )  # fmt: skip


def event_of(number: int, hop: int, began: float) -> list[Event]:
    """Return the onset and the offset of an event of a second."""
    start, messages = hop * HOP, []
    for phase, end in (("onset", None), ("offset", start + RATE)):
        at = common(end or start, 2 * number + (end is not None), began)
        messages.append(
            Event(
                **at,
                id=f"{SESSION}-mic-{number}",
                phase=phase,
                start=start,
                end=end,
                peak=0.8,
                mean=0.6,
                label=LABELS[number % len(LABELS)],
                journalled=True,
            )
        )
    return messages


def common(position: int, seq: int, began: float) -> dict[str, Any]:
    """Return the fields of every message."""
    at = began + position / RATE
    return {
        "source": "mic", "session": SESSION, "position": position, "captured_at": at,
        "published_at": at, "seq": seq,
    }  # fmt: skip


def entry(message: Any) -> Entry:
    """Return a message as the journal takes it."""
    at = message.published_at
    return Entry(SESSION, message.topic, message.seq, at, message.label, encode(message))


@contextlib.contextmanager
def serving(settings: WebSettings) -> Iterator[tuple[Web, Publisher]]:
    """Run the service, subscribed to a publisher, in a thread of its own."""
    with contextlib.closing(Publisher("tcp://127.0.0.1:*")) as publisher:
        web, loop, stop = make(settings), asyncio.new_event_loop(), asyncio.Event()
        serve = server.serve([web], Feed(publisher.endpoint), stop)
        thread = threading.Thread(target=loop.run_until_complete, args=(serve,))
        thread.start()
        while web.address is None:
            time.sleep(0.01)
        try:
            yield web, publisher
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()


def timed(url: str) -> float:
    """Return the seconds that a request takes."""
    began = time.perf_counter()
    with urllib.request.urlopen(url) as answer:
        answer.read()
    return round(time.perf_counter() - began, 3)


def history(web: Web) -> float:
    """Return the seconds from the navigation until the rows are there, by Chromium's own clock."""
    with contextlib.closing(Browser()) as browser:
        browser.look()
        browser.open(f"{web.address}/health")
        browser.wait("document.querySelector('main[data-ready]')")
        browser.open(f"{web.address}/history")
        browser.wait("document.querySelectorAll('.events tbody tr').length >= 100")
        shown = "performance.now()"
        return round(browser.run(shown) / 1000, 3)


def twenty_pages(web: Web, publisher: Publisher, seconds: float) -> dict[str, Any]:
    """Open twenty pages, of which one never reads, and send a hundred decisions a second."""
    host, port = str(web.address).removeprefix("http://").split(":")
    peers = [socket.create_connection((host, int(port))) for _ in range(PAGES)]
    late: list[float] = []

    def read(peer: socket.socket) -> None:
        with contextlib.suppress(OSError), peer.makefile("rb") as lines:
            for line in lines:
                if line.startswith(b'data: {"source":"mic"'):
                    late.append(1000 * (time.time() - json.loads(line[6:])["at"]))

    for peer in peers:
        peer.sendall(b"GET /api/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    for peer in peers[1:]:
        threading.Thread(target=read, args=(peer,), daemon=True).start()
    time.sleep(1.0)
    late.clear()
    until, hop, used = time.monotonic() + seconds, 0, time.process_time()
    longest = 0.0
    while time.monotonic() < until:
        began = time.perf_counter()
        publisher.emit(decision(hop, time.time() - hop * HOP / RATE))
        longest = max(longest, time.perf_counter() - began)
        hop += 1
        time.sleep(0.01)
    used = time.process_time() - used
    time.sleep(1.0)
    figures = web.figures()
    for peer in peers:
        with contextlib.suppress(OSError):
            peer.shutdown(socket.SHUT_RDWR)
        peer.close()
    ordered = sorted(late)
    return {
        "pages": PAGES,
        "never_reads": 1,
        "sent": hop,
        "received_by_each": len(late) / (PAGES - 1),
        "ms_p50": round(statistics.median(ordered), 1),
        "ms_p99": round(ordered[int(0.99 * len(ordered))], 1),
        "longest_emit_ms": round(1000 * longest, 2),
        "share_of_a_core": round(used / seconds, 3),
        "dropped": figures["dropped"],
    }


if __name__ == "__main__":
    main()
