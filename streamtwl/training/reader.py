"""Training of a reader: one small GPT-2 for all categories, taught by what was said later.

Nothing is labelled. The teacher is the evidence itself, of the same scene in less noise, and a
little further ahead, where each window's middle is. So all categories are taught alike, and every
recording teaches; taught the truth of a few classes, a reader was worse on all others
(docs/results.md).
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GPT2Config, GPT2Model

import streamtwl
from streamtwl import config
from streamtwl.config import ReasonerSettings, Settings
from streamtwl.errors import UsageError
from streamtwl.messages import SOURCE_NAME
from streamtwl.ontology import categories, kinds_among
from streamtwl.pipeline import hearing
from streamtwl.reasoners import reader
from streamtwl.reasoners.candidates import Candidates, Hop
from streamtwl.reasoners.card import Card, ReaderCard
from streamtwl.reasoners.fusion import Fusion, sigmoid
from streamtwl.reasoners.gpt2 import cache_names
from streamtwl.reasoners.smoothing import Smoother
from streamtwl.stages import SAMPLE_RATE, Patch, Score, Window
from streamtwl.training import datasets, scenes, schedule, scored_scenes
from streamtwl.training.datasets import Clip
from streamtwl.training.export import write
from streamtwl.training.posteriors import Scorer
from streamtwl.training.trunks import Trunk

LAGS = 4  # hops that a decision revises
CONTEXT = 32  # hops
CANDIDATES = 16
RECENT = 7  # hops that the linear path reads
WIDTH, LAYERS, HEADS, DROPOUT = 64, 2, 4, 0.1
NOISIER = 1.0  # the noisy scene's logits count for this much less as a teacher's
VISITS = 2  # stretches of a scene, an epoch
LEARNING_RATE = 2e-3
LAG_WEIGHT = 0.5  # of a hop before in the loss
SOUND_S = (0.3, 8.0)  # of the corpus, taken as sounds of their own
SOUNDS = 150  # of a package, at most
BEHIND_S = 0.8  # onsets are said 1 s late, offsets 0.5 s (scenes of the same folds)
NO_SOUNDS = ("asterisk", "espeak", "klettres", "noise")  # voices and noise: backgrounds only

TRAINED, RANDOM, NONE = "trained", "random", "none"  # what becomes of the GPT-2
STAGES = SCORING, READING, TRAINING = "scenes, scored", "scenes, read", "training"
SCENES = 200  # of two minutes
# As many wrong events as the evidence has at 0.4, on ESC-10's and kitchen20's training folds
ON, OFF = 0.43, 0.22
# Of the logits, so that of the labels given with 0.7 seven in ten are right (clips of those folds)
SCALE, SHIFT = 1.12, 0.89


@dataclass(frozen=True, slots=True)
class Heard:
    """A scene as a reader reads it: T hops, the C categories that are candidates at some hop."""

    own: np.ndarray  # float16[T, C, F]
    around: np.ndarray  # float16[T, X]
    candidate: np.ndarray  # bool[T, C]
    taught: np.ndarray  # float16[T, C] in [0, 1]


class ReaderModel(nn.Module):
    """A linear path over the newest hops, the same for all categories, and what GPT-2 adds."""

    def __init__(
        self, own: int, around: int, lined: int, joined_scale: float, shift: float
    ) -> None:
        """Take the sizes F, X and V; at first each score is the evidence of its hop."""
        super().__init__()
        self.line = nn.Parameter(torch.zeros(1 + LAGS, RECENT, lined))
        self.shift = nn.Parameter(torch.full((1 + LAGS,), shift))
        with torch.no_grad():
            for lag in range(1 + LAGS):
                self.line[lag, lag, 0] = joined_scale
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(own + around))
        self.register_buffer("scale", torch.ones(own + around))
        self.embed = nn.Linear(own + around, WIDTH)
        config = GPT2Config(
            n_layer=LAYERS,
            n_embd=WIDTH,
            n_head=HEADS,
            n_positions=CONTEXT,
            vocab_size=1,
            bos_token_id=0,
            eos_token_id=0,
            resid_pdrop=DROPOUT,
            embd_pdrop=DROPOUT,
            attn_pdrop=0.0,
        )
        self.trunk = Trunk(GPT2Model(config))
        self.drop = nn.Dropout(DROPOUT)
        self.read = nn.Linear(WIDTH, 1 + LAGS)
        nn.init.zeros_(self.read.weight)
        nn.init.zeros_(self.read.bias)

    def standardise(self, features: Tensor) -> None:
        """Take float32[n, F + X] for each feature's mean and standard deviation."""
        self.mean.copy_(features.mean(dim=0))
        self.scale.copy_(features.std(dim=0) + 0.05)

    def logits(
        self,
        features: Tensor,
        recent: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        past: list[Tensor],
    ) -> tuple[Tensor, list[Tensor]]:
        """Return float32[R, T, 1 + B], and what the cache grows by; shapes as `forward`'s."""
        embedded = self.embed((features - self.mean) / self.scale)
        hidden, new = self.trunk(embedded, past, attention_mask, position_ids)
        line = torch.einsum("rtkv,bkv->rtb", recent, self.line) + self.shift
        return line + self.read(self.drop(hidden)), new

    def forward(
        self,
        features: Tensor,
        recent: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        past_key_values: list[Tensor],
    ) -> tuple[Tensor, list[Tensor]]:
        """T new hops of R rows; see `reasoners/reader.py` for shapes."""
        logits, new = self.logits(features, recent, attention_mask, position_ids, past_key_values)
        return torch.sigmoid(SCALE * logits + SHIFT), new


class Hearing:
    """Scored scenes to what a reader reads of them, through the live path's own stages."""

    def __init__(self, settings: Settings) -> None:
        """Take the pipeline whose windows, prior and weights the reader is for."""
        self.chosen: ReasonerSettings = settings.reasoner
        self.windows = settings.windows
        backbones, kinds = hearing(settings)
        self._halves = [round(kind.length_s / 2 / settings.hop_s) for kind in kinds]
        self._fusion = Fusion(
            kinds, backbones, categories(), self.chosen.prior, self.chosen.weights
        )
        wanted = np.array([settings.events.wants(each) for each in categories()])
        wanted[categories().index("Silence")] = False
        self._candidates = Candidates(
            self._fusion, self.windows, kinds_among(categories()), wanted, CANDIDATES
        )
        self._hop = round(settings.hop_s * SAMPLE_RATE)

    def hops(self, rows: np.ndarray, scorer: Scorer) -> list[Hop]:
        """Return the hops of a scene, of float16[T, F] rows of a scorer with the same windows."""
        smoother = Smoother(self._fusion, self.chosen.half_life_s)
        columns = [scorer.columns[window, "posterior"] for window in self.windows]
        nothing = np.zeros(0, np.float32)
        made = []
        for t, row in enumerate(rows.astype(np.float32)):
            scores = tuple(
                Score(window, 0.0, row[where], nothing)
                for window, where in zip(self.windows, columns, strict=True)
            )
            at = Window(0, t * self._hop, 0, t == 0, (), 0.0, None, 0.0)
            made.append(self._candidates.hop(*smoother.push(Patch(at, scores))))
        return made

    def heard(self, rows: np.ndarray, cleaner: np.ndarray, scorer: Scorer) -> Heard:
        """Return a scene, with the teacher's scores."""
        hops, less_noise = self.hops(rows, scorer), self.hops(cleaner, scorer)
        candidate = np.zeros((len(hops), len(hops[0].joined)), bool)
        for t, hop in enumerate(hops):
            candidate[t, self._candidates.pick(hop)] = True
        some = candidate.any(axis=0)
        ahead = np.maximum(self._ahead(less_noise), self._ahead(hops) - NOISIER)
        taught = sigmoid(self.chosen.scale * ahead + self.chosen.shift)
        return Heard(
            np.stack([hop.own[some] for hop in hops]).astype(np.float16),
            np.stack([hop.around for hop in hops]).astype(np.float16),
            candidate[:, some],
            taught[:, some].astype(np.float16),
        )

    def _ahead(self, hops: Sequence[Hop]) -> np.ndarray:
        """Return float32[T, C] logits, each window's from two hops, the later half of it ahead."""
        own = np.stack([hop.own for hop in hops])
        last = len(own) - 1
        scores = {}
        for i, (window, half) in enumerate(zip(self.windows, self._halves, strict=True), 1):
            at = [np.minimum(np.arange(len(own)) + k, last) for k in (max(0, half - 2), half)]
            scores[window] = np.mean([sigmoid(own[each, :, i]) for each in at], axis=0)
        joined: np.ndarray = np.stack(
            [self._fusion.join({w: s[t] for w, s in scores.items()}) for t in range(len(own))]
        )
        return joined


def sounds(packages: Sequence[Sequence[Path]]) -> list[Clip]:
    """Return what in a corpus is a sound of its own, labelled by its package: no label is used."""
    found = []
    for package in packages:
        if package[0].parent.name.startswith(NO_SOUNDS):
            continue
        lengths = [(file, soundfile.info(file).duration) for file in package]
        short = [file for file, length_s in lengths if SOUND_S[0] <= length_s <= SOUND_S[1]]
        step = max(1, len(short) // SOUNDS)
        name = package[0].parent.name
        found += [Clip(file, name, f"{name}/{file.name}", 0) for file in short[::step]]
    return found


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
    some = [_stretch(scene, 0, len(scene.own))[0].flatten(0, 1)[::97] for scene in heard]
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
        features, recent, taught, counts = _stretch(scene, start, start + CONTEXT)
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


def _stretch(scene: Heard, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return a stretch of the categories that are candidates in it.

    Features float32[R, T, F + X], recent float32[R, T, K, V], what is taught float32[R, T], and
    whether it counts, float32[R, T].
    """
    some = scene.candidate[start:stop].any(axis=0)
    before = max(0, start - RECENT + 1)
    own = scene.own[before:stop, some].astype(np.float32)
    hops = len(scene.own[start:stop])
    around = np.repeat(scene.around[start:stop, None].astype(np.float32), some.sum(), axis=1)
    features = np.concatenate((own[-hops:], around), axis=-1).swapaxes(0, 1)
    lined = 1 + (own.shape[-1] - 3) // 4
    recent = reader.recent(own[..., :lined].swapaxes(0, 1), hops, RECENT)
    taught = scene.taught[start:stop, some].astype(np.float32).T
    counts = scene.candidate[start:stop, some].astype(np.float32).T
    return (
        torch.from_numpy(features.copy()),
        torch.from_numpy(recent),
        torch.from_numpy(taught.copy()),
        torch.from_numpy(counts.copy()),
    )


def export(model: ReaderModel, card: Card, path: Path) -> None:
    """Write a reader's file."""
    rows, past, hops = 2, 3, 2
    features, lined = len(model.mean), model.line.shape[-1]
    given: dict[str, Any] = {
        "features": torch.zeros(rows, hops, features),
        "recent": torch.zeros(rows, hops, RECENT, lined),
        "attention_mask": torch.ones(rows, past + hops, dtype=torch.bool),
        "position_ids": torch.arange(past, past + hops).expand(rows, -1).contiguous(),
        "past_key_values": [
            torch.randn(rows, model.trunk.heads, past, model.trunk.head_width)
            for _ in range(2 * model.trunk.layers)
        ],
    }
    auto = torch.export.Dim.DYNAMIC
    dynamic: dict[str, Any] = {
        "features": {0: auto, 1: auto},
        "recent": {0: auto, 1: auto},
        "attention_mask": {0: auto, 1: auto},
        "position_ids": {0: auto, 1: auto},
        "past_key_values": [{0: auto, 2: auto}] * (2 * model.trunk.layers),
    }
    inputs = [*reader.INPUTS, *cache_names("past_key_values", model.trunk.layers)]
    outputs = [*reader.OUTPUTS, *cache_names("present", model.trunk.layers)]
    write(model, given, dynamic, inputs, outputs, card, path)


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
