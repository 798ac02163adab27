"""YAMNet's front end, streaming.

Constants and formulas: `params.py` and `features.py` of YAMNet in tensorflow/models (Apache-2.0).
"""

import numpy as np

from streamtwl.stages import SAMPLE_RATE

FRAME = 400  # samples: 25 ms
FRAME_HOP = 160  # samples: 10 ms
FFT = 512
MEL_BANDS = 64
MEL_RANGE_HZ = (125.0, 7500.0)
LOG_OFFSET = 0.001


class LogMel:
    """Streaming log-mel: samples in, frames out, each frame computed once.

    Frame i covers samples [160 i, 160 i + 400) of the stream (periodic Hann, 25 ms every 10 ms).
    """

    def __init__(self) -> None:
        self._tail = np.empty(0, np.float32)  # samples that the next frame still needs

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take float32[n] samples in [-1, 1]; return the float32[m, 64] frames they complete.

        Raises ValueError for anything that is not one-dimensional float32.
        """
        if samples.ndim != 1 or samples.dtype != np.float32:
            raise ValueError(f"LogMel takes float32[n], got {samples.dtype}{list(samples.shape)}")
        pending = np.concatenate((self._tail, samples))
        n_frames = max(0, (len(pending) - FRAME) // FRAME_HOP + 1)
        self._tail = pending[n_frames * FRAME_HOP :]
        if not n_frames:
            return np.empty((0, MEL_BANDS), np.float32)
        frames = np.lib.stride_tricks.sliding_window_view(pending, FRAME)[::FRAME_HOP]
        # In float64: beside a loud tone, float32's rounding would show in the quiet bands.
        magnitude = np.abs(np.fft.rfft(frames * _HANN, FFT))  # float64[m, 257]
        return np.log(magnitude @ _MEL + LOG_OFFSET).astype(np.float32)


def mel_weights() -> np.ndarray:
    """Return the float64[257, 64] matrix from FFT bins to mel bands.

    Triangles on the HTK mel scale, 1127 ln(1 + f / 700), with the DC bin left out, as
    `tf.signal.linear_to_mel_weight_matrix` makes them.
    """
    bins_mel = _mel(np.linspace(0, SAMPLE_RATE / 2, FFT // 2 + 1))[:, None]
    lowest, highest = _mel(np.array(MEL_RANGE_HZ))
    edges = np.linspace(lowest, highest, MEL_BANDS + 2)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins_mel - lower) / (centre - lower)
    falling = (upper - bins_mel) / (upper - centre)
    weights = np.maximum(0.0, np.minimum(rising, falling))
    weights[0] = 0.0
    return weights


def _mel(hz: np.ndarray) -> np.ndarray:
    return 1127.0 * np.log1p(hz / 700.0)


_HANN = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME)
_MEL = mel_weights()
