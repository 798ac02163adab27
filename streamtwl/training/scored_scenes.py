"""Scenes scored patch by patch, as a reasoner receives them live, with what sounds when.

Sequence models are trained on these. Training, validation and test share no source
recording and no piece of background.
"""

import hashlib
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from streamtwl.backbones.yamnet import WINDOW
from streamtwl.reasoners.reads import Read
from streamtwl.stages import SAMPLE_RATE
from streamtwl.training import scenes
from streamtwl.training.datasets import Clip, split, validation_split
from streamtwl.training.posteriors import Scorer, keep, load

SCENE_S = 120.0
TRAINING_SNR_DB = (0.0, 25.0)
TEST_SNR_DB = (20.0, 10.0, 5.0)
CLEANER_DB = 20.0
TRAINING_SCENES = 120
VALIDATION_SCENES = 40
BACKGROUND_SCENES = 15  # half an hour, to choose by
VALIDATION_SHARE = 4  # one piece of background in four is for validation


@dataclass(frozen=True, slots=True)
class Sound:
    """The truth: one labelled sound."""

    label: str
    onset_s: float
    offset_s: float


@dataclass(frozen=True, slots=True)
class ScoredScene:
    """One scene: its patches and its truth."""

    name: str
    duration_s: float
    positions: np.ndarray  # int64[n], where each patch's window ends
    rows: np.ndarray  # float16[n, F], as the scorer's columns take them apart
    truth: list[Sound]
    cleaner: np.ndarray | None = None  # float16[n, F]: the same scene in less noise, for a teacher

    def reading(self, scorer: Scorer, read: Sequence[Read]) -> "ScoredScene":
        """Return the same, and of its rows what is read."""
        return replace(self, rows=scorer.pick(self.rows, read))

    def sounding(self, labels: Sequence[str], before_s: float = 0.0) -> np.ndarray:
        """Return bool[n, L]: which labels sound `before_s` before each window's end."""
        at = self.positions / SAMPLE_RATE - before_s
        active = np.zeros((len(at), len(labels)), bool)
        index = {label: i for i, label in enumerate(labels)}
        for sound in self.truth:
            active[(at > sound.onset_s) & (at <= sound.offset_s), index[sound.label]] = True
        return active


@dataclass(frozen=True, slots=True)
class Material:
    """What scenes are made of: clips, and pieces of background by package."""

    clips: list[Clip]
    packages: list[list[Path]]


def materials(
    clips: Sequence[Clip], corpus: Path, test_fold: int | None, seed: int = 0
) -> tuple[Material, Material, Material]:
    """Return (to fit, to choose by, to test) for a fold: they share no recording and no piece.

    Without a test fold all clips are trained on.
    """
    training, test = split(clips, test_fold)
    fit, choose = validation_split(training, seed)
    packages = scenes.read_pieces(corpus, "train")

    to_choose = [[piece for piece in pieces if is_choice(piece)] for pieces in packages]
    to_fit = [[piece for piece in pieces if not is_choice(piece)] for pieces in packages]
    return (
        Material(fit, [pieces for pieces in to_fit if pieces]),
        Material(choose, [pieces for pieces in to_choose if pieces]),
        Material(test, [] if test_fold is None else scenes.read_pieces(corpus, "test")),
    )


def is_choice(piece: Path) -> bool:
    """Whether a piece of background is for choosing by, not for fitting."""
    return zlib.crc32(f"{piece.parent.name}/{piece.name}".encode()) % VALIDATION_SHARE == 0


def by_source(material: Material, count: int, seed: int) -> list[Material]:
    """Return the material in parts that share no source recording, each with all the labels."""
    rng = np.random.default_rng(seed)
    part_of: dict[str, int] = {}
    for label in sorted({clip.label for clip in material.clips}):
        sources = sorted({clip.source for clip in material.clips if clip.label == label})
        for number, source in enumerate(rng.permutation(sources)):
            part_of.setdefault(str(source), number % count)
    return [
        Material([c for c in material.clips if part_of[c.source] == part], material.packages)
        for part in range(count)
    ]


def make_training_scenes(
    material: Material,
    count: int,
    seed: Sequence[int],
    scorer: Scorer,
    progress: Callable[[int, int], None],
    crop: bool = False,
    cleaner: bool = False,
) -> list[ScoredScene]:
    """Return scenes at SNRs drawn from TRAINING_SNR_DB, the same for the same seed.

    With `crop` half of the sounds are cut short: see `scenes.cropped`; with `cleaner` each scene is
    also scored in CLEANER_DB less noise.
    """
    parts = scenes.read_parts(material.clips)
    streams = []
    for number in range(count):
        rng = np.random.default_rng([*seed, number])
        chosen = scenes.cropped(rng, parts) if crop else parts
        plan = scenes.plan_scene(rng, chosen, material.packages, SCENE_S)
        snr_db = rng.uniform(*TRAINING_SNR_DB)
        made = score_scene(f"{number:03}", plan, snr_db, scorer)
        if cleaner:
            less_noise = score_scene(made.name, plan, snr_db + CLEANER_DB, scorer)
            made = replace(made, cleaner=less_noise.rows)
        streams.append(made)
        progress(number + 1, count)
    return streams


def make_background_scenes(
    material: Material,
    count: int,
    seed: Sequence[int],
    scorer: Scorer,
    progress: Callable[[int, int], None],
) -> list[ScoredScene]:
    """Return `count` scenes of backgrounds alone: see `scenes.make_background_scene`."""
    streams = []
    for number in range(count):
        rng = np.random.default_rng([*seed, number])
        samples = scenes.make_background_scene(rng, material.packages, SCENE_S)
        rows = scorer.score_samples(samples.astype(np.float32) / 32768).astype(np.float16)
        ends = positions(len(rows), scorer.hop_s, SCENE_S, scorer.first)
        streams.append(ScoredScene(f"background-{number:03}", SCENE_S, ends, rows, []))
        progress(number + 1, count)
    return streams


def score_scene(name: str, plan: scenes.Plan, snr_db: float, scorer: Scorer) -> ScoredScene:
    """Return a planned scene, scored; from the cache if its files have not changed."""
    events = [
        Sound(event.part.label, event.onset / SAMPLE_RATE, event.offset / SAMPLE_RATE)
        for event in plan.events
    ]
    files = [*(stretch.file for stretch in plan.background), *(e.part.file for e in plan.events)]
    versions = [(found.st_size, found.st_mtime_ns) for found in map(Path.stat, files)]
    key = hashlib.sha256(f"{plan}/{versions}/{snr_db}/{scorer.key}".encode()).hexdigest()
    cached = scorer.folder / f"scene-{key}.npy"
    rows = load(cached)
    if rows is None:
        samples, _ = scenes.make_scene(plan, snr_db)
        rows = scorer.score_samples(samples.astype(np.float32) / 32768).astype(np.float16)
        keep(rows, cached)
    duration_s = plan.length / SAMPLE_RATE
    ends = positions(len(rows), scorer.hop_s, duration_s, scorer.first)
    return ScoredScene(name, duration_s, ends, rows, events)


def positions(patches: int, hop_s: float, duration_s: float, first: int = WINDOW) -> np.ndarray:
    """Return int64[n], where the windows of a recording's patches end; the first one at `first`."""
    ends = first + round(hop_s * SAMPLE_RATE) * np.arange(patches)
    return np.minimum(ends, round(duration_s * SAMPLE_RATE))
