"""Training of a reader: one small GPT-2 for all categories, taught by what was said later."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import streamtwl
from streamtwl import config
from streamtwl.config import ReasonerSettings, Settings
from streamtwl.errors import UsageError
from streamtwl.messages import SOURCE_NAME
from streamtwl.ontology import categories
from streamtwl.reasoners.card import Card, ReaderCard
from streamtwl.training import datasets, scenes, schedule, scored_scenes
from streamtwl.training.posteriors import Scorer
from streamtwl.training.reader_model import CONTEXT, LAGS, ReaderModel, export
from streamtwl.training.reader_scenes import CANDIDATES, Heard, Hearing, sounds, stretch

VISITS = 2  # stretches of a scene, an epoch
LEARNING_RATE = 2e-3
LAG_WEIGHT = 0.5  # of a hop before in the loss
BEHIND_S = 0.8  # onsets are said 1 s late, offsets 0.5 s (scenes of the same folds)

TRAINED, RANDOM, NONE = "trained", "random", "none"  # what becomes of the GPT-2
STAGES = SCORING, READING, TRAINING = "scenes, scored", "scenes, read", "training"
SCENES = 200  # of two minutes
# As many wrong events as the evidence has at 0.4, on ESC-10's and kitchen20's training folds
ON, OFF = 0.43, 0.22


def new_model(
    heard: Sequence[Heard], chosen: ReasonerSettings, seed: int, body: str = TRAINED
) -> ReaderModel:
    """Return a model that says what the evidence says.

    Of a `body` that is "random" the GPT-2 stays as it is drawn; with "none" the linear path is all.
    """
    torch.manual_seed(seed)
    own, around = heard[0].own.shape[-1], heard[0].around.shape[-1]
    lined = 1 + (own - 3) // 4
    model = ReaderModel(own, around, lined, chosen.scale, chosen.shift)
    some = [stretch(scene, 0, len(scene.own))[0].flatten(0, 1)[::97] for scene in heard]
    model.standardise(torch.cat(some))
    frozen: dict[str, list[nn.Module]] = {
        TRAINED: [],
        RANDOM: [model.trunk],
        NONE: [model.embed, model.trunk, model.read],
    }
    for part in frozen[body]:
        part.requires_grad_(False)
    return model


def fit(
    model: ReaderModel,
    heard: Sequence[Heard],
    seed: int,
    epochs: int,
    state: Path,
    progress: Callable[[int, int], None],
) -> None:
    """Train on stretches of scenes; resumes from `state` if it holds an unfinished run."""

    def next_loss(generator: torch.Generator) -> tuple[Tensor, int]:
        scene = heard[int(torch.randint(len(heard), (), generator=generator))]
        longest = max(1, len(scene.own) - CONTEXT + 1)
        start = int(torch.randint(longest, (), generator=generator))
        features, recent, taught, counts = stretch(scene, start, start + CONTEXT)
        rows, hops = features.shape[:2]
        mask, positions = torch.ones(rows, hops, dtype=torch.bool), torch.arange(hops)
        given = features, recent, mask, positions.expand(rows, -1), model.trunk.empty_cache(rows)
        logits, _ = model.logits(*given)
        loss = torch.zeros(())
        for lag in range(1 + LAGS):
            each = functional.binary_cross_entropy_with_logits(
                logits[:, lag:, lag], taught[:, : hops - lag], reduction="none"
            )
            weight = counts[:, : hops - lag]
            share = 1.0 if lag == 0 else LAG_WEIGHT
            loss = loss + share * (each * weight).sum() / counts.sum()
        return loss, 1

    plan = schedule.Schedule(epochs, epochs, VISITS * len(heard), LEARNING_RATE)
    schedule.run(model, next_loss, plan, seed, state, progress)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a reader is trained, and the pipeline whose windows, prior and weights it is for."""

    pipeline: str = config.DEFAULT_PIPELINE
    scenes: int = SCENES
    epochs: int = 6
    seed: int = 0
    body: str = TRAINED


@dataclass(frozen=True, slots=True)
class Prepared:
    """What readers are trained on: scenes as they read them, and the pipeline."""

    settings: Settings
    scorer: Scorer
    heard: list[Heard]
    sounds: list[str]  # data sets whose clips sound in the scenes
    folds: list[int]


def train(
    corpus: Path,
    folders: Sequence[Path],
    folds: Sequence[int],
    out: Path,
    recipe: Recipe,
    progress: Callable[[str, int, int], None],
) -> Card:
    """Train a reader on scenes of a corpus's sounds and write its file; return its card.

    `folders` are data sets whose clips, of these folds, sound in the scenes, too; their labels are
    not used. The same call resumes a training that was stopped.
    """
    _check_name(out)
    return train_on(prepare(corpus, folders, folds, recipe, progress), out, recipe, progress)


def _check_name(out: Path) -> None:
    if out.suffix != ".onnx" or not SOURCE_NAME.fullmatch(out.stem):
        raise UsageError(f"-o {out}: use a name of a-z, 0-9, _ and - that ends in .onnx")


def prepare(
    corpus: Path,
    folders: Sequence[Path],
    folds: Sequence[int],
    recipe: Recipe,
    progress: Callable[[str, int, int], None],
) -> Prepared:
    """Make the scenes and read them, as `train` does."""
    settings = config.load(config.find(recipe.pipeline))
    packages = scenes.read_pieces(corpus, "train")
    clips = sounds(packages)
    for folder in folders:
        clips += [clip for clip in datasets.load(folder) if not folds or clip.fold in folds]
    scorer = Scorer(settings.windows, settings.hop_s)
    made = scored_scenes.make_training_scenes(
        scored_scenes.Material(clips, packages),
        recipe.scenes,
        [0],  # trainings that differ in their seeds read the same scenes
        scorer,
        lambda done, of: progress(SCORING, done, of),
        crop=True,
        cleaner=True,
    )
    hearing_ = Hearing(settings)
    heard = []
    for number, scene in enumerate(made, 1):
        assert scene.cleaner is not None
        heard.append(hearing_.heard(scene.rows, scene.cleaner, scorer))
        progress(READING, number, len(made))
    names = [folder.resolve().name for folder in folders]
    return Prepared(settings, scorer, heard, names, sorted(folds))


def train_on(
    prepared: Prepared, out: Path, recipe: Recipe, progress: Callable[[str, int, int], None]
) -> Card:
    """Train a reader on prepared scenes, write its file, return its card."""
    heard = prepared.heard
    model = new_model(heard, prepared.settings.reasoner, recipe.seed, recipe.body)
    made_of = f"{recipe}/{prepared.scorer.key}/{heard[-1].taught.sum()}"
    key = hashlib.sha256(made_of.encode()).hexdigest()
    state = out.with_suffix(f".{key[:8]}.training")
    fit(model, heard, recipe.seed, recipe.epochs, state, lambda a, b: progress(TRAINING, a, b))
    card = card_of(out.stem, prepared, recipe)
    export(model, card, out)
    state.unlink(missing_ok=True)
    return card


def card_of(name: str, prepared: Prepared, recipe: Recipe) -> Card:
    """Return the card of a reader."""
    settings = prepared.settings
    chosen, names = settings.reasoner, prepared.sounds
    options = "" if recipe.pipeline == config.DEFAULT_PIPELINE else f" --pipeline {recipe.pipeline}"
    options += "".join(f" --sounds {name}" for name in names)
    options += "".join(f" --fold {fold}" for fold in prepared.folds)
    options += "" if recipe.body == TRAINED else f" --body {recipe.body}"
    return Card(
        name=name,
        about="GPT-2 reads each candidate category's own scores, beside a linear path",
        kind="reader",
        backbone=settings.windows[0].partition(":")[0],
        hop_s=settings.hop_s,
        labels=list(categories()),
        on=ON,
        off=OFF,
        data=", ".join(["corpus", *names]),
        folds=prepared.folds,
        command=f"streamtwl bench reader --corpus CORPUS -o {name}.onnx{options}"
        f" --scenes {recipe.scenes} --epochs {recipe.epochs} --seed {recipe.seed}",
        version=streamtwl.__version__,
        reads=[(window, "posterior") for window in settings.windows],
        sha256=prepared.scorer.sha256,
        reader=ReaderCard(
            windows=settings.windows,
            prior=chosen.prior,
            weights=chosen.weights,
            half_life_s=chosen.half_life_s,
            scale=chosen.scale,
            shift=chosen.shift,
            candidates=CANDIDATES,
            context=CONTEXT,
            behind_s=BEHIND_S,
        ),
    )
