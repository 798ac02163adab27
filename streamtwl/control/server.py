"""The listener's side: one thread, one connection after the other, every wait bounded."""

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from streamtwl.control import messages
from streamtwl.control.mel import Mel
from streamtwl.control.messages import Answer, MelFrames, Reload, Request
from streamtwl.errors import UNDECODABLE, ControlError, StreamtwlError

_log = logging.getLogger(__name__)

LOOK_S = 0.2  # at whether to end
PEER_S = 2.0  # for a peer to send its request, and to take its answer
BACKLOG = 8


class ControlServer:
    """Answers requests until `close`; those of other users are refused and counted."""

    def __init__(
        self,
        reload: Callable[[], list[str]],
        last: Callable[[float, str], tuple[str, bytes]],
        mel: Callable[[str, int, int, str], Mel] | None = None,
    ) -> None:
        """`reload` returns the taught sounds, `last` a source's name and FLAC, `mel` a source's
        newest frames; all may raise StreamtwlError."""
        self._reload, self._last, self._mel = reload, last, mel
        self.refused = 0
        self.path = messages.folder() / f"{os.getpid()}.sock"
        self._made_state = not self.path.parent.parent.exists()
        self._over = threading.Event()
        self._socket = _open(self.path)
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End; the socket is removed."""
        self._over.set()
        self._thread.join(PEER_S)
        self._socket.close()
        with contextlib.suppress(OSError):  # which are not empty
            self.path.unlink()
            self.path.parent.rmdir()
            if self._made_state:
                self.path.parent.parent.rmdir()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                continue
            except OSError as error:
                _log.warning("control socket: %s", error.strerror or error)
                return
            with connection:
                try:
                    self._serve(connection)
                except (OSError, ControlError) as error:  # the peer has gone, or is no good
                    _log.info("control socket: %s", error)

    def _serve(self, connection: socket.socket) -> None:
        if not messages.is_own(connection):
            self.refused += 1
            _log.warning("control socket: a process of another user was refused")
            return
        answer = msgspec.json.encode(self._answer(connection)) + b"\n"
        connection.settimeout(PEER_S)
        connection.sendall(answer)

    def _answer(self, connection: socket.socket) -> Answer:
        try:
            line = messages.read_line(connection, messages.REQUEST_BYTES, PEER_S)
            request = msgspec.json.decode(line, type=Request)
        except (*UNDECODABLE, ControlError) as error:
            return Answer(error=f"not a request: {error}")
        try:
            if isinstance(request, Reload):
                return Answer(sounds=self._reload())
            if isinstance(request, MelFrames):
                if self._mel is None:
                    return Answer(error="it gives no spectrogram")
                frames = self._mel(request.source, request.since, request.most, request.session)
                return Answer(mel=frames.frames, position=frames.position, next=frames.next)
            name, flac = self._last(request.seconds, request.source)
            return Answer(source=name, flac=flac)
        except StreamtwlError as error:
            return Answer(error=str(error))


def _open(path: Path) -> socket.socket:
    """Return a listening socket that only this user can open; raises ControlError."""
    if len(os.fsencode(path)) > messages.LONGEST_PATH:
        raise ControlError(
            f"{path} is too long for a socket: choose a shorter folder with STREAMTWL_STATE=FOLDER"
        )
    if not hasattr(socket, "SO_PEERCRED"):
        raise ControlError("this system does not say who is at the other end of a socket")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        _remove_left(path.parent)
        opening = path.with_suffix(".new")  # until it listens: else another takes it for dead
        opening.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.bind(str(opening))
            opening.chmod(0o600)
            listening.settimeout(LOOK_S)
            listening.listen(BACKLOG)
            opening.rename(path)
        except BaseException:
            listening.close()
            raise
    except OSError as error:
        raise ControlError(f"{path}: {error.strerror or error}") from None
    return listening


def _remove_left(folder: Path) -> None:
    """Remove the sockets of processes that are gone."""
    for path in folder.glob("*.sock"):
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe,
        ):
            probe.settimeout(LOOK_S)
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
