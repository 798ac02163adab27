"""Sampled categories, patch after patch: what a reasoner reads.

A sample is (category, confidence bin). Bins are powers of two, so that one octave of score is one
bin: bin 0 is below 2^-12, bin i is [2^(i-13), 2^(i-12)), bin 15 is 4 and above. A category's score
is at most 1 (bin 13); a patch's total score, which its boundary token carries, may be more.
"""

from collections import deque
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from streamtwl.backbones.yamnet import Patch
from streamtwl.config import TraceSettings

N_BINS = 16
_LOWEST_EXPONENT = -12


@dataclass(frozen=True, slots=True)
class Draws:
    """The samples of one patch: what a trace is made of."""

    index: int  # of the patch in its stream, from 0
    samples: np.ndarray  # int16[M, K, 2]: category, confidence bin
    boundary: int  # the bin of the patch's total score


@dataclass(frozen=True, slots=True)
class Drawn:
    """A patch with its samples."""

    patch: Patch
    draws: Draws


def confidence_bin(score: np.ndarray | float) -> np.ndarray:
    """Return the bin, int16 in [0, 15], of each score >= 0."""
    _, exponent = np.frexp(score)  # score = mantissa * 2^exponent, mantissa in [0.5, 1)
    octave = np.where(np.equal(score, 0), _LOWEST_EXPONENT, exponent)
    return np.clip(octave - _LOWEST_EXPONENT, 0, N_BINS - 1).astype(np.int16)


class Tracer:
    """Draws M x K samples a patch and keeps each stream's trace for `horizon_s` seconds.

    K draws with replacement from the posterior normalised to sum 1, at temperature tau (p^(1/tau)).
    The generator is Philox, keyed by seed, source and trace, with the patch index as counter: the
    same seed and audio give the same samples, whatever else runs.
    """

    def __init__(self, sources: list[str], settings: TraceSettings, hop_s: float) -> None:
        self._sources = sources
        self._settings = settings
        self._patches_kept = max(1, round(settings.horizon_s / hop_s))
        self._streams: dict[int, _Trace] = {}

    def draw(self, patches: list[Patch]) -> list[Drawn]:
        """Return the patches with their samples, which also extend the traces of their streams."""
        return [self._draw(patch) for patch in patches]

    def trace(self, stream: int) -> list[Draws]:
        """Return a stream's trace, oldest patch first, at most `horizon_s` long."""
        return list(self._streams[stream].patches) if stream in self._streams else []

    def forget(self, stream: int) -> None:
        """Let go of a stream that has ended."""
        self._streams.pop(stream, None)

    def _draw(self, patch: Patch) -> Drawn:
        stream = patch.window.stream
        if stream not in self._streams:
            keys = [
                self._key(self._sources[stream], trace) for trace in range(self._settings.traces)
            ]
            self._streams[stream] = _Trace(keys, deque(maxlen=self._patches_kept))
        trace = self._streams[stream]
        uniform = np.stack(
            [_uniform(key, trace.count, self._settings.samples) for key in trace.keys]
        )
        cumulative = np.cumsum(_weights(patch.posterior, self._settings.temperature))
        categories = np.searchsorted(cumulative, uniform * cumulative[-1], side="right")
        bins = confidence_bin(patch.posterior[categories])
        samples = np.stack((categories, bins), axis=-1).astype(np.int16)
        boundary = int(confidence_bin(float(patch.posterior.sum())))
        draws = Draws(trace.count, samples, boundary)
        trace.patches.append(draws)
        trace.count += 1
        return Drawn(patch, draws)

    def _key(self, source: str, trace: int) -> int:
        named = f"{self._settings.seed}/{source}/{trace}".encode()
        return int.from_bytes(blake2b(named, digest_size=16).digest(), "little")


@dataclass(slots=True)
class _Trace:
    keys: list[int]  # one Philox key a trace
    patches: deque[Draws]
    count: int = 0  # patches drawn so far


def _weights(posterior: np.ndarray, temperature: float) -> np.ndarray:
    """Return p^(1/tau), float64[C], times whatever makes the largest 1; all 1 where all p are 0."""
    strongest = posterior.max()
    if strongest == 0:
        return np.ones(len(posterior))
    return (posterior.astype(np.float64) / strongest) ** (1 / temperature)


def _uniform(key: int, patch: int, count: int) -> np.ndarray:
    """Return float64[count] in [0, 1), the same for the same key and patch."""
    # The counter has 256 bits; the patch sits in its second word, out of reach of the draws.
    return np.random.Generator(np.random.Philox(key=key, counter=patch << 64)).random(count)
