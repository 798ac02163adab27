"""Each event's embeddings, and where its clip is: an SQLite file beside the journal.

    journal.sqlite             what sounded when
    journal-moments.sqlite     of each event a few hops' embeddings, and the name of its clip
    FOLDER/EVENT.flac          the clip, where `listen --clips FOLDER` keeps any

An event's id leads to both (`find`). What the journal no longer holds is not kept here.
"""

import contextlib
import io
import re
import sqlite3
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from streamtwl.errors import DamagedJournal, JournalError
from streamtwl.messages import Event, topic
from streamtwl.sinks import journal_file

MAX_MOMENTS = 3000  # of 11 KB; the newest are kept
EVENT_ID = re.compile(r"[0-9a-f]{16}-[a-z0-9_-]{1,100}-[0-9]{1,12}")
SETTLED_S = 300.0  # after which the journal has an event, if it ever will

_LAYOUT = """
CREATE TABLE IF NOT EXISTS moments (
    event TEXT PRIMARY KEY, session TEXT, topic TEXT, seq INTEGER, at REAL, clip TEXT,
    embeddings BLOB
)
"""
_ADD = "INSERT OR REPLACE INTO moments VALUES (?, ?, ?, ?, ?, ?, ?)"
_FIND = "SELECT clip, embeddings FROM moments WHERE event = ?"
_OLDEST = "SELECT event FROM moments ORDER BY at DESC LIMIT -1 OFFSET ?"
_IN_JOURNAL = """
SELECT 1 FROM messages JOIN streams ON streams.id = stream
WHERE session = ? AND topic = ? AND seq = ?
"""


@dataclass(frozen=True)
class Moment:
    """What is kept of an event."""

    event: str
    clip: Path | None  # None: there is none, or no more
    embeddings: dict[str, np.ndarray] = field(default_factory=dict)  # by window and weights
    # (`named`): float32[n, D], the same n hops


def named(window: str, sha256: str) -> str:
    """Return the name of a window's embeddings, by which other weights' are not taken for them."""
    return f"{window}@{sha256[:8]}"


class Moments:
    """Writes that file; all it does may raise sqlite3.Error. One connection, for one thread."""

    def __init__(self, journal: Path) -> None:
        """`journal` is the journal that it belongs to; neither has to exist. Raises OSError.

        A damaged file is set aside, and a new one begins.
        """
        self.journal, self.path = journal, path_of(journal)
        journal.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._connection = _writer(self.path)
        except sqlite3.Error as error:
            if not journal_file.damaged(error):
                raise
            journal_file.set_aside(self.path)
            self._connection = _writer(self.path)

    def add(
        self, event: Event, at: float, clip: Path | None, embeddings: Mapping[str, np.ndarray]
    ) -> None:
        """Keep an event; `at` is Unix seconds, `embeddings` as in `Moment`."""
        key = (event.session, topic(Event, event.source), event.seq)
        where = None if clip is None else str(clip)
        self._connection.execute(_ADD, (event.id, *key, at, where, packed(embeddings)))

    def find(self, event: str) -> Moment | None:
        """Return what is kept of an event; None where that is nothing."""
        return _found(self._connection, event)

    def forget(self, event: str) -> None:
        """Delete an event's embeddings and its clip; raises OSError."""
        row = self._connection.execute(_FIND, (event,)).fetchone()
        if row is not None and row[0] is not None:
            Path(row[0]).unlink(missing_ok=True)
        self._connection.execute("DELETE FROM moments WHERE event = ?", (event,))

    def sweep(self, now: float) -> int:
        """Forget what the journal deleted, and the oldest of too many; return how many those were.

        Raises OSError.
        """
        gone = [event for (event,) in self._connection.execute(_OLDEST, (MAX_MOMENTS,))]
        with contextlib.suppress(JournalError):  # it cannot be read at the moment
            gone += self._not_in_journal(now)
        for event in gone:
            self.forget(event)
        return len(gone)

    def close(self) -> None:
        """Release the file."""
        self._connection.close()

    def _not_in_journal(self, now: float) -> list[str]:
        rows = self._connection.execute(
            "SELECT event, session, topic, seq FROM moments WHERE at < ?", (now - SETTLED_S,)
        ).fetchall()
        if not rows or not self.journal.is_file():
            return [event for event, *_ in rows]
        try:
            with contextlib.closing(journal_file.reader(self.journal)) as journal:
                return [
                    event
                    for event, *key in rows
                    if journal.execute(_IN_JOURNAL, key).fetchone() is None
                ]
        except (sqlite3.Error, DamagedJournal):
            return []


def path_of(journal: Path) -> Path:
    """Return where the moments of a journal's events are."""
    return journal.with_name(f"{journal.stem}-moments.sqlite")


def find(journal: Path, event: str) -> Moment:
    """Return what is kept of an event, also while a listener writes; raises JournalError."""
    with _reader(journal) as connection:
        return (connection and _found(connection, event)) or Moment(event, None)


def with_clips(journal: Path, events: Sequence[str]) -> set[str]:
    """Return those of some events that have a clip; raises JournalError."""
    query = f"SELECT event, clip FROM moments WHERE event IN ({', '.join('?' * len(events))})"
    with _reader(journal) as connection:
        rows = connection.execute(query, events).fetchall() if connection else []
    return {event for event, clip in rows if clip is not None and Path(clip).is_file()}


@contextlib.contextmanager
def _reader(journal: Path) -> Iterator[sqlite3.Connection | None]:
    path = path_of(journal)
    if not path.is_file():
        yield None
        return
    try:
        with contextlib.closing(journal_file.connect(path, "ro")) as connection:
            yield connection
    except sqlite3.Error as error:
        raise JournalError(f"cannot read {path} ({error}): remove it, a new one begins") from None


def _found(connection: sqlite3.Connection, event: str) -> Moment | None:
    row = connection.execute(_FIND, (event,)).fetchone()
    if row is None:
        return None
    clip = None if row[0] is None else Path(row[0])
    return Moment(event, clip if clip and clip.is_file() else None, unpacked(row[1]))


def _writer(path: Path) -> sqlite3.Connection:
    connection = journal_file.connect(path, "rwc")
    try:
        journal_file.log_ahead(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(_LAYOUT)
        connection.execute("SELECT event, clip FROM moments LIMIT 1").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def clip_path(folder: Path, event: str) -> Path | None:
    """Return where an event's clip is in a folder; None for what is no id of an event."""
    return folder / f"{event}.flac" if EVENT_ID.fullmatch(event) else None


def write_clip(path: Path, flac: bytes) -> None:
    """Write a clip that only its owner can read, whole or not at all; raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
        scratch = Path(file.name)  # of mode 0600
        try:
            file.write(flac)
            file.flush()
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)


def bound(folder: Path, now: float, max_age_s: float, max_bytes: float) -> int:
    """Delete clips that are too old, and the oldest of too much; return how many those were."""
    clips = []
    for path in folder.glob("*.flac"):
        if EVENT_ID.fullmatch(path.stem):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                clips.append((status.st_mtime, status.st_size, path))
    deleted, total = 0, 0
    for modified, size, path in sorted(clips, reverse=True):
        total += size
        if total > max_bytes or modified < now - max_age_s:
            path.unlink(missing_ok=True)
            deleted += 1
    return deleted


def packed(embeddings: Mapping[str, np.ndarray]) -> bytes:
    """Return embeddings by name as bytes."""
    file = io.BytesIO()
    half: dict[str, Any] = {name: each.astype(np.float16) for name, each in embeddings.items()}
    np.savez(file, **half)
    return file.getvalue()


def unpacked(blob: bytes) -> dict[str, np.ndarray]:
    """Return the embeddings in such bytes, float32[n, D] by name; none where they are damaged."""
    try:
        with np.load(io.BytesIO(blob), allow_pickle=False) as arrays:
            return {name: arrays[name].astype(np.float32) for name in arrays.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}
