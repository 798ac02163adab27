"""What do more samples buy, and what do they cost? K samples a patch and M traces.

    .venv/bin/python benchmarks/live_trial.py --corpus CORPUS --out TRIAL
    .venv/bin/streamtwl pretrain --corpus CORPUS --seed 1 -o TRACES
    .venv/bin/python benchmarks/more_samples.py --corpus CORPUS --trial TRIAL --traces TRACES \\
        --out OUT

As the paper has it: a frozen body, here one that has read traces, of which embedding and read-out
learn the labels of ESC-10 without fold 4; no residual path. Some training seeds, each read with
DRAWS seeds of sampling, and beside it readers of the soft trace, which is what many samples come
to. A curve that rises with K towards that line is sampling noise that shrinks. All read the same
HORIZON.

Judged by in-force F1 on fold 4's scenes at SNR, with the threshold at which there are two false
starts a minute in them, for each reading alike. CPU is the product's own reasoner's, one stream,
every trace read. OUT/more_samples.json, .md and .png hold the result; readers that OUT holds
are not trained again.
"""

import argparse
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from heard import FOLD, Heard, matched, read, settings
from live_trial import DATA, SEED
from matplotlib.figure import Figure
from rich.progress import Progress

import streamtwl
from streamtwl.errors import StreamtwlError
from streamtwl.evaluation import baselines, datasets
from streamtwl.evaluation.posteriors import Scorer
from streamtwl.pipeline import make_reasoner
from streamtwl.training import lessons, reader, reading
from streamtwl.training import train as training
from streamtwl.training.reader import Reader
from streamtwl.training.tasks import Closed
from streamtwl.training.train import Recipe

DRAWS = 5
SAMPLES = (1, 2, 4, 8, 16)  # K
TRACES = (1, 4, 16)  # M
EPOCHS = 4
HORIZON = 30  # patches: what the context holds at the highest K
SNR_DB = 10
SOFT, SAMPLED = "soft", "sampled"


def main() -> None:
    """Train, read, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--corpus", type=Path, required=True, help="made by tools/corpus.sh")
    add("--trial", type=Path, required=True, help="what live_trial.py wrote")
    add("--traces", type=Path, required=True, help="what streamtwl pretrain wrote")
    add("--out", type=Path, required=True, help="folder for readers and results")
    add("--data", type=Path, default=DATA, help="the data (../shared/data)")
    add("--trainings", type=int, default=3, help="training seeds, from 1 on (3)")
    asked = parser.parse_args()
    seeds = range(1, 1 + asked.trainings)
    torch.set_num_threads(1)
    asked.out.mkdir(parents=True, exist_ok=True)
    clips = datasets.load(asked.data / "esc10")
    scorer = Scorer(threads=1)
    given = lessons.prepare(clips, asked.corpus, FOLD, [SEED, FOLD], scorer, lambda *_: None)
    fitted = torch.load(asked.trial / f"fold{FOLD}" / "models.pt", weights_only=False)
    task = Closed(given.labels, fitted[baselines.FILTER])
    heard = Heard(asked.trial, scorer, FOLD, (SNR_DB,))
    found: dict[str, Any] = {"soft": [], "sampled": {}, "cpu_ms": {}}
    for seed, soft in itertools.product(seeds, (True, False)):
        recipe = Recipe(
            body=str(asked.traces),
            trained="embedding",
            soft=soft,
            residual=False,
            epochs=EPOCHS,
            seed=seed,
        )
        name = f"{SOFT if soft else SAMPLED}-{seed}"
        made, file = trained(given, task, recipe, asked.out / name)
        data = task.readings(heard.streams(), None)
        if soft:
            told = next(reading.read_traces(made, data, 0, 0, 1, HORIZON))
            found["soft"].append(f1_of(heard, told))
        for samples in () if soft else SAMPLES:
            rows = found["sampled"].setdefault(f"{samples}", [])
            rows.append([more_traces(heard, made, data, samples, draw) for draw in range(DRAWS)])
            print(name, samples, np.mean(rows[-1], axis=0), flush=True)
        if seed == 1:
            found["cpu_ms"] |= costs(file, soft, heard)
    (asked.out / "more_samples.json").write_text(json.dumps(found) + "\n")
    (asked.out / "more_samples.md").write_text(markdown(found))
    plot(found, asked.out / "more_samples.png")
    print(markdown(found))


def trained(
    given: lessons.Lessons, task: Closed, recipe: Recipe, stem: Path
) -> tuple[Reader, Path]:
    """Return a reader and its file; trained if they are not there."""
    file, weights = stem.with_suffix(".onnx"), stem.with_suffix(".pt")
    if not weights.exists():
        with Progress() as progress:
            bars = {what: progress.add_task(f"{stem.name}, {what}") for what in training.STAGES[4:]}
            kept = training.train_reader(
                given,
                task,
                recipe,
                stem.with_suffix(".training"),
                lambda what, done, of: progress.update(bars[what], completed=done, total=of),
            )
        common = {
            "name": stem.name,
            "backbone": "yamnet",
            "hop_s": recipe.hop_s,
            "data": "esc10",
            "folds": sorted({1, 2, 3, 4, 5} - {FOLD}),
            "command": "benchmarks/more_samples.py",
            "version": streamtwl.__version__,
        }
        card = training.reader_card(kept, task, recipe, common)
        reader.export(kept.reader, recipe.hop_s, card, file)
        torch.save(kept.reader, weights)
    return torch.load(weights, weights_only=False), file


def more_traces(
    heard: Heard, made: Reader, data: reading.Readings, samples: int, draw: int
) -> list[float]:
    """Return the F1 by the mean of the first M traces, for each M of TRACES."""
    told, f1 = torch.zeros(()), []
    each = reading.read_traces(made, data, samples, draw, max(TRACES), HORIZON)
    for count, one in enumerate(each, 1):
        told = told + one
        if count in TRACES:
            f1.append(f1_of(heard, told / count))
    return f1


def f1_of(heard: Heard, told: torch.Tensor) -> float:
    """Return the in-force F1 of float32[n, T, 1 + B, L] at two false starts a minute."""
    now = np.ascontiguousarray(told[:, :, 0].numpy())
    return matched(heard, now, heard.labels, 0.5)["f1"]["mean"]


def costs(file: Path, soft: bool, heard: Heard) -> dict[str, float]:
    """Return CPU milliseconds a patch of the product's reasoner, by K x M."""
    found = {}
    for samples, traces in [(1, 1)] if soft else itertools.product(SAMPLES, TRACES):
        asked = settings(str(file), samples=samples, traces=traces, horizon_s=HORIZON * 0.48)
        _, cpu_ms = read(make_reasoner(asked), heard.posteriors[:1], asked.trace)
        found[SOFT if soft else f"{samples}x{traces}"] = cpu_ms
    return found


def markdown(found: dict[str, Any]) -> str:
    """Return the table."""
    lines = [
        f"### K samples, M traces: in-force F1 at two false starts a minute, fold {FOLD}, "
        f"{SNR_DB} dB",
        "",
        f"Mean of {len(found['soft'])} trainings x {DRAWS} draws (standard deviation over "
        "trainings; over draws of one training); CPU a patch.",
        "",
        f"| K | {' | '.join(f'M = {traces}' for traces in TRACES)} |",
        "|" + " --- |" * (1 + len(TRACES)),
    ]
    for samples, rows in found["sampled"].items():
        f1 = np.array(rows)  # trainings, draws, M
        over = deviation(f1.mean(axis=1)), f1.std(axis=1, ddof=1).mean(axis=0)
        cells = [
            f"{mean:.3f} ({a:.3f}; {b:.3f}), {found['cpu_ms'][f'{samples}x{traces}']:.1f} ms"
            for mean, a, b, traces in zip(f1.mean(axis=(0, 1)), *over, TRACES, strict=True)
        ]
        lines.append(f"| {samples} | {' | '.join(cells)} |")
    soft = np.array(found["soft"])
    lines.append(
        f"| soft trace | {soft.mean():.3f} ({deviation(soft):.3f}), "
        f"{found['cpu_ms'][SOFT]:.1f} ms |{' |' * (len(TRACES) - 1)}"
    )
    return "\n".join(lines) + "\n"


def deviation(of: np.ndarray) -> np.ndarray:
    """Return the standard deviation over trainings, the first axis; 0 where there is but one."""
    return of.std(axis=0, ddof=min(1, len(of) - 1))


def plot(found: dict[str, Any], path: Path) -> None:
    """Draw F1 against K for each M beside the soft trace, and CPU on a second axis."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    costs_axes = axes.twinx()
    soft = np.array(found["soft"])
    axes.axhline(soft.mean(), color="black", linestyle="--", label="soft trace")
    axes.axhspan(soft.mean() - deviation(soft), soft.mean() + deviation(soft), alpha=0.1)
    for i, traces in enumerate(TRACES):
        f1 = np.array([found["sampled"][f"{samples}"] for samples in SAMPLES])[..., i]
        spread = f1.reshape(len(SAMPLES), -1).std(axis=1, ddof=1)
        axes.errorbar(
            SAMPLES, f1.mean(axis=(1, 2)), spread, marker="o", capsize=3, label=f"M = {traces}"
        )
        cpu = [found["cpu_ms"][f"{samples}x{traces}"] for samples in SAMPLES]
        costs_axes.plot(SAMPLES, cpu, linestyle=":", color=f"C{i}")
    axes.set_xscale("log", base=2)
    axes.set_xlabel("K, samples a patch")
    axes.set_ylabel("in-force F1 at two false starts a minute")
    costs_axes.set_yscale("log")
    costs_axes.set_ylabel("CPU ms a patch (dotted)")
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    try:
        main()
    except StreamtwlError as error:
        sys.exit(f"more_samples.py: {error}")
