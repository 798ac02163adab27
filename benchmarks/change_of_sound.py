"""How soon does a change of sound show? Pairs of ESC-10 clips, one straight after the other.

    .venv/bin/python benchmarks/change_of_sound.py ../shared/data [--fold 4] [--json change.json]

Each pair is 4 s of one clip and 5 s of another of another class (silence at the ends trimmed away,
clips under 3 s left out), run through the product's graph. Printed: seconds from the change until
the label in force is right for the new sound, by `esc50_audioset.csv`, over the pairs in which it
is named at all; and the share of labels that are right, the half second after the change left out.
A label is right if one of the categories that it rolls up is. Fold 4 chose nothing: the settings
were chosen on the other folds. Intervals are bootstraps over source recordings of the second clip.
"""

import argparse
import csv
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import soundfile
from quick import QUICK, add_option
from rich.console import Console
from rich.progress import track
from rich.table import Table

from streamtwl import config
from streamtwl.audio.resample import Resampler
from streamtwl.bench import compare
from streamtwl.errors import StreamtwlError, UsageError
from streamtwl.models import registry
from streamtwl.ontology import categories, everyday
from streamtwl.pipeline import Outcome, build
from streamtwl.stages import SAMPLE_RATE, Block

PIPELINES = ("default", "evidence")
PAIRS = 4 if QUICK else 200
FIRST_S, SECOND_S, SHORTEST_S = 4, 5, 3
QUIET = 1e-4
SETTLING_S = 0.5
RESAMPLES = 2000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="the folder with esc10/ and esc50_audioset.csv")
    parser.add_argument("--fold", default="4", help="which fold's clips (default 4)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of pairs (default 0)")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    add_option(parser)
    options = parser.parse_args()

    registry.pull(registry.find("yamnet"))
    right = right_categories(options.data)
    clips = load(options.data / "esc10", options.fold)
    pairs = choose(clips, np.random.default_rng(options.seed))
    table = Table(
        "pipeline",
        "labels",
        "named",
        "median s",
        "p90 s",
        "right labels",
        "95 %",
        title=f"{len(pairs)} pairs",
    )
    figures = {}
    shares: dict[str, np.ndarray] = {}
    sources = [second["source"] for _, second in pairs]
    for labels, pipeline in itertools.product(("all", "everyday"), PIPELINES):
        outcomes = [run(*pair, labels, pipeline, right) for pair in track(pairs, labels)]
        name = f"{pipeline}, {labels}"
        figures[name] = found = summary(outcomes, sources, np.random.default_rng(options.seed))
        shares[name] = np.array([share for _, share in outcomes])
        table.add_row(
            pipeline,
            labels,
            *(f"{value:.3g}" for value in list(found.values())[:4]),
            "{:.3f}-{:.3f}".format(*found["interval"]),
        )
    Console().print(table)
    for labels in ("all", "everyday"):
        ours, theirs = (shares[f"{pipeline}, {labels}"] for pipeline in PIPELINES)
        more = compare.paired(ours, theirs, sources).difference
        figures[f"more right labels, {labels}"] = [more.mean, more.low, more.high]
        print(
            f"{' minus '.join(PIPELINES)}, {labels}: right labels {more.mean:+.3f} "
            f"({more.low:+.3f} to {more.high:+.3f})"
        )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def right_categories(data: Path) -> dict[str, set[str]]:
    """Return which AudioSet names count as right for each class."""
    with (data / "esc50_audioset.csv").open(newline="") as file:
        return {row["category"]: set(row["audioset"].split("|")) for row in csv.DictReader(file)}


def load(esc10: Path, fold: str) -> list[dict]:
    """Return the fold's clips of 3 s or more: samples (16 kHz, trimmed), category, source."""
    clips = []
    with (esc10 / "meta" / "esc10.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["fold"] == fold]
    for row in rows:
        samples, rate = soundfile.read(esc10 / "audio" / row["filename"], dtype="float32")
        resampler = Resampler(rate)
        samples = np.concatenate((resampler.push(samples), resampler.flush()))
        loud = np.flatnonzero(np.abs(samples) > QUIET)
        samples = samples[loud[0] : loud[-1] + 1] if len(loud) else samples[:0]
        if len(samples) >= SHORTEST_S * SAMPLE_RATE:
            clips.append(
                {"samples": samples, "category": row["category"], "source": row["src_file"]}
            )
    return clips


def choose(clips: list[dict], rng: np.random.Generator) -> list[tuple[dict, dict]]:
    """Return pairs of clips of different classes."""
    pairs = []
    if len({clip["category"] for clip in clips}) < 2:
        raise UsageError("of this fold no two classes have clips of 3 s: choose another --fold")
    while len(pairs) < PAIRS:
        first, second = (clips[i] for i in rng.integers(len(clips), size=2))
        if first["category"] != second["category"]:
            pairs.append((first, second))
    return pairs


def run(
    first: dict, second: dict, labels: str, named: str, right: dict[str, set[str]]
) -> tuple[float, float]:
    """Return (seconds from the change to the right label, or infinity; share of right labels)."""
    settings = config.override(config.load(config.find(named)), {"labels": labels})
    before = first["samples"][: FIRST_S * SAMPLE_RATE]
    samples = np.concatenate((before, second["samples"][: SECOND_S * SAMPLE_RATE]))
    outcomes: list[Outcome] = []
    pipeline = build(settings, ["pair"])
    pipeline.subscribe(outcomes.append)
    pipeline.push([Block(0, 0, samples, None, 0.0, last=True)])
    rolled_up = everyday() if labels == "everyday" else {name: (name,) for name in categories()}
    delay_s, judged = np.inf, []
    for outcome in outcomes:
        if outcome.decision is None:
            continue
        since_s = (outcome.position - len(before)) / SAMPLE_RATE
        sounding = second if since_s > 0 else first
        members = rolled_up.get(outcome.decision.label or "", ())
        correct = not right[sounding["category"]].isdisjoint(members)
        if correct and since_s > 0:
            delay_s = min(delay_s, since_s)
        if not 0 < since_s <= SETTLING_S:
            judged.append(correct)
    return delay_s, float(np.mean(judged))


def summary(outcomes: list[tuple[float, float]], sources: list[str], rng) -> dict:
    """Return the figures of a table row."""
    delays = np.array([delay for delay, _ in outcomes])
    named = delays[np.isfinite(delays)]
    shares = np.array([share for _, share in outcomes])
    by_source = [np.flatnonzero(np.array(sources) == source) for source in sorted(set(sources))]
    means = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(len(by_source), size=len(by_source))
        means.append(shares[np.concatenate([by_source[i] for i in drawn])].mean())
    median_s, p90_s = np.percentile(named, (50, 90)) if len(named) else (np.nan, np.nan)
    return {
        "named": len(named) / len(delays),
        "median_s": float(median_s),
        "p90_s": float(p90_s),
        "right_labels": float(shares.mean()),
        "interval": [float(np.percentile(means, p)) for p in (2.5, 97.5)],
    }


if __name__ == "__main__":
    try:
        main()
    except StreamtwlError as error:
        sys.exit(f"change_of_sound.py: {error}")
