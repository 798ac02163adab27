"""Files and pipes as sources."""

import logging
import os
import re
import select
import time
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from streamtwl.audio.resample import check_rate
from streamtwl.audio.source import Chunk, Source
from streamtwl.errors import AudioError

_log = logging.getLogger(__name__)

PACED_CHUNK_S = 0.02
FAST_CHUNK_S = 0.48
PIPE_CHUNK_BYTES = 1 << 16
SILENT_PIPE_S = 5.0  # then its writer is stuck
UNKNOWN_SIZE = 0x7FFF0000  # bytes


class Recording(Source):
    """A sound file (anything libsndfile reads), at the pace of real time or as fast as it is read.

    `file` is a path or an open binary file. Raises AudioError where it is missing, empty, not
    audio or, once read to its end, shorter than its header promises.
    """

    def __init__(self, name: str, file: Path | BinaryIO, paced: bool = False) -> None:
        super().__init__(name, paced, clocked=paced)
        self._file = file
        self._called = file.name if isinstance(file, Path) else name
        self._sound: soundfile.SoundFile | None = None
        self._started_at = 0.0
        self._given = 0
        self._stopping = False

    def start(self) -> None:
        """Open the file and start its clock."""
        if isinstance(self._file, Path):
            _check_file(self._file)
        try:
            self._sound = soundfile.SoundFile(self._file)
        except soundfile.LibsndfileError as error:
            raise AudioError(f"'{self._called}' is not audio: {error.error_string}") from None
        except TypeError:  # a name that ends in .raw
            raise AudioError(
                f"'{self._called}' holds raw samples: pipe it into `streamtwl listen --stdin`"
            ) from None
        if self._sound.frames == 0:
            raise AudioError(f"'{self._called}' holds no sound")
        check_rate(self._sound.samplerate, self._called)
        self._started_at = time.monotonic()
        self.state = "listening"

    @property
    def duration_s(self) -> float:
        """Seconds of sound that the header promises; 0 before `start`."""
        return self._sound.frames / self._sound.samplerate if self._sound else 0.0

    def due_in(self, now: float) -> float:
        """Seconds until the next chunk has been played."""
        if not self.paced or self._sound is None:
            return 0.0
        given_s = self._given / self._sound.samplerate
        chunk_s = min(PACED_CHUNK_S, self.duration_s - given_s)
        return max(0.0, self._started_at + given_s + chunk_s - now)

    def read(self, now: float) -> Chunk | None:
        """Return the frames that are due; raises AudioError for a file that breaks off."""
        if self._sound is None or self.state == "ended":
            return None
        rate = self._sound.samplerate
        due = int(FAST_CHUNK_S * rate)
        if self.paced:
            due = min(due, int((now - self._started_at) * rate) - self._given)
        if due <= 0 and not self._stopping:
            return None
        frames = self._read_frames(0 if self._stopping else due)
        start, self._given = self._given, self._given + len(frames)
        complete = self._given >= self._sound.frames and not _is_truncated(self._sound)
        if self._stopping or complete or not len(frames):
            self.state = "ended"
        if not (self._stopping or complete or len(frames)):
            raise AudioError(f"'{self._called}' is truncated: it ends after {start / rate:.2f} s")
        return Chunk(frames, rate, start) if len(frames) else None

    def stop(self) -> None:
        """End at what has been played."""
        self._stopping = True

    def close(self) -> None:
        """Close the file."""
        super().close()
        if self._sound is not None:
            self._sound.close()

    def _read_frames(self, count: int) -> np.ndarray:
        try:
            return self._sound.read(count, dtype="float32", always_2d=True)  # type: ignore[union-attr]
        except soundfile.LibsndfileError as error:
            self.state = "ended"
            problem = error.error_string or "it breaks off"
            raise AudioError(f"'{self._called}' is damaged: {problem}") from None


class Pipe(Source):
    """Raw interleaved samples from a pipe: little-endian, s16le or f32le.

    A pipe that is not read in time holds its writer back, so nothing is lost here. One that gives
    nothing for 5 s is `stalled`; what it gives after that does not join on. Raises AudioError at
    its end if that cuts a frame in two.
    """

    def __init__(self, name: str, pipe: BinaryIO, rate: int, channels: int, encoding: str) -> None:
        check_rate(rate, name)
        super().__init__(name, paced=True, clocked=False)
        self._pipe = pipe
        self._rate, self._channels = rate, channels
        self._dtype = np.dtype({"s16le": "<i2", "f32le": "<f4"}[encoding])
        self._rest = b""
        self._given = 0
        self._heard_at = 0.0  # monotonic
        self._stopping = False

    def start(self) -> None:
        """Nothing to open."""
        self.state = "listening"
        self._heard_at = time.monotonic()

    def filenos(self) -> list[int]:
        """The pipe."""
        return [self._pipe.fileno()]

    def due_in(self, now: float) -> float:
        """A pipe is readable, or there is nothing to do."""
        return 0.0 if self._stopping else float("inf")

    def read(self, now: float) -> Chunk | None:
        """Return the frames that are there."""
        if self.state == "ended":
            return None
        fileno = self._pipe.fileno()
        if self._stopping:
            self.state = "ended"
        readable = bool(select.select([fileno], [], [], 0)[0])
        # Also where something came meanwhile: then it is this program that was stopped.
        silent = now >= self._heard_at + SILENT_PIPE_S and (self._given or not readable)
        if self.state == "listening" and silent:
            self.state = "stalled"
            self.error = f"nothing has come through the pipe for {SILENT_PIPE_S:g} s"
            _log.warning("'%s' stalled: %s", self.name, self.error)
            return None
        if not readable:
            return None
        received = os.read(fileno, PIPE_CHUNK_BYTES)
        self._heard_at = now
        if self.state == "stalled":
            self.state, self.error = "listening", None
        if not received:
            self.state = "ended"
            if not self._given and not self._stopping:
                raise AudioError("the pipe ended before any sound came through it")
            if self._rest:
                raise AudioError(
                    f"the pipe ended inside a frame ({len(self._rest)} bytes over): "
                    f"check --format, --channels {self._channels}"
                )
            return None
        received = self._rest + received
        whole = len(received) - len(received) % (self._dtype.itemsize * self._channels)
        received, self._rest = received[:whole], received[whole:]
        frames = np.frombuffer(received, self._dtype).reshape(-1, self._channels)
        if self._dtype.kind == "i":
            frames = frames / np.float32(32768)
        start, self._given = self._given, self._given + len(frames)
        return Chunk(frames.astype(np.float32, copy=False), self._rate, start)

    def stop(self) -> None:
        """Take what is in the pipe (one read, 64 kB), then end."""
        self._stopping = True


def _is_truncated(sound: soundfile.SoundFile) -> bool:
    """Whether a file that has been read to its end is shorter than its header says."""
    # libsndfile puts a WAV header right by itself and only notes it in its log. Programs that
    # write to a pipe cannot know the size, and say the largest there is.
    noted = re.search(r"data\s*: (\d+) \(should be \d+\)", sound.extra_info)
    missing_s = (sound.frames - sound.tell()) / sound.samplerate  # an MP3's length is a guess
    return missing_s > 0.1 or (noted is not None and int(noted[1]) < UNKNOWN_SIZE)


def _check_file(path: Path) -> None:
    if not path.exists():
        raise AudioError(f"no such file: {path}")
    if path.is_dir():
        raise AudioError(f"{path} is a folder; name the files in it, as {path}/*.wav")
    if path.stat().st_size == 0:
        raise AudioError(f"'{path.name}' is empty")
    if not os.access(path, os.R_OK):
        raise AudioError(f"{path} cannot be read: permission denied")
