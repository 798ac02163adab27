"""Files and encoded pipes to samples: FFmpeg's demuxers and decoders, through PyAV.

A header is a hint. Sound is decoded to its end, and packets that are damaged are skipped and
counted.
"""

import io
from collections.abc import Generator, Iterator
from typing import Any, BinaryIO

import av
import av.error
import numpy as np
from av.container import InputContainer

from streamtwl.audio.container import Part, parts
from streamtwl.audio.pcm import to_float
from streamtwl.errors import AudioError

BUFFER_BYTES = 1 << 16
DAMAGED_IN_A_ROW = 1000  # packets without one sound between them: nothing more to come
JITTER_S = 0.04  # of time stamps; where one is later by more, sound is missing
STAMPED = ("ogg", "flac", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "asf", "flv", "mpegts")
GAP_S = 60.0  # the longest that a time stamp is believed

_Opened = tuple[InputContainer, float | None]  # and the seconds of sound that its header promises

av.logging.set_level(None)  # FFmpeg's own lines; what is wrong is raised or counted


class Decoder:
    """One sound track, decoded to float32 at its own rate.

    `file` is open for reading; it may be a pipe, or a container that FFmpeg has opened from the
    network. `name` says in errors what it is. Raises AudioError where it is not audio, or has no
    sound track that can be decoded, and FFmpegError where a connection breaks.
    """

    def __init__(self, file: BinaryIO | InputContainer, name: str) -> None:
        self._name = name
        self._remote = isinstance(file, InputContainer)
        self._seekable = isinstance(file, InputContainer) or file.seekable()
        self.skipped_packets = 0  # damaged
        self.promised_s: float | None = 0.0  # of sound, by the headers read so far; None: unknown
        self.rate = self.channels = 0  # of the samples that `read` gave last
        opened = _remote_part(file) if isinstance(file, InputContainer) else _open(file, name)
        self._sound = self._decode(opened)
        self._first = next(self._sound, None)
        if self._first is None:
            raise AudioError(f"'{name}' {self._no_sound()}")

    def read(self) -> tuple[int, np.ndarray] | None:
        """Return the next samples, float32[n, channels], or None at the end.

        With them comes how many frames are missing before them, by the file's time stamps. Where
        `rate` or `channels` change, as in files that were joined, they do so with this call.
        """
        given, self._first = self._first or next(self._sound, None), None
        return given

    def close(self) -> None:
        """Let go of the decoder; the file stays open."""
        self._sound.close()

    def _decode(self, joined: Iterator[_Opened]) -> Generator[tuple[int, np.ndarray], None, None]:
        for container, promised_s in joined:
            with container:
                stream = _sound_track(container, self._name)
                self._promise(promised_s, container, stream)
                timeline = _Timeline(container.format.name)
                for frame in self._frames(container, stream):
                    self.rate, self.channels = frame.sample_rate, frame.layout.nb_channels
                    yield timeline.missing(frame), _samples(frame)

    def _frames(self, container: Any, stream: Any) -> Iterator[av.AudioFrame]:
        packets = container.demux(stream)
        damaged = 0
        while damaged < DAMAGED_IN_A_ROW:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                for frame in stream.decode(packet):
                    damaged = 0
                    if frame.samples:
                        yield frame
            except av.error.EOFError:
                return
            except av.error.FFmpegError as error:  # what a decoder makes of damage has many names
                if self._remote and isinstance(error, av.error.ExitError | OSError):
                    raise  # the connection
                damaged += 1
                self.skipped_packets += 1
                packets = container.demux(stream)  # one that has raised is over

    def _no_sound(self) -> str:
        """Say why there is none."""
        if not self.skipped_packets:
            return "holds no sound"
        if not self._seekable:
            return "cannot be decoded from a pipe: save it to a file, and name that"
        return f"is damaged: none of its {self.skipped_packets} packets can be decoded"

    def _promise(self, promised_s: float | None, container: Any, stream: Any) -> None:
        """Add what a part's header promises, or FFmpeg estimates."""
        if promised_s is None and stream.duration is not None and stream.time_base is not None:
            promised_s = float(stream.duration * stream.time_base)
        if promised_s is None and container.duration is not None:
            promised_s = container.duration / av.time_base
        known = promised_s is not None and self.promised_s is not None
        self.promised_s = self.promised_s + promised_s if known else None  # type: ignore[operator]


class _Timeline:
    """Where a track's sound is to be, by its time stamps, where the kind of file has them."""

    def __init__(self, kind: str) -> None:
        self._stamped = kind in STAMPED
        self._due_s: float | None = None  # time stamp of the next frame, if nothing is missing

    def missing(self, frame: av.AudioFrame) -> int:
        """Return how many samples a channel are missing before a frame."""
        due_s = frame.time if self._due_s is None else self._due_s
        if due_s is None or not self._stamped:
            return 0
        late_s = 0.0 if frame.time is None else frame.time - due_s
        missing_s = late_s if JITTER_S < late_s < GAP_S else 0.0
        begins_anew = late_s >= GAP_S or late_s < -JITTER_S
        self._due_s = due_s + (late_s if begins_anew else missing_s)
        self._due_s += frame.samples / frame.sample_rate
        return round(missing_s * frame.sample_rate)


def _remote_part(container: InputContainer) -> Iterator[_Opened]:
    yield container, None


def _open(file: BinaryIO, name: str) -> Iterator[_Opened]:
    for part in parts(file):
        yield _open_part(part, name), part.promised_s


def _open_part(part: Part, name: str) -> InputContainer:
    def refuse(url: str, _flags: int, _options: dict) -> None:
        raise AudioError(f"'{name}' is a list of other files, as {url}: name those")

    try:
        return av.open(
            part.file,
            metadata_errors="replace",
            buffer_size=BUFFER_BYTES,
            io_open=refuse,
            container_options={"protocol_whitelist": "none", **part.options},
        )
    except (av.error.FFmpegError, UnicodeError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
        raise AudioError(f"'{name}' is not audio: {problem}") from None


def _sound_track(container: Any, name: str) -> Any:
    stream = container.streams.best("audio")
    if stream is None or stream.codec_context is None:
        raise AudioError(f"'{name}' is not audio: there is no sound track that we can decode")
    stream.codec_context.thread_count = 1
    return stream


def _samples(frame: av.AudioFrame) -> np.ndarray:
    """Return a frame's samples as float32[n, channels], full scale at 1."""
    samples = frame.to_ndarray()
    planar = samples.T if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels)
    return to_float(planar)


def wav_format(header: bytes) -> tuple[str, int, int]:
    """Return (codec as FFmpeg calls it, rate in Hz, channels) of a WAV header up to its sound.

    Raises AudioError where it is none.
    """
    try:
        with av.open(io.BytesIO(header), format="wav", metadata_errors="replace") as container:
            codec = container.streams.audio[0].codec_context
            return codec.name, codec.sample_rate, codec.channels
    except (av.error.FFmpegError, IndexError) as error:
        raise AudioError(f"a WAV header that cannot be read: {error}") from None
