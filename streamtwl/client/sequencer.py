"""What a subscriber has, what it lacks and what to request: the client without its sockets.

    live messages, answers -> Sequencer -> messages in order, requests

A *stream* is one topic of one session. Its messages leave in the order of `seq`, each once: what
comes after a gap is held until the gap is filled or given up. A stream waits for no other stream
but that of its own topic in the session before.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

from streamtwl.client.stream import REPLAYED, TopicStream, can_be_replayed, source_of
from streamtwl.messages import AnyMessage, Hello, ReplayHeader, ReplayRequest, Status

_log = logging.getLogger(__name__)

HELD = 10_000  # messages behind gaps, of all streams; beyond it they are requested again
STREAMS = 1000  # remembered
SESSIONS = 16  # remembered of a source
TIMEOUT_S = 3.0  # for an answer
TRIES = 5  # in a row, before what is missing is given up
PAUSE_S = 1.0  # after a refusal: the server's bucket fills


class Source:
    """What is known of a source's sessions."""

    def __init__(self) -> None:
        self.live_sessions: deque[str] = deque(maxlen=SESSIONS)  # that sent live messages
        self.whole: deque[str] = deque(maxlen=SESSIONS)  # those whose new topics begin at 0
        self.missed: dict[str, deque[str]] = {}  # topic: sessions that are to be followed yet
        self.filled_in = ""  # the session whose hello said which


class Sequencer:
    """Takes live messages and answers; `ready` has those to deliver, `request` says what to
    request.

    A stream begins at its first message received, at 0 where the source was followed before, or
    after a position of `resume`: {(session, topic): the last seq delivered, -1 for none}. Sessions
    that came and went meanwhile are followed too, as far as hello names them.
    Times are monotonic seconds, passed in by the caller.
    """

    def __init__(
        self, wanted: Callable[[str], bool], resume: Mapping[tuple[str, str], int] | None = None
    ) -> None:
        """`wanted` says whether a topic is followed; the others only show which sessions exist."""
        self.ready: deque[AnyMessage] = deque()
        self.lost: Counter[str] = Counter()  # kind: messages that cannot be recovered
        self.summarised: Counter[str] = Counter()  # kind: those that a summary stands for
        self.recovered = 0  # messages that came by replay
        self.opened = 0  # streams, ever: a new one is to be remembered before its first message
        self.askable: bool | None = None  # whether there is a replay socket; None: not known yet
        self._wanted = wanted
        self._streams: dict[tuple[str, str], TopicStream] = {}
        self._sources: dict[str, Source] = {}
        self._lacking: dict[tuple[str, str], TopicStream] = {}  # in the order of requests
        self._held = 0
        self._asked: TopicStream | None = None  # its `request` is under way
        self._deadline = 0.0  # for the answer, or for a replay endpoint to request from
        self._not_before = 0.0  # of the next request
        self._tries = 0
        for (session, topic), seq in (resume or {}).items():
            if wanted(topic):
                self._open(session, topic, seq + 1)
                _note(self._source(source_of(topic)).whole, session)

    def take(self, message: AnyMessage, now: float) -> None:
        """Take a live message."""
        source = self._source(message.source)
        if isinstance(message, Hello):
            self._fill_in(source, message)
        if message.session not in source.live_sessions:
            self._begin(source, message)
        if isinstance(message, Hello):
            for topic in (f"{kind}/{message.source}/" for kind in REPLAYED):
                self._advance(topic)
        if isinstance(message, Hello | Status):
            self.askable = message.replay is not None
        topic = message.topic
        if self._wanted(topic):
            self._place(self._stream(source, message.session, topic, message.seq), message)
        if isinstance(message, Status):
            for named, seq in message.last_seq.items():
                if self._wanted(named) and source_of(named) == message.source:
                    stream = self._stream(source, message.session, named, seq + 1)
                    stream.newest = max(stream.newest, seq)
                    self._settle(stream)
            _note(source.whole, message.session)
            for topic in (f"{kind}/{message.source}/" for kind in REPLAYED):
                if self._wanted(topic):  # it has had no message yet, if it is new to us
                    self._stream(source, message.session, topic, 0)
        if self._lacking and not self._deadline:
            self._deadline = now + TIMEOUT_S

    def request(self, now: float) -> ReplayRequest | None:
        """Return the next request, if any; one is under way at a time."""
        if self._asked is not None:
            if now < self._deadline:
                return None
            self._failed(now, 0.0)
        if self.askable is False or (self.askable is None and self._lacking and self._late(now)):
            for stream in list(self._lacking.values()):
                self._give_up(stream, None)
        if not self._lacking or not self.askable or now < self._not_before:
            return None
        stream = next(iter(self._lacking.values()))
        request = stream.request
        if request is None or request.from_ != stream.next:
            to = None if stream.over else min(stream.held, default=stream.newest + 1) - 1
            request = ReplayRequest(stream.session, stream.topic, stream.next, to)
        self._asked, stream.request = stream, request
        self._deadline = now + TIMEOUT_S
        return request

    def answer(self, header: ReplayHeader, messages: Sequence[AnyMessage], now: float) -> None:
        """Take an answer; it is ignored if its request is no longer open."""
        stream = self._asked
        if stream is None or (request := stream.request) is None:
            return
        if header.error is not None and not header.session:
            self._failed(now, PAUSE_S)
            return
        if (header.session, header.topic, header.from_) != (*stream.key, request.from_):
            return
        if header.error is not None or not (header.next is None or header.next > request.from_):
            self._failed(now, PAUSE_S)
            return
        self._asked, self._tries, self._deadline = None, 0, 0.0
        stream.request = None
        for message in messages:
            if (message.session, message.topic) == stream.key and message.seq >= stream.next:
                self.recovered += message.seq not in stream.held
                stream.newest = max(stream.newest, message.seq)
                summary = getattr(message, "summary", None)
                if summary is not None and summary.first_seq < message.seq:
                    self._pass_to(stream, summary.first_seq)
                    self._pass_to(stream, message.seq, self.summarised)
                self._pass_to(stream, message.seq)
                self._release(stream, message)
        if header.next is not None:
            self._pass_to(stream, header.next)
            self._settle(stream)
        else:
            self._give_up(stream, request.to)
        self._lacking.pop(stream.key, None)  # the others first
        self._settle(stream)

    @property
    def lacking(self) -> bool:
        """Whether something is missing, or may be, and is not given up."""
        return bool(self._lacking) or self._asked is not None

    def finish(self) -> None:
        """The sessions are over: request all that the journal has of them."""
        for stream in list(self._streams.values()):
            stream.over = True
            stream.done = stream.done or not can_be_replayed(stream.topic)
            self._settle(stream)

    def due(self, now: float) -> float | None:
        """Return when `request` has something to do, whatever arrives; None: never."""
        if self._asked is not None or (self._lacking and self.askable is None):
            return self._deadline
        return max(now, self._not_before) if self._lacking else None

    def had(self, message: AnyMessage) -> None:
        """Note that the user has had a message of `ready`."""
        stream = self._streams.get((message.session, message.topic))
        if stream is not None:
            stream.had = message.seq + 1

    def positions(self) -> dict[tuple[str, str], int]:
        """Return what to resume from: (session, topic): last seq had, -1 for none yet.

        A session is there as long as one of its topics is open: one missing would begin at 0.
        """
        streams = self._streams.values()
        open_ = {s.session for s in streams if not s.done or s.had < s.next}
        return {stream.key: stream.had - 1 for stream in streams if stream.session in open_}

    def _source(self, name: str) -> Source:
        source = self._sources.get(name)
        if source is None:
            source = self._sources[name] = Source()
            if len(self._sources) > STREAMS:
                del self._sources[next(iter(self._sources))]
        return source

    def _fill_in(self, source: Source, hello: Hello) -> None:
        """Note the sessions between the newest that was followed and the one that says hello."""
        if source.filled_in == hello.session:  # it says so each minute
            return
        source.filled_in = hello.session
        followed = {s.session for s in self._streams.values() if source_of(s.topic) == hello.source}
        followed.update(source.whole, source.live_sessions)
        known = [i for i, session in enumerate(hello.earlier) if session in followed]
        if known:
            for topic in (f"{kind}/{hello.source}/" for kind in REPLAYED):
                its = [i for i in known if (hello.earlier[i], topic) in self._streams]
                if self._wanted(topic):
                    source.missed[topic] = deque(hello.earlier[(its or known)[-1] + 1 :])
        elif hello.earlier and followed - {hello.session}:
            _log.warning(
                "%s: sessions may have been missed as a whole: there were too many, or it has "
                "another journal now",
                hello.source,
            )

    def _advance(self, topic: str) -> None:
        """Follow the next of the sessions that were missed, when those before it are had."""
        its = [s for s in self._streams.values() if s.topic == topic]
        missed = self._source(source_of(topic)).missed.get(topic)
        if not missed or any(s.over and not s.done for s in its):
            return
        one = self._open(missed.popleft(), topic, 0)
        one.over = True
        for stream in its:
            if not stream.over:  # it comes after all of them
                self._streams[stream.key] = self._streams.pop(stream.key)
                self._queue_up(stream)
        self._settle(one)

    def _begin(self, source: Source, message: AnyMessage) -> None:
        """Begin a session: those before it are over, and it is followed from its start."""
        name, session = message.source, message.session
        source.live_sessions.append(session)
        followed = [s for s in self._streams.values() if source_of(s.topic) == name]
        for old in {s.session for s in followed if not s.over} - {session}:
            for topic in (f"{kind}/{name}/" for kind in REPLAYED):
                if old in source.whole and self._wanted(topic):
                    self._stream(source, old, topic, 0)  # its first message may be what we missed
        for stream in self._streams.values():
            if source_of(stream.topic) == name and stream.session != session:
                stream.over = True
                stream.done = stream.done or not can_be_replayed(stream.topic)
        self._line_up(name)
        if followed:
            _note(source.whole, session)

    def _line_up(self, source: str) -> None:
        """Have the streams of a source wait for those before them, and deliver what is next."""
        for stream in [s for s in self._streams.values() if source_of(s.topic) == source]:
            self._queue_up(stream)
            self._settle(stream)

    def _stream(self, source: Source, session: str, topic: str, begin: int) -> TopicStream:
        stream = self._streams.get((session, topic))
        if stream is None:
            stream = self._open(session, topic, 0 if session in source.whole else begin)
        return stream

    def _open(self, session: str, topic: str, begin: int) -> TopicStream:
        stream = TopicStream(session, topic, begin)
        self._queue_up(stream)
        self._streams[stream.key] = stream
        self.opened += 1
        if len(self._streams) > STREAMS:
            oldest = next((s for s in self._streams.values() if s.done), None)
            self._forget(oldest or next(iter(self._streams.values())))
        return stream

    def _queue_up(self, stream: TopicStream) -> None:
        """Put a stream behind those of its topic that are over but not fully delivered."""
        for other in self._streams.values():
            if other is stream:
                break
            if other.topic == stream.topic and other.over and not other.done:
                stream.before = other

    def _forget(self, stream: TopicStream) -> None:
        self._give_up(stream, None)
        if self._asked is stream:
            self._asked = None
        self._lacking.pop(stream.key, None)
        del self._streams[stream.key]

    def _place(self, stream: TopicStream, message: AnyMessage) -> None:
        """Deliver a live message, or hold it, or drop it if it was seen."""
        if message.seq < stream.next or message.seq in stream.held:
            return
        stream.newest = max(stream.newest, message.seq)
        if not can_be_replayed(stream.topic):
            self._pass_to(stream, message.seq)
        if message.seq == stream.next and stream.before is None:
            self._release(stream, message)
        elif self._held < HELD:
            stream.held[message.seq] = message
            self._held += 1
        self._settle(stream)

    def _release(self, stream: TopicStream, message: AnyMessage) -> None:
        if stream.held.pop(message.seq, None) is not None:
            self._held -= 1
        self.ready.append(message)
        stream.next = message.seq + 1

    def _pass_to(self, stream: TopicStream, seq: int, counted: Counter[str] | None = None) -> None:
        """Deliver all before `seq`: what is not held is lost, or else `counted`."""
        counted = self.lost if counted is None else counted
        if seq > stream.next:
            for each in sorted(held for held in stream.held if held < seq):
                self._skip(stream, each, counted)
                self._release(stream, stream.held[each])
            self._skip(stream, seq, counted)

    def _skip(self, stream: TopicStream, seq: int, counted: Counter[str]) -> None:
        if seq > stream.next:
            counted[stream.topic.partition("/")[0]] += seq - stream.next
            stream.next = seq

    def _settle(self, stream: TopicStream) -> None:
        """Deliver what is next, and note whether something has to be requested."""
        if stream.before is None:
            if not can_be_replayed(stream.topic):
                self._pass_to(stream, stream.newest + 1)
            while stream.next in stream.held:
                self._release(stream, stream.held[stream.next])
        if stream.lacks:
            self._lacking.setdefault(stream.key, stream)
        else:
            self._lacking.pop(stream.key, None)

    def _give_up(self, stream: TopicStream, to: int | None) -> None:
        """Continue after `to`, or after all that is known, without what is missing."""
        self._pass_to(stream, 1 + (stream.newest if to is None else to))
        if to is None and stream.over:
            stream.done = True
            self._advance(stream.topic)
            for other in [s for s in self._streams.values() if s.before is stream]:
                other.before = None
                self._queue_up(other)
                self._settle(other)
        self._settle(stream)

    def _failed(self, now: float, pause_s: float) -> None:
        """Request again; after several failures in a row continue without, and try less next
        time."""
        stream, self._asked = self._asked, None
        assert stream is not None
        assert stream.request is not None
        self._deadline, self._not_before = 0.0, now + pause_s
        self._tries += 1
        if self._tries >= TRIES:
            self._tries = TRIES - 1
            self._give_up(stream, stream.request.to)

    def _late(self, now: float) -> bool:
        return bool(self._deadline) and now >= self._deadline


def _note(sessions: deque[str], session: str) -> None:
    if session not in sessions:
        sessions.append(session)
