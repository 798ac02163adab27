"""Samples of posteriors, drawn only for reasoners that read samples.

A sample is (category, confidence bin). Bins are powers of two, so that one octave of score is one
bin: bin 0 is below 2^-12, bin i is [2^(i-13), 2^(i-12)), bin 15 is 4 and above. A category's score
is at most 1 (bin 13); a patch's total score, which its boundary token carries, may be more.
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

N_BINS = 16
_LOWEST_EXPONENT = -12


def confidence_bin(score: np.ndarray | float) -> np.ndarray:
    """Return the bin, int16 in [0, 15], of each score >= 0."""
    _, exponent = np.frexp(score)  # score = mantissa * 2^exponent, mantissa in [0.5, 1)
    octave = np.where(np.equal(score, 0), _LOWEST_EXPONENT, exponent)
    return np.clip(octave - _LOWEST_EXPONENT, 0, N_BINS - 1).astype(np.int16)


class Sampler:
    """Draws M x K samples a patch.

    K draws with replacement from the posterior normalised to sum 1, at temperature tau (p^(1/tau)).
    The generator is Philox, keyed by seed, source and trace, with the patch index as counter: the
    same seed and audio give the same samples, whatever else runs.
    """

    def __init__(
        self, sources: Sequence[str], samples: int, traces: int, temperature: float, seed: int
    ) -> None:
        """`sources` names the streams, by number; K is `samples`, M is `traces`."""
        self._sources = sources
        self._samples, self._traces = samples, traces
        self._temperature, self._seed = temperature, seed
        self._streams: dict[int, tuple[list[int], int]] = {}  # Philox keys, patches drawn so far

    def draw(self, stream: int, posterior: np.ndarray) -> np.ndarray:
        """Return int16[M, K, 2], category and confidence bin, of a stream's next float32[C]."""
        keys, count = self._streams.get(stream) or (self._keys(stream), 0)
        self._streams[stream] = keys, count + 1
        uniform = np.stack([_uniform(key, count, self._samples) for key in keys])
        cumulative = np.cumsum(_weights(posterior, self._temperature))
        categories = np.searchsorted(cumulative, uniform * cumulative[-1], side="right")
        return np.stack((categories, confidence_bin(posterior[categories])), -1).astype(np.int16)

    def forget(self, stream: int) -> None:
        """Begin a stream anew."""
        self._streams.pop(stream, None)

    def _keys(self, stream: int) -> list[int]:
        source = self._sources[stream]
        named = [f"{self._seed}/{source}/{trace}".encode() for trace in range(self._traces)]
        return [int.from_bytes(blake2b(one, digest_size=16).digest(), "little") for one in named]


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
