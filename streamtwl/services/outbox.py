"""What a service has yet to send, and how far it has read: in SQLite, in the state folder.

Both are written in one transaction, so a message of the listener leads to an entry once, whenever
the program is killed; an entry is deleted when the other side has confirmed it.
"""

import contextlib
import logging
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import filelock
import msgspec

from streamtwl import folders
from streamtwl.client import Subscription
from streamtwl.errors import UNDECODABLE, SinkError, UsageError
from streamtwl.messages import AnyMessage
from streamtwl.services.service import Feed, Positions

_log = logging.getLogger(__name__)

LIMIT = 100_000  # entries; the oldest give way

_TABLES = """
CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT, target TEXT, payload BLOB, tries INTEGER, due REAL);
CREATE INDEX IF NOT EXISTS by_target ON entries (target, id);
CREATE TABLE IF NOT EXISTS positions (session TEXT, topic TEXT, seq INTEGER);
CREATE TABLE IF NOT EXISTS state (one INTEGER PRIMARY KEY CHECK (one = 1), payload BLOB);
"""


class Entry(NamedTuple):
    """Something to send."""

    id: int
    target: str
    payload: bytes
    tries: int  # that failed
    due: float  # Unix seconds of the next; 0: at once


class Outbox:
    """Entries, positions and a state of the service's own; used by one process at a time.

    Raises UsageError where another process uses it, SinkError where it cannot be written.
    """

    def __init__(self, service: str, feed: Feed, limit: int = LIMIT) -> None:
        """One each for a service and a listener."""
        connect = feed.name or feed.connect
        folder = folders.state() / "services"
        name = re.sub(r"[^\w.-]+", "-", f"{service}-{connect}")
        self.path = folder / f"{name}.sqlite"
        self.dropped = 0  # entries that were never sent, as there was no room
        self._limit = limit
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = filelock.FileLock(folder / f"{name}.lock")
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise UsageError(
                f"{service}: another streamtwl serves {connect} already: end it first"
            ) from None
        except OSError as error:
            raise SinkError(f"cannot write {self.path}: {error.strerror}") from None
        try:
            self._open()
        except sqlite3.OperationalError as error:
            self._lock.release()
            raise SinkError(f"cannot write {self.path}: {error}") from None
        except sqlite3.DatabaseError:
            self._db.close()
            aside = self.path.with_suffix(f".damaged-{int(time.time())}")
            _log.warning("%s is damaged, what it held is lost: it is now %s", self.path, aside.name)
            with self._failing():
                self.path.replace(aside)
                self._open()

    def close(self) -> None:
        """Close it; what is in it stays."""
        self._db.close()
        self._lock.release()

    @property
    def waiting(self) -> int:
        """How many entries there are."""
        [(count,)] = self._rows("SELECT count(*) FROM entries")
        return count

    @property
    def positions(self) -> dict[tuple[str, str], int]:
        """Where to go on reading: for `Feed.open`."""
        rows = self._rows("SELECT session, topic, seq FROM positions")
        return {(session, topic): seq for session, topic, seq in rows}

    def state(self, type_: Any) -> Any:
        """Return the service's state, a new `type_` where there is none that fits."""
        for (payload,) in self._rows("SELECT payload FROM state"):
            with contextlib.suppress(*UNDECODABLE):
                return msgspec.json.decode(payload, type=type_)
        return type_()

    def save(
        self,
        positions: Positions,
        state: Any,
        entries: Sequence[tuple[str, bytes]] = (),  # targets and payloads
    ) -> None:
        """Write all of it, or nothing; raises SinkError."""
        with self._failing(), self._db:
            rows = [(target, payload, 0, 0.0) for target, payload in entries]
            self._db.executemany(
                "INSERT INTO entries (target, payload, tries, due) VALUES (?, ?, ?, ?)", rows
            )
            self._db.execute("DELETE FROM positions")
            self._db.executemany(
                "INSERT INTO positions VALUES (?, ?, ?)",
                [(*key, seq) for key, seq in positions.items()],
            )
            self._db.execute(
                "INSERT OR REPLACE INTO state VALUES (1, ?)", (msgspec.json.encode(state),)
            )
            if entries and (over := self.waiting - self._limit) > 0:
                self._db.execute(
                    "DELETE FROM entries WHERE id IN (SELECT id FROM entries ORDER BY id LIMIT ?)",
                    (over,),
                )
                self.dropped += over

    def first(self) -> Entry | None:
        """Return the oldest entry, due or not."""
        return self._entry("ORDER BY id LIMIT 1")

    def next_due(self, target: str) -> Entry | None:
        """Return a target's oldest entry that is due; where none is, the first that will be."""
        return self._entry("WHERE target = ? ORDER BY max(due, ?), id LIMIT 1", target, time.time())

    def keep(self, targets: Iterable[str]) -> int:
        """Delete all entries but those of these targets; return how many went."""
        wanted = [*targets]
        marks = ", ".join("?" * len(wanted))
        with self._failing(), self._db:
            return self._db.execute(
                f"DELETE FROM entries WHERE target NOT IN ({marks})", wanted
            ).rowcount

    def done(self, entry: Entry) -> None:
        """Delete an entry; raises SinkError."""
        with self._failing(), self._db:
            self._db.execute("DELETE FROM entries WHERE id = ?", (entry.id,))

    def failed(self, entry: Entry, wait_s: float) -> None:
        """Note that an entry was not sent, and is due again in `wait_s`; raises SinkError."""
        with self._failing(), self._db:
            self._db.execute(
                "UPDATE entries SET tries = tries + 1, due = ? WHERE id = ?",
                (time.time() + wait_s, entry.id),
            )

    def _entry(self, which: str, *values: object) -> Entry | None:
        query = f"SELECT id, target, payload, tries, due FROM entries {which}"
        return next((Entry(*row) for row in self._rows(query, *values)), None)

    def _rows(self, query: str, *values: object) -> list[Any]:
        with self._failing():
            return self._db.execute(query, values).fetchall()

    def _open(self) -> None:
        self._db = sqlite3.connect(self.path, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(_TABLES)

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise SinkError(f"cannot write {self.path}: {error}") from None


def after(subscription: Subscription, message: AnyMessage) -> Mapping[tuple[str, str], int]:
    """Return where to go on reading when `message`, the newest received, has been dealt with."""
    return {**subscription.positions, (message.session, message.topic): message.seq}
