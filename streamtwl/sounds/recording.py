"""The sound of a file, cut to what sounds in it; FLAC in and out."""

import contextlib
import io
from pathlib import Path

import numpy as np

from streamtwl.audio.intake import Intake
from streamtwl.audio.recording import Recording
from streamtwl.errors import AudioError
from streamtwl.stages import SAMPLE_RATE

LONGEST_S = 30.0  # of a recording: more than any window sees of one sound
SHORTEST_S = 0.1
FRAME = SAMPLE_RATE // 50  # 20 ms
SILENT_DBFS = -70.0
BELOW_PEAK_DB = 40.0  # what is so far below the loudest frame is silence ...
ABOVE_FLOOR_DB = 8.0  # ... and so is what is no louder than the room, where that is more
AROUND_S = 0.1  # is kept on both sides


def read(file: Path, longest_s: float = LONGEST_S) -> np.ndarray:
    """Return float32[n], 16 kHz mono, of any file that FFmpeg reads, its first `longest_s`.

    Raises AudioError for one that cannot be decoded.
    """
    pieces: list[np.ndarray] = []
    with contextlib.closing(Intake([Recording(file.name, file)])) as intake:
        intake.start()
        [stream] = intake.streams
        for blocks in intake.ticks():
            pieces += [block.samples for block in blocks]
            if stream.position > longest_s * SAMPLE_RATE:
                intake.stop()
        if stream.error is not None:
            raise stream.error
    samples = np.concatenate(pieces) if pieces else np.empty(0, np.float32)
    return samples[: round(longest_s * SAMPLE_RATE)]


def trim(samples: np.ndarray) -> np.ndarray:
    """Return the samples without the silence before and after what sounds.

    Silence is far below the loudest 20 ms, or hardly above the quietest. Nothing is cut inside.
    """
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    if not len(frames):
        return samples
    level = 10 * np.log10(np.square(frames, dtype=np.float64).mean(axis=1) + 1e-12)
    quiet, loud = np.percentile(level, 5), level.max()
    bound = max(SILENT_DBFS, loud - BELOW_PEAK_DB)
    if loud - quiet > 2 * ABOVE_FLOOR_DB:  # there is a room that the sound stands out of
        bound = max(bound, quiet + ABOVE_FLOOR_DB)
    sounding = np.flatnonzero(level >= bound)
    if loud < SILENT_DBFS or not len(sounding):
        return samples[:0]
    around = round(AROUND_S * SAMPLE_RATE)
    start = max(0, sounding[0] * FRAME - around)
    return samples[start : (sounding[-1] + 1) * FRAME + around]


def encode(samples: np.ndarray) -> bytes:
    """Return a FLAC file, 16 kHz mono 16 bit, of float32[n]."""
    import av  # FFmpeg is for files only

    pcm = np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16)
    file = io.BytesIO()
    with av.open(file, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return file.getvalue()


def decode(flac: bytes, called: str) -> np.ndarray:
    """Return float32[n] of such a file; raises AudioError for any other."""
    import av

    try:
        with av.open(io.BytesIO(flac), "r", format="flac") as container:
            stream = container.streams.audio[0]
            if (stream.rate, stream.codec_context.layout.nb_channels) != (SAMPLE_RATE, 1):
                raise AudioError(f"{called}: it is not 16 kHz mono")
            pieces, length = [], 0
            for frame in container.decode(stream):
                pieces.append(frame.to_ndarray().ravel())
                length += len(pieces[-1])
                if length > 1.1 * LONGEST_S * SAMPLE_RATE:
                    raise AudioError(f"{called}: it is longer than {LONGEST_S:g} s")
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise AudioError(f"{called}: it is no FLAC file that can be decoded ({error})") from None
    if not pieces or pieces[0].dtype != np.int16:
        raise AudioError(f"{called}: it is not 16-bit FLAC")
    return np.concatenate(pieces).astype(np.float32) / 32767
