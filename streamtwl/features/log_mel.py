"""Front ends of the backbones: each a matrix on the shared spectrum, and a logarithm.

Both mel scales are HTK's, 1127 ln(1 + f / 700), and both sets of bands are triangles on it.

YAMNet's constants: `params.py` and `features.py` of YAMNet in tensorflow/models (Apache-2.0).

EfficientAT's: `models/preprocess.py` of github.com/fschmid56/EfficientAT (MIT). It takes 32 kHz,
800-sample windows and a 1024-point FFT, which are the same window in seconds and the same 31.25 Hz
between bins as here, so the power that it would see follows from ours: times 4, as it sums twice as
many samples, and times the power response of its pre-emphasis. Only what is above 8 kHz is missing.
"""

from collections.abc import Callable

import numpy as np

from streamtwl.features.spectrum import BINS, FFT
from streamtwl.stages import SAMPLE_RATE

YAMNET_BANDS = 64
YAMNET_RANGE_HZ = (125.0, 7500.0)
YAMNET_OFFSET = np.float32(0.001)

EFFICIENTAT_BANDS = 128
EFFICIENTAT_RANGE_HZ = (0.0, 15_000.0)
EFFICIENTAT_RATE = 32_000  # Hz
EFFICIENTAT_OFFSET = np.float32(1e-5)
EFFICIENTAT_MEAN, EFFICIENTAT_SCALE = np.float32(4.5), np.float32(5)
PRE_EMPHASIS = 0.97


class LogMel:
    """A front end that only looks at the shared spectrum: a `stages.FrontEnd`."""

    def __init__(self, features: Callable[[np.ndarray], np.ndarray]) -> None:
        self._features = features

    def push(self, samples: np.ndarray, power: np.ndarray) -> np.ndarray:
        """Return the float32[m, bands] features of float32[m, 257] power."""
        return self._features(power)


def yamnet(power: np.ndarray) -> np.ndarray:
    """Return YAMNet's float32[m, 64] log-mel of float32[m, 257] power."""
    return np.log(np.sqrt(power) @ _YAMNET + YAMNET_OFFSET)


def efficientat(power: np.ndarray) -> np.ndarray:
    """Return EfficientAT's float32[m, 128] log-mel, normalised, of float32[m, 257] power."""
    log_mel = np.log(power @ _EFFICIENTAT + EFFICIENTAT_OFFSET)
    return (log_mel + EFFICIENTAT_MEAN) / EFFICIENTAT_SCALE


def mel_weights(bands: int, range_hz: tuple[float, float]) -> np.ndarray:
    """Return the float64[257, bands] matrix from FFT bins to mel bands: triangles of height 1.

    As `tf.signal.linear_to_mel_weight_matrix` and Kaldi make them; the DC bin is left out.
    """
    bins_mel = _mel(_HZ)[:, None]
    lowest, highest = _mel(np.array(range_hz))
    edges = np.linspace(lowest, highest, bands + 2)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins_mel - lower) / (centre - lower)
    falling = (upper - bins_mel) / (upper - centre)
    weights = np.maximum(0.0, np.minimum(rising, falling))
    weights[0] = 0.0
    return weights


def _mel(hz: np.ndarray) -> np.ndarray:
    return 1127.0 * np.log1p(hz / 700.0)


def _pre_emphasis() -> np.ndarray:
    """Return float64[257, 1]: the power response of x[n] - 0.97 x[n - 1] at 32 kHz."""
    response = 1 - PRE_EMPHASIS * np.exp(-2j * np.pi * _HZ / EFFICIENTAT_RATE)
    return np.abs(response[:, None]) ** 2


_HZ = np.arange(BINS) * SAMPLE_RATE / FFT
_YAMNET = mel_weights(YAMNET_BANDS, YAMNET_RANGE_HZ).astype(np.float32)
_LONGER = (EFFICIENTAT_RATE / SAMPLE_RATE) ** 2  # its sums have twice as many terms
_EFFICIENTAT = _LONGER * _pre_emphasis() * mel_weights(EFFICIENTAT_BANDS, EFFICIENTAT_RANGE_HZ)
_EFFICIENTAT = _EFFICIENTAT.astype(np.float32)
