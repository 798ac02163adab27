"""The journal: what was told, in SQLite, committed before it is sent. Labels, never audio.

A thread of its own writes, so that a slow disk costs the publisher 20 ms and no more. Write-ahead
logging lets others read meanwhile (`reader`), and a killed process leaves nothing to be repaired.
"""

import contextlib
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import platformdirs

from streamtwl.errors import JournalError

_log = logging.getLogger(__name__)

COMMIT_S = 0.02  # that a message in real time waits for its commit
BATCHES = 64  # between the publisher and the writer
LAYOUT = 1  # user_version of the database
BUSY_MS = 5000  # for another listener's transaction
TEND_S = 1.0  # from one look at age and size to the next
CHECKPOINT_S = 30.0  # what a power cut may take with it
LOG_PAGES = 4000  # of the write-ahead log (16 MB); only then a commit waits for the disk itself
STEP = 500  # messages deleted at once
MB = 1_000_000
DAY_S = 86_400.0

# `stream`: one topic in one session. `lasting`: an event, which outlives the labels and states
# around it where the size is limited. `at`: Unix seconds of the publication.
_LAYOUT = """
CREATE TABLE streams (id INTEGER PRIMARY KEY, session TEXT, topic TEXT, UNIQUE (session, topic));
CREATE TABLE messages (
    id INTEGER PRIMARY KEY, stream INTEGER, seq INTEGER, at REAL, lasting INTEGER, label TEXT,
    payload BLOB
);
CREATE UNIQUE INDEX by_seq ON messages (stream, seq);
CREATE INDEX by_time ON messages (at);
CREATE INDEX by_worth ON messages (lasting);
"""
_NEW_STREAM = "INSERT OR IGNORE INTO streams (session, topic) VALUES (?, ?)"
_NEW_MESSAGE = """
INSERT OR IGNORE INTO messages (stream, seq, at, lasting, label, payload)
SELECT id, ?, ?, ?, ?, ? FROM streams WHERE session = ? AND topic = ?
"""
_TOO_OLD = "SELECT id FROM messages WHERE at < ? LIMIT ?"
_LEAST_WORTH = "SELECT id FROM messages ORDER BY lasting, id LIMIT ?"
_UNFIT = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY)  # it may come right


class Entry(NamedTuple):
    """One message as the journal holds it."""

    session: str
    topic: str
    seq: int
    at: float  # Unix seconds
    label: str | None
    payload: bytes  # MessagePack or JSON, as it was sent


def default_path() -> Path:
    """Return where the journal is unless told otherwise; $STREAMTWL_STATE names its folder."""
    folder = os.environ.get("STREAMTWL_STATE") or platformdirs.user_state_dir("streamtwl")
    return Path(folder) / "journal.sqlite"


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
            if _code(error) not in _UNFIT:
                raise _cannot_open(path, str(error)) from None
            self.problem = self._said(error)
            _log.warning("not in the journal: %s", self.problem)
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()
        self._over = threading.Event()
        threading.Thread(target=self._move_log, name="checkpoint", daemon=True).start()

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
            self._waiting.put(None, timeout=BUSY_MS / 1000)
        self._thread.join(BUSY_MS / 1000)
        if self._thread.is_alive():
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
        with _transaction(self._connection) as connection:
            connection.executemany(_NEW_STREAM, {(each.session, each.topic) for each in entries})
            connection.executemany(
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
        while not self._over.wait(CHECKPOINT_S):
            with (
                contextlib.suppress(sqlite3.Error),
                contextlib.closing(_connect(self.path, "rw")) as connection,
            ):
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _delete(self, chosen: str, *values: float) -> int:
        assert self._connection is not None
        with _transaction(self._connection) as connection:
            return connection.execute(
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
        """Open the database, laid out first where it is new."""
        self._connection = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise _cannot_open(self.path, error.strerror or str(error)) from None
        connection = _connect(self.path, "rwc")
        try:
            layout = _layout(connection, self.path)
            if not layout:
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            [mode] = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise _cannot_open(self.path, "it has to be on a local disk")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
            connection.execute(f"PRAGMA journal_size_limit = {16 * MB}")
            with _transaction(connection):
                if not _layout(connection, self.path):  # nor by another listener meanwhile
                    for statement in _LAYOUT.split(";"):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {LAYOUT}")
        except BaseException:
            connection.close()
            raise
        self._inode = self.path.stat().st_ino
        self._connection = connection

    def _said(self, error: Exception) -> str:
        return str(error) if isinstance(error, JournalError) else f"{error}: {self.path}"


class _Batch:
    """Entries on their way to the writer."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self.problem: str | None = None
        self.done = threading.Event()


def reader(path: Path) -> sqlite3.Connection:
    """Open a journal to read it, also while a listener writes; raises JournalError."""
    if not path.is_file():
        raise JournalError(f"there is no journal {path}: `streamtwl listen` writes one")
    try:
        connection = _connect(path, "ro")
        if not _layout(connection, path):
            raise JournalError(f"{path} is no journal of streamtwl: it is empty")
    except sqlite3.Error as error:
        raise _cannot_open(path, str(error)) from None
    return connection


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    """Connect in one of SQLite's modes: ro, rw, or rwc to create it."""
    return sqlite3.connect(
        f"{path.resolve().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_MS / 1000,
        isolation_level=None,
        check_same_thread=False,
    )


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection | None) -> Iterator[sqlite3.Connection]:
    assert connection is not None
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite may have taken it back by itself
            connection.execute("ROLLBACK")
        raise


def _layout(connection: sqlite3.Connection, path: Path) -> int:
    """Return the database's layout, 0 where it is new; raises JournalError for another one."""
    [layout] = connection.execute("PRAGMA user_version").fetchone()
    [tables] = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if layout == LAYOUT or (not layout and not tables):
        return layout
    whose = f"has layout {layout}, this version" if layout else "is another program's, streamtwl"
    raise JournalError(
        f"the database {path} {whose} reads layout {LAYOUT}: choose another with --journal"
    )


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the extension


def _cannot_open(path: Path, problem: str) -> JournalError:
    return JournalError(
        f"cannot open the journal {path} ({problem}): choose another with --journal FILE, "
        "or none with --no-journal"
    )
