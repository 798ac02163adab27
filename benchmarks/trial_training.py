"""What the live trial trains and teaches for a test fold, and the scenes that it plays."""

import csv
import functools
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import timeline_baselines
import torch
import trial
from trial_methods import BASELINES, GPT2_RECIPES, OF_YAMNET, SEED, SNR_DB, scene_name, slug
from trial_sounds import Sounds

import streamtwl
from streamtwl.errors import SinkError
from streamtwl.reasoners import reads
from streamtwl.reasoners.card import Card
from streamtwl.stages import SAMPLE_RATE
from streamtwl.training import (
    fitting,
    scenes,
    scored_scenes,
    steps,
    trace_model,
    trace_reasoner,
    training_scenes,
)
from streamtwl.training import train as training
from streamtwl.training.fitting import SceneArrays
from streamtwl.training.posteriors import YAMNET, Scorer
from streamtwl.training.targets import Targets

COMMAND = "benchmarks/live_trial.py"
TAUGHT_CLIPS = 5  # a class, of the training folds, each of another recording
FALSE_ALARMS = 24  # a day, as `teach` promises them


def train_fold(sounds: Sounds, corpus: Path, out: Path, fold: int) -> None:
    """Train every baseline for a test fold; write the reasoners' files, and all in models.pt."""
    folder = out / f"fold{fold}"
    if (folder / "models.pt").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    prepared, common = prepare(sounds, corpus, fold)
    chosen = timeline_baselines.fit_timeline(prepared.whole, prepared.choose, SEED, lambda _: None)
    of_yamnet = timeline_baselines.fit_timeline(
        yamnet_alone(prepared.whole), yamnet_alone(prepared.choose), SEED, lambda _: None, OF_YAMNET
    )
    chosen |= {OF_YAMNET[method]: one for method, one in of_yamnet.items()}
    for name in (*BASELINES, OF_YAMNET[fitting.FILTER]):
        one = chosen[name]
        alone = {"reads": [(YAMNET, "posterior")]} if name in OF_YAMNET.values() else {}
        card = Card(
            name=slug(name),
            about=f"{name} on {sounds.name}, test fold {fold}",
            kind="recurrent",
            labels=prepared.labels,
            on=one.on,
            off=one.off,
            validation={
                "in_force_f1": one.in_force_f1,
                "false_starts_per_minute": one.false_starts_per_minute,
                **one.setting,
            },
            **common | alone,
        )
        streams = yamnet_alone(prepared.choose) if alone else prepared.choose
        steps.export(one.step, streams.rows.shape[-1], card, folder / f"{slug(name)}.onnx")
    torch.save(chosen, folder / "models.pt")


def prepare(
    sounds: Sounds, corpus: Path, fold: int
) -> tuple[training_scenes.TrainingScenes, dict[str, Any]]:
    """Return the scenes that a fold's models are trained on, and what their cards share."""
    clips, scored_by = sounds.clips, scorer()
    prepared = training_scenes.prepare(
        clips, corpus, fold, [SEED, fold], scored_by, read_of(scored_by), lambda *_: None
    )
    return prepared, {
        "backbone": reads.backbone_of(YAMNET),
        "reads": read_of(scored_by),
        "sha256": scored_by.sha256,
        "hop_s": scored_by.hop_s,
        "data": sounds.name,
        "folds": sorted({clip.fold for clip in clips} - {fold}),
        "command": COMMAND,
        "version": streamtwl.__version__,
    }


@functools.cache
def scorer(windows: tuple[str, ...] | None = None, folder: Path | None = None) -> Scorer:
    """Return this process's scorer, of all windows whose weights are here unless some are named."""
    torch.set_num_threads(1)
    return Scorer(windows or training.best_windows(), threads=1, folder=folder)


def read_of(scored_by: Scorer) -> list[reads.Read]:
    """Return what all read."""
    return reads.of_windows(scored_by.windows)


def yamnet_alone(streams: SceneArrays) -> SceneArrays:
    """Return streams of which YAMNet's posteriors are read and nothing else."""
    columns = scorer().columns[YAMNET, "posterior"]  # the first ones of what is read, too
    rows, is_posterior = streams.rows[..., columns], streams.is_posterior[columns]
    return replace(streams, rows=np.ascontiguousarray(rows), is_posterior=is_posterior)


def train_trace_model(sounds: Sounds, corpus: Path, out: Path, what: tuple[str, int]) -> None:
    """Train one of GPT2_RECIPES for a test fold; write the reasoner's file."""
    name, fold = what
    folder = out / f"fold{fold}"
    file = folder / f"{slug(name)}.onnx"
    if file.exists():
        return
    prepared, common = prepare(sounds, corpus, fold)
    fitted = torch.load(folder / "models.pt", weights_only=False)[fitting.FILTER]
    recipe = replace(GPT2_RECIPES[name], windows=tuple(scorer().windows))
    targets = Targets(prepared.labels, fitted)
    scratch = folder / slug(name)
    choice = trace_reasoner.choose(prepared, targets, recipe, scratch, lambda *_: None)
    kept = trace_reasoner.train(prepared, targets, recipe, choice, scratch, lambda *_: None)
    card = trace_reasoner.trace_model_card(kept, targets, recipe, {"name": slug(name), **common})
    trace_model.export(kept.model, recipe.hop_s, card, file)


def teach(sounds: Sounds, out: Path, fold: int) -> None:
    """Teach the classes of a test fold by `streamtwl teach`; the data folder is beside its models.

    Raises SinkError where it fails.
    """
    folder = out / f"fold{fold}" / "taught"
    if (folder / "done").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    rng = np.random.default_rng([SEED, fold])
    clips = [clip for clip in sounds.clips if clip.fold != fold]
    for label in sorted({clip.label for clip in clips}):
        own = {clip.source: clip.path for clip in clips if clip.label == label}
        some = [own[source] for source in rng.permutation(sorted(own))[:TAUGHT_CLIPS]]
        command = [*trial.STREAMTWL, "teach", label, *map(str, some)]
        command += ["--false-alarms", str(FALSE_ALARMS)]
        environment = os.environ | {"STREAMTWL_DATA": str(folder)}
        ran = subprocess.run(command, env=environment, capture_output=True, text=True)
        if ran.returncode:
            raise SinkError(f"streamtwl teach failed: {ran.stderr.strip()}")
    (folder / "done").touch()


def make_scenes(
    sounds: Sounds, corpus: Path, out: Path, count: int, minutes: float, fold: int
) -> None:
    """Write a fold's scenes, or with fold 0 the hour of background, as tools/make_scene.py does."""
    folder = out / "scenes"
    folder.mkdir(exist_ok=True)
    packages = scenes.read_pieces(corpus)
    if not fold:
        if not (folder / "background.flac").exists():
            rng = np.random.default_rng([SEED, 0])
            background = scenes.make_background_scene(rng, packages, 60 * minutes)
            soundfile.write(folder / "background.flac", background, SAMPLE_RATE, subtype="PCM_16")
        return
    parts = scenes.read_parts([c for c in sounds.clips if c.fold == fold])
    for number in range(count):
        rng = np.random.default_rng([SEED, fold, number])
        plan = scenes.plan_scene(rng, parts, packages, scored_scenes.SCENE_S)
        for snr_db in SNR_DB:
            stem = folder / scene_name(fold, number, snr_db)
            if stem.with_suffix(".csv").exists():
                continue
            samples, rows = scenes.make_scene(plan, snr_db)
            soundfile.write(stem.with_suffix(".flac"), samples, SAMPLE_RATE, subtype="PCM_16")
            with stem.with_suffix(".csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, scenes.COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
