"""The tables of peers.py."""

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from quick import QUICK

from streamtwl.bench.compare import mean_interval

REFERENCE, OURS = "mediapipe", "light"


def markdown(found: dict[str, Any]) -> str:
    """Return the tables."""
    lines = [] if not QUICK else ["**--quick: these figures say nothing.**", ""]
    peers = [*found["about"]]
    reference = REFERENCE if REFERENCE in peers else peers[0]
    heads = [f"ms a second of sound, hop {hop} s | x {reference}'s" for hop in found["cost"]]
    lines += [
        f"| program | {' | '.join(heads)} | windows a second | memory: peak, its own, MB |",
        "| --- |" + " --- | --- |" * len(heads) + " --- | --- |",
    ]
    for name in peers:
        cells = []
        for by_peer in found["cost"].values():
            mine, theirs = (by_peer[each]["ms_a_second"] for each in (name, reference))
            ratio = [a / b for a, b in zip(mine, theirs, strict=True)]
            cells += [spread(mine), "" if name == reference else spread(ratio)]
        last = [*found["cost"].values()][-1][name]
        cells += [f"{last['windows_a_second']:.0f}", f"{last['peak_mb']:.0f}, {last['own_mb']:.0f}"]
        lines.append(f"| {found['about'][name]} | {' | '.join(cells)} |")
    lines += [
        "",
        "| program | import, s | load, s | start to first label, less the window: s, processor s | "
        "`streamtwl listen`: the same |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, by_figure in found["start"].items():
        groups = (("import_s",), ("load_s",), ("first_s", "first_cpu_s"))
        groups += (("listening_s", "listening_cpu_s"),)
        cells = [
            ", ".join(spread(by_figure[key]) for key in keys if key in by_figure) for keys in groups
        ]
        lines.append(f"| {found['about'][name]} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *table_of_labels(found)])


def table_of_labels(found: dict[str, Any]) -> list[str]:
    """Return the lines of the table of right labels."""
    given = found["labels"]
    sets = [*next(iter(given.values()))["right"]]
    lines = [
        "| program | " + " | ".join(f"{name}, % right" for name in sets) + " | all | "
        f"`{OURS}` has more |",
        "| --- |" + " --- |" * (len(sets) + 2),
    ]
    for name, one in given.items():
        every = [float(right) for of in sets for right in one["right"][of]]
        cells = [f"{100 * statistics.mean(one['right'][of]):.0f}" for of in sets]
        mean = mean_interval(np.array(every), one["sources"])
        cells.append(f"{100 * mean.mean:.1f} ({100 * mean.low:.0f} to {100 * mean.high:.0f})")
        if name == OURS or OURS not in given:
            cells.append("")
        else:
            ours = [float(right) for of in sets for right in given[OURS]["right"][of]]
            more = mean_interval(np.array(ours) - np.array(every), one["sources"])
            low, high = 100 * more.low, 100 * more.high
            cells.append(f"{100 * more.mean:+.1f} ({low:+.1f} to {high:+.1f})")
        lines.append(f"| {found['about'][name]} | {' | '.join(cells)} |")
    return lines


def spread(values: Sequence[float]) -> str:
    """Return the median, and the least and the most."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
