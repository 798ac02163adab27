"""Models that take a stream of posteriors step by step, and their export to a reasoner's file.

Each is a torch module with the interface of `reasoners/recurrent.py`: (posterior, state, elapsed_s)
to (scores, new state).
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from streamtwl.reasoners.card import Card
from streamtwl.reasoners.recurrent import ENDLESS_S, OUTPUTS
from streamtwl.training.export import write

FLOOR = 1e-6  # under a posterior's logarithm


class LogPosterior(nn.Module):
    """Posteriors as features: logarithms brought to zero mean and unit variance."""

    mean: Tensor  # float32[C]
    scale: Tensor  # float32[C]

    def __init__(self, posteriors: Tensor) -> None:
        """Take float32[n, C] training posteriors for mean and variance."""
        super().__init__()
        logs = torch.log(posteriors + FLOOR)
        self.register_buffer("mean", logs.mean(dim=0))
        self.register_buffer("scale", logs.std(dim=0).clamp_min(FLOOR))

    def forward(self, posterior: Tensor) -> Tensor:
        """Return float32[..., C] features."""
        return (torch.log(posterior + FLOOR) - self.mean) / self.scale


class PatchModel(nn.Module):
    """A softmax regression over L labels and "none", on one patch."""

    log_prior: Tensor  # float32[L + 1]: log shares of training time

    def __init__(self, features: LogPosterior, labels: int) -> None:
        super().__init__()
        self.features = features
        self.linear = nn.Linear(len(features.mean), labels + 1)
        self.register_buffer("log_prior", torch.zeros(labels + 1))

    def forward(self, posterior: Tensor) -> Tensor:
        """Return float32[..., L + 1] log-probabilities; "none" is the last."""
        return torch.log_softmax(self.linear(self.features(posterior)), dim=-1)


class Filter(nn.Module):
    """The forward filter of a hidden Markov model whose states are the labels and "none".

    The state is drawn anew from the prior at the rate 1 / duration_s, else it stays: its transition
    over t seconds is exp(-t / duration_s) I + (1 - exp(-t / duration_s)) 1 prior^T. A patch counts
    with the weight (p(label | patch) / prior) ** exponent: windows overlap and share their noise,
    so each is less than one independent observation. Rabiner, A tutorial on hidden Markov models,
    Proc. IEEE 77 (1989), equations 19-20, with scaled likelihoods for the emissions.
    """

    def __init__(self, patch: PatchModel, duration_s: float, exponent: float) -> None:
        super().__init__()
        self.patch = patch
        self.duration_s = duration_s
        self.exponent = exponent
        self.state_size = len(patch.log_prior)

    def forward(self, posterior: Tensor, state: Tensor, elapsed_s: Tensor) -> tuple[Tensor, Tensor]:
        stays = torch.exp(-elapsed_s / self.duration_s)
        predicted = stays * state + (1 - stays) * torch.exp(self.patch.log_prior)
        belief = torch.softmax(torch.log(predicted + 1e-12) + self.evidence(posterior), dim=-1)
        return belief[:, :-1], belief

    def evidence(self, posterior: Tensor) -> Tensor:
        """Return float32[..., L + 1]: a patch's log-likelihood of each state, up to a constant."""
        return self.exponent * (self.patch(posterior) - self.patch.log_prior)


class FixedLag(nn.Module):
    """A filter that looks back: its belief about this patch, and its revised beliefs about earlier.

    The fixed-lag smoother: Rabiner's equations 24-27 over the last patches. Its state is the
    filter's beliefs after each of the last patches, newest first, their evidence, and the seconds
    before each.
    """

    def __init__(self, filter: Filter, lags: int) -> None:
        super().__init__()
        self.filter = filter
        self.lags = lags
        self._n = filter.state_size  # L + 1
        self._sizes = [(1 + lags) * self._n, lags * self._n, lags]
        self.state_size = sum(self._sizes)

    def forward(self, posterior: Tensor, state: Tensor, elapsed_s: Tensor) -> tuple[Tensor, Tensor]:
        """Return float32[S, 1 + lags, L]: newest patch first, and the new state."""
        beliefs, evidence, steps_s = torch.split(state, self._sizes, dim=-1)
        beliefs = beliefs.unflatten(-1, (1 + self.lags, self._n))
        evidence = evidence.unflatten(-1, (self.lags, self._n))
        _, belief = self.filter(posterior, beliefs[:, 0], elapsed_s)
        beliefs = torch.cat((belief[:, None], beliefs[:, :-1]), dim=1)
        evidence = torch.cat((self.filter.evidence(posterior)[:, None], evidence[:, :-1]), dim=1)
        steps_s = torch.cat((elapsed_s, steps_s[:, :-1]), dim=1)
        prior = torch.exp(self.filter.patch.log_prior)
        now_believed = [belief]
        backward = torch.ones_like(belief)
        for lag in range(self.lags):
            stays = torch.exp(-steps_s[:, lag, None] / self.filter.duration_s)
            ahead = torch.exp(evidence[:, lag]) * backward
            backward = stays * ahead + (1 - stays) * (ahead @ prior)[:, None]
            backward = backward / backward.sum(dim=-1, keepdim=True)
            joint = (beliefs[:, lag + 1] * backward).clamp_min(1e-12)  # 0 before the stream began
            now_believed.append(joint / joint.sum(dim=-1, keepdim=True))
        kept = torch.cat((beliefs.flatten(1), evidence.flatten(1), steps_s), dim=1)
        return torch.stack(now_believed, dim=1)[..., :-1], kept


class Pooled(nn.Module):
    """Posteriors pooled over time, the past fading, as `reasoners/evidence.py` does; looking back.

    A patch is scored again with the two windows after it, which cover the time that its decision
    was for. The state is the pooled posterior and the latest posteriors, newest first.
    """

    def __init__(self, categories: int, half_life_s: float, lags: int) -> None:
        super().__init__()
        self.half_life_s = half_life_s
        self.lags = lags
        self._sizes = [categories, lags * categories]
        self.state_size = sum(self._sizes)

    def forward(self, posterior: Tensor, state: Tensor, elapsed_s: Tensor) -> tuple[Tensor, Tensor]:
        """Return float32[S, 1 + lags, C]: newest patch first, and the new state."""
        pooled, past = torch.split(state, self._sizes, dim=-1)
        kept = torch.exp2(-elapsed_s / self.half_life_s)
        pooled = kept * pooled + (1 - kept) * posterior
        newest = torch.cat((posterior, past), dim=-1).unflatten(-1, (1 + self.lags, -1))
        after = [newest[:, max(0, lag - 2) : lag].mean(dim=1) for lag in range(1, 1 + self.lags)]
        kept_state = torch.cat((pooled, newest[:, : self.lags].flatten(1)), dim=-1)
        return torch.stack((pooled, *after), dim=1), kept_state


Residual = FixedLag | Pooled
Step = Filter | Residual


def run(step: Step, posteriors: Tensor, elapsed_s: Tensor) -> Tensor:
    """Return float32[n, T, L] scores of n streams of T patches.

    Takes float32[n, T, C], and float32[n, T] seconds since the patch before, first ENDLESS_S.
    """
    state = torch.zeros(len(posteriors), step.state_size)
    scores = []
    for t in range(posteriors.shape[1]):
        scored, state = step(posteriors[:, t], state, elapsed_s[:, t, None])
        scores.append(scored)
    return torch.stack(scores, dim=1)


def elapsed(positions: np.ndarray, rate: int) -> np.ndarray:
    """Return float32[T] seconds since the patch before, of int64[T] positions."""
    return np.append(ENDLESS_S, np.diff(positions) / rate).astype(np.float32)


def export(step: Step, categories: int, card: Card, path: Path) -> None:
    """Write a reasoner's file: the graph, and its card in the metadata."""
    streams = torch.export.Dim("streams")
    example_inputs = {
        "posterior": torch.full((2, categories), 0.1),
        "state": torch.zeros(2, step.state_size),
        "elapsed_s": torch.full((2, 1), card.hop_s),
    }
    dynamic = {name: {0: streams} for name in example_inputs}
    write(step, example_inputs, dynamic, list(example_inputs), OUTPUTS, card, path)
