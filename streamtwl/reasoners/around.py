"""A reasoner around another one, of which it changes the decisions and has all else."""

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from streamtwl.stages import Decision, Patch, Reasoner

KEPT = 64  # hops, at most, of which a decision says what it said before


class Around:
    """Keeps float32[T] of each hop for the decisions that it changes: a `stages.Reasoner`."""

    def __init__(self, reasoner: Reasoner) -> None:
        self.reasoner = reasoner
        self._said: dict[int, deque[np.ndarray]] = {}  # by stream: float32[T] a hop
        self._newest: list[int] = []  # streams of the newest patches

    def __getattr__(self, name: str) -> Any:
        """Return what the other reasoner has: its name, labels, lags, figures ..."""
        return getattr(self.reasoner, name)

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
            said.append(self.score(patch))
        return self._changed(self.reasoner.step(patches))

    def refine(self, deadline: float) -> list[Decision] | None:
        """Refine the other reasoner's decisions."""
        decisions = self.reasoner.refine(deadline)
        return decisions and self._changed(decisions)

    def forget(self, stream: int) -> None:
        """Drop a stream's state."""
        self._said.pop(stream, None)
        self.reasoner.forget(stream)

    def score(self, patch: Patch) -> np.ndarray:
        """Return float32[T] of a hop, for `change`."""
        raise NotImplementedError

    def change(self, decision: Decision, said: deque[np.ndarray]) -> Decision:
        """Return what becomes of a decision; the newest of `said` is of its own hop."""
        raise NotImplementedError

    def _changed(self, decisions: list[Decision]) -> list[Decision]:
        return [
            self.change(decision, self._said[stream])
            for decision, stream in zip(decisions, self._newest, strict=True)
        ]
