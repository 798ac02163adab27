"""What do more samples buy, and what do they cost? K samples a patch and M traces.

    .venv/bin/python benchmarks/live_trial.py --corpus CORPUS --out TRIAL
    .venv/bin/streamtwl bench pretrain --corpus CORPUS --seed 1 -o TRACES
    .venv/bin/python benchmarks/more_samples.py --corpus CORPUS --trial TRIAL --traces TRACES \\
        --out OUT

As the paper has it: a frozen trunk, here one that has read traces, of which embedding and read-out
learn the labels of ESC-10 without fold 4, for EPOCHS; no residual path. Some training seeds, each
read with DRAWS seeds of sampling, and beside it models of the soft trace, which is what many
samples come to. A curve that rises with K towards that line is sampling noise that shrinks. All
read the same HORIZON.

Judged by in-force F1 on fold 4's scenes at SNR, with the threshold at which there are two false
starts a minute in them, for each reading alike. Draws share no trace but at M = 16, where each is
all of twenty but its own four, so that the spread over draws is understated there. CPU is that of
the product's own reasoner with the models of training seed 1, one stream, every trace read; it is
measured last, with nothing beside it. Thinking as long as the decision is open is compared with
thinking always, by checkpoints/esc10-paper at its own thresholds.

OUT/more_samples.json, .md and .png hold the result; models that OUT holds are not trained again,
nor judged. About an hour on two cores.
"""

import argparse
import itertools
import json
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import timeline
import torch
from matplotlib.figure import Figure
from pool import SPAWN
from quick import QUICK, add_option
from rich.progress import Progress
from trial_methods import DATA, SEED
from trial_scenes import FOLD, TrialScenes, matched, read, reasoner_of, settings

import streamtwl
from streamtwl.config import TraceSettings
from streamtwl.errors import StreamtwlError
from streamtwl.reasoners.gpt2 import Gpt2
from streamtwl.training import (
    datasets,
    fitting,
    trace_model,
    trace_reasoner,
    trace_training,
    training_scenes,
)
from streamtwl.training.posteriors import Scorer
from streamtwl.training.recipe import Recipe
from streamtwl.training.targets import Targets
from streamtwl.training.trace_model import TraceModel

DRAWS = 5
SAMPLES = (1, 16) if QUICK else (1, 2, 4, 8, 16)  # K
TRACES = (1, 4, 16)  # M
EPOCHS = 1 if QUICK else 4
HORIZON = 30  # patches: what the context holds at the highest K
SNR_DB = 10
SOFT, SAMPLED = "soft", "sampled"
PAPER = "esc10-paper"
THINKING: dict[str, dict[str, Any]] = {
    "one trace": {"traces": 1},
    "16 traces, always": {"traces": 16, "think": "fixed"},
    "16 traces, while the decision is open": {"traces": 16, "think": "anytime"},
}


def main() -> None:
    """Train, read, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--corpus", type=Path, required=True, help="made by tools/corpus.sh")
    add("--trial", type=Path, required=True, help="what live_trial.py wrote")
    add("--traces", type=Path, required=True, help="what streamtwl bench pretrain wrote")
    add("--out", type=Path, required=True, help="folder for models and results")
    add("--data", type=Path, default=DATA, help="the data (../shared/data)")
    add("--trainings", type=int, default=3, help="training seeds, from 1 on (3)")
    add("--jobs", type=int, default=2, help="processes (2)")
    add_option(parser)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    each = [(kind, seed) for kind in (SAMPLED, SOFT) for seed in range(1, 1 + options.trainings)]
    with Progress() as progress, ProcessPoolExecutor(options.jobs, SPAWN) as pool:
        bar = progress.add_task("models", total=len(each))
        for done in as_completed([pool.submit(judged, options, *one) for one in each]):
            done.result()
            progress.advance(bar)
    found: dict[str, Any] = {SOFT: [], SAMPLED: []}
    for kind, seed in each:
        found[kind].append(judged(options, kind, seed))
    test_scenes = TrialScenes(options.trial, Scorer(threads=1), FOLD, (SNR_DB,))
    found["cpu_ms"] = costs(options.out, test_scenes)
    found["thinking"] = thinking(test_scenes)
    (options.out / "more_samples.json").write_text(json.dumps(found) + "\n")
    (options.out / "more_samples.md").write_text(markdown(found))
    plot(found, options.out / "more_samples.png")
    print(markdown(found))


def judged(options: argparse.Namespace, kind: str, seed: int) -> Any:
    """Return a model's F1 by K, draw and M, or the soft one's; trained and judged but once."""
    stem = options.out / f"{kind}-{seed}"
    kept = stem.with_suffix(".json")
    if kept.exists():
        return json.loads(kept.read_text())
    torch.set_num_threads(1)
    scorer = Scorer(threads=1)
    clips = datasets.load(options.data / "esc10")
    recipe = Recipe(
        trunk=str(options.traces),
        trained="embedding",
        soft=kind == SOFT,
        residual=False,
        epochs=EPOCHS,
        seed=seed,
    )
    prepared = training_scenes.prepare(
        clips, options.corpus, FOLD, [SEED, FOLD], scorer, recipe.reads, lambda *_: None
    )
    fitted = torch.load(options.trial / f"fold{FOLD}" / "models.pt", weights_only=False)
    targets = Targets(prepared.labels, fitted[fitting.FILTER])
    made = trained(prepared, targets, recipe, stem)
    test_scenes = TrialScenes(options.trial, scorer, FOLD, (SNR_DB,))
    data = targets.examples(test_scenes.streams(recipe.reads), None)
    f1: Any
    if made.soft:
        f1 = f1_of(test_scenes, next(trace_training.predict_traces(made, data, 0, 0, 1, HORIZON)))
    else:
        f1 = [more_traces(test_scenes, made, data, samples) for samples in SAMPLES]
    kept.write_text(json.dumps(f1) + "\n")
    return f1


def trained(
    prepared: training_scenes.TrainingScenes, targets: Targets, recipe: Recipe, stem: Path
) -> TraceModel:
    """Return a model of all scenes but the test fold's, and write its file."""
    parts = [*prepared.parts, prepared.choose]
    made = trace_reasoner.build(targets, parts, recipe)
    examples = trace_reasoner.training_examples(targets, parts, recipe)
    trace_training.fit(
        made, examples, recipe.seed, EPOCHS, stem.with_suffix(".pt"), lambda *_: None
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
    unjudged = trace_reasoner.Trained(EPOCHS, 0.5, 0.25, 0.0, 0.0, made)  # the scenes' thresholds
    card = trace_reasoner.trace_model_card(unjudged, targets, recipe, common)
    trace_model.export(made, recipe.hop_s, card, stem.with_suffix(".onnx"))
    return made


def more_traces(
    test_scenes: TrialScenes, made: TraceModel, data: trace_training.TraceExamples, samples: int
) -> list[list[float]]:
    """Return the F1 by the mean of M traces, for each draw and each M of TRACES."""
    most = max(TRACES)
    fewer = most // (DRAWS - 1)
    decided = torch.stack(
        [
            each[:, :, :1]
            for each in trace_training.predict_traces(
                made, data, samples, SEED, most + fewer, HORIZON
            )
        ]
    )
    return [
        [
            f1_of(test_scenes, decided[chosen].mean(dim=0))
            for chosen in chosen_traces(draw, fewer, len(decided))
        ]
        for draw in range(DRAWS)
    ]


def chosen_traces(draw: int, fewer: int, of: int) -> list[list[int]]:
    """Return which traces a draw has, for each M of TRACES."""
    own = [*range(draw * fewer, (draw + 1) * fewer)]
    return [own[:1], own, [m for m in range(of) if m not in own]]


def f1_of(test_scenes: TrialScenes, decided: torch.Tensor) -> float:
    """Return the in-force F1 of float32[n, T, 1 + B, L] at two false starts a minute."""
    now = np.ascontiguousarray(decided[:, :, 0].numpy())
    return matched(test_scenes, now, test_scenes.labels, 0.5)["f1"]["mean"]


def costs(out: Path, test_scenes: TrialScenes) -> dict[str, float]:
    """Return CPU milliseconds a patch of the product's reasoner, by K x M, and of the soft one."""
    found = {}
    for samples, traces in [(0, 1), *itertools.product(SAMPLES, TRACES)]:
        file = out / f"{SAMPLED if samples else SOFT}-1.onnx"
        chosen = settings(
            str(file),
            samples=samples or TraceSettings().samples,
            traces=traces,
            horizon_s=HORIZON * 0.48,
        )
        _, cpu_ms = read(reasoner_of(chosen), test_scenes.rows[:1], test_scenes.scorer)
        found[f"{samples}x{traces}" if samples else SOFT] = cpu_ms
    return found


def thinking(test_scenes: TrialScenes) -> dict[str, dict]:
    """Return the F1 of the shipped sampling reasoner, and CPU milliseconds a patch, by THINKING.

    Each stream on its own, as a listener with one source has it, and with all the time it wants.
    """
    found = {}
    for name, trace in THINKING.items():
        chosen = settings(PAPER, samples=max(SAMPLES), **trace)
        reasoner = reasoner_of(chosen)
        assert isinstance(reasoner, Gpt2)
        each = []
        for one in test_scenes.rows:
            each.append(read(reasoner, one[None], test_scenes.scorer))
            reasoner.forget(0)
        decided = np.concatenate([scores for scores, _ in each])[:, :, 0]
        scenes = test_scenes.scenes(
            decided, test_scenes.labels, reasoner.card.on, reasoner.card.off
        )
        counts = np.array([timeline.agreement(scene) for scene in scenes])
        found[name] = {
            "f1": asdict(timeline.bootstrap(counts, timeline.f1, test_scenes.groups)),
            "cpu_ms": float(np.mean([cpu_ms for _, cpu_ms in each])),
        }
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
    for samples, f1 in zip(SAMPLES, by_samples(found), strict=True):
        over = deviation(f1.mean(axis=1)), f1.std(axis=1, ddof=1).mean(axis=0)
        cells = [
            f"{mean:.3f} ({a:.3f}; {b:.3f}), {found['cpu_ms'][f'{samples}x{traces}']:.1f} ms"
            for mean, a, b, traces in zip(f1.mean(axis=(0, 1)), *over, TRACES, strict=True)
        ]
        lines.append(f"| {samples} | {' | '.join(cells)} |")
    soft = np.array(found[SOFT])
    lines.append(
        f"| soft trace | {soft.mean():.3f} ({deviation(soft):.3f}), "
        f"{found['cpu_ms'][SOFT]:.1f} ms |{' |' * (len(TRACES) - 1)}"
    )
    lines += [
        "",
        f"### Thinking on: {PAPER} at K = {max(SAMPLES)} and its own thresholds, the same scenes",
        "",
        "| traces | in-force F1 | CPU a patch |",
        "| --- | --- | --- |",
    ]
    for name, one in found["thinking"].items():
        f1 = f"{one['f1']['mean']:.3f} ({one['f1']['low']:.3f} to {one['f1']['high']:.3f})"
        lines.append(f"| {name} | {f1} | {one['cpu_ms']:.1f} ms |")
    return "\n".join(lines) + "\n"


def by_samples(found: dict[str, Any]) -> np.ndarray:
    """Return float64[K, trainings, draws, M] F1."""
    return np.array(found[SAMPLED]).swapaxes(0, 1)


def deviation(of: np.ndarray) -> np.ndarray:
    """Return the standard deviation over trainings, the first axis; 0 where there is but one."""
    return of.std(axis=0, ddof=min(1, len(of) - 1))


def plot(found: dict[str, Any], path: Path) -> None:
    """Draw F1 against K for each M beside the soft trace, and CPU on a second axis."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    costs_axes = axes.twinx()
    soft = np.array(found[SOFT])
    axes.axhline(soft.mean(), color="black", linestyle="--", label="soft trace")
    axes.axhspan(soft.mean() - deviation(soft), soft.mean() + deviation(soft), alpha=0.1)
    for i, traces in enumerate(TRACES):
        f1 = by_samples(found)[..., i]
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
