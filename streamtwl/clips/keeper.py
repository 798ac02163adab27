"""A sink that keeps something of each event: a few hops' embeddings, and its sound where wanted.

On the worker's thread it copies what an event needs as soon as that is complete; a thread of its
own, behind a bounded queue, looks for speech, encodes and writes.
"""

import contextlib
import logging
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from streamtwl.clips import moments
from streamtwl.clips.moments import Moments
from streamtwl.clips.speech import SPOKEN, SpeechDetector, SpokenOnTrace
from streamtwl.messages import AnyMessage, Event
from streamtwl.pipeline import Outcome
from streamtwl.sinks import journal_file
from streamtwl.sounds import recording
from streamtwl.sounds.space import WEIGHTS
from streamtwl.stages import SAMPLE_RATE, Backbone, Sink

_log = logging.getLogger(__name__)

AROUND = SAMPLE_RATE  # samples before and after an event
LONGEST = 30 * SAMPLE_RATE  # of a clip; of a longer event its beginning
RECENT_S = 40.0  # of sound has to be at hand: LONGEST, and what revised onsets and hops add
HOPS = 4  # of an event whose embeddings are kept
FIRST = SAMPLE_RATE // 2  # after an onset, where a window has heard some of it
REMEMBERED_S = 45.0  # of hops
DONE = 1000  # ids of events that are kept, so that later messages on them do not begin anew
WAITING = 8  # events between the worker and the writer: 15 MB of sound
SWEEP_S = 30.0
CLOSING_S = 10.0

Sound = Callable[[str, int, int], np.ndarray]  # of a source, from and to a position: float32[n]


@dataclass(frozen=True)
class ClipSettings:
    """Where clips are kept, how long, and how much of them."""

    folder: Path
    max_age_s: float
    max_bytes: float


@dataclass(frozen=True, slots=True)
class _Hop:
    position: int  # the windows' end
    start: int  # of the longest window
    spoken: float
    embeddings: Mapping[str, np.ndarray]


@dataclass(slots=True)
class _Stream:
    hops: deque[_Hop] = field(default_factory=deque)
    waiting: dict[str, Event] = field(default_factory=dict)  # by id
    broke_off: bool = False


@dataclass(frozen=True)
class _Kept:
    """One event on its way to the writer."""

    event: Event
    at: float
    embeddings: Mapping[str, np.ndarray]
    samples: np.ndarray | None  # None: no clip is wanted, or somebody speaks on the trace


class Keeper(Sink):
    """Keeps events of one session; what it could not keep is counted."""

    def __init__(
        self, journal: Path, clips: ClipSettings | None = None, lossless: bool = False
    ) -> None:
        """`lossless`: wait for a slow disk instead of dropping.

        Raises UsageError where clips are wanted and nothing can find speech.
        """
        self._clips, self._lossless = clips, lossless
        self._detector = SpeechDetector() if clips else None
        self._journal = journal
        self.kept_clips = self.withheld_clips = 0  # counted by the writer, as is `_failed`
        self._failed = self._full = 0
        self._streams: dict[str, _Stream] = {}
        self._names: list[str] = []
        self._sound: Sound | None = None
        self._done: dict[str, None] = {}
        self._queue: queue.Queue[_Kept | str | None] = queue.Queue(WAITING)
        self._late: deque[str] = deque(maxlen=DONE)  # retracted while the queue was full
        self._thread = threading.Thread(target=self._run, name="clips", daemon=True)
        self._thread.start()

    def attach(
        self, names: Sequence[str], by_window: Mapping[str, Backbone], sound: Sound
    ) -> Callable[[Outcome], None]:
        """Take a session's sources, backbones and recent sound; return what takes its outcomes."""
        self._names, self._sound = list(names), sound
        self._streams = {name: _Stream() for name in names}
        self._spoken = SpokenOnTrace(by_window)
        self._named = {name: moments.named(name, each.sha256) for name, each in by_window.items()}
        return self._take

    def emit(self, message: AnyMessage) -> None:
        """Take what is published of an event."""
        if not isinstance(message, Event) or message.source not in self._streams:
            return
        stream = self._streams[message.source]
        if message.void:
            if stream.waiting.pop(message.id, None) is None:
                self._put(message.id)
        elif message.id not in self._done:
            stream.waiting[message.id] = message
            if stream.broke_off:
                self._cut(stream, message)

    @property
    def dropped_clips(self) -> int:
        """Events of which nothing could be kept."""
        return self._failed + self._full

    def figures(self) -> dict[str, Any]:
        """Return how many clips there came to be, and why others did not."""
        return {
            "kept_clips": self.kept_clips,
            "withheld_clips": self.withheld_clips,
            "dropped_clips": self.dropped_clips,
        }

    def close(self) -> None:
        """Keep what is open as far as it goes, for up to 10 s."""
        for stream in self._streams.values():
            for event in [*stream.waiting.values()]:
                self._cut(stream, event)
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=CLOSING_S)
        self._thread.join(CLOSING_S)

    # --- on the worker's thread ---

    def _take(self, outcome: Outcome) -> None:
        """Note a hop's embeddings, and cut the events that are complete by now."""
        stream = self._streams[self._names[outcome.stream]]
        stream.broke_off = outcome.patch is None
        if outcome.patch is not None and outcome.final:
            window, scores = outcome.patch.window, outcome.patch.scores
            longest = round(max(score.length_s for score in scores) * SAMPLE_RATE)
            embeddings = {
                self._named[score.window]: score.embedding
                for score in scores
                if score.window in WEIGHTS
            }
            start = max(window.start, window.position - longest)
            hop = _Hop(window.position, start, self._spoken.score(scores), embeddings)
            stream.hops.append(hop)
            while stream.hops[0].position < window.position - REMEMBERED_S * SAMPLE_RATE:
                stream.hops.popleft()
        for event in [*stream.waiting.values()]:
            over = stream.broke_off and event.end is not None
            if over or outcome.position >= _stop(event):
                self._cut(stream, event)

    def _cut(self, stream: _Stream, event: Event) -> None:
        """Pass on what is kept of an event."""
        stream.waiting.pop(event.id, None)
        self._done[event.id] = None
        if len(self._done) > DONE:
            del self._done[next(iter(self._done))]
        start, stop = max(0, event.start - AROUND), _stop(event)
        inside = [h for h in stream.hops if event.start + FIRST <= h.position <= stop]
        inside = inside or [h for h in stream.hops if h.start < stop and h.position > event.start]
        chosen = [inside[i] for i in _spread(len(inside))]
        embeddings = {
            name: np.stack([hop.embeddings[name] for hop in chosen])
            for name in (chosen[0].embeddings if chosen else ())
        }
        around = [hop.spoken for hop in stream.hops if hop.start < stop and hop.position > start]
        samples = None
        if self._clips is not None:
            assert self._sound is not None
            samples = self._sound(event.source, start, stop)
            if max(around, default=1.0) >= SPOKEN or not len(samples):
                samples = None
        self._put(_Kept(event, time.time(), embeddings, samples))

    def _put(self, item: _Kept | str) -> None:
        try:
            self._queue.put(item, block=self._lossless)
        except queue.Full:
            if isinstance(item, str):
                self._late.append(item)
            else:
                self._full += 1

    # --- on its own ---

    def _run(self) -> None:
        store: Moments | None = None
        sweep_at, problem = 0.0, ""
        while True:
            item: _Kept | str | None = ""
            with contextlib.suppress(queue.Empty):
                item = self._queue.get(timeout=max(0.0, sweep_at - time.monotonic()))
            if item is None and not self._late:
                break
            try:
                store = store or Moments(self._journal)
                if isinstance(item, _Kept):
                    self._keep(store, item)
                elif item:
                    store.forget(item)
                while self._late and not isinstance(item, _Kept) and self._queue.empty():
                    store.forget(self._late.popleft())
                if time.monotonic() >= sweep_at:
                    sweep_at = time.monotonic() + SWEEP_S
                    self._sweep(store)
            except (sqlite3.Error, OSError) as error:
                sweep_at = time.monotonic() + SWEEP_S
                self._failed += isinstance(item, _Kept)
                if (now := f"{getattr(error, 'strerror', None) or error}") != problem:
                    _log.warning("events are not kept for `review`: %s", now)
                problem = now
                if store is not None and journal_file.damaged(error):
                    store.close()
                    store = None
            if item is None:
                break
        if store is not None:
            store.close()

    def _keep(self, store: Moments, kept: _Kept) -> None:
        clip = flac = None
        if self._clips is not None and self._detector is not None:
            if kept.samples is None or self._detector.finds(kept.samples):
                self.withheld_clips += 1
            else:
                clip = moments.clip_path(self._clips.folder, kept.event.id)
                flac = recording.encode(kept.samples)
        store.add(kept.event, kept.at, clip, kept.embeddings)  # first: it leads to the clip
        if clip is not None and flac is not None:
            moments.write_clip(clip, flac)
            self.kept_clips += 1

    def _sweep(self, store: Moments) -> None:
        store.sweep(time.time())
        if self._clips is not None:
            bounds = self._clips.max_age_s, self._clips.max_bytes
            moments.bound(self._clips.folder, time.time(), *bounds)


def _stop(event: Event) -> int:
    """Return the position at which an event's clip ends."""
    longest = event.start - AROUND + LONGEST
    return longest if event.end is None else min(longest, event.end + AROUND)


def _spread(count: int) -> list[int]:
    """Return up to HOPS indices of `count`, evenly spread."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(HOPS, count))})
