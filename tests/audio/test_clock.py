import itertools
import time
from types import SimpleNamespace

import numpy as np
import pytest

from streamtwl.audio import clock as clock_module
from streamtwl.audio.clock import CaptureClock

RATE = 48_000
BLOCK = 1920  # frames: 40 ms


class Hands:
    """A clock set by hand, in place of the module `time`."""

    def __init__(self) -> None:
        self.now, self.wall = 1000.0, 1.7e9

    def advance(self, seconds: float, jump: float = 0.0) -> None:
        self.now += seconds
        self.wall += seconds + jump


@pytest.fixture
def hands(monkeypatch):
    hands = Hands()
    made = SimpleNamespace(monotonic=lambda: hands.now, time=lambda: hands.wall)
    monkeypatch.setattr(clock_module, "time", made)
    return hands


def drifting(ppm: float, late_s: float, seconds: float, seed: int = 0):
    """Yield (frames, reported monotonic, true monotonic) of a sound card that is off by `ppm`."""
    rng = np.random.default_rng(seed)
    for frames in range(BLOCK, int(seconds * RATE), BLOCK):
        true = 50.0 + frames / (RATE * (1 + ppm * 1e-6))
        yield frames, true + rng.uniform(0, late_s), true


@pytest.mark.parametrize("ppm", [-100, 0, 100, 500])
def test_a_drifting_rate_is_tracked_through_late_reports(ppm):
    clock, errors = CaptureClock(RATE), []
    for frames, reported, true in drifting(ppm, 0.005, 900):
        clock.report(frames, reported)
        errors.append(clock.monotonic_at(frames) - true)
    settled = np.array(errors[len(errors) // 2 :])
    assert settled.min() > -0.0001  # the reports' lower edge is followed; their mean is 2.5 ms
    assert settled.max() < 0.002
    ahead_s = clock.monotonic_at(frames + 100 * RATE) - clock.monotonic_at(frames)
    assert 1e6 * (100 / ahead_s - 1) == pytest.approx(ppm, abs=10)


def test_bursts_of_late_reports_hardly_move_the_clock():
    clock = CaptureClock(RATE)
    for i, (frames, reported, true) in enumerate(drifting(0, 0.001, 60)):
        clock.report(frames, reported + (0.2 if i % 100 > 95 else 0.0))
        assert -0.0001 < clock.monotonic_at(frames) - true < 0.01


def test_reports_of_uneven_blocks_are_tracked_too():
    clock, frames = CaptureClock(RATE), 0
    rng = np.random.default_rng(1)
    for blocks in rng.integers(1, 12, 5000):
        frames += int(blocks) * BLOCK
        true = frames / (RATE * 1.0001)
        clock.report(frames, true + rng.uniform(0, 0.005))
    assert clock.monotonic_at(frames) == pytest.approx(true, abs=0.003)


@pytest.mark.parametrize("ppm", [-5000, 5000])
def test_an_impossible_rate_is_not_believed_but_followed(ppm):
    clock = CaptureClock(RATE)
    for frames, reported, true in drifting(ppm, 0.001, 300):
        clock.report(frames, reported)
        assert clock.monotonic_at(frames) == pytest.approx(true, abs=0.1)
    assert clock.monotonic_at(frames + RATE) - clock.monotonic_at(frames) == pytest.approx(1.0)


def test_a_jump_of_over_a_second_is_followed_at_once():
    clock = CaptureClock(RATE)
    for frames, reported, _ in drifting(0, 0.001, 10):
        clock.report(frames, reported)
    clock.report(frames + BLOCK, reported + BLOCK / RATE + 3.0)  # the computer slept
    assert clock.monotonic_at(frames + BLOCK) == pytest.approx(reported + BLOCK / RATE + 3.0)


def test_a_report_without_new_frames_does_no_harm():
    clock = CaptureClock(RATE)
    for _, at in itertools.product(range(3), (10.0, 10.001)):
        clock.report(BLOCK, at)
    assert clock.monotonic_at(BLOCK) == pytest.approx(10.0, abs=0.001)


def test_positions_before_and_after_a_report_are_mapped():
    clock = CaptureClock(RATE)
    clock.report(RATE, 20.0)
    assert clock.monotonic_at(RATE // 2) == pytest.approx(19.5)
    assert clock.monotonic_at(2 * RATE) == pytest.approx(21.0)


def test_wall_time_is_the_wall_clocks():
    clock = CaptureClock(RATE)
    offset_s = time.time() - time.monotonic()
    clock.report(RATE, 20.0)
    assert clock.wall_at(RATE) == pytest.approx(20.0 + offset_s, abs=60)


def test_a_jump_of_the_wall_clock_is_counted_once_and_followed(hands, caplog):
    clock = CaptureClock(RATE)
    clock.report(0, hands.now)
    assert clock.wall_at(0) == pytest.approx(1.7e9)
    hands.advance(61, jump=3600)
    clock.report(61 * RATE, hands.now)
    assert clock.wall_at(61 * RATE) == pytest.approx(1.7e9 + 61 + 3600)
    assert clock.wall_jumps == 1
    assert "+3600.0 s" in caplog.text
    hands.advance(61)
    clock.report(122 * RATE, hands.now)
    clock.wall_at(122 * RATE)
    assert clock.wall_jumps == 1


def test_small_corrections_of_the_wall_clock_are_followed_silently(hands):
    clock = CaptureClock(RATE)
    clock.report(0, hands.now)
    hands.advance(61, jump=0.4)
    clock.report(61 * RATE, hands.now)
    assert clock.wall_at(61 * RATE) == pytest.approx(1.7e9 + 61.4)
    assert clock.wall_jumps == 0


def test_the_wall_clock_is_not_asked_again_within_the_minute(hands):
    clock = CaptureClock(RATE)
    clock.report(0, hands.now)
    hands.advance(30, jump=5)
    clock.report(30 * RATE, hands.now)
    assert clock.wall_at(30 * RATE) == pytest.approx(1.7e9 + 30)
    assert clock.wall_jumps == 0
