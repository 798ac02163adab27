"""All backbones of a pipeline: windows in, patches out, windows of one length in one batch."""

import time
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from streamtwl.features.spectrum import BINS
from streamtwl.features.window import Windower, frames_in
from streamtwl.stages import SAMPLE_RATE, Backbone, Block, End, Patch, Score, Window, WindowKind


class Bank:
    """Scores the newest sound of any streams with every backbone, at every length."""

    def __init__(self, backbones: Sequence[Backbone], kinds: Sequence[WindowKind]) -> None:
        self.backbones = backbones
        self._kinds = kinds
        self._frames = [frames_in(backbones[kind.backbone], kind.length_s) for kind in kinds]

    def score(self, windows: list[Window]) -> list[Patch]:
        """Return one patch a window, in the same order."""
        wanted: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        for k, (kind, frames) in enumerate(zip(self._kinds, self._frames, strict=True)):
            for w, window in enumerate(windows):
                there = min(frames, len(window.features[kind.backbone]))
                wanted[kind.backbone, there].append((w, k))
        found: dict[tuple[int, int], Score] = {}
        for of, all_so_long in wanted.items():
            found |= self._batch(windows, of, all_so_long)
        scores: list[list[Score]] = [[] for _ in windows]
        for w, k in sorted(found):
            scores[w].append(found[w, k])
        return [Patch(w, tuple(s)) for w, s in zip(windows, scores, strict=True)]

    def seconds(self, streams: int) -> dict[str, float]:
        """Return, by backbone, how long it takes for all full windows of one hop, run once."""
        nothing = np.empty(0, np.float32), np.empty((0, BINS), np.float32)
        took: dict[str, float] = defaultdict(float)
        for kind, frames in zip(self._kinds, self._frames, strict=True):
            backbone = self.backbones[kind.backbone]
            bands = backbone.front_end().push(*nothing).shape[1]
            silence = np.zeros((streams, frames, bands), np.float32)
            began = time.perf_counter()
            backbone.score(silence)
            took[backbone.name] += time.perf_counter() - began
        return dict(took)

    def _batch(
        self, windows: list[Window], of: tuple[int, int], kinds: list[tuple[int, int]]
    ) -> dict[tuple[int, int], Score]:
        """Return, by (window, kind), the scores of all windows of this (backbone, frames)."""
        b, frames = of
        backbone = self.backbones[b]
        rows = {w: row for row, w in enumerate(dict.fromkeys(w for w, _ in kinds))}
        features = np.stack([windows[w].features[b][-frames:] for w in rows])
        posteriors, embeddings = backbone.score(features)
        length_s = frames * backbone.frame_hop / SAMPLE_RATE
        return {
            (w, k): Score(self._kinds[k].name, length_s, posteriors[rows[w]], embeddings[rows[w]])
            for w, k in kinds
        }


def of_silence(backbones: Sequence[Backbone], kinds: Sequence[WindowKind]) -> Patch:
    """Return a patch of silence, which shows how long posteriors and embeddings are."""
    block = Block(0, 0, np.zeros(SAMPLE_RATE, np.float32), None, 0.0, last=True)
    cut = Windower(0.48, backbones, kinds).push([block])
    first = next(windows for windows in cut if not isinstance(windows, End))
    return Bank(backbones, kinds).score(first)[0]
