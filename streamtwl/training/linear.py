"""The linear model of single patches: a softmax regression on what is read of a patch."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize

FLOOR = 1e-6  # under a posterior's logarithm
LEAST_SCALE = 1e-2  # under a column's standard deviation: one that is constant has none
STEPS = 150  # of the optimiser, at most
CURVATURE = 0.25  # of the loss in a label's logit, at most: p (1 - p)


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
    """Return the model of float[n, F] rows and the labels, bool[n, L], that sound in them."""
    return Problem(rows, is_posterior, sounding).fit(penalty, start)


class Problem:
    """Rows and the labels that sound in them, to be fitted with any penalty.

    L-BFGS runs on weights that are rotated and stretched by the Cholesky factor of the features'
    covariance: columns of one embedding go up and down together, and as they are it would take
    many times as many steps.
    """

    def __init__(self, rows: np.ndarray, is_posterior: np.ndarray, sounding: np.ndarray) -> None:
        """Take float[n, F] rows and bool[n, L]; where two labels sound, each counts half."""
        self._features = Features.of(rows, is_posterior)
        self._target = shares(sounding)
        self._values = self._features(rows)
        self._covariance = self._values.T @ self._values / np.float32(len(rows))

    def fit(self, penalty: float, start: PatchModel | None = None) -> PatchModel:
        """Return the model; `penalty` is on half of the squared weights.

        `start` is where the optimiser begins.
        """
        values, target = self._values, self._target
        shape = (target.shape[1], values.shape[1])
        factor = cholesky(
            self._covariance * np.float32(CURVATURE) + np.float32(penalty) * np.eye(shape[1]),
            lower=True,
        )

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            rotated, bias = _split(flat, shape)
            weight = solve_triangular(factor, rotated.T, lower=True, trans="T").T.astype(np.float32)
            logs = _log_softmax(values @ weight.T + bias.astype(np.float32))
            error = (np.exp(logs) - target) / len(target)
            gradient = (error.T @ values).astype(np.float64) + penalty * weight
            gradient = solve_triangular(factor, gradient.T, lower=True).T
            fits = -np.einsum("nl,nl->", target, logs, dtype=np.float64) / len(target)
            size = np.square(weight, dtype=np.float64).sum()
            return float(fits + penalty / 2 * size), np.column_stack(
                (gradient, error.sum(axis=0, dtype=np.float64))
            ).ravel()

        at = np.zeros((shape[0], shape[1] + 1))
        if start is not None:
            at = np.column_stack((start.weight.astype(np.float64) @ factor, start.bias))
        options = {"maxiter": STEPS, "maxcor": 20}
        found = minimize(loss, at.ravel(), jac=True, method="L-BFGS-B", options=options)
        rotated, bias = _split(found.x, shape)
        weight = solve_triangular(factor, rotated.T, lower=True, trans="T").T
        log_prior = np.log(np.maximum(target.mean(axis=0), FLOOR))
        return PatchModel(
            self._features,
            np.ascontiguousarray(weight, np.float32),
            bias.astype(np.float32),
            log_prior.astype(np.float32),
        )


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
