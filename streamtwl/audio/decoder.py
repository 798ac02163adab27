"""Files and encoded pipes to samples: FFmpeg's demuxers and decoders, through PyAV.

A header is a hint. Sound is decoded to its end, and packets that are damaged are skipped and
counted.
"""

import io
import math
from collections.abc import Callable, Generator, Iterator
from typing import Any, BinaryIO

import av
import av.error
import numpy as np
from av.container import InputContainer

from streamtwl.audio.container import Part, parts
from streamtwl.audio.opening import open_input
from streamtwl.audio.pcm import to_float
from streamtwl.errors import AudioError

BUFFER_BYTES = 1 << 16
DAMAGED_IN_A_ROW = 1000  # reads that give nothing: no more sound will come
JITTER_S = 0.04  # of time stamps; where one is later by more, sound is missing
STAMPED = ("ogg", "flac", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "asf", "flv", "mpegts")
GAP_S = 60.0  # the longest that a time stamp is believed where damage reaches it, or broadcasts
UNSURE = ("ogg", "flac", "mpegts")
PAUSE_S = 86_400.0  # the longest elsewhere: recorders pause
ESTIMATED = ("aac", "ac3", "dts", "eac3", "loas", "mp2", "mpeg", "mpegts")  # no header has a length

# and the seconds of sound that its header promises, and whether time stamps end with its length
_Opened = tuple[InputContainer, float | None, bool]

av.logging.set_level(None)  # FFmpeg's own lines; what is wrong is raised or counted


class Decoder:
    """One sound track, decoded to float32 at its own rate.

    `file` is open for reading; it may be a pipe, or a container that FFmpeg has opened from the
    network. `name` says in errors what it is. A pipe that gives nothing ends where `stopping`
    returns True. Raises AudioError where it is not audio, or has no sound track that can be
    decoded, and FFmpegError where a connection breaks.
    """

    def __init__(
        self,
        file: BinaryIO | InputContainer,
        name: str,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._name = name
        self._remote = isinstance(file, InputContainer)
        self._seekable = isinstance(file, InputContainer) or file.seekable()
        self.skipped_packets = 0  # damaged
        self.promised_s: float | None = 0.0  # of sound, by the headers read so far; None: unknown
        self.estimated = False  # `promised_s`, in part
        self.rate = self.channels = 0  # of the samples that `read` gave last
        if isinstance(file, InputContainer):
            opened = _remote_part(file)
        else:
            opened = _open(file, name, stopping)
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
        """Release the decoder; the file stays open."""
        self._sound.close()

    def _decode(self, joined: Iterator[_Opened]) -> Generator[tuple[int, np.ndarray], None, None]:
        for container, promised_s, says_length in joined:
            with container:
                stream = _sound_track(container, self._name)
                self._promise(promised_s, container, stream)
                timeline = _Timeline(container, says_length)
                for frame in self._frames(container, stream):
                    self.rate, self.channels = frame.sample_rate, frame.layout.nb_channels
                    yield timeline.missing(frame), _samples(frame)

    def _frames(self, container: Any, stream: Any) -> Iterator[av.AudioFrame]:
        packets = container.demux(stream)
        stuck = 0  # reads in a row that gave nothing
        # A file has an end, so what follows damage is tried, however long that is; a pipe that
        # gives no sound at all is given up, and a server is better asked again
        endures = self._seekable and not self._remote
        while stuck < DAMAGED_IN_A_ROW:
            packet = None
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                if endures:
                    stuck = 0
                for frame in stream.decode(packet):
                    stuck, endures = 0, not self._remote
                    if frame.samples:
                        yield frame
            except av.error.EOFError:
                return
            except av.error.FFmpegError as error:  # what a decoder makes of damage has many names
                if self._remote and isinstance(error, av.error.ExitError | OSError):
                    raise  # the connection
                stuck += 1
                self.skipped_packets += 1
                if packet is None:
                    packets = container.demux(stream)  # one that has raised is over

    def _no_sound(self) -> str:
        """Return the error that explains why there is none."""
        if not self.skipped_packets:
            return "holds no sound"
        if not self._seekable:
            return "cannot be decoded from a pipe: save it to a file, and name that"
        return f"is damaged or encrypted: none of its {self.skipped_packets} packets can be decoded"

    def _promise(self, promised_s: float | None, container: Any, stream: Any) -> None:
        """Add what a part's header promises, or FFmpeg estimates."""
        if promised_s is None and stream.duration and stream.time_base is not None:
            promised_s = float(stream.duration * stream.time_base)
        if promised_s is None and container.duration:
            promised_s = container.duration / av.time_base
        self.estimated |= container.format.name in ESTIMATED or _of_a_picture(container)
        known = promised_s is not None and self.promised_s is not None
        self.promised_s = self.promised_s + promised_s if known else None  # type: ignore[operator]


class _Timeline:
    """Where a track's sound belongs, by its time stamps, if its kind of file has them."""

    def __init__(self, container: Any, says_length: bool) -> None:
        kind, start = container.format.name, container.start_time
        self._stamped = kind in STAMPED
        self._longest_s = GAP_S if kind in UNSURE else PAUSE_S
        self._rate = 0
        self._until_s = _ends_s(container, says_length)
        # time stamp of the next frame, if nothing is missing; a film may begin before its sound
        self._due_s: float | None = None if start is None else start / av.time_base

    def missing(self, frame: av.AudioFrame) -> int:
        """Return how many samples a channel are missing before a frame."""
        if self._rate not in (0, frame.sample_rate):
            self._stamped = False  # joined files: they count at the first one's rate
        self._rate = frame.sample_rate
        due_s = frame.time if self._due_s is None else self._due_s
        if due_s is None or not self._stamped:
            return 0
        late_s = 0.0 if frame.time is None else frame.time - due_s
        is_gap = JITTER_S < late_s < self._longest_s and due_s + late_s <= self._until_s
        missing_s = late_s if is_gap else 0.0
        begins_anew = not is_gap and abs(late_s) > JITTER_S
        self._due_s = due_s + (late_s if begins_anew else missing_s)
        self._due_s += frame.samples / frame.sample_rate
        return round(missing_s * frame.sample_rate)


def _ends_s(container: Any, says_length: bool) -> float:
    """Return the last moment that a header gives; infinite where it gives none.

    There FFmpeg may estimate one from the size: pauses are not in that.
    """
    if not says_length or not container.duration:
        return math.inf
    return ((container.start_time or 0) + container.duration) / av.time_base + 1.0


def _remote_part(container: InputContainer) -> Iterator[_Opened]:
    yield container, None, False


def _open(file: BinaryIO, name: str, stopping: Callable[[], bool]) -> Iterator[_Opened]:
    for part in parts(file, stopping):
        yield _open_part(part, name), part.promised_s, part.says_length


def _open_part(part: Part, name: str) -> InputContainer:
    def refuse(url: str, _flags: int, _options: dict) -> None:
        raise AudioError(f"'{name}' is a list of other files, as {url}: name those")

    try:
        return open_input(
            part.file,
            buffer_size=BUFFER_BYTES,
            io_open=refuse,
            container_options={"protocol_whitelist": "none", **part.options},
        )
    except (av.error.FFmpegError, UnicodeError, ValueError) as error:
        problem = part.problem or getattr(error, "strerror", None) or str(error)
        raise AudioError(f"'{name}' is not audio: {problem}") from None


def _of_a_picture(container: Any) -> bool:
    """Whether the length is that of the picture, which may continue without sound."""
    pictures = [
        stream
        for stream in container.streams.video
        if not stream.disposition & av.stream.Disposition.attached_pic
    ]
    return container.format.name == "matroska,webm" and bool(pictures)


def _sound_track(container: Any, name: str) -> Any:
    stream = container.streams.best("audio")
    if stream is None or stream.codec_context is None:
        raise AudioError(f"'{name}' is not audio: there is no sound track that we can decode")
    stream.codec_context.thread_count = 1
    return stream


def _samples(frame: av.AudioFrame) -> np.ndarray:
    """Return a frame's samples as float32[n, channels], full scale at 1."""
    samples: np.ndarray
    if frame.format.name == "s64":  # which PyAV does not convert
        count = frame.samples * frame.layout.nb_channels
        samples = np.frombuffer(bytes(frame.planes[0]), np.int64, count)
    else:
        samples = frame.to_ndarray()
    planar = samples.T if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels)
    return to_float(planar)


def wav_format(header: bytes) -> tuple[str, int, int]:
    """Return (codec as FFmpeg calls it, rate in Hz, channels) of a WAV header up to its sound.

    Raises AudioError where it is none.
    """
    problem = "no sound in it can be read"
    try:
        whole = next(parts(io.BytesIO(header))).file
        with open_input(whole, format="wav") as container:
            codec = container.streams.audio[0].codec_context
            if codec is not None and codec.channels:
                return codec.name, codec.sample_rate, codec.channels
    except av.error.FFmpegError as error:
        problem = error.strerror or str(error)
    except IndexError:
        pass
    raise AudioError(f"a WAV header that cannot be read: {problem}") from None
