"""What a hop costs before the reasoner: the spectrum, each front end, each backbone's windows.

    .venv/bin/python benchmarks/front_ends.py [--pipeline default] [--rounds 300]

The parts take turns, a hop of 0.48 s each, on one thread, so that a busy moment of the machine
meets all of them alike; a line is the median of all rounds and the spread between the 10th and the
90th percentile, in milliseconds. The sound is noise, which costs what sound does. The front ends
are meant to take 0.35 ms together, the spectrum included.
"""

import streamtwl  # isort: skip  # before numpy, which it holds to one thread

import argparse
import sys
import time
from collections.abc import Callable

import numpy as np
from quick import QUICK, add_option
from rich.console import Console
from rich.table import Table

from streamtwl import available
from streamtwl.errors import StreamtwlError
from streamtwl.features.spectrum import Spectrum
from streamtwl.features.window import frames_in
from streamtwl.pipeline import hearing
from streamtwl.stages import SAMPLE_RATE

WARM_UP = 5  # rounds
TARGET_MS = 0.35


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pipeline", default="default", help="its windows (default: default)")
    parser.add_argument("--rounds", type=int, default=300, help="of all parts (default 300)")
    add_option(parser)
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: it takes 1 or more")
    rounds = 3 if QUICK else options.rounds
    steps = parts(options.pipeline)
    took = {name: [] for name in steps}
    for _ in range(WARM_UP + rounds):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            took[name].append(1000 * (time.perf_counter() - began))
    Console().print(f"streamtwl {streamtwl.__version__}")
    Console().print(table({name: np.array(each[WARM_UP:]) for name, each in took.items()}))


def parts(pipeline: str) -> dict[str, Callable[[], object]]:
    """Return what each part does with a hop, by name."""
    settings = available.settings(pipeline, {}, lambda line: print(line, file=sys.stderr))
    backbones, kinds = hearing(settings)
    rng = np.random.default_rng(0)
    hop = (0.1 * rng.standard_normal(round(settings.hop_s * SAMPLE_RATE))).astype(np.float32)
    spectrum = Spectrum()
    spectrum.push(hop)
    power = spectrum.push(hop)
    steps: dict[str, Callable[[], object]] = {"spectrum": lambda: spectrum.push(hop)}
    for backbone in backbones:
        front_end = backbone.front_end()
        steps[f"front end of {backbone.name}"] = lambda f=front_end: f.push(hop, power)
    for kind in kinds:
        backbone = backbones[kind.backbone]
        frames = frames_in(backbone, kind.length_s)
        bands = backbone.front_end().push(hop, power).shape[1]
        log_mel = rng.standard_normal((1, frames, bands), np.float32)
        steps[f"window {kind.name}"] = lambda b=backbone, x=log_mel: b.score(x)
    return steps


def table(took: dict[str, np.ndarray]) -> Table:
    """Return a line a part, and one for all front ends."""
    front_ends = sum(each for name, each in took.items() if not name.startswith("window"))
    found = Table("ms a hop", "median", "p10 to p90")
    for name, each in (took | {f"spectrum + front ends ({TARGET_MS})": front_ends}).items():
        low, middle, high = np.percentile(each, (10, 50, 90))
        found.add_row(name, f"{middle:.3f}", f"{low:.3f} to {high:.3f}")
    return found


if __name__ == "__main__":
    try:
        main()
    except StreamtwlError as error:
        sys.exit(f"front_ends.py: {error}")
