"""Progress on standard error: bars where that is a terminal, else a line now and then."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

LINE_EVERY_S = 60.0  # in a log


@contextlib.contextmanager
def bars(stages: Sequence[str]) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar for each stage; give what moves them: (stage, done, of).

    In a log the stage that moves is a line a minute.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(console)
        return
    with _progress(MofNCompleteColumn(), TimeRemainingColumn()) as progress:
        tasks = {stage: progress.add_task(stage, total=None) for stage in stages}
        yield lambda stage, done, of: progress.update(tasks[stage], completed=done, total=of)


def _lines(console: Console) -> Callable[[str, int, int], None]:
    said_at = time.monotonic()

    def advance(stage: str, done: int, of: int) -> None:
        nonlocal said_at
        if time.monotonic() - said_at >= LINE_EVERY_S:
            said_at = time.monotonic()
            console.print(f"{stage}: {done} of {of}", highlight=False)

    return advance


def download() -> Progress:
    """Return the progress of downloads, each a task with a total in bytes."""
    return _progress(DownloadColumn())


def _progress(*columns: ProgressColumn) -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        console=console,
        disable=not console.is_terminal,  # a log has no use for a bar
    )
