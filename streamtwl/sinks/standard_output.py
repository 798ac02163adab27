"""Standard output that is closed, full or gone: an error in one line, not a traceback."""

import contextlib
import errno
import io
import os
import select
import sys
from typing import Any

from streamtwl.errors import SinkError

STDIN, STDOUT, STDERR = range(3)


def take_over() -> None:
    """Raise SinkError where writing to standard output fails.

    A reader that goes away while we write remains a BrokenPipeError, as it wants no more. Closed
    descriptors are opened again, so that no file or socket gets their numbers.
    """
    has_reader = _is_open(STDOUT) and not _hung_up(STDOUT)
    for descriptor in (STDIN, STDOUT, STDERR):
        if not _is_open(descriptor):  # the lowest that is free is the one that opens
            os.open(os.devnull, os.O_WRONLY if descriptor == STDERR else os.O_RDONLY)
    if not has_reader:
        _redirect_stdout(os.O_RDONLY)  # where a write fails
    if sys.stderr is None:  # print would take standard output
        sys.stderr = io.TextIOWrapper(io.FileIO(STDERR, "w", closefd=False), line_buffering=True)
    if sys.stdout is sys.__stdout__:  # else a program that calls us has put its own there
        before = sys.stdout
        if before is not None and has_reader:
            with contextlib.suppress(OSError):  # full: said when we write
                before.flush()  # what was printed before us comes first
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_Stdout(STDOUT, "w", closefd=False)),
            encoding=before.encoding if before else None,  # it is None where it was closed
            errors=before.errors if before else None,
            line_buffering=bool(before and before.line_buffering),
            write_through=bool(before and before.write_through),
        )


def print_line(line: str) -> bool:
    """Print a line; return False where its reader has gone."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        silence_stdout()
        return False
    return True


def silence_stdout() -> None:
    """Discard what is still to be printed: its reader has gone."""
    _redirect_stdout(os.O_WRONLY)


def flush_stdout() -> None:
    """Write what is buffered; if that fails, write no more. Raises SinkError, BrokenPipeError.

    Typer hides a reader that has gone. From Python 3.13 on, what is then still buffered would be
    said to fail when the interpreter ends.
    """
    try:
        sys.stdout.flush()
        gone = _hung_up(STDOUT)
    except (BrokenPipeError, SinkError):
        silence_stdout()
        raise
    if gone:
        silence_stdout()


class _Stdout(io.FileIO):
    def write(self, text: Any, /) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            raise
        except OSError as error:
            closed = error.errno == errno.EBADF
            problem = "it is closed, or has no reader" if closed else error.strerror
            raise SinkError(f"cannot write to standard output: {problem}") from None


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _hung_up(descriptor: int) -> bool:
    """Return whether a pipe has no reader (any more)."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _redirect_stdout(how: int) -> None:
    nowhere = os.open(os.devnull, how)
    os.dup2(nowhere, STDOUT)
    os.close(nowhere)
