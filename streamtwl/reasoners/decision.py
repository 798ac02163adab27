"""What a reasoner says after each patch."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, slots=True)
class Decision:
    """The label in force after a patch, and how sure the reasoner is of each label."""

    label: str | None  # None: nothing that the vocabulary has a name for
    confidence: float  # of `label`; of the likeliest where it is None; in [0, 1]
    scores: np.ndarray  # float32[L] in [0, 1], one a label of the vocabulary
    specific: np.ndarray  # float32[L], the same with 0 for labels that yield to a kind of theirs
    samples: int = 0  # drawn samples that went into it, over all traces
    traces: int = 0
    refinement: int = 0  # 0 is the first decision on a patch
    earlier: np.ndarray | None = None  # float32[B, 2, L]: scores and specific of the B patches
    # before, newest first, as they look by now


class Reasoner(Protocol):
    """Traces and posteriors to decisions, keeping state per stream."""

    kind: str
    labels: list[str]

    @property
    def settled(self) -> bool:
        """Whether `refine` has nothing to add to the decisions on the newest patches."""
        ...

    @property
    def refining_s(self) -> float:
        """Seconds that a refinement would take, as lately measured."""
        ...

    def step(
        self,
        streams: list[int],
        positions: list[int],
        samples: np.ndarray,
        posteriors: np.ndarray,
    ) -> list[Decision]:
        """Take one new patch of each of S streams: int16[S, M, K, 2], float32[S, C]."""
        ...

    def forget(self, stream: int) -> None:
        """Let go of a stream that has ended."""
        ...

    def refine(self, deadline: float) -> list[Decision] | None:
        """Think on until `deadline` (monotonic seconds); None when there is nothing to add."""
        ...
