"""The thread of the display: standard output may block, and must block nothing else."""

import contextlib
import logging
import select
import signal
import sys
import threading
import time
from typing import Protocol

from streamtwl.errors import SinkError
from streamtwl.messages import AnyMessage
from streamtwl.sinks.standard_output import silence_stdout
from streamtwl.stages import Sink

_log = logging.getLogger(__name__)

GRACE_S = 2.0  # for what is still to be shown at the end


class View(Protocol):
    """A display: `take` runs on the worker's thread, the rest on the screen's."""

    gone: bool  # no one watches any more: `take` must not wait
    every_s: float | None  # between two calls of `show`; None: when there is a message

    def take(self, message: AnyMessage) -> None:
        """Take a message; must not block in real time."""
        ...

    def show(self) -> None:
        """Show what was taken since the last call."""
        ...

    def __enter__(self) -> "View":
        """Begin to show."""
        ...

    def __exit__(self, *_error: object) -> None:
        """Leave the terminal as it was."""
        ...


class Screen(Sink):
    """Shows messages in a view until it is closed, or no one watches any more."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.problem: SinkError | None = None  # why it could not show more
        self._over = threading.Event()
        self._taken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="screen", daemon=True)
        self._thread.start()

    def emit(self, message: AnyMessage) -> None:
        """Hand a message to the view."""
        self.view.take(message)
        self._taken.set()

    def close(self) -> None:
        """Show the rest. If that does not end, our reader is stuck: end without it."""
        self._over.set()
        self._taken.set()
        self._thread.join(GRACE_S)
        if self._thread.is_alive():
            silence_stdout()
            self._interrupt()
            if select.select([], [sys.stderr], [], 0)[1]:  # else it is stuck with the same reader
                _log.warning("standard output is not read: the last messages were not shown")

    def _interrupt(self) -> None:
        """Interrupt a write under way, so that Python retries it (PEP 475), then to /dev/null.

        The interpreter cannot end while another thread is in a write: it wants the buffer's lock.
        """
        before = signal.signal(signal.SIGUSR1, lambda *_: None)
        until = time.monotonic() + GRACE_S
        while self._thread.is_alive() and time.monotonic() < until:
            assert self._thread.ident is not None
            with contextlib.suppress(ProcessLookupError):
                signal.pthread_kill(self._thread.ident, signal.SIGUSR1)
            self._thread.join(0.1)
        signal.signal(signal.SIGUSR1, before)

    def _run(self) -> None:
        try:
            with self.view:
                while not self._waited() and not self.view.gone:
                    self.view.show()
                self.view.show()
        except BrokenPipeError:
            silence_stdout()
        except SinkError as error:
            silence_stdout()
            self.problem = error
        finally:
            self.view.gone = True

    def _waited(self) -> bool:
        """Wait until there is something to show; return True once the screen is closed."""
        if self.view.every_s is not None:
            return self._over.wait(self.view.every_s)
        self._taken.wait()
        self._taken.clear()
        return self._over.is_set()
