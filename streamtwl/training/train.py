"""`streamtwl train`: from labelled clips to a reasoner's file."""

import hashlib
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import streamtwl
from streamtwl import config
from streamtwl.config import Settings
from streamtwl.errors import UsageError
from streamtwl.messages import SOURCE_NAME
from streamtwl.ontology import categories
from streamtwl.reasoners.card import Card, TraceCard
from streamtwl.training import (
    datasets,
    fitting,
    steps,
    trace_model,
    trace_training,
    training_scenes,
    trunks,
)
from streamtwl.training.datasets import Clip
from streamtwl.training.posteriors import Scorer
from streamtwl.training.targets import ClosedTargets, OpenTargets, Targets, names_of
from streamtwl.training.trace_model import TraceModel
from streamtwl.training.training_scenes import TrainingScenes

MODELS, CHECKING, FINAL = "HMM filter", "to choose the epochs", "to keep"
STAGES = (
    training_scenes.FITTING,
    training_scenes.CHOOSING,
    training_scenes.BACKGROUND,
    MODELS,
    CHECKING,
    FINAL,
)
NO_TRUNK = "none"
OPEN_HOPS_S = (0.3, 0.6)  # from window to window, so that the next two cover the hop
SAMPLES = 16  # K at which thresholds are chosen
Progress = Callable[[str, int, int], None]  # (what, done, of)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is trained, and how."""

    trunk: str = trunks.TINY  # or a Hugging Face directory or id, or "none": the HMM filter alone
    trained: str = "all"  # or "embedding": the trunk stays frozen
    soft: bool = True
    residual: bool = True
    rows: str = "own"  # the embedding starts from what the trunk has for it; or at "random"
    open: bool = False  # AudioSet's categories, not the data set's labels
    epochs: int = 8
    hop_s: float = 0.48
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Trained:
    """A trace model as the validation split chose it, trained on all scenes."""

    model: TraceModel
    on: float
    off: float
    in_force_f1: float  # on the validation split, by the hop
    false_starts_per_minute: float
    epochs: int


def train(
    folder: Path,
    corpus: Path,
    out: Path,
    leave_out: Sequence[int],
    recipe: Recipe,
    progress: Progress,
    names: Path | None = None,
) -> Card:
    """Train a reasoner on scenes of a data set's clips; write its file, return its card.

    For the open vocabulary `names` is a table of what labels are called: see `targets.names_of`.
    `corpus` holds the backgrounds, in which none of the sounds may occur. Folds left out are not
    used. The same call resumes a training that was stopped. Raises UsageError for a data set or a
    name that does not fit.
    """
    if out.suffix != ".onnx" or not SOURCE_NAME.fullmatch(out.stem):
        raise UsageError(f"-o {out}: use a name of a-z, 0-9, _ and - that ends in .onnx")
    clips = [clip for clip in datasets.load(folder) if clip.fold not in leave_out]
    if not clips:
        raise UsageError(f"--leave-out leaves no clip of {folder}")
    _refuse(recipe, clips, names)
    leave_out = sorted(set(leave_out))
    name = folder.resolve().name
    scorer = Scorer(hop_s=recipe.hop_s)
    seed = [recipe.seed, *leave_out]
    prepared = training_scenes.prepare(
        clips, corpus, None, seed, scorer, progress, cleaner=recipe.open
    )
    left_out = "".join(f" --leave-out {fold}" for fold in leave_out)
    before = trunks.made_by(recipe.trunk)
    common: dict[str, Any] = {
        "name": out.stem,
        "backbone": "yamnet",
        "hop_s": recipe.hop_s,
        "data": name,
        "folds": sorted({clip.fold for clip in clips}),
        "command": (f"{before} && " if before else "")
        + f"streamtwl {'train' if _is_default(recipe) else 'bench train'} {shlex.quote(name)}"
        + f" --corpus CORPUS -o {out.name}{left_out}"
        + _options(recipe)
        + (f" --names {shlex.quote(names.name)}" if names else ""),
        "version": streamtwl.__version__,
    }
    targets: Targets
    if recipe.open:
        half_life_s = Settings().reasoner.half_life_s
        targets = OpenTargets(names_of(prepared.labels, names), prepared.labels, half_life_s)
        return _train_and_write(prepared, targets, recipe, out, common, progress)
    progress(MODELS, 0, 1)
    fitted = fitting.fit_filter(prepared.whole, prepared.choose)
    progress(MODELS, 1, 1)
    if recipe.trunk == NO_TRUNK:
        card = Card(
            about=f"{fitting.FILTER} over a linear model of single patches",
            kind="recurrent",
            labels=prepared.labels,
            on=fitted.on,
            off=fitted.off,
            validation=_figures(fitted, fitted.setting),
            **common,
        )
        steps.export(fitted.step, len(categories()), card, out)
        return card
    targets = ClosedTargets(prepared.labels, fitted)
    return _train_and_write(prepared, targets, recipe, out, common, progress)


def _refuse(recipe: Recipe, clips: Sequence[Clip], names: Path | None) -> None:
    """Raise UsageError for options that do not fit together, before any work."""
    config.override(Settings(), {"hop_s": recipe.hop_s})  # what `listen` would refuse
    if recipe.open and recipe.trunk == NO_TRUNK:
        raise UsageError("--open trains a trace model: leave --body none out")
    if recipe.open and not OPEN_HOPS_S[0] <= recipe.hop_s <= OPEN_HOPS_S[1]:
        raise UsageError(
            f"--open learns from the next two windows, so it needs a --hop of {OPEN_HOPS_S[0]:g} "
            f"to {OPEN_HOPS_S[1]:g} s"
        )
    if names is not None and not recipe.open:
        raise UsageError("--names is for --open: add it, or leave --names out")
    if recipe.open:
        names_of({clip.label for clip in clips}, names)
    if recipe.trunk != NO_TRUNK:
        trunks.load(recipe.trunk, recipe.seed)


def _train_and_write(
    prepared: TrainingScenes,
    targets: Targets,
    recipe: Recipe,
    out: Path,
    common: dict[str, Any],
    progress: Progress,
) -> Card:
    weights = sum(
        each.double().sum() for each in trunks.load(recipe.trunk, recipe.seed).parameters()
    )
    identity = f"{recipe}/{common}/{targets.key}/{prepared.whole.posteriors.sum()}/{weights}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:8]  # no other training resumes from it
    scratch = out.with_suffix(f".{key}.training")
    kept = train_trace_model(prepared, targets, recipe, scratch, progress)
    card = trace_model_card(kept, targets, recipe, common)
    trace_model.export(kept.model, recipe.hop_s, card, out)
    shutil.rmtree(scratch)
    return card


def train_trace_model(
    prepared: TrainingScenes, targets: Targets, recipe: Recipe, scratch: Path, progress: Progress
) -> Trained:
    """Train on the scenes to fit, choose epochs and thresholds, and train again on all scenes.

    Backgrounds alone may cause no more events than the targets allow.

    For each part of the scenes the residual path is fitted on the other parts (as in stacking:
    Wolpert, Stacked generalization, Neural Networks 5 (1992)); otherwise a trace model would learn
    to trust it more than it deserves on new scenes.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    tried: dict[int, tuple[float, dict[str, float]]] = {}
    first = build(targets, prepared.parts, recipe)
    choose = targets.examples(prepared.choose, first.residual)
    background = targets.examples(prepared.background, first.residual)
    allowed = targets.background_events_allowed(prepared)

    def thresholds_of(now: np.ndarray) -> dict[str, float]:
        scores = trace_training.predict(first, background, SAMPLES, recipe.seed)[:, :, 0]
        on_background = targets.label_scores(scores)
        _, found = fitting.pick_best(
            [({}, targets.label_scores(now))],
            prepared.choose,
            lambda on, off: fitting.onsets(on_background, on, off) <= allowed,
        )
        return found

    def check(epoch: int) -> None:
        now = trace_training.predict(first, choose, SAMPLES, recipe.seed)[:, :, 0]
        loss = torch.nn.functional.binary_cross_entropy(
            torch.from_numpy(now), choose.target[:, :, 0], choose.weight
        )
        tried[epoch] = loss.item(), thresholds_of(now)
        torch.save(tried, scratch / "tried.partial")
        (scratch / "tried.partial").rename(scratch / "tried.pt")

    if (scratch / "tried.pt").exists():
        tried = torch.load(scratch / "tried.pt", weights_only=False)
    trace_training.fit(
        first,
        training_examples(targets, prepared.parts, recipe),
        recipe.seed,
        recipe.epochs,
        scratch / "first.pt",
        lambda done, of: progress(CHECKING, done, of),
        check,
    )
    epochs = min(tried, key=lambda epoch: tried[epoch][0])
    thresholds = tried[epochs][1]
    everything = [*prepared.parts, prepared.choose]
    final = build(targets, everything, recipe)
    trace_training.fit(
        final,
        training_examples(targets, everything, recipe),
        recipe.seed,
        epochs,
        scratch / "final.pt",
        lambda done, of: progress(FINAL, done, of),
        of_epochs=recipe.epochs,
    )
    return Trained(final, epochs=epochs, **thresholds)


def build(targets: Targets, parts: Sequence[fitting.SceneArrays], recipe: Recipe) -> TraceModel:
    """Return an untrained trace model over a residual path fitted on these parts."""
    trunk = trunks.load(recipe.trunk, recipe.seed)
    if recipe.trained == "embedding":
        trunk.requires_grad_(False)
    if recipe.rows == "random":
        trunk.initial_embedding = None
    residual = targets.residual(parts) if recipe.residual else None
    return TraceModel(
        trunk,
        len(categories()),
        len(targets.labels),
        targets.lags,
        recipe.soft,
        residual,
        floored=targets.floored if recipe.residual else None,
        grows=targets.grows and recipe.residual,
    )


def training_examples(
    targets: Targets, parts: Sequence[fitting.SceneArrays], recipe: Recipe
) -> trace_training.TraceExamples:
    """Return the training examples of each part, its residual path fitted on the other parts."""
    made = []
    for part in parts:
        others = [other for other in parts if other is not part]
        made.append(targets.examples(part, targets.residual(others) if recipe.residual else None))
    return trace_training.joined(made)


def trace_model_card(
    kept: Trained, targets: Targets, recipe: Recipe, common: dict[str, Any]
) -> Card:
    """Return the card of a trace model."""
    return Card(
        about=f"{_trunk_name(recipe)} reads the {'soft' if recipe.soft else 'sampled'} trace"
        + (f", beside {targets.about}" if recipe.residual else ""),
        kind="gpt2",
        labels=targets.labels,
        open=recipe.open,
        on=kept.on,
        off=kept.off,
        trace=TraceCard(
            body=_trunk_name(recipe),
            trained="embedding" if recipe.trained == "embedding" else "all",
            soft=recipe.soft,
            samples=(0, 0)
            if recipe.soft
            else (trace_training.SAMPLES[0], trace_training.SAMPLES[-1]),
            temperature=1.0,
            context=min(kept.model.context, trace_training.HORIZON_PATCHES)  # positions it has seen
            if recipe.soft
            else kept.model.context,
            residual=targets.about if recipe.residual else "",
        ),
        validation=_figures(kept, {"epochs": kept.epochs}),
        **common,
    )


def _figures(kept: Trained | fitting.Chosen, more: Mapping[str, float]) -> dict[str, float]:
    return {
        "in_force_f1": round(kept.in_force_f1, 4),
        "false_starts_per_minute": round(kept.false_starts_per_minute, 3),
        **more,
    }


def _trunk_name(recipe: Recipe) -> str:
    """Return a trunk's name: a Hugging Face id whole, of a file or folder the last part."""
    return Path(recipe.trunk).resolve().name if Path(recipe.trunk).exists() else recipe.trunk


def _is_default(recipe: Recipe) -> bool:
    """Return whether `streamtwl train` can make it, without the switches of `bench train`."""
    return recipe == Recipe(epochs=recipe.epochs, hop_s=recipe.hop_s, seed=recipe.seed)


def _options(recipe: Recipe) -> str:
    """Return the options that make a recipe."""
    if _is_default(recipe):
        kind = f" --epochs {recipe.epochs}"
    elif recipe.trunk == NO_TRUNK:
        kind = f" --body {NO_TRUNK}"
    else:
        trace = "soft" if recipe.soft else "sampled"
        kind = (
            f" --body {shlex.quote(_trunk_name(recipe))} --train {recipe.trained} --trace {trace}"
        )
        kind += f"{'' if recipe.residual else ' --no-residual'} --epochs {recipe.epochs}"
        kind += " --rows random" if recipe.rows == "random" else ""
        kind += " --open" if recipe.open else ""
    return f"{kind} --seed {recipe.seed} --hop {recipe.hop_s:g}"
