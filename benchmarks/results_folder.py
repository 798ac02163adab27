"""What the benchmarks that judge names share: their options, and benchmarks/results."""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hearing_sounds import FOLDERS, REPOSITORY
from quick import QUICK, add_option


def parser_of(
    about: str | None, corpus: bool = False, scenes: bool = False
) -> argparse.ArgumentParser:
    """Return a parser with --data, --out and --quick, and what is asked for beside them."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    data, results = REPOSITORY.parent / "shared" / "data", REPOSITORY / "benchmarks" / "results"
    add("--data", type=Path, default=data, help="the recordings (../shared/data)")
    if corpus:
        add("--corpus", type=Path, required=True, help="made by tools/corpus.sh")
    if scenes:
        add(
            "--scenes",
            type=int,
            default=1 if QUICK else 20,
            help="a set, at each SNR (%(default)s)",
        )
    add("--out", type=Path, default=results, help="folder for the figures (benchmarks/results)")
    add_option(parser)
    return parser


def present(sets: Iterable[str], data: Path) -> list[str]:
    """Return those of the sets that are there."""
    return [name for name in sets if (data / FOLDERS[name]).is_dir()]


def keep(out: Path, name: str, found: Any, text: str) -> None:
    """Print the tables, and write them and their figures."""
    print(text)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    (out / f"{name}.md").write_text(text)
