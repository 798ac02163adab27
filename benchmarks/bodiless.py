"""A reader's body that is none: what a language model has to be better than."""

from torch import Tensor, nn

from streamtwl.training import bodies

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
