"""What every source is turned into: blocks of 16 kHz mono."""

from dataclasses import dataclass

import numpy as np

SAMPLE_RATE = 16_000


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive samples of one stream, 16 kHz mono."""

    stream: int
    position: int  # of samples[0], counted at 16 kHz from the stream's start
    samples: np.ndarray  # float32[n] in [-1, 1]
    captured_at: float | None  # wall-clock seconds just after the last sample; None for files
    ready_at: float  # monotonic seconds at which the resampler gave the last sample
    last: bool = False  # the stream ends with this block
    breaks_off: bool = False  # after a gap, or silence of the source, the next one begins anew
