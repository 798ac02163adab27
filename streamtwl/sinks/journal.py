"""The journal: published messages in SQLite, committed before they are sent. Never audio.

A thread of its own writes, so that a slow disk delays the publisher by 20 ms at most. Write-ahead
logging lets others read meanwhile (`reader`), and a killed process leaves nothing to repair. A
journal that is damaged anyway is set aside, and a new one begins.
"""

import contextlib
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from streamtwl.errors import JournalError
from streamtwl.sinks import journal_file
from streamtwl.sinks.leaps import Leaps

_log = logging.getLogger(__name__)

COMMIT_S = 0.02  # that a message in real time waits for its commit
BATCHES = 64  # between the publisher and the writer
CLOSING_S = 5.0
TEND_S = 1.0  # from one look at age and size to the next
CHECKPOINT_S = 30.0  # what a power cut may take with it
CHECK_S = 86_400.0  # from one check of the whole file to the next (0.5 s of processor for 450 MB)
ANEW_S = 600.0  # in which no second journal is set aside: on a bad disk they would fill it
INTERRUPTIBLE = 10_000  # SQLite's instructions, from one look whether it is to end to the next
STEP = 500  # messages deleted at once
MB = 1_000_000
DAY_S = 86_400.0

_NEW_STREAM = "INSERT OR IGNORE INTO streams (session, topic) VALUES (?, ?)"
_NEW_MESSAGE = """
INSERT OR IGNORE INTO messages (stream, seq, at, lasting, label, payload)
SELECT id, ?, ?, ?, ?, ? FROM streams WHERE session = ? AND topic = ?
"""
_TOO_OLD = f"""
SELECT id FROM (SELECT id, at FROM messages ORDER BY id LIMIT {STEP})
WHERE at < ? - (SELECT total(ahead) FROM leaps WHERE message > id)
"""
_LEAST_WORTH = f"SELECT id FROM messages ORDER BY lasting, id LIMIT {STEP}"
_SESSIONS = """
SELECT session, topic FROM streams WHERE typeof(session) = 'text' AND typeof(topic) = 'text'
ORDER BY id
"""
_FORGET_LEAPS = """
DELETE FROM leaps WHERE NOT EXISTS (SELECT 1 FROM messages WHERE id < leaps.message)
"""


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

    When it is too large, events are deleted last. A full or stuck disk, or a folder that cannot be
    written, is not an error: `commit` returns False, `problem` says why, and the next commit is
    another try. A journal that is damaged is renamed (`name-damaged-DATE.sqlite`)
    and a new one begins, if that is permitted. Damage is looked for on opening and once a day;
    other readers report it with `suspect`. Several listeners may share a journal.
    Raises JournalError where `path` cannot be one: a folder, another program's database, a newer
    version's.

    An entry's age is the time of the wall clock since then, without its leaps. A leap is a
    difference of more than a day (or a tenth of `max_age_days`, if that is less) between the wall
    clock and the monotonic clock or, on opening, the newest entry; it does not age the entries
    before it. So a listener that was off for longer than that does not age its journal either; a
    suspended machine does, up to a day at a time.
    """

    def __init__(self, path: Path, max_age_days: float = 30.0, max_mb: float = 500.0) -> None:
        self.path = path
        self.errors = 0  # messages that were not committed in time
        self.problem: str | None = None  # why the newest were not
        self._max_age_s = max_age_days * DAY_S
        self._max_bytes = max_mb * MB
        self._connection: sqlite3.Connection | None = None
        self._inode: int | None = None
        self._leaps = Leaps(min(DAY_S, self._max_age_s / 10))
        self._damage: tuple[int | None, str] | None = None  # inode, and what is wrong with it
        self._check_at = 0.0  # monotonic
        self._anew_at = -ANEW_S  # monotonic, when the last one was set aside
        self._tend_at = 0.0  # monotonic
        self._waiting: queue.Queue[_Batch | None] = queue.Queue(BATCHES)
        self._overdue: _Batch | None = None
        try:
            self._past_damage(self._open)
            self.problem = None
        except (sqlite3.Error, OSError) as error:
            self.problem = self._said(error)
            _log.warning("not in the journal: %s", self.problem)
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name="journal", daemon=True),
            threading.Thread(target=self._mind_file, name="checkpoint", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def commit(self, entries: Sequence[Entry], patience_s: float = COMMIT_S) -> bool:
        """Return whether the entries were committed within `patience_s`; one caller at a time.

        While an earlier commit is overdue the patience is 20 ms at most. Late is not lost: what
        the queue had room for is written all the same. After `close` nothing is.
        """
        batch = _Batch(entries)
        if self._over.is_set():
            self.errors += len(entries)
            return False
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

    def sessions(self) -> dict[str, list[str]]:
        """Return the sessions that it has messages of, by source, oldest first; none if it cannot
        be read."""
        found: dict[str, dict[str, None]] = {}
        with (
            contextlib.suppress(sqlite3.Error, JournalError),
            contextlib.closing(journal_file.reader(self.path)) as connection,
        ):
            for session, topic in connection.execute(_SESSIONS):
                source = topic.partition("/")[2].removesuffix("/")
                found.setdefault(source, {})[session] = None
        return {source: list(sessions) for source, sessions in found.items()}

    def suspect(self) -> None:
        """Have the whole file checked soon: a reader found it damaged."""
        self._check_at = 0.0

    def close(self) -> None:
        """Write what is queued, for up to 5 s, and end."""
        self._over.set()
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=CLOSING_S)
        until = time.monotonic() + CLOSING_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            _log.warning("the journal %s did not end in time", self.path)

    def _run(self) -> None:
        warned = ""
        while True:
            with contextlib.suppress(queue.Empty):
                batch = self._waiting.get(timeout=max(0.0, self._tend_at - time.monotonic()))
                if batch is None:
                    break
                try:
                    self._past_damage(partial(self._write, batch.entries))
                except (sqlite3.Error, JournalError, OSError) as error:
                    batch.problem = self._said(error)
                batch.done.set()
            try:
                self._past_damage(self._tend)
            except sqlite3.Error:  # it shows in the next commit
                continue
            except (JournalError, OSError) as error:
                if (problem := self._said(error)) != warned:
                    _log.warning("%s", warned := problem)
        self._threads[1].join(CLOSING_S)  # two at once would leave the log beside the database
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()

    def _past_damage(self, step: Callable[[], object]) -> None:
        """Take a step; if it finds damage, repeat it in a new journal."""
        try:
            step()
        except sqlite3.Error as error:
            if not journal_file.damaged(error):
                raise
            self._begin_anew(str(error))
            step()

    def _begin_anew(self, damage: str) -> None:
        """Set the journal aside, unless another listener has; raises OSError where it cannot be."""
        now = time.monotonic()
        if now < self._anew_at + ANEW_S:
            raise OSError(f"damaged again ({damage}): is the disk well?")
        if self._here() == self._inode:
            try:
                new = journal_file.set_aside(self.path)
            except OSError as error:
                why = error.strerror or error
                raise OSError(f"damaged ({damage}), and it cannot be renamed ({why})") from None
            self._anew_at = now
            self.problem = f"{self.path} is damaged ({damage}): it is now {new}, a new one begins"
            _log.warning("the journal %s", self.problem)  # and no second one if that takes a while
        self._close()

    def _write(self, entries: Sequence[Entry]) -> None:
        connection = self._connection or self._open()
        with journal_file.transaction(connection):
            connection.executemany(_NEW_STREAM, {(each.session, each.topic) for each in entries})
            connection.executemany(
                _NEW_MESSAGE,
                [
                    (e.seq, e.at, e.topic.startswith("event/"), e.label, e.payload, *e[:2])
                    for e in entries
                ],
            )

    def _tend(self) -> None:
        """Delete some of the entries that are too old or too many."""
        now = time.monotonic()
        if now < self._tend_at:
            return
        self._tend_at = now + TEND_S
        if self._connection is None:
            return
        if self._here() != self._inode:
            _log.warning("%s was moved or deleted: a new journal begins", self.path)
            with contextlib.suppress(sqlite3.Error):  # else what is in the log only is lost
                self._connection.execute("PRAGMA wal_checkpoint").fetchall()
            self._close()
            self._open()
            return
        if self._damage is not None and self._damage[0] == self._inode:
            damage, self._damage = self._damage[1], None
            self._begin_anew(damage)
            self._open()
            return
        self._leaps.look(self._connection)
        deleted = self._delete(_TOO_OLD, time.time() - self._max_age_s)
        in_use, in_all = self._size_bytes()
        if in_use > self._max_bytes:
            deleted += self._delete(_LEAST_WORTH)
        if in_all > self._max_bytes:
            self._connection.execute("PRAGMA incremental_vacuum(64)").fetchall()
        if deleted or in_all > self._max_bytes:
            self._tend_at = now  # there may be more

    def _mind_file(self) -> None:
        """Move the log into the database now and then: it waits for the disk, commits do not.

        Look for damage too, once a day.
        """
        while not self._over.is_set():
            inode = self._inode
            with (
                contextlib.suppress(sqlite3.Error),
                contextlib.closing(journal_file.connect(self.path, "rw")) as connection,
            ):
                connection.execute("PRAGMA schema_version").fetchall()  # opens its files now
                self._check(inode)
                while not self._over.wait(CHECKPOINT_S) and self._inode == inode:
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                    if time.monotonic() >= self._check_at:
                        self._check(inode)
                continue
            self._over.wait(CHECKPOINT_S)

    def _check(self, inode: int | None) -> None:
        """Check whether the file is damaged; if so, the writer begins a new one."""
        self._check_at = time.monotonic() + CHECK_S
        try:
            with contextlib.closing(journal_file.connect(self.path, "ro")) as connection:
                connection.set_progress_handler(self._over.is_set, INTERRUPTIBLE)
                [found] = connection.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.Error as error:
            found = str(error) if journal_file.damaged(error) else "ok"  # interrupted, say
        if found != "ok":
            self._damage = inode, " ".join(found.split())

    def _delete(self, chosen: str, *values: float) -> int:
        assert self._connection is not None
        with journal_file.transaction(self._connection):
            deleted = self._connection.execute(
                f"DELETE FROM messages WHERE id IN ({chosen})", values
            ).rowcount
            if deleted:
                self._connection.execute(_FORGET_LEAPS)
        return deleted

    def _size_bytes(self) -> tuple[int, int]:
        """Return what is in use, and in all: deleted messages leave room for new ones."""
        pages, free, size = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0]  # type: ignore[union-attr]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size, pages * size

    def _here(self) -> int | None:
        """Return which file is at the journal's path, None where there is none."""
        try:
            return self.path.stat().st_ino
        except OSError:
            return None

    def _open(self) -> sqlite3.Connection:
        self._inode = self._here()  # of what is damaged, should it be
        self._connection = journal_file.writer(self.path)
        self._inode = self._here()
        self._leaps.begin(self._connection)
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    def _said(self, error: Exception) -> str:
        if isinstance(error, JournalError):
            return str(error)
        return f"{getattr(error, 'strerror', None) or error}: {self.path}"


class _Batch:
    """Entries on their way to the writer."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self.problem: str | None = None
        self.done = threading.Event()
