"""Windows: the stretches of sound that one patch is computed from."""

from collections.abc import Iterator, Sequence

import numpy as np

from streamtwl.features.spectrum import FRAME_HOP, Spectrum
from streamtwl.stages import SAMPLE_RATE, Backbone, Block, End, Window, WindowKind

SILENCE_DBFS = -120.0
FIRST_S = 0.96  # of sound, before the first decision: YAMNet's window


class Windower:
    """Blocks of several streams in, their windows out: one every hop, none across a gap.

    `hop_s` is a multiple of 10 ms. The first window of a stretch of sound without gaps comes when
    the first of `kinds` has FIRST_S of it (or a hop, or what another backbone needs at least, where
    that is more); longer ones grow until they are full. The last block of a stream is padded with
    zeros to the next hop, as YAMNet's reference does, or only to the next frame where a hop is
    longer than FIRST_S; a stream shorter than a window gives one.
    """

    def __init__(
        self, hop_s: float, backbones: Sequence[Backbone], kinds: Sequence[WindowKind]
    ) -> None:
        self._backbones = backbones
        first = backbones[kinds[0].backbone]
        self.hop = round(hop_s * SAMPLE_RATE / first.frame_hop) * first.frame_hop  # samples
        shortest = [samples_in(each, each.lengths_s[0]) for each in backbones]
        self._least = max(samples_in(first, min(FIRST_S, kinds[0].length_s)), *shortest)
        self._size = max(self._least, samples_in(first, min(hop_s, kinds[0].length_s)))
        longest = [max(k.length_s for k in kinds if k.backbone == b) for b in range(len(backbones))]
        self._frames = [frames_in(*each) for each in zip(backbones, longest, strict=True)]
        self._stretches: dict[int, _Stretch] = {}
        self.dropped: dict[int, int] = {}  # stream: hops that gaps made unscorable

    def push(self, blocks: list[Block]) -> Iterator[list[Window] | End]:
        """Yield batches of windows with at most one a stream, and where sound broke off."""
        cut: list[list[Window]] = []
        for block in blocks:
            stretch = self._stretches.get(block.stream)
            if stretch is not None and not stretch.over and stretch.position != block.position:
                yield End(block.stream, stretch.position, None, False)  # a gap
                stretch.over = True
            cut.append(self._cut(block))
        for i in range(max(map(len, cut), default=0)):
            yield [windows[i] for windows in cut if i < len(windows)]
        for block in blocks:
            if block.last or block.breaks_off:
                end = block.position + len(block.samples)
                yield End(block.stream, end, block.captured_at, block.last)

    def needs(self, stream: int) -> int:
        """Return how many more samples complete the stream's next window."""
        stretch = self._stretches.get(stream)
        return self._size if stretch is None or stretch.over else stretch.due - stretch.position

    def _cut(self, block: Block) -> list[Window]:
        """Return the windows that a block completes."""
        stretch = self._stretches.get(block.stream)
        if stretch is None or stretch.over:
            if stretch is not None:
                self._count_dropped(block.stream, stretch, block.position)
            features = [*map(_Features, self._backbones, self._frames)]
            sizes = self.hop, self._size, self._least
            stretch = _Stretch(block.stream, block.position, sizes, features)
            self._stretches[block.stream] = stretch
        windows = stretch.push(block)
        stretch.over = block.breaks_off
        if block.last:
            del self._stretches[block.stream]
        return windows

    def _count_dropped(self, stream: int, before: "_Stretch", resumed_at: int) -> None:
        """Count the windows that a gapless stream would have had until the first one to come."""
        missing = resumed_at + self._size - before.due
        hops = max(0, -(-missing // self.hop))
        self.dropped[stream] = self.dropped.get(stream, 0) + hops


class _Stretch:
    """The sound of one stream since its start or since a gap, cut into windows."""

    def __init__(
        self, stream: int, start: int, sizes: tuple[int, int, int], features: list["_Features"]
    ) -> None:
        """Take the samples of a hop, of the first window, and of the shortest that can be one."""
        self.over = False  # the sound broke off: what comes next is another stretch
        self.position = start  # of the next sample
        self._hop, self._size, self._least = sizes
        self.due = start + self._size  # position at which the next window is complete
        self._stream, self._start = stream, start
        self._spectrum = Spectrum()
        self._features = features
        self._samples = np.empty(0, np.float32)  # of the next window
        self._first = True

    def push(self, block: Block) -> list[Window]:
        """Return the windows that a block completes, after the last one the padded one too."""
        end = block.position + len(block.samples)
        self._samples = np.concatenate((self._samples, block.samples))
        windows = self._complete(block.samples, end, block)
        fresh = len(self._samples) - (0 if self._first else self._size - self._hop)
        if block.last and fresh > 0:
            self.due -= (early := self._early())
            padding = np.zeros(self._size - early - len(self._samples), np.float32)
            windows += self._complete(padding, end, block)
        return windows

    def _early(self) -> int:
        """Return how many samples before a hop that is long the last window ends: whole frames."""
        if self._hop <= FIRST_S * SAMPLE_RATE:
            return 0
        missing = self._size - len(self._samples)
        if self._first:
            missing = min(missing, self._size - self._least)
        return missing // FRAME_HOP * FRAME_HOP

    def _complete(self, samples: np.ndarray, end: int, block: Block) -> list[Window]:
        """Return the windows that these samples, or this padding, complete."""
        self.position += len(samples)
        power = self._spectrum.push(samples)
        for features in self._features:
            features.push(samples, power)
        windows = []
        while all(features.reaches(self.due - self._start) for features in self._features):
            windows.append(self._window(end, block))
            self._samples = self._samples[self._hop :]
            self.due += self._hop
            self._first = False
        return windows

    def _window(self, end: int, block: Block) -> Window:
        """Cut the window that is due; padded, it speaks up to the stream's end."""
        position = min(self.due, end)
        newest = self._samples[0 if self._first else self._size - self._hop : self._size]
        captured_at = block.captured_at
        if captured_at is not None:
            captured_at -= (end - position) / SAMPLE_RATE
        return Window(
            stream=self._stream,
            position=position,
            start=self._start,
            first=self._first,
            features=tuple(each.cut(self.due - self._start) for each in self._features),
            level_dbfs=_level_dbfs(newest),
            captured_at=captured_at,
            ready_at=block.ready_at,
        )


class _Features:
    """The newest frames of one backbone's front end, as many as its longest window takes."""

    def __init__(self, backbone: Backbone, longest: int) -> None:
        self._front_end = backbone.front_end()
        self._frame, self._hop = backbone.frame, backbone.frame_hop
        self._longest = longest
        self._pieces: list[np.ndarray] = []  # float32[m, bands] each, in order
        self._kept = 0  # frames in them
        self._dropped = 0  # frames before them

    def push(self, samples: np.ndarray, power: np.ndarray) -> None:
        frames = self._front_end.push(samples, power)
        self._pieces.append(frames)
        self._kept += len(frames)

    def reaches(self, end: int) -> bool:
        """Whether the frames go up to `end`, in samples from the start of the stretch."""
        return self._dropped + self._kept >= self._count(end)

    def cut(self, end: int) -> np.ndarray:
        """Return the newest frames before `end`, float32[m, bands], and forget older ones."""
        frames = np.concatenate(self._pieces)
        stop = self._count(end) - self._dropped
        over = max(0, stop - self._longest)
        self._pieces = [frames[over:]]
        self._kept -= over
        self._dropped += over
        return frames[over:stop]

    def _count(self, end: int) -> int:
        """Return how many frames are complete at `end`."""
        return max(0, (end - self._frame) // self._hop + 1)


def samples_in(backbone: Backbone, length_s: float) -> int:
    """Return the samples that a window of so many frames' hops covers, its last frame whole."""
    return (frames_in(backbone, length_s) - 1) * backbone.frame_hop + backbone.frame


def frames_in(backbone: Backbone, length_s: float) -> int:
    """Return the frames of a window."""
    return round(length_s * SAMPLE_RATE / backbone.frame_hop)


def _level_dbfs(samples: np.ndarray) -> float:
    mean_square = float(np.dot(samples, samples)) / max(1, len(samples))
    return max(SILENCE_DBFS, 10 * float(np.log10(max(mean_square, 1e-30))))
