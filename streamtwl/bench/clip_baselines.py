"""The baselines on clips, for reasoners to beat. Frozen: a change here changes every table.

Each baseline turns a clip's patches into one feature vector for a logistic regression. Settings are
chosen on a source-grouped validation split of the training folds; the final model is then trained
on both.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from streamtwl.training.datasets import Clip, validation_split
from streamtwl.training.posteriors import Scored

FLOOR = 1e-6  # under a posterior's logarithm
POOLED_FLOOR = 1e-4  # under a mean posterior's logarithm
TEMPERATURE = 2.0  # of tempered pooling
STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)  # C of the logistic regression
SAMPLES = (1, 4, 16, 64)  # K

Feature = Callable[[Scored, np.random.Generator], np.ndarray]


@dataclass(frozen=True, slots=True)
class Baseline:
    """A name, the clip's feature vector, and whether features are brought to unit variance."""

    name: str
    feature: Feature
    scaled: bool = False
    sampled: bool = False  # draws: averaged over sampling seeds


def _mean(scored: Scored, _rng: np.random.Generator) -> np.ndarray:
    return scored.posteriors.mean(axis=0)


def _mean_log(scored: Scored, _rng: np.random.Generator) -> np.ndarray:
    return np.log(scored.posteriors + FLOOR).mean(axis=0)


def _tempered(scored: Scored, _rng: np.random.Generator) -> np.ndarray:
    return (scored.posteriors ** (1 / TEMPERATURE)).mean(axis=0)


def _log_mean(scored: Scored, _rng: np.random.Generator) -> np.ndarray:
    return np.log(scored.posteriors.mean(axis=0) + POOLED_FLOOR)


def _root_mean(scored: Scored, _rng: np.random.Generator) -> np.ndarray:
    normalised = scored.posteriors / (scored.posteriors.sum(axis=1, keepdims=True) + FLOOR)
    return np.sqrt(normalised.mean(axis=0))


def _embedding(scored: Scored, _rng: np.random.Generator) -> np.ndarray:
    return scored.embeddings.mean(axis=0)


def _counts(samples: int) -> Feature:
    def count(scored: Scored, rng: np.random.Generator) -> np.ndarray:
        weights = scored.posteriors.astype(np.float64) + FLOOR**2
        drawn = rng.multinomial(samples, weights / weights.sum(axis=1, keepdims=True))
        return np.sqrt(drawn.mean(axis=0) / samples)

    return count


BASELINES = (
    Baseline("LR, mean posterior", _mean),
    Baseline("LR, mean log posterior", _mean_log, scaled=True),
    Baseline("LR, tempered mean", _tempered),
    Baseline("LR, log of mean posterior", _log_mean),
    Baseline("LR, root of mean posterior", _root_mean),
    *(Baseline(f"LR, counts of {k} samples", _counts(k), sampled=True) for k in SAMPLES),
    Baseline("LR, mean embedding", _embedding, scaled=True),
)


def features(baseline: Baseline, scored: Sequence[Scored], seed: int) -> np.ndarray:
    """Return float64[n, D], a row a clip; `seed` keys the draws of sampled baselines."""
    return np.stack(
        [
            baseline.feature(each, np.random.default_rng([seed, number]))
            for number, each in enumerate(scored)
        ]
    )


def fit(
    baseline: Baseline, clips: Sequence[Clip], scored: Sequence[Scored], seed: int
) -> tuple[Pipeline, float]:
    """Return (the model fitted on all training clips, the C that the validation split chose)."""
    x = features(baseline, scored, seed)
    y = np.array([clip.label for clip in clips])
    to_fit, _ = validation_split(clips, seed)
    paths = {clip.path for clip in to_fit}
    fitted = np.array([clip.path in paths for clip in clips])  # with all copies of a clip
    chosen = ~fitted

    def accuracy(strength: float) -> float:
        model = _model(baseline, strength).fit(x[fitted], y[fitted])
        return float(model.score(x[chosen], y[chosen]))

    strength = max(STRENGTHS, key=accuracy)
    return _model(baseline, strength).fit(x, y), strength


def majority_vote(model: Pipeline, baseline: Baseline, scored: Scored, seed: int) -> str:
    """Return the class predicted for most of a clip's single patches; the first in a tie."""
    patches = [
        Scored(scored.posteriors[i : i + 1], scored.embeddings[i : i + 1])
        for i in range(len(scored.posteriors))
    ]
    votes = model.predict(features(baseline, patches, seed))
    classes, counts = np.unique(votes, return_counts=True)
    return str(classes[counts.argmax()])


def _model(baseline: Baseline, strength: float) -> Pipeline:
    steps = [StandardScaler()] if baseline.scaled else []
    return make_pipeline(*steps, LogisticRegression(C=strength, max_iter=2000))
