"""`streamtwl serve` beside a listener: started with it, again where it fails, ended with it."""

import contextlib
import logging
import select
import subprocess
import sys
import threading
import time
from collections import deque
from typing import IO

import msgspec

from streamtwl.audio.back_off import BACK_OFF_S
from streamtwl.config import ServicesSettings
from streamtwl.errors import StreamtwlError, UsageError
from streamtwl.services.server import DRAIN_S, FLUSH_S, READY, Listener

_log = logging.getLogger(__name__)

COMMAND = [sys.executable, "-m", "streamtwl", "serve", "--child"]
END_S = DRAIN_S + 2 * FLUSH_S + 1.0  # after which it is killed
READY_S = 60.0  # from its start, in which it imports what it needs
CALM_S = 60.0  # one that ran for so long has recovered


class Child:
    """The process of the services; it lives as long as its standard input is open.

    Nothing of ours waits for it but `connect` and `close`. What it logs is logged here.
    """

    def __init__(self, settings: ServicesSettings, log_level: str) -> None:
        """Start it; it takes a while, as a microphone does."""
        self._settings = msgspec.json.encode(settings) + b"\n"
        self._command = [*COMMAND, "--log-level", log_level]
        self._listener = b""
        self._said: deque[str] = deque(maxlen=1)  # its newest line
        self._failures = 0
        self._again_at: float | None = None  # monotonic, when it is started again
        self._start()

    def connect(self, listener: Listener) -> None:
        """Have it subscribe; raises UsageError where the services cannot be as they are wanted."""
        self._listener = msgspec.json.encode(listener) + b"\n"
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], READY_S)[0]:
            self._process.kill()
        if self._process.stdout.readline() != READY:
            code = self._process.wait()
            self._logging.join()
            why = self._why(code)
            raise UsageError(why) if code == UsageError.exit_code else StreamtwlError(why)
        self._send(self._listener)
        # one that is started again knows where it was, or begins there and then
        self._listener = msgspec.json.encode(msgspec.structs.replace(listener, topics=[])) + b"\n"

    def watch(self) -> None:
        """Start it again, after a while, where it has ended; never blocks."""
        now = time.monotonic()
        if self._again_at is None and self._process.poll() is not None:
            self._failures = 0 if now > self._started_at + CALM_S else self._failures
            if not self._failures:
                why = self._why(self._process.returncode)
                _log.warning("the services ended and are started again: %s", why)
            self._again_at = now + BACK_OFF_S[min(self._failures, len(BACK_OFF_S) - 1)]
            self._failures += 1
        if self._again_at is not None and now >= self._again_at:
            self._again_at = None
            try:
                self._start()
            except OSError as error:  # no memory or no process to be had: later, perhaps
                _log.info("the services cannot be started: %s", error)
                return
            self._send(self._listener)

    def close(self) -> None:
        """End it; it still serves what was published, for a few seconds at most."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin and self._process.stdin.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            _log.warning("the services did not end in %g s: they are killed", END_S)
            self._process.kill()
            self._process.wait()
        self._logging.join(1.0)

    def _why(self, code: int) -> str:
        """Return why it has ended: the last that it said."""
        return self._said[-1].removeprefix("streamtwl: ") if self._said else f"exit code {code}"

    def _start(self) -> None:
        self._started_at = time.monotonic()
        self._said.clear()
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self._process.stderr is not None
        self._logging = threading.Thread(
            target=_pass_on, args=(self._process.stderr, self._said), daemon=True
        )
        self._logging.start()
        self._send(self._settings)

    def _send(self, line: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: `watch` sees that
            self._process.stdin.write(line)
            self._process.stdin.flush()


def _pass_on(lines: IO[bytes], said: deque[str]) -> None:
    """Log what the child says."""
    with lines:
        for line in lines:
            if text := line.decode(errors="replace").strip():
                said.append(text)
                if not text.startswith("streamtwl: "):  # the reason for its end: see `watch`
                    _log.warning("%s", text)
