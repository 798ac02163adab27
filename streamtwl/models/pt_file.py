"""Tensors of a PyTorch file, read without PyTorch and without running the pickle inside it.

`torch.save` writes a zip: `NAME/data.pkl`, which describes tensors, and their raw values in
`NAME/data/0`, `1` ... An unpickler would call and change whatever a file names, and some pickles
crash it or fill the memory. So the few opcodes that describe a state dict are interpreted here, and
a file with any other is refused.
"""

import itertools
import math
import pickletools
import struct
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from streamtwl.errors import ModelError

MAX_PICKLE_BYTES = 1_000_000  # that of mn04 has 35,120
_DTYPES = {
    "torch FloatStorage": "<f4",
    "torch HalfStorage": "<f2",
    "torch DoubleStorage": "<f8",
    "torch LongStorage": "<i8",
}
_TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_DICT = "collections OrderedDict"
_NAMES = {_TENSOR, _PARAMETER, _DICT, *_DTYPES}


class _Refused(Exception):
    """Why a file is not taken, in a few words."""


class _Global(NamedTuple):
    name: str  # of _NAMES


class _Storage(NamedTuple):
    values: bytes
    dtype: np.dtype


_MARK = object()


def read(file: Path) -> dict[str, np.ndarray]:
    """Return the state dict in `file`: the tensors by name, which cannot be written to.

    Raises ModelError if it is not such a file, is damaged, or asks for anything but tensors.
    """
    try:
        size = file.stat().st_size
        with zipfile.ZipFile(file) as archive:
            return _read(archive, size)
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror or error}") from None
    except _Refused as error:
        raise ModelError(f"{file} is refused: {error}") from None
    except _MALFORMED:
        raise ModelError(f"{file} is not a PyTorch file, or a damaged one: get it again") from None


# Raised by zipfile and pickletools, and below, on bytes that `torch.save` does not write.
_MALFORMED = (
    zipfile.BadZipFile,
    struct.error,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    OverflowError,
    NotImplementedError,
)


def _read(archive: zipfile.ZipFile, size: int) -> dict[str, np.ndarray]:
    """Return the state dict in an archive of `size` bytes."""
    entries = archive.infolist()
    # As `torch.save` writes them, so that nothing unpacks to more than the file has.
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
        raise _Refused("it is compressed or encrypted")
    if sum(max(entry.file_size, entry.compress_size) for entry in entries) > size:
        raise _Refused(f"its parts add up to more than its {size} bytes")
    pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
    if len(pickles) != 1 or pickles[0].filename.count("/") != 1:
        raise _Refused("it has no data.pkl")
    if pickles[0].file_size > MAX_PICKLE_BYTES:
        raise _Refused(f"its pickle has {pickles[0].file_size} bytes")
    root = pickles[0].filename.partition("/")[0]
    if f"{root}/byteorder" in archive.namelist():
        order = archive.read(f"{root}/byteorder")
        if order != b"little":
            raise _Refused(f"its byte order is {_short(order)}, it takes little")
    found = _Pickle(archive, root).interpret(archive.read(pickles[0]))
    if not isinstance(found, dict) or not all(isinstance(e, np.ndarray) for e in found.values()):
        raise _Refused("it holds something other than named tensors")
    return found


class _Pickle:
    """The pickle of a state dict: a stack, a memo, and no call of what a file names."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        self._archive, self._root = archive, root
        self._stack: list[Any] = []
        self._memo: dict[Any, Any] = {}
        self._storages: dict[str, bytes] = {}

    def interpret(self, pickled: bytes) -> Any:
        """Return what it describes; raises _Refused, or one of _MALFORMED."""
        stack = self._stack
        for opcode, argument, _ in pickletools.genops(pickled):
            match opcode.name:
                case "STOP":
                    return stack.pop()
                case "PROTO":
                    continue
                case "BINPUT" | "LONG_BINPUT":
                    self._memo[argument] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(self._memo[argument])
                case "BUILD":
                    stack.pop()  # attributes: versions of the layers
                case "SETITEM":
                    self._set(self._pop(2))
                case "SETITEMS":
                    self._set(self._pop_to_mark())
                case _:
                    stack.append(self._made(opcode.name, argument))
        raise EOFError

    def _made(self, opcode: str, argument: Any) -> Any:
        """Return what an opcode puts on the stack."""
        match opcode:
            case "MARK":
                return _MARK
            case "NONE":
                return None
            case "NEWTRUE" | "NEWFALSE":
                return opcode == "NEWTRUE"
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINUNICODE":
                return argument
            case "EMPTY_DICT":
                return {}
            case "EMPTY_TUPLE":
                return ()
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                return tuple(self._pop(int(opcode[-1])))
            case "TUPLE":
                return tuple(self._pop_to_mark())
            case "GLOBAL" if argument in _NAMES:
                return _Global(argument)
            case "GLOBAL":
                raise _Refused(f"it asks for {_short(argument)}, which no state dict needs")
            case "BINPERSID":
                return self._storage(*self._pop(1)[0])
            case "REDUCE":
                return self._rebuilt(*self._pop(2))
        raise _Refused(f"its pickle has {opcode}, which no state dict needs")

    def _pop(self, n: int) -> list[Any]:
        """Take the newest `n` values off the stack."""
        if len(self._stack) < n:
            raise EOFError
        taken = self._stack[len(self._stack) - n :]
        del self._stack[len(self._stack) - n :]
        return taken

    def _pop_to_mark(self) -> list[Any]:
        above = itertools.takewhile(lambda each: each is not _MARK, reversed(self._stack))
        return self._pop(1 + sum(1 for _ in above))[1:]

    def _set(self, items: list[Any]) -> None:
        """Put keys and values, by turns, into the dict on the stack."""
        into, keys = self._stack[-1], items[::2]
        if type(into) is not dict or not all(type(key) is str for key in keys):
            raise _Refused("it holds something other than named tensors")
        into.update(zip(keys, items[1::2], strict=True))

    def _rebuilt(self, function: Any, arguments: Any) -> Any:
        """Return what a function of `torch` would: a dict or a tensor."""
        if type(arguments) is not tuple:
            raise TypeError
        match function:
            case _Global(name) if name == _DICT and not arguments:
                return {}
            case _Global(name) if name == _PARAMETER:
                return arguments[0]
            case _Global(name) if name == _TENSOR:
                return _tensor(*arguments[:4])
        raise _Refused("it calls what no state dict needs")

    def _storage(self, kind: Any, of: Any, key: Any, device: Any, count: Any) -> _Storage:
        """Return raw values; one part of the file is read once."""
        types = [type(each) for each in (kind, of, key, count)]
        if types != [str, _Global, str, int] or kind != "storage":
            raise _Refused("it holds something other than tensors")
        dtype = np.dtype(_DTYPES[of.name])
        if key not in self._storages:
            self._storages[key] = self._archive.read(f"{self._root}/data/{key}")
        values = self._storages[key]
        if len(values) != count * dtype.itemsize:
            raise _Refused(f"{_short(key)} has {len(values)} bytes, not {count} {dtype.name}")
        return _Storage(values, dtype)


def _tensor(
    storage: Any, offset: Any, shape: tuple[Any, ...], stride: tuple[Any, ...]
) -> np.ndarray:
    """Return a tensor, over the storage's own bytes; numpy checks that it lies within them."""
    whole = isinstance(storage, _Storage) and type(shape) is type(stride) is tuple
    if not whole or not all(type(n) is int for n in (*shape, *stride, offset)):
        raise _Refused("it holds something other than tensors")
    size = storage.dtype.itemsize
    if not 0 < math.prod(shape) <= len(storage.values) // size:
        raise _Refused("a tensor is empty or larger than its data")
    steps = [step * size for step in stride]
    return np.ndarray(shape, storage.dtype, storage.values, offset * size, steps)


def _short(named: str | bytes) -> str:
    """Return what a file names so that it fits in a line."""
    return repr(named[:80])
