"""Replay: a ROUTER socket that sends messages again, page by page: the journal's, and repeats held.

Clients are not trusted: requests are checked, answers are bounded, and nothing that a client does
delays the publisher, which has its own thread and database connection.
"""

import contextlib
import logging
import sqlite3
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec
import zmq

from streamtwl.errors import UNDECODABLE, JournalError
from streamtwl.messages import Encoding, ReplayHeader, ReplayRequest
from streamtwl.sinks import journal_file

_log = logging.getLogger(__name__)

REQUEST_BYTES = 1024
FRAME_BYTES = 1 << 16  # beyond this ZeroMQ itself hangs up
PAGE_MESSAGES = 500
PAGE_BYTES = 256_000
PAGES_WAITING = 8  # for one client to read them
REQUESTS_PER_S = 50.0  # of one client
BURST = 100.0
CLIENTS = 1000  # whose rate is remembered
REPLAYED = ("label/", "event/", "status/", "level/")

_PAGE = """
SELECT seq, payload FROM messages
WHERE stream = (SELECT id FROM streams WHERE session = ? AND topic = ?) AND seq >= ?
ORDER BY seq
"""
_NEWEST = """
SELECT max(seq) FROM messages
WHERE stream = (SELECT id FROM streams WHERE session = ? AND topic = ?)
"""
_SEQ_LIMIT = 2**63 - 1  # SQLite's integers

Held = Callable[[str, str], list[tuple[int, bytes]]]

_request_from_msgpack = msgspec.msgpack.Decoder(ReplayRequest)
_request_from_json = msgspec.json.Decoder(ReplayRequest)


class ReplayServer:
    """Answers requests on a bound ROUTER socket, which it owns from now on, from a journal.

    `on_damage` is called if the journal is found damaged; requests are refused meanwhile. `held`
    takes session and topic, and returns seq and payload of what is held in memory: it is sent
    instead of the row of the journal that summarises it.
    """

    def __init__(
        self,
        socket: zmq.Socket,
        path: Path,
        on_damage: Callable[[], None] = lambda: None,
        held: Held | None = None,
    ) -> None:
        self.answered = 0  # requests that were given a page
        self.refused = 0  # answered with an error
        self.dropped = 0  # not answered at all
        self._socket = socket
        self._path, self._on_damage = path, on_damage
        self._held = held or (lambda *_: [])
        self._warned = ""
        self._rate = RateLimit(REQUESTS_PER_S, BURST, CLIENTS)
        self._end_in, self._end_out = (socket.context.socket(zmq.PAIR) for _ in range(2))
        self._end_out.bind("inproc://end-of-replay")
        self._end_in.connect("inproc://end-of-replay")
        self._thread = threading.Thread(target=self._run, name="replay", daemon=True)
        self._thread.start()

    @staticmethod
    def limit(socket: zmq.Socket) -> None:
        """Limit how much clients can make a socket hold; call it before the socket is bound."""
        socket.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES)
        socket.setsockopt(zmq.RCVHWM, PAGES_WAITING)
        socket.setsockopt(zmq.SNDHWM, PAGES_WAITING)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # who is gone or does not read is an error
        socket.setsockopt(zmq.LINGER, 0)

    def close(self) -> None:
        """End, and close the socket."""
        self._end_in.send(b"")
        self._thread.join()
        self._end_in.close()

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._end_out, zmq.POLLIN)
        while self._end_out not in dict(poller.poll()):
            received = self._socket.recv_multipart(copy=False)
            client, *frames = (frame.bytes for frame in received)
            delimiter = [b""] if len(frames) > 1 and not frames[0] else []  # a REQ socket's
            answer = self._answer(_who(received[0]), frames[len(delimiter) :])
            try:
                self._socket.send_multipart([client, *delimiter, *answer], zmq.NOBLOCK)
            except zmq.ZMQError:
                self.dropped += 1
        self._end_out.close()
        self._socket.close()

    def _answer(self, who: bytes, frames: list[bytes]) -> list[bytes]:
        """Return the frames of an answer: a page, or what was wrong."""
        encoding: Encoding = "json" if frames and frames[0][:1] == b"{" else "msgpack"
        encode = msgspec.json.encode if encoding == "json" else msgspec.msgpack.encode
        header = ReplayHeader()
        try:
            if not self._rate.allows(who, time.monotonic()):
                limit = f"{REQUESTS_PER_S:g} a second"
                raise _Refused(f"too many requests: at most {limit}, wait and try again")
            request = _request(frames)
            header = ReplayHeader(session=request.session, topic=request.topic, from_=request.from_)
            page = [_in(encoding, payload) for payload in self._page(request, header)]
        except _Refused as refusal:
            self.refused += 1
            header.error = str(refusal)
            return [encode(header)]
        self.answered += 1
        return [encode(header), *page]

    def _page(self, request: ReplayRequest, header: ReplayHeader) -> list[bytes]:
        """Return the payloads of a page and fill the header."""
        topic = (request.session, request.topic)
        to = _SEQ_LIMIT if request.to is None else request.to
        held = self._held(*topic)
        wanted = (each for each in held if request.from_ <= each[0] <= to)
        page: list[bytes] = []
        size = 0
        try:
            with contextlib.closing(journal_file.reader(self._path)) as connection:
                rows = connection.execute(_PAGE, (*topic, request.from_))
                for first, payload in _merged(wanted, rows, to if to >= request.from_ else -1):
                    if len(page) == PAGE_MESSAGES or (page and size + len(payload) > PAGE_BYTES):
                        header.next = max(first, request.from_ + 1)
                        break
                    page.append(payload)
                    size += len(payload)
                [header.newest] = connection.execute(_NEWEST, topic).fetchone()
        except (sqlite3.Error, JournalError) as error:
            if journal_file.damaged(error):
                self._on_damage()
            if str(error) != self._warned:
                self._warned = str(error)
                _log.warning("replay cannot read the journal: %s", error)
            header.next = None
            raise _Refused("the journal cannot be read now: try again later") from None
        if held:
            header.newest = max(held[-1][0], -1 if header.newest is None else header.newest)
        header.count = len(page)
        return page


class RateLimit:
    """A token bucket per client, for the `most` clients seen last."""

    def __init__(self, per_s: float, burst: float, most: int) -> None:
        self._per_s, self._burst, self._most = per_s, burst, most
        self._buckets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()  # tokens, when

    def allows(self, client: bytes, now: float) -> bool:
        """Whether a client may send a request now (monotonic seconds); takes a token if so."""
        tokens, at = self._buckets.pop(client, (self._burst, now))
        tokens = min(self._burst, tokens + self._per_s * (now - at))
        allowed = tokens >= 1.0
        self._buckets[client] = (tokens - allowed, now)
        if len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        return allowed

    def __len__(self) -> int:
        return len(self._buckets)


class _Refused(Exception):
    """Why a request gets no page; the text is sent to the client."""


class _Stretch(msgspec.Struct):
    """The field of a summary that says where it begins."""

    first_seq: int


class _Row(msgspec.Struct):
    """The field of a message that says whether it is one of many."""

    summary: _Stretch | None = None


_row_of_msgpack, _row_of_json = msgspec.msgpack.Decoder(_Row), msgspec.json.Decoder(_Row)


def _merged(
    held: Iterable[tuple[int, bytes]], rows: Iterable[tuple[int, bytes]], to: int
) -> Iterator[tuple[int, bytes]]:
    """Yield the first seq and the payload of what there is, by seq; what is held is not summarised.

    A stretch is held as a whole or not at all.
    """
    waiting = deque(held)
    for seq, payload in rows:
        first = _first(seq, payload)
        if first > to:
            break
        while waiting and waiting[0][0] < first:
            yield waiting.popleft()
        if waiting and waiting[0][0] <= seq:
            continue
        yield first, payload
    yield from waiting


def _first(seq: int, payload: bytes) -> int:
    """Return the first seq that a row stands for: its own, unless it is a summary."""
    try:
        row = (_row_of_json if payload[:1] == b"{" else _row_of_msgpack).decode(payload)
    except UNDECODABLE:  # it is damaged: the client skips it
        return seq
    return seq if row.summary is None else min(seq, row.summary.first_seq)


def _who(frame: zmq.Frame) -> bytes:
    """Return which client sent a frame: its CURVE key or, without one, its connection."""
    try:
        return str(frame["User-Id"]).encode()
    except zmq.ZMQError:
        return frame.bytes


def _request(frames: list[bytes]) -> ReplayRequest:
    if len(frames) != 1:
        raise _Refused(f"malformed request: {len(frames)} frames, it takes one")
    if len(frames[0]) > REQUEST_BYTES:
        raise _Refused(f"malformed request: {len(frames[0])} bytes, at most {REQUEST_BYTES}")
    try:
        decoder = _request_from_json if frames[0][:1] == b"{" else _request_from_msgpack
        request = decoder.decode(frames[0])
    except UNDECODABLE as error:
        raise _Refused(f"malformed request: {error}") from None
    if not request.topic.startswith(REPLAYED):
        raise _Refused(f"malformed request: only {', '.join(REPLAYED)} can be replayed")
    return request


def _in(encoding: Encoding, payload: bytes) -> bytes:
    """Return a payload in the requested encoding, whatever fields it has.

    A damaged one is returned as it is: the client skips it.
    """
    stored: Encoding = "json" if payload[:1] == b"{" else "msgpack"
    if stored == encoding:
        return payload
    decode: Callable[[bytes], object] = msgspec.json.decode
    encode: Callable[[object], bytes] = msgspec.msgpack.encode
    if stored == "msgpack":
        decode, encode = msgspec.msgpack.decode, msgspec.json.encode
    try:
        return encode(decode(payload))
    except (*UNDECODABLE, TypeError):
        return payload
