"""Accuracy, mAP and d-prime, with intervals over recordings."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from streamtwl.paper.metrics import Judge, interval, intervals


def one_hot(which, labels: int) -> np.ndarray:
    return np.eye(labels)[np.asarray(which)]


def test_accuracy_is_a_mean_over_seeds_and_its_interval_over_recordings():
    truth = one_hot([0, 0, 1, 1], 2).astype(bool)
    right_half = np.stack([one_hot([0, 0, 0, 0], 2), one_hot([0, 1, 0, 1], 2)])
    each_own, together = (Judge(truth, sources, False) for sources in (list("abcd"), list("aabb")))
    assert each_own.right(right_half).tolist() == [1.0, 0.5, 0.0, 0.5]
    narrow, wide = (interval(j.resampled(right_half)["accuracy"]) for j in (each_own, together))
    assert narrow["mean"] == wide["mean"] == 0.5
    assert wide["high"] - wide["low"] == pytest.approx(0.5)  # 0.75 or 0.25, one recording each
    assert narrow["low"] >= 0.0


def test_a_difference_is_paired():
    truth = one_hot([0] * 20, 2).astype(bool)
    worse = one_hot([0, 1] * 10, 2)[None]
    judge = Judge(truth, [str(i) for i in range(20)], False)
    own, against = intervals(worse, worse.copy(), judge)
    assert own["accuracy"]["low"] < 0.5 < own["accuracy"]["high"]
    assert against["accuracy"] == {"mean": 0.0, "low": 0.0, "high": 0.0}


def test_clips_without_scores_are_left_out_of_the_baseline_too():
    truth = one_hot([0, 0, 1, 1], 2).astype(bool)
    some = one_hot([0, 0, 0, 0], 2)[None].copy()
    some[0, 2:] = np.nan
    baseline = one_hot([1, 1, 1, 1], 2)[None]
    own, against = intervals(some, baseline, Judge(truth, list("abcd"), False))
    assert own["accuracy"]["mean"] == 1.0
    assert against["accuracy"]["mean"] == 1.0  # the baseline has none of these two right


def test_map_and_d_prime_are_scikit_learns_ties_included():
    rng = np.random.default_rng(0)
    truth = rng.random((60, 5)) < 0.3
    truth[:, 4] = False  # a label without a clip: left out
    scores = np.round(truth + rng.standard_normal((60, 5)), 1)[None]
    judge = Judge(truth, [str(i) for i in range(60)], True)
    found = {name: values[0] for name, values in judge.resampled(scores).items()}
    precision = average_precision_score(truth[:, :4], scores[0, :, :4], average="macro")
    area = roc_auc_score(truth[:, :4], scores[0, :, :4], average="macro")
    assert found["mAP"] == pytest.approx(precision, abs=1e-5)
    assert found["d-prime"] == pytest.approx(np.sqrt(2) * norm.ppf(area), abs=1e-4)


def test_a_resample_counts_a_clip_as_often_as_it_is_drawn():
    rng = np.random.default_rng(1)
    truth = rng.random((12, 3)) < 0.5
    scores = (truth + rng.standard_normal((12, 3)))[None]
    judge = Judge(truth, [str(i // 2) for i in range(12)], True)
    weights = judge._weights[0].astype(int)
    again = np.repeat(np.arange(12), weights)
    expected = np.mean(
        [
            average_precision_score(truth[again, i], scores[0, again, i])
            for i in range(3)
            if truth[again, i].any()
        ]
    )
    assert judge.resampled(scores)["mAP"][1] == pytest.approx(expected, abs=1e-5)


@pytest.mark.filterwarnings("error")
def test_resamples_without_anything_to_rank_leave_the_bounds_finite():
    """Of two recordings with other labels, half of the resamples have one only."""
    truth = np.array([[True, False], [False, True]])
    scores = np.array([[[0.9, 0.1], [0.2, 0.8]]])
    own, _ = intervals(scores, None, Judge(truth, ["r1", "r2"], True))
    assert all(np.isfinite([*of.values()]).all() for of in own.values())
