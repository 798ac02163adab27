"""A process that labels recordings, one after another, for `label_workers.py`.

    python -m streamtwl.label_worker FILENO

Messages on the connection are tuples, by their first word. From it: `ready`; `wants` a file;
`open`, its name, how many seconds are done and how long it is; `done`, its result; `said`, a line
of its log; `failed`, an error that ends the batch. To it, at first its `Job`, then files, then
None.
"""

import logging
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from streamtwl.audio.addresses import source_name
from streamtwl.audio.intake import Stream
from streamtwl.config import Settings
from streamtwl.errors import StreamtwlError
from streamtwl.labelling import AHEAD, label_files, progress
from streamtwl.pipeline import build

EVERY_S = 0.2  # between two messages of how far it is


@dataclass(frozen=True)
class Job:
    """What a worker needs to know before the first file."""

    settings: Settings
    channel: int | None  # from 1; None: the mix
    threads: int  # that score windows
    log_level: int


class _Said(logging.Handler):
    """Sends what is logged."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    def emit(self, record: logging.LogRecord) -> None:
        """Send one line."""
        self._connection.send(("said", record.levelno, record.getMessage()))


def work(connection: Connection) -> None:
    """Label what comes until None comes."""
    job: Job = connection.recv()
    logging.basicConfig(level=job.log_level, handlers=[_Said(connection)])
    names: list[str] = []  # of the files so far; the pipeline's streams are these
    sent_at = 0.0

    def files() -> Iterator[Path]:
        while True:
            connection.send(("wants",))
            path: Path | None = connection.recv()
            if path is None:
                return
            names.append(source_name(path))
            yield path

    def watch(streams: list[Stream]) -> bool:
        nonlocal sent_at
        if streams and time.monotonic() >= sent_at + EVERY_S:
            sent_at = time.monotonic()
            connection.send(("open", *progress(streams[0])))
        return True

    pipeline = build(job.settings, names, ahead=AHEAD, threads=job.threads)
    connection.send(("ready",))
    for _, result in label_files(files(), pipeline, job.channel, width=1, watch=watch):
        connection.send(("done", result))


def main() -> None:
    """Label files until there are no more, or the process that wants them is gone."""
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal's are for the process that waits
        signal.signal(number, signal.SIG_IGN)
    with Connection(int(sys.argv[1])) as connection:
        try:
            work(connection)
        except StreamtwlError as error:
            connection.send(("failed", error))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            sys.exit(1)


if __name__ == "__main__":
    main()
