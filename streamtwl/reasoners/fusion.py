"""Several windows' posteriors, corrected for their backbones' priors, joined into one.

*Prior correction*: a high score means little for a category that a backbone scores high on any
sound. A share of its mean logit on generic audio is subtracted (logit adjustment: A. K. Menon et
al., "Long-Tail Learning via Logit Adjustment", ICLR 2021).

*Joining*: the weighted mean of the logits, the same weights for all categories (log-linear pooling:
C. Genest and J. V. Zidek, "Combining Probability Distributions", Statistical Science 1986).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from streamtwl.errors import ConfigError, UsageError
from streamtwl.stages import Backbone, Score, WindowKind

# What is nearer to 0 or 1 is rounding: a logit of 11.5
LOWEST, HIGHEST = np.float32(1e-5), np.float32(1 - 1e-5)


class Fusion:
    """Scores of windows in, one score a category out, over the categories of all of them."""

    def __init__(
        self,
        kinds: Sequence[WindowKind],
        backbones: Sequence[Backbone],
        categories: Sequence[str],
        share: float,
        weights: Mapping[str, float],
    ) -> None:
        """Correct by `share` of the prior; `weights` by window, 1 where absent.

        Raises ConfigError for a weight of an unknown window or none above 0, UsageError where a
        backbone has none of the categories.
        """
        if unknown := weights.keys() - {kind.name for kind in kinds}:
            there = ", ".join(kind.name for kind in kinds)
            raise ConfigError(
                f"reasoner.weights: {min(unknown)} is not a window here: there is {there}"
            )
        if not any(weights.get(kind.name, 1.0) for kind in kinds):
            raise ConfigError("reasoner.weights: all are 0: give one window more")
        self._maps: dict[str, np.ndarray] = {}  # by window, int[C]: its category, or -1
        self._offsets: dict[str, np.ndarray] = {}  # float32[C], subtracted from its logits
        self._weights: dict[str, np.ndarray] = {}  # float32[C], 0 where it has no such category
        for kind in kinds:
            backbone = backbones[kind.backbone]
            index = {name: i for i, name in enumerate(backbone.categories)}
            taken = np.array([index.get(name, -1) for name in categories])
            if not (taken >= 0).any():
                raise UsageError(
                    f"{backbone.name} has none of AudioSet's categories: choose a reasoner that "
                    "reads its own"
                )
            prior = np.zeros(len(index)) if backbone.prior is None else backbone.prior
            offsets = share * (prior - prior.mean())[taken]
            self._maps[kind.name] = taken
            self._offsets[kind.name] = offsets.astype(np.float32)
            self._weights[kind.name] = np.float32(weights.get(kind.name, 1.0)) * (taken >= 0)

    def corrected(self, score: Score) -> np.ndarray:
        """Return float32[C] in [0, 1]: a window's posterior, corrected for the prior."""
        posterior = score.posterior[self._maps[score.window]]
        return sigmoid(logit(posterior) - self._offsets[score.window])

    def join(self, scores: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return float32[C] logits of float32[C] in [0, 1] by window."""
        weights = np.stack([self._weights[window] for window in scores])
        logits = logit(np.stack(list(scores.values())))
        total = weights.sum(axis=0)
        joined = (weights * logits).sum(axis=0) / np.maximum(total, 1e-9)
        return np.where(total > 0, joined, logit(np.zeros(1, np.float32)))


def logit(probability: np.ndarray) -> np.ndarray:
    """Return ln(p / (1 - p)) of what is in [0, 1], neither end infinite."""
    probability = np.clip(probability, LOWEST, HIGHEST)
    return np.log(probability / (1 - probability))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))
