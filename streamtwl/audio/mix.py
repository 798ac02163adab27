"""Several channels to one."""

import logging

import numpy as np

from streamtwl.errors import AudioError

_log = logging.getLogger(__name__)

CANCELLED_DB = (
    15.0  # that a mix is below its loudest channel: two equal channels lose 3, one of two 6
)
AUDIBLE_DBFS = -70.0  # RMS of a channel; below it nothing can be said
WATCHED_S = 0.1  # of sound, before the mix is judged
MEMORY_S = 1.0  # of the powers that are compared


class Mixer:
    """Mixes a stream's channels, or takes one of them.

    `channel` counts from 1; None: all. Where channels cancel one another out (a balanced cable on a
    stereo input), the mix is near silence: from then on the louder channel is taken, and that is
    logged once. Raises AudioError for a channel that is not there.
    """

    def __init__(self, name: str, channel: int | None = None) -> None:
        self._name = name
        self._channel = channel
        self._powers = np.zeros(1)  # sums of squares: each channel, then the mix
        self._watched_s = 0.0

    def mix(self, frames: np.ndarray, rate: int) -> np.ndarray:
        """Take float32[n, channels] at `rate` Hz; return float32[n]."""
        channels = frames.shape[1]
        if channels == 1 and self._channel in (None, 1):
            return frames[:, 0]
        if self._channel is not None and self._channel <= channels:
            return frames[:, self._channel - 1]
        if self._channel is not None:
            raise AudioError(f"'{self._name}' has {channels} channel(s), not {self._channel}")
        mixed = frames.mean(axis=1, dtype=np.float32)
        cancelled = self._cancelled(frames, mixed, rate)
        return mixed if cancelled is None else frames[:, cancelled]

    def _cancelled(self, frames: np.ndarray, mixed: np.ndarray, rate: int) -> int | None:
        """Return the loudest channel, counted from 0, where the mix is far below it."""
        channels, seconds = frames.shape[1], len(frames) / rate
        powers = np.append(np.einsum("nc,nc->c", frames, frames), mixed @ mixed)
        if len(self._powers) != channels + 1:
            self._powers, self._watched_s = np.zeros(channels + 1), 0.0
        kept = np.exp(-seconds / MEMORY_S)
        self._powers = kept * self._powers + powers
        self._watched_s = kept * self._watched_s + seconds
        loudest = int(np.argmax(self._powers[:-1]))
        audible = self._powers[loudest] >= 10 ** (AUDIBLE_DBFS / 10) * self._watched_s * rate
        below = self._powers[-1] < 10 ** (-CANCELLED_DB / 10) * self._powers[loudest]
        if self._watched_s < WATCHED_S or not audible or not below:
            return None
        self._channel = loudest + 1
        _log.warning(
            "'%s': its channels cancel one another out, so channel %d is used alone: is one wired "
            "the wrong way round? (--channel N chooses)",
            self._name,
            loudest + 1,
        )
        return loudest
