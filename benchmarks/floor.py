"""The floor and the live path: what a hop must cost, and what it does cost.

    .venv/bin/python benchmarks/floor.py [--pipelines yamnet default light] [--json floor.json]

*Floor*: the parts that a hop cannot do without, each called alone with what it gets in a real run
of the sound: resampling, the spectrum and the front ends, each window, the reasoner's step, the
encoding of the messages, a commit to the journal, ZeroMQ from a publisher to a subscriber on the
same thread. *Warm*: in tight loops, the parts in turn. *Paced*: all of them once a hop, the
pipelines in turn, with a pause to the next hop in which other programs fill the caches.

*Live path*: all of `streamtwl listen`, in processes of its own, without its start: a file with
--fast (a long one less a short one), a file at real pace, and, where the tools of a virtual
microphone are there, that microphone with its capture process; as a multiple of the floor, warm or
paced. Wake-ups are voluntary context switches; memory is what the processes share with no other.

All times are of the processor, in ms a second of sound; 10 are 1 % of a core. A line is the least
of the interleaved repeats when warm, the median when paced, and between which values they lie.
"""

import streamtwl  # noqa: F401  # isort: skip  # before numpy, which it holds to one thread

import argparse
import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import soxr
import zmq
from figures import Figure, of, show, write
from quick import QUICK, add_option

from streamtwl import available
from streamtwl.audio import demo
from streamtwl.audio.resample import Resampler
from streamtwl.errors import StreamtwlError
from streamtwl.features.spectrum import Spectrum
from streamtwl.features.window import frames_in
from streamtwl.messages import JOURNALLED, encode
from streamtwl.pipeline import Outcome, Pipeline, build
from streamtwl.report import Reporter
from streamtwl.sinks.journal import Entry, Journal
from streamtwl.stages import SAMPLE_RATE, Block

RATE = 48_000  # Hz, as microphones have
HOPS = 40  # whose patches and messages the parts are given in turn
WARM_CALLS = 10  # of a part, one after another
SHORT_S, LONG_S = 30, 150  # of the files with --fast
WARM_UP_S = 6.0
SOUNDS = ("quiet", "continuous")
LISTEN = [sys.executable, "-c", "from streamtwl.cli import main; main()", "listen", "--quiet"]
LISTEN += ["--replay-bind", "tcp://127.0.0.1:*", "--no-control"]
MICROPHONE = Path(__file__).parents[1] / "tools" / "virtual_mic.sh"
Part = Callable[[], object]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ["yamnet", "default", "light"]
    parser.add_argument("--pipelines", nargs="+", default=names, help=f"(default {names})")
    parser.add_argument("--seconds", type=int, default=20, help="of each paced run (default 20)")
    parser.add_argument("--rounds", type=int, default=30, help="of the warm parts (default 30)")
    parser.add_argument("--repeats", type=int, default=3, help="of --fast (default 3)")
    parser.add_argument("--no-microphone", action="store_true", help="files only")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    add_option(parser)
    options = parser.parse_args()
    if QUICK:
        options.seconds, options.rounds, options.repeats, options.no_microphone = 4, 2, 1, True
    figures: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as opened:
        folder = Path(scratch)
        sounds = {name: sound(name, folder) for name in SOUNDS[QUICK:]}
        pipelines = options.pipelines
        floors = {name: opened.enter_context(floor(name, folder)) for name in pipelines}
        for name, took in warm(floors, options.rounds).items():
            figures |= parts_of(f"{name}, warm", took, min)
        for name, took in paced(floors, options.seconds).items():
            figures |= parts_of(f"{name}, paced", took, statistics.median)
        ways = ["file"] if options.no_microphone else ["file", "microphone"]
        for (name, (heard, file)), way in itertools.product(
            itertools.product(pipelines, sounds.items()), ("--fast", *ways)
        ):
            about = f"{name}, {way}, {heard} sound"
            if way == "--fast":
                found = fast(name, file, folder, options.repeats)
            else:
                found = live(name, file, folder, way, options.seconds)
            for what, figure in found.items():
                figures[f"{about}: {what}"] = figure
            if found:
                least = figures[f"{name}, {'warm' if way == '--fast' else 'paced'}: floor"]
                figures[f"{about}: multiple of the floor"] = found["processor"].over(least)
    show(figures)
    if options.json:
        write(figures, options.json)


def sound(name: str, folder: Path) -> Path:
    """Write and return a sound file: room noise, or the demo's sounds without a pause."""
    file = folder / f"{name}.wav"
    long_s = LONG_S if not QUICK else SHORT_S + 4
    if name == "quiet":
        samples = 3e-4 * np.random.default_rng(0).standard_normal(long_s * RATE)
    else:
        once = soxr.resample(demo.scene(), SAMPLE_RATE, RATE, quality="HQ")
        samples = np.tile(once, -(-long_s * RATE // len(once)))[: long_s * RATE]
    for path, count in ((file, long_s * RATE), (short(file), SHORT_S * RATE)):
        with wave.open(str(path), "wb") as written:
            written.setparams((1, 2, RATE, 0, "NONE", ""))
            written.writeframes(np.round(samples[:count] * 32767).astype("<i2").tobytes())
    return file


def short(file: Path) -> Path:
    """Return where the beginning of a sound file is."""
    return file.with_name(f"short-{file.name}")


# --- the floor ---


@dataclass
class Floor:
    """The parts of one pipeline, and its hop in seconds."""

    parts: dict[str, Part]
    hop_s: float


@contextlib.contextmanager
def floor(pipeline: str, folder: Path) -> Iterator[Floor]:
    """Give the parts of a pipeline, each with what the demo's sounds give it."""
    settings = available.settings(pipeline, {}, lambda line: print(line, file=sys.stderr))
    built = build(settings, ["mic"], paced=True)
    settings, hop = built.settings, round(settings.hop_s * SAMPLE_RATE)
    heard = np.tile(demo.scene(), 2)[: (HOPS + 8) * hop]
    outcomes = list(run(built, heard, hop))[-HOPS:]
    parts = hearing(built, heard[:hop], round(settings.hop_s * RATE))
    reasoner, patches = built.reasoner, itertools.cycle([o.patch for o in outcomes])
    parts["reasoner"] = lambda: reasoner.step([next(patches)])
    with (
        contextlib.closing(Journal(folder / f"{pipeline}.sqlite", 30, 500)) as journal,
        contextlib.closing(Wire()) as wire,
    ):
        parts |= publishing(built, outcomes, journal, wire)
        for part in parts.values():
            part()
        yield Floor(parts, settings.hop_s)


def run(built: Pipeline, samples: np.ndarray, hop: int) -> Iterator[Outcome]:
    """Give the outcomes of a sound that have a patch."""
    taken: list[Outcome] = []
    built.subscribe(taken.append)
    for at in range(0, len(samples), hop):
        built.push([Block(0, at, samples[at : at + hop], None, time.monotonic())])
    return (outcome for outcome in taken if outcome.patch is not None and outcome.final)


def hearing(built: Pipeline, hop: np.ndarray, source_hop: int) -> dict[str, Part]:
    """Return the parts up to the windows; `hop` are 16 kHz samples."""
    resampler, spectrum = Resampler(RATE), Spectrum()
    received = soxr.resample(hop, SAMPLE_RATE, RATE, quality="HQ")[:source_hop]
    spectrum.push(hop)
    power = spectrum.push(hop)
    parts: dict[str, Part] = {
        "resampling": lambda: resampler.push(received),
        "spectrum": lambda: spectrum.push(hop),
    }
    for backbone in built.bank.backbones:
        front_end = backbone.front_end()
        parts[f"front end of {backbone.name}"] = lambda f=front_end: f.push(hop, power)
    for kind in built.bank.kinds:
        backbone = built.bank.backbones[kind.backbone]
        bands = backbone.front_end().push(hop, power).shape[1]
        frames = frames_in(backbone, kind.length_s)
        features = np.random.default_rng(0).standard_normal((1, frames, bands), np.float32)
        parts[f"window {kind.name}"] = lambda b=backbone, x=features: b.score(x)
    return parts


def publishing(
    built: Pipeline, outcomes: list[Outcome], journal: Journal, wire: "Wire"
) -> dict[str, Part]:
    """Return the parts from the decision on."""
    categories = [list(backbone.categories) for backbone in built.bank.backbones]
    first, *others = (categories[kind.backbone] for kind in built.bank.kinds)
    reporter = Reporter(["mic"], first, built.reasoner.labels, built.reasoner.name, True, others)
    hops = [reporter.outcome(outcome, None) for outcome in outcomes]
    encoded = [[(m, encode(m)) for m in messages] for messages in hops]
    seq = itertools.count()
    turns = {name: itertools.cycle(range(len(hops))) for name in ("encode", "journal", "wire")}

    def commit() -> None:
        journal.commit(
            [
                Entry(m.session, m.topic, next(seq), m.published_at, None, payload)
                for m, payload in encoded[next(turns["journal"])]
                if isinstance(m, JOURNALLED)
            ],
            patience_s=10.0,
        )

    return {
        "encoding": lambda: [encode(m) for m in hops[next(turns["encode"])]],
        "journal": commit,
        "ZeroMQ": lambda: wire.trip([p for _, p in encoded[next(turns["wire"])]]),
    }


class Wire:
    """A publisher and its subscriber on one thread, over TCP."""

    def __init__(self) -> None:
        self._context = zmq.Context()
        self._out, self._in = self._context.socket(zmq.XPUB), self._context.socket(zmq.SUB)
        self._out.bind("tcp://127.0.0.1:*")
        self._in.subscribe("")
        self._in.connect(self._out.getsockopt_string(zmq.LAST_ENDPOINT))
        self._out.recv()  # the subscription

    def trip(self, payloads: list[bytes]) -> None:
        """Send all, and receive all."""
        for payload in payloads:
            self._out.send_multipart((b"label/mic/", payload))
        for _ in payloads:
            self._in.recv_multipart()

    def close(self) -> None:
        """Close both."""
        self._context.destroy(0)


def warm(floors: dict[str, Floor], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return, by pipeline and part, ms a second of sound in each of the rounds, in tight loops."""
    took = {name: {part: [] for part in each.parts} for name, each in floors.items()}
    for _ in range(rounds):
        for name, each in floors.items():
            for part, call in each.parts.items():
                began = time.process_time()
                for _ in range(WARM_CALLS):
                    call()
                used_s = (time.process_time() - began) / WARM_CALLS
                took[name][part].append(1000 * used_s / each.hop_s)
    return took


def paced(floors: dict[str, Floor], seconds: float) -> dict[str, dict[str, list[float]]]:
    """Return the same, every part once a hop, for so many seconds a pipeline."""
    took = {name: {part: [] for part in each.parts} for name, each in floors.items()}
    until = time.monotonic() + seconds * len(floors)
    for name, each in itertools.cycle(floors.items()):
        if time.monotonic() >= until:
            return took
        time.sleep(each.hop_s)
        for part, call in each.parts.items():
            began = time.process_time()
            call()
            took[name][part].append(1000 * (time.process_time() - began) / each.hop_s)
    return took


def parts_of(
    about: str, took: dict[str, list[float]], middle: Callable[[list[float]], float]
) -> dict[str, Figure]:
    """Return a figure for each part, and for their sum."""
    sums = [sum(each) for each in zip(*took.values(), strict=True)]
    found = {f"{about}: {part}": of(each, middle, "ms") for part, each in took.items()}
    total = of(sums, middle, "ms")
    total.value = sum(figure.value for figure in found.values())  # of parts that are not one run's
    total.low = min(total.low, total.value)
    return found | {f"{about}: floor": total}


# --- the live path ---


def command(pipeline: str, folder: Path, *source: str) -> list[str]:
    """Return a command that listens, with a journal that it then has for itself."""
    journal = folder / f"live-{pipeline}.sqlite"
    return [*LISTEN, "--pipeline", pipeline, "--journal", str(journal), *source]


def fast(pipeline: str, file: Path, folder: Path, repeats: int) -> dict[str, Figure]:
    """Return what a file costs with --fast: the long one less the short one."""
    costs = []
    for _ in range(repeats):
        used = []
        for each in (short(file), file):
            before = os.times()
            listen = command(pipeline, folder, "--bind", "tcp://127.0.0.1:*", "--fast")
            subprocess.run([*listen, "--file", str(each)], check=True)
            after = os.times()
            used.append(sum(after[2:4]) - sum(before[2:4]))
        with wave.open(str(file)) as whole:
            more_s = whole.getnframes() / RATE - SHORT_S
        costs.append(1000 * (used[1] - used[0]) / more_s)
    return {"processor": of(costs, min, "ms")}


def live(pipeline: str, file: Path, folder: Path, way: str, seconds: float) -> dict[str, Figure]:
    """Return what listening costs, with one subscriber: a file at real pace, or a microphone."""
    with contextlib.ExitStack() as opened:
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        source = ["--file", str(file)]
        if way == "microphone":
            started = opened.enter_context(microphone(file, folder))
            if started is None:
                return {}
            environment, source = environment | started, ["--device", "default"]
        context = opened.enter_context(zmq.Context())
        socket = opened.enter_context(context.socket(zmq.SUB))
        socket.subscribe("")
        port = socket.bind_to_random_port("tcp://127.0.0.1")  # to find a free one
        socket.unbind(bind := f"tcp://127.0.0.1:{port}")
        socket.connect(bind)
        listening = subprocess.Popen(
            [*command(pipeline, folder, *source), "--bind", bind], env=environment
        )
        try:
            if not socket.poll(60_000):
                raise SystemExit(f"floor.py: `listen --pipeline {pipeline}` publishes nothing")
            time.sleep(WARM_UP_S if not QUICK else 1.0)
            return watched(psutil.Process(listening.pid), seconds)
        finally:
            listening.terminate()
            listening.wait()


def watched(process: psutil.Process, seconds: float) -> dict[str, Figure]:
    """Return a process's cost, children included, over four stretches, and its memory."""
    processes = [process, *process.children(recursive=True)]
    costs, wakes = [], []
    for _ in range(4):
        began, (used, woken) = time.monotonic(), usage(processes)
        time.sleep(seconds / 4)
        took, (used_now, woken_now) = time.monotonic() - began, usage(processes)
        costs.append(1000 * (used_now - used) / took)
        wakes.append((woken_now - woken) / took)
    own = [each.memory_full_info() for each in processes]
    found = {
        "processor": of(costs, statistics.median, "ms"),
        "wake-ups": of(wakes, statistics.median, "a second"),
    }
    for name, each in zip(("main", "capture"), own, strict=False):
        found[f"memory of the {name} process"] = of([each.uss / 1e6], min, "MB")
    return found


def usage(processes: list[psutil.Process]) -> tuple[float, int]:
    """Return the seconds of the processor, and the voluntary context switches, of all threads."""
    used_ns = switches = 0
    for process in processes:
        for thread in Path(f"/proc/{process.pid}/task").iterdir():
            with contextlib.suppress(OSError):  # it has ended
                used_ns += int((thread / "schedstat").read_text().split()[0])
                status = (thread / "status").read_text()
                switches += int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return used_ns / 1e9, switches


@contextlib.contextmanager
def microphone(file: Path, folder: Path) -> Iterator[dict[str, str] | None]:
    """Play a file into a virtual microphone; give the environment, None where there can be none."""
    started = subprocess.run([MICROPHONE, "start", folder / "mic"], capture_output=True, text=True)
    if started.returncode:
        print(f"floor.py: no microphone: {started.stderr.strip()}", file=sys.stderr)
        yield None
        return
    words = started.stdout.replace("export ", "").split()
    environment = dict(word.split("=", 1) for word in words)
    play = 'parec --latency-msec=200 >/dev/null & while paplay "$0"; do :; done'
    player = subprocess.Popen(
        ["sh", "-c", play, file], env=os.environ | environment, start_new_session=True
    )
    try:
        yield environment
    finally:
        os.killpg(player.pid, 15)
        subprocess.run([MICROPHONE, "stop"], env=os.environ | environment)


if __name__ == "__main__":
    try:
        main()
    except StreamtwlError as error:
        sys.exit(f"floor.py: {error}")
