"""Embeddings by window in one file, as `numpy.savez` writes it; a disk may have damaged it."""

import zipfile
from pathlib import Path

import numpy as np


def load(file: Path) -> dict[str, np.ndarray]:
    """Return float32[n, D] by window.

    Raises OSError where the file cannot be read, ValueError where a bit of it has changed.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            stored = all(each.compress_type == zipfile.ZIP_STORED for each in archive.infolist())
            damaged = "it is compressed" if not stored else archive.testzip()  # the checksums
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(str(error)) from None
    if damaged:
        raise ValueError(f"it is damaged: {damaged}")
    with np.load(file, allow_pickle=False) as found:
        return {name: found[name].astype(np.float32) for name in found.files}
