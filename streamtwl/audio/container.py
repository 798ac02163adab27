"""What FFmpeg does not see: headers with an old or a wrapped size, and files that were joined."""

import io
import itertools
import mmap
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

_WAV_HEAD = struct.Struct("<4sI4s")  # RIFF, size, WAVE
_CHUNK = struct.Struct("<4sI")
_FMT = struct.Struct("<HHII")  # format, channels, rate, bytes a second
_PCM = (1, 3, 0xFFFE)  # formats: integers, floats, either
_TRAILING_BYTES = 1000  # behind the sound of a WAV file and no chunk: padding
_UNKNOWN_BYTES = 0x7FFF0000  # sizes from there on mean that the writer did not know
_OGG_HEAD = 27  # bytes of a page, before its table of segments
_OGG_BEGINS = re.compile(rb"OggS\0\x02")
_HEAD_BYTES = 4096  # in which the sizes stand
_FOUR = b"\x7f" + 3 * b"\xff"  # the largest, big-endian
# by a file's first four bytes: tag, where its size stands from there, a size without an end
_SIZES = {
    b".snd": ((b".snd", 8, 4 * b"\xff"),),
    b"FORM": ((b"FORM", 4, _FOUR), (b"SSND", 4, _FOUR)),
    b"riff": ((b"data\xf3\xac\xd3\x11", 16, 5 * b"\0" + b"\1\0\0"),),  # Wave64, little-endian
}


@dataclass(slots=True)
class Part:
    """A whole file by itself: all of a file on disk, or one of several that were joined."""

    file: Any  # for av.open: read, and seek and tell where that is possible
    options: dict[str, str] = field(default_factory=dict)  # of FFmpeg's demuxer
    promised_s: float | None = None  # seconds of sound, where the header is better read here


def parts(file: BinaryIO) -> Iterator[Part]:
    """Yield the parts of a file, in order; a pipe is one."""
    if not file.seekable():
        yield Part(_Pipe(file))
        return
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    magic = file.read(_WAV_HEAD.size)
    file.seek(0)
    if magic[:4] in (b"RIFF", b"RF64", b"BW64") and magic[8:] == b"WAVE":
        yield from _wav_parts(file, size)
    elif magic[:4] == b"OggS":
        starts = [*_ogg_starts(file), size]
        for start, end in itertools.pairwise(starts):
            yield Part(_Stretch(file, start, end))
    else:
        yield Part(_Stretch(file, 0, size, _unfinished(file, magic[:4])))


def _unfinished(file: BinaryIO, magic: bytes) -> dict[int, bytes]:
    """Return what is to be read in place of the zeros that stand where sizes are still to come."""
    start = _read_at(file, 0, _HEAD_BYTES)
    patches = {}
    for tag, offset, unknown in _SIZES.get(magic, ()):
        at = start.find(tag) + offset
        if tag in start and start[at : at + len(unknown)] == bytes(len(unknown)):
            patches[at] = unknown
    return patches


def _wav_parts(file: BinaryIO, size: int) -> Iterator[Part]:
    """Walk the chunks. In a whole file nothing follows the sound but chunks, and other files."""
    at, start, byte_rate, sound_ends = _WAV_HEAD.size, 0, 0, size
    promised_s: float | None = None
    long_length: int | None = None
    while at + _CHUNK.size <= size:
        kind, length = _CHUNK.unpack(_read_at(file, at, _CHUNK.size))
        behind = at >= sound_ends
        if behind and kind == b"RIFF":
            yield Part(_Stretch(file, start, at), promised_s=promised_s)
            start, at, sound_ends = at, at + _WAV_HEAD.size, size
            continue
        if behind and not (_is_name(kind) and at + length <= size):
            outgrown = size - sound_ends > _TRAILING_BYTES
            options = {"ignore_length": "1"} if outgrown else {}
            yield Part(_Stretch(file, start, size), options, promised_s)
            return
        at += _CHUNK.size
        if kind == b"fmt ":
            coding, _, _, byte_rate = _FMT.unpack(_read_at(file, at, _FMT.size).ljust(_FMT.size))
            byte_rate = byte_rate if coding in _PCM else 0
        if kind == b"ds64":  # of RF64, for what needs 64 bits
            [long_length] = struct.unpack("<Q", _read_at(file, at + 8, 8).ljust(8))
        if kind == b"data" and not behind:
            length = long_length if length == 0xFFFFFFFF and long_length is not None else length
            known = byte_rate and (length < _UNKNOWN_BYTES or long_length is not None)
            promised_s = length / byte_rate if known else None
            sound_ends = at + length
        at += length + length % 2
    yield Part(_Stretch(file, start, size), promised_s=promised_s)


def _is_name(kind: bytes) -> bool:
    return kind.isascii() and kind.decode().isprintable()


def _ogg_starts(file: BinaryIO) -> list[int]:
    """Return where a first page stands, but for the first pages of several tracks side by side."""
    try:
        content: Any = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, io.UnsupportedOperation):  # in memory
        content = file.read()
    starts, follows_at = [], -1
    for found in _OGG_BEGINS.finditer(content):
        at = found.start()
        if at != follows_at:
            starts.append(at)
        segments = content[at + _OGG_HEAD - 1] if at + _OGG_HEAD <= len(content) else 0
        table = content[at + _OGG_HEAD : at + _OGG_HEAD + segments]
        follows_at = at + _OGG_HEAD + segments + sum(table)
    return starts or [0]


def _read_at(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)


class _Stretch:
    """The bytes [start, end) of a file, as a file; some may be replaced, by their place in it."""

    def __init__(
        self, file: BinaryIO, start: int, end: int, patches: dict[int, bytes] | None = None
    ) -> None:
        self._file, self._start, self._end = file, start, end
        self._patches = patches or {}
        self._at = start

    def read(self, size: int) -> bytes:
        at, end = self._at, min(self._at + size, self._end)
        read = _read_at(self._file, at, end - at)
        for place, patch in self._patches.items():
            cut = max(at, place)
            new = patch[cut - place : max(cut, end) - place]
            read = read[: cut - at] + new + read[cut - at + len(new) :]
        self._at += len(read)
        return read

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: self._start, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        self._at = min(max(base + offset, self._start), self._end)
        return self.tell()

    def tell(self) -> int:
        return self._at - self._start


class _Pipe:
    """A file without `seek`, so that FFmpeg does not try; gives what is there."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        return os.read(self._file.fileno(), size)
