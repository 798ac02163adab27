"""The journal's file: an SQLite database with its own layout, one writer and many readers."""

import contextlib
import itertools
import os
import sqlite3
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from streamtwl import folders
from streamtwl.errors import DamagedJournal, JournalError

LAYOUT = 1  # user_version of the database
BUSY_MS = 5000  # for another listener's transaction
RETRY_S = 0.01
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
# Messages before `message` were written before the wall clock leapt ahead by `ahead` seconds that
# did not pass (see Journal). Older versions ignore this table, so it does not change the layout.
_LEAPS = "CREATE TABLE IF NOT EXISTS leaps (message INTEGER PRIMARY KEY, ahead REAL)"
_OURS = {"streams", "messages", "by_seq", "by_time", "by_worth", "leaps"}
_FEW = 2  # of these names another program's database may have too
_VERSIONS = 100  # layouts that there may come to be; beyond that it is a damaged number
_FORGET_EMPTY = """
DELETE FROM streams WHERE NOT EXISTS (SELECT 1 FROM messages WHERE stream = streams.id)
"""


def default_path() -> Path:
    """Return where the journal is by default, in the state folder; raises UsageError."""
    return folders.state() / "journal.sqlite"


def writer(path: Path) -> sqlite3.Connection:
    """Open a journal to write it, laid out first where it is new.

    Raises JournalError where that path cannot be one, and where something may come right by itself
    OSError (no permission, say) or sqlite3.Error (a full disk, damage: see `damaged`).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (NotADirectoryError, FileExistsError) as error:
        raise _cannot_open(path, str(error.strerror)) from None
    if os.path.exists(path) and not os.path.isfile(path):
        raise _cannot_open(path, "unable to open what is no file")
    connection = connect(path, "rwc")
    try:
        if not _layout(connection, path):
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        if log_ahead(connection) != "wal":
            raise _cannot_open(path, "it has to be on a local disk")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
        with transaction(connection):
            if not _layout(connection, path):  # nor by another listener meanwhile
                for statement in _LAYOUT.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {LAYOUT}")
            connection.execute(_LEAPS)
            connection.execute(_FORGET_EMPTY)
    except BaseException:
        connection.close()
        raise
    return connection


def reader(path: Path) -> sqlite3.Connection:
    """Open a journal to read it, also while a listener writes; raises JournalError."""
    if not os.path.isfile(path):
        raise JournalError(f"there is no journal {path}: `streamtwl listen` writes one")
    try:
        with contextlib.ExitStack() as unless_good:
            connection = unless_good.enter_context(contextlib.closing(connect(path, "ro")))
            if not _layout(connection, path):
                raise JournalError(f"{path} is not a journal of streamtwl: it is empty")
            unless_good.pop_all()
    except sqlite3.Error as error:
        raise unreadable(path, error) from None
    return connection


def damaged(error: Exception) -> bool:
    """Return whether an error means that the database is damaged.

    SQLITE_ERROR too: queries never change, so it means that a table or column has gone.
    """
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the extension
    broken = code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
    return broken or isinstance(error, DamagedJournal)


def set_aside(path: Path) -> Path:
    """Rename a journal and its companions, by the date; return the new path. Raises OSError.

    The log goes first: beside a new database of its name SQLite would read it into that one.
    """
    path = Path(os.path.realpath(path))
    name = f"{path.stem}-damaged-{datetime.now():%Y%m%d-%H%M%S}"
    numbers = itertools.chain([""], (f"-{n}" for n in itertools.count(2)))
    new = next(
        each
        for number in numbers
        if not os.path.lexists(each := path.with_name(f"{name}{number}{path.suffix}"))
    )
    for companion in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{path}{companion}", f"{new}{companion}")
    path.rename(new)
    return new


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """Connect in one of SQLite's modes: ro, rw, or rwc to create it."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_MS / 1000,
        isolation_level=None,
        check_same_thread=False,
        factory=_Connection,
    )
    connection.text_factory = lambda text: text.decode(errors="replace")  # if damaged
    return connection


def log_ahead(connection: sqlite3.Connection) -> str:
    """Switch a database to a write-ahead log; return the mode it is in then.

    SQLite does not wait for another that writes to a new database, whatever the timeout: this does.
    """
    until = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            [mode] = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(RETRY_S)
        else:
            return str(mode)


class _Connection(sqlite3.Connection):
    def execute(self, *statement: Any) -> sqlite3.Cursor:
        try:
            return super().execute(*statement)
        except UnicodeDecodeError as error:  # in the words for it: a name in the schema is damaged
            raise _corrupt(error.object.decode(errors="replace")) from None


def _corrupt(what: str) -> sqlite3.Error:
    """Return an error as SQLite's own of a damaged file."""
    error = sqlite3.DatabaseError(what)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit the block as a whole or not at all; raises sqlite3.Error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite may have taken it back by itself
            connection.execute("ROLLBACK")
        raise


def _layout(connection: sqlite3.Connection, path: Path) -> int:
    """Return the database's layout, 0 where it is new.

    Raises JournalError for another one, sqlite3.Error for what damage has left of ours.
    """
    [layout] = connection.execute("PRAGMA user_version").fetchone()
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    ours = {"streams", "messages"} <= names
    if (layout == LAYOUT and ours) or (not layout and not names):
        return layout
    newer = LAYOUT < layout < _VERSIONS and (ours or not names)
    if not newer and (len(names & _OURS) > _FEW or not names):
        raise _corrupt(f"of layout {layout}, with {len(names & _OURS)} of {len(_OURS)} tables")
    whose = f"has layout {layout}, this version" if newer else "is another program's, streamtwl"
    raise JournalError(
        f"the database {path} {whose} reads layout {LAYOUT}: choose another with --journal"
    )


def unreadable(path: Path, error: sqlite3.Error) -> JournalError:
    """Return an error that says what to do about a journal that cannot be read."""
    if damaged(error):
        return DamagedJournal(
            f"the journal {path} is damaged ({error}): no more of it can be read; "
            "`streamtwl listen` renames it and begins a new one"
        )
    return JournalError(f"cannot read the journal {path} ({error}): choose another with --journal")


def _cannot_open(path: Path, problem: str) -> JournalError:
    """Return an error that says what to do."""
    return JournalError(
        f"cannot open the journal {path} ({problem}): choose another with --journal FILE, "
        "or none with --no-journal"
    )
