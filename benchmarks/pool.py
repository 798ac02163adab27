"""Work in processes, with a bar."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

from rich.progress import Progress

SPAWN = multiprocessing.get_context("spawn")


def run(
    pool: ProcessPoolExecutor, progress: Progress, what: str, tasks: Sequence[Callable[[], Any]]
) -> list[Any]:
    """Return what each task gives, in order; the first failure ends them all."""
    bar = progress.add_task(what, total=len(tasks))
    running = [pool.submit(task) for task in tasks]
    try:
        for done in as_completed(running):
            done.result()
            progress.advance(bar)
        return [each.result() for each in running]
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
