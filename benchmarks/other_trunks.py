"""Trunks to compare with: none at all, which every trunk has to beat, and a faster one."""

import torch
from torch import Tensor, nn

from streamtwl.training import trunks
from streamtwl.training.trunks import Trunk

WIDTH = 128  # tiny's


class NoTrunk(nn.Module):
    """Hands embeddings on: each patch by itself."""

    width, layers, heads, head_width = WIDTH, 0, 1, 1
    positions = trunks.TINY_POSITIONS
    words_std = trunks.WORDS_STD
    initial_embedding = None

    def forward(
        self, embeddings: Tensor, past: list[Tensor], mask: Tensor, positions: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Return them as they are."""
        return embeddings, []

    def empty_cache(self, rows: int) -> list[Tensor]:
        """Return an empty cache."""
        return []


class InBfloat16(nn.Module):
    """A trunk that multiplies in bfloat16, for one that is too slow otherwise."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk
        self.width, self.layers, self.initial_embedding = (
            trunk.width,
            trunk.layers,
            trunk.initial_embedding,
        )
        self.positions, self.words_std = trunk.positions, trunk.words_std

    def forward(
        self, embeddings: Tensor, past: list[Tensor], mask: Tensor, positions: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Return what the trunk does."""
        with torch.autocast("cpu", torch.bfloat16):
            hidden, new = self.trunk(embeddings, past, mask, positions)
        return hidden.float(), new

    def empty_cache(self, rows: int) -> list[Tensor]:
        """Return the trunk's empty cache."""
        return self.trunk.empty_cache(rows)
