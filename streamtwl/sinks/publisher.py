"""ZeroMQ out: one thread owns the socket, a bounded queue before it, every drop counted.

worker -> queue -> [journal commits, or repeats are held] -> XPUB -> subscribers
"""

import errno
import logging
import threading
import time
from collections import deque
from typing import Any

import msgspec
import zmq

from streamtwl.endpoints import allow_ipv6, check_bind, check_port
from streamtwl.errors import SinkError, StreamtwlError, UsageError
from streamtwl.messages import JOURNALLED, AnyMessage, Encoding, Hello, Label, encode
from streamtwl.security import ServerKeys
from streamtwl.sinks.journal import COMMIT_S, Entry, Journal
from streamtwl.sinks.repeats import Repeated, Repeats, entry
from streamtwl.sinks.replay import ReplayServer
from streamtwl.stages import Sink

_log = logging.getLogger(__name__)

QUEUE = 1000  # messages between the worker and the publisher's thread
SUBSCRIBER_QUEUE = 1000  # messages that one slow subscriber may lag behind
SUBSCRIPTION_BYTES = 1024  # beyond this ZeroMQ itself hangs up
BATCH = 256  # messages that share a commit
LOSSLESS_PATIENCE_S = 5.0  # with one that does not read, where nothing is in real time
LINGER_MS = 1000  # for what is unsent at the end
POLL_MS = 500
NO_ENDPOINT = (
    *(errno.EINVAL, errno.EPROTONOSUPPORT, errno.ENODEV, errno.EADDRNOTAVAIL),
    zmq.ENOCOMPATPROTO,
)


class Publisher(Sink):
    """Publishes on an XPUB socket.

    In real time no subscriber is waited for: what the queue has no room for is dropped and counted;
    a subscriber whose own queue is full loses messages until it reads again. ZeroMQ reports that
    once, so `stalls` counts how often it began, and the jump in `seq` shows the subscriber how much
    it lost. With `lossless` (recordings as fast as they go) the sender is held back instead, up to
    5 s. A new subscriber is sent the newest hello and label of its topics; the others see them
    again, and drop what they have seen by session, topic and seq.

    With a journal, events, levels, and labels and states that change are committed before they are
    published, all that are queued in one batch; if that fails or takes over 20 ms (`lossless`: 5 s)
    they are published anyway, with `journalled` false. Labels and states that repeat the one before
    (`repeat`) are held for replay, and summarised in the journal (`repeats.py`); what follows a
    failure counts as a change. `replay_bind` is the endpoint of a ReplayServer ("": none).
    With `security` only holders of allowed keys may subscribe and request. Raises SinkError where
    an endpoint cannot be bound, UsageError where it is invalid, or open to the network without keys
    and `insecure`.
    """

    def __init__(
        self,
        bind: str,
        encoding: Encoding = "msgpack",
        lossless: bool = False,
        journal: Journal | None = None,
        replay_bind: str = "",
        security: ServerKeys | None = None,
        insecure: bool = False,
    ) -> None:
        self._encoding = encoding
        self._journal = journal
        self.journals = journal is not None
        self._lossless = lossless
        self._security, self._insecure = security, insecure
        self._context = zmq.Context()
        self._guard = security.guard(self._context) if security else None
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        self._socket.setsockopt(zmq.XPUB_NODROP, 1)  # a full subscriber is an error, so countable
        self._socket.setsockopt(zmq.SNDHWM, SUBSCRIBER_QUEUE)
        self._socket.setsockopt(zmq.MAXMSGSIZE, SUBSCRIPTION_BYTES)  # of what strangers send
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        self.endpoint = self._bind(self._socket, bind, "--bind")
        self.replay: str | None = None  # the endpoint that replays messages
        self._replay_server: ReplayServer | None = None
        self._repeats = Repeats(bool(replay_bind)) if journal is not None else None
        if journal is not None and replay_bind:
            router = self._context.socket(zmq.ROUTER)
            ReplayServer.limit(router)
            self.replay = self._bind(router, replay_bind, "--replay-bind")
            held = self._repeats.held if self._repeats else None
            self._replay_server = ReplayServer(router, journal.path, journal.suspect, held)
        self._queue_in = self._pair(zmq.PUSH)
        self._queue_out = self._pair(zmq.PULL)
        self._waiting: deque[tuple[AnyMessage, bytes]] = deque()  # one for each frame in the queue
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

    def figures(self) -> dict[str, Any]:
        """Return what is queued, lost and kept, and where it is replayed."""
        return {
            "queued": self.queued,
            "dropped_messages": self._refused,
            "stalled_subscribers": self.stalls,
            "replay": self.replay,
            "journal_errors": self._journal.errors if self._journal else 0,
            "journal": self._journal.problem if self._journal else None,
        }

    def emit(self, message: AnyMessage) -> None:
        """Queue a message; one caller at a time. Raises ValueError for NaN or infinity in it."""
        repeat = self._repeats is not None and self._repeats.is_repeat(message)
        message = _marked(message, self.journals, repeat)  # should it fail, the thread says so
        self._waiting.append((message, encode(message, self._encoding)))
        try:
            self._queue_in.send(b"", 0 if self._lossless else zmq.NOBLOCK)
            self._queued += 1
        except zmq.Again:
            self._waiting.pop()
            self._refused += 1
            if self._repeats is not None:
                self._repeats.forget(message.topic)

    def close(self) -> None:
        """Publish what is queued, wait for slow subscribers up to a second, and end."""
        self._queue_in.setsockopt(zmq.SNDTIMEO, LINGER_MS)
        try:
            self._queue_in.send(b"end")
        except zmq.Again:
            _log.warning("the publisher did not end in time")
        self._thread.join(2 * LOSSLESS_PATIENCE_S)
        if self._replay_server is not None:
            self._replay_server.close()
        self._queue_in.close(0)
        if self._guard is not None:
            self._guard.stop()
        self._context.term()

    def _bind(self, socket: zmq.Socket, bind: str, option: str) -> str:
        """Bind a socket and return its endpoint; if that fails, leave nothing open."""
        try:
            check_port(bind)
            check_bind(bind, option, self._security is not None or self._insecure)
            if self._security is not None:
                self._security.apply(socket)
            allow_ipv6(socket, bind)
            socket.bind(bind)
        except zmq.ZMQError as error:
            self._abandon()
            raise _explained(bind, option, error) from None
        except UsageError:
            self._abandon()
            raise
        return socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def _abandon(self) -> None:
        if self._guard is not None:
            self._guard.stop()
        self._context.destroy(linger=0)

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
                batch, over = self._take()
                self._forward(batch)
        if self._repeats is not None:
            self._commit(self._repeats.due(all_of_it=True))
        self._queue_out.close(0)
        self._socket.close()

    def _take(self) -> tuple[list[tuple[AnyMessage, bytes]], bool]:
        """Return what is queued, and whether it is the last."""
        batch: list[tuple[AnyMessage, bytes]] = []
        while len(batch) < BATCH:
            try:
                end = self._queue_out.recv(zmq.NOBLOCK)
            except zmq.Again:
                break
            if end:
                return batch, True
            batch.append(self._waiting.popleft())
        return batch, False

    def _forward(self, batch: list[tuple[AnyMessage, bytes]]) -> None:
        """Commit a batch, and publish it whether or not that worked."""
        failed = not self._commit(self._entries(batch))
        for message, payload in batch:
            if failed and isinstance(message, JOURNALLED) and message.journalled:
                payload = encode(_marked(message, False), self._encoding)
            frames = (message.topic.encode(), payload)
            if isinstance(message, Hello | Label):
                self._newest[frames[0]] = payload
            self._publish(frames)
            self._taken += 1

    def _entries(self, batch: list[tuple[AnyMessage, bytes]]) -> list[Entry]:
        """Return what is to be written now; the rest is held."""
        entries: list[Entry] = []
        if self._repeats is None:
            return entries
        for message, payload in batch:
            if isinstance(message, Repeated) and message.repeat:
                entries += self._repeats.hold(message, payload)
            elif isinstance(message, JOURNALLED):
                entries += [*self._repeats.before(message), entry(message, payload)]
        return entries + self._repeats.due()

    def _commit(self, entries: list[Entry]) -> bool:
        """Return whether all of it was written in time; if not, the next messages are tried."""
        if self._journal is None or self._repeats is None or not entries:
            return True
        patience_s = LOSSLESS_PATIENCE_S if self._lossless else COMMIT_S
        if self._journal.commit(entries, patience_s):
            return True
        self._repeats.forget()
        return False

    def _greet(self, subscription: bytes) -> None:
        """Send the newest hello and label to a subscriber that has just subscribed to them."""
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


def _marked(message: AnyMessage, journalled: bool, repeat: bool = False) -> AnyMessage:
    """Return a message that says whether it is in the journal, or repeats what is; the same one
    where it does."""
    if not isinstance(message, JOURNALLED):
        return message
    marks = {"journalled": journalled and not repeat}
    if isinstance(message, Repeated):
        marks["repeat"] = repeat
    if all(getattr(message, name) == mark for name, mark in marks.items()):
        return message
    return msgspec.structs.replace(message, **marks)


def _explained(bind: str, option: str, error: zmq.ZMQError) -> StreamtwlError:
    if error.errno == errno.EADDRINUSE:
        return SinkError(
            f"{bind} is in use, perhaps by another streamtwl: choose one with {option}"
        )
    if error.errno in NO_ENDPOINT:
        return UsageError(
            f"cannot bind '{bind}' ({error.strerror}): {option} takes one such as tcp://127.0.0.1:5577"
        )
    return SinkError(f"cannot bind {bind}: {error.strerror}")
