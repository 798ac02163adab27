"""What helps? Readers with and without each of their parts, trained alike, in one table.

    .venv/bin/python benchmarks/live_trial.py --corpus CORPUS --out TRIAL
    .venv/bin/python benchmarks/taken_apart.py --corpus CORPUS --trial TRIAL --out OUT

Fold 1 of the trial. Each reader has the same lessons, seed and schedule (EPOCHS, no choice among
them) and, where it has a body, the same width; only the scenes to fit are learned from, and the
residual path stands on models of the other parts of them, as in `streamtwl train`. Judged by
in-force F1 at two false starts a minute on the fold's scenes: of a patch as it was decided then,
and two patches (0.96 s) later. OUT/taken_apart.json and .md hold the result; what is there is not
run again.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import Heard, matched
from live_trial import DATA, SEED, slug
from torch import Tensor, nn

from streamtwl.errors import StreamtwlError
from streamtwl.evaluation import baselines, datasets, timeline
from streamtwl.evaluation.posteriors import Scorer
from streamtwl.ontology import categories
from streamtwl.training import bodies, lessons, reading
from streamtwl.training import train as training
from streamtwl.training.reader import Reader
from streamtwl.training.tasks import Closed
from streamtwl.training.train import Recipe

FOLD = 1
EPOCHS = 4
WIDTH = 128  # of tiny, and of no body at all
LATER = 2  # patches
SAMPLES, TRACES, DRAWS = (1, 4, 16), (1, 4), 3  # K, M, seeds of the draws
RESIDUAL_ALONE, FULL = "residual path alone (HMM, looking back)", "body, residual path: as shipped"
VARIANTS: dict[str, dict[str, Any]] = {
    FULL: {},
    "body frozen, random; residual path": {"frozen": True},
    "no body; residual path": {"body": None},
    "body alone, soft trace": {"residual": False},
    "body frozen, random; soft trace": {"residual": False, "frozen": True},
    "no body; soft trace": {"residual": False, "body": None},
    "body alone, soft trace without confidence bins": {"residual": False, "bare": True},
    "body alone, sampled trace, K = 16": {"residual": False, "soft": False},
}


class NoBody(nn.Module):
    """Hands embeddings on: each patch by itself."""

    width, layers, heads, head_width = WIDTH, 0, 1, 1
    positions = bodies.TINY_POSITIONS
    words_std = bodies.WORDS_STD

    def forward(
        self, embeddings: Tensor, past: list[Tensor], mask: Tensor, positions: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Return them as they are."""
        return embeddings, []

    def nothing_read(self, rows: int) -> list[Tensor]:
        """Return an empty cache."""
        return []


def main() -> None:
    """Train, judge, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--corpus", type=Path, required=True, help="made by tools/corpus.sh")
    add("--trial", type=Path, required=True, help="what live_trial.py wrote")
    add("--out", type=Path, required=True, help="folder for the results")
    add("--data", type=Path, default=DATA, help="the data (../shared/data)")
    add("--only", nargs="+", type=int, help="variants by number, from 0 (all)")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    asked.out.mkdir(parents=True, exist_ok=True)
    kept = asked.out / "taken_apart.json"
    clips = datasets.load(asked.data / "esc10")
    scorer = Scorer(threads=1)
    given = lessons.prepare(clips, asked.corpus, FOLD, [SEED, FOLD], scorer, lambda *_: None)
    fitted = torch.load(asked.trial / f"fold{FOLD}" / "models.pt", weights_only=False)
    task = Closed(given.labels, fitted[baselines.FILTER])
    heard = Heard(asked.trial, scorer, FOLD)
    residual = task.residual(given.fit)
    found: dict[str, dict] = json.loads(kept.read_text()) if kept.exists() else {}
    if RESIDUAL_ALONE not in found:
        alone = reading.believe(residual, heard.streams()).numpy()
        found[RESIDUAL_ALONE] = {"weights": 0, "minutes": 0.0, **judge(heard, alone)}
    data: dict[bool, reading.Readings] = {}
    for number, (name, variant) in enumerate(VARIANTS.items()):
        if name in found or (asked.only and number not in asked.only):
            continue
        with_residual = variant.get("residual", True)
        if with_residual not in data:
            recipe = Recipe(residual=with_residual)
            data[with_residual] = training.lesson_readings(task, given.fit, recipe)
        reader = build(given.labels, residual if with_residual else None, variant)
        state = asked.out / f"{slug(name.replace('/', '-'))}.pt"
        began = time.monotonic()
        reading.fit(reader, data[with_residual], SEED, EPOCHS, state, lambda *_: None)
        test = task.readings(heard.streams(), residual if with_residual else None)
        told = reading.read(reader, test, 16, SEED)
        trained = sum(p.numel() for p in reader.parameters() if p.requires_grad)
        minutes = (time.monotonic() - began) / 60
        found = json.loads(kept.read_text()) if kept.exists() else found  # others may run too
        found[name] = {"weights": trained, "minutes": minutes, **judge(heard, told)}
        if not reader.soft:
            found[name]["samples"] = more_samples(heard, reader, test)
        kept.write_text(json.dumps(found) + "\n")
        print(name, found[name]["now"]["f1"], found[name]["later"]["f1"], flush=True)
    (asked.out / "taken_apart.md").write_text(markdown(found, heard))
    print(markdown(found, heard))


def build(labels: Sequence[str], residual: Any, variant: dict[str, Any]) -> Reader:
    """Return a reader that nothing was taught yet."""
    body: Any = bodies.load(bodies.TINY, SEED) if variant.get("body", True) else NoBody()
    if variant.get("frozen"):
        body.requires_grad_(False)
    torch.manual_seed(SEED)
    return Reader(
        body,
        len(categories()),
        len(labels),
        baselines.LAGS,
        variant.get("soft", True),
        residual,
        variant.get("bare", False),
    )


def more_samples(heard: Heard, reader: Reader, test: reading.Readings) -> list[dict]:
    """Return what samples K and traces M do for a reader of the sampled trace."""
    rows = []
    for samples, traces in itertools.product(SAMPLES, TRACES):
        f1 = []
        for seed in range(DRAWS):
            told = reading.read(reader, test, samples, seed, traces)[:, :, 0]
            at = matched(heard, np.ascontiguousarray(told), heard.labels, 0.5)
            f1.append(at["f1"]["mean"])
        rows.append({"samples": samples, "traces": traces, "f1": f1})
    return rows


def judge(heard: Heard, told: np.ndarray) -> dict:
    """Return figures of float32[n, T, 1 + B, L]: as decided then, and LATER patches after."""
    later = np.concatenate((told[:, LATER:, LATER], told[:, -LATER:, 0]), axis=1)
    figures = {}
    for name, scores in (("now", told[:, :, 0]), ("later", later)):
        at = matched(heard, np.ascontiguousarray(scores), heard.labels, 0.5)
        figures[name] = {**at, "counts": at["counts"].tolist()}
    return figures


def markdown(found: dict[str, dict], heard: Heard) -> str:
    """Return the table."""
    lines = [
        "### What helps, taken apart: fold 1, in-force F1 at 2 false starts a minute, all SNRs",
        "",
        "| reader | weights trained | F1 as decided | against the whole | F1 two patches later |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, each in found.items():
        against = ""
        if name != FULL and FULL in found:
            ours, whole = (np.array(of["now"]["counts"]) for of in (each, found[FULL]))
            more = asdict(timeline.bootstrap_paired(ours, whole, timeline.f1, heard.groups))
            against = f"{more['mean']:+.3f} ({more['low']:+.3f} to {more['high']:+.3f})"
        cells = [f"{each[when]['f1']['mean']:.3f}" for when in ("now", "later")]
        weights = f"{each['weights']:,}"
        lines.append(f"| {name} | {weights} | {cells[0]} | {against} | {cells[1]} |")
    for name, each in found.items():
        for row in each.get("samples", []):
            if row is each["samples"][0]:
                lines += [
                    "",
                    f"{name}, other K and M: mean (lowest to highest) of {DRAWS} draws",
                    "",
                ]
                lines += ["| K | M | F1 as decided |", "| --- | --- | --- |"]
            mean, f1 = np.mean(row["f1"]), row["f1"]
            found_f1 = f"{mean:.3f} ({min(f1):.3f} to {max(f1):.3f})"
            lines.append(f"| {row['samples']} | {row['traces']} | {found_f1} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    try:
        main()
    except StreamtwlError as error:
        sys.exit(f"taken_apart.py: {error}")
