"""What thinking has to beat, on clips and on timelines. Frozen: a change here changes every table.

On clips, each turns a clip's patches into one feature vector; a logistic regression does the rest.
On timelines, each reads a stream patch by patch (`training/steps.py`). Whatever is to be chosen is
chosen on a source-grouped validation split of the training folds; then both are trained on.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from streamtwl.audio.block import SAMPLE_RATE
from streamtwl.backbones.yamnet import WINDOW
from streamtwl.evaluation.datasets import Clip, validation_split
from streamtwl.evaluation.posteriors import Scored
from streamtwl.evaluation.streams import Stream
from streamtwl.training import steps

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
    """Return the class that most of a clip's single patches are given; the first of equals."""
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


# Timelines

FALSE_STARTS_PER_MINUTE = 2.0  # thresholds are the best of those with no more on validation
ONS = tuple(round(0.05 * i, 2) for i in range(1, 20))
OFF_SHARES = (1.0, 0.7, 0.5, 0.3)  # of the threshold for on
PENALTIES = (3e-4, 1e-3, 3e-3)  # on squared weights of the patch model
HALF_LIVES_S = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
DURATIONS_S = (0.15, 0.25, 0.5, 1.0, 2.0, 4.0)
EXPONENTS = (0.35, 0.5, 0.7, 1.0)
GRUS = ((128, 0.3),)  # (hidden units, weight decay)
EPOCHS = 45
BATCH = 16  # streams

_FILTERS = [
    ({"duration_s": duration_s, "exponent": exponent}, steps.Filter)
    for duration_s in DURATIONS_S
    for exponent in EXPONENTS
]

TOP, AVERAGE, FILTER, LAGGED, SMOOTHER, GRU = (
    "window top-1",
    "moving average",
    "HMM filter",
    "HMM filter, looking back",
    "HMM smoother",
    "GRU",
)
LAGS = 4  # patches that a filter looks back


@dataclass(frozen=True, slots=True)
class Streams:
    """Streams of one length as arrays: n streams, T patches."""

    posteriors: torch.Tensor  # float32[n, T, C]
    elapsed_s: torch.Tensor  # float32[n, T]
    sounding: np.ndarray  # bool[n, T, L] at each window's end
    recently: np.ndarray  # bool[n, T, L] at some moment of the window
    ahead: np.ndarray  # float64[n, T, L]: share of the time until the next decision
    cleaner: torch.Tensor | None = None  # float32[n, T, C]: what the posteriors are in less noise


@dataclass(frozen=True, slots=True)
class Chosen:
    """A timeline baseline as the validation split chose it, trained on all training streams."""

    step: steps.Step
    on: float
    off: float
    setting: dict[str, float]
    in_force_f1: float  # on the validation split, by the hop
    false_starts_per_minute: float


def arrays(streams: Sequence[Stream], labels: Sequence[str]) -> Streams:
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
    return Streams(
        torch.from_numpy(np.stack([stream.posteriors[:n_patches] for stream in streams])),
        torch.from_numpy(np.stack(elapsed_s)),
        sounding,
        recently,
        ahead.clip(max=1.0),
        torch.from_numpy(np.stack(cleaner)) if cleaner else None,
    )


def in_force(scores: np.ndarray, streams: Streams, on: float, off: float) -> tuple[float, float]:
    """Return (in-force F1, false starts a minute) of float[n, T, L] scores, counted by the hop."""
    believed = np.zeros(scores[:, 0].shape, bool)
    hit = told = starts = 0.0
    for t in range(scores.shape[1]):
        before, believed = believed, scores[:, t] >= np.where(believed, off, on)
        starts += np.count_nonzero(believed & ~before & ~streams.recently[:, t])
        hit += streams.ahead[:, t][believed].sum()
        told += np.count_nonzero(believed)
    hop_s = float(streams.elapsed_s[:, 1:].mean())
    minutes = scores.shape[0] * scores.shape[1] * hop_s / 60
    return float(2 * hit / max(told + streams.ahead.sum(), 1e-9)), float(starts / minutes)


def onsets(scores: np.ndarray, on: float, off: float) -> int:
    """Return how often a label of float[n, T, L] scores begins, by hysteresis."""
    believed, count = np.zeros(scores[:, 0].shape, bool), 0
    for t in range(scores.shape[1]):
        before, believed = believed, scores[:, t] >= np.where(believed, off, on)
        count += int(np.count_nonzero(believed & ~before))
    return count


def fit_timeline(
    fit_on: Streams,
    choose_by: Streams,
    seed: int,
    progress: Callable[[str], None],
    names: Collection[str] = (TOP, AVERAGE, FILTER, LAGGED, SMOOTHER, GRU),
) -> dict[str, Chosen]:
    """Return timeline baselines by their names; `progress` is told what is being fitted."""
    progress("patch model")
    penalty = min(PENALTIES, key=lambda each: _loss(fit_patch_model(fit_on, each), choose_by))
    patch = fit_patch_model(fit_on, penalty)
    both = joined([fit_on, choose_by])
    patch_of_both = fit_patch_model(both, penalty)
    chosen = {}
    for name, candidates in (
        (TOP, [({}, steps.WindowTop)]),
        (AVERAGE, [({"half_life_s": each}, steps.MovingAverage) for each in HALF_LIVES_S]),
        (FILTER, _FILTERS),
    ):
        if name not in names:
            continue
        progress(name)
        tried = [
            (setting, scores_of(kind(patch, **setting), choose_by)) for setting, kind in candidates
        ]
        setting, thresholds = pick_best(tried, choose_by)
        step = candidates[0][1](patch_of_both, **setting)
        chosen[name] = Chosen(step, **thresholds, setting={"penalty": penalty, **setting})
    if LAGGED in names:
        one = chosen[FILTER].step
        assert isinstance(one, steps.Filter)
        chosen[LAGGED] = replace(chosen[FILTER], step=steps.FixedLag(one, LAGS))
    if SMOOTHER in names:
        progress(SMOOTHER)
        tried = [
            (setting, kind(patch, **setting).smooth(choose_by.posteriors, choose_by.elapsed_s))
            for setting, kind in _FILTERS
        ]
        setting, thresholds = pick_best(tried, choose_by)
        smoother = steps.Filter(patch_of_both, **setting)
        chosen[SMOOTHER] = Chosen(smoother, **thresholds, setting={"penalty": penalty, **setting})
    if GRU in names:
        progress(GRU)
        chosen[GRU] = _choose_gru(fit_on, choose_by, both, seed)
    return chosen


def fit_patch_model(streams: Streams, penalty: float) -> steps.PatchModel:
    """Return the softmax regression of single patches; where two labels sound, each is half."""
    posteriors = streams.posteriors.flatten(0, 1)
    sounding = torch.from_numpy(streams.sounding).flatten(0, 1).float()
    none = (sounding.sum(dim=1, keepdim=True) == 0).float()
    target = torch.cat((sounding, none), dim=1)
    target = target / target.sum(dim=1, keepdim=True)
    model = steps.PatchModel(steps.LogPosterior(posteriors), sounding.shape[1])
    model.log_prior = torch.log(target.mean(dim=0).clamp_min(FLOOR))
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


def _choose_gru(fit_on: Streams, choose_by: Streams, both: Streams, seed: int) -> Chosen:
    grus = [_fit_gru(fit_on, hidden, decay, seed, choose_by) for hidden, decay in GRUS]
    tried = [
        ({"hidden": hidden, "decay": decay, "epochs": epochs}, scores_of(gru, choose_by))
        for (gru, epochs), (hidden, decay) in zip(grus, GRUS, strict=True)
    ]
    setting, thresholds = pick_best(tried, choose_by)
    gru, _ = _fit_gru(
        both, setting["hidden"], setting["decay"], seed, epochs=int(setting["epochs"])
    )
    return Chosen(gru, **thresholds, setting=setting)


def _fit_gru(
    streams: Streams,
    hidden: float,
    decay: float,
    seed: int,
    choose_by: Streams | None = None,
    epochs: int = EPOCHS,
) -> tuple[steps.Gru, int]:
    """Return (a GRU, its epochs): the best of them on `choose_by`, or after all of them."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    n_labels = streams.sounding.shape[2]
    features = steps.LogPosterior(streams.posteriors.flatten(0, 1))
    gru = steps.Gru(features, n_labels, int(hidden))
    optimiser = torch.optim.AdamW(gru.parameters(), lr=2e-3, weight_decay=decay)
    target = torch.from_numpy(streams.sounding).float()
    best, kept, kept_epochs = float("inf"), gru.state_dict(), epochs
    for epoch in range(1, epochs + 1):
        gru.train()
        for batch in np.array_split(rng.permutation(len(target)), -(-len(target) // BATCH)):
            scores, _ = gru.read_stream(
                streams.posteriors[batch], torch.zeros(len(batch), gru.state_size)
            )
            loss = torch.nn.functional.binary_cross_entropy(scores, target[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        if choose_by is not None:
            truth = torch.from_numpy(choose_by.sounding).float()
            scores = torch.from_numpy(scores_of(gru, choose_by))
            chosen_by = torch.nn.functional.binary_cross_entropy(scores, truth).item()
            if chosen_by < best:
                best, kept_epochs = chosen_by, epoch
                kept = {name: each.clone() for name, each in gru.state_dict().items()}
    if choose_by is not None:
        gru.load_state_dict(kept)
    return gru.eval().requires_grad_(False), kept_epochs


@torch.no_grad()
def scores_of(step: steps.Step, streams: Streams) -> np.ndarray:
    """Return float32[n, T, L] scores of a model on streams, in [0, 1]."""
    return steps.run(step.eval(), streams.posteriors, streams.elapsed_s).numpy()


def _loss(patch: steps.PatchModel, streams: Streams) -> float:
    """Return the mean negative log-probability of what sounds at each patch."""
    sounding = torch.from_numpy(streams.sounding).float()
    none = (sounding.sum(dim=2, keepdim=True) == 0).float()
    target = torch.cat((sounding, none), dim=2)
    target = target / target.sum(dim=2, keepdim=True)
    return float(-(target * patch(streams.posteriors)).sum(dim=2).mean())


def pick_best(
    tried: Sequence[tuple[dict[str, float], np.ndarray]],
    streams: Streams,
    quiet: Callable[[float, float], bool] = lambda on, off: True,
) -> tuple[dict[str, float], dict[str, float]]:
    """Return (setting, thresholds and figures): the best F1 with few enough false starts.

    Of those thresholds, on and off, that are also `quiet`, if there are any. Where none has few
    enough false starts, the fewest of the quiet ones.
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


def joined(parts: Sequence[Streams]) -> Streams:
    """Return streams of several parts as one, cut to the shortest."""
    n_patches = min(part.sounding.shape[1] for part in parts)
    return Streams(
        torch.cat([part.posteriors[:, :n_patches] for part in parts]),
        torch.cat([part.elapsed_s[:, :n_patches] for part in parts]),
        np.concatenate([part.sounding[:, :n_patches] for part in parts]),
        np.concatenate([part.recently[:, :n_patches] for part in parts]),
        np.concatenate([part.ahead[:, :n_patches] for part in parts]),
        torch.cat([part.cleaner[:, :n_patches] for part in parts if part.cleaner is not None])
        if all(part.cleaner is not None for part in parts)
        else None,
    )
