"""Which of a listener's sources are there no more."""

import time
from collections.abc import Iterable

GONE_S = 75.0  # a session says hello for each of its sources once a minute


class Roll:
    """Calls the sources: one is gone where a newer session has none of its messages for a while.

    A source whose session is the newest is silent, or its listener is away: it may come back.
    """

    def __init__(self, known: Iterable[str] = ()) -> None:
        """`known` are those of before, whose session is not known."""
        now = time.monotonic()
        self._session, self._since = "", now  # the newest
        self._newest = dict.fromkeys(known, ("", now))  # session, and when it came

    def take(self, source: str, session: str) -> None:
        """Note that a source has published now, in a session."""
        now = time.monotonic()
        if session != self._session:
            self._session, self._since = session, now
        self._newest[source] = session, now

    def gone(self) -> list[str]:
        """Return the sources that are gone; they are forgotten."""
        now = time.monotonic()
        found = [
            source
            for source, (session, at) in self._newest.items()
            if self._session not in ("", session) and now > max(at, self._since) + GONE_S
        ]
        for source in found:
            del self._newest[source]
        return found
