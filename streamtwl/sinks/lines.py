"""Messages as lines: plain ones for people, JSON for programs."""

import logging
import queue
import sys
from collections.abc import Callable
from datetime import datetime

from streamtwl.messages import AnyMessage, Event, Hello, Label, Level, Status, encode
from streamtwl.stages import SAMPLE_RATE

_log = logging.getLogger(__name__)

QUEUE = 10_000  # messages that a slow reader of standard output may lag behind
PATIENCE_S = 0.1  # how long the worker waits for one before it checks whether that has gone


class Nothing:
    """Shows nothing."""

    gone = False
    every_s: float | None = 3600.0

    def take(self, message: AnyMessage) -> None:
        """Let a message pass."""

    def show(self) -> None:
        """Show nothing."""

    def __enter__(self) -> "Nothing":
        return self

    def __exit__(self, *_error: object) -> None:
        """Nothing to clean up."""


class Lines:
    """Prints messages to standard output, one a line.

    In real time what the reader is too slow for is dropped and counted; with `lossless` the worker
    waits for the reader instead.
    """

    every_s: float | None = None

    def __init__(self, as_json: bool, lossless: bool) -> None:
        self.dropped = 0
        self.gone = False  # the reader of standard output
        self._as_json = as_json
        self._lossless = lossless
        self._waiting: queue.Queue[AnyMessage] = queue.Queue(QUEUE)
        self._plain = Plain()

    def take(self, message: AnyMessage) -> None:
        """Queue a message."""
        while not self.gone:
            try:
                self._waiting.put(message, self._lossless, PATIENCE_S)
                return
            except queue.Full:
                if not self._lossless:
                    self.dropped += 1
                    return

    def show(self) -> None:
        """Print what is queued."""
        while not self._waiting.empty():
            message = self._waiting.get()
            if self._as_json:
                print(encode(message, "json").decode())
            elif line := self._plain.line(message):
                print(line)
        sys.stdout.flush()

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_error: object) -> None:
        if self.dropped:
            _log.warning("%d messages not printed: the reader was too slow", self.dropped)


class Plain:
    """What is new in each message, as text, after its time as written by `stamp`."""

    def __init__(self, stamp: Callable[[AnyMessage], str] | None = None) -> None:
        self._stamp = stamp or when
        self._labels: dict[str, str | None] = {}
        self._states: dict[str, tuple] = {}

    def line(self, message: AnyMessage) -> str | None:
        """Return a line for a message with something new in it, else None."""
        news = None
        if isinstance(message, Label) and self._labels.get(message.source, "") != message.label:
            self._labels[message.source] = message.label
            news = f"{message.label} ({message.confidence:.2f})" if message.label else "-"
        elif isinstance(message, Event):
            lasted_s = ((message.end or 0) - message.start) / SAMPLE_RATE
            ended = f", {lasted_s:.1f} s, peak {message.peak:.2f}" if message.end else ""
            if message.void:
                ended = ": retracted"
            news = f"[{message.phase}] {message.label}{ended}"
        elif isinstance(message, Status):
            lost = {"samples": message.dropped_samples, "windows": message.dropped_windows}
            lost |= {"messages": message.dropped_messages, "bad samples": message.bad_samples}
            clipping = ", clipping: turn the gain down" if message.clipped_samples else ""
            journal = f", not in the journal: {message.journal}" if message.journal else ""
            state = (message.state, message.error, clipping, journal, *lost.values())
            if self._states.get(message.source) != state:
                self._states[message.source] = state
                dropped = "".join(f", {n} {what} lost" for what, n in lost.items() if n)
                news = (
                    f"[{message.state}]{dropped}{clipping}{journal} {message.error or ''}".rstrip()
                )
        elif isinstance(message, Level):
            unit = "dB(A)" if message.calibrated else "dBFS(A)"
            news = (
                f"Leq {message.leq_dba:.1f} {unit}, L10 {message.l10_dba:.1f}, "
                f"L90 {message.l90_dba:.1f}, max {message.max_dba:.1f}"
            )
        elif isinstance(message, Hello):
            return None
        return f"{self._stamp(message)}  {message.source:<10} {news}" if news else None


def when(message: AnyMessage) -> str:
    """Return a message's time of day; for files the time from their start."""
    if message.captured_at is not None:
        return datetime.fromtimestamp(message.captured_at).strftime("%H:%M:%S.%f")[:-4]
    return in_recording(message.position)


def in_recording(position: int) -> str:
    """Return the time from a recording's start."""
    minutes, seconds = divmod(round(position / SAMPLE_RATE, 2), 60)
    return f"{minutes:02.0f}:{seconds:05.2f}"
