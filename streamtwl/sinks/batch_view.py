"""The progress of a batch: a bar for all of it, and one for each long file that is open."""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from streamtwl.file_names import one_line

if TYPE_CHECKING:
    from streamtwl.labelling import Progress as Open

EVERY_S = 0.2  # between two updates
LONG_S = 300.0  # a file of more sound than this gets a bar of its own


class BatchView:
    """Shows the progress of the files on standard error, if that is a terminal.

    Results that are printed on the same terminal are printed above the bars.
    """

    def __init__(self, total: int, printing: bool) -> None:
        """`printing`: results go to standard output."""
        console = Console(stderr=True)
        self._total = total
        self._above = printing and sys.stdout.isatty()
        self._progress = Progress(
            TextColumn(
                "{task.description}",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis", max_width=40),
            ),
            BarColumn(),
            TextColumn("{task.fields[done]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not sys.stderr.isatty(),
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._ended = 0
        self._all = self._progress.add_task("all files", total=total, done=f"0 of {total}")
        self._long: dict[int, TaskID] = {}  # by the file's number
        self._next_at = 0.0  # monotonic

    def __enter__(self) -> "BatchView":
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def end(self) -> None:
        """Count a file that has ended."""
        self._ended += 1

    @property
    def due(self) -> bool:
        """Whether `update` would show something new."""
        return not self._progress.disable and time.monotonic() >= self._next_at

    def update(self, files: "Mapping[int, Open]") -> None:
        """Show how far the open files are, by number."""
        self._next_at = time.monotonic() + EVERY_S
        for number in self._long.keys() - files.keys():
            self._progress.remove_task(self._long.pop(number))
        shares = [self._share(*each) for each in files.items()]
        self._progress.update(
            self._all,
            completed=self._ended + sum(shares),
            done=f"{self._ended} of {self._total}",
        )

    def say(self, line: str) -> None:
        """Print one line on standard error."""
        self._progress.console.print(
            f"streamtwl: {one_line(line)}", markup=False, highlight=False, soft_wrap=True
        )

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Take the bars away while a result is printed where they are."""
        if self._above:
            self._progress.stop()
        yield
        if self._above:
            self._progress.start()

    def _share(self, number: int, file: "Open") -> float:
        """Return the share of a file that is done, 0 if unknown; show that of a long file."""
        done_s = file.done_s
        total_s = max(file.total_s, done_s) if file.total_s else 0.0
        if max(total_s, done_s) > LONG_S:
            if number not in self._long:
                name = one_line(file.name)
                self._long[number] = self._progress.add_task(name, total=None, done="")
            of = f" of {_spelled(total_s)}" if total_s else ""
            self._progress.update(
                self._long[number],
                total=total_s or None,
                completed=done_s,
                done=f"{_spelled(done_s)}{of}",
            )
        return done_s / total_s if total_s else 0.0


class SayAbove(logging.Handler):
    """Log lines above the bars instead of through them."""

    def __init__(self, view: BatchView) -> None:
        super().__init__()
        self._view = view

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        self._view.say(self.format(record))


def _spelled(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
