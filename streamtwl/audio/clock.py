"""When was a sample captured? The sound card's clock, tied to the computer's."""

import logging
import time

_log = logging.getLogger(__name__)

LATER_GAIN = 0.005  # of how much later than predicted a report came, into the offset
RESYNC_S = 1.0  # a larger error is a jump, not lateness
RATE_SPAN_S = 60.0  # between two readings of the rate
RATE_GAIN = 0.3  # of a new reading, into the rate estimate
RATE_LIMIT = 1e-3  # share by which a sound card's rate may be off
WALL_REREAD_S = 60.0


class CaptureClock:
    """Maps frame counts of one opening of a device to monotonic and wall-clock seconds.

    Reports of (frames so far, monotonic seconds) come late by some milliseconds, in bursts, but
    never early. So the clock follows their lower edge: at once when one comes earlier than
    predicted, slowly when later. The sound card's rate is read every minute against the monotonic
    clock. The offset between the monotonic and the wall clock is read again every minute too; a
    jump over a second is counted in `wall_jumps` and logged.
    """

    def __init__(self, rate: int) -> None:
        self._nominal_s = self._period_s = 1.0 / rate
        self._frames = 0
        self._at: float | None = None  # monotonic seconds of frame `_frames`
        self._anchor = (0, 0.0)  # where the reading of the rate began: (frames, seconds)
        self._wall_offset_s = time.time() - time.monotonic()
        self._wall_read_at = time.monotonic()
        self.wall_jumps = 0

    def report(self, frames: int, monotonic_s: float) -> None:
        """Take a report that `frames` frames had been captured at `monotonic_s`."""
        late_s = monotonic_s - self.monotonic_at(frames)
        if self._at is None or abs(late_s) > RESYNC_S:
            self._frames, self._at = self._anchor = (frames, monotonic_s)
            return
        self._at = monotonic_s if late_s < 0 else monotonic_s - (1 - LATER_GAIN) * late_s
        self._frames = frames
        since_frames, since_s = self._anchor
        if self._at - since_s >= RATE_SPAN_S and frames > since_frames:
            self._read_rate((self._at - since_s) / (frames - since_frames))
            self._anchor = (frames, self._at)

    def _read_rate(self, period_s: float) -> None:
        if abs(period_s / self._nominal_s - 1) < RATE_LIMIT:
            self._period_s += RATE_GAIN * (period_s - self._period_s)

    def monotonic_at(self, frames: float) -> float:
        """Return the monotonic seconds at which frame `frames` was captured."""
        at = time.monotonic() if self._at is None else self._at
        return at + (frames - self._frames) * self._period_s

    def wall_at(self, frames: float) -> float:
        """Return the wall-clock seconds (Unix time) at which frame `frames` was captured."""
        now = time.monotonic()
        if now - self._wall_read_at >= WALL_REREAD_S:
            offset_s = time.time() - now
            jump_s = offset_s - self._wall_offset_s
            if abs(jump_s) > 1.0:
                self.wall_jumps += 1
                _log.warning("the wall clock jumped by %+.1f s", jump_s)
            self._wall_offset_s, self._wall_read_at = offset_s, now
        return self.monotonic_at(frames) + self._wall_offset_s
