"""The newest sound of a stream, in memory, for those who want to keep a piece of it."""

import threading

import numpy as np

from streamtwl.stages import SAMPLE_RATE, Block


class Recent:
    """The last `seconds` of a stream's sound, at most; nothing from before a gap."""

    def __init__(self, seconds: float) -> None:
        self._ring = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
        self._position = 0  # of the next sample
        self._held = 0  # samples up to there
        self._lock = threading.Lock()

    def push(self, block: Block) -> None:
        """Take the stream's next block."""
        with self._lock:
            if block.position != self._position:
                self._held = 0
            samples = block.samples[-len(self._ring) :]
            self._position = block.position + len(block.samples)
            at = (self._position - len(samples) + np.arange(len(samples))) % len(self._ring)
            self._ring[at] = samples
            self._held = min(len(self._ring), self._held + len(samples))

    def between(self, start: int, stop: int) -> np.ndarray:
        """Return float32[n], a copy of what there is of the positions [start, stop)."""
        with self._lock:
            start = max(start, self._position - self._held)
            at = np.arange(start, max(start, min(stop, self._position))) % len(self._ring)
            return self._ring[at]

    def since(self, position: int, most: int) -> tuple[int, np.ndarray]:
        """Return the position of the first, and float32[n], the samples from `position` on.

        The newest `most` of them at most; none where nothing is there yet.
        """
        with self._lock:
            first = max(position, self._position - min(self._held, most))
            at = np.arange(first, max(first, self._position)) % len(self._ring)
            return first, self._ring[at]

    def last(self, seconds: float) -> np.ndarray:
        """Return float32[n], a copy of the newest sound; less where there is less."""
        with self._lock:
            count = min(self._held, round(seconds * SAMPLE_RATE))
            at = (self._position - count + np.arange(count)) % len(self._ring)
            return self._ring[at]
