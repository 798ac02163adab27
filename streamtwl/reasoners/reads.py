"""What a trained reasoner reads of a patch: outputs of its windows, one after another in a row."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from streamtwl.stages import Patch

Output = Literal["posterior", "embedding"]
Read = tuple[str, Output]  # a window as the pipeline names it, and what is read of it

NO_EMBEDDING = ("yamnet",)  # whose posterior says as much: docs/results.md


def of_windows(windows: Sequence[str]) -> list[Read]:
    """Return what training reads of these windows, in their order.

    Each window's embedding, and of each backbone the posterior of its longest one; of YAMNet the
    posterior alone.
    """
    longest: dict[str, str] = {}
    for window in sorted(windows, key=_length_s):
        longest[backbone_of(window)] = window
    reads: list[Read] = []
    for window in windows:
        if backbone_of(window) not in NO_EMBEDDING:
            reads.append((window, "embedding"))
        if window in longest.values():
            reads.append((window, "posterior"))
    return reads


def windows_of(reads: Sequence[Read]) -> list[str]:
    """Return the windows that are read, each once, in order."""
    return list(dict.fromkeys(window for window, _ in reads))


def backbone_of(window: str) -> str:
    """Return the name of the backbone that scores a window, as mn04 of mn04:3."""
    return window.partition(":")[0]


def row(patch: Patch, reads: Sequence[Read]) -> np.ndarray:
    """Return float32[F]: what is read of a patch; of no `reads` its first window's posterior."""
    if not reads:
        return patch.posterior
    scores = {score.window: score for score in patch.scores}
    return np.concatenate([getattr(scores[window], output) for window, output in reads])


def columns(patch: Patch) -> Mapping[Read, slice]:
    """Return where each output of a patch is in a row that has all of them, in order."""
    found: dict[Read, slice] = {}
    at = 0
    for score in patch.scores:
        outputs: tuple[tuple[Output, np.ndarray], ...] = (
            ("posterior", score.posterior),
            ("embedding", score.embedding),
        )
        for output, values in outputs:
            found[score.window, output] = slice(at, at + len(values))
            at += len(values)
    return found


def _length_s(window: str) -> float:
    return float(window.partition(":")[2] or 0)
