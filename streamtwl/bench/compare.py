"""Is one method better than another? Paired, on the same clips, resampled by source recording."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Paired:
    """Method A against method B on the same clips."""

    difference: Interval  # mean of A minus mean of B
    only_a: float  # clips that only A gets right; a mean over seeds
    only_b: float


def mean_interval(values: np.ndarray, sources: Sequence[str], seed: int = 0) -> Interval:
    """Return the mean of float[n] values and its bootstrap interval over source recordings."""
    rng = np.random.default_rng(seed)
    _, group = np.unique(np.asarray(sources), return_inverse=True)
    n_groups = group.max() + 1
    sums = np.bincount(group, weights=values, minlength=n_groups)
    sizes = np.bincount(group, minlength=n_groups)
    drawn = rng.integers(n_groups, size=(RESAMPLES, n_groups))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(float(np.mean(values)), float(low), float(high))


def paired(a: np.ndarray, b: np.ndarray, sources: Sequence[str], seed: int = 0) -> Paired:
    """Compare float[n] shares of right answers (over seeds) of two methods, clip by clip."""
    return Paired(
        mean_interval(a - b, sources, seed),
        float(np.sum(a * (1 - b))),
        float(np.sum(b * (1 - a))),
    )
