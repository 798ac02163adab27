"""What a reader is trained on: scenes as it reads them, and what the evidence says later.

Nothing is labelled. The teacher is the evidence itself, of the same scene in less noise, and a
little further ahead, where each window's middle is. So all categories are taught alike, and every
recording teaches; taught the truth of a few classes, a reader was worse on all others
(docs/results.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from streamtwl.config import ReasonerSettings, Settings
from streamtwl.ontology import categories, kinds_among
from streamtwl.pipeline import hearing
from streamtwl.reasoners import reader
from streamtwl.reasoners.candidates import Candidates, Hop
from streamtwl.reasoners.fusion import Fusion, sigmoid
from streamtwl.reasoners.smoothing import Smoother
from streamtwl.stages import SAMPLE_RATE, Patch, Score, Window
from streamtwl.training.datasets import Clip
from streamtwl.training.posteriors import Scorer
from streamtwl.training.reader_model import RECENT

CANDIDATES = 16
NOISIER = 1.0  # the noisy scene's logits count for this much less as a teacher's
SOUND_S = (0.3, 8.0)  # of the corpus, taken as sounds of their own
SOUNDS = 150  # of a package, at most
NO_SOUNDS = ("asterisk", "espeak", "klettres", "noise")  # voices and noise: backgrounds only


@dataclass(frozen=True, slots=True)
class Heard:
    """A scene as a reader reads it: T hops, the C categories that are candidates at some hop."""

    own: np.ndarray  # float16[T, C, F]
    around: np.ndarray  # float16[T, X]
    candidate: np.ndarray  # bool[T, C]
    taught: np.ndarray  # float16[T, C] in [0, 1]


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
        taught = self._taught(hops, less_noise)
        return Heard(
            np.stack([hop.own[some] for hop in hops]).astype(np.float16),
            np.stack([hop.around for hop in hops]).astype(np.float16),
            candidate[:, some],
            taught[:, some].astype(np.float16),
        )

    def teacher(self, rows: np.ndarray, cleaner: np.ndarray, scorer: Scorer) -> np.ndarray:
        """Return the teacher's scores of a scene, float32[T, C] in [0, 1]."""
        return self._taught(self.hops(rows, scorer), self.hops(cleaner, scorer))

    def _taught(self, hops: Sequence[Hop], less_noise: Sequence[Hop]) -> np.ndarray:
        ahead = np.maximum(self._ahead(less_noise), self._ahead(hops) - NOISIER)
        return sigmoid(self.chosen.scale * ahead + self.chosen.shift)

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


def stretch(scene: Heard, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
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
