"""The linear model of single patches: a softmax regression on what is read of a patch."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

FLOOR = 1e-6  # under a posterior's logarithm
LEAST_SCALE = 1e-2  # under a column's standard deviation: one that is constant has none
STEPS = 150  # of the optimiser, at most


@dataclass(frozen=True, slots=True)
class Features:
    """Rows as features: logarithms of posteriors, embeddings as they are; then standardised."""

    is_posterior: np.ndarray  # bool[F]: which columns of a row are
    mean: np.ndarray  # float32[F], of training rows
    scale: np.ndarray  # float32[F], their standard deviation

    @classmethod
    def of(cls, rows: np.ndarray, is_posterior: np.ndarray) -> "Features":
        """Return the features that bring float[n, F] rows to zero mean and unit variance."""
        values = _logs(rows, is_posterior)
        mean = values.mean(axis=0, dtype=np.float64).astype(np.float32)
        values -= mean
        scale = np.sqrt(np.einsum("nf,nf->f", values, values) / len(values))
        return cls(is_posterior, mean, np.maximum(scale, np.float32(LEAST_SCALE)))

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Return float32[..., F] features of float[..., F] rows."""
        values = _logs(rows, self.is_posterior)
        values -= self.mean
        values /= self.scale
        return values


@dataclass(frozen=True, slots=True)
class PatchModel:
    """A softmax regression over L labels and "none", on one patch."""

    features: Features
    weight: np.ndarray  # float32[L + 1, F]
    bias: np.ndarray  # float32[L + 1]
    log_prior: np.ndarray  # float32[L + 1]: log shares of training time

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Return float32[..., L + 1] log-probabilities of rows; the last is "none"."""
        return _log_softmax(self.features(rows) @ self.weight.T + self.bias)


def fit(
    rows: np.ndarray,
    is_posterior: np.ndarray,
    sounding: np.ndarray,
    penalty: float,
    start: PatchModel | None = None,
) -> PatchModel:
    """Return the model of float[n, F] rows and the labels, bool[n, L], that sound in them.

    Where two labels sound, each counts half. `penalty` is on half of the squared weights, `start`
    where the optimiser begins.
    """
    features = Features.of(rows, is_posterior)
    target = shares(sounding)
    values = features(rows)
    shape = (target.shape[1], values.shape[1])

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = _split(flat.astype(np.float32), shape)
        logs = _log_softmax(values @ weight.T + bias)
        error = (np.exp(logs) - target) / len(target)
        gradient = np.column_stack((error.T @ values + penalty * weight, error.sum(axis=0)))
        fits = -np.einsum("nl,nl->", target, logs, dtype=np.float64) / len(target)
        size = np.square(weight, dtype=np.float64).sum()
        return float(fits + penalty / 2 * size), gradient.ravel().astype(np.float64)

    at = np.zeros((shape[0], shape[1] + 1))
    if start is not None:
        at = np.column_stack((start.weight, start.bias))
    options = {"maxiter": STEPS, "maxcor": 20}
    found = minimize(loss, at.ravel(), jac=True, method="L-BFGS-B", options=options)
    weight, bias = _split(found.x.astype(np.float32), shape)
    log_prior = np.log(np.maximum(target.mean(axis=0), FLOOR)).astype(np.float32)
    return PatchModel(features, np.ascontiguousarray(weight), bias.copy(), log_prior)


def shares(sounding: np.ndarray) -> np.ndarray:
    """Return float32[..., L + 1], the share of each label and of "none" in bool[..., L]."""
    target = np.concatenate((sounding, ~sounding.any(axis=-1, keepdims=True)), axis=-1)
    return target.astype(np.float32) / target.sum(axis=-1, keepdims=True)


def _split(flat: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return weight [L + 1, F] and bias [L + 1] of the optimiser's vector."""
    both = flat.reshape(shape[0], shape[1] + 1)
    return both[:, :-1], both[:, -1]


def _logs(rows: np.ndarray, is_posterior: np.ndarray) -> np.ndarray:
    values = rows.astype(np.float32)
    np.add(values, np.float32(FLOOR), out=values, where=is_posterior)
    return np.log(values, out=values, where=is_posterior)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
