"""Where the live path's time goes: by part of streamtwl, and as a flame graph.

    .venv/bin/python benchmarks/profile_live.py [--pipeline default] [--way file] [--svg FILE]

Runs `streamtwl listen` on the demo's sounds without a pause, at real pace or with --way fast, and
py-spy beside it, which is fetched into an environment of its own in --work. A sample counts for the
innermost frame of streamtwl in it, so what numpy, ONNX Runtime or ZeroMQ do counts for their
caller. Samples of a thread that waits are left out, but to wait and to wake take time too. The
numbers are shares; `benchmarks/floor.py` says of what.
"""

import argparse
import html
import json
import subprocess
import tempfile
import time
import venv
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

PY_SPY = "py-spy==0.4.1"
PARTS = {  # by the beginning of a file's path: what is in it; the first that fits
    "streamtwl/audio/": "sources, resampling, level",
    "streamtwl/features/": "spectrum, front ends, windows",
    "streamtwl/backbones/": "backbones",
    "streamtwl/reasoners/": "reasoner",
    "streamtwl/ontology": "reasoner",
    "streamtwl/events": "events",
    "streamtwl/sounding": "events",
    "streamtwl/report": "messages",
    "streamtwl/messages": "messages",
    "streamtwl/sinks/journal": "journal",
    "streamtwl/sinks/": "publisher and other sinks",
    "streamtwl/clips/": "clips",
    "streamtwl/": "session",
}
WIDTH, HEIGHT, LEAST = 1200, 16, 0.004  # of the graph and a frame in pixels; of a frame, a share
WARM_UP_S = 15.0
Stack = tuple[tuple[str, ...], int]  # frames from the outermost, and its samples


def main() -> None:
    """Record, print and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pipeline", default="default", help="(default: default)")
    parser.add_argument("--way", choices=("file", "fast"), default="file", help="(default: file)")
    parser.add_argument("--seconds", type=int, default=60, help="to record (default 60)")
    work = Path(tempfile.gettempdir()) / "streamtwl-profile"
    parser.add_argument("--work", type=Path, default=work, help=f"(default {work})")
    parser.add_argument("--svg", type=Path, help="draw the flame graph into this file")
    parser.add_argument("--json", type=Path, help="write the shares here as well")
    options = parser.parse_args()
    stacks = [*read(record(options.pipeline, options.way, options.seconds, options.work))]
    shares = by_part(stacks)
    print("| part | share |\n| --- | --- |")
    for part, share in shares.items():
        print(f"| {part} | {100 * share:.1f} % |")
    if options.svg:
        options.svg.write_text(flame_graph(stacks))
    if options.json:
        options.json.write_text(json.dumps(shares, indent=1) + "\n")


def record(pipeline: str, way: str, seconds: int, work: Path) -> str:
    """Return what py-spy recorded: a line a stack, its frames apart by semicolons, its samples."""
    from floor import SOUNDS, command, sound

    py_spy = work / "bin" / "py-spy"
    if not py_spy.exists():
        venv.create(work, with_pip=True)
        subprocess.run([work / "bin" / "pip", "install", "-q", PY_SPY], check=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files = [str(sound(SOUNDS[1], folder))] * (50 if way == "fast" else 1)
        source = [part for file in files for part in ("--file", file)]
        if way == "fast":
            source += ["--fast"]
        listening = subprocess.Popen(
            [*command(pipeline, folder, *source), "--bind", "tcp://127.0.0.1:*"]
        )
        try:
            time.sleep(WARM_UP_S)
            out, options = folder / "stacks", ["--nonblocking", "--threads", "--rate", "100"]
            times = ["--duration", str(seconds), "--format", "raw", "--output", str(out)]
            target = ["--pid", str(listening.pid)]
            subprocess.run(
                [py_spy, "record", *options, *times, *target], check=True, capture_output=True
            )
            return out.read_text()
        finally:
            listening.terminate()
            listening.wait()


def read(recorded: str) -> Iterator[Stack]:
    """Give the stacks: a thread's name, then `function (file:line)` without the lines."""
    for line in recorded.splitlines():
        frames, _, samples = line.rpartition(" ")
        thread, *rest = frames.split(";")
        name = thread.partition(": ")[2] or thread
        yield (name, *(frame.rpartition(":")[0] + ")" for frame in rest)), int(samples)


def by_part(stacks: list[Stack]) -> dict[str, float]:
    """Return the share of the samples of each part, the largest first."""
    found: Counter[str] = Counter()
    for frames, samples in stacks:
        ours = [frame for frame in frames if "(streamtwl/" in frame]
        file = ours[-1].rpartition("(")[2] if ours else ""
        found[next((part for path, part in PARTS.items() if file.startswith(path)), "other")] += (
            samples
        )
    return {part: samples / found.total() for part, samples in found.most_common()}


def flame_graph(stacks: list[Stack]) -> str:
    """Return an SVG: a frame is as wide as the share of the samples in it, above its caller."""
    total = sum(samples for _, samples in stacks)
    widths: dict[tuple[str, ...], int] = defaultdict(int)
    for frames, samples in stacks:
        for depth in range(len(frames)):
            widths[frames[: depth + 1]] += samples
    kept = {path: width for path, width in widths.items() if width >= LEAST * total}
    deepest = max(map(len, kept), default=1)
    starts: dict[tuple[str, ...], float] = {}
    ends: dict[tuple[str, ...], float] = {(): 0.0}
    drawn = []
    for path in sorted(kept):
        parent = path[:-1]
        starts[path] = max(ends.get(parent, 0.0), starts.get(parent, 0.0))
        ends[parent] = starts[path] + kept[path]
        x, wide = (WIDTH * each / total for each in (starts[path], kept[path]))
        y = HEIGHT * (deepest - len(path))
        name, share = html.escape(path[-1]), f"{100 * kept[path] / total:.1f} %"
        ours = "(streamtwl/" in path[-1]
        text = html.escape(path[-1].partition(" (")[0][: int(wide / 6.5)])
        drawn.append(
            f'<g><title>{name}, {share}</title><rect x="{x:.1f}" y="{y}" width="{wide:.1f}" '
            f'height="{HEIGHT - 1}" class="{"a" if ours else "b"}"/>'
            f'<text x="{x + 2:.1f}" y="{y + 11}">{text}</text></g>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT * deepest}" '
        'font-family="monospace" font-size="10">'
        "<style>.a{fill:#f4a259}.b{fill:#c9d6df}</style>" + "".join(drawn) + "</svg>\n"
    )


if __name__ == "__main__":
    main()
