"""The reasoner without training: corrected scores of all windows, smoothed, joined, named."""

from collections.abc import Sequence

import numpy as np

from streamtwl.config import ReasonerSettings
from streamtwl.features.window import samples_in
from streamtwl.reasoners.fusion import Fusion, sigmoid
from streamtwl.reasoners.naming import Naming, decide
from streamtwl.reasoners.smoothing import Smoother
from streamtwl.stages import SAMPLE_RATE, Backbone, Decision, Patch, WindowKind


class Evidence:
    """Recursive means of each window's scores (`smoothing.py`), joined and calibrated."""

    name, sha256 = "evidence", ""
    lags = 0
    settled = True  # one look at a patch is all there is to it
    refining_s = 0.0

    def __init__(
        self,
        naming: Naming,
        fusion: Fusion,
        settings: ReasonerSettings,
        behind: int,
        open: bool = True,
    ) -> None:
        """A score is about the sound `behind` samples before its window's end: see `delay`."""
        self.open = open
        self.on, self.off = settings.on, settings.off
        self.labels = naming.labels
        self.behind = behind
        self.naming = naming
        self._fusion = fusion
        self._settings = settings
        self._smoother = Smoother(fusion, settings.half_life_s)

    def step(self, patches: list[Patch]) -> list[Decision]:
        """Take one new patch of each of S streams."""
        return [self.decision(self.score(patch)) for patch in patches]

    def decision(self, scores: np.ndarray) -> Decision:
        """Return the decision that float32[C] confidences lead to."""
        return decide(self.naming, scores)

    def forget(self, stream: int) -> None:
        """Drop the state of a stream whose sound broke off."""
        self._smoother.forget(stream)

    def thresholds(self, on: np.ndarray, off: np.ndarray) -> None:
        """Do nothing: decisions do not depend on them."""

    def refine(self, deadline: float) -> None:
        """Return None: there is nothing to refine."""
        return None

    def score(self, patch: Patch) -> np.ndarray:
        """Take a stream's next patch; return float32[C], each category's confidence in [0, 1]."""
        _, smoothed = self._smoother.push(patch)
        return sigmoid(self._settings.scale * self._fusion.join(smoothed) + self._settings.shift)


def delay(
    kinds: Sequence[WindowKind],
    backbones: Sequence[Backbone],
    settings: ReasonerSettings,
    hop_s: float,
) -> int:
    """Return the samples by which scores cross a threshold after the sound did, on average.

    Three delays add up: a window's score is about its middle (of several windows, the mean by their
    weights); the recursive mean's is a hop times k / (1 - k), where k is the share that it keeps;
    and the crossing was somewhere in the hop before it was seen.
    """
    middles = [samples_in(backbones[kind.backbone], kind.length_s) / 2 for kind in kinds]
    weights = [settings.weights.get(kind.name, 1.0) for kind in kinds]
    kept = 0.5 ** (hop_s / settings.half_life_s)
    hops = kept / (1 - kept) + 0.5
    return round(float(np.average(middles, weights=weights)) + hops * hop_s * SAMPLE_RATE)
