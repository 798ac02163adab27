"""The spectrum that all front ends share: samples in, power spectra of short frames out."""

import numpy as np

FRAME = 400  # samples: 25 ms
FRAME_HOP = 160  # samples: 10 ms
FFT = 512
BINS = FFT // 2 + 1


class Frames:
    """Overlapping frames of a stream's samples: frame i is samples [hop i, hop i + size)."""

    def __init__(self, size: int = FRAME, hop: int = FRAME_HOP) -> None:
        self._size, self._hop = size, hop
        self._tail = np.empty(0, np.float32)  # samples that the next frame still needs

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take float32[n] samples; return the float32[m, size] frames they complete, read-only.

        Raises ValueError for anything that is not one-dimensional float32.
        """
        if samples.ndim != 1 or samples.dtype != np.float32:
            raise ValueError(f"Frames takes float32[n], got {samples.dtype}{list(samples.shape)}")
        pending = np.concatenate((self._tail, samples))
        n_frames = max(0, (len(pending) - self._size) // self._hop + 1)
        self._tail = pending[n_frames * self._hop :]
        if not n_frames:
            return np.empty((0, self._size), np.float32)
        return np.lib.stride_tricks.sliding_window_view(pending, self._size)[:: self._hop]


class Spectrum:
    """Streaming short-time Fourier transform of a 16 kHz stream, each frame computed once.

    Frame i covers samples [160 i, 160 i + 400) of the stream (periodic Hann, 25 ms every 10 ms).
    """

    def __init__(self) -> None:
        self._frames = Frames()

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take float32[n] samples in [-1, 1]; return the float32[m, 257] power they complete.

        Bin k is |X(k)|^2 at 31.25 k Hz. Raises ValueError for anything that is not one-dimensional
        float32.
        """
        return power_of(self._frames.push(samples) * _HANN).astype(np.float32)


def power_of(frames: np.ndarray) -> np.ndarray:
    """Return |X(k)|^2, float64[m, 257], of float64[m, 400] frames, windowed.

    In float64: beside a loud tone, float32's rounding would show in the quiet bins.
    """
    spectrum = np.fft.rfft(frames, FFT)
    return spectrum.real**2 + spectrum.imag**2


_HANN = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME)
