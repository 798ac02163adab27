"""The reasoner without a language model: posteriors pooled over time, the past fading."""

import numpy as np

from streamtwl.config import LabelEventSettings
from streamtwl.reasoners.naming import Naming, decide
from streamtwl.stages import SAMPLE_RATE, Decision, Patch


class Evidence:
    """A recursive mean of posteriors with exponential forgetting.

    The weight of a patch halves every `half_life_s` seconds of stream time. Reads the posterior
    itself, the expectation of many samples.
    """

    name, sha256 = "evidence", ""
    open = True
    on, off = LabelEventSettings().on, LabelEventSettings().off
    lags = 0
    settled = True  # one look at a patch is all there is to it
    refining_s = 0.0

    def __init__(self, naming: Naming, half_life_s: float, behind: int) -> None:
        """A score is about the middle of a window, `behind` samples before its end."""
        self.labels = naming.labels
        self.behind = behind
        self._naming = naming
        self._half_life_s = half_life_s
        self._pooled: dict[int, tuple[int, np.ndarray]] = {}  # stream: (position, float32[C])

    def step(self, patches: list[Patch]) -> list[Decision]:
        """Take one new patch of each of S streams."""
        return [self._step(p.window.stream, p.window.position, p.posterior) for p in patches]

    def forget(self, stream: int) -> None:
        """Drop the state of a stream whose sound broke off."""
        self._pooled.pop(stream, None)

    def thresholds(self, on: np.ndarray, off: np.ndarray) -> None:
        """Do nothing: decisions do not depend on them."""

    def refine(self, deadline: float) -> None:
        """Return None: there is nothing to refine."""
        return None

    def _step(self, stream: int, position: int, posterior: np.ndarray) -> Decision:
        pooled = posterior
        if stream in self._pooled:
            before, past = self._pooled[stream]
            kept = np.float32(0.5 ** ((position - before) / SAMPLE_RATE / self._half_life_s))
            pooled = kept * past + (1 - kept) * posterior
        self._pooled[stream] = (position, pooled)
        return decide(self._naming, pooled)
