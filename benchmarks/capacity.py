"""How many live sources one process carries: real sound at the pace of real time, hop after hop.

    .venv/bin/python benchmarks/capacity.py [--pipelines yamnet light default] [--cores 1 2]
        [--hop SECONDS] [--seconds 30] [--confirm 60] [--json FILE] [--quick]
    .venv/bin/python benchmarks/capacity.py --pipelines light --sources 60 --hours 24

A source gives recordings one after another at --rate, from a moment of its own within a hop as
microphones do (--in-phase: all at once), through resampler, windows, networks, reasoner and events
to messages, in one process on so many cores; nothing is sent. A number of sources is carried if
each hop's label is there within a hop of the moment at which the sound was: no hop late, none
dropped. The largest number is found by bisection and confirmed by a longer run (one source in
twenty less, again and again, until one succeeds). Memory a source is the slope from one source to
the largest number; a long run's is given by quarters. About four minutes a pipeline and core.
"""

import streamtwl  # noqa: F401  # isort: skip  # before numpy, which it holds to one thread

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile
import soxr
from figures import Figure, of, write
from quick import QUICK, add_option

from streamtwl import available
from streamtwl.audio.intake import Intake
from streamtwl.config import override
from streamtwl.pipeline import Outcome
from streamtwl.session import Session
from streamtwl.stages import SAMPLE_RATE, Chunk, Source

REPOSITORY = Path(__file__).resolve().parents[1]
SETS = ("esc10", "kitchen20")
RECORDINGS = 60  # of five seconds, which all sources share
WARM_UP_S = 4.0
MOST = 512
FEWER = 0.95  # of the sources, where a longer run does not confirm them


class Looped(Source):
    """Samples again and again, at the pace of real time."""

    def __init__(
        self, name: str, samples: np.ndarray, rate: int, begin: int, starts_in_s: float
    ) -> None:
        """Begin with the sample at `begin`; the samples are shared."""
        super().__init__(name, paced=True, clocked=True)
        self._samples, self._rate, self._begin = samples[:, None], rate, begin
        self._starts_in_s = starts_in_s
        self._given = 0
        self._stopping = False
        self.started_at = 0.0

    def start(self) -> None:
        """Start the clock."""
        self.started_at = time.monotonic() + self._starts_in_s
        self.state = "listening"

    def due_in(self, now: float) -> float:
        """Return the seconds until a hundredth of a second is there."""
        return max(0.0, self.started_at + self._given / self._rate + 0.01 - now)

    def read(self, now: float) -> Chunk | None:
        """Return the frames that are due."""
        if self._stopping:
            self.state = "ended"
            return None
        due = max(0, int((now - self.started_at) * self._rate) - self._given)
        if not due:
            return None
        at = (self._begin + self._given + np.arange(due)) % len(self._samples)
        start, self._given = self._given, self._given + due
        last_at = self.started_at + self._given / self._rate
        return Chunk(self._samples[at], self._rate, start, last_frame_at=last_at)

    def stop(self) -> None:
        """End."""
        self._stopping = True


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    pipelines = ["yamnet"] if QUICK else ["yamnet", "light", "default"]
    add("--pipelines", nargs="+", default=pipelines, help=f"({' '.join(pipelines)})")
    add("--cores", nargs="+", type=int, default=[1] if QUICK else [1, 2], help="(1 2)")
    add("--hop", type=float, default=0.48, help="seconds, in all pipelines (%(default)s)")
    add("--seconds", type=float, default=1.0 if QUICK else 12.0, help="of a try (%(default)s)")
    add("--confirm", type=float, default=1.0 if QUICK else 60.0, help="seconds (%(default)s)")
    add("--sources", type=int, help="try this number only")
    add("--hours", type=float, help="of that number, instead of --confirm")
    add("--rate", type=int, default=48_000, help="of the sources, Hz (%(default)s)")
    add("--in-phase", action="store_true", help="all sources complete their windows at once")
    add("--data", type=Path, default=REPOSITORY.parent / "shared" / "data", help="(%(default)s)")
    add("--json", type=Path, help="write the figures here as well")
    add("--run", help=argparse.SUPPRESS)
    add_option(parser)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(run(options, **json.loads(options.run))))
        return
    found = [largest(options, name, cores) for name in options.pipelines for cores in options.cores]
    print(table(found))
    if options.json:
        write(figures(found), options.json, found)


def figures(found: Sequence[dict[str, Any]]) -> dict[str, Figure]:
    """Return what `slower.py` compares."""
    named: dict[str, Figure] = {}
    for each in found:
        what = f"{each['pipeline']}, {each['cores']} cores"
        named[f"{what}: sources"] = of([each["sources"]], more="better")
        named[f"{what}: ms a hop"] = of([each["ms_a_hop"]], unit="ms")
        named[f"{what}: memory a source"] = of([each["mb_a_source"]], unit="MB")
    return named


def largest(options: argparse.Namespace, pipeline: str, cores: int) -> dict[str, Any]:
    """Return the figures of the largest number of sources that so many cores carry."""
    tries: list[dict[str, Any]] = []

    def attempt(sources: int, seconds: float) -> dict[str, Any]:
        tries.append(child(pipeline, cores, sources, seconds))
        figures = tries[-1]
        print(
            f"{pipeline}, {cores} cores, {sources} sources, {seconds:g} s: {figures['late']} late, "
            f"p99 {figures['p99_s']:.3f} s, {figures['busy']:.0%} busy",
            file=sys.stderr,
        )
        return figures

    one = attempt(1, options.seconds)
    confirm_s = options.confirm if options.hours is None else 3600 * options.hours
    if options.sources:
        best = attempt(options.sources, confirm_s)
    else:
        low, high = 1, min(MOST, 2 if QUICK else max(2, round(0.5 / max(one["busy"], 1 / MOST))))
        while not QUICK and high < MOST and attempt(high, options.seconds)["carried"]:
            low, high = high, min(MOST, 2 * high)
        sources = bisect(lambda n: attempt(n, options.seconds)["carried"], low, high)
        best = attempt(sources, confirm_s)
        while not best["carried"] and sources > 1:
            sources = min(sources - 1, round(FEWER * sources))
            best = attempt(sources, confirm_s)
    slope = (best["memory_mb"][-1] - one["memory_mb"][-1]) / max(1, best["sources"] - 1)
    return best | {"one": one, "mb_a_source": slope, "tries": tries}


def bisect(carried: Any, low: int, high: int) -> int:
    """Return the largest number that is carried, within a twentieth; `low` is taken for granted."""
    while high - low > max(1, low // 20):
        middle = (low + high + 1) // 2
        low, high = (middle, high) if carried(middle) else (low, middle)
    return low


def child(pipeline: str, cores: int, sources: int, seconds: float) -> dict[str, Any]:
    """Run in a process of its own, with this script's options."""
    what = json.dumps(
        {"pipeline": pipeline, "cores": cores, "sources": sources, "seconds": seconds}
    )
    command = [sys.executable, __file__, *sys.argv[1:], "--run", what]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def run(
    options: argparse.Namespace, pipeline: str, cores: int, sources: int, seconds: float
) -> dict[str, Any]:
    """Listen to so many sources for so long on the last cores; return what came of it."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])
    settings = available.settings(pipeline, {"hop_s": options.hop}, lambda _line: None)
    changes = {"sounds.enabled": False, "backbone.threads": cores}
    settings = override(settings, changes)
    samples = recordings(options.data, options.rate)
    step = 0.0 if options.in_phase else options.hop / sources
    looped = [
        Looped(f"s{i}", samples, options.rate, i * len(samples) // sources, 1 + i * step)
        for i in range(sources)
    ]
    delays: list[float] = []
    memory: list[float] = []
    with contextlib.closing(Intake(looped)) as intake:
        intake.start()
        session = Session(intake, looped, settings, [])
        clock = [source.started_at for source in looped]

        def take(outcome: Outcome) -> None:
            if outcome.patch is not None and outcome.final:
                at = clock[outcome.stream] + outcome.position / SAMPLE_RATE
                delays.append(time.monotonic() - at)

        session.outcomes.subscribe(take)
        session.start()
        time.sleep(WARM_UP_S)
        delays.clear()
        began, used = time.monotonic(), processor_s()
        for _ in range(4):
            time.sleep(seconds / 4)
            memory.append(psutil.Process().memory_full_info().uss / 1e6)
        took, used = time.monotonic() - began, processor_s() - used
        got = np.array(delays)
        session.stop()
        session.close()
    due = sources * took / options.hop
    late = int((got > options.hop).sum())
    missing = due - len(got) > sources + 0.01 * due  # they are still to come: it falls behind
    return {
        "pipeline": pipeline,
        "cores": cores,
        "sources": sources,
        "seconds": seconds,
        "hop_s": options.hop,
        "hops": len(got),
        "late": late,
        "carried": bool(len(got)) and late == 0 and not missing,
        "p50_s": float(np.quantile(got, 0.5)) if len(got) else float("inf"),
        "p99_s": float(np.quantile(got, 0.99)) if len(got) else float("inf"),
        "busy": used / took,
        "ms_a_hop": 1000 * used / max(1, len(got)),
        "memory_mb": memory,
    }


def processor_s() -> float:
    """Return the processor time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def recordings(data: Path, rate: int) -> np.ndarray:
    """Return recordings of the sets that are there, in a row, float32[n]."""
    files = [file for name in SETS for file in sorted((data / name / "audio").glob("*"))]
    if not files:
        sys.exit(f"no recordings in {data}: name the folder of esc10 and kitchen20 with --data")
    chosen = np.random.default_rng(1).permutation(len(files))[: 2 if QUICK else RECORDINGS]
    sounds = []
    for i in chosen:
        sound, own = soundfile.read(files[i], dtype="float32", always_2d=True)
        sounds.append(soxr.resample(sound.mean(axis=1), own, rate))
    return np.concatenate(sounds)


def table(found: list[dict[str, Any]]) -> str:
    """Return a Markdown table."""
    rows = [
        "| pipeline | cores | sources carried | p50, p99 from the sound, s | busy, of the cores "
        "| ms a hop and source: one, all | MB: one, each more | by quarters of the run, MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for each in found:
        one, memory = each["one"], ", ".join(f"{mb:.0f}" for mb in each["memory_mb"])
        carried = each["sources"] if each["carried"] else f"fewer than {each['sources']}"
        rows.append(
            f"| {each['pipeline']} | {each['cores']} | {carried} | {each['p50_s']:.3f}, "
            f"{each['p99_s']:.3f} | {each['busy'] / each['cores']:.0%} | {one['ms_a_hop']:.2f}, "
            f"{each['ms_a_hop']:.2f} | {one['memory_mb'][-1]:.0f}, {each['mb_a_source']:.2f} "
            f"| {memory} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    main()
