"""`make bench`: the speed of all parts, in one table and one file.

    make bench [ARGS="--json bench.json --only floor --quick"]

Runs those of the scripts below that are here, one after another, on cores that are best left idle
meanwhile. `benchmarks/slower.py OLD.json NEW.json` compares two files.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from figures import Figure, read, show, write

SCRIPTS = ("floor", "capacity", "peers", "journal_size")
HERE = Path(__file__).parent


def main() -> int:
    """Run the scripts; print and write their figures."""
    there = [name for name in SCRIPTS if (HERE / f"{name}.py").exists()]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=there, default=there, help="some of them")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--quick", action="store_true", help="try every step on very little data")
    options = parser.parse_args()
    figures: dict[str, Figure] = {}
    failed = []
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            found = Path(folder) / f"{name}.json"
            command = [sys.executable, HERE / f"{name}.py", "--json", found]
            ended = subprocess.run(command + ["--quick"] * options.quick, stdout=sys.stderr)
            if ended.returncode:
                failed.append(name)
                continue
            figures |= {f"{name}: {what}": each for what, each in read(found).items()}
    show(figures)
    if options.json:
        write(figures, options.json)
    for name in failed:
        print(f"bench.py: {name}.py failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
