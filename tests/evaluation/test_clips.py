import json

import numpy as np
import pytest
import soundfile

from streamtwl.evaluation import baselines, clips
from streamtwl.evaluation.posteriors import Augmentation, Scored, Scorer, white_noise

RATE = 16_000


@pytest.fixture
def sounds(tmp_path, yamnet):
    """Two classes that YAMNet tells apart: noise bursts and whistles, five folds of two."""
    rng = np.random.default_rng(3)
    t = np.arange(2 * RATE) / RATE
    for n in range(10):
        hiss = 0.1 * rng.standard_normal(len(t))
        whistle = 0.3 * np.sin(2 * np.pi * (900 + 60 * n) * t * (1 + 0.2 * t))
        for label, samples in (("hiss", hiss), ("whistle", whistle)):
            (tmp_path / "sounds" / label).mkdir(parents=True, exist_ok=True)
            soundfile.write(tmp_path / "sounds" / label / f"{n}.wav", samples, RATE)
    return tmp_path / "sounds"


def test_every_baseline_tells_two_plain_classes_apart(sounds, tmp_path):
    results = clips.evaluate(sounds, tmp_path / "out", lambda *_: None, folds=[1, 2])
    assert len(results["methods"]) == len(baselines.BASELINES) + 1
    for method, heard in results["methods"].items():
        assert heard[clips.WHOLE]["accuracy"]["mean"] >= 0.8, method
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == results
    assert (tmp_path / "out" / "table.md").read_text().count("\n") == len(results["methods"]) + 2
    assert (tmp_path / "out" / "plot.png").stat().st_size > 10_000


def test_a_second_run_takes_up_what_is_there(sounds, tmp_path, monkeypatch):
    clips.evaluate(sounds, tmp_path / "out", lambda *_: None, folds=[1])
    ran = []
    run_fold = clips.run_fold
    monkeypatch.setattr(clips, "run_fold", lambda *a: ran.append(a[2]) or run_fold(*a))
    clips.evaluate(sounds, tmp_path / "out", lambda *_: None, folds=[1, 2])
    assert ran == [2]


def test_shuffled_labels_are_not_learnt(sounds, tmp_path):
    """What the null hypothesis would show: labels that mean nothing give chance."""
    scorer = Scorer()
    loaded = clips.datasets.load(sounds)
    scored = {clip.path: scorer.score(clip.path) for clip in loaded}
    rng = np.random.default_rng(0)
    labels = rng.permutation([clip.label for clip in loaded])
    shuffled = [
        clips.Clip(clip.path, str(label), clip.source, clip.fold)
        for clip, label in zip(loaded, labels, strict=True)
    ]
    right = [
        clips.run_fold(shuffled, scored, fold)[clips.REFERENCE][clips.WHOLE] for fold in (1, 2, 3)
    ]
    assert np.mean([value for fold in right for value in fold.values()]) < 0.85


def test_scores_are_cached_by_content_model_hop_and_change(sounds, monkeypatch, tmp_path):
    path = sounds / "hiss" / "0.wav"
    scorer = Scorer()
    noisy = Augmentation("white 0 dB", white_noise(0.0), seed=1)
    first, changed = scorer.score(path), scorer.score(path, noisy)
    assert not np.allclose(first.posteriors, changed.posteriors)
    monkeypatch.setattr(Scorer, "score_samples", None)  # from here on only the cache
    copied = tmp_path / "copy.wav"
    copied.write_bytes(path.read_bytes())
    np.testing.assert_array_equal(scorer.score(copied).posteriors, first.posteriors)
    np.testing.assert_array_equal(scorer.score(path, noisy).posteriors, changed.posteriors)
    with pytest.raises(TypeError):
        scorer.score(path, Augmentation("white 0 dB", white_noise(0.0), seed=2))


def test_many_samples_come_to_the_root_of_the_mean_posterior():
    posteriors = np.zeros((9, 521), np.float32)
    posteriors[:, [3, 50, 400]] = 0.6, 0.3, 0.1
    scored = Scored(posteriors, np.zeros((9, 1024), np.float32))
    rng = np.random.default_rng(0)
    by_name = {baseline.name: baseline for baseline in baselines.BASELINES}
    root = by_name["LR, root of mean posterior"].feature(scored, rng)
    many = by_name["LR, counts of 64 samples"].feature(scored, rng)
    np.testing.assert_allclose(many, root, atol=0.05)
    assert np.abs(by_name["LR, counts of 1 samples"].feature(scored, rng) - root).max() > 0.05
