"""Figures with their spread: a table, a file, and what two files differ in.

The file is JSON, `{"figures": {name: {"value": 1.2, "low": 1.1, "high": 1.4, "unit": "ms"}}}`:
`low` and `high` are between which the repeats lie, and more is worse unless `"more": "better"`.
"""

import json
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import streamtwl


@dataclass
class Figure:
    """A measured value, and between which values its repeats lie."""

    value: float
    low: float
    high: float
    unit: str = ""
    more: str = "worse"  # or "better"

    def over(self, other: "Figure") -> "Figure":
        """Return how many times the other this is."""
        low, high = self.low / other.value, self.high / other.value
        return Figure(self.value / other.value, low, high, "x", self.more)


def of(
    values: Sequence[float],
    middle: Callable[[Sequence[float]], float] = statistics.median,
    unit: str = "",
    more: str = "worse",
) -> Figure:
    """Return the figure of some repeats; their quartiles are its spread where there are many."""
    low, high = min(values), max(values)
    if len(values) >= 8:
        low, _, high = statistics.quantiles(values, n=4)
    value = middle(values)
    return Figure(value, min(low, value), max(high, value), unit, more)


def show(figures: dict[str, Figure]) -> None:
    """Print a Markdown table."""
    print("| what | value | between |\n| --- | --- | --- |")
    for name, each in figures.items():
        spread = f"{each.low:.3g} and {each.high:.3g}" if each.low < each.high else ""
        print(f"| {name} | {each.value:.3g} {each.unit} | {spread} |")


def write(figures: dict[str, Figure], file: Path, all_of_it: Any = None) -> None:
    """Write figures, what they were measured on, and all else that was found."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "")
    measured_on = {
        "streamtwl": streamtwl.__version__,
        "python": platform.python_version(),
        "processor": processor,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
    }
    found = {name: asdict(each) for name, each in figures.items()}
    written = {"measured_on": measured_on, "figures": found}
    written |= {} if all_of_it is None else {"found": all_of_it}
    file.write_text(json.dumps(written, indent=1) + "\n")


def read(file: Path) -> dict[str, Figure]:
    """Return the figures in a file."""
    found = json.loads(file.read_text())
    return {name: Figure(**each) for name, each in found.get("figures", {}).items()}
