"""What a step of a reasoner costs, re-bases in: time, memory, and whether either grows.

    .venv/bin/python benchmarks/reasoner_step.py REASONER.onnx [--samples 1 16] [--traces 1 4]
    .venv/bin/python benchmarks/reasoner_step.py --body tiny --body DIR --body FILE.gguf
    .venv/bin/python benchmarks/reasoner_step.py --body tiny --hours 24

A step is one patch of one stream: M traces of K samples, read as `listen` reads them on one thread,
all M before the decision. Rows begin anew every half context (15 patches at K = 16), so the 200
patches of a run hold a dozen re-bases. `--body` takes what `bench train --body` takes, builds a
model over it whose embedding and read-out are random, and exports it: the time is that of a
trained one. The patches are noise, which costs what sound does. Steps follow each other without a
pause; CPU time is that of the process, so that a step kept waiting by other programs shows as wall
time above it, and the load average stands beside. `--hours` plays so many hours of hops of 0.48 s
and gives, by the hour, a step's mean and the memory at its end.
"""

import streamtwl  # noqa: F401  # isort: skip  # before numpy, which it holds to one thread

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console
from rich.progress import track
from rich.table import Table

from streamtwl.config import TraceSettings
from streamtwl.errors import StreamtwlError, UsageError
from streamtwl.ontology import categories
from streamtwl.reasoners import graph
from streamtwl.reasoners.gpt2 import Gpt2
from streamtwl.stages import SAMPLE_RATE

HOP_S = 0.48
LABELS, LAGS = 10, 4  # of a model that is built here
WARM_UP = 5  # steps
BUDGET_MS = 240.0  # half a hop
RESULTS = Path(__file__).parent / "results" / "reasoner_step.json"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, nargs="*", help="reasoners' files")
    parser.add_argument("--body", action="append", default=[], help="a trunk to build; repeat it")
    parser.add_argument("--samples", type=int, nargs="+", default=[16], help="K (default 16)")
    parser.add_argument("--traces", type=int, nargs="+", default=[1], help="M (default 1)")
    parser.add_argument("--patches", type=int, default=200, help="a run (default 200)")
    parser.add_argument("--runs", type=int, default=3, help="of each setting (default 3)")
    parser.add_argument("--hours", type=int, help="of hops to play, instead of those runs")
    parser.add_argument("--json", type=Path, default=RESULTS, help=f"(default {RESULTS.name})")
    options = parser.parse_args()
    if not options.file and not options.body:
        parser.error("nothing to measure: name a reasoner's file, or a --body")

    console = Console()
    figures = json.loads(options.json.read_text()) if options.json.exists() else {}
    with tempfile.TemporaryDirectory() as scratch:
        built = [Path(scratch) / f"{i}.onnx" for i in range(len(options.body))]
        for trunk, file in zip(options.body, built, strict=True):
            building = multiprocessing.get_context("spawn").Process(
                target=build, args=(trunk, file)
            )
            building.start()  # apart, so that torch is not in the memory that is measured
            building.join()
            if building.exitcode:
                raise SystemExit(building.exitcode)
        named = [(file.stem, file) for file in options.file]
        named += [(Path(trunk).stem, file) for trunk, file in zip(options.body, built, strict=True)]
        for name, file in named:
            for samples in options.samples:
                for traces in options.traces:
                    if options.hours:
                        found = day(file, samples, traces, options.hours)
                        table = hourly(found, f"{name}, K = {samples}, M = {traces}")
                    else:
                        patches = options.patches
                        runs = [run(file, samples, traces, patches) for _ in range(options.runs)]
                        found = {"runs": runs}
                        table = stepwise(runs, f"{name}, K = {samples}, M = {traces}")
                    kind = "hours" if options.hours else "steps"
                    figures[f"{name} {kind} K={samples} M={traces}"] = found | machine()
                    console.print(table)
    options.json.write_text(json.dumps(figures, indent=1) + "\n")
    console.print(f"written to {options.json}")


def build(trunk: str, file: Path) -> None:
    """Write the file of an untrained model."""
    import torch

    from streamtwl.reasoners.card import Card, TraceCard
    from streamtwl.training import trace_model, trunks

    try:
        made = trace_model.TraceModel(trunks.load(trunk, 0), len(categories()), LABELS, LAGS)
    except UsageError as error:
        raise SystemExit(str(error)) from None
    torch.nn.init.normal_(made.read.weight, std=0.02)
    card = Card(
        name="untaught",
        about="random embedding and read-out",
        kind="gpt2",
        backbone="yamnet",
        hop_s=HOP_S,
        labels=[f"label {i}" for i in range(LABELS)],
        on=0.5,
        off=0.3,
        data="none",
        folds=[],
        command="benchmarks/reasoner_step.py",
        version="0",
        trace=TraceCard(
            body=Path(trunk).name,
            trained="embedding",
            soft=False,
            samples=(1, 16),
            temperature=1.0,
            context=made.context,
            residual="",
        ),
    )
    trace_model.export(made.eval(), HOP_S, card, file)


def steps(reasoner: Gpt2, samples: int, traces: int, patches: int) -> Iterator[tuple[float, float]]:
    """Give each step's wall and CPU time in ms."""
    rng = np.random.default_rng(0)
    for patch in range(patches):
        posteriors = rng.random((1, reasoner.width), np.float32) ** 8
        drawn = rng.integers(0, (reasoner.categories, 16), (1, traces, samples, 2), np.int16)
        position = [15_600 + round(patch * HOP_S * SAMPLE_RATE)]
        began, used = time.perf_counter(), time.process_time()
        reasoner.read([0], position, drawn, posteriors)
        yield 1000 * (time.perf_counter() - began), 1000 * (time.process_time() - used)


def open_reasoner(file: Path, samples: int, traces: int) -> Gpt2:
    """Return the reasoner; all traces think before it decides."""
    return Gpt2(
        graph.load(file), TraceSettings(samples=samples, traces=traces, think="fixed"), HOP_S
    )


def run(file: Path, samples: int, traces: int, patches: int) -> dict:
    """Return what the steps of one run cost."""
    reasoner = open_reasoner(file, samples, traces)
    costs = steps(reasoner, samples, traces, patches)
    early = list(itertools.islice(costs, 2 * reasoner.capacity))
    before = memory_mb()
    wall, cpu = np.array([*early, *costs])[WARM_UP:].T
    return {
        "wall_ms": summary(wall),
        "cpu_ms": summary(cpu),
        "over_budget": int((wall > BUDGET_MS).sum()),
        "steps": len(wall),
        "rebased_every_patches": reasoner.capacity - reasoner.capacity // 2,
        "memory_mb": memory_mb(),
        "memory_grown_mb": round(memory_mb() - before, 1),  # since all rows were there
        "load_average": round(os.getloadavg()[0], 2),
    }


def day(file: Path, samples: int, traces: int, hours: int) -> dict:
    """Return what steps cost and the memory after, hour by hour, and over all."""
    reasoner = open_reasoner(file, samples, traces)
    an_hour = round(3600 / HOP_S)
    costs = steps(reasoner, samples, traces, hours * an_hour)
    kept = np.full((hours, an_hour, 2), np.nan)  # all its memory is there before the first hour
    by_hour = []
    for hour in track(range(hours), "hours"):
        for step in range(an_hour):
            kept[hour, step] = next(costs)
        wall, cpu = kept[hour].T
        by_hour.append(
            {
                "hour": hour + 1,
                "mean_wall_ms": round(float(wall.mean()), 3),
                "mean_cpu_ms": round(float(cpu.mean()), 3),
                "memory_mb": memory_mb(),
                "load_average": round(os.getloadavg()[0], 2),
            }
        )
    wall, cpu = kept.reshape(-1, 2).T
    return {
        "wall_ms": summary(wall),
        "cpu_ms": summary(cpu),
        "steps": len(wall),
        "by_hour": by_hour,
        "memory_mb_per_hour": slope([hour["memory_mb"] for hour in by_hour]),
        "mean_cpu_ms_per_hour": slope([hour["mean_cpu_ms"] for hour in by_hour]),
    }


def slope(values: list[float]) -> float:
    """Return the slope of a line through values an hour apart."""
    if len(values) < 2:
        return 0.0
    return round(float(np.polyfit(range(len(values)), values, 1)[0]), 5)


def summary(values: np.ndarray) -> dict[str, float]:
    """Return mean, p50, p99 and the maximum."""
    found = {"mean": values.mean(), "max": values.max()}
    found |= {f"p{p}": np.percentile(values, p) for p in (50, 99)}
    return {name: round(float(found[name]), 3) for name in ("mean", "p50", "p99", "max")}


def memory_mb() -> float:
    """Return this process's resident memory, of 10^6 bytes."""
    return round(psutil.Process().memory_info().rss / 1e6, 1)


def machine() -> dict:
    """Return what it was measured on."""
    import onnxruntime  # after streamtwl, which turns its telemetry off

    return {
        "cores": os.cpu_count(),
        "processor": processor(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "threads": 1,
    }


def processor() -> str:
    """Return what Linux calls the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "")


def stepwise(runs: list[dict], title: str) -> Table:
    """Return a table, a line a run."""
    table = Table("ms", "mean", "p50", "p99", "max", "MB (grown)", "load", title=title)
    for each in runs:
        memory = f"{each['memory_mb']:.0f} ({each['memory_grown_mb']:+.1f})"
        load = str(each["load_average"])
        table.add_row("wall", *map(str, each["wall_ms"].values()), memory, load)
        table.add_row("CPU", *map(str, each["cpu_ms"].values()), "", "")
    return table


def hourly(found: dict, title: str) -> Table:
    """Return a table, a line an hour."""
    table = Table("hour", "mean ms", "mean CPU ms", "memory MB", "load", title=title)
    for each in found["by_hour"]:
        table.add_row(*map(str, each.values()))
    for name in ("wall_ms", "cpu_ms"):
        table.add_row(name, *(f"{what} {value}" for what, value in found[name].items()))
    table.add_row(
        "a slope", "", *(f"{found[f'{n}_per_hour']}" for n in ("mean_cpu_ms", "memory_mb"))
    )
    return table


if __name__ == "__main__":
    try:
        main()
    except StreamtwlError as error:
        sys.exit(f"reasoner_step.py: {error}")
