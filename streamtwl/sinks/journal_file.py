"""The journal's file: an SQLite database of a layout of our own, written by one, read by many."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from streamtwl import folders
from streamtwl.errors import JournalError

LAYOUT = 1  # user_version of the database
BUSY_MS = 5000  # for another listener's transaction
LOG_PAGES = 4000  # of the write-ahead log (16 MB); only then a commit waits for the disk itself
LOG_BYTES = 16_000_000  # of its file, once it is in the database

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
_FORGET_EMPTY = """
DELETE FROM streams WHERE NOT EXISTS (SELECT 1 FROM messages WHERE stream = streams.id)
"""


def default_path() -> Path:
    """Return where the journal is by default, in the state folder; raises UsageError."""
    return folders.state() / "journal.sqlite"


def writer(path: Path) -> sqlite3.Connection:
    """Open a journal to write it, laid out first where it is new.

    Raises JournalError where it cannot be one, sqlite3.Error where the disk does not take it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise cannot_open(path, error.strerror or str(error)) from None
    connection = connect(path, "rwc")
    try:
        if not _layout(connection, path):
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        [mode] = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise cannot_open(path, "it has to be on a local disk")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
        with transaction(connection):
            if not _layout(connection, path):  # nor by another listener meanwhile
                for statement in _LAYOUT.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {LAYOUT}")
            connection.execute(_FORGET_EMPTY)
    except BaseException:
        connection.close()
        raise
    return connection


def reader(path: Path) -> sqlite3.Connection:
    """Open a journal to read it, also while a listener writes; raises JournalError."""
    if not path.is_file():
        raise JournalError(f"there is no journal {path}: `streamtwl listen` writes one")
    try:
        connection = connect(path, "ro")
        if not _layout(connection, path):
            raise JournalError(f"{path} is no journal of streamtwl: it is empty")
    except sqlite3.Error as error:
        raise cannot_open(path, str(error)) from None
    return connection


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """Connect in one of SQLite's modes: ro, rw, or rwc to create it."""
    return sqlite3.connect(
        f"{path.resolve().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_MS / 1000,
        isolation_level=None,
        check_same_thread=False,
    )


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what is done in the block, or nothing of it; raises sqlite3.Error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
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


def cannot_open(path: Path, problem: str) -> JournalError:
    """Return an error that says what to do."""
    return JournalError(
        f"cannot open the journal {path} ({problem}): choose another with --journal FILE, "
        "or none with --no-journal"
    )
