"""Models that take a stream of patches step by step, and their export to a reasoner's file.

Each is a torch module with the interface of `reasoners/recurrent.py`: (row of a patch, state,
elapsed_s) to (scores, new state). What is fitted comes from `linear.py`.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from streamtwl.reasoners.card import Card
from streamtwl.reasoners.recurrent import OUTPUTS
from streamtwl.training import hmm, linear
from streamtwl.training.export import write
from streamtwl.training.linear import FLOOR


class Features(nn.Module):
    """Rows as features, as `linear.Features` makes them."""

    is_posterior: Tensor  # bool[F]
    mean: Tensor  # float32[F]
    scale: Tensor  # float32[F]

    def __init__(self, fitted: linear.Features) -> None:
        super().__init__()
        for name in ("is_posterior", "mean", "scale"):
            self.register_buffer(name, torch.from_numpy(getattr(fitted, name)))

    def forward(self, posterior: Tensor) -> Tensor:
        """Return float32[..., F] features of rows."""
        logs = torch.log(torch.relu(posterior) + FLOOR)
        return (torch.where(self.is_posterior, logs, posterior) - self.mean) / self.scale

    def with_logs(self, mean: float, scale: float) -> "Features":
        """Return the same, but the logarithms of all posteriors with this mean and scale."""
        of_logs = self.is_posterior.numpy()
        return Features(
            linear.Features(
                of_logs,
                np.where(of_logs, np.float32(mean), self.mean.numpy()),
                np.where(of_logs, np.float32(scale), self.scale.numpy()),
            )
        )


class PatchModel(nn.Module):
    """A softmax regression over L labels and "none", on one patch: a fitted `linear.PatchModel`."""

    weight: Tensor  # float32[L + 1, F]
    bias: Tensor  # float32[L + 1]
    log_prior: Tensor  # float32[L + 1]: log shares of training time

    def __init__(self, fitted: linear.PatchModel) -> None:
        super().__init__()
        self.features = Features(fitted.features)
        for name in ("weight", "bias", "log_prior"):
            self.register_buffer(name, torch.from_numpy(getattr(fitted, name)))

    def forward(self, posterior: Tensor) -> Tensor:
        """Return float32[..., L + 1] log-probabilities of rows; "none" is the last."""
        logits = nn.functional.linear(self.features(posterior), self.weight, self.bias)
        return torch.log_softmax(logits, dim=-1)


class Filter(nn.Module):
    """The forward filter of a hidden Markov model: `hmm.Filter`, one step of it."""

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


def filter_of(fitted: hmm.Filter) -> Filter:
    """Return a fitted filter as a module."""
    return Filter(PatchModel(fitted.patch), fitted.duration_s, fitted.exponent)


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

    @property
    def features(self) -> Features:
        """The features of a row that it reads."""
        return self.filter.patch.features

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


Step = Filter | FixedLag


def run(step: Step, rows: Tensor, elapsed_s: Tensor) -> Tensor:
    """Return float32[n, T, L] scores of n streams of T patches.

    Takes float[n, T, F], and float32[n, T] seconds since the patch before, first ENDLESS_S.
    """
    state = torch.zeros(len(rows), step.state_size)
    scores = []
    for t in range(rows.shape[1]):
        scored, state = step(rows[:, t].float(), state, elapsed_s[:, t, None])
        scores.append(scored)
    return torch.stack(scores, dim=1)


@torch.no_grad()
def scores_of(step: Step, rows: np.ndarray, elapsed_s: np.ndarray) -> np.ndarray:
    """Return float32[n, T, L] scores in [0, 1] of float[n, T, F] rows, as `run` does."""
    return run(step.eval(), torch.from_numpy(rows), torch.from_numpy(elapsed_s)).numpy()


def export(step: Step, width: int, card: Card, path: Path) -> None:
    """Write a reasoner's file: the graph, and its card in the metadata; rows have that width."""
    streams = torch.export.Dim("streams")
    example_inputs = {
        "posterior": torch.full((2, width), 0.1),
        "state": torch.zeros(2, step.state_size),
        "elapsed_s": torch.full((2, 1), card.hop_s),
    }
    dynamic = {name: {0: streams} for name in example_inputs}
    write(step, example_inputs, dynamic, list(example_inputs), OUTPUTS, card, path)
