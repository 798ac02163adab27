"""The newest sound of a stream."""

import numpy as np
import pytest

from streamtwl.audio.recent import Recent
from streamtwl.stages import Block


def push(recent, samples, size, position=0):
    for at in range(0, len(samples), size):
        piece = samples[at : at + size].astype(np.float32)
        recent.push(Block(0, position + at, piece, None, 0.0))


@pytest.mark.parametrize("size", [1, 160, 441, 16_000, 100_000])
def test_it_is_the_newest_however_it_came(size):
    recent, samples = Recent(1.0), np.arange(40_000)
    push(recent, samples, size)
    assert np.array_equal(recent.last(0.5), samples[-8_000:])
    assert np.array_equal(recent.last(9.0), samples[-16_000:])


def test_there_is_nothing_from_before_a_gap():
    recent = Recent(1.0)
    assert len(recent.last(1.0)) == 0
    push(recent, np.ones(4_000), 4_000)
    push(recent, np.full(3_000, 2.0), 1_000, position=5_000)
    assert recent.last(1.0).tolist() == [2.0] * 3_000


def test_what_is_still_held_between_two_positions_is_given():
    recent, samples = Recent(1.0), np.arange(40_000, dtype=np.float32)
    push(recent, samples, 8_000)
    np.testing.assert_array_equal(recent.between(30_000, 35_000), samples[30_000:35_000])
    np.testing.assert_array_equal(recent.between(0, 25_000), samples[24_000:25_000])
    np.testing.assert_array_equal(recent.between(39_000, 50_000), samples[39_000:])
    assert len(recent.between(0, 10_000)) == len(recent.between(50_000, 60_000)) == 0
