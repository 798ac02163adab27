"""Progress bars on standard error, where that is a terminal."""

import contextlib
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


@contextlib.contextmanager
def bars(stages: Sequence[str]) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar for each stage; give what moves them: (stage, done, of)."""
    with _progress(MofNCompleteColumn(), TimeRemainingColumn()) as progress:
        tasks = {stage: progress.add_task(stage, total=None) for stage in stages}
        yield lambda stage, done, of: progress.update(tasks[stage], completed=done, total=of)


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
