"""Log-mel frames for a spectrogram on a page: 64 bands every 10 ms, a byte each."""

from typing import NamedTuple

import numpy as np

from streamtwl.features import log_mel
from streamtwl.features.spectrum import FRAME, FRAME_HOP, Spectrum

LOWEST, HIGHEST = -7.0, 4.0  # of YAMNet's log-mel: silence; as loud as sound gets


class Mel(NamedTuple):
    """Consecutive frames."""

    frames: bytes  # uint8[n, 64]: LOWEST is 0, HIGHEST 255; band 0 is the lowest
    position: int  # at which the first one begins
    next: int  # at which the one after the last will begin


def samples_in(frames: int) -> int:
    """Return how many samples there are in so many frames, wherever the grid lies."""
    return frames * FRAME_HOP + FRAME - FRAME_HOP + FRAME_HOP - 1


def frames(position: int, samples: np.ndarray, since: int) -> Mel:
    """Return the frames of float32[n] samples from `position` on, on the grid of 10 ms.

    Those that begin before `since` are left out.
    """
    first = -(-max(position, since) // FRAME_HOP) * FRAME_HOP
    power = Spectrum().push(samples[first - position :])
    level = (log_mel.yamnet(power) - LOWEST) * (255 / (HIGHEST - LOWEST))
    grey = np.clip(level, 0, 255).astype(np.uint8)
    return Mel(grey.tobytes(), first, first + len(grey) * FRAME_HOP)
