"""ZeroMQ out: one thread owns the socket, a bounded queue before it, every drop counted.

worker -> queue -> [journal commits, or repeats are held] -> XPUB -> subscribers
"""

import contextlib
import errno
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
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
EARLIER = 100  # sessions that hello names
LOSSLESS_PATIENCE_S = 5.0  # with one that does not read, where nothing is in real time
LINGER_MS = 1000  # for what is unsent at the end
PIPE_BYTES = 1 << 16
ROOM_S = 0.5  # between two looks at whether the queue has room
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
    again, and drop what they have seen by session, topic and seq. With a replay, hello names the
    sessions that were in the journal before.

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
        self._earlier: dict[str, list[str]] = {}  # sessions in the journal, by source
        self._repeats = Repeats(bool(replay_bind)) if journal is not None else None
        if journal is not None and replay_bind:
            router = self._context.socket(zmq.ROUTER)
            ReplayServer.limit(router)
            self.replay = self._bind(router, replay_bind, "--replay-bind")
            held = self._repeats.held if self._repeats else None
            self._earlier = journal.sessions()
            self._replay_server = ReplayServer(router, journal.path, journal.suspect, held)
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        self._waiting: deque[tuple[AnyMessage, bytes]] = deque()  # at most QUEUE
        self._room = threading.Event()
        self._over = False
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
        self.emit_all([message])

    def emit_all(self, messages: Sequence[AnyMessage]) -> None:
        """Queue messages that share a batch, where there is room; raises as `emit`.

        Raises SinkError where nothing publishes any more.
        """
        if not self._thread.is_alive():
            raise SinkError("the publisher's thread ended: the error is above, start again")
        for message in messages:
            repeat = self._repeats is not None and self._repeats.is_repeat(message)
            message = _marked(message, self.journals, repeat)  # should it fail, the thread says so
            if isinstance(message, Hello):
                earlier = self._earlier.get(message.source, [])[-EARLIER:]
                message = msgspec.structs.replace(message, earlier=earlier)
            payload = encode(message, self._encoding)
            if self._lossless:
                self._await_room()
            if self.queued >= QUEUE:
                self._refused += 1
                if self._repeats is not None:
                    self._repeats.forget(message.topic)
                continue
            self._waiting.append((message, payload))
            self._queued += 1
        self._wake()

    def _await_room(self) -> None:
        while self.queued >= QUEUE and self._thread.is_alive():
            self._room.clear()
            self._wake()
            self._room.wait(ROOM_S)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it is woken as it is
            os.write(self._waker, b"\n")

    def close(self) -> None:
        """Publish what is queued, wait for slow subscribers up to a second, and end."""
        self._over = True
        self._wake()
        self._thread.join(2 * LOSSLESS_PATIENCE_S)
        if self._thread.is_alive():
            _log.warning("the publisher did not end in time")
        else:
            os.close(self._waker)
            os.close(self._woken)
        if self._replay_server is not None:
            self._replay_server.close()
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

    def _run(self) -> None:
        with self._socket:
            self._publish_all()
            if self._repeats is not None:
                self._commit(self._repeats.due(all_of_it=True))

    def _publish_all(self) -> None:
        poller = zmq.Poller()
        poller.register(self._woken, zmq.POLLIN)
        poller.register(self._socket, zmq.POLLIN)
        while not self._over or self._waiting:
            ready = dict(poller.poll(0 if self._waiting else None))
            if self._socket in ready:
                self._greet(self._socket.recv())
            if self._woken in ready:
                os.read(self._woken, PIPE_BYTES)
            if batch := self._take():
                self._forward(batch)
                self._room.set()

    def _take(self) -> list[tuple[AnyMessage, bytes]]:
        """Return what is queued, as much as may share a commit."""
        return [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]

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
