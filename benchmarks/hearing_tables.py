"""Tables and the plot of `hearing.py`, from what each job kept."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from hearing_sounds import CLIPS, DISTORTIONS, HOURS_PARTS, PART_S, SNRS_DB
from matplotlib import pyplot
from scipy.stats import chi2

from streamtwl.bench.compare import mean_interval

BINS = 10
ALL = "all sets"
Results = dict[tuple[str, ...], dict[str, Any]]


def summary(
    results: Results,
    about: dict[str, dict[str, int]],
    reference: str,
    rows: Sequence[str],
    shipped: Sequence[str],
    uncalibrated: str,
) -> dict[str, Any]:
    """Return all figures, by table, set, condition and row."""
    compared = [row for row in rows if not row.endswith(uncalibrated)]
    here = [row for row in shipped if row in rows]
    sets = [*about, *([ALL] if len(about) > 1 else [])]
    return {
        "sets": about,
        "clips": _by_set("clips", results, sets, SNRS_DB, compared, reference, _figures),
        "hours": {row: _hours(results, row) for row in compared},
        "watched": _by_set("watched", results, sets, SNRS_DB, compared, reference, _recall),
        "distorted": _by_set(
            "distorted", results, [*about], DISTORTIONS, [reference, *here], reference, _label_right
        ),
        "calibration": {
            row: {
                when: {
                    conditions: _calibration(results, one if one in rows else row, which)
                    for conditions, which in (("clean", ["clean"]), ("all three", [*SNRS_DB]))
                }
                for when, one in (("before", row + uncalibrated), ("after", row))
            }
            for row in here
        },
    }


def _by_set(kind, results, sets, conditions, rows, reference, figures) -> dict[str, Any]:
    """Return the figures of each row in each set and condition; sets without clips are left out."""
    found: dict[str, Any] = {}
    for name in sets:
        for condition in conditions:
            jobs = [j for j in results if j[0] == kind and j[-1] == condition]
            jobs = [j for j in jobs if name in (ALL, j[1]) and results[j]]
            by_row = {row: [clip for j in jobs for clip in results[j][row]] for row in rows}
            if jobs:
                found.setdefault(name, {})[condition] = {
                    row: figures(by_row[row], by_row[reference]) for row in rows
                }
    return found


def _figures(clips: list[dict], reference: list[dict]) -> dict[str, Any]:
    names = ("right", "among_five", "event", "wrong_events")
    changes = [clip["changes"] for clip in clips]
    return (
        {name: _interval(clips, name) for name in names}
        | {f"more_{name}": _interval(clips, name, reference) for name in names}
        | {"changes": [float(np.median(changes)), float(np.mean(changes))], "clips": len(clips)}
    )


def _recall(clips: list[dict], reference: list[dict]) -> dict[str, Any]:
    there = [clip["there"] for clip in clips]
    found = {"clips": sum(there), "others": len(clips) - sum(there)}
    others = [clip["wrong_events"] for clip in clips if not clip["there"]]
    found["false_events"] = sum(others)
    if not any(there):
        return found
    clips, reference = ([*itertools.compress(each, there)] for each in (clips, reference))
    return found | {
        "event": _interval(clips, "event"),
        "more_event": _interval(clips, "event", reference),
    }


def _label_right(clips: list[dict], reference: list[dict]) -> dict[str, Any]:
    return {
        "right": _interval(clips, "right"),
        "more_right": _interval(clips, "right", reference),
        "clips": len(clips),
    }


def _interval(clips: list[dict], name: str, less: list[dict] | None = None) -> list[float]:
    """Return [mean, low, high] of a figure, or of what it is more than in the other row."""
    values = np.array([float(clip[name]) for clip in clips])
    if less is not None:
        values -= [float(clip[name]) for clip in less]
    found = mean_interval(values, [clip["source"] for clip in clips])
    return [found.mean, found.low, found.high]


def _hours(results: Results, row: str) -> dict[str, Any]:
    """Return false events an hour, with the exact interval of a Poisson rate."""
    events = [label for job in results if job[0] == "hours" for label in results[job][row]]
    hours, count = HOURS_PARTS * PART_S / 3600, len(events)
    low = chi2.ppf(0.025, 2 * count) / 2 if count else 0.0
    high = chi2.ppf(0.975, 2 * count + 2) / 2
    by_label = {label: events.count(label) for label in sorted(set(events))}
    return {"an_hour": [count / hours, low / hours, high / hours], "by_label": by_label}


def _calibration(results: Results, row: str, conditions: Sequence[str]) -> dict[str, Any]:
    """Return the expected calibration error, and [mean confidence, share right, hops] by bin."""
    pairs = np.array(
        [
            pair
            for job in results
            if job[0] == "clips" and job[-1] in conditions
            for clip in results[job][row]
            for pair in clip["confidences"]
        ]
    ).reshape(-1, 2)
    numbers = np.minimum((pairs[:, 0] * BINS).astype(int), BINS - 1)
    bins = []
    for number in range(BINS):
        found = pairs[numbers == number]
        if len(found):
            bins.append([*found.mean(axis=0).tolist(), len(found)])
    error = sum(n * abs(sure - right) for sure, right, n in bins) / max(1, len(pairs))
    return {"error": error, "bins": bins, "hops": len(pairs)}


# --- as text ---


def markdown(found: dict[str, Any]) -> str:
    """Return the tables."""
    sets = [
        f"{name}: {each['clips']} clips of {each['sources']} recordings, {each['classes']} classes"
        for name, each in found["sets"].items()
    ]
    intro = [
        "By `benchmarks/hearing.py`. In brackets 95 %, by bootstrap over recordings; differences "
        "are paired, to the first row. Noise is brown, blue, mains hum, traffic or babble. "
        + "; ".join(sets)
        + ". Of kitchen20's twenty classes seven have no name in AudioSet and are left out (book, "
        "dishwasher, fridge, juicer, peel, stove-burner, sweep), and so are clips of recordings of "
        "which a training fold has a part. Rows below `evidence` take it apart, with its "
        "thresholds and calibration: compare their names, not their events.",
    ]
    if CLIPS < 100:
        intro.insert(0, "**--quick: these figures say nothing.**")
    parts = [*intro, *_clips(found["clips"]), *_watched(found), *_distorted(found["distorted"])]
    return (
        "\n\n".join([*parts, *_calibrated(found["calibration"]), *_changes(found["clips"])]) + "\n"
    )


def _clips(found: dict[str, Any]) -> list[str]:
    head = [
        "pipeline", "label right, %", "more", "right among five, %", "more",
        "some event right, %", "wrong events a clip",
    ]  # fmt: skip
    parts = ["## Clips, whole vocabulary"]
    for name, conditions in found.items():
        for condition, rows in conditions.items():
            cells = [
                [
                    row, _percent(f["right"]), _more(f["more_right"]), _percent(f["among_five"]),
                    _more(f["more_among_five"]), _percent(f["event"]), _number(f["wrong_events"]),
                ]
                for row, f in rows.items()
            ]  # fmt: skip
            parts += [f"### {name}, {condition}", _table(head, cells)]
    return parts


def _watched(found: dict[str, Any]) -> list[str]:
    watched = found["watched"]
    clean = {name: next(iter(each["clean"].values())) for name, each in watched.items()}
    columns = [(n, c) for n in watched for c in watched[n] if clean[n]["clips"]]
    false = [
        [
            row,
            _number(hours["an_hour"]),
            ", ".join(f"{count} {label}" for label, count in hours["by_label"].items()),
            *(str(each["clean"][row]["false_events"]) for each in watched.values()),
        ]
        for row, hours in found["hours"].items()
    ]
    recalls = [
        [row, *(_percent(watched[name][condition][row]["event"]) for name, condition in columns)]
        for row in found["hours"]
    ]
    counts = "; ".join(
        f"{n}: {each['clips']} clips of these, {each['others']} of others"
        for n, each in clean.items()
    )
    text = (
        f"In {HOURS_PARTS * PART_S / 3600:.2g} hours of birds, fire, rain, a summer night, waves, "
        "noises and synthetic voices, at -45 to -20 dBFS, two at once in 40 % of it; and in clean "
        "clips of other sounds, some of which may hold one of these in the background. Recall: the "
        f"share of clips of these sounds with an event of the right label. {counts}."
    )
    heads = (
        ["pipeline", "false events an hour", "of them", *(f"in clips, {name}" for name in watched)],
        ["recall, %", *(f"{name}, {condition}" for name, condition in columns)],
    )
    tables = [_table(*each) for each in zip(heads, (false, recalls), strict=True)]
    return ["## Ten labels that somebody watches", text, *tables]


def _distorted(found: dict[str, Any]) -> list[str]:
    parts = ["## Label right through worse channels, %"]
    for name, conditions in found.items():
        rows = [*next(iter(conditions.values()))]
        cells = [
            [
                condition,
                *(
                    f"{_percent(by_row[r]['right'])} {_more(by_row[r]['more_right'])}".strip()
                    for r in rows
                ),
            ]
            for condition, by_row in conditions.items()
        ]
        parts += [f"### {name}", _table(["channel", *rows], cells)]
    return parts


def _calibrated(found: dict[str, Any]) -> list[str]:
    head = ["pipeline", "clean: before", "after", "clean and noisy: before", "after", "hops"]
    cells = [
        [
            row,
            *(f"{each[w][c]['error']:.3f}" for c in ("clean", "all three") for w in each),
            f"{each['after']['clean']['hops']}, {each['after']['all three']['hops']}",
        ]
        for row, each in found.items()
    ]
    text = (
        "Expected calibration error, ten bins, of the label in force where it is not null, at hops "
        "within 30 dB of the clip's loudest; before: scale 1 and shift 0. "
        "reliability.png shows each bin, with a dot as large as its share of the hops."
    )
    return ["## Is a confidence what it says?", text, _table(head, cells)]


def _changes(found: dict[str, Any]) -> list[str]:
    conditions = next(iter(found.values()))
    whole = found.get(ALL, conditions)
    rows = [*next(iter(whole.values()))]
    cells = [
        [row, *(f"{c[row]['changes'][0]:g}, {c[row]['changes'][1]:.2f}" for c in whole.values())]
        for row in rows
    ]
    text = "Changes of the label in force, or to null, while a clip sounds: median, mean."
    return ["## How often does the name change?", text, _table(["pipeline", *whole], cells)]


def _table(head: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _percent(interval: Sequence[float]) -> str:
    mean, low, high = (100 * each for each in interval)
    return f"{mean:.1f} ({low:.0f} to {high:.0f})"


def _more(interval: Sequence[float]) -> str:
    if not any(interval):  # the row that the others are compared with
        return ""
    mean, low, high = (100 * each for each in interval)
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"


def _number(interval: Sequence[float]) -> str:
    mean, low, high = interval
    return f"{mean:.2f} ({low:.2f} to {high:.2f})"


def plot(found: dict[str, Any], file: Path) -> None:
    """Draw the share that is right over the confidence, a panel a pipeline; dots by hops."""
    figure, panels = pyplot.subplots(1, len(found), figsize=(4 * len(found), 4), squeeze=False)
    for panel, (row, each) in zip(panels[0], found.items(), strict=True):
        panel.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
        for when, by_conditions in each.items():
            for style, (conditions, one) in zip("-:", by_conditions.items(), strict=True):
                bins = np.array(one["bins"]).reshape(-1, 3)
                said = f"{when}, {conditions}: {one['error']:.3f}"
                colour = {"before": "tab:orange", "after": "tab:blue"}[when]
                panel.plot(bins[:, 0], bins[:, 1], style, color=colour, label=said)
                share = bins[:, 2] / max(1, one["hops"])
                panel.scatter(bins[:, 0], bins[:, 1], 300 * share, color=colour)
        panel.set(title=row.strip("`"), xlabel="confidence", ylabel="share right", aspect="equal")
        panel.legend(title="expected calibration error", fontsize=7, title_fontsize=7)
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
