"""Logistic regressions on whole clips, for reasoners to beat.

Each turns a clip's patches into one feature vector. Its strength is chosen on a source-grouped
validation split of the training folds; the final model is then trained on both.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from streamtwl.paper.data_sets import validation_split
from streamtwl.training.datasets import Clip
from streamtwl.training.posteriors import Scored

FLOOR = 1e-6  # under a posterior's logarithm
POOLED_FLOOR = 1e-4  # under a mean posterior's logarithm
TEMPERATURE = 2.0  # of tempered pooling
STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)  # C of the logistic regression
SEVERAL_STRENGTH = 10.0  # of clips with several labels, where a search takes too long

Feature = Callable[[Scored], np.ndarray]


@dataclass(frozen=True, slots=True)
class Features:
    """A clip's feature vector, and whether features are brought to unit variance."""

    of: Feature
    scaled: bool = False


def _mean(scored: Scored) -> np.ndarray:
    return scored.posteriors.mean(axis=0)


def _mean_log(scored: Scored) -> np.ndarray:
    return np.log(scored.posteriors + FLOOR).mean(axis=0)


def _tempered(scored: Scored) -> np.ndarray:
    return (scored.posteriors ** (1 / TEMPERATURE)).mean(axis=0)


def _log_mean(scored: Scored) -> np.ndarray:
    return np.log(scored.posteriors.mean(axis=0) + POOLED_FLOOR)


def _root_mean(scored: Scored) -> np.ndarray:
    normalised = scored.posteriors / (scored.posteriors.sum(axis=1, keepdims=True) + FLOOR)
    return np.sqrt(normalised.mean(axis=0))


def _embedding(scored: Scored) -> np.ndarray:
    return scored.embeddings.mean(axis=0)


FEATURES = {  # by the reasoner's name
    "linear": Features(_log_mean),
    "linear-root": Features(_root_mean),
    "linear-mean": Features(_mean),
    "linear-mean-log": Features(_mean_log, scaled=True),
    "linear-tempered": Features(_tempered),
    "linear-embedding": Features(_embedding, scaled=True),
}


def root_of_counts(drawn: np.ndarray, categories: int) -> np.ndarray:
    """Return float64[C], the root of the mean share of each category in int[P, K] draws."""
    counts = np.bincount(drawn.ravel(), minlength=categories)
    return np.sqrt(counts / max(1, drawn.size))


def fit(
    x: np.ndarray, clips: Sequence[Clip], truth: np.ndarray, several: bool, scaled: bool, seed: int
) -> Pipeline:
    """Return the model fitted on float[n, D] features of all training clips, bool[n, L] labels."""
    model = partial(_model, several=several, scaled=scaled)
    if several:
        return model(SEVERAL_STRENGTH).fit(x, truth)
    y = truth.argmax(axis=1)
    to_fit, _ = validation_split(clips, seed, several)
    paths = {clip.path for clip in to_fit}
    fitted = np.array([clip.path in paths for clip in clips])  # with all copies of a clip

    def accuracy(strength: float) -> float:
        return float(model(strength).fit(x[fitted], y[fitted]).score(x[~fitted], y[~fitted]))

    return model(max(STRENGTHS, key=accuracy)).fit(x, y)


def probabilities(model: Pipeline, x: np.ndarray, labels: int) -> np.ndarray:
    """Return float64[n, L] of float[n, D] features; 0 for a label that training had not."""
    found = model.predict_proba(x)
    if found.shape[1] == labels:
        return found
    scores = np.zeros((len(x), labels))
    scores[:, model.classes_] = found
    return scores


def _model(strength: float, several: bool, scaled: bool) -> Pipeline:
    steps = [StandardScaler()] if scaled else []
    regression = LogisticRegression(C=strength, max_iter=2000)
    return make_pipeline(*steps, OneVsRestClassifier(regression) if several else regression)
