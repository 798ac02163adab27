"""Kaldi's filter bank as the Audio Spectrogram Transformer takes it: samples in, log-mel out.

`torchaudio.compliance.kaldi.fbank(window_type="hanning", num_mel_bins=128)`, which AST was trained
with (Y. Gong, Y.-A. Chung, J. Glass, Interspeech 2021) and `transformers.ASTFeatureExtractor`
follows: of each frame of 25 ms its mean is taken out, then it is pre-emphasised and windowed. Both
come before the window, so this is no matrix on the shared spectrum.
"""

import numpy as np

from streamtwl.features.log_mel import PRE_EMPHASIS, mel_weights
from streamtwl.features.spectrum import FRAME, Frames, power_of
from streamtwl.stages import SAMPLE_RATE

BANDS = 128
RANGE_HZ = (20.0, SAMPLE_RATE / 2)
FLOOR = float(np.finfo(np.float32).eps)  # of a band's power


class Fbank:
    """A front end with frames of its own: a `stages.FrontEnd`."""

    def __init__(self, bands: int = BANDS) -> None:
        self._frames = Frames()
        self._mel = mel_weights(bands, RANGE_HZ)

    def push(self, samples: np.ndarray, power: np.ndarray) -> np.ndarray:
        """Take float32[n] samples in [-1, 1]; return the float32[m, bands] frames they complete.

        Frame i covers samples [160 i, 160 i + 400). The values are natural logarithms of power,
        not normalised. The shared spectrum, `power`, is not used.
        """
        return fbank(self._frames.push(samples), self._mel)


def fbank(frames: np.ndarray, mel: np.ndarray) -> np.ndarray:
    """Return float32[m, bands] log-mel of float32[m, 400] frames; `mel` is float64[257, bands]."""
    centred = frames - frames.mean(axis=1, keepdims=True, dtype=np.float64)
    before = np.concatenate((centred[:, :1], centred[:, :-1]), axis=1)
    emphasised = centred - PRE_EMPHASIS * before
    return np.log(np.maximum(power_of(emphasised * _HANN) @ mel, FLOOR)).astype(np.float32)


_HANN = np.hanning(FRAME)  # symmetric, unlike the spectrum's
