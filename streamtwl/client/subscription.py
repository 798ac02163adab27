"""What a program iterates over: a publisher's messages, typed, each once, in order."""

import asyncio
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import zmq
import zmq.asyncio

from streamtwl.client import state as state_file
from streamtwl.client.link import Link
from streamtwl.client.sequencer import SESSIONS, Sequencer
from streamtwl.errors import UsageError
from streamtwl.label_filter import LabelFilter, unknown_names
from streamtwl.messages import KINDS, SOURCE_NAME, AnyMessage, Hello, Status
from streamtwl.security import ClientKeys

_log = logging.getLogger(__name__)

CONNECT = "tcp://127.0.0.1:5577"
TEND_S = 0.02  # from one look at answers to the next while live messages come without a pause
SILENT_S = 8.0  # without a message, where a status comes each second
SAVE_S = 1.0  # from one writing of the state to the next
SOURCES = 100  # remembered of a publisher


def subscribe(
    connect: str = CONNECT,
    kinds: str | Sequence[str] = (),
    sources: str | Sequence[str] = (),
    labels: str | Sequence[str] = (),
    *,
    resume: Mapping[tuple[str, str], int] | None = None,
    state: str | Path | None = None,
    server_key: str | Path | None = None,
    key: str | Path | None = None,
) -> "Subscription":
    """Subscribe to a listening streamtwl; iterate over what is returned, with `for` or `async for`.

    `kinds` (hello, patch, label, event, status, level), `sources` and `labels` select messages;
    empty means all. `labels` may contain * and ?, in any case; it filters labels and events only,
    and an event that once matched is followed to its end, even if it is revised to another label. A
    label or source that the publisher does not have is logged as a warning.

    `state` names a file that keeps the position, so that a program continues there when it is
    started again; a program that keeps it itself passes `resume`: earlier `positions`, or
    {(session, topic): the last seq received}. A message counts as received when the next one is
    requested. The file is written once a second: messages after that come again.

    `server_key` is the publisher's public key for CURVE, a file or its 40 characters; `key` your
    own secret file (default: client.key_secret in the user's folder of keys).

    Raises UsageError for wrong arguments.
    """
    keys = ClientKeys.load(server_key, key) if server_key else None
    return Subscription(connect, kinds, sources, labels, resume, state, keys)


class Subscription:
    """Messages (`streamtwl.messages`) of a publisher: those of a topic in the order of `seq`.

    Missed messages are requested again and come in their place, before those after them. What
    cannot be recovered is counted in `lost`, by kind, and logged; patches are never requested.
    Labels and states of more than ten minutes ago (or of a session that is over) that only repeat
    the one before come as one message with a `summary`, and count in `summarised`. It outlives the
    publisher: when that is restarted, the end of its old session comes first and then the new one
    from its start. Not thread-safe.
    """

    def __init__(
        self,
        connect: str,
        kinds: str | Sequence[str],
        sources: str | Sequence[str],
        labels: str | Sequence[str],
        resume: Mapping[tuple[str, str], int] | None,
        state: str | Path | None,
        keys: ClientKeys | None,
    ) -> None:
        """See `subscribe`."""
        kinds, sources, labels = map(_several, (kinds, sources, labels))
        self._kinds = set(kinds or KINDS)
        if unknown := self._kinds - set(KINDS):
            raise UsageError(f"no kind is called '{unknown.pop()}': there is {', '.join(KINDS)}")
        for source in sources:
            if not SOURCE_NAME.fullmatch(source):
                raise UsageError(f"--source '{source}': it takes a-z, 0-9, _ and -")
        self._sources = set(sources)
        self._labels, self._wanted = labels, LabelFilter(labels)
        self._met: deque[str] = deque(maxlen=SESSIONS)  # whose labels were compared with ours
        self._published: deque[str] = deque(maxlen=SOURCES)  # whatever we follow of them
        self._connect = connect
        self._state = Path(state) if state is not None else None
        if self._state is not None:
            resume = state_file.load(self._state) | dict(resume or {})
        self._saved: Mapping[tuple[str, str], int] = {}
        self._saved_streams = 0
        self._sequencer = Sequencer(self._follows, resume)
        suffixes = [f"{source}/" for source in sources] or [""]
        kinds = sorted((self._kinds | {"status"}) - {"hello"})  # it has `last_seq` of all
        topics = [f"{kind}/{suffix}" for kind in kinds for suffix in suffixes]
        self._link = Link(connect, ["hello/", *topics], keys)  # any source's: see `_meet`
        self._at_hand: AnyMessage | None = None  # the user has it and may not be done with it
        self._lost_logged = 0
        self._silent_logged = ""
        now = time.monotonic()
        self._silent_at = now + SILENT_S
        self._save_at = now + SAVE_S
        self._tend_at = now

    @property
    def lost(self) -> Counter[str]:
        """Messages that could not be recovered, by kind: `lost.total()` is all of them."""
        return self._sequencer.lost

    @property
    def summarised(self) -> Counter[str]:
        """Repeats that came as a part of a `summary`, by kind; they are not `lost`."""
        return self._sequencer.summarised

    @property
    def recovered(self) -> int:
        """Messages that were missed and came by replay."""
        return self._sequencer.recovered

    @property
    def positions(self) -> dict[tuple[str, str], int]:
        """(session, topic): seq of the last message received, -1 for none yet: for `resume`."""
        return self._sequencer.positions()

    @property
    def opened(self) -> int:
        """How many topics of sessions are or were followed: `positions` has one more of them."""
        return self._sequencer.opened

    @property
    def lacking(self) -> bool:
        """Whether messages are missing that may still come by replay."""
        return self._sequencer.lacking

    def finish(self) -> None:
        """Request what the journal has of the sessions followed: their publisher is about to end.

        Without it the last messages are missed where no `status` has said that there are any.
        """
        self._sequencer.finish()

    def receive(self, timeout_s: float | None = None) -> AnyMessage | None:
        """Return the next message, or None where none comes within `timeout_s` (None: wait on)."""
        self._done()
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while (message := self._next()) is None:
            now = time.monotonic()
            if now >= deadline:
                return None
            poller = zmq.Poller()
            self._poll(poller, min(deadline, self._due(now)) - now)
        return message

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> AnyMessage:
        message = self.receive()
        assert message is not None  # it waits for one
        return message

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AnyMessage:
        self._done()
        await asyncio.sleep(0)  # others run too where messages come without a pause
        while (message := self._next()) is None:
            now = time.monotonic()
            await self._poll(zmq.asyncio.Poller(), self._due(now) - now)
            await asyncio.sleep(0)  # where more is there already, `_poll` does not let them
        return message

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Write the state and end the connection."""
        self._save()
        self._link.close()

    def _follows(self, topic: str) -> bool:
        kind, source, *_ = topic.split("/")
        return kind in self._kinds and (not self._sources or source in self._sources)

    def _done(self) -> None:
        if self._at_hand is not None:
            self._sequencer.had(self._at_hand)
            self._at_hand = None

    def _next(self) -> AnyMessage | None:
        """Return the next message that is wanted, None if there is none now."""
        began = time.monotonic()
        if began >= self._save_at:
            self._keep(began)
        while True:
            while self._sequencer.ready:
                message = self._sequencer.ready.popleft()
                if self._saved_streams != self._sequencer.opened:
                    self._save()  # else one killed now would start anew, not here
                if self._wanted.takes(message):
                    self._at_hand = message
                    return message
                self._sequencer.had(message)
            now = time.monotonic()
            if now >= self._tend_at:
                self._tend(now)
            if self._sequencer.ready:
                continue
            if now >= began + TEND_S:  # all that comes is of labels that are not wanted
                return None
            if (live := self._link.take()) is not None:
                if not self._sources or live.source in self._sources:
                    self._silent_at, self._silent_logged = now + SILENT_S, ""
                if isinstance(live, Hello | Status):
                    self._link.name_replay(live.replay)
                if isinstance(live, Hello):
                    self._meet(live)
                self._sequencer.take(live, now)
                continue
            self._tend(now)
            self._mind_silence(now)
            if not self._sequencer.ready:
                return None

    def _tend(self, now: float) -> None:
        """Take answers, and send requests."""
        self._tend_at = now + TEND_S
        for header, messages in self._link.answers():
            if header.error is not None:
                _log.info("replay: %s", header.error)
            self._sequencer.answer(header, messages, now)
        request = self._sequencer.request(now)
        if request is not None:
            self._link.ask(request)

    def _keep(self, now: float) -> None:
        """Write the state, and say what was lost."""
        self._save_at = now + SAVE_S
        self._save()
        if self.lost.total() > self._lost_logged:
            self._lost_logged = self.lost.total()
            kinds = ", ".join(f"{count} of {kind}" for kind, count in self.lost.items())
            _log.warning("messages lost so far: %s", kinds)

    def _meet(self, hello: Hello) -> None:
        """Warn, once per session, of labels and sources that the publisher does not have."""
        if hello.source not in self._published:
            self._published.append(hello.source)
        if hello.session not in self._met:
            self._met.append(hello.session)
            some = f"it has {', '.join(hello.labels[:5])}{', ...' if hello.labels[5:] else ''}"
            for problem in unknown_names(self._labels, hello.labels, hint=some):
                _log.warning("--label: at %s %s", self._connect, problem)

    def _mind_silence(self, now: float) -> None:
        if now >= self._silent_at:
            self._silent_at = now + SILENT_S
            why = self._link.why_silent()
            if self._published:  # so we are connected
                some = f"it has {', '.join(self._published)}"
                why = (
                    "; ".join(unknown_names(self._sources, self._published, "source", some)) or why
                )
            if why != self._silent_logged:
                _log.warning("no message for %g s: %s", SILENT_S, why)
                self._silent_logged = why

    def _due(self, now: float) -> float:
        """Return when to tend again, whatever comes."""
        due = self._sequencer.due(now)
        return min(self._silent_at, self._save_at, math.inf if due is None else due)

    def _poll(self, poller: zmq.Poller, wait_s: float) -> Any:
        """Wait for something to do; with an asyncio poller return what is to be awaited."""
        for one in self._link.sockets:
            poller.register(one, zmq.POLLIN)
        return poller.poll(max(1, math.ceil(1000 * wait_s)))

    def _save(self) -> None:
        self._saved_streams = self._sequencer.opened
        if self._state is None or (positions := self.positions) == self._saved:
            return
        try:
            state_file.save(self._state, positions)
            self._saved = positions
        except OSError as error:
            _log.warning("cannot write the state %s: %s", self._state, error.strerror)


def _several(names: str | Sequence[str]) -> Sequence[str]:
    """Return the names; a single one need not be in a list."""
    return [names] if isinstance(names, str) else names
