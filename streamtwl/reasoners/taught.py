"""Sounds that the user taught, beside the labels of whatever reasoner runs.

Each hop's embeddings give a confidence for each of them (`sounds/heads.py`), which is `ON` where
the sound may be reported: its own threshold is inside. They come after the reasoner's own labels,
are not revised, and one is in force where it is on and stronger than the others. One that has the
name of a label of the reasoner takes its place.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from streamtwl.sounds.heads import ON, Heads
from streamtwl.stages import Decision, Patch, Reasoner

KEPT = 64  # hops, at most, of which a decision says what it said before


class Taught:
    """A reasoner with the taught sounds beside its labels: a `stages.Reasoner`."""

    def __init__(self, reasoner: Reasoner, heads: Heads) -> None:
        self.reasoner, self.heads = reasoner, heads
        self._others = len(reasoner.labels)
        taken = {name.casefold() for name in heads.labels}
        self._free = np.array([label.casefold() not in taken for label in reasoner.labels])
        self._said: dict[int, deque[np.ndarray]] = {}  # by stream: float32[T] a hop
        self._newest: list[int] = []  # streams of the newest patches

    def __getattr__(self, name: str) -> Any:
        """Return what the other reasoner has: its name, thresholds, lags, figures ..."""
        return getattr(self.reasoner, name)

    @property
    def labels(self) -> list[str]:
        """The reasoner's, and the taught ones."""
        return [*self.reasoner.labels, *self.heads.labels]

    @property
    def stop_requested(self) -> Callable[[], int]:
        """Of a reasoner that waits."""
        return self.reasoner.stop_requested  # type: ignore[attr-defined]

    @stop_requested.setter
    def stop_requested(self, requested: Callable[[], int]) -> None:
        self.reasoner.stop_requested = requested  # type: ignore[attr-defined]

    def step(self, patches: list[Patch]) -> list[Decision]:
        """Take one new patch of each of S streams."""
        self._newest = [patch.window.stream for patch in patches]
        for patch in patches:
            said = self._said.setdefault(patch.window.stream, deque(maxlen=KEPT))
            said.append(self.heads.score(patch))
        return self._beside(self.reasoner.step(patches))

    def refine(self, deadline: float) -> list[Decision] | None:
        """Refine the other reasoner's decisions."""
        decisions = self.reasoner.refine(deadline)
        return decisions and self._beside(decisions)

    def forget(self, stream: int) -> None:
        """Drop a stream's state."""
        self._said.pop(stream, None)
        self.reasoner.forget(stream)

    def thresholds(self, on: np.ndarray, off: np.ndarray) -> None:
        """Pass on those of the reasoner's own labels."""
        self.reasoner.thresholds(on[: self._others], off[: self._others])

    def _beside(self, decisions: list[Decision]) -> list[Decision]:
        return [
            self._decision(decision, self._said[stream])
            for decision, stream in zip(decisions, self._newest, strict=True)
        ]

    def _decision(self, decision: Decision, said: deque[np.ndarray]) -> Decision:
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
