"""An experiment's cells over processes, each of which has a runner of its own."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.pool import IMapIterator
from multiprocessing.process import BaseProcess
from pathlib import Path

from streamtwl.errors import StreamtwlError, UsageError
from streamtwl.paper.cells import Cell
from streamtwl.paper.found import Found
from streamtwl.paper.plan import Plan
from streamtwl.paper.runner import CELLS, Progress, Runner

LOOK_S = 2.0  # at whether the processes are still there
_runner: Runner  # of one of the processes


def run_all(
    work: Sequence[Cell], plan: Plan, out: Path, processes: int, progress: Progress
) -> Iterator[tuple[Cell, Found | StreamtwlError]]:
    """Yield what each cell found, or why it was not run, in this order."""
    runner = Runner(plan, out, progress)
    if processes == 1 or len(work) == 1:
        for done, cell in enumerate(work, 1):
            yield cell, _try(runner, cell)
            progress(CELLS, done, len(work))
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, _begin, (plan, out)) as pool:  # ended with it, also by Ctrl-C
        begun = multiprocessing.active_children()
        each = pool.imap(_run, work)
        for done, cell in enumerate(work, 1):
            yield cell, _next(each, begun)
            progress(CELLS, done, len(work))


def _next(
    each: "IMapIterator[Found | StreamtwlError]", processes: Sequence[BaseProcess]
) -> Found | StreamtwlError:
    """Return what comes next; raises UsageError where a process is gone, which a pool waits for."""
    while True:
        try:
            return each.next(LOOK_S)
        except multiprocessing.TimeoutError:
            if not all(process.is_alive() for process in processes):
                raise UsageError(
                    "a process of the experiment was killed, perhaps as memory ran out: the same "
                    "command goes on where it was, with --processes 1 it takes less"
                ) from None


def _begin(plan: Plan, out: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends all
    threading.Thread(target=_end_with_parent, daemon=True).start()
    global _runner
    _runner = Runner(plan, out, lambda *_: None)


def _end_with_parent() -> None:
    """End where the first process was killed: the next one would train the same cells."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run(cell: Cell) -> Found | StreamtwlError:
    return _try(_runner, cell)


def _try(runner: Runner, cell: Cell) -> Found | StreamtwlError:
    try:
        return runner.run(cell)
    except StreamtwlError as error:
        return error
