"""One connection to a network address: opened and decoded in a thread, into a bounded buffer."""

import contextlib
import http.client
import math
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass

import av.error
import numpy as np

from streamtwl.audio.decoder import Decoder
from streamtwl.audio.network_address import Address
from streamtwl.audio.remote import broken, open_remote
from streamtwl.audio.resample import check_rate
from streamtwl.errors import AudioError, UnreachableError

BUFFER_S = 30.0  # a live list gives three segments at once
SILENT_S = 5.0  # after a player would have run out of sound
DRIFT = 1e-3  # share by which the server's clock may be off
JOIN_S = 0.2


@dataclass(slots=True)
class Piece:
    """Consecutive frames as they were decoded."""

    frames: np.ndarray  # float32[n, channels]
    rate: int  # Hz
    start: int  # of frames[0], in frames since the format changed
    before_s: float  # seconds of sound of the formats before

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.frames) / self.rate

    @property
    def end_s(self) -> float:
        """Seconds from the connection's first frame to its end."""
        return self.before_s + (self.start + len(self.frames)) / self.rate

    def follows(self, other: "Piece") -> bool:
        """Whether it joins on another."""
        return (self.rate, self.start, self.before_s, self.frames.shape[1]) == (
            other.rate,
            other.start + len(other.frames),
            other.before_s,
            other.frames.shape[1],
        )


class Connection:
    """An address that is being received, by a thread of its own.

    While it is live, the buffer's oldest sound goes when the newest has no room: positions show
    it. A recording waits for room. `fileno` is readable while there is something to take. When
    `over`, `error` says why; None: the sound has ended.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._pieces: deque[Piece] = deque()
        self._held_s = 0.0
        self._changed = threading.Condition()
        self._awake, self._waker = socket.socketpair()
        self._closed = False
        self._arrived_at = math.inf  # monotonic, of the newest piece
        self.began_at = math.inf  # monotonic: frame 0 was captured, by the earliest arrivals
        self.first_at: float | None = None  # monotonic, of the first piece
        self.dry_at = math.inf  # monotonic: a player that began at once has no more sound then
        self.endless: bool | None = None  # None: not open yet
        self.over = False
        self.error: AudioError | None = None
        self.failure: BaseException | None = None  # no AudioError: a fault of the program
        self._thread = threading.Thread(target=self._run, name=str(address), daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        """The file descriptor to wait for."""
        return self._awake.fileno()

    def take(self, most_s: float) -> list[Piece]:
        """Return pieces that join on one another, one or more up to that length; [] for none."""
        taken: list[Piece] = []
        seconds = 0.0
        with self._changed:
            while self._pieces:
                following = self._pieces[0]
                if taken and (
                    seconds + following.seconds > most_s or not following.follows(taken[-1])
                ):
                    break
                taken.append(self._pieces.popleft())
                seconds += taken[-1].seconds
            self._held_s -= seconds
            if not self._pieces and not self.over:
                with contextlib.suppress(BlockingIOError):
                    while self._awake.recv(4096, socket.MSG_DONTWAIT):
                        continue
            self._changed.notify()
        return taken

    def next_s(self) -> float:
        """Return the seconds of the piece that is next to be taken; 0: there is none."""
        with self._changed:
            return self._pieces[0].seconds if self._pieces else 0.0

    def silent_at(self) -> float:
        """Return the monotonic seconds at which it counts as silent, if nothing comes."""
        return self.dry_at + SILENT_S

    def stop(self) -> None:
        """Receive no more; what is held remains."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def close(self) -> None:
        """Release it. A thread that waits for its server ends by itself, within its time-outs."""
        self.stop()
        self._thread.join(JOIN_S)
        with self._changed:
            self._awake.close()
            self._waker.close()

    def _run(self) -> None:
        try:
            self._receive()
        except AudioError as error:
            self.error = error
        except (OSError, http.client.HTTPException, av.error.FFmpegError) as error:
            self.error = broken(self._address, error)
        except BaseException as error:  # handed to the worker
            self.failure = error
        with self._changed:
            self.over = True
            self._wake()

    def _receive(self) -> None:
        container, endless = open_remote(self._address)
        with container:
            self.endless = endless
            decoder = Decoder(container, str(self._address))
            try:
                self._decode(decoder)
            finally:
                decoder.close()
        if endless:
            raise UnreachableError(f"{self._address}: the server ended the connection")

    def _decode(self, decoder: Decoder) -> None:
        position, before_s, form = 0, 0.0, (0, 0)
        while (read := decoder.read()) is not None:
            missing, frames = read
            if form != (decoder.rate, frames.shape[1]):
                check_rate(decoder.rate, str(self._address))
                before_s += position / form[0] if form[0] else 0.0
                position, form = 0, (decoder.rate, frames.shape[1])
            position += missing
            piece = Piece(frames, decoder.rate, position, before_s)
            position += len(frames)
            if not self._put(piece):
                return

    def _arrive(self, piece: Piece) -> None:
        """Note when a piece came. Sound comes in bursts: the earliest says when it began."""
        now = time.monotonic()
        began_at = now - piece.end_s
        if self.first_at is None or now > self.silent_at():
            self.began_at = began_at
        else:
            later = self.began_at + DRIFT * (now - self._arrived_at)
            self.began_at = min(began_at, later)
        self._arrived_at = now
        self.dry_at = (now if self.first_at is None else max(self.dry_at, now)) + piece.seconds
        self.first_at = now if self.first_at is None else self.first_at

    def _put(self, piece: Piece) -> bool:
        """Add a piece; return False if no more is wanted."""
        with self._changed:
            if not self.endless:
                self._changed.wait_for(lambda: self._closed or self._held_s < BUFFER_S)
            if self._closed:
                return False
            self._arrive(piece)
            if not self._pieces:
                self._wake()
            self._pieces.append(piece)
            self._held_s += piece.seconds
            while self.endless and self._held_s > BUFFER_S:
                self._held_s -= self._pieces.popleft().seconds
        return True

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):  # full, or closed meanwhile
            self._waker.send(b"\0", socket.MSG_DONTWAIT)
