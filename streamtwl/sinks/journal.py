"""The journal: what was told, in SQLite, committed before it is sent. Labels, never audio.

A thread of its own writes, so that a slow disk costs the publisher 20 ms and no more. Write-ahead
logging lets others read meanwhile (`reader`), and a killed process leaves nothing to be repaired.
"""

import contextlib
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from streamtwl.errors import JournalError
from streamtwl.sinks import journal_file

_log = logging.getLogger(__name__)

COMMIT_S = 0.02  # that a message in real time waits for its commit
BATCHES = 64  # between the publisher and the writer
CLOSING_S = 5.0
TEND_S = 1.0  # from one look at age and size to the next
CHECKPOINT_S = 30.0  # what a power cut may take with it
STEP = 500  # messages deleted at once
MB = 1_000_000
DAY_S = 86_400.0

_NEW_STREAM = "INSERT OR IGNORE INTO streams (session, topic) VALUES (?, ?)"
_NEW_MESSAGE = """
INSERT OR IGNORE INTO messages (stream, seq, at, lasting, label, payload)
SELECT id, ?, ?, ?, ?, ? FROM streams WHERE session = ? AND topic = ?
"""
_TOO_OLD = "SELECT id FROM messages WHERE at < ? LIMIT ?"
_LEAST_WORTH = "SELECT id FROM messages ORDER BY lasting, id LIMIT ?"


class Entry(NamedTuple):
    """One message as the journal holds it."""

    session: str
    topic: str
    seq: int
    at: float  # Unix seconds
    label: str | None
    payload: bytes  # MessagePack or JSON, as it was sent


class Journal:
    """Writes entries, and deletes what is older than `max_age_days` or beyond `max_mb`.

    Events are the last to go for size. A disk that is full or stuck is no error: `commit` says that
    it did not work, `problem` says why, and it is tried again with what comes next. Several
    listeners may share a journal. Raises JournalError where `path` cannot be one.
    """

    def __init__(self, path: Path, max_age_days: float = 30.0, max_mb: float = 500.0) -> None:
        self.path = path
        self.errors = 0  # messages that were not committed in time
        self.problem: str | None = None  # why the newest were not
        self._max_age_s = max_age_days * DAY_S
        self._max_bytes = max_mb * MB
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._tend_at = 0.0  # monotonic
        self._waiting: queue.Queue[_Batch | None] = queue.Queue(BATCHES)
        self._overdue: _Batch | None = None
        try:
            self._open()
        except sqlite3.Error as error:
            if not _passing(error):
                raise journal_file.cannot_open(path, str(error)) from None
            self.problem = self._said(error)
            _log.warning("not in the journal: %s", self.problem)
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name="journal", daemon=True),
            threading.Thread(target=self._move_log, name="checkpoint", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def commit(self, entries: Sequence[Entry], patience_s: float = COMMIT_S) -> bool:
        """Return whether the entries were committed within `patience_s`; one caller at a time.

        While an earlier commit is overdue the patience is 20 ms at most. Late is not lost: what
        the queue had room for is written all the same.
        """
        batch = _Batch(entries)
        try:
            self._waiting.put_nowait(batch)
        except queue.Full:
            self.errors += len(entries)
            return False
        if self._overdue is not None and not self._overdue.done.is_set():
            patience_s = min(patience_s, COMMIT_S)
        in_time = batch.done.wait(patience_s)
        self._overdue = None if in_time else batch
        if in_time and batch.problem is None:
            self.problem = None
            return True
        self.errors += len(entries)
        problem = batch.problem or f"a commit takes over {1000 * patience_s:g} ms: {self.path}"
        if self.problem is None:
            _log.warning("not in the journal: %s", problem)
        self.problem = problem
        return False

    def close(self) -> None:
        """Write what waits, up to 5 s, and end."""
        self._over.set()
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=CLOSING_S)
        until = time.monotonic() + CLOSING_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            _log.warning("the journal %s did not end in time", self.path)

    def _run(self) -> None:
        while True:
            with contextlib.suppress(queue.Empty):
                batch = self._waiting.get(timeout=max(0.0, self._tend_at - time.monotonic()))
                if batch is None:
                    break
                try:
                    self._write(batch.entries)
                except (sqlite3.Error, JournalError, OSError) as error:
                    batch.problem = self._said(error)
                batch.done.set()
            with contextlib.suppress(sqlite3.Error):  # what is wrong shows in the next commit
                self._tend(time.monotonic())
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()

    def _write(self, entries: Sequence[Entry]) -> None:
        if self._connection is None:
            self._open()
        assert self._connection is not None
        with journal_file.transaction(self._connection):
            self._connection.executemany(
                _NEW_STREAM, {(each.session, each.topic) for each in entries}
            )
            self._connection.executemany(
                _NEW_MESSAGE,
                [
                    (e.seq, e.at, e.topic.startswith("event/"), e.label, e.payload, *e[:2])
                    for e in entries
                ],
            )

    def _tend(self, now: float) -> None:
        """Delete a little of what is too much."""
        if now < self._tend_at:
            return
        self._tend_at = now + TEND_S
        if self._connection is None:
            return
        if self._moved():
            _log.warning("%s was moved or deleted: a new journal begins", self.path)
            self._connection.close()
            self._connection = None
            return
        deleted = self._delete(_TOO_OLD, time.time() - self._max_age_s, STEP)
        in_use, in_all = self._size_bytes()
        if in_use > self._max_bytes:
            deleted += self._delete(_LEAST_WORTH, STEP)
        if in_all > self._max_bytes:
            self._connection.execute("PRAGMA incremental_vacuum(64)").fetchall()
        if deleted or in_all > self._max_bytes:
            self._tend_at = now  # there may be more

    def _move_log(self) -> None:
        """Move the log into the database now and then: it waits for the disk, commits do not."""
        while not self._over.is_set():
            inode = self._inode
            with (
                contextlib.suppress(sqlite3.Error),
                contextlib.closing(journal_file.connect(self.path, "rw")) as connection,
            ):
                connection.execute("PRAGMA schema_version").fetchall()  # opens its files now
                while not self._over.wait(CHECKPOINT_S) and self._inode == inode:
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                continue
            self._over.wait(CHECKPOINT_S)

    def _delete(self, chosen: str, *values: float) -> int:
        assert self._connection is not None
        with journal_file.transaction(self._connection):
            return self._connection.execute(
                f"DELETE FROM messages WHERE id IN ({chosen})", values
            ).rowcount

    def _size_bytes(self) -> tuple[int, int]:
        """Return what is in use, and in all: deleted messages leave room for new ones."""
        pages, free, size = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0]  # type: ignore[union-attr]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size, pages * size

    def _moved(self) -> bool:
        try:
            return self.path.stat().st_ino != self._inode
        except OSError:
            return True

    def _open(self) -> None:
        self._connection = None
        self._connection = journal_file.writer(self.path)
        self._inode = self.path.stat().st_ino

    def _said(self, error: Exception) -> str:
        return str(error) if isinstance(error, JournalError) else f"{error}: {self.path}"


class _Batch:
    """Entries on their way to the writer."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self.problem: str | None = None
        self.done = threading.Event()


def _passing(error: sqlite3.Error) -> bool:
    """Whether it may come right by itself: a disk that is full or stuck."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the extension
    return code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY)
