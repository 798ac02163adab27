"""Recordings labelled by several processes: one file each at a time, models loaded once in each.

Processes, as most of a hop's time beside the networks is Python's. One that is killed costs the
others nothing: its file is labelled again by another one, and is given up where that ends too.
"""

import contextlib
import logging
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from streamtwl import recordings
from streamtwl.errors import StreamtwlError
from streamtwl.file_names import readable
from streamtwl.label_worker import Job
from streamtwl.labelling import Progress
from streamtwl.results import Labelled

_log = logging.getLogger(__name__)

COMMAND = [sys.executable, "-m", "streamtwl.label_worker"]
POLL_S = 0.2  # so that a stop request comes through
TRIES = 2  # of a file whose process was killed


class Worker:
    """A process, and the file that it has in hand."""

    def __init__(self, job: Job) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            fileno = theirs.fileno()
            self._process = subprocess.Popen([*COMMAND, str(fileno)], pass_fds=[fileno])
        self.connection = Connection(ours.detach())
        self.ready = False
        self.number: int | None = None  # of its file
        self.open: Progress | None = None  # how far it is
        self.send(job)

    def send(self, message: Any) -> None:
        """Send a message; one that is gone shows at the next `wait`."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(message)

    def end(self) -> int:
        """Kill it, if it still runs; return its exit code, less than 0 for a signal."""
        self.connection.close()
        self._process.kill()
        return self._process.wait()

    def ended(self) -> int:
        """Return the exit code of one that closed its connection."""
        self.connection.close()
        return self._process.wait()


class Workers:
    """Labels files with several processes; a context manager, which ends them."""

    def __init__(self, files: Sequence[Path], job: Job, count: int) -> None:
        self._files, self._job = files, job
        self._waiting = deque(
            sorted(range(len(files)), key=lambda i: recordings.size(files[i]), reverse=True)
        )
        self._tries = [0] * len(files)
        self._workers = [Worker(job) for _ in range(count)]

    def __enter__(self) -> "Workers":
        """Wait until one of them is ready; raises its StreamtwlError where it cannot begin."""
        with contextlib.ExitStack() as on_error:
            on_error.push(self.__exit__)
            while not any(worker.ready for worker in self._workers):
                for _ in self._received():  # nothing is done before
                    pass
            on_error.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        for worker in self._workers:
            worker.end()

    @property
    def open(self) -> dict[int, Progress]:
        """Return how far the open files are, by number."""
        return {
            worker.number: worker.open
            for worker in self._workers
            if worker.number is not None and worker.open is not None
        }

    def results(self, watch: Callable[[], bool]) -> Iterator[tuple[int, Labelled]]:
        """Yield (index, result) of each file as it ends, the largest files first.

        Ends early where `watch`, which is called many times a second, returns False. Raises the
        StreamtwlError of a worker.
        """
        while self._workers and watch():
            yield from self._received()

    def _received(self) -> Iterator[tuple[int, Labelled]]:
        ready = wait([worker.connection for worker in self._workers], POLL_S)
        for worker in [each for each in self._workers if each.connection in ready]:
            try:
                message = worker.connection.recv()
            except (EOFError, ConnectionResetError):
                yield from self._without(worker)
            else:
                yield from self._take(worker, *message)

    def _take(self, worker: Worker, what: str, *values: Any) -> Iterator[tuple[int, Labelled]]:
        if what == "wants":
            worker.number = self._waiting.popleft() if self._waiting else None
            worker.send(None if worker.number is None else self._files[worker.number])
        elif what == "open":
            worker.open = Progress(*values)
        elif what == "done":
            assert worker.number is not None
            number, worker.number, worker.open = worker.number, None, None
            yield number, values[0]
        elif what == "said" and (worker.ready or worker is self._workers[0]):
            _log.log(*values)  # what they say while they begin, all of them do
        elif what == "failed":
            raise values[0]
        elif what == "ready":
            worker.ready = True

    def _without(self, worker: Worker) -> Iterator[tuple[int, Labelled]]:
        """Go on without a worker that ended; where it was killed, with the file that it had."""
        code = worker.ended()
        self._workers.remove(worker)
        number = worker.number
        if code == 0 and number is None:
            if self._waiting and not self._workers:  # the file of one that was killed meanwhile
                self._workers.append(Worker(self._job))
            return
        why = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        memory = ": is there too little memory?" if code == -signal.SIGKILL else ""
        if number is not None:
            self._tries[number] += 1
            if self._tries[number] < TRIES:
                self._waiting.appendleft(number)
            else:
                name = readable(str(self._files[number]))
                problem = f"'{name}': the process that labels it ended, {why}{memory}"
                yield number, Labelled(file=name, error=problem)
        if not worker.ready and not self._workers:
            raise StreamtwlError(f"the process that labels ended before it began, {why}{memory}")
        _log.warning("a process that labels ended, %s%s", why, memory)
        # Fewer need less memory
        if self._waiting and worker.ready and (code != -signal.SIGKILL or not self._workers):
            self._workers.append(Worker(self._job))
