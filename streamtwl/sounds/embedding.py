"""Recordings to embeddings, through the same windows as live sound; kept in the cache folder."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from streamtwl import folders
from streamtwl.backbones.bank import Bank
from streamtwl.errors import UsageError
from streamtwl.features.window import Windower
from streamtwl.sounds import arrays, augment
from streamtwl.stages import SAMPLE_RATE, Backbone, Block, End, WindowKind

HOP_S = 0.48
BLOCK_S = 24.0  # windows of so much sound are scored in one call
VERSION = 1  # increase it when the same recordings give other windows
VARIANTS = 6  # of a recording of up to VARIANTS_S, fewer of a longer one
VARIANTS_S = 5.0
FEWEST = 2
KNOWN_S = 1.0  # of a sound, or all of it, is in a window that it is learnt from ...
AFTER_S = 0.7  # ... which ends no later after it

Embeddings = Mapping[str, np.ndarray]  # by window: float32[n, D], the same n moments


class Embedder:
    """Some windows of a pipeline, cut and scored as in the live path."""

    def __init__(self, backbones: Sequence[Backbone], kinds: Sequence[WindowKind]) -> None:
        self._backbones, self._kinds = backbones, kinds
        self._bank = Bank(backbones, kinds)
        self.windows = [kind.name for kind in kinds]
        self.longest = round(max(kind.length_s for kind in kinds) * SAMPLE_RATE)
        weights = {kind.name: backbones[kind.backbone].sha256 for kind in kinds}
        self.key = "-".join(f"{name.replace(':', '_')}-{of[:8]}" for name, of in weights.items())

    def embed(self, samples: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return int[n] positions of the windows' ends and their embeddings, of float32[m].

        The last window is padded with zeros, as at the end of a stream.
        """
        windower = Windower(HOP_S, self._backbones, self._kinds)
        size = round(BLOCK_S * SAMPLE_RATE)
        ends: list[int] = []
        found: dict[str, list[np.ndarray]] = {name: [] for name in self.windows}
        for at in range(0, len(samples), size):
            block = samples[at : at + size].astype(np.float32, copy=False)
            cut = windower.push([Block(0, at, block, None, 0.0, last=at + size >= len(samples))])
            windows = [window for batch in cut if not isinstance(batch, End) for window in batch]
            ends += [window.position for window in windows]
            for patch in self._bank.score(windows):
                for score in patch.scores:
                    found[score.window].append(score.embedding)
        return np.array(ends, np.intp), {name: np.array(each) for name, each in found.items()}

    def example(self, samples: np.ndarray) -> dict[str, np.ndarray]:
        """Return the embeddings of the windows that a recording is learnt from, in all variants."""
        kept = folders.cache() / "sounds" / f"{self._name(samples)}.npz"
        try:
            return arrays.load(kept)
        except (OSError, ValueError):
            pass  # it is made anew
        found: dict[str, list[np.ndarray]] = {name: [] for name in self.windows}
        for mix, start in _variants(samples):
            ends, embeddings = self.embed(mix)
            known = self._known(ends, start, start + len(samples))
            for name in self.windows:
                found[name].append(embeddings[name][known])
        joined = {name: np.concatenate(each) for name, each in found.items()}
        _keep(kept, joined)
        return joined

    def _known(self, ends: np.ndarray, start: int, stop: int) -> np.ndarray:
        """Return bool[n]: which windows hold enough of the sound in [start, stop)."""
        inside = np.minimum(ends, stop) - np.maximum(np.maximum(ends - self.longest, 0), start)
        enough = min(stop - start, round(KNOWN_S * SAMPLE_RATE), self.longest // 2)
        known = (inside >= enough) & (ends <= stop + AFTER_S * SAMPLE_RATE)
        if not known.any():
            known = inside == inside.max()
        return known

    def _name(self, samples: np.ndarray) -> str:
        return f"{sha256(samples.tobytes()).hexdigest()[:16]}-{VERSION}-{self.key}"


def _variants(samples: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    over = len(samples) / SAMPLE_RATE / VARIANTS_S
    return augment.variants(samples, max(FEWEST, round(VARIANTS / max(1.0, over))))


def forget(recording: str) -> None:
    """Delete what is kept of a recording, by the start of its SHA-256 (`Store`'s name for it)."""
    with contextlib.suppress(OSError, UsageError):  # there may be no cache folder
        for file in (folders.cache() / "sounds").glob(f"{recording}-*.npz"):
            file.unlink(missing_ok=True)


def _keep(file: Path, embeddings: Embeddings) -> None:
    """Keep embeddings for the next time, if the cache folder takes them."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as opened:
            np.savez(opened, **_half(embeddings))
        partial.replace(file)


def _half(embeddings: Embeddings) -> dict[str, Any]:
    return {name: each.astype(np.float16) for name, each in embeddings.items()}
