"""Bodies to compare with: none at all, which any has to be better than, and a faster one."""

import torch
from torch import Tensor, nn

from streamtwl.training import bodies
from streamtwl.training.bodies import Body

WIDTH = 128  # tiny's


class NoBody(nn.Module):
    """Hands embeddings on: each patch by itself."""

    width, layers, heads, head_width = WIDTH, 0, 1, 1
    positions = bodies.TINY_POSITIONS
    words_std = bodies.WORDS_STD
    rows = None

    def forward(
        self, embeddings: Tensor, past: list[Tensor], mask: Tensor, positions: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Return them as they are."""
        return embeddings, []

    def nothing_read(self, rows: int) -> list[Tensor]:
        """Return an empty cache."""
        return []


class InBfloat16(nn.Module):
    """A body that multiplies in bfloat16, for one that is too slow otherwise."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.body = body
        self.width, self.layers, self.rows = body.width, body.layers, body.rows
        self.positions, self.words_std = body.positions, body.words_std

    def forward(
        self, embeddings: Tensor, past: list[Tensor], mask: Tensor, positions: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Return what the body does."""
        with torch.autocast("cpu", torch.bfloat16):
            hidden, new = self.body(embeddings, past, mask, positions)
        return hidden.float(), new

    def nothing_read(self, rows: int) -> list[Tensor]:
        """Return the body's empty cache."""
        return self.body.nothing_read(rows)
