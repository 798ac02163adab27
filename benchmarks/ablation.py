"""Ablation: trace models with and without each of their parts, trained alike, in one table.

    .venv/bin/python benchmarks/live_trial.py --corpus CORPUS --out TRIAL
    .venv/bin/streamtwl bench pretrain --corpus CORPUS --seed 1 -o TRACES
    .venv/bin/python benchmarks/ablation.py --corpus CORPUS --trial TRIAL --traces TRACES \\
        --text-model GGUF --out OUT

Fold 1 of the trial. All models are trained on the same scenes with the same schedule (EPOCHS, none
is chosen) and, where they have a trunk, the same width. Only the scenes to fit are used, without
background scenes, and the residual path is fitted on the other parts of them, as in `streamtwl
train`. Where only embedding and read-out are trained, with no residual path, the learning rate is
higher (trace_training.ALONE_RATE). The training seed is 1 where a row names no other. The figure is
in-force F1 at two false starts a minute on the fold's scenes: of a patch as first decided, and two
patches (0.96 s) later. The threshold is chosen on these scenes, for all models alike.

A text model has a table of its own, after one epoch, in which all trunks are frozen: it is hundreds
of times as slow as the small ones, and runs in bfloat16 here.

OUT/ablation.json and .md hold the result; what is there is not run again.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timeline
import torch
from live_trial import DATA, SEED, slug
from other_trunks import InBfloat16, NoTrunk
from quick import QUICK, add_option
from trial_scenes import TrialScenes, matched

from streamtwl.errors import StreamtwlError
from streamtwl.ontology import categories
from streamtwl.reasoners import reads
from streamtwl.training import (
    datasets,
    fitting,
    trace_reasoner,
    trace_training,
    training_scenes,
    trunks,
)
from streamtwl.training import train as training
from streamtwl.training.posteriors import Scorer
from streamtwl.training.recipe import TINY, Recipe
from streamtwl.training.targets import ClosedTargets
from streamtwl.training.trace_model import TraceModel

FOLD = 4 if QUICK else 1
EPOCHS = 1 if QUICK else 4
SEEDS = (2, 3)  # besides SEED, for two of the models
LATER = 2  # patches
TRACES, TEXT, NONE = "traces", "text", "none"  # trunks beside tiny
RESIDUAL_ALONE, FULL = "residual path alone (HMM, looking back)", "trunk, residual path: as shipped"
WITHOUT_TRUNK = "no trunk; residual path"
ALONE: dict[str, Any] = {"residual": False}
SAMPLED = ALONE | {"soft": False}


def with_seed(name: str, seed: int) -> str:
    """Return what the variant is called with this training seed."""
    return name if seed == SEED else f"{name}, training seed {seed}"


VARIANTS: dict[str, dict[str, Any]] = {
    FULL: {},
    "trunk pre-trained on traces, all trained; residual path": {"trunk": TRACES},
    "trunk pre-trained on traces, frozen; residual path": {"trunk": TRACES, "frozen": True},
    "trunk frozen, random; residual path": {"frozen": True},
    WITHOUT_TRUNK: {"trunk": NONE},
    "trunk that grows beside its embedding, as in open; residual path": {"grows": True},
    **{with_seed(FULL, seed): {"seed": seed} for seed in SEEDS},
    **{with_seed(WITHOUT_TRUNK, seed): {"trunk": NONE, "seed": seed} for seed in SEEDS},
    "trunk alone, soft trace": ALONE,
    "trunk alone, pre-trained, all trained; soft trace": ALONE | {"trunk": TRACES},
    "trunk alone, pre-trained, frozen; soft trace": ALONE | {"trunk": TRACES, "frozen": True},
    "trunk alone, pre-trained, frozen, rows at random; soft trace": (
        ALONE | {"trunk": TRACES, "frozen": True, "rows": False}
    ),
    "trunk alone, frozen, random; soft trace": ALONE | {"frozen": True},
    "no trunk; soft trace": ALONE | {"trunk": NONE},
    "trunk alone, soft trace without confidence bins": ALONE | {"bare": True},
    "trunk alone, sampled trace, K = 16": SAMPLED,
    "trunk alone, sampled trace without confidence bins, K = 16": SAMPLED | {"bare": True},
    "trunk alone, pre-trained, frozen; sampled trace, K = 16": (
        SAMPLED | {"trunk": TRACES, "frozen": True}
    ),
    "trunk alone, frozen, random; sampled trace, K = 16": SAMPLED | {"frozen": True},
}
FROZEN_TEXT = "text model, frozen, rows from names"
ONE_EPOCH: dict[str, dict[str, Any]] = {
    name: ALONE | {"frozen": True, "epochs": 1} | variant
    for name, variant in {
        FROZEN_TEXT: {"trunk": TEXT},
        "text model, frozen, rows at random": {"trunk": TEXT, "rows": False},
        "small trunk pre-trained on traces, frozen": {"trunk": TRACES},
        "small trunk, frozen, random": {},
        "no trunk, one epoch": {"trunk": NONE},
    }.items()
}


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
    add("--traces", type=Path, required=True, help="what streamtwl bench pretrain wrote")
    add("--text-model", type=Path, help="Gemma 3 270M or another: a directory or GGUF file")
    add("--only", nargs="+", type=int, help="variants by number, from 0 (all)")
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    kept = options.out / "ablation.json"
    clips = datasets.load(options.data / "esc10")
    scorer = Scorer(training.best_windows(), threads=1)
    read = reads.of_windows(scorer.windows)
    prepared = training_scenes.prepare(
        clips, options.corpus, FOLD, [SEED, FOLD], scorer, read, lambda *_: None
    )
    fitted = torch.load(options.trial / f"fold{FOLD}" / "models.pt", weights_only=False)
    targets = ClosedTargets(prepared.labels, fitted[fitting.FILTER])
    test_scenes = TrialScenes(options.trial, scorer, FOLD)
    residual = targets.residual(prepared.fit)
    found: dict[str, dict] = json.loads(kept.read_text()) if kept.exists() else {}
    if RESIDUAL_ALONE not in found:
        alone = trace_training.beliefs_of(residual, test_scenes.streams(read)).numpy()
        found[RESIDUAL_ALONE] = {"weights": 0, "minutes": 0.0, **judge(test_scenes, alone)}
    data: dict[bool, trace_training.TraceExamples] = {}
    for number, (name, variant) in enumerate((VARIANTS | ONE_EPOCH).items()):
        if name in found or (options.only and number not in options.only):
            continue
        if variant.get("trunk") == TEXT and options.text_model is None:
            continue
        path = residual if variant.get("residual", True) else None
        if (path is not None) not in data:
            recipe = Recipe(residual=path is not None)
            data[path is not None] = trace_reasoner.training_examples(targets, prepared.fit, recipe)
        examples = data[path is not None]
        model = build(prepared.labels, path, variant, str(options.traces), str(options.text_model))
        state = options.out / f"{slug(name.replace('/', '-').replace(';', ''))}.pt"
        began = time.monotonic()
        seed, epochs = variant.get("seed", SEED), variant.get("epochs", EPOCHS)
        trace_training.fit(model, examples, seed, epochs, state, lambda *_: None)
        decided = trace_training.predict(
            model, targets.examples(test_scenes.streams(read), path), 16, SEED
        )
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        minutes = (time.monotonic() - began) / 60
        found = json.loads(kept.read_text()) if kept.exists() else found  # others may run too
        found[name] = {"weights": trained, "minutes": minutes, **judge(test_scenes, decided)}
        kept.write_text(json.dumps(found) + "\n")
        print(name, found[name]["now"]["f1"], found[name]["later"]["f1"], flush=True)
    (options.out / "ablation.md").write_text(markdown(found, test_scenes))
    print(markdown(found, test_scenes))


def build(
    labels: Sequence[str], residual: Any, variant: dict[str, Any], traces: str, text: str
) -> TraceModel:
    """Return an untrained model."""
    name, seed = variant.get("trunk", TINY), variant.get("seed", SEED)
    where = {TRACES: traces, TEXT: text}.get(name, name)
    trunk: Any = NoTrunk() if name == NONE else trunks.load(where, seed)
    if name == TEXT:
        trunk = InBfloat16(trunk)
    if variant.get("frozen"):
        trunk.requires_grad_(False)
    if not variant.get("rows", True):
        trunk.initial_embedding = None
    torch.manual_seed(seed)
    return TraceModel(
        trunk,
        len(categories()),
        len(labels),
        fitting.LAGS,
        variant.get("soft", True),
        residual,
        variant.get("bare", False),
        grows=variant.get("grows", False),
    )


def judge(test_scenes: TrialScenes, decided: np.ndarray) -> dict:
    """Return figures of float32[n, T, 1 + B, L]: as first decided, and LATER patches later."""
    later = np.concatenate((decided[:, LATER:, LATER], decided[:, -LATER:, 0]), axis=1)
    figures = {}
    for name, scores in (("now", decided[:, :, 0]), ("later", later)):
        at = matched(test_scenes, np.ascontiguousarray(scores), test_scenes.labels, 0.5)
        figures[name] = {**at, "counts": at["counts"].tolist()}
    return figures


def markdown(found: dict[str, dict], test_scenes: TrialScenes) -> str:
    """Return the tables."""
    lines = [
        f"### Ablation: fold {FOLD}, in-force F1 at 2 false starts a minute, all SNRs",
        "",
        *rows([RESIDUAL_ALONE, *VARIANTS], found, test_scenes, FULL),
    ]
    pairs = [(with_seed(FULL, seed), with_seed(WITHOUT_TRUNK, seed)) for seed in (SEED, *SEEDS)]
    if all(name in found for pair in pairs for name in pair):
        ours, theirs = (
            np.concatenate([found[name]["now"]["counts"] for name in side])
            for side in zip(*pairs, strict=True)
        )
        more = timeline.bootstrap_paired(ours, theirs, timeline.f1, test_scenes.groups * len(pairs))
        lines += [
            "",
            f"With a trunk against without, {len(pairs)} training seeds: {interval(more)}.",
        ]
    if FROZEN_TEXT in found:
        lines += ["", "### The same, alone with the soft trace, after one epoch", ""]
        lines += rows(ONE_EPOCH, found, test_scenes, FROZEN_TEXT)
    return "\n".join(lines) + "\n"


def rows(
    names: Iterable[str], found: dict[str, dict], test_scenes: TrialScenes, reference: str
) -> list[str]:
    """Return a table's lines."""
    lines = [
        f'| model | weights trained | F1 as decided | against "{reference}" | F1 two patches '
        "later | minutes of training |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in names:
        if name not in found:
            continue
        each, against = found[name], ""
        if name != reference and reference in found:
            ours, whole = (np.array(of["now"]["counts"]) for of in (each, found[reference]))
            against = interval(
                timeline.bootstrap_paired(ours, whole, timeline.f1, test_scenes.groups)
            )
        cells = [f"{each[when]['f1']['mean']:.3f}" for when in ("now", "later")]
        lines.append(
            f"| {name} | {each['weights']:,} | {cells[0]} | {against} | {cells[1]} "
            f"| {each['minutes']:.0f} |"
        )
    return lines


def interval(more: Any) -> str:
    """Return a difference with its interval."""
    return f"{more.mean:+.3f} ({more.low:+.3f} to {more.high:+.3f})"


if __name__ == "__main__":
    try:
        main()
    except StreamtwlError as error:
        sys.exit(f"ablation.py: {error}")
