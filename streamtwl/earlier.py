"""Results of an earlier run: which are complete, so that a batch can continue after them."""

import csv
import io
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import UNSET, UnsetType

from streamtwl.errors import UNDECODABLE, UsageError

COLUMNS = ["file", "label", "start_s", "end_s", "peak", "mean", "error"]
DATES = ["start_time", "end_time"]
LABEL, ERROR = COLUMNS.index("label"), COLUMNS.index("error")


class _Result(msgspec.Struct):
    """The fields of a JSON result that are needed here."""

    file: str
    events: list[msgspec.Raw]
    error: str | None
    start_time: str | UnsetType | None = UNSET


def columns(dated: bool) -> list[str]:
    """Return the columns of a CSV file; with the wall clock's last, where there is one."""
    return [*COLUMNS, *DATES] if dated else COLUMNS


def csv_text(rows: Iterable[Iterable], delimiter: str = ",") -> str:
    """Return rows as CSV."""
    text = io.StringIO(newline="")
    minimal = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    quoted = csv.writer(text, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        fields = ["" if field is None else str(field) for field in row]
        writer = quoted if any("\r" in field for field in fields) else minimal  # it forgets \r
        writer.writerow(fields)
    return text.getvalue()


def keep_whole(output: Path, form: str, dated: bool) -> set[str]:
    """Take half-written and failed results out of a file; return which files keep theirs.

    Raises UsageError where the file is not one of results, or of results with other columns.
    """
    if not output.exists():
        return set()
    output = output.resolve()
    if not output.is_file():
        raise UsageError(f"--resume: {output} is not a file that can be read again")
    part = output.with_name(f"{output.name}.part")
    kept: set[str] = set()
    try:
        with output.open("rb") as old, part.open("wb") as new:
            if form == "csv":
                new.write(csv_text([columns(dated)]).encode())
            read = _json_results if form == "jsonl" else _csv_results
            for file, text in read(old, output, dated):
                if file not in kept:
                    new.write(text)
                kept.add(file)
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)
    return kept


def is_whole(track: Path, form: str, file: str, dated: bool) -> bool:
    """Whether a result file of its own holds this file's result, and no error."""
    try:
        if form == "jsonl":
            result = msgspec.json.decode(track.read_bytes(), type=_Result)
            same = (result.start_time is not UNSET) == dated
            return same and (result.file, result.error) == (file, None)
        with track.open(encoding="utf-8", newline="") as text:
            header, *rows = csv.reader(text)
    except (OSError, ValueError, csv.Error, *UNDECODABLE):  # absent, or not ours
        return False
    mine = [row[0] == file and not row[ERROR] for row in rows if len(row) == len(header)]
    return header == columns(dated) and len(mine) == len(rows) > 0 and all(mine)


def _json_results(old: BinaryIO, output: Path, dated: bool) -> Iterator[tuple[str, bytes]]:
    for number, line in enumerate(old, 1):
        try:
            result = msgspec.json.decode(line, type=_Result)
        except UNDECODABLE:
            if not line.endswith(b"\n"):
                return  # it was stopped while it wrote this one, the last
            raise _not_ours(output, f"line {number} is no result") from None
        if (result.start_time is not UNSET) != dated:
            raise _not_ours(output, f"it was made with{'' if not dated else 'out'} --clock")
        if result.error is None:
            yield result.file, line.rstrip(b"\n") + b"\n"


def _csv_results(old: BinaryIO, output: Path, dated: bool) -> Iterator[tuple[str, bytes]]:
    """Yield each file's rows, without the last file if it has events: some may be missing."""
    try:
        rows = _whole_rows(old, output, columns(dated))
        last: list[list[str]] = []
        for _, group in itertools.groupby(rows, key=lambda row: row[0]):
            if last and not any(row[ERROR] for row in last):
                yield last[0][0], csv_text(last).encode()
            last = list(group)
    except csv.Error as error:
        raise _not_ours(output, str(error)) from None
    if last and not any(row[LABEL] or row[ERROR] for row in last):
        yield last[0][0], csv_text(last).encode()


def _whole_rows(old: BinaryIO, output: Path, header: list[str]) -> Iterator[list[str]]:
    """Yield the rows below the header, without a last one that was cut off."""
    size = old.seek(0, os.SEEK_END)
    old.seek(max(0, size - 1))
    terminated = old.read() == b"\n"
    old.seek(0)
    reader = csv.reader(io.TextIOWrapper(old, "utf-8", errors="replace", newline=""))
    first = next(reader, None)
    if first != header and (terminated or reader.line_num > 1):
        raise _not_ours(output, f"its columns are not {','.join(header)}")
    following = next(reader, None)
    while following is not None:
        row, following = following, next(reader, None)
        if len(row) == len(header) and (following is not None or terminated):
            yield row
        elif following is not None:
            raise _not_ours(output, f"'{','.join(row)}' is no result")


def _not_ours(output: Path, problem: str) -> UsageError:
    return UsageError(
        f"--resume: {output} is not of such a run, {problem}: name another file with -o, or leave "
        "--resume out and lose it"
    )
