"""The network of a reader, and its file: a small GPT-2 beside a linear path, for any category."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2Model

from streamtwl.reasoners import reader
from streamtwl.reasoners.card import Card
from streamtwl.reasoners.gpt2 import cache_names
from streamtwl.training.export import write
from streamtwl.training.trunks import Trunk

LAGS = 4  # hops that a decision revises
CONTEXT = 32  # hops
RECENT = 7  # hops that the linear path reads
WIDTH, LAYERS, HEADS, DROPOUT = 64, 2, 4, 0.1
# Of the logits, so that of the labels given with 0.7 seven in ten are right (clips of the folds for
# training)
SCALE, SHIFT = 1.12, 0.89


class ReaderModel(nn.Module):
    """A linear path over the newest hops, the same for all categories, and what GPT-2 adds."""

    def __init__(
        self, own: int, around: int, lined: int, joined_scale: float, shift: float
    ) -> None:
        """Take the sizes F, X and V; at first each score is the evidence of its hop."""
        super().__init__()
        self.line = nn.Parameter(torch.zeros(1 + LAGS, RECENT, lined))
        self.shift = nn.Parameter(torch.full((1 + LAGS,), shift))
        with torch.no_grad():
            for lag in range(1 + LAGS):
                self.line[lag, lag, 0] = joined_scale
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(own + around))
        self.register_buffer("scale", torch.ones(own + around))
        self.embed = nn.Linear(own + around, WIDTH)
        config = GPT2Config(
            n_layer=LAYERS,
            n_embd=WIDTH,
            n_head=HEADS,
            n_positions=CONTEXT,
            vocab_size=1,
            bos_token_id=0,
            eos_token_id=0,
            resid_pdrop=DROPOUT,
            embd_pdrop=DROPOUT,
            attn_pdrop=0.0,
        )
        self.trunk = Trunk(GPT2Model(config))
        self.drop = nn.Dropout(DROPOUT)
        self.read = nn.Linear(WIDTH, 1 + LAGS)
        nn.init.zeros_(self.read.weight)
        nn.init.zeros_(self.read.bias)

    def standardise(self, features: Tensor) -> None:
        """Take float32[n, F + X] for each feature's mean and standard deviation."""
        self.mean.copy_(features.mean(dim=0))
        self.scale.copy_(features.std(dim=0) + 0.05)

    def logits(
        self,
        features: Tensor,
        recent: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        past: list[Tensor],
    ) -> tuple[Tensor, list[Tensor]]:
        """Return float32[R, T, 1 + B], and what the cache grows by; shapes as `forward`'s."""
        embedded = self.embed((features - self.mean) / self.scale)
        hidden, new = self.trunk(embedded, past, attention_mask, position_ids)
        line = torch.einsum("rtkv,bkv->rtb", recent, self.line) + self.shift
        return line + self.read(self.drop(hidden)), new

    def forward(
        self,
        features: Tensor,
        recent: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        past_key_values: list[Tensor],
    ) -> tuple[Tensor, list[Tensor]]:
        """T new hops of R rows; see `reasoners/reader.py` for shapes."""
        logits, new = self.logits(features, recent, attention_mask, position_ids, past_key_values)
        return torch.sigmoid(SCALE * logits + SHIFT), new


def export(model: ReaderModel, card: Card, path: Path) -> None:
    """Write a reader's file."""
    rows, past, hops = 2, 3, 2
    features, lined = len(model.mean), model.line.shape[-1]
    given: dict[str, Any] = {
        "features": torch.zeros(rows, hops, features),
        "recent": torch.zeros(rows, hops, RECENT, lined),
        "attention_mask": torch.ones(rows, past + hops, dtype=torch.bool),
        "position_ids": torch.arange(past, past + hops).expand(rows, -1).contiguous(),
        "past_key_values": [
            torch.randn(rows, model.trunk.heads, past, model.trunk.head_width)
            for _ in range(2 * model.trunk.layers)
        ],
    }
    auto = torch.export.Dim.DYNAMIC
    dynamic: dict[str, Any] = {
        "features": {0: auto, 1: auto},
        "recent": {0: auto, 1: auto},
        "attention_mask": {0: auto, 1: auto},
        "position_ids": {0: auto, 1: auto},
        "past_key_values": [{0: auto, 2: auto}] * (2 * model.trunk.layers),
    }
    inputs = [*reader.INPUTS, *cache_names("past_key_values", model.trunk.layers)]
    outputs = [*reader.OUTPUTS, *cache_names("present", model.trunk.layers)]
    write(model, given, dynamic, inputs, outputs, card, path)
