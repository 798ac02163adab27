"""What a reader reads of each category at a hop: numbers that mean the same for any category.

None of them says which category it is. A reader that can tell categories apart learns those that it
is taught and is worse on all others; one that reads only how a category's scores come and go, and
what else is there, can be used on categories that it was never taught.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np

from streamtwl.reasoners.fusion import Fusion, logit
from streamtwl.reasoners.smoothing import Scores

NOTHING = np.float32(-12.0)  # for the best of none; a logit is never below -11.52
LIKELY = np.float32(-2.0)  # logits above it are counted


@dataclass(frozen=True, slots=True)
class Hop:
    """A patch as a reader reads it, for C categories and W windows."""

    joined: np.ndarray  # float32[C], logits of the smoothed windows' join: what evidence goes by
    own: np.ndarray  # float32[C, 3 + 4 W], of each category; `joined` and W logits come first
    around: np.ndarray  # float32[5 W], of all together


class Candidates:
    """Makes hops of patches' scores, and picks the categories that are worth a reading.

    `count` is how many are picked.
    """

    def __init__(
        self,
        fusion: Fusion,
        windows: Sequence[str],
        kinds: Sequence[Set[int]],
        wanted: np.ndarray,
        count: int,
    ) -> None:
        """`kinds` are the indices of each category's descendants; bool[C]: which may be picked."""
        self._fusion = fusion
        self._windows = windows
        self._unwanted = ~wanted
        self.count = min(count, int(wanted.sum()))
        above: list[list[int]] = [[] for _ in kinds]
        for category, below in enumerate(kinds):
            for each in below:
                above[each].append(category)
        self._kinds = _Best([sorted(below) for below in kinds])
        self._ancestors = _Best(above)

    def hop(self, newest: Scores, smoothed: Scores) -> Hop:
        """Return a patch as a reader reads it; the scores are as `Smoother.push` returns them."""
        joined = self._fusion.join(smoothed).astype(np.float32)
        logits = [logit(newest[window]) for window in self._windows]
        means = [logit(smoothed[window]) for window in self._windows]
        orders = [np.argsort(-each, kind="stable") for each in logits]
        ranked = [each[order] for each, order in zip(logits, orders, strict=True)]
        margins = [each - top[0] for each, top in zip(logits, ranked, strict=True)]
        own = [joined, *logits, *means, *margins, *map(_log_rank, orders)]
        around = [
            (top[0], top[1], top[:5].mean(), top.mean(), np.log1p((top > LIKELY).sum()))
            for top in ranked
        ]
        return Hop(
            joined,
            np.stack([*own, self._ancestors(joined), self._kinds(joined)], axis=-1),
            np.ravel(around).astype(np.float32),
        )

    def pick(self, hop: Hop) -> np.ndarray:
        """Return int[N], the categories with the highest joined logits, none unwanted."""
        scores = np.where(self._unwanted, -np.inf, hop.joined)
        return np.sort(np.argpartition(-scores, self.count - 1)[: self.count])


class _Best:
    """The highest of each category's relatives."""

    def __init__(self, relatives: Sequence[Sequence[int]]) -> None:
        self._shape = len(relatives)
        self._with = np.array([i for i, each in enumerate(relatives) if each], np.intp)
        self._all = np.array([j for each in relatives for j in each], np.intp)
        sizes = [len(each) for each in relatives if each]
        self._starts = np.cumsum([0, *sizes[:-1]]).astype(np.intp)

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """Return float32[C] of float32[C]."""
        best = np.full(self._shape, NOTHING)
        if len(self._with):
            best[self._with] = np.maximum.reduceat(logits[self._all], self._starts)
        return best


def _log_rank(order: np.ndarray) -> np.ndarray:
    """Return float32[C]: ln(1 + how many are higher), by int[C], the highest first."""
    ranks = np.empty(len(order), np.float32)
    ranks[order] = np.arange(len(order))
    return np.log1p(ranks)
