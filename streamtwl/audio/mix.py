"""Several channels to one."""

import logging

import numpy as np

from streamtwl.errors import AudioError

_log = logging.getLogger(__name__)

FAR_DB = 15.0  # that a mix is below its loudest channel: two equal channels lose 3, one of four 12
NEAR_DB = 10.0  # below it, no more: they are mixed again
CANCELLED_DB = 6.0  # that a mix is below that of channels which have nothing in common
LOUDER_DB = 6.0  # than the channel in use, before another is
AUDIBLE_DBFS = -70.0  # RMS of a channel; below it nothing can be said
WATCHED_S = 0.1  # of sound, before the mix is judged
MEMORY_S = 1.0  # of the powers that are compared


class Mixer:
    """Mixes a stream's channels, or takes one of them.

    `channel` counts from 1; None: all. While the mix is far below the loudest channel, that channel
    is taken, and it is logged once: channels cancel one another out (a balanced cable on a stereo
    input), or most of many are silent. Raises AudioError for a channel that is not there.
    """

    def __init__(self, name: str, channel: int | None = None) -> None:
        self._name = name
        self._channel = channel
        self._powers = np.zeros(1)  # sums of squares: each channel, then the mix
        self._watched_s = 0.0
        self._taken: int | None = None  # the channel in use in place of the mix, from 0
        self._said = False

    def mix(self, frames: np.ndarray, rate: int) -> np.ndarray:
        """Take float32[n, channels] at `rate` Hz; return float32[n]."""
        channels = frames.shape[1]
        if channels == 1 and self._channel in (None, 1):
            return frames[:, 0]
        if self._channel is not None and self._channel <= channels:
            return frames[:, self._channel - 1]
        if self._channel is not None:
            raise AudioError(f"'{self._name}' has {channels} channel(s), not {self._channel}")
        of_channels = np.ascontiguousarray(frames.T)  # sums over short rows take 30 times as long
        mixed = of_channels.mean(axis=0, dtype=np.float32)
        self._watch(of_channels, mixed, rate)
        return mixed if self._taken is None else frames[:, self._taken]

    def _watch(self, of_channels: np.ndarray, mixed: np.ndarray, rate: int) -> None:
        """Compare the mix with its channels, float32[channels, n], and choose."""
        channels, seconds = len(of_channels), len(mixed) / rate
        powers = np.append(np.einsum("cn,cn->c", of_channels, of_channels), mixed @ mixed)
        if len(self._powers) != channels + 1:
            self._powers, self._watched_s, self._taken = np.zeros(channels + 1), 0.0, None
        kept = np.exp(-seconds / MEMORY_S)
        self._powers = kept * self._powers + powers
        self._watched_s = kept * self._watched_s + seconds
        *each, mix = self._powers
        loudest = int(np.argmax(each))
        audible = each[loudest] >= 10 ** (AUDIBLE_DBFS / 10) * self._watched_s * rate
        if self._watched_s < WATCHED_S or not audible:
            return
        if self._taken is None and mix < 10 ** (-FAR_DB / 10) * each[loudest]:
            self._taken = loudest
            unrelated = sum(each) / channels**2  # the mix's power, had they nothing in common
            self._say(bool(mix < 10 ** (-CANCELLED_DB / 10) * unrelated))
        elif self._taken is not None and mix > 10 ** (-NEAR_DB / 10) * each[loudest]:
            self._taken = None
        elif self._taken is not None and each[loudest] > 10 ** (LOUDER_DB / 10) * each[self._taken]:
            self._taken = loudest

    def _say(self, cancelled: bool) -> None:
        if self._said or self._taken is None:
            return
        self._said = True
        why, question = "most of its channels are silent", ""
        if cancelled:
            why, question = (
                "its channels cancel one another out",
                ": is one wired the wrong way round?",
            )
        _log.warning(
            "'%s': %s, so channel %d is used alone until that changes%s (--channel N chooses)",
            self._name,
            why,
            self._taken + 1,
            question,
        )
