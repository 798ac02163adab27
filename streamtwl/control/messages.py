"""What goes over the control socket: one line of JSON there, one line of JSON back.

The socket is in the user's state folder, `control/PID.sock`, mode 0600 in a folder of mode 0700,
and both ends check by SO_PEERCRED that the other one is of the same user. A connection carries one
request and its answer.
"""

import os
import socket
import struct
import time
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from streamtwl import folders
from streamtwl.errors import ControlError

REQUEST_BYTES = 4096
ANSWER_BYTES = 4_000_000  # of MAX_LAST_S of sound in FLAC, in base64
MAX_LAST_S = 30.0
MAX_MEL_FRAMES = 1000  # 10 s
LONGEST_PATH = 100  # bytes of a Unix socket's path, less a few


class Reload(msgspec.Struct, tag="reload", tag_field="do", forbid_unknown_fields=True):
    """Take in what is taught by now."""


class Last(msgspec.Struct, tag="last", tag_field="do", forbid_unknown_fields=True):
    """Give the newest sound of a source; "" is the only one, or the first."""

    seconds: Annotated[float, Meta(gt=0, le=MAX_LAST_S)]
    source: Annotated[str, Meta(max_length=100)] = ""


class MelFrames(msgspec.Struct, tag="mel", tag_field="do", forbid_unknown_fields=True):
    """Give the newest log-mel frames of a source, for a spectrogram: no sound can be made of them
    that anyone would listen to, but words might be recognised."""

    source: Annotated[str, Meta(max_length=100)]
    since: Annotated[int, Meta(ge=0, description="Position; frames that begin before are had.")]
    most: Annotated[int, Meta(ge=1, le=MAX_MEL_FRAMES)] = MAX_MEL_FRAMES
    session: Annotated[str, Meta(max_length=64)] = ""  # of the listener that is meant; "": of any


Request = Reload | Last | MelFrames


class Answer(msgspec.Struct):
    """What became of a request."""

    error: str | None = None  # why not, in one line
    sounds: list[str] = []  # of Reload: the taught sounds that are listened for by now
    flac: bytes = b""  # of Last
    source: str = ""  # of Last
    mel: bytes = b""  # of MelFrames: uint8[n, 64], see mel.py
    position: int = 0  # of MelFrames: at which the first of them begins
    next: int = 0  # of MelFrames: `since` for those that follow


def folder() -> Path:
    """Return where the sockets of this user's listeners are."""
    return folders.state() / "control"


def peer_uid(connection: socket.socket) -> int:
    """Return the user whose process is at the other end; raises ControlError."""
    if not hasattr(socket, "SO_PEERCRED"):
        raise ControlError("this system does not say who is at the other end of a socket")
    size = struct.calcsize("3i")
    _pid, uid, _gid = struct.unpack(
        "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    return uid


def is_own(connection: socket.socket) -> bool:
    """Whether the other end is a process of this user."""
    return peer_uid(connection) == os.getuid()


def read_line(connection: socket.socket, most: int, within_s: float) -> bytes:
    """Return what comes up to a newline; raises ControlError where that is more than `most`.

    Raises TimeoutError where it takes longer than `within_s` in all.
    """
    received = bytearray()
    until = time.monotonic() + within_s
    while not received.endswith(b"\n"):
        connection.settimeout(max(0.001, until - time.monotonic()))
        piece = connection.recv(min(65_536, most + 1 - len(received)))
        if not piece:
            break
        received += piece
        if len(received) > most:
            raise ControlError(f"a line of more than {most} bytes")
    return bytes(received)
