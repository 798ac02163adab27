"""Microphones, each in a process of its own (see `capture.py`), opened again when they fail."""

import contextlib
import fcntl
import json
import logging
import os
import subprocess
import sys
import time
from collections import deque

import numpy as np

from streamtwl.audio import capture
from streamtwl.audio.back_off import BACK_OFF_S
from streamtwl.errors import DeviceError
from streamtwl.stages import SAMPLE_RATE, Chunk, Source

_log = logging.getLogger(__name__)

OPENING_GRACE_S = 5.0
SILENT_DEVICE_S = 2.0  # without a callback
STOP_GRACE_S = 1.0
KILL_GRACE_S = 0.5
LISTING_GRACE_S = 10.0
STDERR_LINES_PER_MINUTE = 5
PIPE_BYTES = 1 << 20
REOPENING_S = 0.7  # of sound, to date its beginning: the first chunks come late and in bursts
REOPENING_CHUNKS = 18  # at least as much sound


def list_inputs() -> list[dict]:
    """Return PortAudio's inputs (`capture.list_inputs`); raises DeviceError without PortAudio."""
    command = [sys.executable, "-m", capture.__name__, "list"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=LISTING_GRACE_S)
    except subprocess.TimeoutExpired:
        raise DeviceError(
            f"PortAudio did not list its devices within {LISTING_GRACE_S:g} s: "
            "is the sound server stuck?"
        ) from None
    if listed.returncode:
        raise DeviceError(_reason(listed.stderr))
    return json.loads(listed.stdout)


class Microphone(Source):
    """One input device; `device` is "" for the default, an index, or a name or part of one.

    The first opening raises DeviceError; after that, a device that is silent for 2 s or disappears
    is `lost` and opened again with back-off, by its name, its timeline going on by the clock.
    """

    live = True

    def __init__(self, name: str, device: str = "", channel: int | None = None) -> None:
        super().__init__(name, paced=True, clocked=True, channel=channel)
        self._wanted = device
        self._child: subprocess.Popen[bytes] | None = None
        self._opening: dict | None = None  # what the child said: rate, channels, device
        self._received = bytearray()
        self._opened_at: int | None = None  # stream position at which this opening began
        # Position last received, when it came (monotonic)
        self._last: tuple[int, float] | None = None
        # When frame 0 came (monotonic), by each of the newest chunks. The stream's clock is no help
        # over a gap: ALSA's ages, which it subtracts, are wrong for an opening's first chunks.
        self._began: deque[float] = deque(maxlen=REOPENING_CHUNKS)
        self._newest: tuple[int, float] | None = None  # frames received, when the last of them came
        self._alive_at = 0.0  # monotonic, of the last sign of life
        self._retry_at = 0.0
        self._failures = 0
        self._stopping = False
        self._complaints = _Complaints(name)

    def start(self) -> None:
        """Start the capture process; that takes a while, its failure shows in `read`."""
        self._spawn(time.monotonic())

    def filenos(self) -> list[int]:
        """The capture process's output and complaints."""
        if self._child is None:
            return []
        return [self._child.stdout.fileno(), self._child.stderr.fileno()]  # type: ignore[union-attr]

    def due_in(self, now: float) -> float:
        """Seconds until the device counts as silent, or is to be opened again."""
        if self._child is None:
            return max(0.0, self._retry_at - now)
        return max(0.0, self._alive_at + self._patience_s() - now)

    def read(self, now: float) -> Chunk | None:
        """Return what came since the last call; raises DeviceError if the first opening fails."""
        if self.state == "ended":
            return None
        if self._child is None:
            if now >= self._retry_at:
                self._spawn(now)
            return None
        self._complaints.read(self._child.stderr.fileno())  # type: ignore[union-attr]
        over = self._receive()
        chunk = self._take_chunk()
        if chunk is not None:
            self._alive_at, self._failures = now, 0
            self.state, self.error = "listening", None
        elif over or now >= self._alive_at + self._patience_s() or self._follows_silence(0):
            self._lose(now, over)
        return chunk

    def stop(self) -> None:
        """Ask the capture process to hand over what it has and end."""
        self._stopping = True
        if self._child is None:
            self.state = "ended"
        else:
            self._child.stdin.close()  # type: ignore[union-attr]
            self._alive_at = time.monotonic()

    def close(self) -> None:
        """End the capture process."""
        if self._child is not None:
            self._child.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in its driver
                self._child.wait(KILL_GRACE_S)
            for pipe in (self._child.stdin, self._child.stdout, self._child.stderr):
                pipe.close()  # type: ignore[union-attr]
            self._child = None

    def _patience_s(self) -> float:
        if self._stopping:
            return STOP_GRACE_S
        return SILENT_DEVICE_S if self.state == "listening" else OPENING_GRACE_S

    def _spawn(self, now: float) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", capture.__name__, "open", self._wanted],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for pipe in (self._child.stdout, self._child.stderr):
            os.set_blocking(pipe.fileno(), False)  # type: ignore[union-attr]
        # Room for what comes between two windows, where the system allows it (Linux only).
        with contextlib.suppress(OSError, AttributeError):
            fcntl.fcntl(self._child.stdout.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)  # type: ignore[union-attr]
        self._opening = self._opened_at = self._newest = None
        self._received.clear()
        self._began.clear()
        self._alive_at = now
        self._overflows_before = self.overflows

    def _receive(self) -> bool:
        """Read what the pipe holds; return whether the process has closed it."""
        try:
            received = os.read(self._child.stdout.fileno(), PIPE_BYTES)  # type: ignore[union-attr]
        except BlockingIOError:
            return False
        self._received += received
        return not received

    def _follows_silence(self, taken: int) -> bool:
        """Whether the device was silent before the chunk at byte `taken`, and its frames join on.

        This happens unnoticed when both the capture process and this one were stopped.
        """
        if self._newest is None or len(self._received) < taken + capture.HEADER.size:
            return False
        position, count, _, came_at, _ = capture.HEADER.unpack_from(self._received, taken)
        frames, at = self._newest
        sound_s = (position + count - frames) / self._opening["rate"]  # type: ignore[index]
        return came_at - at - sound_s >= SILENT_DEVICE_S

    def _take_chunk(self) -> Chunk | None:
        """Return all whole chunks received, up to the first gap, as one."""
        if self._opening is None:
            line, newline, rest = self._received.partition(b"\n")
            if not newline:
                return None
            self._opening, self._received = json.loads(line), rest
            self._wanted = self._opening["device"]  # indices change when devices come and go
        frame_bytes = 4 * self._opening["channels"]
        rate = self._opening["rate"]
        payload, start, end, last_frame_at, overflows, taken = bytearray(), 0, 0, 0.0, 0, 0
        while len(self._received) >= taken + capture.HEADER.size:
            position, count, lost, came_at, age_s = capture.HEADER.unpack_from(
                self._received, taken
            )
            size = capture.HEADER.size + count * frame_bytes
            if len(self._received) < taken + size or (payload and position != end):
                break
            if self._follows_silence(taken):
                break
            start, end = (start if payload else position), position + count
            self._newest = (end, came_at)
            last_frame_at = came_at - age_s
            payload += self._received[taken + capture.HEADER.size : taken + size]
            taken, overflows = taken + size, lost
            self._began.append(came_at - end / rate)
        reopening = self._opened_at is None and self._last is not None
        settling = reopening and end < REOPENING_S * rate and not self._stopping
        if not payload or settling:
            return None
        del self._received[:taken]
        self.overflows = self._overflows_before + overflows
        frames = np.frombuffer(payload, np.float32).reshape(-1, self._opening["channels"])
        if self._opened_at is None:
            self._opened_at = 0
            if self._last is not None:  # the timeline goes on by the clock
                position, at = self._last
                self._opened_at = position + round(max(0.0, min(self._began) - at) * SAMPLE_RATE)
                self.reopened += 1
        came_at = min(self._began) + end / rate
        self._last = (self._opened_at + round(end * SAMPLE_RATE / rate), came_at)
        return Chunk(frames, rate, start, self._opened_at, last_frame_at)

    def _lose(self, now: float, over: bool) -> None:
        """The device is gone: give up if it never worked, else come back later."""
        self._complaints.read(self._child.stderr.fileno())  # type: ignore[union-attr]
        never_worked = self._opening is None and self._last is None and not self._failures
        silence = f"no sound from the device for {self._patience_s():g} s"
        self.error = (self._complaints.reason if over else None) or silence
        self.close()
        if self._stopping:
            self.state, self.error = "ended", None
            return
        if over and never_worked:
            self.state = "ended"
            raise DeviceError(f"microphone '{self.name}': {self.error}")
        self.state = "lost"
        wait_s = BACK_OFF_S[min(self._failures, len(BACK_OFF_S) - 1)]
        level = logging.INFO if self._failures else logging.WARNING  # said once
        self._failures += 1
        self._retry_at = now + wait_s
        _log.log(
            level, "microphone '%s' lost (%s); try again in %g s", self.name, self.error, wait_s
        )


class _Complaints:
    """The capture process's stderr, where ALSA and PortAudio chatter; logs a few lines a minute."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._minute = 0.0
        self._lines = 0
        self.reason: str | None = None  # the last `error` that capture.py reported

    def read(self, fileno: int) -> None:
        """Read what is there, never blocking."""
        try:
            text = os.read(fileno, PIPE_BYTES).decode(errors="replace")
        except BlockingIOError:
            return
        for line in text.splitlines():
            if line.startswith('{"error"'):
                self.reason = _reason(line)
            else:
                self._report(line)

    def _report(self, line: str) -> None:
        if time.monotonic() - self._minute >= 60.0:
            if self._lines > STDERR_LINES_PER_MINUTE:
                hidden = self._lines - STDERR_LINES_PER_MINUTE
                _log.info("%s: %d more lines from PortAudio not shown", self._name, hidden)
            self._minute, self._lines = time.monotonic(), 0
        self._lines += 1
        if self._lines <= STDERR_LINES_PER_MINUTE:
            _log.info("%s: PortAudio says: %s", self._name, line)


def _reason(stderr: str) -> str:
    """Return the `error` that capture.py reported in its stderr, else its last line."""
    lines = stderr.strip().splitlines() or ["the capture process ended without a word"]
    for line in reversed(lines):
        if line.startswith('{"error"'):
            return json.loads(line)["error"]
    return lines[-1]
