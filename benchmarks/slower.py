"""Which figures of a benchmark got worse, beyond the noise, from one file to another.

    .venv/bin/python benchmarks/slower.py OLD.json NEW.json [--margin 0.03]

Reads what `make bench ARGS="--json FILE"` and its scripts write (`figures.py`). A figure got worse
where its new spread begins beyond the end of its old one, and its value moved by the margin too.
Prints a line for each, and ends with 1 if there are any, with 2 if a file cannot be read.
"""

import argparse
import sys
from pathlib import Path

from figures import Figure, read


def main() -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--margin", type=float, default=0.03, help="a share (default 0.03)")
    options = parser.parse_args()
    try:
        old, new = read(options.old), read(options.new)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        print(f"slower.py: these are not two files of figures: {error}", file=sys.stderr)
        return 2
    for name in sorted(old.keys() - new.keys()):
        print(f"{name}: only in {options.old}")
    worse = [
        name for name in old if name in new and got_worse(old[name], new[name], options.margin)
    ]
    for name in worse:
        before, after = old[name], new[name]
        times = after.value / before.value if before.value else float("inf")
        print(
            f"{name}: {before.value:.3g} ({before.low:.3g} to {before.high:.3g}), now "
            f"{after.value:.3g} ({after.low:.3g} to {after.high:.3g}) {after.unit}, {times:.2f} x"
        )
    print(f"{len(worse)} of {len(old.keys() & new.keys())} figures got worse")
    return 1 if worse else 0


def got_worse(old: Figure, new: Figure, margin: float) -> bool:
    """Whether a figure got worse by more than its spread and by more than a share of it."""
    if new.more == "better":
        return new.high < old.low and new.value < old.value * (1 - margin)
    return new.low > old.high and new.value > old.value * (1 + margin)


if __name__ == "__main__":
    sys.exit(main())
