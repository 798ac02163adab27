"""How soon a sound is where it is used, and what each service costs.

    eval "$(tools/virtual_mic.sh start)"
    .venv/bin/python benchmarks/reach.py sound.wav [--plays 30] [--json reach.json]
        [options of `streamtwl listen`, as --pipeline yamnet]

Plays a sound into the virtual microphone, over and over with a pause, while `streamtwl listen`
runs with the web page, MQTT to a Mosquitto of its own, and a webhook to a server of its own. It
takes the time of each event's onset at (a) a plain subscriber, (b) the page's stream, (c) a
subscriber of Mosquitto, (d) the webhook. Two figures each: from the start of the sound (of the
player's process, so up to 0.1 s too much), in which most is the decision, alike for all; and from
the event's publication, which is what reaching takes. Then each service runs by itself as
`streamtwl serve`, for processor time (per cent of a core) and memory (unique to the process, MB),
with the same sounds. Last the listener by itself and with PAGES open pages, one of which never
reads, in turn: its own cost, delay of labels (from complete window to publication), hops that came
late. Debian packages: those of tools/virtual_mic.sh, and mosquitto.
"""

import argparse
import contextlib
import http.server
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import paho.mqtt.client as mqtt
import psutil
from rich.console import Console
from rich.table import Table

from streamtwl import subscribe
from streamtwl.messages import Event, Label, Status

PAUSE_S = 4.0  # of silence between two plays: the event before has ended
PATIENCE_S = 10.0  # for what has to arrive
WARM_UP_S = 8.0
PAGES = 20
ROUNDS = 3  # without pages and with them
RUN = [sys.executable, "-c", "from streamtwl.cli import main; main()"]
RULES = """
[[rule]]
name = "any"
actions = ["hook"]
[action.hook]
webhook = "http://127.0.0.1:{port}/"
"""

Arrivals = dict[str, float]  # event id: Unix seconds of its onset's arrival


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sound", type=Path, help="a sound file that leads to an event")
    parser.add_argument("--plays", type=int, default=30, help="of the sound (default 30)")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments, options = parser.parse_known_args()
    if not arguments.sound.is_file():
        parser.error(f"there is no file {arguments.sound}")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        reach = Reach(Path(folder), stack, options)
        figures = reach.measure(arguments.sound, arguments.plays)
    show(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


class Reach:
    """A listener with all services, and who waits at the other end of each."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack, options: list[str]) -> None:
        self._stack, self._options = stack, options
        self._env = os.environ | {"STREAMTWL_STATE": str(folder)}
        self.published: Arrivals = {}
        self._latencies_ms: list[float] = []  # of first decisions
        self._late_hops = 0
        self._open = False  # pages go on reading
        self.arrived: dict[str, Arrivals] = {"subscriber": {}}
        self._ports = {each: free_port() for each in ("bind", "mqtt", "hook", "web", "metrics")}
        self._connect = f"tcp://127.0.0.1:{self._ports['bind']}"
        self.services = {
            "mqtt": ["--mqtt", f"mqtt://127.0.0.1:{self._ports['mqtt']}"],
            "alerts": ["--alerts", str(folder / "rules.toml")],
            "metrics": ["--metrics", f"127.0.0.1:{self._ports['metrics']}"],
        }
        if importlib.util.find_spec("streamtwl.services.web"):
            self.services["web"] = ["--web", f"127.0.0.1:{self._ports['web']}"]
        (folder / "rules.toml").write_text(RULES.format(port=self._ports["hook"]))
        self._start_mosquitto(folder)
        stack.enter_context(webhook(self._ports["hook"], self._arrivals("webhook")))
        self._folder = folder

    def measure(self, sound: Path, plays: int) -> dict:
        """Return all figures."""
        awake = subprocess.Popen(["parec", "--latency-msec=20"], stdout=subprocess.DEVNULL)
        self._stack.callback(end, awake)  # an idle null sink takes up to 2 s to wake
        listening = self._start(["listen", "--quiet", *self._options, *self._endpoints()])
        self._watch(self._subscriber)
        figures: dict = {"plays": plays, "events": 0, "cost": {}}
        time.sleep(WARM_UP_S)
        # each by itself; then all of them; then the listener
        for name, service in [
            *self.services.items(),
            ("all", list(chain(*self.services.values()))),
        ]:
            serving = self._start(["serve", "--connect", self._connect, *service])
            if name == "all":
                self._watch(self._mqtt)
                if "web" in self.services:
                    self._watch(self._page)
            time.sleep(WARM_UP_S)
            before, began = cpu_s(serving), time.monotonic()
            played = self._play(sound, plays if name == "all" else max(2, plays // 6))
            figures["cost"][name] = {
                "cpu_percent": 100 * (cpu_s(serving) - before) / (time.monotonic() - began),
                "memory_mb": psutil.Process(serving.pid).memory_full_info().uss / 1e6,
            }
            if name == "all":
                figures |= self._delays(played)
            end(serving)
        rounds: dict[int, list[dict]] = {0: [], PAGES: []} if "web" in self.services else {0: []}
        for _ in range(ROUNDS):
            for pages, found in rounds.items():
                with self._pages(pages):
                    found.append(self._listener(listening, sound, max(2, plays // 6)))
        figures["listener"] = {f"{pages} pages": joined(found) for pages, found in rounds.items()}
        return figures

    def _listener(self, listening: subprocess.Popen, sound: Path, plays: int) -> dict:
        """Return what the listener itself costs while sounds are played, and how late it is."""
        before, began = cpu_s(listening), time.monotonic()
        first, late = len(self._latencies_ms), self._late_hops
        self._play(sound, plays)
        return {
            "cpu_percent": 100 * (cpu_s(listening) - before) / (time.monotonic() - began),
            "memory_mb": psutil.Process(listening.pid).memory_full_info().uss / 1e6,
            "latencies_ms": self._latencies_ms[first:],
            "late_hops": self._late_hops - late,
        }

    @contextlib.contextmanager
    def _pages(self, count: int) -> Iterator[None]:
        """Have so many pages open, of which the first never reads."""
        if not count:
            yield
            return
        serving = self._start(["serve", "--connect", self._connect, *self.services["web"]])
        time.sleep(WARM_UP_S / 2)
        self._open = True
        idle = socket.create_connection(("127.0.0.1", self._ports["web"]))
        idle.sendall(b"GET /api/live?mel=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for _ in range(count - 1):
            self._watch(self._look)
        time.sleep(WARM_UP_S / 2)
        try:
            yield
        finally:
            self._open = False
            idle.close()
            end(serving)

    def _look(self) -> None:
        """Read the stream as a page does, spectrogram and all."""
        url = f"http://127.0.0.1:{self._ports['web']}/api/live?mel=1"
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=60) as answer:
            while self._open and answer.readline():
                pass

    def _delays(self, played: list[float]) -> dict:
        """Return what each way took, from the sound and from the publication."""
        first = {}  # the first event after each play
        for event, at in sorted(self.published.items(), key=lambda pair: pair[1]):
            start = max((each for each in played if each <= at), default=None)
            if start is not None:
                first.setdefault(start, event)
        figures: dict = {"events": len(first), "from_sound_ms": {}, "from_publication_ms": {}}
        for way, arrivals in self.arrived.items():
            there = [(start, each) for start, each in first.items() if each in arrivals]
            figures.setdefault("arrived", {})[way] = len(there)
            if there:
                of_sound = [1000 * (arrivals[each] - start) for start, each in there]
                of_event = [1000 * (arrivals[each] - self.published[each]) for _, each in there]
                figures["from_sound_ms"][way] = percentiles(of_sound)
                figures["from_publication_ms"][way] = percentiles(of_event)
        return figures

    def _play(self, sound: Path, plays: int) -> list[float]:
        """Play it; return the Unix seconds at which each play began."""
        began = []
        for _ in range(plays):
            began.append(time.time())
            subprocess.run(["paplay", sound], check=True)
            time.sleep(PAUSE_S)
        return began

    def _endpoints(self) -> list[str]:
        journal = str(self._folder / "journal.sqlite")
        replay = "tcp://127.0.0.1:*"
        return ["--bind", self._connect, "--replay-bind", replay, "--journal", journal]

    def _start(self, arguments: list[str]) -> subprocess.Popen:
        process = subprocess.Popen([*RUN, *arguments], env=self._env)
        self._stack.callback(end, process)
        return process

    def _watch(self, way: Callable[[], None]) -> None:
        threading.Thread(target=way, daemon=True).start()

    def _arrivals(self, way: str) -> Arrivals:
        return self.arrived.setdefault(way, {})

    def _subscriber(self) -> None:
        arrivals = self._arrivals("subscriber")
        for message in subscribe(self._connect, kinds=["event", "label", "status"]):
            if isinstance(message, Label) and not message.refinement:
                self._latencies_ms.append(message.latency_ms)
            elif isinstance(message, Status):
                self._late_hops = message.late_hops
            elif isinstance(message, Event) and message.phase == "onset":
                self.published[message.id] = message.published_at
                arrivals.setdefault(message.id, time.time())

    def _mqtt(self) -> None:
        arrivals = self._arrivals("mqtt")

        def take(_client, _user, message) -> None:
            arrivals.setdefault(json.loads(message.payload)["id"], time.time())

        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        client.on_message = take
        client.connect("127.0.0.1", self._ports["mqtt"])
        client.subscribe("streamtwl/+/event", 1)
        client.loop_forever()

    def _page(self) -> None:
        """Read the stream that the page reads."""
        arrivals = self._arrivals("page")
        url = f"http://127.0.0.1:{self._ports['web']}/api/live"
        while True:
            try:
                kind = ""
                for line in urllib.request.urlopen(url, timeout=60):
                    field, _, value = line.decode().strip().partition(": ")
                    kind = value if field == "event" else kind
                    if field == "data" and kind == "event":
                        arrivals.setdefault(json.loads(value)["id"], time.time())
            except OSError:
                time.sleep(0.2)

    def _start_mosquitto(self, folder: Path) -> None:
        program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
        if program is None:
            raise SystemExit("there is no mosquitto: apt-get install mosquitto")
        config = folder / "mosquitto.conf"
        config.write_text(f"listener {self._ports['mqtt']} 127.0.0.1\nallow_anonymous true\n")
        process = subprocess.Popen([program, "-c", config], stderr=subprocess.DEVNULL)
        self._stack.callback(end, process)


@contextlib.contextmanager
def webhook(port: int, arrivals: Arrivals) -> Iterator[None]:
    """Serve a webhook that notes what comes."""

    class Hook(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            now = time.time()
            firing = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            arrivals.setdefault(firing["event"], now)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_arguments) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


def end(process: subprocess.Popen) -> None:
    """End a process as Ctrl-C does."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def cpu_s(process: subprocess.Popen) -> float:
    """Return the processor seconds of a process and its children so far."""
    one = psutil.Process(process.pid)
    times = [each.cpu_times() for each in (one, *one.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def percentiles(values: list[float]) -> dict[str, float]:
    """Return p50, p99 and the maximum."""
    p50, p99 = np.percentile(values, [50, 99])
    return {"p50": float(p50), "p99": float(p99), "max": max(values)}


def joined(rounds: list[dict]) -> dict:
    """Return the figures of several rounds as one; of processor time each."""
    latencies = [each for one in rounds for each in one["latencies_ms"]]
    return {
        "cpu_percent": [one["cpu_percent"] for one in rounds],
        "memory_mb": rounds[-1]["memory_mb"],
        "latency_ms": percentiles(latencies),
        "hops": len(latencies),
        "late_hops": sum(one["late_hops"] for one in rounds),
    }


def show(figures: dict) -> None:
    """Print the tables."""
    table = Table(
        "to", "events", "from the sound: p50", "p99", "from its publication: p50", "p99",
        title=f"{figures['plays']} sounds, {figures['events']} with an event; ms",
    )  # fmt: skip
    for way, count in figures["arrived"].items():
        both = [figures[of].get(way, {}) for of in ("from_sound_ms", "from_publication_ms")]
        cells = [f"{each[p]:.1f}" if each else "-" for each in both for p in ("p50", "p99")]
        table.add_row(way, str(count), *cells)
    cost = Table("process", "% of a core", "MB, unique")
    for name, each in figures["cost"].items():
        cost.add_row(name, f"{each['cpu_percent']:.2f}", f"{each['memory_mb']:.1f}")
    listener = Table(
        "the listener, with", "% of a core", "MB, unique", "label p50", "p99, ms", "hops", "late"
    )
    for name, each in figures["listener"].items():
        latency = each["latency_ms"]
        listener.add_row(
            name,
            ", ".join(f"{percent:.2f}" for percent in each["cpu_percent"]),
            f"{each['memory_mb']:.1f}",
            f"{latency['p50']:.1f}",
            f"{latency['p99']:.1f}",
            str(each["hops"]),
            str(each["late_hops"]),
        )
    console = Console()
    console.print(table)
    console.print(cost)
    console.print(listener)


if __name__ == "__main__":
    main()
