"""ZeroMQ out: one thread owns the socket, a bounded queue before it, every drop counted."""

import errno
import logging
import threading
import time

import zmq

from streamtwl.errors import SinkError, StreamtwlError, UsageError
from streamtwl.messages import AnyMessage, Encoding, Hello, Label, encode

_log = logging.getLogger(__name__)

QUEUE = 1000  # messages between the worker and the publisher's thread
SUBSCRIBER_QUEUE = 1000  # messages that one slow subscriber may lag behind
LOSSLESS_PATIENCE_S = 5.0  # with one that does not read, where nothing is in real time
LINGER_MS = 1000  # for what is unsent at the end
POLL_MS = 500
NO_ENDPOINT = (
    *(errno.EINVAL, errno.EPROTONOSUPPORT, errno.ENODEV, errno.EADDRNOTAVAIL),
    zmq.ENOCOMPATPROTO,
)


class Publisher:
    """Publishes on an XPUB socket.

    In real time nothing waits for a subscriber: what the queue has no room for is dropped and
    counted; a subscriber that has no room loses messages until it reads again, which ZeroMQ tells
    us of once, so `stalls` counts how often that began, and the jump in `seq` tells the subscriber
    how much it lost. With `lossless` (recordings as fast as they go) the sender is held back
    instead, up to 5 s. A new subscriber is sent the newest hello and label of the topics it asked
    for (again, as others see it: drop what was seen by session, topic and seq). Raises SinkError
    where `bind` cannot be bound, UsageError where it is no endpoint.
    """

    def __init__(self, bind: str, encoding: Encoding = "msgpack", lossless: bool = False) -> None:
        self._encoding = encoding
        self._lossless = lossless
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        self._socket.setsockopt(zmq.XPUB_NODROP, 1)  # a full subscriber is an error, so countable
        self._socket.setsockopt(zmq.SNDHWM, SUBSCRIBER_QUEUE)
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        try:
            check_port(bind)
            self._socket.bind(bind)
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise _explained(bind, error) from None
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._queue_in = self._pair(zmq.PUSH)
        self._queue_out = self._pair(zmq.PULL)
        self._newest: dict[bytes, bytes] = {}  # topic: payload, of hello and label
        self._queued = 0  # written by the sender only
        self._taken = 0  # written by the thread only
        self._refused = 0  # by the queue
        self.stalls = 0  # times that a subscriber was found full
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()

    @property
    def queued(self) -> int:
        """Messages waiting for the socket."""
        return self._queued - self._taken

    @property
    def dropped(self) -> int:
        """Messages that the queue had no room for: nobody got them."""
        return self._refused

    def send(self, message: AnyMessage) -> None:
        """Queue a message; call from one thread only."""
        frames = [message.topic.encode(), encode(message, self._encoding)]
        keep = b"1" if isinstance(message, Hello | Label) else b""
        try:
            self._queue_in.send_multipart([keep, *frames], 0 if self._lossless else zmq.NOBLOCK)
            self._queued += 1
        except zmq.Again:
            self._refused += 1

    def close(self) -> None:
        """Publish what is queued, wait for slow subscribers up to a second, and end."""
        self._queue_in.setsockopt(zmq.SNDTIMEO, LINGER_MS)
        try:
            self._queue_in.send(b"end")
        except zmq.Again:
            _log.warning("the publisher did not end in time")
        self._thread.join(2 * LOSSLESS_PATIENCE_S)
        self._queue_in.close(0)
        self._context.term()

    def _pair(self, kind: int) -> zmq.Socket:
        end = self._context.socket(kind)
        end.setsockopt(zmq.SNDHWM, QUEUE // 2)  # an in-process queue has both ends' room
        end.setsockopt(zmq.RCVHWM, QUEUE // 2)
        if kind == zmq.PUSH:
            end.bind("inproc://queue")
        else:
            end.connect("inproc://queue")
        return end

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._queue_out, zmq.POLLIN)
        poller.register(self._socket, zmq.POLLIN)
        over = False
        while not over:
            ready = dict(poller.poll(POLL_MS))
            if self._socket in ready:
                self._greet(self._socket.recv())
            if self._queue_out in ready:
                over = self._forward(*self._queue_out.recv_multipart())
        self._queue_out.close(0)
        self._socket.close()

    def _forward(self, keep: bytes, *frames: bytes) -> bool:
        """Publish one message; return whether it was the last."""
        if not frames:
            return True
        if keep:
            self._newest[frames[0]] = frames[1]
        self._publish(frames)
        self._taken += 1
        return False

    def _greet(self, subscription: bytes) -> None:
        """Send the newest hello and label to whoever has just subscribed to them."""
        if subscription[:1] != b"\x01":
            return
        for topic, payload in self._newest.items():
            if topic.startswith(subscription[1:]):
                self._publish((topic, payload))

    def _publish(self, frames: tuple[bytes, ...]) -> None:
        deadline = time.monotonic() + (LOSSLESS_PATIENCE_S if self._lossless else 0)
        while True:
            try:
                self._socket.send_multipart(frames, zmq.NOBLOCK)
                return
            except zmq.Again:
                if time.monotonic() >= deadline:
                    break
                time.sleep(0.001)
        self.stalls += 1
        self._socket.setsockopt(zmq.XPUB_NODROP, 0)  # the others get it all the same
        self._socket.send_multipart(frames, zmq.NOBLOCK)
        self._socket.setsockopt(zmq.XPUB_NODROP, 1)


def check_port(endpoint: str) -> None:
    """Raise ZMQError for a port beyond 65535, which ZeroMQ itself would take modulo 65536."""
    port = endpoint.rpartition(":")[2]
    if port.isdigit() and int(port) > 65535:
        raise zmq.ZMQError(errno.EINVAL)


def _explained(bind: str, error: zmq.ZMQError) -> StreamtwlError:
    if error.errno == errno.EADDRINUSE:
        return SinkError(f"{bind} is in use, perhaps by another streamtwl: choose one with --bind")
    if error.errno in NO_ENDPOINT:
        return UsageError(
            f"cannot bind '{bind}' ({error.strerror}): --bind takes one as tcp://127.0.0.1:5577"
        )
    return SinkError(f"cannot bind {bind}: {error.strerror}")
