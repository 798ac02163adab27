"""Sound files as sources, decoded to their end."""

import logging
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from streamtwl.audio.resample import check_rate
from streamtwl.errors import AudioError
from streamtwl.stages import SAMPLE_RATE, Chunk, Source

if TYPE_CHECKING:
    from streamtwl.audio.decoder import Decoder

_log = logging.getLogger(__name__)

PACED_CHUNK_S = 0.02
FAST_CHUNK_S = 0.48
PROMISE_S, PROMISE_SHARE = 0.1, 0.01  # that a header may be wrong by without a warning
PIPES = ("/dev/fd/", "/proc/self/fd/", "/dev/stdin")
STDIN = Path("/dev/stdin")  # which the name - stands for


class Recording(Source):
    """A sound file or a film's sound, at the pace of real time or as fast as it is decoded.

    `file` is a path, "-" for standard input, or an open binary file. Sound that its header promises
    but that is missing is logged in one line, as are damaged packets. Raises AudioError where it is
    missing, empty or not audio.
    """

    def __init__(
        self,
        name: str,
        file: Path | BinaryIO,
        paced: bool = False,
        channel: int | None = None,
    ) -> None:
        super().__init__(name, paced, clocked=paced, channel=channel)
        self._file = file
        self._called = _printable(file) if isinstance(file, Path) else name
        self._opened: BinaryIO | None = None
        self._decoder: Decoder | None = None
        self._held: list[np.ndarray] = []  # decoded, not given yet: float32[n, channels], in a row
        self._ahead: tuple[int, np.ndarray] | None = None  # what follows them, but not at once
        self._exhausted = False
        self._format = (0, 0)  # rate and channels of what is held
        self._started_at = 0.0
        self._given = 0  # frames since the format changed, those missing included
        self._opened_at = 0  # 16 kHz position of that change
        self._decoded_s = self._missing_s = self._past_s = 0.0
        self._stopping = False

    def start(self) -> None:
        """Open the file and start its clock."""
        from streamtwl.audio.decoder import Decoder  # FFmpeg is for files only

        self._opened = self._file if not isinstance(self._file, Path) else _open(self._file)
        try:
            self._decoder = Decoder(self._opened, self._called, self._to_stop)
            check_rate(self._decoder.rate, self._called)
        except AudioError:
            if not self._to_stop():
                raise
            self.state = "ended"  # a pipe that never began
            return
        except OSError as error:
            raise AudioError(f"'{self._called}' cannot be read: {error.strerror}") from None
        self._started_at = time.monotonic()
        self.state = "listening"

    @property
    def duration_s(self) -> float:
        """Seconds of sound that the header promises or that are estimated; 0: unknown."""
        return (self._decoder.promised_s or 0.0) if self._decoder else 0.0

    @property
    def skipped_packets(self) -> int:
        """Packets that could not be decoded."""
        return self._decoder.skipped_packets if self._decoder else 0

    def due_in(self, now: float) -> float:
        """Seconds until the next chunk has been played."""
        if not self.paced or self._decoder is None:
            return 0.0
        return max(0.0, self._started_at + self._given_s() + PACED_CHUNK_S - now)

    def read(self, now: float) -> Chunk | None:
        """Return the frames that are due."""
        if self._decoder is None or self.state == "ended":
            return None
        if self._stopping:
            self.state = "ended"
            return None
        due_s = FAST_CHUNK_S
        if self.paced:
            due_s = min(due_s, now - self._started_at - self._given_s())
        self._fill(due_s)
        rate, _ = self._format
        due = round(due_s * rate)
        if due <= 0 and not (self._exhausted and not self._held):
            return None
        frames = self._take(due)
        start, self._given = self._given, self._given + len(frames)
        if self._exhausted and not self._held and self._ahead is None:
            self.state = "ended"
            self._report()
        return Chunk(frames, rate, start, self._opened_at) if len(frames) else None

    def stop(self) -> None:
        """End at what has been played."""
        self._stopping = True

    def close(self) -> None:
        """Close the file."""
        super().close()
        if self._decoder is not None:
            self._decoder.close()
        if self._opened is not None:
            self._opened.close()

    def _to_stop(self) -> bool:
        return self._stopping or bool(self.stop_requested())

    def _given_s(self) -> float:
        return self._past_s + self._given / (self._format[0] or SAMPLE_RATE)

    def _fill(self, wanted_s: float) -> None:
        """Decode until so much is held, or until a gap or a change of format."""
        assert self._decoder is not None
        if not self._held and self._ahead is not None:
            self._begin(*self._ahead)
            self._ahead = None
        held_s = sum(map(len, self._held)) / (self._format[0] or SAMPLE_RATE)
        while held_s < wanted_s and self._ahead is None and not self._exhausted:
            try:
                read = self._decoder.read()
            except OSError as error:
                raise AudioError(f"'{self._called}' cannot be read: {error.strerror}") from None
            if read is None:
                self._exhausted = True
                return
            missing, frames = read
            if self._decoded_s:  # before that, a film without its sound
                self._missing_s += missing / self._decoder.rate
            self._decoded_s += len(frames) / self._decoder.rate
            if not missing and self._format == (self._decoder.rate, frames.shape[1]):
                self._held.append(frames)
                held_s += len(frames) / self._decoder.rate
            elif self._held:
                self._ahead = read
            else:
                self._begin(*read)
                held_s = len(frames) / self._decoder.rate

    def _begin(self, missing: int, frames: np.ndarray) -> None:
        """Hold frames that follow a gap or a change of format."""
        assert self._decoder is not None
        rate, channels = self._decoder.rate, frames.shape[1]
        if (rate, channels) != self._format:
            check_rate(rate, self._called)
            self._past_s = self._given_s()
            self._opened_at = round(self._past_s * SAMPLE_RATE)
            self._format, self._given = (rate, channels), 0
        self._given += missing
        self._held.append(frames)

    def _take(self, count: int) -> np.ndarray:
        """Return at most so many of the frames that are held."""
        if not self._held:
            return np.empty((0, self._format[1]), np.float32)
        held = self._held[0] if len(self._held) == 1 else np.concatenate(self._held)
        taken, rest = held[:count], held[count:]
        self._held = [rest] if len(rest) else []
        return taken

    def _report(self) -> None:
        """Log in one line what differs from the file's header."""
        assert self._decoder is not None
        promised_s, decoded_s = self._decoder.promised_s, self._decoded_s + self._missing_s
        problems = []
        allowed_s = max(PROMISE_S, PROMISE_SHARE * (promised_s or 0.0))
        if promised_s is None or self._decoder.estimated:
            promised_s = decoded_s
        if abs(decoded_s - promised_s) > allowed_s:
            problems += [f"by its header {promised_s:.2f} s long"]
            problems += [f"decoded to its end: {decoded_s:.2f} s"]
        if self._decoder.skipped_packets:
            problems.append(f"{self._decoder.skipped_packets} damaged packets skipped")
        if self._missing_s:
            problems.append(f"{self._missing_s:.2f} s of sound missing")
        if problems:
            _log.warning("'%s': %s", self._called, ", ".join(problems))


def _open(path: Path) -> BinaryIO:
    """Open a file or a pipe for reading; raises AudioError if it is anything else."""
    path = STDIN if path == Path("-") else path
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            os.scandir(path).close()
            raise AudioError(f"{path} is a folder; name the files in it, as {path}/*.wav")
        if stat.S_ISREG(mode) and not path.stat().st_size:
            raise AudioError(f"'{_printable(path)}' is empty")
        if not stat.S_ISREG(mode) and not (stat.S_ISFIFO(mode) and is_pipe(path)):
            kind = "a socket" if stat.S_ISSOCK(mode) else "a device"
            kind = "a named pipe" if stat.S_ISFIFO(mode) else kind  # it may never begin, or end
            raise AudioError(f"{path} is {kind}: name a file, or pipe sound in, as <(command)")
        return path.open("rb")
    except FileNotFoundError:
        if path.is_symlink():
            raise AudioError(f"{path} is a link to {os.readlink(path)}, which is absent") from None
        raise AudioError(f"no such file: {path}") from None
    except OSError as error:
        problem = (error.strerror or str(error)).lower()
        raise AudioError(f"{path} cannot be read: {problem}") from None


def is_pipe(path: Path) -> bool:
    """Whether a path is standard input or a shell's <(command)."""
    return str(path).startswith(PIPES)


def _printable(path: Path) -> str:
    """Return a path's last name; bytes that are no UTF-8 as \\x.."""
    return os.fsencode(path.name or str(path)).decode(errors="backslashreplace")
