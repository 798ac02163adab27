"""The space that taught sounds are told apart in, and the bank: general sound, as points in it.

Each window's embedding is standardised by the bank's mean and deviation (for YAMNet also projected
on the bank's main directions) and scaled to length 1; windows are joined, each with its weight.
`tools/sound_bank.py` makes the bank, `bank.json` says of what.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import msgspec
import numpy as np

FOLDER = Path(__file__).parent / "bank"
WEIGHTS = {"mn04:3": 1.0, "yamnet:0.96": 0.5}  # chosen on kitchen20's training folds
STEPS = 127  # of int8


class Card(msgspec.Struct):
    """Of what a bank was made."""

    sha256: dict[str, str]  # by window, of the backbone's weights
    windows: dict[str, int]  # by group of recordings, how many are in it
    recordings: dict[str, int]  # by group
    corpus: list[str] = []  # packages


class Bank:
    """General sound: N moments, each seen by all of the bank's windows."""

    def __init__(self, card: Card, arrays: Mapping[str, np.ndarray]) -> None:
        self.card = card
        self.windows = list(card.sha256)
        names = list(card.windows)
        self.groups = np.array([names[i] for i in arrays["groups"]])  # str[N]
        self._arrays = {  # each hop takes all but the points
            name: each if name.endswith("points") else each.astype(np.float32)
            for name, each in arrays.items()
        }

    def features(self, window: str, embeddings: np.ndarray) -> np.ndarray:
        """Return float32[n, F] of length 1, of one window's embeddings float32[n, D]."""
        mean, scale = self._of(window, "mean"), self._of(window, "scale")
        standard = (embeddings - mean) / scale
        if f"{window} projection" in self._arrays:
            standard = standard @ self._of(window, "projection")
        return unit(standard)

    def points(self, window: str) -> np.ndarray:
        """Return float32[N, F], the bank's own features of a window."""
        return unit(self._of(window, "points"))

    def _of(self, window: str, what: str) -> np.ndarray:
        return self._arrays[f"{window} {what}"].astype(np.float32, copy=False)


class Space:
    """Joined features of those windows that a pipeline has, and the bank's points."""

    def __init__(self, windows: Sequence[str], bank: Bank, leave_out: Sequence[str] = ()) -> None:
        """`windows` are some of `WEIGHTS`; groups of `leave_out` are not in `points`."""
        self.windows = [window for window in WEIGHTS if window in windows]
        self._bank = bank
        points = self._join({name: bank.points(name) for name in self.windows})
        self.points = points[~np.isin(bank.groups, [*leave_out])]  # float32[N, F]

    def features(self, embeddings: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return float32[n, F] of embeddings by window, float32[n, D]."""
        return self._join(
            {name: self._bank.features(name, embeddings[name]) for name in self.windows}
        )

    def _join(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        weighted = [WEIGHTS[name] * features[name] for name in self.windows]
        return unit(np.concatenate(weighted, axis=1))


def unit(rows: np.ndarray) -> np.ndarray:
    """Return float32[n, F] of length 1 each."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.maximum(lengths, 1e-9)).astype(np.float32)


@cache
def shipped() -> Bank:
    """Return the bank that ships."""
    card = msgspec.json.decode((FOLDER / "bank.json").read_bytes(), type=Card)
    with np.load(FOLDER / "bank.npz", allow_pickle=False) as arrays:
        return Bank(card, dict(arrays))


def fit(
    embeddings: Mapping[str, np.ndarray], directions: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """Return the arrays of a bank of these moments; `directions` to keep, by window."""
    arrays: dict[str, np.ndarray] = {}
    for window, rows in embeddings.items():
        mean, deviation = rows.mean(axis=0), rows.std(axis=0)
        scale = deviation + 0.05 * rows.std()  # dimensions that hardly move count for little
        standard = (rows - mean) / scale
        if window in directions:
            _, _, main = np.linalg.svd(standard, full_matrices=False)
            projection = main[: directions[window]].T
            arrays[f"{window} projection"] = projection.astype(np.float16)
            standard = standard @ projection
        points = unit(standard)
        steps = np.round(points * STEPS / np.abs(points).max(axis=1, keepdims=True))
        arrays |= {
            f"{window} mean": mean.astype(np.float16),
            f"{window} scale": scale.astype(np.float16),
            f"{window} points": steps.astype(np.int8),
        }
    return arrays
