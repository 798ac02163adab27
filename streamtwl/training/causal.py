"""Training of the causal network: at every patch what two frozen backbones say of that moment.

The teacher is the evidence of `default`, of the same scene in less noise and a little further ahead
(`reader_scenes.py`); where a labelled clip sounds, its label and what that is a kind of count as
present, too.
"""

import csv
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

import streamtwl
from streamtwl import config
from streamtwl.errors import UsageError
from streamtwl.features.spectrum import FRAME_HOP, Spectrum
from streamtwl.models.checkpoint import BackboneCard
from streamtwl.ontology import ancestors, categories
from streamtwl.stages import SAMPLE_RATE
from streamtwl.training import causal_model, datasets, scenes, schedule, scored_scenes
from streamtwl.training.causal_model import MEMORY, PATCH, CausalModel
from streamtwl.training.datasets import Clip
from streamtwl.training.posteriors import Scorer
from streamtwl.training.reader_scenes import Hearing, sounds

SCORING, TRAINING = STAGES = "scenes, scored", "training"
SCENES = 320  # of two minutes
EPOCHS = 12  # each as many stretches as there are ten seconds in the scenes, twice
BATCH = 24  # stretches of MEMORY patches
LEARNING_RATE = 1.5e-3
PRESENT = 0.95  # of a label, where the truth has it
GAIN = 1.2  # of log-mel, up or down: 10 dB
MASKED = 10  # bands of log-mel, at most, that a stretch goes without
HELD_OUT = 16  # of so many scenes one, to show the loss on

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Heard:
    """A scene of T patches."""

    log_mel: np.ndarray  # float16[PATCH + PATCH T, 64]
    taught: np.ndarray  # float16[T, C] in [0, 1]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How it is trained."""

    scenes: int = SCENES
    epochs: int = EPOCHS
    seed: int = 0


def train(
    corpus: Path,
    folders: Sequence[Path],
    folds: Sequence[int],
    names: Mapping[str, Sequence[str]],
    out: Path,
    recipe: Recipe,
    progress: Progress,
) -> BackboneCard:
    """Train on scenes of a corpus's sounds and of data sets' clips of these folds; write the file.

    `names` are AudioSet's categories that are right for a data set's class. The same call resumes a
    training that was stopped.
    """
    clips: list[Clip] = []
    for folder in folders:
        clips += apart(datasets.load(folder), folds)
    made, sha256 = prepare(corpus, clips, names, recipe, progress)
    held_out, to_fit = made[::HELD_OUT], [s for i, s in enumerate(made) if i % HELD_OUT]
    torch.manual_seed(recipe.seed)
    model = CausalModel(len(categories()))
    key = hashlib.sha256(f"{recipe}/{sha256}/{to_fit[0].taught.sum()}".encode()).hexdigest()
    state = out.with_suffix(f".{key[:8]}.training")
    losses: list[float] = []
    fit(model, to_fit, recipe, state, lambda a, b: progress(TRAINING, a, b),
        lambda _: losses.append(loss_of(model, held_out)))  # fmt: skip
    used = "".join(f" --sounds {folder.resolve().name}" for folder in folders)
    card = BackboneCard(
        name=out.stem,
        about="Causal convolutions and attention, a posterior every 0.16 s, 10 s of memory",
        labels=list(categories()),
        data=", ".join(["corpus", *(folder.resolve().name for folder in folders)]),
        folds=sorted(folds),
        teachers=sha256,
        held_out_loss=round(losses[-1], 5),
        command=f"streamtwl bench causal --corpus CORPUS{used}"
        + "".join(f" --fold {fold}" for fold in sorted(folds))
        + f" --names NAMES.csv --scenes {recipe.scenes} --epochs {recipe.epochs}"
        f" --seed {recipe.seed} -o {out.name}",
        version=streamtwl.__version__,
    )
    causal_model.export(model, card, out)
    state.unlink(missing_ok=True)
    return card


def apart(clips: Sequence[Clip], folds: Sequence[int]) -> list[Clip]:
    """Return the clips of these folds, without those whose source is in another fold, too."""
    others = {clip.source for clip in clips if folds and clip.fold not in folds}
    return [c for c in clips if (not folds or c.fold in folds) and c.source not in others]


def right_names(tables: Sequence[Path]) -> dict[str, list[str]]:
    """Return by class the categories that count as right; raises UsageError.

    A table has the columns category and audioset, names separated by |.
    """
    found: dict[str, list[str]] = {}
    for table in tables:
        with table.open(newline="") as file:
            for row in csv.DictReader(file):
                found[row["category"]] = [n for n in row["audioset"].split("|") if n]
    unknown = {name for names in found.values() for name in names} - {*categories()}
    if unknown:
        raise UsageError(f"--names: {min(unknown)} is none of AudioSet's categories")
    return found


def prepare(
    corpus: Path,
    clips: Sequence[Clip],
    names: Mapping[str, Sequence[str]],
    recipe: Recipe,
    progress: Progress,
) -> tuple[list[Heard], dict[str, str]]:
    """Make the scenes and let the teachers hear them; return them and the teachers' checksums."""
    settings = config.load(config.find("evidence"))
    scorer, hearing = Scorer(settings.windows, settings.hop_s), Hearing(settings)
    packages = scenes.read_pieces(corpus, "train")
    parts = scenes.read_parts([*sounds(packages), *clips])
    made = []
    for number in range(recipe.scenes):
        rng = np.random.default_rng([17, number])
        plan = scenes.plan_scene(rng, scenes.cropped(rng, parts), packages, scored_scenes.SCENE_S)
        snr_db = rng.uniform(*scored_scenes.TRAINING_SNR_DB)
        scored = [
            scored_scenes.score_scene(f"{number}", plan, each, scorer)
            for each in (snr_db, snr_db + scored_scenes.CLEANER_DB)
        ]
        samples = scenes.make_scene(plan, snr_db)[0].astype(np.float32) / 32768
        features = causal_model.silence_before(Spectrum().push(samples))
        teacher = hearing.teacher(scored[0].rows, scored[1].rows, scorer)
        taught = at_patches(teacher, scored[0].positions, len(features) // PATCH - 1)
        add_truth(taught, plan, names)
        made.append(Heard(features.astype(np.float16), taught.astype(np.float16)))
        progress(SCORING, number + 1, recipe.scenes)
    return made, scorer.sha256


def at_patches(scores: np.ndarray, positions: np.ndarray, patches: int) -> np.ndarray:
    """Return float32[T, C] at the ends of patches, between float32[n, C] at `positions`."""
    ends = FRAME_HOP * PATCH * (1 + np.arange(patches))
    after = np.clip(np.searchsorted(positions, ends), 1, len(positions) - 1)
    share = (ends - positions[after - 1]) / (positions[after] - positions[after - 1])
    share = np.clip(share, 0, 1)[:, None].astype(np.float32)
    between: np.ndarray = (1 - share) * scores[after - 1] + share * scores[after]
    return between


def add_truth(taught: np.ndarray, plan: scenes.Plan, names: Mapping[str, Sequence[str]]) -> None:
    """Raise float32[T, C] where a labelled clip sounds: its categories, and their ancestors."""
    index = {name: i for i, name in enumerate(categories())}
    ends = FRAME_HOP * PATCH * (1 + np.arange(len(taught)))
    for event in plan.events:
        now = (ends > event.onset + 0.1 * SAMPLE_RATE) & (ends <= event.offset)
        right = names.get(event.part.label, ())
        columns = {index[name] for name in right[:1]}
        columns |= {above for name in right for above in ancestors()[index[name]]}
        for column in columns:
            taught[now, column] = np.maximum(taught[now, column], PRESENT)


def fit(
    model: CausalModel,
    heard: Sequence[Heard],
    recipe: Recipe,
    state: Path,
    progress: Callable[[int, int], None],
    each_epoch: Callable[[int], None],
) -> None:
    """Train on stretches of scenes that begin with no memory; resumes from `state`."""

    def next_loss(generator: torch.Generator) -> tuple[Tensor, int]:
        some = [_stretch(heard, generator) for _ in range(BATCH)]
        features, taught = (torch.from_numpy(np.stack(each)) for each in zip(*some, strict=True))
        features = _varied(features.float(), generator)
        logits, _, _ = model.logits(features, causal_model.nothing_before(BATCH))
        return functional.binary_cross_entropy_with_logits(logits, taught.float()), BATCH

    per_epoch = 2 * sum(len(each.taught) for each in heard) // MEMORY
    plan = schedule.Schedule(recipe.epochs, recipe.epochs, per_epoch, LEARNING_RATE)
    schedule.run(model, next_loss, plan, recipe.seed, state, progress, each_epoch)


@torch.no_grad()
def loss_of(model: CausalModel, heard: Sequence[Heard]) -> float:
    """Return the cross-entropy a patch and category on whole scenes."""
    model.eval()
    losses = []
    for each in heard:
        features = torch.from_numpy(each.log_mel.astype(np.float32))[None]
        logits, _, _ = model.logits(features, causal_model.nothing_before(1))
        taught = torch.from_numpy(each.taught.astype(np.float32))[None]
        losses.append(functional.binary_cross_entropy_with_logits(logits, taught).item())
    model.train()
    return float(np.mean(losses))


def _stretch(heard: Sequence[Heard], generator: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw MEMORY patches of a scene."""
    scene = heard[int(torch.randint(len(heard), (), generator=generator))]
    last = len(scene.taught) - MEMORY
    start = int(torch.randint(last + 1, (), generator=generator))
    frames = scene.log_mel[PATCH * start : PATCH * (start + MEMORY + 1)]
    return frames, scene.taught[start : start + MEMORY]


def _varied(log_mels: Tensor, generator: torch.Generator) -> Tensor:
    """Change each stretch's level, and take some bands out (SpecAugment)."""
    n, _, bands = log_mels.shape
    gain = GAIN * (2 * torch.rand(n, 1, 1, generator=generator) - 1)
    width = torch.randint(MASKED + 1, (n, 1), generator=generator)
    start = (torch.rand(n, 1, generator=generator) * (bands - width)).long()
    band = torch.arange(bands)
    masked = (band >= start) & (band < start + width)
    return torch.where(masked[:, None], log_mels.mean(dim=(1, 2), keepdim=True), log_mels + gain)
