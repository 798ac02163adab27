"""How soon, and at what cost: one source through a real microphone to a real subscriber.

    eval "$(tools/virtual_mic.sh start)"
    .venv/bin/python benchmarks/latency.py sound.wav [--seconds 120] [--json latency.json]
        [options of `streamtwl listen`, as --reasoner esc10-paper --traces 16]

Plays a sound in a loop into the virtual microphone, runs `streamtwl listen --quiet` and a
subscriber in processes of their own, and prints a table. Latency is DESIGN.md's: from the moment
the resampler gave the window's last sample to the label, here to its arrival in the subscriber.
Cost is that of the process and its capture process over the steady part (the first 10 s left out).
Time to the first label is from the start of the process, its model in the cache. An idle null sink
takes up to 2 s to wake, which no sound card does; so a recorder keeps it awake meanwhile.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import zmq
from rich.console import Console
from rich.table import Table

from streamtwl.messages import Label, Status, decode

WARM_UP_S = 10.0
AWAKE = "parec --latency-msec=20 >/dev/null"
BIND = "tcp://127.0.0.1:15999"
LISTEN = [sys.executable, "-c", "from streamtwl.cli import main; main()", "listen", "--bind", BIND]
JOURNAL = Path(tempfile.gettempdir()) / "streamtwl-latency.sqlite"  # as users have one
LISTEN += ["--replay-bind", "tcp://127.0.0.1:*", "--journal", str(JOURNAL)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sound", type=Path, help="a sound file to play into the microphone")
    parser.add_argument("--seconds", type=float, default=120.0, help="to measure for (default 120)")
    parser.add_argument("--starts", type=int, default=5, help="process starts to time (default 5)")
    parser.add_argument("--device", default="default", help="the input (default: 'default')")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments, options = parser.parse_known_args()
    if not arguments.sound.is_file():
        parser.error(f"there is no file {arguments.sound}")

    player = subprocess.Popen(
        [
            "sh",
            "-c",
            'parec --latency-msec=20 >/dev/null & while paplay "$0"; do :; done',
            arguments.sound,
        ],
        start_new_session=True,
    )
    try:
        time.sleep(2)
        command = [*LISTEN, "--device", arguments.device, *options]
        starts = [first_label_s([*command, "--quiet"]) for _ in range(arguments.starts)]
        figures = {"first_label_s": starts, **steady([*command, "--quiet"], arguments.seconds)}
        figures["live_view_cpu_percent"] = live_view_cpu(command, arguments.seconds / 4)
    finally:
        os.killpg(player.pid, 15)
    show(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def first_label_s(command: list[str]) -> float:
    """Return the seconds from the start of the process to its first label in a subscriber."""
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.setsockopt(zmq.RECONNECT_IVL, 5)
        socket.subscribe("label/")
        socket.connect(BIND)
        began = time.monotonic()
        listening = subprocess.Popen(command)
        try:
            if not socket.poll(20_000):
                raise SystemExit("no label within 20 s: is the microphone there?")
            return time.monotonic() - began
        finally:
            listening.terminate()
            listening.wait()


def steady(command: list[str], seconds: float) -> dict:
    """Return latencies, delays, memory and CPU of a run of so many seconds after the warm-up."""
    latencies, inside, capture, resampling, memory = [], [], [], [], []
    refined: list[float] = []  # latencies of second and later decisions on a hop
    thought: dict[int, tuple[int, int]] = {}  # by position: the traces and samples of the last
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.subscribe("label/")
        socket.subscribe("status/")
        socket.connect(BIND)
        listening = subprocess.Popen(command)
        time.sleep(WARM_UP_S)
        began, used = time.monotonic(), cpu_s(listening.pid)
        began_at = time.time()
        while time.monotonic() < began + seconds:
            if not socket.poll(1000):
                continue
            payload = socket.recv_multipart()[1]
            arrived = time.time()
            message = decode(payload)
            if message.published_at < began_at:
                continue  # from the warm-up
            if isinstance(message, Label):
                thought[message.position] = message.traces, message.samples
            if isinstance(message, Label) and message.refinement:
                refined.append(message.latency_ms)
            elif isinstance(message, Label):
                inside.append(message.latency_ms)
                latencies.append(message.latency_ms + 1000 * (arrived - message.published_at))
            elif isinstance(message, Status):
                capture.append(message.capture_delay_ms)
                resampling.append(message.resampling_delay_ms)
                memory.append(message.memory_mb)
                late_hops = message.late_hops
        used, began = cpu_s(listening.pid) - used, time.monotonic() - began
        listening.terminate()
        listening.wait()
    return {
        "hops": len(latencies),
        "latency_to_subscriber_ms": percentiles(latencies),
        "latency_to_publisher_ms": percentiles(inside),
        "capture_delay_ms": percentiles(capture),
        "resampling_delay_ms": percentiles(resampling),
        **({"refined_after_ms": percentiles(refined)} if refined else {}),
        "refinements_a_hop": len(refined) / len(latencies),
        "traces_of_the_last_decision": percentiles([traces for traces, _ in thought.values()]),
        "samples_of_the_last_decision": percentiles([samples for _, samples in thought.values()]),
        "memory_mb": max(memory),
        "cpu_percent_of_a_core": 100 * used / began,
        "late_hops": late_hops,
    }


def live_view_cpu(command: list[str], seconds: float) -> float:
    """Return the CPU, in per cent of a core, with the live view in a terminal (a pseudo one)."""
    leader, follower = os.openpty()
    listening = subprocess.Popen(command, stdout=follower, env=os.environ | {"TERM": "xterm"})
    os.close(follower)
    os.set_blocking(leader, False)
    until, used, began = time.monotonic() + WARM_UP_S + seconds, 0.0, 0.0
    while (now := time.monotonic()) < until:
        if not began and now >= until - seconds:
            began, used = now, cpu_s(listening.pid)
        try:
            os.read(leader, 1 << 16)
        except BlockingIOError:
            time.sleep(0.05)
    used, took = cpu_s(listening.pid) - used, time.monotonic() - began
    listening.terminate()
    listening.wait()
    return 100 * used / took


def cpu_s(pid: int) -> float:
    """Return the CPU seconds used so far by a process and its children."""
    process = psutil.Process(pid)
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return p50, p99 and the maximum."""
    return {
        "p50": float(np.percentile(values, 50)),
        "p99": float(np.percentile(values, 99)),
        "max": max(values),
    }


def show(figures: dict) -> None:
    """Print the table."""
    table = Table("what", "p50", "p99", "max", title=f"one source, {figures['hops']} hops")
    for name, value in figures.items():
        if isinstance(value, dict):
            table.add_row(name, *(f"{each:.1f}" for each in value.values()))
        elif isinstance(value, list):
            table.add_row(name, f"{statistics.median(value):.2f}", "", f"{max(value):.2f}")
        elif name != "hops":
            table.add_row(name, f"{value:.1f}", "", "")
    Console().print(table)


if __name__ == "__main__":
    main()
