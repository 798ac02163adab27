"""How loud it is: A-weighted at the source's own rate, before anything is resampled.

A recursive filter by the bilinear transform is off by decibels near half the sample rate. So the
curve is a finite impulse response made from IEC 61672-1's own formula, minimum phase, and convolved
by FFT in blocks of a quarter of a second: within 0.4 dB of the formula at all frequencies that the
rate has.
"""

from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from streamtwl.stages import SAMPLE_RATE

# IEC 61672-1:2013, annex E: the poles of the A-weighting, in Hz
POLES_HZ = (20.598997, 107.65265, 737.86223, 12194.217)
RESPONSE_S = 0.06  # of the impulse response; what it leaves out costs 0.4 dB at 10 Hz
BLOCK_S = 0.25  # of sound that is filtered at once, at least
STEP_S = 0.01  # of sound whose mean power is taken at once
FAST_S = 0.125  # time constant F
SAMPLED_STEPS = 10  # from one sample of the fast level to the next, for L10, L90 and "loud"
SETTLED_S = 0.5  # of a stretch, before a fast level counts as the highest: four time constants
MINUTE_S = 60.0
LEAST_S = 3.0  # of the last minute, to be one
FLOOR_DB = -120.0  # relative to full scale
KEPT = 60  # minutes and crossings that nobody has taken
FALLS_DB = 3.0  # below the threshold, before "loud" is over
QUIET_S = 1.0  # and for so long


@dataclass(frozen=True, slots=True)
class Minute:
    """A minute of sound, whatever gaps are in it. All levels but the last are A-weighted."""

    position: int  # of its end
    seconds: float  # fewer where the stream ended
    leq_db: float
    l10_db: float  # that the fast level exceeds for a tenth of the time
    l90_db: float
    max_db: float  # of the fast level
    leq_dbfs: float  # unweighted, dB full scale


@dataclass(frozen=True, slots=True)
class Crossing:
    """It became loud, or is so no more."""

    phase: Literal["onset", "offset"]
    number: int
    start: int  # position
    end: int | None


class LevelMeter:
    """The level of one stream, in dB full scale (RMS of 1 is 0), or calibrated.

    `offset_db` is what to add: the sound pressure level of a calibrator, less what is shown for it.
    `loud_db` is the fast level at which it is loud. `minutes` and `crossings` are for their reader
    to take.
    """

    def __init__(self, offset_db: float | None = None, loud_db: float | None = None) -> None:
        self.calibrated = offset_db is not None
        self.fast_db: float | None = None  # A-weighted, time constant F, now
        self.minutes: deque[Minute] = deque(maxlen=KEPT)
        self.crossings: deque[Crossing] = deque(maxlen=KEPT)
        self._offset_db = offset_db or 0.0
        self._loud = None if loud_db is None else _Loud(loud_db, self.crossings)
        self._minute = _Sums()
        self._rate = 0
        self._step = 1  # samples
        self._start = 0  # position of the stretch's first step
        self._steps = 0  # since then
        self._fast = 0.0  # power
        self._highest = 0.0  # of it, since the last sample, where it has settled
        self._pending: list[np.ndarray] = []
        self._waiting = 0  # samples in them; those of the filter's memory have been taken
        self._rest = np.empty(0), np.empty(0)  # of a step: weighted, as it is

    def begin(self, position: int, rate: int) -> None:
        """Begin a stretch of sound without gaps at `position`; what comes has `rate` Hz."""
        self.end()
        self._rate, self._step = rate, round(STEP_S * rate)
        skipped = _weighting(rate)[0]  # samples, until the filter is full
        self._start = position + round(skipped / rate * SAMPLE_RATE)
        self._steps, self._fast, self._highest = 0, 0.0, 0.0

    def end(self) -> None:
        """The sound broke off: what is loud is over."""
        if self._waiting > _weighting(self._rate)[0]:
            rest = np.concatenate(self._pending)
            self._filter(np.pad(rest, (0, _weighting(self._rate)[1] - len(rest))), len(rest))
        self._pending, self._waiting, self._rest = [], 0, (np.empty(0), np.empty(0))
        self.fast_db = None
        if self._loud is not None:
            self._loud.end()

    def finish(self) -> None:
        """The stream is over: what there is of a minute is one."""
        self.end()
        if len(self._minute.sampled) * SAMPLED_STEPS * STEP_S >= LEAST_S:
            self._close_minute()

    def push(self, samples: np.ndarray) -> None:
        """Take float32[n] of the stretch, at its rate."""
        self._pending.append(samples)
        self._waiting += len(samples)
        response, size = _weighting(self._rate)
        if self._waiting < size:
            return
        before = size - response  # samples a block
        pending = np.concatenate(self._pending)
        while len(pending) >= size:
            self._filter(pending[:size], size)
            pending = pending[before:]
        self._pending, self._waiting = [pending], len(pending)

    def _filter(self, block: np.ndarray, end: int) -> None:
        """Weigh a block as long as the FFT; take it up to `end`."""
        response, size = _weighting(self._rate)
        weighted = np.fft.irfft(np.fft.rfft(block) * _spectrum(self._rate), size)
        self._take(weighted[response:end], block[response:end])

    def _take(self, weighted: np.ndarray, plain: np.ndarray) -> None:
        step = self._step
        weighted, plain = (
            np.append(*both) for both in zip(self._rest, (weighted, plain), strict=True)
        )
        whole = len(weighted) // step
        self._rest = weighted[whole * step :], plain[whole * step :]
        powers, plain_powers = (
            np.square(each[: whole * step].reshape(whole, step)).mean(axis=1)
            for each in (weighted, plain)
        )
        kept = np.exp(-step / self._rate / FAST_S)
        for power, plain_power in zip(powers.tolist(), plain_powers.tolist(), strict=True):
            # the mean so far, until there is as much as the time constant
            share = max(1 - kept, 1 / (self._steps + 1))
            self._fast += share * (power - self._fast)
            self._steps += 1
            if self._steps * STEP_S > SETTLED_S:
                self._highest = max(self._highest, self._fast)
            self._minute.add(power, plain_power)
            if self._steps % SAMPLED_STEPS == 0:
                self._sample()

    def _sample(self) -> None:
        highest, self._highest = self._highest, 0.0
        self.fast_db = self._db(self._fast)
        self._minute.sampled.append(self._fast)
        self._minute.highest = max(self._minute.highest, highest)
        if self._loud is not None:
            self._loud.take(self._position, self._db(max(highest, self._fast)))
        if len(self._minute.sampled) * SAMPLED_STEPS * STEP_S >= MINUTE_S:
            self._close_minute()

    @property
    def _position(self) -> int:
        """Of the end of the last step."""
        return self._start + round(self._steps * self._step / self._rate * SAMPLE_RATE)

    def _close_minute(self) -> None:
        sums, self._minute = self._minute, _Sums()
        l90, l10 = np.quantile(sums.sampled, (0.1, 0.9))
        self.minutes.append(
            Minute(
                self._position,
                round(sums.steps * STEP_S, 2),
                self._db(sums.power / sums.steps),
                self._db(float(l10)),
                self._db(float(l90)),
                self._db(sums.highest or max(sums.sampled)),  # of nothing but short stretches
                _db(sums.plain / sums.steps),
            )
        )

    def _db(self, power: float) -> float:
        return round(_db(power) + self._offset_db, 1)


class _Sums:
    """Of the minute so far."""

    def __init__(self) -> None:
        self.steps = 0
        self.power = self.plain = self.highest = 0.0
        self.sampled: list[float] = []  # fast powers, at most MINUTE_S of them

    def add(self, power: float, plain: float) -> None:
        self.steps += 1
        self.power += power
        self.plain += plain


class _Loud:
    """Hysteresis: loud from the threshold on, until it is below it for a while."""

    def __init__(self, threshold_db: float, crossings: deque[Crossing]) -> None:
        self._threshold_db = threshold_db
        self._crossings = crossings
        self._number = 0
        self._since: int | None = None
        self._last = 0  # position at which it was last loud

    def take(self, position: int, level_db: float) -> None:
        if level_db >= self._threshold_db - (0 if self._since is None else FALLS_DB):
            self._last = position
            if self._since is None:
                self._since = max(0, position - round(SAMPLED_STEPS * STEP_S * SAMPLE_RATE))
                self._crossings.append(Crossing("onset", self._number, self._since, None))
        elif position >= self._last + QUIET_S * SAMPLE_RATE:
            self.end()

    def end(self) -> None:
        if self._since is not None:
            self._crossings.append(Crossing("offset", self._number, self._since, self._last))
            self._since = None
            self._number += 1


def a_weighting(hz: np.ndarray) -> np.ndarray:
    """Return the A-weighting's gain at these frequencies, 1 at 1 kHz: IEC 61672-1:2013, annex E."""
    return _response(hz) / _response(np.array(1000.0))


def _response(hz: np.ndarray) -> np.ndarray:
    f1, f2, f3, f4 = (pole**2 for pole in POLES_HZ)
    f = np.square(hz)
    return f4 * f**2 / ((f + f1) * np.sqrt((f + f2) * (f + f3)) * (f + f4))


@lru_cache(maxsize=8)
def _weighting(rate: int) -> tuple[int, int]:
    """Return the samples of the impulse response, and those of the FFT."""
    response = round(RESPONSE_S * rate)
    return response, 1 << (response + round(BLOCK_S * rate) - 1).bit_length()


@lru_cache(maxsize=8)
def _spectrum(rate: int) -> np.ndarray:
    """Return the complex64[k] spectrum of the weighting's impulse response.

    Minimum phase, from the real cepstrum: A. V. Oppenheim and R. W. Schafer, Discrete-Time Signal
    Processing, chapter on the cepstrum.
    """
    response, size = _weighting(rate)
    fine = 16 * size
    gain = a_weighting(np.fft.rfftfreq(fine, 1 / rate))
    cepstrum = np.fft.irfft(np.log(np.maximum(gain, 1e-8)))
    cepstrum[1 : fine // 2] *= 2
    cepstrum[fine // 2 + 1 :] = 0
    impulse = np.fft.irfft(np.exp(np.fft.rfft(cepstrum)))[:response]
    return np.fft.rfft(impulse, size).astype(np.complex64)


def _db(power: float) -> float:
    return max(FLOOR_DB, 10 * float(np.log10(power)) if power > 0 else FLOOR_DB)
