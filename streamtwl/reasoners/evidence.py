"""The reasoner without a language model: posteriors pooled over time, the past fading."""

import numpy as np

from streamtwl.audio.block import SAMPLE_RATE
from streamtwl.reasoners.decision import Decision
from streamtwl.reasoners.naming import Naming, decide


class Evidence:
    """A recursive mean of posteriors with exponential forgetting.

    The weight of a patch halves every `half_life_s` seconds of stream time, so a gap in the stream
    fades the past like the sound that was missed. Reads the posterior itself, which is
    what many samples would come to.
    """

    kind = "evidence"
    settled = True  # one look at a patch is all there is to it
    refining_s = 0.0

    def __init__(self, naming: Naming, half_life_s: float) -> None:
        self.labels = naming.labels
        self._naming = naming
        self._half_life_s = half_life_s
        self._pooled: dict[int, tuple[int, np.ndarray]] = {}  # stream: (position, float32[C])

    def step(
        self,
        streams: list[int],
        positions: list[int],
        samples: np.ndarray,
        posteriors: np.ndarray,
    ) -> list[Decision]:
        """Take one new patch of each of S streams; `samples` is not read."""
        return [self._step(*patch) for patch in zip(streams, positions, posteriors, strict=True)]

    def forget(self, stream: int) -> None:
        """Let go of a stream that has ended."""
        self._pooled.pop(stream, None)

    def refine(self, deadline: float) -> None:
        """Nothing to add: one look at the posterior is all there is to it."""
        return None

    def _step(self, stream: int, position: int, posterior: np.ndarray) -> Decision:
        pooled = posterior
        if stream in self._pooled:
            before, past = self._pooled[stream]
            kept = np.float32(0.5 ** ((position - before) / SAMPLE_RATE / self._half_life_s))
            pooled = kept * past + (1 - kept) * posterior
        self._pooled[stream] = (position, pooled)
        return decide(self._naming, pooled)
