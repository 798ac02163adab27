"""The open vocabulary on the trial's scenes, through the map; and what `open` is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import timeline
import torch
from after_patches import OPEN
from trial_scenes import FOLD, TrialScenes, expected_calibration_error, matched, read, reasoner_of, settings
from live_trial import SEED
from other_trunks import NoTrunk

import streamtwl
from streamtwl import config
from streamtwl.models import registry
from streamtwl.ontology import categories, vocabulary
from streamtwl.reasoners import graph
from streamtwl.training import datasets, training_scenes, trace_model, trace_training
from streamtwl.training import train as training
from streamtwl.training.datasets import Clip
from streamtwl.training.posteriors import Scorer
from streamtwl.training.trace_model import TraceModel
from streamtwl.training.targets import OpenTargets, names_of
from streamtwl.training.train import Recipe

NO_TRUNK = "open, without a trunk"
OPEN_EPOCHS = 6  # at most
LEFT_OUT = ("rooster", "rain")  # drawn by lot


def open_scenes(
    heard: TrialScenes, right: dict[str, frozenset[str]], readers: Mapping[str, str | TraceModel]
) -> dict[str, dict]:
    """Return in-force F1 of these classes, as shipped and at two false starts a minute.

    Readers are files, or have none.
    """
    labels = sorted(right)
    ahead = heard.streams().ahead[:, :, [heard.labels.index(label) for label in labels]]
    results: dict[str, dict] = {}
    names = vocabulary("all").labels
    columns = [[i for i, n in enumerate(names) if n in right[c]] for c in labels]
    on, off = config.LabelEventSettings().on, config.LabelEventSettings().off
    for name, one in {"evidence": "evidence", **readers}.items():
        told, cpu_ms = said(one, heard)
        scores = np.stack([told[:, :, each].max(axis=-1) for each in columns], axis=-1)
        scenes = heard.scenes(scores, labels, on, off)
        counts = np.array([timeline.agreement(scene) for scene in scenes])
        starts = sum(map(timeline.false_starts, scenes)) / len(scenes) / heard.duration_s * 60
        at = matched(heard, scores, labels, 0.5)
        results[name] = {
            "cpu_ms": cpu_ms,
            "calibration": expected_calibration_error(scores, ahead),
            "on": on,
            "as_shipped": asdict(timeline.bootstrap(counts, timeline.f1, heard.groups)),
            "false_starts_per_minute": starts,
            "at_two": at["f1"],
            "at_two_on": at["on"],
            "_counts": [counts, at["counts"]],
        }
    pairs = [(name, "evidence", "more") for name in readers]
    if NO_TRUNK in readers:
        pairs.append((OPEN, NO_TRUNK, "more_by_the_trunk"))
    for name, other, key in pairs:
        both = results[name]["_counts"], results[other]["_counts"]
        for at, ours, theirs in zip(("as_shipped", "at_two"), *both, strict=True):
            more = timeline.bootstrap_paired(ours, theirs, timeline.f1, heard.groups)
            results[name][f"{key}_{at}"] = asdict(more)
    for each in results.values():
        del each["_counts"]
    return results


def said(one: str | TraceModel, heard: TrialScenes) -> tuple[np.ndarray, float | None]:
    """Return (float32[n, T, L] of each patch by vocabulary("all"), CPU milliseconds a patch)."""
    asked = settings(one if isinstance(one, str) else OPEN)
    if isinstance(one, str):
        told, cpu_ms = read(reasoner_of(asked, len(heard.posteriors)), heard.posteriors)
        return told[:, :, 0], cpu_ms
    targets = OpenTargets({}, heard.labels, asked.reasoner.half_life_s)
    scores = trace_training.predict(one, targets.examples(heard.streams(), targets.residual([])), 0, 0)[:, :, 0]
    ratio, names = asked.reasoner.specific_ratio, vocabulary("all")
    told = [[names.most_specific(names.scores(row), ratio) for row in rows] for rows in scores]
    return np.array(told), None


def train_without_trunk(data: Path, corpus: Path, trial: Path) -> TraceModel:
    """Return a reader without a trunk, taught what the shipped open one was, as many epochs."""
    kept = trial / "open-without-trunk.pt"
    if kept.exists():
        return torch.load(kept, weights_only=False)
    card = graph.read_card(graph.open_session(registry.find_reasoner(OPEN), 1), Path(OPEN))
    clips = [clip for clip in datasets.load(data / "esc10") if clip.fold != FOLD]
    recipe = Recipe(seed=SEED, epochs=OPEN_EPOCHS, open=True)
    given, targets = open_training_scenes(clips, data, corpus)
    everything = [*given.parts, given.choose]
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
        training.training_examples(targets, everything, recipe),
        SEED,
        int(card.validation["epochs"]),
        kept.with_suffix(".training"),
        lambda *_: None,
        of_epochs=OPEN_EPOCHS,
    )
    torch.save(made, kept)
    return made


def open_training_scenes(clips: Sequence[Clip], data: Path, corpus: Path) -> tuple[training_scenes.TrainingScenes, OpenTargets]:
    """Return what an open reasoner is taught with, and its targets."""
    given = training_scenes.prepare(
        clips, corpus, None, [SEED, FOLD], Scorer(threads=1), lambda *_: None, cleaner=True
    )
    names = names_of(given.labels, data / "esc50_audioset.csv")
    return given, OpenTargets(names, given.labels, config.Settings().reasoner.half_life_s)


def teach_without(data: Path, corpus: Path, trial: Path) -> Path:
    """Return an open reasoner taught as the shipped one, but for LEFT_OUT; trained if not there."""
    out = trial / "open-left-out.onnx"
    if out.exists():
        return out
    clips = [
        clip
        for clip in datasets.load(data / "esc10")
        if clip.fold != FOLD and clip.label not in LEFT_OUT
    ]
    recipe = Recipe(seed=SEED, epochs=OPEN_EPOCHS, open=True)
    given, targets = open_training_scenes(clips, data, corpus)
    kept = training.train_trace_model(given, targets, recipe, out.with_suffix(".training"), lambda *_: None)
    common = {
        "name": out.stem,
        "backbone": "yamnet",
        "hop_s": recipe.hop_s,
        "data": "esc10",
        "folds": sorted({clip.fold for clip in clips}),
        "command": "benchmarks/accuracy.py",
        "version": streamtwl.__version__,
    }
    trace_model.export(kept.reader, recipe.hop_s, training.trace_model_card(kept, targets, recipe, common), out)
    return out
