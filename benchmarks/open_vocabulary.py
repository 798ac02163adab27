"""The open vocabulary on the trial's scenes, through the map; and what `open` is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import timeline
import torch
from after_patches import OPEN
from live_trial import SEED
from other_trunks import NoTrunk
from quick import QUICK
from trial_scenes import (
    FOLD,
    TrialScenes,
    expected_calibration_error,
    matched,
    read,
    reasoner_of,
    settings,
)

import streamtwl
from streamtwl import config
from streamtwl.models import registry
from streamtwl.ontology import categories, vocabulary
from streamtwl.reasoners import graph
from streamtwl.training import (
    datasets,
    trace_model,
    trace_reasoner,
    trace_training,
    training_scenes,
)
from streamtwl.training.datasets import Clip
from streamtwl.training.posteriors import Scorer
from streamtwl.training.recipe import Recipe
from streamtwl.training.targets import OpenTargets, names_of
from streamtwl.training.trace_model import TraceModel

YAMNETS = Recipe(open=True).reads
NO_TRUNK = "open, without a trunk"
OPEN_EPOCHS = 1 if QUICK else 6  # at most
LEFT_OUT = ("rooster", "rain")  # drawn by lot


def open_scenes(
    test_scenes: TrialScenes,
    right: dict[str, frozenset[str]],
    models: Mapping[str, str | TraceModel],
) -> dict[str, dict]:
    """Return in-force F1 of these classes, as shipped and at two false starts a minute.

    Models are files, or have none.
    """
    labels = sorted(right)
    ahead = test_scenes.streams([]).ahead[
        :, :, [test_scenes.labels.index(label) for label in labels]
    ]
    results: dict[str, dict] = {}
    names = vocabulary("all").labels
    columns = [[i for i, n in enumerate(names) if n in right[c]] for c in labels]
    on, off = config.LabelEventSettings().on, config.LabelEventSettings().off
    for name, one in {"evidence": "evidence", **models}.items():
        decided, cpu_ms = scores_of(one, test_scenes)
        scores = np.stack([decided[:, :, each].max(axis=-1) for each in columns], axis=-1)
        scenes = test_scenes.scenes(scores, labels, on, off)
        counts = np.array([timeline.agreement(scene) for scene in scenes])
        starts = sum(map(timeline.false_starts, scenes)) / len(scenes) / test_scenes.duration_s * 60
        at = matched(test_scenes, scores, labels, 0.5)
        results[name] = {
            "cpu_ms": cpu_ms,
            "calibration": expected_calibration_error(scores, ahead),
            "on": on,
            "as_shipped": asdict(timeline.bootstrap(counts, timeline.f1, test_scenes.groups)),
            "false_starts_per_minute": starts,
            "at_two": at["f1"],
            "at_two_on": at["on"],
            "_counts": [counts, at["counts"]],
        }
    pairs = [(name, "evidence", "more") for name in models]
    if NO_TRUNK in models:
        pairs.append((OPEN, NO_TRUNK, "more_by_the_trunk"))
    for name, other, key in pairs:
        both = results[name]["_counts"], results[other]["_counts"]
        for at, ours, theirs in zip(("as_shipped", "at_two"), *both, strict=True):
            more = timeline.bootstrap_paired(ours, theirs, timeline.f1, test_scenes.groups)
            results[name][f"{key}_{at}"] = asdict(more)
    for each in results.values():
        del each["_counts"]
    return results


def scores_of(one: str | TraceModel, test_scenes: TrialScenes) -> tuple[np.ndarray, float | None]:
    """Return (float32[n, T, L] of each patch by vocabulary("all"), CPU milliseconds a patch)."""
    chosen = settings(one if isinstance(one, str) else OPEN)
    if isinstance(one, str):
        reasoner = reasoner_of(chosen, len(test_scenes.rows))
        decided, cpu_ms = read(reasoner, test_scenes.rows, test_scenes.scorer)
        return decided[:, :, 0], cpu_ms
    targets = OpenTargets({}, test_scenes.labels, chosen.reasoner.half_life_s)
    scores = trace_training.predict(
        one, targets.examples(test_scenes.streams(YAMNETS), targets.residual([])), 0, 0
    )[:, :, 0]
    ratio, names = chosen.reasoner.specific_ratio, vocabulary("all")
    decided = [[names.most_specific(names.scores(row), ratio) for row in rows] for rows in scores]
    return np.array(decided), None


def train_without_trunk(data: Path, corpus: Path, trial: Path) -> TraceModel:
    """Return a model without a trunk, trained as the shipped open one, for as many epochs."""
    kept = trial / "open-without-trunk.pt"
    if kept.exists():
        return torch.load(kept, weights_only=False)
    card = graph.read_card(graph.open_session(registry.find_reasoner(OPEN), 1), Path(OPEN))
    clips = [clip for clip in datasets.load(data / "esc10") if clip.fold != FOLD]
    recipe = Recipe(seed=SEED, epochs=OPEN_EPOCHS, open=True)
    prepared, targets = open_training_scenes(clips, data, corpus)
    everything = [*prepared.parts, prepared.choose]
    torch.manual_seed(SEED)
    made = TraceModel(
        NoTrunk(),
        len(categories()),
        len(targets.labels),
        targets.lags,
        soft=True,
        residual=targets.residual(everything),
        floored=targets.floored,
    )
    trace_training.fit(
        made,
        trace_reasoner.training_examples(targets, everything, recipe),
        SEED,
        int(card.validation["epochs"]),
        kept.with_suffix(".training"),
        lambda *_: None,
        of_epochs=OPEN_EPOCHS,
    )
    torch.save(made, kept)
    return made


def open_training_scenes(
    clips: Sequence[Clip], data: Path, corpus: Path
) -> tuple[training_scenes.TrainingScenes, OpenTargets]:
    """Return the scenes that an open reasoner is trained on, and its targets."""
    prepared = training_scenes.prepare(
        clips, corpus, None, [SEED, FOLD], Scorer(threads=1), YAMNETS, lambda *_: None, cleaner=True
    )
    names = names_of(prepared.labels, data / "esc50_audioset.csv")
    return prepared, OpenTargets(names, prepared.labels, config.Settings().reasoner.half_life_s)


def train_without_classes(data: Path, corpus: Path, trial: Path) -> Path:
    """Return an open reasoner trained as the shipped one, but without LEFT_OUT; cached."""
    out = trial / "open-left-out.onnx"
    if out.exists():
        return out
    clips = [
        clip
        for clip in datasets.load(data / "esc10")
        if clip.fold != FOLD and clip.label not in LEFT_OUT
    ]
    recipe = Recipe(seed=SEED, epochs=OPEN_EPOCHS, open=True)
    prepared, targets = open_training_scenes(clips, data, corpus)
    kept = trace_reasoner.train_trace_model(
        prepared, targets, recipe, out.with_suffix(".training"), lambda *_: None
    )
    common = {
        "name": out.stem,
        "backbone": "yamnet",
        "hop_s": recipe.hop_s,
        "data": "esc10",
        "folds": sorted({clip.fold for clip in clips}),
        "command": "benchmarks/accuracy.py",
        "version": streamtwl.__version__,
    }
    trace_model.export(
        kept.model,
        recipe.hop_s,
        trace_reasoner.trace_model_card(kept, targets, recipe, common),
        out,
    )
    return out
