"""All backbones of a pipeline: windows in, patches out, windows of one length in one batch.

With a gate (`reasoners/gate.py`) the first kind of window is scored at every hop, and the others
only where that is worth their time; else their last scores are held.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from streamtwl.features.spectrum import BINS
from streamtwl.features.window import Windower, frames_in
from streamtwl.stages import SAMPLE_RATE, Backbone, Block, End, Patch, Score, Window, WindowKind

HOLD_S = 1.0  # for so long at most: a score that is held knows nothing of what came since


class Bank:
    """Scores the newest sound of any streams with every backbone, at every length."""

    def __init__(
        self,
        backbones: Sequence[Backbone],
        kinds: Sequence[WindowKind],
        gate: Callable[[Score], bool] | None = None,
    ) -> None:
        """`gate` says by the first window's score whether the others are worth a look."""
        self.backbones = backbones
        self.kinds = kinds
        self._frames = [frames_in(backbones[kind.backbone], kind.length_s) for kind in kinds]
        self.gate = gate
        self._last: dict[int, tuple[int, tuple[Score, ...]]] = {}  # by stream: (position, scores)
        self.held: dict[int, int] = {}  # by stream: windows whose scores were held

    def score(self, windows: list[Window], deadline: float = math.inf) -> list[Patch]:
        """Return one patch a window, in the same order.

        After the deadline (monotonic seconds) a gate holds what can be held.
        """
        all_kinds, every = range(len(self.kinds)), range(len(windows))
        if self.gate is None:
            found = self._run(windows, ((w, k) for k in all_kinds for w in every))
        else:
            found = self._run(windows, ((w, 0) for w in every))
            late = time.monotonic() > deadline
            worth = [w for w in every if self._is_worth(windows[w], found[w, 0], late)]
            found |= self._run(windows, ((w, k) for k in all_kinds[1:] for w in worth))
        return [
            Patch(window, self._scores(window, [found.get((w, k)) for k in all_kinds]))
            for w, window in enumerate(windows)
        ]

    def forget(self, stream: int) -> None:
        """Drop what is held of a stream whose sound broke off."""
        self._last.pop(stream, None)

    def seconds(self, streams: int) -> dict[str, float]:
        """Return, by backbone, how long it takes for all full windows of one hop, run once."""
        nothing = np.empty(0, np.float32), np.empty((0, BINS), np.float32)
        took: dict[str, float] = defaultdict(float)
        for kind, frames in zip(self.kinds, self._frames, strict=True):
            backbone = self.backbones[kind.backbone]
            bands = backbone.front_end().push(*nothing).shape[1]
            silence = np.zeros((streams, frames, bands), np.float32)
            began = time.perf_counter()
            backbone.score(silence)
            took[backbone.name] += time.perf_counter() - began
        return dict(took)

    def _is_worth(self, window: Window, first: Score, late: bool) -> bool:
        """Whether the windows beyond the first are to be scored at this hop."""
        if window.stream not in self._last:
            return True
        scored_at, _ = self._last[window.stream]
        if window.position - scored_at > HOLD_S * SAMPLE_RATE:
            return True
        return not late and self.gate is not None and self.gate(first)

    def _scores(self, window: Window, found: list[Score | None]) -> tuple[Score, ...]:
        """Return a window's scores, those that were not found from before."""
        there = tuple(score for score in found if score is not None)
        if len(there) == len(found):
            if self.gate is not None:
                self._last[window.stream] = window.position, there
            return there
        held = len(found) - len(there)
        self.held[window.stream] = self.held.get(window.stream, 0) + held
        _, before = self._last[window.stream]
        return tuple(new or old for new, old in zip(found, before, strict=True))

    def _run(
        self, windows: list[Window], these: Iterable[tuple[int, int]]
    ) -> dict[tuple[int, int], Score]:
        """Return the scores of these (window, kind)."""
        wanted: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        for w, k in these:
            backbone = self.kinds[k].backbone
            there = min(self._frames[k], len(windows[w].features[backbone]))
            wanted[backbone, there].append((w, k))
        found: dict[tuple[int, int], Score] = {}
        for of, all_so_long in wanted.items():
            found |= self._batch(windows, of, all_so_long)
        return found

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
            (w, k): Score(self.kinds[k].name, length_s, posteriors[rows[w]], embeddings[rows[w]])
            for w, k in kinds
        }


def of_silence(backbones: Sequence[Backbone], kinds: Sequence[WindowKind]) -> Patch:
    """Return a patch of silence, which shows how long posteriors and embeddings are."""
    block = Block(0, 0, np.zeros(SAMPLE_RATE, np.float32), None, 0.0, last=True)
    cut = Windower(0.48, backbones, kinds).push([block])
    first = next(windows for windows in cut if not isinstance(windows, End))
    return Bank(backbones, kinds).score(first)[0]
