"""A language model beside the stream: one request at a time, the newest first, nothing queued."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from streamtwl.errors import EndpointError

_log = logging.getLogger(__name__)

PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0  # after a failure, doubled with each that follows
# From one failure that is said to the next: a model may err with every other answer.
AGAIN_S = 600.0
POLL_S = 0.1  # whether the end is requested
UNREAD = 4  # results that wait for the stream's next hop

Query = TypeVar("Query")
Result = TypeVar("Result")


class Thinker(Generic[Query, Result]):
    """Works on a thread of its own; of the queries that come meanwhile the newest is kept.

    A failure is logged once, until there is an answer again, and no more than once in AGAIN_S; the
    thread then waits a while, or as long as the server wants, with the newest query still kept.
    """

    def __init__(self, work: Callable[[Query], Result], end: Callable[[], None]) -> None:
        """`work` raises EndpointError; `end` is called last, on the same thread."""
        self._work, self._end = work, end
        self._changed = threading.Condition()
        self._waiting: list[Query] = []  # at most one
        self._results: deque[Result] = deque(maxlen=UNREAD)
        self._busy = False
        self._closed = False
        self._pause_s = 0.0
        self._resume_at = 0.0  # monotonic
        self._problem: str | None = None
        self._said = False  # that there is one
        self._say_at = 0.0  # monotonic; the earliest time for the next
        self._answers = self._dropped = self._failed = 0
        self._thread = threading.Thread(target=self._run, name="thinker", daemon=True)
        self._thread.start()

    def put(self, query: Query) -> None:
        """Take a query in the place of one that still waits."""
        with self._changed:
            self._dropped += len(self._waiting)
            self._waiting = [query]
            self._changed.notify_all()

    def take(self) -> list[Result]:
        """Return the results since the last call."""
        with self._changed:
            results = list(self._results)
            self._results.clear()
            return results

    @property
    def idle(self) -> bool:
        """Whether it has nothing to do, and no result to take, until a pause is over."""
        with self._changed:
            return self._is_idle() and not self._results

    def wait(self, stop_requested: Callable[[], int] = lambda: 0) -> None:
        """Return when it has nothing to do until a pause is over, or when the stop is requested."""
        with self._changed:
            while not stop_requested() and not self._changed.wait_for(self._is_idle, POLL_S):
                pass

    def figures(self) -> dict[str, Any]:
        """Return the fields of `Status` that are about it."""
        with self._changed:
            return {
                "thoughts": self._answers,
                "dropped_thoughts": self._dropped,
                "failed_thoughts": self._failed,
                "thoughts_error": self._problem,
            }

    def close(self) -> None:
        """Take no more queries; the request in progress has to be cancelled by the caller."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread's end."""
        self._thread.join(timeout_s)

    def _is_idle(self) -> bool:
        paused = time.monotonic() < self._resume_at
        return self._closed or (not self._busy and (paused or not self._waiting))

    def _run(self) -> None:
        try:
            while (query := self._next()) is not None:
                try:
                    result = self._work(query)
                except EndpointError as error:
                    self._fail(error)
                else:
                    self._succeed(result)
        finally:
            self.close()  # nobody waits for a thread that has ended
            self._end()

    def _next(self) -> Query | None:
        """Wait for a query and for the end of a pause; return None at the end."""
        with self._changed:
            while not self._closed:
                left_s = self._resume_at - time.monotonic()
                if self._waiting and left_s <= 0:
                    self._busy = True
                    return self._waiting.pop()
                self._changed.wait(left_s if left_s > 0 else None)
            return None

    def _succeed(self, result: Result) -> None:
        with self._changed:
            if self._said:
                _log.warning("the language model answers again")
            self._answers += 1
            self._problem, self._said, self._pause_s = None, False, 0.0
            self._results.append(result)
            self._busy = False
            self._changed.notify_all()

    def _fail(self, error: EndpointError) -> None:
        with self._changed:
            if self._closed:
                return
            if not self._said and time.monotonic() >= self._say_at:
                _log.warning("%s: going on without the language model", error)
                self._said, self._say_at = True, time.monotonic() + AGAIN_S
            self._failed += 1
            self._problem = str(error)
            self._pause_s = min(max(PAUSE_S, 2 * self._pause_s), LONGEST_PAUSE_S)
            self._resume_at = time.monotonic() + max(self._pause_s, error.retry_after_s)
            self._busy = False
            self._changed.notify_all()
