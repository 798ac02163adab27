"""Any sample rate to 16 kHz, as a stream."""

import numpy as np
import soxr

from streamtwl.errors import AudioError
from streamtwl.stages import SAMPLE_RATE

RATE_RANGE_HZ = (4_000, 768_000)  # from what telephones send to what bat detectors record


def check_rate(rate: int, called: str = "") -> None:
    """Raise AudioError, with the name of the source, for a rate outside 4 to 768 kHz."""
    lowest, highest = RATE_RANGE_HZ
    if not lowest <= rate <= highest:
        named = f"'{called}': " if called else ""
        raise AudioError(f"{named}sample rate {rate} Hz: streamtwl takes {lowest} to {highest} Hz")


class Resampler:
    """Streaming resampler to 16 kHz (soxr's HQ); nothing is lost at the end.

    Raises AudioError for a rate outside 4 to 768 kHz.
    """

    def __init__(self, rate: int) -> None:
        check_rate(rate)
        self._rate = rate
        self._soxr = None
        if rate != SAMPLE_RATE:
            self._soxr = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        self._taken = 0  # samples in, at `rate`
        self._given = 0  # samples out, at 16 kHz

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take float32[n] at the source's rate; return the float32[m] at 16 kHz ready by now."""
        return self._run(samples, last=False)

    def flush(self) -> np.ndarray:
        """Return the float32[m] that are still inside; the resampler is used up after that."""
        return self._run(np.empty(0, np.float32), last=True)

    @property
    def delay_s(self) -> float:
        """Seconds of sound that went in and have not come out yet."""
        return self._taken / self._rate - self._given / SAMPLE_RATE

    def _run(self, samples: np.ndarray, last: bool) -> np.ndarray:
        resampled = samples if self._soxr is None else self._soxr.resample_chunk(samples, last)
        self._taken += len(samples)
        self._given += len(resampled)
        return resampled
