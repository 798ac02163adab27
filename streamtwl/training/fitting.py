"""An HMM filter fitted on labelled streams, and the thresholds that give the best timeline.

Settings are chosen on a validation split; the final model is then trained on both.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from streamtwl.backbones.yamnet import WINDOW
from streamtwl.stages import SAMPLE_RATE
from streamtwl.training import steps
from streamtwl.training.scored_scenes import ScoredScene

FILTER = "HMM filter"
LAGS = 4  # patches that a filter looks back: two seconds at the default hop
FALSE_STARTS_PER_MINUTE = 2.0  # thresholds are the best of those with no more on validation

# What validation streams choose from
ONS = tuple(round(0.05 * i, 2) for i in range(1, 20))
OFF_SHARES = (1.0, 0.7, 0.5, 0.3)  # of the threshold for on
PENALTIES = (3e-4, 1e-3, 3e-3)  # on the squared weights of the patch model
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

    posteriors: torch.Tensor  # float32[n, T, C]
    elapsed_s: torch.Tensor  # float32[n, T]
    sounding: np.ndarray  # bool[n, T, L] at each window's end
    recently: np.ndarray  # bool[n, T, L] at some moment of the window
    ahead: np.ndarray  # float64[n, T, L]: share of the time until the next decision
    cleaner: torch.Tensor | None = None  # float32[n, T, C]: what the posteriors are in less noise


@dataclass(frozen=True, slots=True)
class Chosen:
    """A model as the validation split chose it, trained on all training streams."""

    step: steps.Step
    on: float
    off: float
    setting: dict[str, float]
    in_force_f1: float  # on the validation split, by the hop
    false_starts_per_minute: float


def arrays(streams: Sequence[ScoredScene], labels: Sequence[str]) -> SceneArrays:
    """Return streams of one length as arrays."""
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
    elapsed_s = [steps.elapsed(stream.positions[:n_patches], SAMPLE_RATE) for stream in streams]
    cleaner = [each.cleaner[:n_patches] for each in streams if each.cleaner is not None]
    return SceneArrays(
        torch.from_numpy(np.stack([stream.posteriors[:n_patches] for stream in streams])),
        torch.from_numpy(np.stack(elapsed_s)),
        sounding,
        recently,
        ahead.clip(max=1.0),
        torch.from_numpy(np.stack(cleaner)) if cleaner else None,
    )


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
    penalty, patch = choose_patch_model(fit_on, choose_by)
    tried = [(setting, scores_of(steps.Filter(patch, **setting), choose_by)) for setting in FILTERS]
    setting, thresholds = pick_best(tried, choose_by)
    patch_of_both = fit_patch_model(joined([fit_on, choose_by]), penalty)
    step = steps.Filter(patch_of_both, **setting)
    return Chosen(step, **thresholds, setting={"penalty": penalty, **setting})


def choose_patch_model(
    fit_on: SceneArrays, choose_by: SceneArrays
) -> tuple[float, steps.PatchModel]:
    """Return the one of PENALTIES whose patch model fits `choose_by` best, and that model."""
    tried = [(penalty, fit_patch_model(fit_on, penalty)) for penalty in PENALTIES]
    return min(tried, key=lambda each: _loss(each[1], choose_by))


def fit_patch_model(streams: SceneArrays, penalty: float) -> steps.PatchModel:
    """Return the softmax regression on single patches; where two labels sound, each counts half."""
    posteriors = streams.posteriors.flatten(0, 1)
    sounding = torch.from_numpy(streams.sounding).flatten(0, 1).float()
    none = (sounding.sum(dim=1, keepdim=True) == 0).float()
    target = torch.cat((sounding, none), dim=1)
    target = target / target.sum(dim=1, keepdim=True)
    model = steps.PatchModel(steps.LogPosterior(posteriors), sounding.shape[1])
    model.log_prior = torch.log(target.mean(dim=0).clamp_min(steps.FLOOR))
    features = model.features(posteriors)
    nn = torch.nn
    nn.init.zeros_(model.linear.weight)
    nn.init.zeros_(model.linear.bias)
    optimiser = torch.optim.LBFGS(
        model.linear.parameters(), max_iter=150, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model.linear(features), target)
        loss = loss + penalty / 2 * model.linear.weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return model.requires_grad_(False)


@torch.no_grad()
def scores_of(step: steps.Step, streams: SceneArrays) -> np.ndarray:
    """Return float32[n, T, L] scores of a model on streams, in [0, 1]."""
    return steps.run(step.eval(), streams.posteriors, streams.elapsed_s).numpy()


def _loss(patch: steps.PatchModel, streams: SceneArrays) -> float:
    """Return the mean negative log-probability of what sounds at each patch."""
    sounding = torch.from_numpy(streams.sounding).float()
    none = (sounding.sum(dim=2, keepdim=True) == 0).float()
    target = torch.cat((sounding, none), dim=2)
    target = target / target.sum(dim=2, keepdim=True)
    return float(-(target * patch(streams.posteriors)).sum(dim=2).mean())


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
    return SceneArrays(
        torch.cat([part.posteriors[:, :n_patches] for part in parts]),
        torch.cat([part.elapsed_s[:, :n_patches] for part in parts]),
        np.concatenate([part.sounding[:, :n_patches] for part in parts]),
        np.concatenate([part.recently[:, :n_patches] for part in parts]),
        np.concatenate([part.ahead[:, :n_patches] for part in parts]),
        torch.cat([part.cleaner[:, :n_patches] for part in parts if part.cleaner is not None])
        if all(part.cleaner is not None for part in parts)
        else None,
    )
