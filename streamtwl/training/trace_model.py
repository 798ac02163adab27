"""A trace and a language model's trunk to one probability a label: what `reasoners/gpt2.py` runs.

A patch is K samples and a boundary token, or, in the soft trace, one token: the boundary with the
posterior's expectation of a sample's embedding. At each boundary the trunk's last hidden state is
read out: L labels now, and L for each of the `lags` patches before, as they look by now. A residual
path adds what a filter that looks back makes of the row of the patch; the boundary's embedding then
carries its beliefs and the row's features as well. A row (`reasoners/reads.py`) begins with the
posterior that samples are drawn from.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from streamtwl.reasoners.card import Card
from streamtwl.reasoners.gpt2 import INPUTS, OUTPUTS, cache_names
from streamtwl.reasoners.sampling import N_BINS
from streamtwl.training.export import write
from streamtwl.training.steps import FixedLag
from streamtwl.training.trunks import Trunk

CONTEXT = 512  # tokens
LOG_MEAN, LOG_SCALE = -7.0, 3.0  # bring a posterior's logarithms to about zero mean, unit variance
SURE = 1e-4  # the residual's beliefs are kept this far from 0 and 1


class TraceModel(nn.Module):
    """New embeddings before a trunk, a linear read-out after it, and a residual path beside it."""

    def __init__(
        self,
        trunk: Trunk,
        categories: int,
        labels: int,
        lags: int,
        soft: bool = False,
        residual: FixedLag | None = None,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.soft = soft
        self.context = min(CONTEXT, trunk.positions)
        self.categories = categories
        self.shape = (1 + lags, labels)
        self.symbols = nn.Embedding(categories + 1, trunk.width)  # the last is the boundary
        self.bins = nn.Embedding(N_BINS, trunk.width)
        for table in (self.symbols, self.bins):
            nn.init.normal_(table.weight, std=trunk.words_std)
        if trunk.initial_embedding is not None:
            self._start_from(trunk.initial_embedding)
        self.drop = nn.Dropout(0.1)
        self.read = nn.Linear(trunk.width, (1 + lags) * labels)
        self.residual = residual
        self.width = categories if residual is None else len(residual.features.mean)
        if residual is not None:
            nn.init.zeros_(self.read.weight)
            nn.init.zeros_(self.read.bias)
            self.belief = nn.Linear((1 + lags) * labels, trunk.width)
            self.features = residual.features.with_logs(LOG_MEAN, LOG_SCALE)
            self.posterior_in = nn.Linear(len(self.features.mean), trunk.width)
            self.drop_posterior = nn.Dropout(0.3)
            nn.init.normal_(self.posterior_in.weight, std=0.005)
            nn.init.zeros_(self.posterior_in.bias)
            self.scale = nn.Parameter(torch.ones(self.shape))
            self.bias = nn.Parameter(torch.zeros(self.shape))

    def train(self, mode: bool = True) -> "TraceModel":
        """Set the mode; a frozen trunk drops nothing out."""
        super().train(mode)
        if not any(weights.requires_grad for weights in self.trunk.parameters()):
            self.trunk.eval()
        return self

    @torch.no_grad()
    def _start_from(self, rows: Tensor) -> None:
        """Let the embedding begin with these rows: categories, and more where there are more."""
        words = torch.cat((self.symbols.weight, self.bins.weight))
        words[: len(rows)] = rows
        self.symbols.weight.copy_(words[: self.categories + 1])
        self.bins.weight.copy_(words[self.categories + 1 :])

    def embed(self, tokens: Tensor, row: Tensor, believed: Tensor | None) -> Tensor:
        """Return float32[..., T, D] of int64[..., T, 2] tokens that end in a boundary.

        `row` float32[..., F] begins with the posterior, which the soft trace reads; `believed`
        float32[..., 1 + lags, L] are the residual's log-odds.
        """
        posterior = row[..., : self.categories]
        embedded = self.symbols(tokens[..., 0]) + self.bins(tokens[..., 1])
        added = None
        if self.soft:
            shares = posterior / posterior.sum(dim=-1, keepdim=True).clamp_min(1e-9)
            octave = torch.floor(torch.log2(posterior.clamp_min(1e-9))) + 13
            bin_of = octave.clamp(0, N_BINS - 1).long()
            in_bins = torch.zeros(*posterior.shape[:-1], N_BINS).scatter_add(-1, bin_of, shares)
            added = shares @ self.symbols.weight[:-1] + in_bins @ self.bins.weight
        if believed is not None:
            features = self.drop_posterior(self.features(row))
            path = self.belief(believed.flatten(-2)) + self.posterior_in(features)
            added = path if added is None else added + path
        if added is None:
            return embedded
        boundary = embedded[..., -1:, :] + added[..., None, :]
        return torch.cat((embedded[..., :-1, :], boundary), dim=-2)

    def decide(self, hidden: Tensor, believed: Tensor | None) -> Tensor:
        """Return float32[..., 1 + lags, L] log-odds, of a boundary's hidden state."""
        read = self.read(self.drop(hidden)).unflatten(-1, self.shape)
        if believed is None:
            return read
        return read + self.scale * believed + self.bias

    def read_stream(self, tokens: Tensor, rows: Tensor, believed: Tensor | None) -> Tensor:
        """Return float32[n, P, 1 + lags, L] log-odds of n streams from their beginning.

        Takes int64[n, P, T, 2], float32[n, P, F], float32[n, P, 1 + lags, L].
        """
        n, patches, length, _ = tokens.shape
        embedded = self.embed(tokens, rows, believed).flatten(1, 2)
        mask = torch.ones(n, patches * length, dtype=torch.bool)
        positions = torch.arange(patches * length).expand(n, -1)
        hidden, _ = self.trunk(embedded, self.trunk.empty_cache(n), mask, positions)
        last = slice(length - 1, None, length)
        return self.decide(hidden[:, last], believed)

    def forward(
        self,
        tokens: Tensor,
        posterior: Tensor,
        state: Tensor,
        elapsed_s: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        past_key_values: list[Tensor],
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """One patch of R rows; see `reasoners/gpt2.py` for shapes."""
        believed = None
        if self.residual is not None:
            beliefs, state = self.residual(posterior, state, elapsed_s)
            believed = log_odds(beliefs)
        embedded = self.embed(tokens, posterior, believed)
        hidden, new = self.trunk(embedded, past_key_values, attention_mask, position_ids)
        scores = torch.sigmoid(self.decide(hidden[:, -1], believed))
        used = 0 * (posterior.sum(dim=-1) + elapsed_s[:, 0])[:, None]  # keeps all inputs
        return scores, state + used, new


def export(model: TraceModel, hop_s: float, card: Card, path: Path) -> None:
    """Write a reasoner's file: one patch of R rows, T new tokens each after P."""
    rows, past = 2, 3
    length = 1 if model.soft else 4
    state = 1 if model.residual is None else model.residual.state_size
    given: dict[str, Any] = {
        "tokens": torch.zeros(rows, length, 2, dtype=torch.int64),
        "posterior": torch.full((rows, model.width), 0.1),
        "state": torch.zeros(rows, state),
        "elapsed_s": torch.full((rows, 1), hop_s),
        "attention_mask": torch.ones(rows, past + length, dtype=torch.bool),
        "position_ids": torch.arange(past, past + length).expand(rows, -1).contiguous(),
        "past_key_values": [
            torch.randn(rows, model.trunk.heads, past, model.trunk.head_width)
            for _ in range(2 * model.trunk.layers)
        ],
    }
    auto = torch.export.Dim.DYNAMIC
    tokens = {} if model.soft else {1: auto}
    dynamic: dict[str, Any] = {
        "tokens": {0: auto, **tokens},
        "posterior": {0: auto},
        "state": {0: auto},
        "elapsed_s": {0: auto},
        "attention_mask": {0: auto, 1: auto},
        "position_ids": {0: auto, **tokens},
        "past_key_values": [{0: auto, 2: auto}] * (2 * model.trunk.layers),
    }
    inputs = [*INPUTS, *cache_names("past_key_values", model.trunk.layers)]
    outputs = [*OUTPUTS, *cache_names("present", model.trunk.layers)]
    write(model, given, dynamic, inputs, outputs, card, path)


def log_odds(beliefs: Tensor) -> Tensor:
    """Return the logarithm of p / (1 - p), p kept away from 0 and 1."""
    return torch.logit(beliefs.clamp(SURE, 1 - SURE))


def draw(posteriors: Tensor, samples: int, generator: torch.Generator) -> Tensor:
    """Return int64[..., K + 1, 2]: K samples of each float32[..., C] posterior and the boundary.

    As `trace.Tracer` draws them at temperature 1.
    """
    categories = posteriors.shape[-1]
    weights = posteriors.flatten(0, -2) + 1e-12
    if samples:
        drawn = torch.multinomial(weights, samples, replacement=True, generator=generator)
        scores = torch.gather(posteriors.flatten(0, -2), 1, drawn)
    else:
        drawn = torch.zeros(len(weights), 0, dtype=torch.int64)
        scores = torch.zeros(len(weights), 0)
    symbols = torch.nn.functional.pad(drawn, (0, 1), value=categories)
    scores = torch.cat((scores, posteriors.flatten(0, -2).sum(dim=1, keepdim=True)), dim=1)
    bins = torch.floor(torch.log2(scores.clamp_min(1e-9))) + 13
    tokens = torch.stack((symbols, bins.clamp(0, N_BINS - 1).long()), dim=-1)
    return tokens.unflatten(0, posteriors.shape[:-1])
