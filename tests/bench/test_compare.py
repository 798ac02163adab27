import numpy as np
import pytest

from streamtwl.bench.compare import mean_interval, paired


def test_the_interval_is_that_of_a_binomial_where_every_clip_is_a_source():
    rng = np.random.default_rng(0)
    right = (rng.random(400) < 0.9).astype(float)
    found = mean_interval(right, [str(n) for n in range(400)])
    half = 1.96 * np.sqrt(found.mean * (1 - found.mean) / 400)
    assert found.low == pytest.approx(found.mean - half, abs=0.006)
    assert found.high == pytest.approx(found.mean + half, abs=0.006)


def test_clips_of_one_recording_count_as_one():
    right = np.repeat([1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0], 50)
    alone = mean_interval(right, [str(n) for n in range(400)])
    grouped = mean_interval(right, [str(n // 50) for n in range(400)])
    assert grouped.mean == alone.mean
    assert grouped.high - grouped.low > 4 * (alone.high - alone.low)


def test_paired_methods_are_compared_clip_by_clip():
    a = np.array([1.0, 1.0, 1.0, 0.0, 0.5])
    b = np.array([1.0, 0.0, 0.0, 1.0, 0.5])
    found = paired(a, b, list("vwxyz"))
    assert found.difference.mean == pytest.approx(0.2)
    assert (found.only_a, found.only_b) == (2.25, 1.25)
    same = paired(a, a, list("vwxyz")).difference
    assert (same.low, same.mean, same.high) == (0, 0, 0)
