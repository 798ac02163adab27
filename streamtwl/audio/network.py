"""Network streams as sources: radio, cameras, files on a web server."""

import logging
import time
from typing import TYPE_CHECKING

import numpy as np

from streamtwl.audio.back_off import BACK_OFF_S
from streamtwl.errors import AudioError, DeviceError, UnreachableError
from streamtwl.stages import SAMPLE_RATE, Chunk, Source

if TYPE_CHECKING:
    from streamtwl.audio.connection import Connection, Piece
    from streamtwl.audio.network_address import Address

_log = logging.getLogger(__name__)

CHUNK_S = 0.5
SETTLING_S = 0.7  # after the first sound: how much came at once shows when it began
POLL_S = 0.05  # for more of a recording


class NetworkStream(Source):
    """What a network address sends.

    A server that does not answer, at the start or later, or breaks off, is `lost` and connected to
    again with back-off, the timeline going on by the clock. One that is silent is `stalled`. A
    server that refuses at the start (no such host or path, wrong password, no audio) is an error
    and the end. Sound whose length is known is a recording: it is played at the pace of real time,
    whole, and ends.

    `captured_at` is the time of arrival, less what came in bursts before.
    """

    live = True

    def __init__(self, name: str, address: "Address", channel: int | None = None) -> None:
        super().__init__(name, paced=True, clocked=False, channel=channel)
        self._address = address
        self._connection: Connection | None = None
        self._opened_at: int | None = None  # stream position at which this connection began
        self._last: tuple[int, float] | None = None  # position last given, when it was captured
        self._played_s = 0.0  # of a recording
        self._retry_at = 0.0
        self._failures = 0
        self._stopping = False

    def start(self) -> None:
        """Begin to connect; `read` reports whether that worked."""
        self._connect()

    def filenos(self) -> list[int]:
        """File descriptors that wake the worker; none where only time matters."""
        connection = self._connection
        if connection is None or connection.endless is False or self._settling(time.monotonic()):
            return []
        return [connection.fileno()]

    def due_in(self, now: float) -> float:
        """Seconds until more is to be played, or it counts as silent, or it tries again."""
        connection = self._connection
        if connection is None:
            return max(0.0, self._retry_at - now)
        waits = connection.next_s() > 0
        if self._stopping or (connection.over and not waits):
            return 0.0
        if connection.endless is False:
            return max(0.0, self._played_at(connection) - now) if waits else POLL_S
        if self._settling(now):
            return max(0.0, connection.first_at + SETTLING_S - now)  # type: ignore[operator]
        return float("inf") if self.state == "stalled" else max(0.0, connection.silent_at() - now)

    def read(self, now: float) -> Chunk | None:
        """Return what is there; raises DeviceError where the server refuses from the start."""
        connection = self._connection
        if self.state == "ended":
            return None
        if connection is None:
            if now >= self._retry_at:
                self._connect()
            return None
        if connection.failure is not None:
            raise connection.failure
        pieces = self._take(connection, now)
        if pieces:
            return self._chunk(connection, pieces)
        if self._stopping and (connection.endless is False or not connection.next_s()):
            self.state, self.error = "ended", None
        elif connection.over and not connection.next_s():
            self._lose(connection, now)
        elif self.state == "listening" and connection.endless and now > connection.silent_at():
            self.state, self.error = "stalled", f"nothing has come from {self._address} for 5 s"
            _log.warning("'%s' stalled: %s", self.name, self.error)
        return None

    def stop(self) -> None:
        """Receive no more; return what was received, of a recording only what was played."""
        self._stopping = True
        if self._connection is None:
            self.state, self.error = "ended", None
        else:
            self._connection.stop()

    def close(self) -> None:
        """Release the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> None:
        from streamtwl.audio.connection import Connection  # FFmpeg is for those who need it

        self._connection = Connection(self._address)
        self._opened_at = None

    def _settling(self, now: float) -> bool:
        """Whether the first sound may still turn out to be older: servers send bursts."""
        connection = self._connection
        if self._stopping or connection is None or not connection.endless or connection.over:
            return False
        return connection.first_at is not None and now < connection.first_at + SETTLING_S

    def _played_at(self, connection: "Connection") -> float:
        """Return when the next piece of a recording has been played, in monotonic seconds."""
        return (connection.first_at or 0.0) + self._played_s + connection.next_s()

    def _take(self, connection: "Connection", now: float) -> "list[Piece]":
        """Return the pieces that are due, less what was received over an earlier connection."""
        if connection.endless is False:
            if self._stopping or not connection.next_s() or now < self._played_at(connection):
                return []
            pieces = connection.take(
                min(CHUNK_S, now - (connection.first_at or 0.0) - self._played_s)
            )
            self._played_s += sum(piece.seconds for piece in pieces)
            return pieces
        if self._settling(now):
            return []
        pieces = connection.take(CHUNK_S)
        if self._opened_at is None and self._last is not None:
            _, known_to = self._last
            pieces = [piece for piece in pieces if connection.began_at + piece.end_s > known_to]
        return pieces

    def _chunk(self, connection: "Connection", pieces: "list[Piece]") -> Chunk:
        if self._opened_at is None:
            self._opened_at = 0
            if self._last is not None:  # the timeline goes on by the clock
                position, at = self._last
                self._opened_at = position + round((connection.began_at - at) * SAMPLE_RATE)
                self.reopened += 1
        first, last = pieces[0], pieces[-1]
        frames = np.concatenate([piece.frames for piece in pieces])
        captured_at = connection.began_at + last.end_s
        self._last = (self._opened_at + round(last.end_s * SAMPLE_RATE), captured_at)
        self.state, self.error, self._failures = "listening", None, 0
        return Chunk(
            frames,
            first.rate,
            first.start,
            self._opened_at + round(first.before_s * SAMPLE_RATE),
            captured_at if connection.endless else None,
        )

    def _lose(self, connection: "Connection", now: float) -> None:
        """The connection is over: so is the recording, or try again later."""
        error = connection.error
        at_first = self._last is None and not self._failures
        refused = isinstance(error, AudioError) and not isinstance(error, UnreachableError)
        recording = connection.endless is False
        self.close()
        if error is None or recording or (refused and at_first):
            self.state, self.error = "ended", None if error is None else str(error)
            if error is not None:
                raise DeviceError(str(error)) if at_first else AudioError(str(error))
            return
        self.state, self.error = "lost", str(error)
        wait_s = BACK_OFF_S[min(self._failures, len(BACK_OFF_S) - 1)]
        level = logging.INFO if self._failures else logging.WARNING  # said once
        self._failures += 1
        self._retry_at = now + wait_s
        _log.log(level, "'%s' lost (%s); try again in %g s", self.name, self.error, wait_s)
