"""Leaps of the wall clock, noted in the journal: they age none of the entries before them.

A row of the table `leaps` stands between two entries: message `message` is the first one behind it,
and the clock was set `ahead` seconds ahead, or back. Several listeners may share a journal, and
each of them notices the same leap.
"""

import sqlite3
import time

from streamtwl.sinks import journal_file

_NEWEST = """
SELECT id, at, (SELECT total(ahead) FROM leaps WHERE message = messages.id + 1)
FROM messages ORDER BY id DESC LIMIT 1
"""  # and the leap noted behind it
_BEFORE = _NEWEST.replace("ORDER", "WHERE abs(at - :now) > abs(at - :expected) ORDER")
_UNDONE = """
DELETE FROM leaps
WHERE message = (SELECT max(message) FROM leaps) AND abs(ahead + :leap) <= :least
"""


class Leaps:
    """Looks at the clocks now and then; raises sqlite3.Error, and the next look notes it then."""

    def __init__(self, least_s: float) -> None:
        """`least_s`: what is no more is drift, or a pause of the machine."""
        self._least_s = least_s
        self._clocks: tuple[float, float] | None = None  # wall and monotonic, at the last look

    def begin(self, connection: sqlite3.Connection) -> None:
        """Compare the wall clock with the newest entry of a journal that was opened."""
        self._clocks = None  # where this fails, the next look does it
        now, monotonic = time.time(), time.monotonic()
        with journal_file.transaction(connection):
            for number, at, noted in connection.execute(_NEWEST).fetchall():
                self._note(connection, number, noted, now - (at + noted))
        self._clocks = now, monotonic

    def look(self, connection: sqlite3.Connection) -> None:
        """Compare the wall clock with the monotonic one; note a leap since the last look."""
        if self._clocks is None:
            self.begin(connection)
            return
        now, monotonic = time.time(), time.monotonic()
        expected = self._clocks[0] + monotonic - self._clocks[1]
        if abs(now - expected) > self._least_s:
            with journal_file.transaction(connection):
                self._leapt(connection, now, expected)
        self._clocks = now, monotonic

    def _leapt(self, connection: sqlite3.Connection, now: float, expected: float) -> None:
        """Note a leap behind the newest entry that was stamped before it."""
        leap = now - expected
        newest = connection.execute(_NEWEST).fetchall()
        if not any(noted for _, _, noted in newest):
            newest = connection.execute(_BEFORE, {"now": now, "expected": expected}).fetchall()
            if not newest:  # nothing was stamped since the leap before: this one may undo it
                connection.execute(_UNDONE, {"leap": leap, "least": self._least_s})
        for number, _, noted in newest:
            if not noted or abs(noted - leap) > self._least_s:  # else another listener noted it
                self._note(connection, number, noted, leap)

    def _note(self, connection: sqlite3.Connection, number: int, noted: float, leap: float) -> None:
        """Add a leap to that which is noted behind an entry."""
        if abs(leap) <= self._least_s:
            return
        if abs(noted + leap) <= self._least_s:  # there and back, while nothing was written
            connection.execute("DELETE FROM leaps WHERE message = ?", (number + 1,))
        else:
            row = number + 1, noted + leap
            connection.execute("INSERT OR REPLACE INTO leaps (message, ahead) VALUES (?, ?)", row)
