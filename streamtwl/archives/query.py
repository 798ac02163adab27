"""What `streamtwl history` reads of a data set: its events, found by DuckDB where they lie."""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from streamtwl.archives.dataset import JOB
from streamtwl.errors import JournalError, UsageError
from streamtwl.history import LATEST, Wanted
from streamtwl.label_filter import LabelFilter
from streamtwl.messages import Event
from streamtwl.stages import SAMPLE_RATE

_EVENTS = """
SELECT id, file, label, start_s, end_s, peak, mean, source,
       epoch(start_time) AS began, epoch(labelled_at) AS labelled
FROM read_parquet($parts, hive_partitioning = true, union_by_name = true,
                  hive_types = {'day': VARCHAR, 'source': VARCHAR})
WHERE ($source IS NULL OR source = $source)
  AND (day IS NULL OR day BETWEEN $first AND $last)
ORDER BY coalesce(start_time, labelled_at), file, start_s
"""
DAY_S = 86_400.0


def events(path: Path, wanted: Wanted) -> Iterator[Event]:
    """Yield the events that sounded in the time wanted, by onset, as messages.

    Those of recordings without a date are dated by when they were labelled, as in a journal. Only
    the days and sources that are wanted are read. Raises JournalError, UsageError.
    """
    labels = LabelFilter(wanted.labels)
    for row in _rows(path, wanted):
        number, file, label, start_s, end_s, peak, mean, source, began, labelled = row
        end = round(end_s * SAMPLE_RATE)
        event = Event(
            session=file,
            seq=0,
            source=source,
            position=end,
            captured_at=None if began is None else began + (end_s - start_s),
            published_at=labelled,
            id=number,
            phase="offset",
            label=label,
            start=round(start_s * SAMPLE_RATE),
            end=end,
            peak=peak,
            mean=mean,
        )
        onset = labelled if began is None else began
        in_time = onset <= wanted.until and onset + end_s - start_s >= wanted.since
        if in_time and labels.takes(event):
            yield event


def _rows(path: Path, wanted: Wanted) -> Iterator[tuple[Any, ...]]:
    try:
        import duckdb
    except ModuleNotFoundError:
        raise UsageError(f"{path}: pip install 'streamtwl[archive]' reads it") from None
    parts = f"{path}/day=*/source=*/*.parquet"
    if not any(path.glob("day=*/source=*/*.parquet")):
        if not (path / JOB).is_file():
            raise JournalError(f"{path} is no data set of `streamtwl label -o OUT.parquet`")
        return
    asked = {
        "source": None if wanted.source == "*" else wanted.source,
        "first": _day(wanted.since - DAY_S),  # of any zone
        "last": _day(wanted.until + DAY_S),
        "parts": parts,
    }
    with contextlib.closing(duckdb.connect()) as connection:
        try:
            found = connection.execute(_EVENTS, asked)
            while some := found.fetchmany(10_000):
                yield from some
        except duckdb.Error as error:
            raise JournalError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None


def _day(at: float) -> str:
    """Return the day of Unix seconds, of UTC; those beyond what a date can be are its limits."""
    within = min(max(at, 0.0), LATEST)
    return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=within):%Y-%m-%d}"
