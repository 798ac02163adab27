"""Samples as they are stored, to float32 at full scale 1."""

from typing import Literal

import numpy as np

Encoding = Literal["u8", "s16le", "s24le", "s32le", "f32le"]
SAMPLE_BYTES: dict[str, int] = {"u8": 1, "s16le": 2, "s24le": 3, "s32le": 4, "f32le": 4}
_DTYPES = {"u8": "u1", "s16le": "<i2", "s32le": "<i4", "f32le": "<f4"}


def from_bytes(stored: bytes, encoding: str) -> np.ndarray:
    """Return float32[n] of n whole samples, stored little-endian."""
    if encoding == "s24le":
        padded = np.zeros((len(stored) // 3, 4), np.uint8)  # in the upper three bytes of four
        padded[:, 1:] = np.frombuffer(stored, np.uint8).reshape(-1, 3)
        return to_float(padded.view("<i4")[:, 0])
    return to_float(np.frombuffer(stored, _DTYPES[encoding]))


def to_float(samples: np.ndarray) -> np.ndarray:
    """Return float32 of the same shape; integers are scaled to [-1, 1), unsigned ones centred."""
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what is beyond float32 is infinite
            return samples.astype(np.float32, copy=False)
    scale = np.float32(2.0 ** (8 * samples.dtype.itemsize - 1))
    centre = scale if samples.dtype.kind == "u" else np.float32(0)
    return (samples.astype(np.float32) - centre) / scale
