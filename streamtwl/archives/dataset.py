"""What a job writes: events as Parquet, partitioned by day and source, and a manifest of files.

    OUT.parquet/
      day=2026-05-14/source=garden/<file>.parquet     the events of one file that began on that day
      _files/<file>.json, <file>.failed.json          its result: the manifest
      _job.json                                       the options, which --resume has to have again

A file's parts have the names that follow from its path, and are complete before the manifest has
it: a file that is labelled twice, as after a lost machine, replaces its own rows.
"""

import hashlib
import io
import os
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import msgspec

from streamtwl.archives.store import Store, is_remote
from streamtwl.errors import UNDECODABLE, UsageError
from streamtwl.file_names import readable
from streamtwl.results import Labelled, Span

if TYPE_CHECKING:
    import pyarrow

FILES, JOB = "_files", "_job.json"
DONE, FAILED = ".json", ".failed.json"
UNKNOWN = "__HIVE_DEFAULT_PARTITION__"  # what readers of partitioned data sets take for null


class Dataset:
    """Takes results one file at a time, in any order, from any number of processes.

    `options` is what the results depend on. Raises UsageError where there is a data set already
    and `resume` is not wanted, or of other options; SinkError where it cannot be written.
    """

    prints = False  # to standard output

    def __init__(self, name: str) -> None:
        self._store = Store(name)
        self.name = name

    def begin(self, options: dict[str, Any], resume: bool) -> None:
        """Make the data set, or check that it can go on."""
        check_pyarrow()
        said = msgspec.json.encode(options, order="sorted")
        before = self._store.get(JOB)
        if before is None and self._store.names():
            raise UsageError(f"-o {self.name} is there and no such data set: name another")
        if before is not None and not resume:
            raise UsageError(f"-o {self.name} is there: --resume goes on with it; or name another")
        if before is not None and before != said:
            raise UsageError(
                f"--resume: {self.name} was made with other options ({_differences(before, said)}):"
                " repeat them, or name another"
            )
        self._store.put(JOB, said)

    def done(self) -> set[str]:
        """Return the ids of the files that have a result without an error."""
        names = self._store.names(FILES)
        return {name[: -len(DONE)] for name in names if DONE in name and FAILED not in name}

    def write(self, file: str, result: Labelled) -> None:
        """Write a file's events, then its line of the manifest."""
        number = file_id(file)
        result.file = readable(file)
        by_day: dict[str, list[tuple[int, Span]]] = defaultdict(list)
        for i, event in enumerate(result.events):
            by_day[event.start_time[:10] if event.start_time else UNKNOWN].append((i, event))
        source = source_of(file)
        for day, events in by_day.items():
            path = f"day={day}/source={source}/{number}.parquet"
            self._store.put(path, _parquet(number, result.file, events))
        entry = msgspec.json.encode(result)
        self._store.put(f"{FILES}/{number}{FAILED if result.error else DONE}", entry)
        if not result.error:
            self._store.remove(f"{FILES}/{number}{FAILED}")


class Writer:
    """A data set as `label` writes one: see `results.Writer`."""

    prints = False

    def __init__(
        self, output: str, files: Sequence[Path], options: dict[str, Any], resume: bool
    ) -> None:
        self._dataset = Dataset(output)
        self._files = [location(str(file)) for file in files]
        self._dataset.begin(options, resume)
        done = self._dataset.done() if resume else set()
        self.missing = [i for i, each in enumerate(self._files) if file_id(each) not in done]

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_error: object) -> None:
        """Do nothing: each result is complete."""

    def write(self, number: int, result: Labelled) -> None:
        """Write the result of file `number`."""
        self._dataset.write(self._files[number], result)


def location(name: str) -> str:
    """Return where a file is: its address, or its whole path."""
    return name if is_remote(name) else os.path.abspath(name)


def file_id(file: str) -> str:
    """Return the name of what is written about a file."""
    return hashlib.sha256(os.fsencode(file)).hexdigest()[:20]


def source_of(file: str) -> str:
    """Return the source that a recording is of: the folder it lies in, as recorders have one each.

    In a-z, 0-9, _ and -, as on the wire.
    """
    folder = PurePosixPath(readable(file)).parent.name
    return re.sub("[^a-z0-9_-]+", "-", folder.lower()).strip("-") or "file"


def _parquet(number: str, file: str, events: list[tuple[int, Span]]) -> bytes:
    from pyarrow import Table, parquet

    written_at = datetime.fromtimestamp(time.time(), UTC)
    rows = [
        {
            "id": f"{number}-{i}",
            "file": file,
            "label": event.label,
            "start_s": event.start_s,
            "end_s": event.end_s,
            "peak": event.peak,
            "mean": event.mean,
            "start_time": _moment(event.start_time),
            "end_time": _moment(event.end_time),
            "labelled_at": written_at,
        }
        for i, event in events
    ]
    made = io.BytesIO()
    table = Table.from_pylist(rows, schema=_schema())
    parquet.write_table(table, made, compression="zstd")
    return made.getvalue()


def _schema() -> "pyarrow.Schema":
    import pyarrow

    text, number = pyarrow.string(), pyarrow.float64()
    moment = pyarrow.timestamp("ms", tz="UTC")
    kinds = {
        **dict.fromkeys(("id", "file", "label"), text),
        **dict.fromkeys(("start_s", "end_s", "peak", "mean"), number),
        **dict.fromkeys(("start_time", "end_time", "labelled_at"), moment),
    }
    return pyarrow.schema(list(kinds.items()))


def _moment(said: object) -> datetime | None:
    return datetime.fromisoformat(said) if isinstance(said, str) else None


def _differences(before: bytes, now: bytes) -> str:
    try:
        old, new = (msgspec.json.decode(each, type=dict[str, Any]) for each in (before, now))
    except UNDECODABLE:
        return "unreadable"
    differ = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    return ", ".join(f"{name}: {old.get(name)}" for name in differ)[:300]


def check_pyarrow() -> None:
    """Raise UsageError where Parquet cannot be written."""
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError:
        raise UsageError(
            "results as .parquet: pip install 'streamtwl[archive]' writes them"
        ) from None
