"""Tensors of a PyTorch file, read without PyTorch and without running the pickle inside it.

`torch.save` writes a zip: `NAME/data.pkl`, which describes tensors, and their raw values in
`NAME/data/0`, `1` ... The pickle is unpickled with the few names in `_ALLOWED` and no other, none
of which is a function of its author's.
"""

import math
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

import numpy as np

from streamtwl.errors import ModelError

MAX_BYTES = 4_000_000_000  # of all tensors together
MAX_PICKLE_BYTES = 50_000_000
_DTYPES = {
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "DoubleStorage": "<f8",
    "LongStorage": "<i8",
}


def read(file: Path) -> dict[str, np.ndarray]:
    """Return the state dict in `file`: the tensors by name.

    Raises ModelError if it is not such a file, is damaged, or asks for anything but tensors.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return _read(archive)
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror or error}") from None
    except zipfile.BadZipFile:
        raise ModelError(f"{file} is not a PyTorch file, or only a part of one") from None
    except (pickle.UnpicklingError, *_MALFORMED) as error:
        raise ModelError(f"{file} is refused: {error or type(error).__name__}") from None


# What unpickling raises where the bytes are not what `torch.save` writes.
_MALFORMED = (
    EOFError,
    KeyError,
    IndexError,
    ValueError,
    TypeError,
    AttributeError,
    OverflowError,
    NotImplementedError,
    RecursionError,
    MemoryError,
)


def _read(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    descriptions = [entry for entry in archive.infolist() if entry.filename.endswith("/data.pkl")]
    if len(descriptions) != 1 or descriptions[0].filename.count("/") != 1:
        raise pickle.UnpicklingError("there is no data.pkl in it")
    if descriptions[0].file_size > MAX_PICKLE_BYTES:
        raise pickle.UnpicklingError(f"its pickle has {descriptions[0].file_size} bytes")
    if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
        raise pickle.UnpicklingError(f"it unpacks to more than {MAX_BYTES / 1e9:.0f} GB")
    with archive.open(descriptions[0]) as opened:
        found = _Tensors(opened, archive, descriptions[0].filename.split("/")[0]).load()
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(tensor, np.ndarray) for name, tensor in found.items()
    ):
        raise pickle.UnpicklingError("it holds something other than named tensors")
    return dict(found)


class _Tensors(pickle.Unpickler):
    """Rebuilds arrays from an archive; every other object is refused."""

    def __init__(self, opened: IO[bytes], archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(opened)
        self._archive, self._root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        """Return the substitute for an allowed name; raises UnpicklingError for all others."""
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"its pickle asks for {module}.{name}, which may run code")
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        """Return the values of a storage: ("storage", type, key, device, how many)."""
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, np.dtype) or not isinstance(key, str):
            raise pickle.UnpicklingError("it holds something other than tensors")
        values = np.frombuffer(self._archive.read(f"{self._root}/data/{key}"), dtype)
        if len(values) != count:
            raise pickle.UnpicklingError(f"tensor data {key} has {len(values)} values, not {count}")
        return values


def _tensor(
    storage: np.ndarray, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> np.ndarray:
    """Return a tensor as a copy of its part of `storage`, in its shape."""
    sizes = [*shape, *stride, offset]
    if len(shape) != len(stride) or any(not isinstance(n, int) or n < 0 for n in sizes):
        raise pickle.UnpicklingError(f"a tensor has shape {shape} and stride {stride}")
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if not math.prod(shape) or last >= len(storage) or math.prod(shape) > len(storage):
        raise pickle.UnpicklingError(f"a tensor of shape {shape} is larger than its data")
    steps = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps).copy()


def _parameter(tensor: np.ndarray, *_: Any) -> np.ndarray:
    return tensor


_ALLOWED: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("collections", "OrderedDict"): OrderedDict,
    **{("torch", name): np.dtype(dtype) for name, dtype in _DTYPES.items()},
}
