"""Raw samples from a pipe as a source."""

import logging
import os
import select
import time
from typing import BinaryIO

from streamtwl.audio.pcm import SAMPLE_BYTES, from_bytes
from streamtwl.audio.resample import check_rate
from streamtwl.errors import AudioError
from streamtwl.stages import Chunk, Source

_log = logging.getLogger(__name__)

PIPE_CHUNK_BYTES = 1 << 16
SILENT_PIPE_S = 5.0  # then its writer is stuck
WAV_HEADS = (b"RIFF", b"RF64", b"BW64")
WAV_HEAD_BYTES = 1 << 20  # at most, before its sound
ENCODED = {  # by what begins them: their names
    b"fLaC": "FLAC",
    b"OggS": "Ogg",
    b"ID3": "MP3",
    b"\x1aE\xdf\xa3": "Matroska",
    b"FORM": "AIFF",
    b".snd": "AU",
    b"caff": "CAF",
    b"riff": "Wave64",
    b"RIFX": "WAV, big-endian",
}
MP4 = b"ftyp"  # which follows four bytes
MAGIC_BYTES = 8
WATCHED_S = 10.0  # of sound or of waiting, before the pace is judged
BURST_S = 3.0  # that a writer may be ahead: what a pipe holds
PACE = 1.5  # times faster or slower than real time that say something is wrong


class Pipe(Source):
    """Interleaved samples from a pipe, little-endian: u8, s16le, s24le, s32le or f32le.

    A WAV header at the start overrides the rate, channels and encoding given. A pipe that is not
    read in time holds its writer back, so nothing is lost here. One that sends nothing for 5 s is
    `stalled`; sound after that begins after a gap. One whose sound is far from real time is noted
    in the log: its settings may be wrong. Raises AudioError for sound that is encoded, or at its
    end if that cuts a frame in two.
    """

    live = True

    def __init__(
        self,
        name: str,
        pipe: BinaryIO,
        rate: int,
        channels: int,
        encoding: str,
        channel: int | None = None,
    ) -> None:
        check_rate(rate, name)
        super().__init__(name, paced=True, clocked=False, channel=channel)
        self._pipe = pipe
        self._rate, self._channels, self._encoding = rate, channels, encoding
        self._rest = b""
        self._begun = False  # what comes is known to be samples
        self._has_header = False
        self._given = 0  # frames
        self._received_at = 0.0  # monotonic
        self._pace = _Pace(name)
        self._stopping = False

    def start(self) -> None:
        """Nothing to open."""
        self.state = "listening"
        self._received_at = time.monotonic()

    def filenos(self) -> list[int]:
        """The pipe."""
        return [self._pipe.fileno()]

    def due_in(self, now: float) -> float:
        """0 while it is being stopped, else infinity: only a readable pipe matters."""
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
        silent = now >= self._received_at + SILENT_PIPE_S and (self._given or not readable)
        if self.state == "listening" and silent:
            self.state = "stalled"
            self.error = f"nothing has come through the pipe for {SILENT_PIPE_S:g} s"
            _log.warning("'%s' stalled: %s", self.name, self.error)
            return None
        if not readable:
            return None
        try:
            received = os.read(fileno, PIPE_CHUNK_BYTES)
        except OSError as error:  # opened to write only, or a terminal that hung up
            raise self._ended(f"'{self.name}' cannot be read: {error.strerror}") from None
        self._received_at = now
        if self.state == "stalled":
            self.state, self.error = "listening", None
            self._pace.restart()
        self._rest += received
        if not self._begun:
            self._begun = self._begin(over=not received)
        if not received:
            self._end()
        chunk = self._take() if self._begun else None
        if chunk is not None:
            backlog = len(received) == PIPE_CHUNK_BYTES
            self._pace.take(len(chunk.frames) / self._rate, now, backlog)
        return chunk

    def stop(self) -> None:
        """Take what is in the pipe (one read, 64 kB), then end."""
        self._stopping = True

    def _begin(self, over: bool) -> bool:
        """Look at the first bytes: return whether samples follow, a header taken off."""
        from streamtwl.audio.container import sound_at

        start = self._rest
        if len(start) < MAGIC_BYTES and not over:
            return False
        if start[:4] in WAV_HEADS:
            at = sound_at(start)
            if at is not None:
                self._take_header(start[:at])
            elif over or len(start) > WAV_HEAD_BYTES:
                raise self._ended(f"'{self.name}': a WAV header without sound behind it")
            return at is not None
        kinds = [kind for magic, kind in ENCODED.items() if start.startswith(magic)]
        if kinds or start[4:MAGIC_BYTES] == MP4:
            kind = kinds[0] if kinds else "MP4"
            raise self._ended(
                f"'{self.name}' is {kind}, no raw samples: use --file - in place of --stdin"
            )
        return True

    def _take_header(self, header: bytes) -> None:
        from streamtwl.audio.decoder import wav_format

        try:
            codec, rate, channels = wav_format(header)
        except AudioError as error:
            raise self._ended(f"'{self.name}': {error}: try --file - in place of --stdin") from None
        encoding = codec.removeprefix("pcm_")
        if encoding not in SAMPLE_BYTES:
            raise self._ended(
                f"'{self.name}' is WAV with {codec}: use --file - in place of --stdin"
            )
        check_rate(rate, self.name)
        if (encoding, rate, channels) != (self._encoding, self._rate, self._channels):
            _log.info("'%s': WAV, %s, %d Hz, %d channel(s)", self.name, encoding, rate, channels)
        self._encoding, self._rate, self._channels = encoding, rate, channels
        self._has_header = True
        self._rest = self._rest[len(header) :]

    def _take(self) -> Chunk | None:
        """Return the whole frames received."""
        size = SAMPLE_BYTES[self._encoding] * self._channels
        whole = len(self._rest) - len(self._rest) % size
        if not whole:
            return None
        received, self._rest = self._rest[:whole], self._rest[whole:]
        frames = from_bytes(received, self._encoding).reshape(-1, self._channels)
        start, self._given = self._given, self._given + len(frames)
        return Chunk(frames, self._rate, start)

    def _end(self) -> None:
        self.state = "ended"
        if not self._given and not self._rest and not self._stopping:
            raise AudioError("the pipe ended before any sound came through it")
        over = len(self._rest) % (SAMPLE_BYTES[self._encoding] * self._channels)
        if over and not self._has_header:  # behind the sound of a WAV file may be more chunks
            raise AudioError(
                f"the pipe ended inside a frame ({over} bytes over): "
                f"check --format, --channels {self._channels}"
            )

    def _ended(self, problem: str) -> AudioError:
        self.state = "ended"
        return AudioError(problem)


class _Pace:
    """Compares the seconds of sound that came with the seconds that went by; speaks once."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._said = False
        self.restart()

    def restart(self) -> None:
        """Count anew."""
        self._since: float | None = None
        self._sound_s = 0.0

    def take(self, seconds: float, now: float, backlog: bool) -> None:
        """Take seconds of sound that came at `now`; `backlog`: more is waiting in the pipe."""
        if self._since is None:
            self._since = now  # this chunk may be as old as it likes
            return
        self._sound_s += seconds
        waited_s = now - self._since
        fast = self._sound_s > max(WATCHED_S, PACE * waited_s + BURST_S)
        slow = waited_s > max(WATCHED_S, PACE * self._sound_s + BURST_S) and not backlog
        if self._said or not (fast or slow):
            return
        self._said = True
        times = self._sound_s / max(waited_s, 1e-3)
        pace = f"{min(times, 999):.0f} times faster" if fast else f"{1 / times:.1f} times slower"
        _log.warning(
            "'%s': its sound comes %s than real time: it is a recording, or --rate, --channels or "
            "--format are not those of the sound",
            self._name,
            pace,
        )
