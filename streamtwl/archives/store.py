"""Folders of this machine, and object stores by their address, as s3://bucket/folder."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar, cast

from streamtwl.errors import AudioError, SinkError, StreamtwlError, UsageError
from streamtwl.recordings import SUFFIXES

_ADDRESS = re.compile(r"[a-z][a-z0-9+]+://.+", re.DOTALL)
BLOCK_BYTES = 8 << 20  # of a recording, fetched at once

Result = TypeVar("Result")


def is_remote(name: str) -> bool:
    """Whether a name is the address of an object store rather than a path."""
    return _ADDRESS.fullmatch(name) is not None


def open_recording(address: str) -> BinaryIO:
    """Open a recording in an object store for reading; raises AudioError."""
    with _errors(address, AudioError, "cannot be read"):
        files, path = _file_system(address)
        opened = files.open(path, "rb", block_size=BLOCK_BYTES, cache_type="readahead")
        if not opened.size:
            raise AudioError(f"'{address}' is empty")
        return cast(BinaryIO, opened)


def find(address: str) -> list[str]:
    """Return the recordings of a folder or a pattern in an object store, or a file's own address.

    Names are sorted; hidden ones and those that do not end like a recording's are left out, unless
    the address names one file. Raises AudioError.
    """
    with _errors(address, AudioError, "cannot be listed"):
        files, path = _file_system(address)
        if any(sign in path for sign in "*?["):
            found = [each for each in files.glob(path) if files.isfile(each)]
        elif files.isfile(path):
            return [address]
        else:
            found = files.find(path)
        named = [each for each in sorted(found) if _is_recording(each)]
        return [files.unstrip_protocol(each) for each in named]


def _is_recording(path: str) -> bool:
    pure = PurePosixPath(path)
    return pure.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in pure.parts)


class Store:
    """A folder or a bucket that results are written to: each file whole, or not at all.

    Raises SinkError.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.remote = is_remote(name)
        if self.remote:
            with _errors(name, SinkError, "cannot be written"):
                self._files, self._root = _file_system(name)
        else:
            self._root = os.path.abspath(name)

    def put(self, name: str, content: bytes) -> None:
        """Write a file; one of that name is replaced in one step."""
        if self.remote:
            self._do("cannot be written", lambda: self._files.pipe_file(self._at(name), content))
            return
        path = Path(self._at(name))
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        with _errors(self.name, SinkError, "cannot be written"):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                part.write_bytes(content)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)

    def get(self, name: str) -> bytes | None:
        """Return a file's content; None: there is none."""
        with _errors(self.name, SinkError, "cannot be read"):
            try:
                if self.remote:
                    return cast(bytes, self._files.cat_file(self._at(name)))
                return Path(self._at(name)).read_bytes()
            except FileNotFoundError:
                return None

    def names(self, folder: str = "") -> list[str]:
        """Return the names of what is in a folder; none where there is no folder."""
        with _errors(self.name, SinkError, "cannot be listed"):
            try:
                if self.remote:
                    found = self._files.ls(self._at(folder), detail=False, refresh=True)
                    return [each.rstrip("/").rpartition("/")[2] for each in found]
                return os.listdir(self._at(folder))
            except FileNotFoundError:
                return []

    def remove(self, name: str) -> None:
        """Delete a file; it may be gone already."""
        with _errors(self.name, SinkError, "cannot be written"):
            try:
                if self.remote:
                    self._files.rm_file(self._at(name))
                else:
                    Path(self._at(name)).unlink()
            except FileNotFoundError:
                return

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}" if name else self._root

    def _do(self, problem: str, action: Callable[[], Result]) -> Result:
        with _errors(self.name, SinkError, problem):
            return action()


def _file_system(address: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError:
        raise UsageError(f"{address}: pip install 'streamtwl[archive]' reads it") from None
    try:
        files, path = url_to_fs(address, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{address}: {error}") from None
    return files, path


@contextmanager
def _errors(name: str, kind: type[StreamtwlError], problem: str) -> Iterator[None]:
    try:
        yield
    except _failures() as error:
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise kind(f"{name} {problem}: {said}") from None


def _failures() -> tuple[type[BaseException], ...]:
    """Return what file systems raise; Amazon's client has errors of its own."""
    try:
        from botocore.exceptions import BotoCoreError
    except ModuleNotFoundError:
        return (OSError,)
    return (OSError, BotoCoreError)
