"""The reasoner without a language model: posteriors pooled over time, the past fading."""

import numpy as np

from streamtwl.audio.block import SAMPLE_RATE
from streamtwl.ontology import Vocabulary
from streamtwl.reasoners.decision import Decision


class Evidence:
    """A recursive mean of posteriors with exponential forgetting.

    The weight of a patch halves every `half_life_s` seconds of stream time, so a gap in the stream
    fades the past like the sound that was missed. The label is the strongest after the ontology
    rule (see `ontology.py`), or None where that is under `floor`. Reads the posterior itself, which
    is what many samples would come to.
    """

    kind = "evidence"
    settled = True  # one look at a patch is all there is to it

    def __init__(
        self, vocabulary: Vocabulary, half_life_s: float, specific_ratio: float, floor: float
    ) -> None:
        self.labels = vocabulary.labels
        self._vocabulary = vocabulary
        self._half_life_s = half_life_s
        self._specific_ratio = specific_ratio
        self._floor = floor
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
        scores = self._vocabulary.scores(pooled)
        specific = self._vocabulary.most_specific(scores, self._specific_ratio)
        best = int(specific.argmax())
        confidence = float(specific[best])
        label = self.labels[best] if confidence >= self._floor else None
        return Decision(label, confidence, scores, specific)
