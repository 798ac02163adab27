"""Windows: the stretch of sound that one patch is computed from."""

from dataclasses import dataclass

import numpy as np

from streamtwl.audio.block import SAMPLE_RATE, Block
from streamtwl.features.log_mel import FRAME, FRAME_HOP, MEL_BANDS, LogMel

WINDOW_FRAMES = 96
WINDOW = (WINDOW_FRAMES - 1) * FRAME_HOP + FRAME  # 15,600 samples, 0.975 s
SILENCE_DBFS = -120.0


@dataclass(frozen=True, slots=True)
class Window:
    """One window of one stream, ready for the backbone."""

    stream: int
    position: int  # 16 kHz samples from the stream's start to the window's end
    log_mel: np.ndarray  # float32[96, 64]
    level_dbfs: float  # RMS of the newest hop, of the whole window where it is the first
    captured_at: float | None  # wall-clock seconds at `position`; None for files
    ready_at: float  # monotonic seconds at which the resampler gave the window's last sample
    stretch: int = 0  # position at which the gapless stretch begins that the window is in


class Windower:
    """Blocks of several streams in, their windows out: one every hop, none across a gap.

    `hop_s` is a multiple of 10 ms. The last block of a stream is padded with zeros to the next hop,
    as YAMNet's reference does; a stream shorter than a window gives one window.
    """

    def __init__(self, hop_s: float) -> None:
        self._hop = round(hop_s * SAMPLE_RATE / FRAME_HOP) * FRAME_HOP
        self._streams: dict[int, _Frames] = {}
        self.dropped: dict[int, int] = {}  # stream: hops that gaps made unscorable

    def push(self, blocks: list[Block]) -> list[list[Window]]:
        """Return the windows that these blocks complete, in batches with at most one a stream."""
        windows = [self._windows_of(block) for block in blocks]
        depth = max(map(len, windows), default=0)
        return [[ws[i] for ws in windows if i < len(ws)] for i in range(depth)]

    def needs(self, stream: int) -> int:
        """Return how many more samples complete the stream's next window."""
        frames = self._streams.get(stream)
        return WINDOW if frames is None or frames.over else frames.next_end - frames.position

    def _windows_of(self, block: Block) -> list[Window]:
        frames = self._streams.get(block.stream)
        if frames is None or frames.over or frames.position != block.position:
            if frames is not None:
                self._count_dropped(block.stream, frames, block.position)
            frames = self._streams[block.stream] = _Frames(block.position, self._hop)
        cut = frames.push(block.samples)
        frames.over = block.breaks_off
        if block.last:
            del self._streams[block.stream]
            cut += frames.pad()
        end = block.position + len(block.samples)
        # After the padding, `position` may be beyond the stream's end: it speaks up to the end.
        return [
            Window(
                stream=block.stream,
                position=min(position, end),
                log_mel=log_mel,
                level_dbfs=level_dbfs,
                captured_at=(
                    None
                    if block.captured_at is None
                    else block.captured_at - max(0, end - position) / SAMPLE_RATE
                ),
                ready_at=block.ready_at,
                stretch=frames.stretch,
            )
            for position, log_mel, level_dbfs in cut
        ]

    def _count_dropped(self, stream: int, frames: "_Frames", resumed_at: int) -> None:
        """Count the windows that a gapless stream would have had until the first one to come."""
        missing = resumed_at + WINDOW - frames.next_end
        hops = max(0, -(-missing // self._hop))
        self.dropped[stream] = self.dropped.get(stream, 0) + hops


class _Frames:
    """The frames of one gapless stretch of one stream, cut into windows."""

    def __init__(self, position: int, hop: int) -> None:
        self.stretch = position  # where it begins
        self.over = False  # the sound broke off: what comes next is another stretch
        self.position = position  # of the next sample
        self._start = position  # of the next window
        self._hop = hop
        self._log_mel = LogMel()
        self._frames = np.empty((0, MEL_BANDS), np.float32)
        self._samples = np.empty(0, np.float32)  # from `_start` on
        self._first = True

    @property
    def next_end(self) -> int:
        """The position at which the next window is complete."""
        return self._start + WINDOW

    def push(self, samples: np.ndarray) -> list[tuple[int, np.ndarray, float]]:
        """Return (end position, log-mel float32[96, 64], level in dBFS) of each new window."""
        self._samples = np.concatenate((self._samples, samples))
        return self._cut(samples)

    def pad(self) -> list[tuple[int, np.ndarray, float]]:
        """Pad with zeros to the next hop; return the window that this completes, if any."""
        heard = len(self._samples)
        told = 0 if self._first else WINDOW - self._hop
        return self._cut(np.zeros(WINDOW - heard, np.float32)) if heard > told else []

    def _cut(self, samples: np.ndarray) -> list[tuple[int, np.ndarray, float]]:
        """Cut the windows that these samples, or this padding, complete."""
        self.position += len(samples)
        self._frames = np.concatenate((self._frames, self._log_mel.push(samples)))
        cut = []
        while len(self._frames) >= WINDOW_FRAMES:
            newest = self._samples[0 if self._first else WINDOW - self._hop : WINDOW]
            cut.append((self.next_end, self._frames[:WINDOW_FRAMES], _level_dbfs(newest)))
            self._frames = self._frames[self._hop // FRAME_HOP :]
            self._samples = self._samples[self._hop :]
            self._start += self._hop
            self._first = False
        return cut


def _level_dbfs(samples: np.ndarray) -> float:
    mean_square = float(np.dot(samples, samples)) / max(1, len(samples))
    return max(SILENCE_DBFS, 10 * float(np.log10(max(mean_square, 1e-30))))
