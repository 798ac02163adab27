"""Sounds that the user taught, beside the labels of whatever reasoner runs.

Each hop's embeddings give a confidence for each of them (`sounds/heads.py`), which is `ON` where
the sound may be reported: its own threshold is inside. They come after the reasoner's own labels,
are not revised, and one is in force where it is on and stronger than the others. One that has the
name of a label of the reasoner takes its place.
"""

from collections import deque
from dataclasses import replace

import numpy as np

from streamtwl.reasoners.around import Around
from streamtwl.sounds.heads import ON, Heads
from streamtwl.stages import Decision, Patch, Reasoner


class Taught(Around):
    """A reasoner with the taught sounds beside its labels: a `stages.Reasoner`."""

    def __init__(self, reasoner: Reasoner, heads: Heads) -> None:
        super().__init__(reasoner)
        self.heads = heads
        self._others = len(reasoner.labels)
        taken = {name.casefold() for name in heads.labels}
        self._free = np.array([label.casefold() not in taken for label in reasoner.labels])

    @property
    def labels(self) -> list[str]:
        """The reasoner's, and the taught ones."""
        return [*self.reasoner.labels, *self.heads.labels]

    def score(self, patch: Patch) -> np.ndarray:
        """Return float32[T] confidences of a hop."""
        return self.heads.score(patch)

    def thresholds(self, on: np.ndarray, off: np.ndarray) -> None:
        """Pass on those of the reasoner's own labels."""
        self.reasoner.thresholds(on[: self._others], off[: self._others])

    def change(self, decision: Decision, said: deque[np.ndarray]) -> Decision:
        """Return a decision on all labels, of one on the reasoner's own."""
        now = said[-1]
        free = self._free
        label, confidence = decision.label, decision.confidence
        own = decision.specific if decision.in_force is None else decision.in_force
        if label is not None and not free[self._index(label)]:
            best = int((own * free).argmax())
            confidence = float(own[best] * free[best])
            label = None  # whose threshold is the reasoner's own affair
        strongest = int(now.argmax())
        if now[strongest] >= ON and (label is None or now[strongest] >= confidence):
            label, confidence = self.heads.labels[strongest], float(now[strongest])
        earlier = decision.earlier
        if earlier is not None:
            before = np.zeros((len(earlier), 2, len(now)), np.float32)
            for lag, scores in enumerate([*said][-2 : -2 - len(earlier) : -1]):
                before[lag] = scores
            earlier = np.concatenate((earlier * free, before), axis=2)
        in_force = None
        if decision.in_force is not None:
            in_force = np.concatenate((own * free, now))
        return replace(
            decision,
            label=label,
            confidence=confidence,
            scores=np.concatenate((decision.scores * free, now)),
            specific=np.concatenate((decision.specific * free, now)),
            earlier=earlier,
            in_force=in_force,
        )

    def _index(self, label: str) -> int:
        return self.reasoner.labels.index(label)
