"""The sockets of a subscription: SUB to the publisher, DEALER to its replay, and why they fail."""

import logging
from collections.abc import Iterable, Iterator

import msgspec
import zmq
from zmq.utils.monitor import recv_monitor_message

from streamtwl.endpoints import allow_ipv6, check_port, reachable
from streamtwl.errors import UNDECODABLE, MessageError, UsageError
from streamtwl.messages import AnyMessage, ReplayHeader, ReplayRequest, decode
from streamtwl.security import ClientKeys

_log = logging.getLogger(__name__)

# A publisher whose cable was pulled is noticed by the kernel. ZeroMQ's own heartbeats abort the
# program of a reader that lags behind (https://github.com/zeromq/libzmq/issues/3937).
KEEPALIVE = {
    zmq.TCP_KEEPALIVE: 1,
    zmq.TCP_KEEPALIVE_IDLE: 10,  # seconds
    zmq.TCP_KEEPALIVE_INTVL: 5,
    zmq.TCP_KEEPALIVE_CNT: 3,
}
RECONNECT_MS = (100, 2_000)  # at first, at most
REQUESTS = 8  # that wait for a replay server which is not there
_WATCHED = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
_header = msgspec.msgpack.Decoder(ReplayHeader)


class Link:
    """Opens and closes the sockets; nothing here blocks."""

    def __init__(self, connect: str, topics: Iterable[str], keys: ClientKeys | None) -> None:
        """Raises UsageError where `connect` is not an endpoint."""
        self._connect, self._keys = connect, keys
        self._event = 0  # the latest of the connection
        self._replay: str | None = None
        self._asking: zmq.Socket[bytes] | None = None
        self._unread = ""  # why a message could not be read
        self._context = zmq.Context()
        self._live = self._socket(zmq.SUB)
        try:
            if keys is not None:
                keys.apply(self._live)
            check_port(connect)
            allow_ipv6(self._live, connect)
            self._watch = self._live.get_monitor_socket(_WATCHED)
            self._live.connect(connect)
        except zmq.ZMQError:
            self.close()
            raise UsageError(
                f"--connect '{connect}': it takes one as tcp://127.0.0.1:5577"
            ) from None
        except UsageError:
            self.close()
            raise
        for topic in topics:
            self._live.subscribe(topic)

    @property
    def sockets(self) -> list[zmq.Socket[bytes]]:
        """The sockets to wait for; what happens to the connection is read when it matters."""
        return [self._live] if self._asking is None else [self._live, self._asking]

    def take(self) -> AnyMessage | None:
        """Return the next live message that can be read, None if there is none."""
        while True:
            try:
                payload = self._live.recv_multipart(zmq.NOBLOCK)[-1]
            except zmq.Again:
                return None
            if (message := self._read(payload)) is not None:
                return message

    def name_replay(self, endpoint: str | None) -> None:
        """Send requests there from now on."""
        if endpoint == self._replay:
            return
        self._replay = endpoint
        if self._asking is not None:
            self._asking.close()
            self._asking = None
        if endpoint is not None:
            self._asking = self._socket(zmq.DEALER)
            self._asking.sndhwm = REQUESTS
            if self._keys is not None:
                self._keys.apply(self._asking)
            try:
                seen_from_here = reachable(endpoint, self._connect)
                allow_ipv6(self._asking, seen_from_here)
                self._asking.connect(seen_from_here)
            except zmq.ZMQError as error:
                _log.warning("cannot request missed messages from '%s': %s", endpoint, error)

    def ask(self, request: ReplayRequest) -> None:
        """Send a request; if the socket is full, it counts as lost."""
        if self._asking is not None:
            try:
                self._asking.send(msgspec.msgpack.encode(request), zmq.NOBLOCK)
            except zmq.Again:
                _log.debug("no room for a request")

    def answers(self) -> Iterator[tuple[ReplayHeader, list[AnyMessage]]]:
        """Yield the answers that have come, without messages that cannot be read."""
        while self._asking is not None:
            try:
                first, *payloads = self._asking.recv_multipart(zmq.NOBLOCK)
                header = _header.decode(first)
            except zmq.Again:
                return
            except UNDECODABLE as error:
                _log.warning("an answer that this version cannot read: %s", error)
                continue
            yield header, [m for payload in payloads if (m := self._read(payload)) is not None]

    def why_silent(self) -> str:
        """Return a possible reason why no message comes, and what to check."""
        while self._watch.poll(0):
            self._event = recv_monitor_message(self._watch)["event"]
        if self._event == 0:
            return f"no publisher at {self._connect}: is `streamtwl listen` running there?"
        if self._event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            return f"connected to {self._connect}, which publishes nothing: is it a streamtwl?"
        if self._event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            return (
                f"{self._connect} refused our key: is our .key file in its keys/clients, and no "
                "other of that name?"
            )
        if self._keys is not None:
            return (
                f"no handshake with {self._connect}: does it listen with --curve, and is this its "
                "server key?"
            )
        return f"no handshake with {self._connect}: does it want a key (--server-key)?"

    def close(self) -> None:
        """Close the sockets."""
        self._context.destroy(linger=0)

    def _read(self, payload: bytes) -> AnyMessage | None:
        """Return the message in a payload, None where this version cannot read it."""
        try:
            return decode(payload)
        except MessageError as error:
            if str(error) != self._unread:
                self._unread = str(error)
                _log.warning("a message that this version cannot read: %s", error)
            return None

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        one = self._context.socket(kind)
        one.setsockopt(zmq.LINGER, 0)
        for option, value in KEEPALIVE.items():
            one.setsockopt(option, value)
        one.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS[0])
        one.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MS[1])
        return one
