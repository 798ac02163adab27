"""Recursive means of each window's scores, with exponential forgetting."""

import numpy as np

from streamtwl.reasoners.fusion import Fusion
from streamtwl.stages import SAMPLE_RATE, Patch

Scores = dict[str, np.ndarray]  # by window, float32[C] in [0, 1]


class Smoother:
    """Corrects the scores of patches and smooths them, stream by stream.

    The weight of a patch halves every `half_life_s` seconds of stream time. Windows are smoothed
    before they are joined: the mean of logits would let one low score undo many high ones.
    """

    def __init__(self, fusion: Fusion, half_life_s: float) -> None:
        self._fusion = fusion
        self._half_life_s = half_life_s
        self._past: dict[int, tuple[int, Scores]] = {}  # by stream: (position, smoothed)

    def push(self, patch: Patch) -> tuple[Scores, Scores]:
        """Return a patch's scores, corrected for the prior: as they are, and smoothed."""
        at = patch.window
        newest = {score.window: self._fusion.corrected(score) for score in patch.scores}
        before, past = self._past.get(at.stream, (at.position, newest))
        elapsed_s = (at.position - before) / SAMPLE_RATE
        kept = np.float32(0.5 ** (elapsed_s / self._half_life_s))
        smoothed = {window: kept * past[window] + (1 - kept) * newest[window] for window in newest}
        self._past[at.stream] = at.position, smoothed
        return newest, smoothed

    def forget(self, stream: int) -> None:
        """Drop the state of a stream whose sound broke off."""
        self._past.pop(stream, None)
