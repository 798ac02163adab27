"""How scores become labels: a reasoner's own, or names for AudioSet's categories."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from streamtwl.ontology import Vocabulary
from streamtwl.stages import Decision


class Naming(Protocol):
    """Turns a reasoner's scores into labels."""

    @property
    def labels(self) -> list[str]:
        """All the labels, in the order of a decision's scores."""
        ...

    @property
    def threshold(self) -> float:
        """The confidence at which a label comes into force."""
        ...

    def label(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (scores, specific), float32[..., L] each, of what the reasoner scored."""
        ...


@dataclass(frozen=True, slots=True)
class OwnLabels:
    """Each score has a label; none is a kind of another."""

    labels: list[str]
    threshold: float

    def label(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return float32[..., L] as it is."""
        return scores, scores


@dataclass(frozen=True, slots=True)
class OpenLabels:
    """Scores of the backbone's categories, named by a vocabulary; a parent yields to its kinds."""

    vocabulary: Vocabulary
    specific_ratio: float
    threshold: float
    wanted: np.ndarray | np.bool_ = np.True_  # bool[L]: the others are never in force, nor events

    @property
    def labels(self) -> list[str]:
        """The vocabulary's."""
        return self.vocabulary.labels

    def label(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (scores, specific) of float32[..., C]: see `ontology.py`."""
        named = self.vocabulary.scores(scores)
        return named, self.vocabulary.most_specific(named, self.specific_ratio) * self.wanted

    def of_scores(self, thresholds: np.ndarray) -> np.ndarray:
        """Return float[C], for each category the lowest of its labels' float[L] thresholds."""
        return self.vocabulary.lowest(thresholds)


def decide(
    naming: Naming,
    scores: np.ndarray,
    earlier: np.ndarray | None = None,
    in_force: np.ndarray | None = None,
) -> Decision:
    """Return the decision on a patch, and by now on the B before it.

    Takes float32[L], or float32[C] for the open vocabulary, and float32[B, L or C]. The label in
    force is the strongest of `in_force`, scores too, where it is not that of the patch alone.
    """
    before = [] if earlier is None else [*earlier]
    beside = [] if in_force is None else [in_force]
    scores, specific = naming.label(np.stack([scores, *before, *beside]))
    strongest = specific[-1 if beside else 0]
    best = int(strongest.argmax())
    confidence = float(strongest[best])
    label = naming.labels[best] if confidence >= naming.threshold else None
    stop = 1 + len(before)
    by_now = np.stack([scores[1:stop], specific[1:stop]], axis=1) if before else None
    in_force = strongest if beside else None
    return Decision(label, confidence, scores[0], specific[0], earlier=by_now, in_force=in_force)
