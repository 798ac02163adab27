"""The baselines on timelines, for reasoners to beat. Frozen: a change here changes every table.

Each reads a stream patch by patch: a module with the contract of `streamtwl/training/steps.py`, on
one linear model of a single patch, the GRU aside. Whatever is to be chosen is chosen on validation
streams; then both are trained on.
"""

from collections.abc import Callable, Collection
from dataclasses import replace

import numpy as np
import torch
from quick import QUICK
from torch import Tensor, nn

from streamtwl.training import fitting, linear, steps
from streamtwl.training.fitting import (
    FILTER,
    FILTERS,
    LAGS,
    Chosen,
    SceneArrays,
    joined,
    pick_best,
)

TOP, AVERAGE, LAGGED, SMOOTHER, GRU = (
    "window top-1",
    "moving average",
    "HMM filter, looking back",
    "HMM smoother",
    "GRU",
)
HALF_LIVES_S = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)  # of which validation streams choose
GRUS = ((128, 0.3),)  # (hidden units, weight decay)
EPOCHS = 2 if QUICK else 45  # at most: validation streams choose
BATCH = 16  # streams
GAP_S = 1.0  # a longer step is a gap in the stream


class WindowTop(nn.Module):
    """Each window by itself, and only its strongest label: what MediaPipe's stream gives."""

    state_size = 1

    def __init__(self, patch: steps.PatchModel) -> None:
        super().__init__()
        self.patch = patch

    def forward(self, posterior: Tensor, state: Tensor, elapsed_s: Tensor) -> tuple[Tensor, Tensor]:
        probabilities = torch.exp(self.patch(posterior))
        strongest = probabilities.max(dim=-1, keepdim=True).values
        kept = torch.where(probabilities >= strongest, probabilities, 0.0)[:, :-1]
        return kept, state + 0.0 * elapsed_s


class MovingAverage(nn.Module):
    """An exponential moving average of the patch model's probabilities: what most programs do."""

    def __init__(self, patch: steps.PatchModel, half_life_s: float) -> None:
        super().__init__()
        self.patch = patch
        self.half_life_s = half_life_s
        self.state_size = len(patch.log_prior)

    def forward(self, posterior: Tensor, state: Tensor, elapsed_s: Tensor) -> tuple[Tensor, Tensor]:
        kept = torch.exp2(-elapsed_s / self.half_life_s)
        mean = kept * state + (1 - kept) * torch.exp(self.patch(posterior))
        return mean[:, :-1], mean


class Gru(nn.Module):
    """A gated recurrent unit beside a linear path, one probability a label."""

    def __init__(self, features: steps.Features, labels: int, hidden: int) -> None:
        super().__init__()
        self.features = features
        self.squeeze = nn.Linear(len(features.mean), hidden)
        self.gru = nn.GRU(hidden, hidden, batch_first=True)
        self.drop = nn.Dropout(0.3)
        self.read = nn.Linear(hidden, labels)
        self.direct = nn.Linear(len(features.mean), labels)
        self.state_size = hidden

    def forward(self, posterior: Tensor, state: Tensor, elapsed_s: Tensor) -> tuple[Tensor, Tensor]:
        known = torch.where(elapsed_s > GAP_S, torch.zeros_like(state), state)
        scores, state = self.read_stream(posterior[:, None], known)
        return scores[:, 0], state

    def read_stream(self, rows: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return float32[n, T, L] scores of gapless float[n, T, F], and the state after them."""
        features = self.features(rows.float())
        squeezed = self.drop(torch.relu(self.squeeze(features)))
        states, last = self.gru(squeezed, state[None])
        return torch.sigmoid(self.read(self.drop(states)) + self.direct(features)), last[0]


@torch.no_grad()
def smooth(filter: steps.Filter, streams: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Return float32[n, T, L]: the beliefs of the forward-backward smoother, future included.

    Takes float[n, T, F] rows and float32[n, T], as `steps.scores_of` does. Rabiner's equations
    24-27.
    """
    rows, elapsed_s = torch.from_numpy(streams).float(), torch.from_numpy(seconds)
    evidence = torch.exp(filter.evidence(rows))  # [n, T, L + 1]
    prior = torch.exp(filter.patch.log_prior)
    state = torch.zeros(len(rows), filter.state_size)
    forward = []
    for t in range(rows.shape[1]):
        _, state = filter(rows[:, t], state, elapsed_s[:, t, None])
        forward.append(state)
    backward = torch.ones_like(state)
    smoothed = []
    for t in reversed(range(rows.shape[1])):
        belief = forward[t] * backward
        smoothed.append(belief / belief.sum(dim=-1, keepdim=True))
        stays = torch.exp(-elapsed_s[:, t, None] / filter.duration_s)
        ahead = evidence[:, t] * backward
        backward = stays * ahead + (1 - stays) * (ahead @ prior)[:, None]
        backward = backward / backward.sum(dim=-1, keepdim=True)
    return torch.stack(smoothed[::-1], dim=1)[..., :-1].numpy()


def scores_of(step: steps.Step, streams: SceneArrays) -> np.ndarray:
    """Return float32[n, T, L] scores of a model on streams."""
    return steps.scores_of(step, streams.rows, streams.elapsed_s)


def fit_timeline(
    fit_on: SceneArrays,
    choose_by: SceneArrays,
    seed: int,
    progress: Callable[[str], None],
    names: Collection[str] = (TOP, AVERAGE, FILTER, LAGGED, SMOOTHER, GRU),
) -> dict[str, Chosen]:
    """Return timeline baselines by name; `progress` is called with what is being fitted."""
    progress("patch model")
    models = fitting.fit_patch_models(fit_on, choose_by)
    penalty, patch, final = models.penalty, *map(steps.PatchModel, (models.fitted, models.final))
    chosen = {}
    for name, candidates in (
        (TOP, [({}, WindowTop)]),
        (AVERAGE, [({"half_life_s": each}, MovingAverage) for each in HALF_LIVES_S]),
    ):
        if name not in names:
            continue
        progress(name)
        tried = [
            (setting, scores_of(kind(patch, **setting), choose_by)) for setting, kind in candidates
        ]
        setting, thresholds = pick_best(tried, choose_by)
        step = candidates[0][1](final, **setting)
        chosen[name] = Chosen(step, **thresholds, setting={"penalty": penalty, **setting})
    if FILTER in names:
        progress(FILTER)
        filter = fitting.choose_filter(models, choose_by)
        chosen[FILTER] = replace(filter, step=steps.filter_of(filter.step))
    if LAGGED in names:
        one = chosen[FILTER].step
        assert isinstance(one, steps.Filter)
        chosen[LAGGED] = replace(chosen[FILTER], step=steps.FixedLag(one, LAGS))
    if SMOOTHER in names:
        progress(SMOOTHER)
        tried = [
            (
                setting,
                smooth(steps.Filter(patch, **setting), choose_by.rows, choose_by.elapsed_s),
            )
            for setting in FILTERS
        ]
        setting, thresholds = pick_best(tried, choose_by)
        smoother = steps.Filter(final, **setting)
        chosen[SMOOTHER] = Chosen(smoother, **thresholds, setting={"penalty": penalty, **setting})
    if GRU in names:
        progress(GRU)
        chosen[GRU] = _choose_gru(fit_on, choose_by, seed)
    return chosen


def _choose_gru(fit_on: SceneArrays, choose_by: SceneArrays, seed: int) -> Chosen:
    grus = [_fit_gru(fit_on, hidden, decay, seed, choose_by) for hidden, decay in GRUS]
    tried = [
        ({"hidden": hidden, "decay": decay, "epochs": epochs}, scores_of(gru, choose_by))
        for (gru, epochs), (hidden, decay) in zip(grus, GRUS, strict=True)
    ]
    setting, thresholds = pick_best(tried, choose_by)
    both = joined([fit_on, choose_by])
    gru, _ = _fit_gru(
        both, setting["hidden"], setting["decay"], seed, epochs=int(setting["epochs"])
    )
    return Chosen(gru, **thresholds, setting=setting)


def _fit_gru(
    streams: SceneArrays,
    hidden: float,
    decay: float,
    seed: int,
    choose_by: SceneArrays | None = None,
    epochs: int = EPOCHS,
) -> tuple[Gru, int]:
    """Return (a GRU, its epochs): the best of them on `choose_by`, or after all of them."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    n_labels = streams.sounding.shape[2]
    rows = torch.from_numpy(streams.rows)
    features = linear.Features.of(streams.rows.reshape(-1, rows.shape[-1]), streams.is_posterior)
    gru = Gru(steps.Features(features), n_labels, int(hidden))
    optimiser = torch.optim.AdamW(gru.parameters(), lr=2e-3, weight_decay=decay)
    target = torch.from_numpy(streams.sounding).float()
    best, kept, kept_epochs = float("inf"), gru.state_dict(), epochs
    for epoch in range(1, epochs + 1):
        gru.train()
        for batch in np.array_split(rng.permutation(len(target)), -(-len(target) // BATCH)):
            scores, _ = gru.read_stream(rows[batch], torch.zeros(len(batch), gru.state_size))
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
