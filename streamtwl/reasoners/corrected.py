"""Labels that the user marked wrong, less believed where it sounds as it did then.

Each hop's embeddings give a factor for each corrected label (`marks/corrections.py`), by which its
scores at that hop are multiplied, also when the hop is decided again later.
"""

from collections import deque
from dataclasses import replace

import numpy as np

from streamtwl.marks.corrections import Corrections
from streamtwl.reasoners.around import Around
from streamtwl.stages import Decision, Patch, Reasoner

LOST = 0.5  # a factor, below which a hop sounds like what was marked wrong


class Corrected(Around):
    """A reasoner whose labels are corrected by marks: a `stages.Reasoner`."""

    def __init__(self, reasoner: Reasoner, corrections: Corrections) -> None:
        super().__init__(reasoner)
        index = {label: i for i, label in enumerate(reasoner.labels)}
        self._corrections = corrections
        self._here = [i for i, label in enumerate(corrections.labels) if label in index]
        self._labels = [index[corrections.labels[i]] for i in self._here]

    def score(self, patch: Patch) -> np.ndarray:
        """Return float32[T], the factors of a hop."""
        return self._corrections.score(patch)[self._here]

    def change(self, decision: Decision, said: deque[np.ndarray]) -> Decision:
        """Return a decision with the corrected labels' scores lowered.

        In the place of a label that loses half, or the lead, comes the strongest, if it is at `on`.
        """
        factors = said[-1]
        earlier = decision.earlier
        if earlier is not None:
            earlier = earlier.copy()
            for lag, then in enumerate([*said][-2 : -2 - len(earlier) : -1]):
                earlier[lag][:, self._labels] *= then
        specific = self._lower(decision.specific, factors)
        in_force = decision.in_force
        if in_force is not None:
            in_force = self._lower(in_force, factors)
        strongest = specific if in_force is None else in_force
        best = int(strongest.argmax())
        label, confidence = decision.label, float(strongest[best])
        lost = {self.reasoner.labels[i] for i in np.array(self._labels)[factors < LOST]}
        if label is not None and (label in lost or self.reasoner.labels[best] != label):
            label = self.reasoner.labels[best] if confidence >= self.reasoner.on else None
        return replace(
            decision,
            label=label,
            confidence=confidence,
            scores=self._lower(decision.scores, factors),
            specific=specific,
            earlier=earlier,
            in_force=in_force,
        )

    def _lower(self, scores: np.ndarray, factors: np.ndarray) -> np.ndarray:
        lowered = scores.copy()
        lowered[self._labels] *= factors
        return lowered
