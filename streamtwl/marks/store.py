"""Marks on events, in the user's data folder: `marks.sqlite`, which only its owner can read.

A mark holds the event's embeddings itself: it outlives the journal's retention. Each change is one
transaction of SQLite, which other processes wait for.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import msgspec
import numpy as np

from streamtwl import folders
from streamtwl.clips.moments import packed, unpacked
from streamtwl.errors import SoundsError
from streamtwl.sinks import journal_file

Verdict = Literal["right", "wrong"]
MAX_MARKS = 2000  # of 11 KB; more are refused
VERSION = 1

_LAYOUT = """
CREATE TABLE IF NOT EXISTS marks (
    event TEXT PRIMARY KEY, verdict TEXT, label TEXT, was TEXT, source TEXT, began_at REAL,
    recording TEXT, embeddings BLOB
)
"""


class Mark(msgspec.Struct, frozen=True):
    """What the user said of an event."""

    event: str  # its id
    verdict: Verdict
    label: str  # the event's
    was: str = ""  # what it was instead, of a wrong one, if the user said so
    source: str = ""
    began_at: float = 0.0  # Unix seconds
    recording: str = ""  # the file that its clip became in the sounds' store, if any
    embeddings: dict[str, np.ndarray] = {}  # as in `Moment`; none: nothing can be learnt from it


class Marks:
    """Reads and changes the marks; raises SoundsError where that fails."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = folders.data() / "marks.sqlite" if path is None else path

    def all(self) -> list[Mark]:
        """Return the marks, in the order of their making."""
        names = Mark.__struct_fields__
        return [
            Mark(**dict(zip(names, (*row[:-1], unpacked(row[-1])), strict=True)))
            for row in self._rows("*")
        ]

    def verdicts(self) -> dict[str, Verdict]:
        """Return the verdict on each event that is marked."""
        return dict(self._rows("event, verdict"))

    def find(self, event: str) -> Mark | None:
        """Return the mark on an event, None where there is none."""
        return next((mark for mark in self.all() if mark.event == event), None)

    def put(self, mark: Mark) -> None:
        """Keep a mark in place of the one that the event has, if any."""
        with self._open() as connection:
            [count] = connection.execute(
                "SELECT count(*) FROM marks WHERE event != ?", (mark.event,)
            ).fetchone()
            if count >= MAX_MARKS:
                raise SoundsError(
                    f"{MAX_MARKS} events are marked, that is all it takes: take some back with "
                    "`streamtwl review --undo EVENT`"
                )
            values = [getattr(mark, name) for name in mark.__struct_fields__[:-1]]
            connection.execute(
                "INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*values, packed(mark.embeddings)),
            )

    def remove(self, event: str) -> Mark:
        """Take a mark back; return what it was."""
        mark = self.find(event)
        if mark is None:
            raise SoundsError(f"event {event} is not marked: `streamtwl review --list` shows marks")
        with self._open() as connection:
            connection.execute("DELETE FROM marks WHERE event = ?", (event,))
        return mark

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with contextlib.closing(journal_file.connect(self.path, "rwc")) as connection:
                self.path.chmod(0o600)
                with journal_file.transaction(connection):
                    [version] = connection.execute("PRAGMA user_version").fetchone()
                    if version > VERSION:
                        raise SoundsError(f"{self.path} is of a newer version of streamtwl")
                    connection.execute(_LAYOUT)
                    connection.execute(f"PRAGMA user_version = {VERSION}")
                    yield connection
        except (sqlite3.Error, OSError) as error:
            raise self._error(error) from None

    def _rows(self, columns: str) -> list[tuple]:
        if not self.path.exists():
            return []
        try:
            with contextlib.closing(journal_file.connect(self.path, "ro")) as connection:
                rows = connection.execute(f"SELECT {columns} FROM marks ORDER BY rowid").fetchall()
        except sqlite3.Error as error:
            raise self._error(error) from None
        return [row for row in rows if row[1] in get_args(Verdict)]

    def _error(self, error: Exception) -> SoundsError:
        problem = getattr(error, "strerror", None) or error
        return SoundsError(f"cannot read or write {self.path} ({problem}): make room, or remove it")
