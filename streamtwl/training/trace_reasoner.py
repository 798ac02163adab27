"""Training of a reasoner with a language model: epochs and thresholds chosen, then all of it."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from streamtwl.ontology import categories
from streamtwl.reasoners.card import Card, TraceCard
from streamtwl.training import fitting, schedule, trace_training, trunks
from streamtwl.training.recipe import CHECKING, FINAL, Progress, Recipe, figures, trunk_name
from streamtwl.training.targets import Targets
from streamtwl.training.trace_model import TraceModel
from streamtwl.training.training_scenes import TrainingScenes

SAMPLES = 16  # K at which thresholds are chosen


@dataclass(frozen=True, slots=True)
class Choice:
    """What the validation split chose, and how well it did there, by the hop."""

    epochs: int
    on: float
    off: float
    in_force_f1: float
    false_starts_per_minute: float


@dataclass(frozen=True, slots=True)
class Trained(Choice):
    """A trace model as the validation split chose it, trained on all scenes."""

    model: TraceModel


def scratch(
    prepared: TrainingScenes, targets: Targets, recipe: Recipe, out: Path, common: dict[str, Any]
) -> Path:
    """Return the folder of a training's checkpoints: no other training resumes from them."""
    weights = sum(
        each.double().sum() for each in trunks.load(recipe.trunk, recipe.seed).parameters()
    )
    identity = f"{recipe}/{common}/{targets.key}/{prepared.whole.rows.sum(dtype=float)}/{weights}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:8]
    return out.with_suffix(f".{key}.training")


def choose(
    prepared: TrainingScenes, targets: Targets, recipe: Recipe, scratch: Path, progress: Progress
) -> Choice:
    """Train on the scenes to fit, and choose epochs and thresholds on those to choose on.

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
        _, found = fitting.pick_best(
            [({}, now)],
            prepared.choose,
            lambda on, off: fitting.onsets(scores, on, off) <= allowed,
        )
        return found

    def check(epoch: int) -> None:
        now = trace_training.predict(first, choose, SAMPLES, recipe.seed)[:, :, 0]
        loss = torch.nn.functional.binary_cross_entropy(
            torch.from_numpy(now), choose.target[:, :, 0]
        )
        tried[epoch] = loss.item(), thresholds_of(now)
        torch.save(tried, scratch / "tried.partial")
        (scratch / "tried.partial").rename(scratch / "tried.pt")

    if (kept := schedule.load(scratch / "tried.pt")) is not None:
        tried = kept
    else:
        (scratch / "first.pt").unlink(missing_ok=True)  # its epochs have to be tried again
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
    return Choice(epochs, **tried[epochs][1])


def train(
    prepared: TrainingScenes,
    targets: Targets,
    recipe: Recipe,
    choice: Choice,
    scratch: Path,
    progress: Progress,
) -> Trained:
    """Train on all scenes for as many epochs as were chosen."""
    everything = [*prepared.parts, prepared.choose]
    final = build(targets, everything, recipe)
    trace_training.fit(
        final,
        training_examples(targets, everything, recipe),
        recipe.seed,
        choice.epochs,
        scratch / "final.pt",
        lambda done, of: progress(FINAL, done, of),
        of_epochs=recipe.epochs,
    )
    return Trained(model=final, **asdict(choice))


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
        about=f"{trunk_name(recipe)} reads the {'soft' if recipe.soft else 'sampled'} trace"
        + (f", beside {targets.about}" if recipe.residual else ""),
        kind="gpt2",
        labels=targets.labels,
        on=kept.on,
        off=kept.off,
        trace=TraceCard(
            body=trunk_name(recipe),
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
            categories=kept.model.categories,
        ),
        validation=figures(kept, {"epochs": kept.epochs}),
        **common,
    )
