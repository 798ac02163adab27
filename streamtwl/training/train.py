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
from streamtwl.training import bodies, datasets, fitting, lessons, reader, reading, steps
from streamtwl.training.datasets import Clip
from streamtwl.training.lessons import Lessons
from streamtwl.training.posteriors import Scorer
from streamtwl.training.reader import Reader
from streamtwl.training.tasks import Closed, Open, Task, names_of

MODELS, CHECKING, FINAL = "HMM filter", "to choose the epochs", "to keep"
STAGES = (lessons.FITTING, lessons.CHOOSING, lessons.NOTHING, MODELS, CHECKING, FINAL)
NO_BODY = "none"
OPEN_HOPS_S = (0.3, 0.6)  # from window to window, so that the next two cover the hop
SAMPLES = 16  # K at which thresholds are chosen
Progress = Callable[[str, int, int], None]  # (what, done, of)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is trained, and how."""

    body: str = bodies.TINY  # or a Hugging Face directory or id, or "none": the HMM filter alone
    trained: str = "all"  # or "embedding": the body stays frozen
    soft: bool = True
    residual: bool = True
    rows: str = "own"  # the embedding starts from what the body has for it; or at "random"
    open: bool = False  # AudioSet's categories, not the data set's labels
    epochs: int = 8
    hop_s: float = 0.48
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Trained:
    """A reader as the validation split chose it, trained on all lessons."""

    reader: Reader
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

    For the open vocabulary `names` is a table of what labels are called: see `tasks.names_of`.
    `corpus` holds the backgrounds, in which none of the sounds is heard. Folds left out are not
    looked at. Stopped, the same call goes on where it was. Raises UsageError for a data set or a
    name that does not fit.
    """
    if out.suffix != ".onnx" or not SOURCE_NAME.fullmatch(out.stem):
        raise UsageError(f"-o {out}: it takes a name of a-z, 0-9, _ and - that ends in .onnx")
    clips = [clip for clip in datasets.load(folder) if clip.fold not in leave_out]
    if not clips:
        raise UsageError(f"--leave-out leaves no clip of {folder}")
    _refuse(recipe, clips, names)
    leave_out = sorted(set(leave_out))
    name = folder.resolve().name
    scorer = Scorer(hop_s=recipe.hop_s)
    seed = [recipe.seed, *leave_out]
    given = lessons.prepare(clips, corpus, None, seed, scorer, progress, cleaner=recipe.open)
    left_out = "".join(f" --leave-out {fold}" for fold in leave_out)
    before = bodies.made_by(recipe.body)
    common: dict[str, Any] = {
        "name": out.stem,
        "backbone": "yamnet",
        "hop_s": recipe.hop_s,
        "data": name,
        "folds": sorted({clip.fold for clip in clips}),
        "command": (f"{before} && " if before else "")
        + f"streamtwl {'train' if _is_users(recipe) else 'bench train'} {shlex.quote(name)}"
        + f" --corpus CORPUS -o {out.name}{left_out}"
        + _said(recipe)
        + (f" --names {shlex.quote(names.name)}" if names else ""),
        "version": streamtwl.__version__,
    }
    task: Task
    if recipe.open:
        half_life_s = Settings().reasoner.half_life_s
        task = Open(names_of(given.labels, names), given.labels, half_life_s)
        return _train_and_write(given, task, recipe, out, common, progress)
    progress(MODELS, 0, 1)
    fitted = fitting.fit_filter(given.whole, given.choose)
    progress(MODELS, 1, 1)
    if recipe.body == NO_BODY:
        card = Card(
            about=f"{fitting.FILTER} over a linear model of single patches",
            kind="recurrent",
            labels=given.labels,
            on=fitted.on,
            off=fitted.off,
            validation=_figures(fitted, fitted.setting),
            **common,
        )
        steps.export(fitted.step, len(categories()), card, out)
        return card
    task = Closed(given.labels, fitted)
    return _train_and_write(given, task, recipe, out, common, progress)


def _refuse(recipe: Recipe, clips: Sequence[Clip], names: Path | None) -> None:
    """Refuse what does not fit, before any work."""
    config.override(Settings(), {"hop_s": recipe.hop_s})  # what `listen` would refuse
    if recipe.open and recipe.body == NO_BODY:
        raise UsageError("--open is for a reader of traces: leave --body none out")
    if recipe.open and not OPEN_HOPS_S[0] <= recipe.hop_s <= OPEN_HOPS_S[1]:
        raise UsageError(
            f"--open is taught by the next two windows, so it takes a --hop of {OPEN_HOPS_S[0]:g} "
            f"to {OPEN_HOPS_S[1]:g} s"
        )
    if names is not None and not recipe.open:
        raise UsageError("--names is for --open: add it, or leave --names out")
    if recipe.open:
        names_of({clip.label for clip in clips}, names)
    if recipe.body != NO_BODY:
        bodies.load(recipe.body, recipe.seed)


def _train_and_write(
    given: Lessons,
    task: Task,
    recipe: Recipe,
    out: Path,
    common: dict[str, Any],
    progress: Progress,
) -> Card:
    body = sum(each.double().sum() for each in bodies.load(recipe.body, recipe.seed).parameters())
    asked = f"{recipe}/{common}/{task.key}/{given.whole.posteriors.sum()}/{body}"
    key = hashlib.sha256(asked.encode()).hexdigest()[:8]  # another training does not go on with it
    scratch = out.with_suffix(f".{key}.training")
    kept = train_reader(given, task, recipe, scratch, progress)
    card = reader_card(kept, task, recipe, common)
    reader.export(kept.reader, recipe.hop_s, card, out)
    shutil.rmtree(scratch)
    return card


def train_reader(
    given: Lessons, task: Task, recipe: Recipe, scratch: Path, progress: Progress
) -> Trained:
    """Train a reader on the scenes to fit, choose epochs and thresholds, and train on all scenes.

    Backgrounds alone may lead to no more events than the task allows.

    The residual path stands on patch models that have not heard the recordings of the scenes they
    read (as in stacking: Wolpert, Stacked generalization, Neural Networks 5 (1992)), else a reader
    would learn to trust it as only training scenes deserve.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    tried: dict[int, tuple[float, dict[str, float]]] = {}
    first = build(task, given.parts, recipe)
    choose = task.readings(given.choose, first.residual)
    nothing = task.readings(given.nothing, first.residual)
    allowed = task.events_of_nothing(given)

    def thresholds_of(now: np.ndarray) -> dict[str, float]:
        of_nothing = task.judged(reading.read(first, nothing, SAMPLES, recipe.seed)[:, :, 0])
        _, found = fitting.pick_best(
            [({}, task.judged(now))],
            given.choose,
            lambda on, off: fitting.onsets(of_nothing, on, off) <= allowed,
        )
        return found

    def check(epoch: int) -> None:
        now = reading.read(first, choose, SAMPLES, recipe.seed)[:, :, 0]
        loss = torch.nn.functional.binary_cross_entropy(
            torch.from_numpy(now), choose.target[:, :, 0], choose.weight
        )
        tried[epoch] = loss.item(), thresholds_of(now)
        torch.save(tried, scratch / "tried.partial")
        (scratch / "tried.partial").rename(scratch / "tried.pt")

    if (scratch / "tried.pt").exists():
        tried = torch.load(scratch / "tried.pt", weights_only=False)
    reading.fit(
        first,
        lesson_readings(task, given.parts, recipe),
        recipe.seed,
        recipe.epochs,
        scratch / "first.pt",
        lambda done, of: progress(CHECKING, done, of),
        check,
    )
    epochs = min(tried, key=lambda epoch: tried[epoch][0])
    thresholds = tried[epochs][1]
    everything = [*given.parts, given.choose]
    final = build(task, everything, recipe)
    reading.fit(
        final,
        lesson_readings(task, everything, recipe),
        recipe.seed,
        epochs,
        scratch / "final.pt",
        lambda done, of: progress(FINAL, done, of),
        of_epochs=recipe.epochs,
    )
    return Trained(final, epochs=epochs, **thresholds)


def build(task: Task, parts: Sequence[fitting.Streams], recipe: Recipe) -> Reader:
    """Return a reader that nothing was taught yet, over a residual path fitted on these parts."""
    body = bodies.load(recipe.body, recipe.seed)
    if recipe.trained == "embedding":
        body.requires_grad_(False)
    if recipe.rows == "random":
        body.rows = None
    residual = task.residual(parts) if recipe.residual else None
    return Reader(
        body,
        len(categories()),
        len(task.labels),
        task.lags,
        recipe.soft,
        residual,
        floored=task.floored if recipe.residual else None,
        grows=task.grows and recipe.residual,
    )


def lesson_readings(
    task: Task, parts: Sequence[fitting.Streams], recipe: Recipe
) -> reading.Readings:
    """Return what a reader reads of each part, its residual path fitted on the others."""
    made = []
    for part in parts:
        others = [other for other in parts if other is not part]
        made.append(task.readings(part, task.residual(others) if recipe.residual else None))
    return reading.joined(made)


def reader_card(kept: Trained, task: Task, recipe: Recipe, common: dict[str, Any]) -> Card:
    """Return the card of a reader."""
    return Card(
        about=f"{_body(recipe)} reads the {'soft' if recipe.soft else 'sampled'} trace"
        + (f", beside {task.about}" if recipe.residual else ""),
        kind="gpt2",
        labels=task.labels,
        open=recipe.open,
        on=kept.on,
        off=kept.off,
        trace=TraceCard(
            body=_body(recipe),
            trained="embedding" if recipe.trained == "embedding" else "all",
            soft=recipe.soft,
            samples=(0, 0) if recipe.soft else (reading.SAMPLES[0], reading.SAMPLES[-1]),
            temperature=1.0,
            context=min(kept.reader.context, reading.HORIZON_PATCHES)  # positions it has seen
            if recipe.soft
            else kept.reader.context,
            residual=task.about if recipe.residual else "",
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


def _body(recipe: Recipe) -> str:
    """Return what a body is called: a Hugging Face id whole, of a file or folder the last part."""
    return Path(recipe.body).resolve().name if Path(recipe.body).exists() else recipe.body


def _is_users(recipe: Recipe) -> bool:
    """Return whether `streamtwl train` makes it, without the switches of `bench train`."""
    return recipe == Recipe(epochs=recipe.epochs, hop_s=recipe.hop_s, seed=recipe.seed)


def _said(recipe: Recipe) -> str:
    """Return the options that make a recipe."""
    if _is_users(recipe):
        kind = f" --epochs {recipe.epochs}"
    elif recipe.body == NO_BODY:
        kind = f" --body {NO_BODY}"
    else:
        trace = "soft" if recipe.soft else "sampled"
        kind = f" --body {shlex.quote(_body(recipe))} --train {recipe.trained} --trace {trace}"
        kind += f"{'' if recipe.residual else ' --no-residual'} --epochs {recipe.epochs}"
        kind += " --rows random" if recipe.rows == "random" else ""
        kind += " --open" if recipe.open else ""
    return f"{kind} --seed {recipe.seed} --hop {recipe.hop_s:g}"
