"""How many connections the page has at once, and how long one may do nothing.

uvicorn has no limit for a peer that never asks, or never reads.
"""

import asyncio
import socket
import time
from collections import Counter
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from streamtwl.services.web.peers import network

CONNECTIONS = 200  # at once
OF_ONE = 64  # of one network
BACKLOG = 128
LOOK_S = 5.0
REQUEST_S = 20.0  # in which a request has to be there as a whole
UNREAD_S = 30.0  # in which a peer has to read something of what waits for it


class Listening(socket.socket):
    """A socket that accepts no more than there is room for; the others are closed at once."""

    def __init__(self, of_one: int = OF_ONE, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.refused = 0
        self._of_one = of_one
        self._open: dict[socket.socket, str] = {}  # and its network

    def accept(self) -> tuple[socket.socket, Any]:
        """Return a connection; raises ConnectionAbortedError where there is no room for it."""
        one, address = super().accept()
        peer = network(address[0])
        self._open = {each: of for each, of in self._open.items() if each.fileno() >= 0}
        if len(self._open) >= CONNECTIONS or Counter(self._open.values())[peer] >= self._of_one:
            self.refused += 1
            one.close()
            raise ConnectionAbortedError
        self._open[one] = peer
        return one, address


class Impatient(H11Protocol):
    """uvicorn's, which ends where the peer neither asks nor reads."""

    _looking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to look."""
        super().connection_made(transport)
        self._asked_at = self._read_at = time.monotonic()
        self._last_cycle, self._unread = self.cycle, 0
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Look no more."""
        super().connection_lost(exc)
        if self._looking is not None:
            self._looking.cancel()

    def _look(self) -> None:
        now, unread = time.monotonic(), self.transport.get_write_buffer_size()
        asked = self.conn.our_state is not h11.IDLE and self.conn.their_state is not h11.SEND_BODY
        if asked or self.cycle is not self._last_cycle:
            self._asked_at, self._last_cycle = now, self.cycle
        if not unread or unread < self._unread:
            self._read_at = now
        self._unread = unread
        if now > self._asked_at + REQUEST_S or now > self._read_at + UNREAD_S:
            self.transport.abort()
        else:
            self._looking = self.loop.call_later(LOOK_S, self._look)
