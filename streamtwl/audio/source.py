"""What a source of sound is to the rest of streamtwl."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

BACK_OFF_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # before a source that was lost is opened again


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive frames as a source gives them: its own rate, its own channels."""

    frames: np.ndarray  # float32[n, channels]
    rate: int  # Hz
    start: int  # of frames[0], counted in frames from the opening of the source
    opened_at: int = 0  # the stream's position (16 kHz samples) at that opening
    heard_at: float | None = None  # monotonic seconds of the last frame; None where nobody knows


State = Literal["opening", "listening", "silent", "stalled", "lost", "ended"]


class Source(ABC):
    """A microphone, file, pipe or network stream.

    The worker calls `read` whenever a fileno is readable, or it is due.
    """

    live = False  # it has no end of its own, and only zeros mean that something is switched off

    def __init__(self, name: str, paced: bool, clocked: bool, channel: int | None = None) -> None:
        self.name = name
        self.channel = channel  # the one to use, from 1; None: the mix of all
        self.paced = paced  # whoever is slow loses sound or comes late, nobody waits for him
        self.clocked = clocked  # a second of sound takes a second to come, so waits are foreseen
        self.state: State = "opening"
        self.error: str | None = None  # why it is stalled, lost or ended, in one line
        self.overflows = 0  # inside the driver, before anything was counted
        self.reopened = 0
        self.stop_requested: Callable[[], int] = lambda: 0  # looked at while the source keeps us

    @abstractmethod
    def start(self) -> None:
        """Begin; raises AudioError where that is known to fail."""

    def filenos(self) -> list[int]:
        """Return file descriptors to wait for; none where only time matters."""
        return []

    @abstractmethod
    def due_in(self, now: float) -> float:
        """Return the seconds from `now` (monotonic) until `read` is due without being readable."""

    @abstractmethod
    def read(self, now: float) -> Chunk | None:
        """Return what has been heard, or None; never blocks for long. Sets `state`."""

    @abstractmethod
    def stop(self) -> None:
        """Hear nothing new; `read` goes on to give what was heard until `state` is ended."""

    def close(self) -> None:
        """Let go of everything."""
        self.state = "ended"
