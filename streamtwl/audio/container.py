"""What FFmpeg does not see: headers with an old or a wrapped size, and files that were joined."""

import io
import itertools
import mmap
import os
import re
import select
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

_WAV_HEAD = struct.Struct("<4sI4s")  # RIFF, size, WAVE
_WAVS = (b"RIFF", b"RF64", b"BW64")
_CHUNK = struct.Struct("<4sI")
_FMT = struct.Struct("<HHIIHH")  # format, channels, rate, bytes a second, a frame; bits a sample
_PCM = (1, 3, 0xFFFE)  # formats: integers, floats, either
_EXTENSIBLE, _VALID_BITS, _SUBFORMAT = 0xFFFE, 18, 24  # format; where in its fmt chunk they stand
_TRAILING_BYTES = 1000  # behind the sound of a WAV file and no chunk: padding
_UNKNOWN_BYTES = 0x7FFF0000  # sizes from there on mean that the writer did not know
_UNKNOWN_LONG = 1 << 63  # the same in 64 bits
_ID3_HEAD = 10  # bytes of a tag in front, before what it says
_BOX = struct.Struct(">I4s")  # of MP4: size, kind
_EBML, _DURATION = b"\x1a\x45\xdf\xa3", b"\x44\x89"  # how Matroska begins; an element of its head
_OGG_HEAD = 27  # bytes of a page, before its table of segments
_OGG_BEGINS = re.compile(rb"OggS\0\x02")
WAIT_S = 0.1  # for a pipe, before somebody may want the end
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

    file: Any  # for open_input: read, and seek and tell where that is possible
    options: dict[str, str] = field(default_factory=dict)  # of FFmpeg's demuxer
    promised_s: float | None = None  # seconds of sound, where the header is better read here
    problem: str | None = None  # why FFmpeg will not open it, where that is known
    says_length: bool = False  # of Matroska: whether its header does


def parts(file: BinaryIO, stopping: Callable[[], bool] = lambda: False) -> Iterator[Part]:
    """Yield the parts of a file, in order; a pipe is one, which ends where `stopping` says so."""
    if not file.seekable():
        yield Part(_Pipe(file, stopping))
        return
    size = file.seek(0, os.SEEK_END)
    start = _behind_id3(file, size)
    magic = _read_at(file, start, _WAV_HEAD.size)
    if magic[:4] in _WAVS and magic[8:] == b"WAVE":
        while start + _WAV_HEAD.size <= size:
            data, start = _wav_file(file, start, size)
            yield from data
        return
    starts, problem = [start], None
    if magic[:4] == b"OggS":
        starts = _ogg_starts(file)
    elif magic[4:8] == b"ftyp":
        starts, problem = _mp4_starts(file, start, size)
    elif magic[:4] == b"FORM":
        starts = _aiff_starts(file, start, size)
    for begin, end in itertools.pairwise([*starts, size]):
        unfinished = _unfinished(file, begin, magic[:4])
        says = magic[:4] == _EBML and _DURATION in _read_at(file, begin, _HEAD_BYTES)
        yield Part(_Stretch(file, begin, end, unfinished), problem=problem, says_length=says)


def _behind_id3(file: BinaryIO, size: int) -> int:
    """Return where a file begins behind its ID3v2 tags, which not every demuxer knows.

    Of a tag that would end behind the file only the head is left out.
    """
    at = 0
    while (head := _read_at(file, at, _ID3_HEAD))[:3] == b"ID3" and len(head) == _ID3_HEAD:
        sevens = [byte & 0x7F for byte in head[6:]]
        footer = _ID3_HEAD if head[5] & 0x10 else 0
        at += _ID3_HEAD
        length = footer + sum(n << 7 * i for i, n in enumerate(reversed(sevens)))
        if at + length > size:
            return at
        at += length
    return at


def _unfinished(file: BinaryIO, begin: int, magic: bytes) -> dict[int, bytes]:
    """Return what is to be read in place of the zeros that stand where sizes are still to come."""
    start = _read_at(file, begin, _HEAD_BYTES)
    patches = {}
    for tag, offset, unknown in _SIZES.get(magic, ()):
        at = start.find(tag) + offset
        if tag in start and start[at : at + len(unknown)] == bytes(len(unknown)):
            patches[begin + at] = unknown
    return patches


def _wav_file(file: BinaryIO, start: int, size: int) -> tuple[list[Part], int]:
    """Walk the chunks of a WAV file. Return its parts, one a data chunk, and where it ends.

    In a whole file nothing follows the sound but chunks, and other files.
    """
    parts: list[Part] = []
    part = Part(None)
    patches: dict[int, bytes] = {}
    at, data_at, sound_ends, byte_rate = start + _WAV_HEAD.size, 0, size, 0
    long_length: int | None = None  # of RF64, for what needs 64 bits
    while at + _CHUNK.size <= size:
        kind, length = _CHUNK.unpack(_read_at(file, at, _CHUNK.size))
        behind = at >= sound_ends
        if behind and kind in _WAVS:
            break
        if behind and kind != b"data" and not (_is_name(kind) and at + length <= size):
            if size - sound_ends > _TRAILING_BYTES:
                part.options["ignore_length"] = "1"
            at = size
            break
        if behind and kind == b"data" and at - data_at <= _UNKNOWN_BYTES:  # one more
            part.file = _Stretch(file, start, at, patches)
            parts.append(part)
            part = Part(None)
            skipped = at - data_at - _CHUNK.size
            patches = {**patches, data_at: _CHUNK.pack(b"JUNK", skipped)}
            behind = False
        at += _CHUNK.size
        if kind == b"fmt ":
            byte_rate, mended = _wav_format(_read_at(file, at, _SUBFORMAT + 2))
            patches |= {at + place: patch for place, patch in mended.items()}
        if kind == b"ds64":
            [long_length] = struct.unpack("<Q", _read_at(file, at + 8, 8).ljust(8))
            if long_length >= _UNKNOWN_LONG:
                patches[at + 8] = bytes(8)
                long_length, part.options["ignore_length"] = None, "1"
        if kind == b"data" and not behind:
            data_at = data_at or at - _CHUNK.size
            length = long_length if length == 0xFFFFFFFF and long_length is not None else length
            known = byte_rate and (length < _UNKNOWN_BYTES or long_length is not None)
            part.promised_s = length / byte_rate if known else None
            sound_ends = at + length
        at += length + length % 2
    end = at if at + _CHUNK.size <= size else size
    part.file = _Stretch(file, start, end, patches)
    return [*parts, part], end


def _wav_format(chunk: bytes) -> tuple[int, dict[int, bytes]]:
    """Return a fmt chunk's bytes a second, 0 where unknown, and what in it is to be replaced.

    FFmpeg takes 24 valid bits in 32 for an old program's floats; valid bits are the upper ones.
    """
    coding, _, rate, _, frame_bytes, bits = _FMT.unpack(chunk[: _FMT.size].ljust(_FMT.size, b"\0"))
    patches = {}
    if coding == _EXTENSIBLE and chunk[_SUBFORMAT:] == b"\1\0":
        patches[_VALID_BITS] = struct.pack("<H", bits)
    return (rate * frame_bytes if coding in _PCM else 0), patches


def _mp4_starts(file: BinaryIO, start: int, size: int) -> tuple[list[int], str | None]:
    """Return where MP4 files begin in one, and what is wrong with them."""
    starts, kinds, at = [start], set(), start
    while at + _BOX.size <= size:
        length, kind = _BOX.unpack(_read_at(file, at, _BOX.size))
        if length == 1:
            length = int.from_bytes(_read_at(file, at + _BOX.size, 8))
        if kind == b"ftyp" and at > start:
            starts.append(at)
        kinds.add(kind)
        if length < _BOX.size:
            break
        at += length
    unfinished = "its index (moov) is missing, so it was cut, or its recorder was stopped"
    return starts, None if b"moov" in kinds else unfinished


def _aiff_starts(file: BinaryIO, start: int, size: int) -> list[int]:
    starts, at = [start], start
    while at + _BOX.size <= size:
        length = int.from_bytes(_read_at(file, at + 4, 4))
        at += _BOX.size + length + length % 2
        if not length or _read_at(file, at, 4) != b"FORM":
            break
        starts.append(at)
    return starts


def sound_at(head: bytes) -> int | None:
    """Return where the sound begins in the first bytes of a WAV file; None: further on."""
    at = _WAV_HEAD.size
    while at + _CHUNK.size <= len(head):
        kind, length = _CHUNK.unpack_from(head, at)
        at += _CHUNK.size
        if kind == b"data":
            return at
        at += length + length % 2
    return None


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

    def __init__(self, file: BinaryIO, stopping: Callable[[], bool]) -> None:
        self._fileno = file.fileno()
        self._stopping = stopping

    def read(self, size: int) -> bytes:
        while not select.select([self._fileno], [], [], WAIT_S)[0]:
            if self._stopping():
                return b""
        return os.read(self._fileno, size)
