"""Figures of scores, with 95 % intervals over source recordings, and paired differences."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import norm

RESAMPLES = 2000  # of clips with one label
SEVERAL_RESAMPLES = 200  # of clips with several: each ranks all clips anew


class Judge:
    """Judges scores of the same n clips; what it draws is the same for all, so they are paired."""

    def __init__(self, truth: np.ndarray, sources: Sequence[str], several: bool) -> None:
        """Take bool[n, L], and the recording that each clip is cut from."""
        self.several = several
        self.metrics = ("mAP", "d-prime") if several else ("accuracy",)
        self._truth = truth
        _, group = np.unique(np.asarray(sources), return_inverse=True)
        n_groups = int(group.max()) + 1
        resamples = SEVERAL_RESAMPLES if several else RESAMPLES
        rng = np.random.default_rng(0)
        drawn = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=resamples)
        self._weights = drawn[:, group].astype(np.float32)

    def resampled(self, scores: np.ndarray) -> dict[str, np.ndarray]:
        """Return float[1 + B] of each metric: of the clips, then of each resample.

        Takes float[S, n, L] of S seeds, over which figures are averaged. Clips whose scores are
        NaN are left out.
        """
        there = ~np.isnan(scores).any(axis=(0, 2))
        if not self.several:
            right = self.right(scores)[there]
            weights = self._weights[:, there]
            means = weights @ right / np.maximum(weights.sum(axis=1), 1)
            return {"accuracy": np.concatenate(([right.mean()], means))}
        ones = np.ones((1, len(there)), np.float32)
        each = [self._ranked(of, np.concatenate((ones, self._weights)) * there) for of in scores]
        mean = np.mean(each, axis=0)
        return {"mAP": mean[0], "d-prime": mean[1]}

    def right(self, scores: np.ndarray) -> np.ndarray:
        """Return float[n], the share of seeds whose highest score is the label's."""
        best = scores.argmax(axis=2)
        return np.mean([self._truth[np.arange(len(row)), row] for row in best], axis=0)

    def _ranked(self, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return float[2, 1 + B], mAP and d-prime of float[n, L] scores under clip weights.

        mAP is the mean over labels of average precision; d-prime is sqrt(2) times the normal
        quantile of the mean area under the ROC curve, as for AudioSet (Hershey et al., CNN
        architectures for large-scale audio classification, ICASSP 2017). Labels without a clip, or
        without a clip that has them not, are left out.
        """
        precisions, areas = [], []
        for label in range(scores.shape[1]):
            order = np.argsort(-scores[:, label], kind="stable")
            found, area = _label(self._truth[order, label], scores[order, label], weights[:, order])
            precisions.append(found)
            areas.append(area)
        area = np.clip(_mean_of_some(np.array(areas)), 1e-6, 1 - 1e-6)
        return np.stack((_mean_of_some(np.array(precisions)), np.sqrt(2) * norm.ppf(area)))


def _mean_of_some(by_label: np.ndarray) -> np.ndarray:
    """Return float[B], the means of float[L, B] without NaN; NaN where all are."""
    there = ~np.isnan(by_label)
    count = there.sum(axis=0)
    return np.where(count, np.nansum(by_label, axis=0) / np.maximum(count, 1), np.nan)


def _label(
    truth: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return float[B], average precision and area under the curve, of one label.

    Takes bool[n] and float[n], highest first, and float[B, n]. Clips of equal score share a rank.
    """
    last = np.append(np.diff(scores) != 0, True)  # of each group of equal scores
    right = np.cumsum(weights * truth, axis=1)[:, last]
    all_ = np.cumsum(weights, axis=1)[:, last]
    positives, total = right[:, -1], all_[:, -1]
    gained = np.diff(right, axis=1, prepend=0)
    wrong = all_ - right
    below = total[:, None] - positives[:, None] - wrong
    ties = np.diff(wrong, axis=1, prepend=0) / 2
    negatives = total - positives
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = (gained * right / np.maximum(all_, 1e-9)).sum(axis=1) / positives
        area = (gained * (below + ties)).sum(axis=1) / (positives * negatives)
    return np.where(positives > 0, precision, np.nan), np.where(
        positives * negatives > 0, area, np.nan
    )


def interval(values: np.ndarray) -> dict[str, float]:
    """Return the mean and bounds of float[1 + B]; resamples with nothing to judge are NaN."""
    low, high = np.nanpercentile(values[1:], (2.5, 97.5))
    return {"mean": float(values[0]), "low": float(low), "high": float(high)}


def intervals(
    scores: np.ndarray, baseline: np.ndarray | None, judge: Judge
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return each metric's interval, and that of its difference from the baseline's."""
    if baseline is not None:  # on the same clips: a language model may have named some only
        lost = np.isnan(scores).any(axis=(0, 2))
        baseline = np.where(lost[None, :, None], np.nan, baseline)
    own = judge.resampled(scores)
    against = {} if baseline is None else judge.resampled(baseline)
    return (
        {name: interval(values) for name, values in own.items()},
        {name: interval(own[name] - values) for name, values in against.items()},
    )
