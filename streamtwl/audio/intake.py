"""Where the sources meet: their sound becomes blocks of 16 kHz mono, read by one worker."""

import logging
import math
import select
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from streamtwl.audio.clock import CaptureClock
from streamtwl.audio.level import LevelMeter
from streamtwl.audio.mix import Mixer
from streamtwl.audio.resample import Resampler
from streamtwl.errors import AudioError
from streamtwl.stages import SAMPLE_RATE, Block, Chunk, Source, State

_log = logging.getLogger(__name__)

FULL_SCALE = 32767 / 32768
SAMPLE_LIMIT = 16.0  # 24 dB over full scale; beyond that it is no audio
BAD_SHARE = 0.01  # of the samples so far: their scale or their format is not what was said
MOVES = 100  # frames, in which most sound changes
STILL_S = 10.0  # of one value, then a live source is `silent`: muted, or its switch is off
TICK_S = 0.1  # the longest wait for sound, so that stop requests and status come through
AHEAD_S = 0.03  # wake so long before the next window is due
SLEEP_S = 1.0  # of the machine, after which sound does not join on


def machine_slept_s() -> float:
    """Return how long the machine has been suspended in all; 0 where the system does not say."""
    boot = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(boot) - time.clock_gettime(time.CLOCK_MONOTONIC)


class Stream:
    """One source on its way into the pipeline, and what went wrong with it."""

    def __init__(self, number: int, source: Source) -> None:
        self.number = number
        self.source = source
        self.position = 0  # 16 kHz samples handed on, gaps included
        self.dropped_samples = 0  # 16 kHz samples missing on the timeline
        self.bad_samples = 0  # not finite or beyond SAMPLE_LIMIT, set to zero
        self.clipped_samples = 0  # at full scale or beyond
        self.capture_delay_ms: float | None = None  # sound card to resampler
        self.resampling_delay_ms = 0.0
        self.samples_at = -math.inf  # monotonic, when the newest samples came
        self.silent: str | None = None  # why a live source gives only one value
        self.error: AudioError | None = None
        self.ended = False
        self.meter: LevelMeter | None = None  # which is given all sound
        self._slept_s = machine_slept_s()
        self._clock: CaptureClock | None = None
        self._jumps_before = 0  # of the wall clock, in earlier openings
        self._resampler: Resampler | None = None
        self._mixer = Mixer(source.name, source.channel)
        self._samples = 0  # of all channels, received
        self._still_s = 0.0  # of one value, up to now
        self._last = np.zeros((1, 0), np.float32)  # frame of a live source
        self._expected: tuple[int, int, int] | None = None  # (opened_at, rate, next frame)

    def wall_jumps(self) -> int:
        """Return how often the wall clock jumped by over a second."""
        return self._jumps_before + (self._clock.wall_jumps if self._clock else 0)

    @property
    def state(self) -> State:
        """The source's state, or `silent` while it gives only zeros, or one other value."""
        listening = self.source.state == "listening"
        return "silent" if listening and self.silent is not None else self.source.state

    def read(self, now: float) -> list[Block]:
        """Return the source's new blocks; the last block of a stream is marked as such."""
        blocks = []
        slept_s, self._slept_s = self._slept_s, machine_slept_s()
        if self.source.paced and self._slept_s - slept_s > SLEEP_S:
            blocks = self._break_off()
        try:
            chunk = self.source.read(now)
            blocks += self._take(chunk) if chunk is not None else []
        except AudioError as error:
            _log.info("source '%s' ends: %s", self.source.name, error)
            self.error = error
        self.samples_at = now if blocks else self.samples_at
        if self.source.state in ("stalled", "lost"):
            blocks += self._break_off()
        if self.error is not None or self.source.state == "ended":
            self.ended = True
            blocks.append(self._block(self._flush(), last=True))
            if self.meter is not None:
                self.meter.finish()
        return blocks

    def _take(self, chunk: Chunk) -> list[Block]:
        before: list[Block] = []
        joins_on = self._expected == (chunk.opened_at, chunk.rate, chunk.start)
        if self._resampler is None or not joins_on:
            before = self._break_off()
            self._begin(chunk, joins_on)
        end = chunk.start + len(chunk.frames)
        self._expected = (chunk.opened_at, chunk.rate, end)
        if chunk.last_frame_at is not None and self._clock is not None:
            self._clock.report(end, chunk.last_frame_at)
        assert self._resampler is not None
        mono = self._mono(chunk.frames, chunk.rate)
        if self.meter is not None:
            self.meter.push(mono)
        return [*before, self._block(self._resampler.push(mono))]

    def _begin(self, chunk: Chunk, joins_on: bool) -> None:
        """Start anew after a gap: the resampler's memory would smear over it."""
        reopened = self._expected is None or self._expected[:2] != (chunk.opened_at, chunk.rate)
        if reopened and chunk.last_frame_at is not None:
            self._jumps_before = self.wall_jumps()
            self._clock = CaptureClock(chunk.rate)
        self._resampler = Resampler(chunk.rate)
        if not joins_on:
            position = chunk.opened_at + round(chunk.start * SAMPLE_RATE / chunk.rate)
            self.dropped_samples += max(0, position - self.position)
            self.position = max(self.position, position)
        if self.meter is not None:
            self.meter.begin(self.position, chunk.rate)

    def _block(self, samples: np.ndarray, last: bool = False, breaks_off: bool = False) -> Block:
        ready_at = time.monotonic()
        captured_at = None
        start, self.position = self.position, self.position + len(samples)
        if self._clock is not None and self._expected is not None:
            _, rate, last_at = self._expected
            delay_s = self._resampler.delay_s if self._resampler else 0.0
            captured_at = self._clock.wall_at(last_at - delay_s * rate)
            self.resampling_delay_ms = 1000 * delay_s
            age_s = ready_at - self._clock.monotonic_at(last_at - delay_s * rate)
            self.capture_delay_ms = 1000 * (age_s - delay_s)
        return Block(self.number, start, samples, captured_at, ready_at, last, breaks_off)

    def _break_off(self) -> list[Block]:
        """Return the end of the source's sound so far; a gap follows."""
        return [] if self._resampler is None else [self._block(self._flush(), breaks_off=True)]

    def _flush(self) -> np.ndarray:
        resampler, self._resampler = self._resampler, None
        if self.meter is not None:
            self.meter.end()
        return np.empty(0, np.float32) if resampler is None else resampler.flush()

    def _mono(self, frames: np.ndarray, rate: int) -> np.ndarray:
        size = np.abs(frames)
        self.clipped_samples += int(np.count_nonzero(size >= FULL_SCALE))
        sound = size <= SAMPLE_LIMIT  # False for NaN as well
        self._samples += sound.size
        if not sound.all():
            self._count_bad(frames[~sound])
            frames = np.where(sound, frames, np.float32(0))
        if self.source.live:
            self._watch_still(frames, rate)
        return self._mixer.mix(frames, rate)

    def _count_bad(self, samples: np.ndarray) -> None:
        few = self.bad_samples <= BAD_SHARE * self._samples
        self.bad_samples += len(samples)
        if few and self.bad_samples > BAD_SHARE * self._samples:
            finite = np.abs(samples[np.isfinite(samples)])
            what = f"reach {finite.max():.0f}, full scale is 1" if len(finite) else "are not finite"
            _log.warning(
                "'%s': samples %s, and are taken as zero: are they integers, or scaled as such?",
                self.source.name,
                what,
            )

    def _watch_still(self, frames: np.ndarray, rate: int) -> None:
        """Note when a live source gives only one value, mostly zero, and when sound returns."""
        channels = frames.shape[1]
        before = self._last if self._last.shape[1] == channels else np.zeros((1, channels), "f4")
        self._last = frames[-1:] if len(frames) else before
        moved = _last_move(frames[-MOVES:])  # which is where it is as a rule
        moved = moved or _last_move(np.concatenate((before, frames)))
        self._still_s = 0.0 if moved else self._still_s
        self._still_s += (moved or len(frames)) / rate
        still = self._still_s >= STILL_S
        if still and self.silent is None:
            only = "only one value" if self._last.any() else "only zeros"
            self.silent = f"{only} for {STILL_S:g} s: is it muted, or its switch off?"
            _log.warning("'%s' gives %s", self.source.name, self.silent)
        elif not still and self.silent is not None:
            self.silent = None
            _log.warning("'%s' gives sound again", self.source.name)


class Intake:
    """Reads the sources in turn, at most `width` of them open at once.

    Sound is left unread until a window needs it.
    """

    def __init__(self, sources: Iterable[Source], width: int | None = None) -> None:
        self._waiting = enumerate(sources)
        self._width = width
        self.streams: list[Stream] = []  # open
        self.stopping = False
        self.reading: Stream | None = None  # under way now; a file may keep it waiting for long
        self._woken = threading.Event()

    def start(self) -> None:
        """Open as many sources as fit at once. A source that fails to open ends its stream."""
        while self._width is None or len(self.streams) < self._width:
            following = next(self._waiting, None)
            if following is None:
                return
            stream = Stream(*following)
            try:
                stream.source.start()
            except AudioError as error:
                stream.error = error
            self.streams.append(stream)

    def ticks(self, needs: Callable[[int], int] = lambda _stream: 0) -> Iterator[list[Block]]:
        """Yield blocks, at most one per stream, or [] when nothing came; until all have ended.

        `needs` returns how many samples a stream, by its number, still needs for its next window.
        """
        while self.streams:
            self._wait(needs)
            now = time.monotonic()
            ready = [
                self._read(stream, now) if self._is_due(stream, now, needs) else []
                for stream in self.streams
            ]
            for i in range(max(map(len, ready), default=0)):
                yield [blocks[i] for blocks in ready if i < len(blocks)]
            if not any(ready):
                yield []
            self._replace_ended()

    def stop(self) -> None:
        """Take no new sound; `ticks` continues until all received sound has been yielded."""
        self.stopping = True
        self._waiting = enumerate(())
        for stream in self.streams:
            stream.source.stop()

    def wake(self) -> None:
        """End a wait that is under way, from another thread."""
        self._woken.set()

    def close(self) -> None:
        """Close every source."""
        for stream in self.streams:
            stream.source.close()

    def _read(self, stream: Stream, now: float) -> list[Block]:
        self.reading = stream
        try:
            return stream.read(now)
        finally:
            self.reading = None

    def _is_due(self, stream: Stream, now: float, needs: Callable[[int], int]) -> bool:
        """Whether a stream is to be read: many that are waited for in turn are left alone."""
        return self.stopping or _window_due_at(stream, needs) - AHEAD_S <= now

    def _wait(self, needs: Callable[[int], int]) -> None:
        if not self.stopping:
            due_at = min(_window_due_at(stream, needs) for stream in self.streams)
            self._woken.wait(max(0.0, due_at - AHEAD_S - time.monotonic()))
        now = time.monotonic()
        # Sound that others have waiting is no reason to look again and again
        near = [stream.source for stream in self.streams if self._is_due(stream, now, needs)]
        due_s = min((source.due_in(now) for source in near), default=0.0)
        filenos = [fileno for source in near for fileno in source.filenos()]
        if due_s > 0:
            select.select(filenos, [], [], min(due_s, TICK_S))

    def _replace_ended(self) -> None:
        for stream in [stream for stream in self.streams if stream.ended]:
            stream.source.close()
            self.streams.remove(stream)
        if not self.stopping:
            self.start()


def _last_move(frames: np.ndarray) -> int:
    """Return how many frames there are since the value last changed, with that one; 0: never."""
    moved = np.flatnonzero((frames[1:] != frames[:-1]).any(axis=1))
    return len(frames) - 1 - int(moved[-1]) if len(moved) else 0


def _window_due_at(stream: Stream, needs: Callable[[int], int]) -> float:
    """Return the monotonic seconds at which the stream's next window will be complete."""
    if not stream.source.clocked:
        return 0.0  # unknown
    return stream.samples_at + needs(stream.number) / SAMPLE_RATE
