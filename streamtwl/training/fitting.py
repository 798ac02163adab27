"""An HMM filter fitted on labelled streams, and the thresholds that give the best timeline.

Settings are chosen on a validation split; the final model is then trained on both.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamtwl.backbones.yamnet import WINDOW
from streamtwl.reasoners.recurrent import ENDLESS_S
from streamtwl.stages import SAMPLE_RATE
from streamtwl.training import hmm, linear
from streamtwl.training.linear import PatchModel
from streamtwl.training.scored_scenes import ScoredScene

FILTER = "HMM filter"
LAGS = 4  # patches that a filter looks back: two seconds at the default hop
FALSE_STARTS_PER_MINUTE = 2.0  # thresholds are the best of those with no more on validation

# What validation streams choose from
ONS = tuple(round(0.05 * i, 2) for i in range(1, 20))
OFF_SHARES = (1.0, 0.7, 0.5, 0.3)  # of the threshold for on
PENALTIES = (3e-2, 1e-2, 3e-3, 1e-3, 3e-4)  # on the squared weights of the patch model
DURATIONS_S = (0.15, 0.25, 0.5, 1.0, 2.0, 4.0)
EXPONENTS = (0.35, 0.5, 0.7, 1.0)
FILTERS: list[dict[str, float]] = [
    {"duration_s": duration_s, "exponent": exponent}
    for duration_s in DURATIONS_S
    for exponent in EXPONENTS
]


@dataclass(frozen=True, slots=True)
class SceneArrays:
    """Streams of one length as arrays: n streams, T patches."""

    rows: np.ndarray  # float16[n, T, F], what is read of each patch
    is_posterior: np.ndarray  # bool[F]: which columns are scores of a posterior
    elapsed_s: np.ndarray  # float32[n, T] since the patch before
    sounding: np.ndarray  # bool[n, T, L] at each window's end
    recently: np.ndarray  # bool[n, T, L] at some moment of the window
    ahead: np.ndarray  # float64[n, T, L]: share of the time until the next decision


@dataclass(frozen=True, slots=True)
class Chosen:
    """A model as the validation split chose it, trained on all training streams."""

    step: Any  # an hmm.Filter; a torch module of the benchmarks' baselines
    on: float
    off: float
    setting: dict[str, float]
    in_force_f1: float  # on the validation split, by the hop
    false_starts_per_minute: float


@dataclass(frozen=True, slots=True)
class PatchModels:
    """Linear models of single patches."""

    penalty: float
    fitted: PatchModel  # on the streams to fit: settings are chosen with it
    final: PatchModel  # on those to choose by as well


def arrays(
    streams: Sequence[ScoredScene], labels: Sequence[str], is_posterior: np.ndarray
) -> SceneArrays:
    """Return streams of one length as arrays; bool[F] says which columns of rows are scores."""
    n_patches = min(len(stream.positions) for stream in streams)
    shape = (len(streams), n_patches, len(labels))
    sounding, recently, ahead = np.zeros(shape, bool), np.zeros(shape, bool), np.zeros(shape)
    column = {label: i for i, label in enumerate(labels)}
    for n, stream in enumerate(streams):
        at = stream.positions[:n_patches] / SAMPLE_RATE
        until = np.append(at[1:], stream.duration_s)
        sounding[n] = stream.sounding(labels)[:n_patches]
        for sound in stream.truth:
            i = column[sound.label]
            in_window = (sound.onset_s <= at) & (sound.offset_s >= at - WINDOW / SAMPLE_RATE)
            recently[n, :, i] |= in_window
            overlap = np.minimum(until, sound.offset_s) - np.maximum(at, sound.onset_s)
            ahead[n, :, i] += overlap.clip(min=0) / np.maximum(until - at, 1e-9)
    return SceneArrays(
        np.stack([stream.rows[:n_patches] for stream in streams]),
        is_posterior,
        np.stack([elapsed(stream.positions[:n_patches]) for stream in streams]),
        sounding,
        recently,
        ahead.clip(max=1.0),
    )


def elapsed(positions: np.ndarray) -> np.ndarray:
    """Return float32[T] seconds since the patch before, of int64[T] positions."""
    return np.append(ENDLESS_S, np.diff(positions) / SAMPLE_RATE).astype(np.float32)


def in_force(
    scores: np.ndarray, streams: SceneArrays, on: float, off: float
) -> tuple[float, float]:
    """Return (in-force F1, false starts a minute) of float[n, T, L] scores, counted by the hop."""
    hit = predicted = starts = 0.0
    for t, (before, believed) in enumerate(_hysteresis(scores, on, off)):
        starts += np.count_nonzero(believed & ~before & ~streams.recently[:, t])
        hit += streams.ahead[:, t][believed].sum()
        predicted += np.count_nonzero(believed)
    hop_s = float(streams.elapsed_s[:, 1:].mean())
    minutes = scores.shape[0] * scores.shape[1] * hop_s / 60
    return float(2 * hit / max(predicted + streams.ahead.sum(), 1e-9)), float(starts / minutes)


def onsets(scores: np.ndarray, on: float, off: float) -> int:
    """Return how often a label of float[n, T, L] scores begins, by hysteresis."""
    return sum(
        int(np.count_nonzero(believed & ~before))
        for before, believed in _hysteresis(scores, on, off)
    )


def _hysteresis(
    scores: np.ndarray, on: float, off: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield for each patch which labels were on before it, and which are, bool[n, L] each."""
    believed = np.zeros(scores[:, 0].shape, bool)
    for t in range(scores.shape[1]):
        before, believed = believed, scores[:, t] >= np.where(believed, off, on)
        yield before, believed


def fit_filter(fit_on: SceneArrays, choose_by: SceneArrays) -> Chosen:
    """Return an HMM filter over a linear model of single patches, and its thresholds."""
    return choose_filter(fit_patch_models(fit_on, choose_by), choose_by)


def choose_filter(models: PatchModels, choose_by: SceneArrays) -> Chosen:
    """Return the HMM filter with the one of FILTERS that gives the best timeline."""
    logs = models.fitted(choose_by.rows)
    tried = [
        (setting, hmm.Filter(models.fitted, **setting).scores(logs, choose_by.elapsed_s))
        for setting in FILTERS
    ]
    setting, thresholds = pick_best(tried, choose_by)
    step = hmm.Filter(models.final, **setting)
    return Chosen(step, **thresholds, setting={"penalty": models.penalty, **setting})


def fit_patch_models(fit_on: SceneArrays, choose_by: SceneArrays) -> PatchModels:
    """Return linear models of single patches with the best of PENALTIES."""
    penalty, fitted = choose_patch_model(fit_on, choose_by)
    final = fit_patch_model(joined([fit_on, choose_by]), penalty, fitted)
    return PatchModels(penalty, fitted, final)


def choose_patch_model(fit_on: SceneArrays, choose_by: SceneArrays) -> tuple[float, PatchModel]:
    """Return the one of PENALTIES whose patch model fits `choose_by` best, and that model."""
    patch, tried = None, []
    problem = _problem(fit_on)
    for penalty in PENALTIES:
        patch = problem.fit(penalty, patch)
        tried.append((_loss(patch, choose_by), penalty, patch))
    _, penalty, patch = min(tried, key=lambda each: each[0])
    return penalty, patch


def fit_patch_model(
    streams: SceneArrays, penalty: float, start: PatchModel | None = None
) -> PatchModel:
    """Return the linear model of single patches; `start` is one to start from."""
    return _problem(streams).fit(penalty, start)


def _problem(streams: SceneArrays) -> linear.Problem:
    rows = streams.rows.reshape(-1, streams.rows.shape[-1])
    return linear.Problem(rows, streams.is_posterior, streams.sounding.reshape(len(rows), -1))


def _loss(patch: PatchModel, streams: SceneArrays) -> float:
    """Return the mean negative log-probability of what sounds at each patch."""
    return float(-(linear.shares(streams.sounding) * patch(streams.rows)).sum(axis=2).mean())


def pick_best(
    tried: Sequence[tuple[dict[str, float], np.ndarray]],
    streams: SceneArrays,
    quiet: Callable[[float, float], bool] = lambda on, off: True,
) -> tuple[dict[str, float], dict[str, float]]:
    """Return (setting, thresholds and figures): the best F1 with few enough false starts.

    Among thresholds, on and off, that are also `quiet`, if there are any. Where none has few enough
    false starts, the one with the fewest of those that are quiet.
    """

    def figures() -> Iterator[tuple[tuple[bool, bool, float], dict[str, float], dict[str, float]]]:
        for setting, scores in tried:
            for on in ONS:
                for share in OFF_SHARES:
                    f1, false_starts = in_force(scores, streams, on, share * on)
                    few = false_starts <= FALSE_STARTS_PER_MINUTE
                    thresholds = {
                        "on": on,
                        "off": round(share * on, 4),
                        "in_force_f1": f1,
                        "false_starts_per_minute": false_starts,
                    }
                    rank = few, quiet(on, share * on), f1 if few else -false_starts
                    yield rank, setting, thresholds

    _, setting, thresholds = max(figures(), key=lambda each: each[0])
    return setting, thresholds


def joined(parts: Sequence[SceneArrays]) -> SceneArrays:
    """Return streams of several parts as one, cut to the shortest."""
    n_patches = min(part.sounding.shape[1] for part in parts)

    def join(arrays: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([array[:, :n_patches] for array in arrays])

    return SceneArrays(
        join([part.rows for part in parts]),
        parts[0].is_posterior,
        join([part.elapsed_s for part in parts]),
        join([part.sounding for part in parts]),
        join([part.recently for part in parts]),
        join([part.ahead for part in parts]),
    )
