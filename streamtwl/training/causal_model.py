"""A network that listens patch by patch: each patch of spectrum once, and a memory of those before.

A few convolutions make a token of 0.32 s of log-mel, every 0.16 s; causal attention reads the
tokens of the last MEMORY patches, by keys and values that are kept (as Streaming Audio Transformers
do: H. Dinkel et al., Interspeech 2024). How far back a token lies is all that attention knows of
time (ALiBi: O. Press et al., ICLR 2022), so a stream may go on for days.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from streamtwl.features import log_mel
from streamtwl.features.log_mel import YAMNET_BANDS
from streamtwl.models.checkpoint import BackboneCard
from streamtwl.reasoners.gpt2 import cache_names
from streamtwl.training.export import write

PATCH = 16  # frames of 10 ms
SEEN = 2 * PATCH  # frames that a token is made of
MEMORY = 62  # patches: 10 s
WIDTH, LAYERS, HEADS, DROPOUT = 160, 4, 4, 0.1
CHANNELS = (32, 64, 128, 160)
MEAN, SCALE = -4.0, 2.5  # of YAMNet's log-mel, roughly


class CausalModel(nn.Module):
    """Log-mel patches to logits of C categories, one row a patch."""

    def __init__(self, categories: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for channels in CHANNELS:
            layers += [
                nn.Conv2d(before, channels, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.GELU(),
            ]
            before = channels
        self.convolutions = nn.Sequential(*layers)
        rows, columns = SEEN // 2 ** len(CHANNELS), YAMNET_BANDS // 2 ** len(CHANNELS)
        self.embed = nn.Linear(before * rows * columns, WIDTH)
        self.blocks = nn.ModuleList(_Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.read = nn.Linear(WIDTH, categories)
        nn.init.constant_(self.read.bias, -4.0)

    def logits(self, log_mel: Tensor, past: list[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return logits float32[N, T, C], embeddings [N, T, WIDTH], and each layer's new cache.

        Takes float32[N, 16 + 16 T, 64], the first 16 frames seen before, and for each layer keys
        and values float32[N, H, P, E] of the P patches before.
        """
        seen = ((log_mel - MEAN) / SCALE).unfold(1, SEEN, PATCH).mT  # [N, T, 32, 64]
        tokens = self.convolutions(seen.flatten(0, 1)[:, None]).flatten(1)
        hidden = self.embed(tokens).unflatten(0, seen.shape[:2])
        new: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            hidden, key, value = block(hidden, past[2 * i], past[2 * i + 1])
            new += [key, value]
        embedding = self.norm(hidden)
        return self.read(embedding), embedding, new

    def forward(self, log_mel: Tensor, past: list[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return posteriors, embeddings, and the cache with the last MEMORY patches."""
        logits, embedding, new = self.logits(log_mel, past)
        return torch.sigmoid(logits), embedding, new


class _Block(nn.Module):
    """Attention to the last MEMORY patches, then a layer of its own for each patch."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.project = nn.Linear(WIDTH, 3 * WIDTH)
        self.join = nn.Linear(WIDTH, WIDTH)
        self.wider = nn.Linear(WIDTH, 4 * WIDTH)
        self.back = nn.Linear(4 * WIDTH, WIDTH)
        self.drop = nn.Dropout(DROPOUT)
        slopes = torch.tensor([2.0 ** (-8 * (i + 1) / HEADS) for i in range(HEADS)])
        self.slopes: Tensor
        self.register_buffer("slopes", slopes)

    def forward(
        self, hidden: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = (
            each.unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for each in self.project(self.before(hidden)).chunk(3, dim=-1)
        )
        keys, values = torch.cat((keys, key), dim=2), torch.cat((values, value), dim=2)
        newest, there = torch.arange(query.shape[2]), torch.arange(keys.shape[2])
        back = (newest[:, None] + keys.shape[2] - query.shape[2] - there).float()
        reaches = (back >= 0) & (back < MEMORY)
        bias = torch.where(reaches, -back * self.slopes[:, None, None], -1e9)
        scores = query @ keys.mT / math.sqrt(query.shape[-1]) + bias
        read = (scores.softmax(dim=-1) @ values).transpose(1, 2).flatten(2)
        hidden = hidden + self.drop(self.join(read))
        wide = functional.gelu(self.wider(self.after(hidden)))
        hidden = hidden + self.drop(self.back(wide))
        return hidden, keys[:, :, -MEMORY:], values[:, :, -MEMORY:]


def silence_before(power: np.ndarray) -> np.ndarray:
    """Return float32[16 + 16 T, 64] log-mel of float32[m, 257] power: silence, whole patches."""
    frames = log_mel.yamnet(power)
    whole = len(frames) // PATCH * PATCH
    before = np.full((PATCH, YAMNET_BANDS), np.log(log_mel.YAMNET_OFFSET), np.float32)
    return np.concatenate((before, frames[:whole]))


def nothing_before(streams: int) -> list[Tensor]:
    """Return the cache of a stream that begins."""
    return [torch.zeros(streams, HEADS, 0, WIDTH // HEADS) for _ in range(2 * LAYERS)]


def export(model: CausalModel, card: BackboneCard, path: Path) -> None:
    """Write the network's file: T new patches of N streams after up to MEMORY."""
    streams, patches, past = 2, 3, 5
    given: dict[str, Any] = {
        "log_mel": torch.zeros(streams, PATCH * (patches + 1), YAMNET_BANDS),
        "past": [torch.randn(streams, HEADS, past, WIDTH // HEADS) for _ in range(2 * LAYERS)],
    }
    auto = torch.export.Dim.DYNAMIC
    dynamic: dict[str, Any] = {
        "log_mel": {0: auto, 1: auto},
        "past": [{0: auto, 2: auto}] * (2 * LAYERS),
    }
    inputs = ["log_mel", *cache_names("past_key_values", LAYERS)]
    outputs = ["posterior", "embedding", *cache_names("present", LAYERS)]
    write(model, given, dynamic, inputs, outputs, card, path, half=True)
