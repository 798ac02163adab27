import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from streamtwl import cli
from streamtwl.bench import clip_baselines, clips
from streamtwl.errors import AudioError
from streamtwl.training.posteriors import Augmentation, Scored, Scorer, white_noise

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


@pytest.fixture
def few_strengths(monkeypatch):
    """Two strengths of regularisation instead of six, for speed."""
    monkeypatch.setattr(clip_baselines, "STRENGTHS", (0.1, 10.0))


@pytest.fixture
def only_reference(monkeypatch, few_strengths):
    """The reference alone, for speed."""
    kept = tuple(each for each in clip_baselines.BASELINES if each.name == clips.REFERENCE)
    monkeypatch.setattr(clips, "BASELINES", kept)


def test_every_baseline_tells_two_plain_classes_apart(sounds, tmp_path, few_strengths):
    out = tmp_path / "out"
    results = clips.evaluate(sounds, out, lambda *_: None, folds=[1])
    assert set(results["trained"]) == {clips.CLEAN, clips.WITH_NOISE}
    for trained, methods in results["trained"].items():
        assert len(methods) == len(clip_baselines.BASELINES) + 1
        for method, conditions in methods.items():
            assert conditions[clips.WHOLE]["accuracy"]["mean"] >= 0.75, (trained, method)
            assert set(conditions) >= {clips.WHOLE, "20 dB", "10 dB", "0 dB"}
            assert method == clips.REFERENCE or "against_reference" in conditions["10 dB"]
    assert json.loads((out / "results.json").read_text()) == results
    assert (out / "table.md").read_text() == clips.markdown(results)
    for name in ("plot.png", "noise.png", "samples.png"):
        assert (out / name).stat().st_size > 10_000


def test_a_second_run_takes_up_what_is_there(sounds, tmp_path, monkeypatch, only_reference):
    ran = []
    run_fold = clips.run_fold
    monkeypatch.setattr(clips, "run_fold", lambda *a: ran.append((a[2], a[3])) or run_fold(*a))
    monkeypatch.setattr(clips, "plot_noise", lambda *_: None)
    monkeypatch.setattr(clips, "plot_samples", lambda *_: None)
    for folds, noise in (([1], True), ([1, 2], True), ([1], False), ([1, 2], True), ([1], False)):
        clips.evaluate(sounds, tmp_path / "out", lambda *_: None, folds=folds, noise=noise)
    assert ran == [(1, True), (2, True), (1, False)]
    changed = sounds / "hiss" / "0.wav"
    soundfile.write(changed, soundfile.read(changed)[0][::-1], RATE)
    clips.evaluate(sounds, tmp_path / "out", lambda *_: None, folds=[1], noise=False)
    assert ran[3:] == [(1, False)]


def test_without_noise_there_is_the_clean_table_alone(
    sounds, tmp_path, monkeypatch, only_reference
):
    monkeypatch.setattr(clips, "plot_noise", lambda *_: None)
    monkeypatch.setattr(clips, "plot_samples", lambda *_: None)
    reported = []
    without = clips.evaluate(
        sounds, tmp_path / "a", lambda *a: reported.append(a), folds=[1], noise=False
    )
    assert reported[-2] == (clips.STAGES[0], 20, 20)  # every clip once
    conditions = [clips.WHOLE, *map(str, clips.PREFIXES)]
    assert {kind: set(rows[clips.REFERENCE]) for kind, rows in without["trained"].items()} == {
        clips.CLEAN: set(conditions)
    }
    table = clips.markdown(without)
    assert table.startswith(f"| method | {clips.WHOLE} | ")
    assert table.count("\n") == 2 + len(without["trained"][clips.CLEAN])
    both = clips.evaluate(sounds, tmp_path / "b", lambda *a: reported.append(a), folds=[1])
    copies = 3 * 4 + 2 * 16  # of 4 test clips, and of 16 to train with
    assert reported[-2] == (clips.STAGES[0], 20 + copies, 64)
    assert table in clips.markdown(both)
    assert clips.markdown(both).count("| " + clips.REFERENCE) == 2


@pytest.mark.parametrize(
    ("options", "noise"), [([], True), (["--no-noise"], False), (["--noise"], True)]
)
def test_the_command_takes_noise_as_an_option(monkeypatch, options, noise):
    arguments = []
    monkeypatch.setattr(clips, "evaluate", lambda *a: arguments.append(a))
    monkeypatch.setattr(clips, "markdown", lambda _: "")
    command = ["bench", "evaluate", "sounds", *options]
    CliRunner().invoke(cli.app, command, catch_exceptions=False)
    assert arguments[0][-1] is noise


def _alike(right: int, share: float, late: float) -> Scored:
    """Patches that say `share` for the class in columns 0 and 1, `late` for it in 2 and 3."""
    posteriors = np.full((9, 521), 1e-3, np.float32)
    posteriors[:, right] = share
    posteriors[:, 1 - right] = 1 - share
    posteriors[:, 2 + right] = late
    return Scored(posteriors, np.zeros((9, 1024), np.float32))


def test_noise_is_heard_in_the_test_and_trained_with_only_where_it_says_so(only_reference):
    """Noise that turns two columns round, and says what is right in two others."""
    made = [
        clips.Clip(Path(f"{label}{n}"), label, f"{label}{n}", n % 5 + 1)
        for label in "ab"
        for n in range(20)
    ]
    scored = {None: {clip.path: _alike("ab".index(clip.label), 0.8, 0.0) for clip in made}}
    for change in (*clips.NOISY.values(), *clips.COPIES):
        scored[change] = {clip.path: _alike("ab".index(clip.label), 0.3, 0.9) for clip in made}
    folds = clips.run_fold(made, scored, 1)
    for method in (clips.REFERENCE, clips.VOTE):
        shares = {
            (trained, name): np.mean(list(methods[method][name].values()))
            for trained, methods in folds.items()
            for name in (clips.WHOLE, *clips.NOISY)
        }
        for name in clips.NOISY:
            assert shares[clips.CLEAN, name] == 0.0
            assert shares[clips.WITH_NOISE, name] == 1.0
        assert shares[clips.CLEAN, clips.WHOLE] == shares[clips.WITH_NOISE, clips.WHOLE] == 1.0


def test_noisy_test_clips_and_training_copies_all_differ(sounds, tmp_path, only_reference):
    scored = {}
    run_fold = clips.run_fold

    def keep(*arguments):
        scored.update(arguments[1])
        return run_fold(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips, "run_fold", keep)
        patch.setattr(clips, "plot_noise", lambda *_: None)
        patch.setattr(clips, "plot_samples", lambda *_: None)
        clips.evaluate(sounds, tmp_path / "out", lambda *_: None, folds=[1])
    assert set(scored) == {None, *clips.NOISY.values(), *clips.COPIES}
    tested = set(scored[clips.NOISY["0 dB"]])
    assert len(tested) == 4
    assert all(tested.isdisjoint(scored[copy]) for copy in clips.COPIES)

    def distance(a, b):
        paths = set(scored[a]) & set(scored[b])
        return np.mean(
            [np.abs(scored[a][p].embeddings - scored[b][p].embeddings).mean() for p in paths]
        )

    away = [distance(None, clips.NOISY[name]) for name in ("20 dB", "10 dB", "0 dB")]
    assert 0.0 < away[0] < away[1] < away[2]
    assert distance(*clips.COPIES) > 0.0
    assert min(distance(None, copy) for copy in clips.COPIES) > 0.0


def test_noise_of_a_training_copy_is_of_any_level_between():
    t = np.arange(RATE) / RATE
    tone = np.sin(2 * np.pi * 440 * t).astype(np.float32)
    copy = clips.COPIES[0]
    snrs_db = []
    for seed in range(200):
        noise = copy.change(tone, np.random.default_rng(seed)) - tone
        snrs_db.append(10 * np.log10(np.mean(tone**2) / np.mean(noise**2)))
    assert -0.5 < min(snrs_db) < 2.0
    assert 23.0 < max(snrs_db) < 25.5
    assert abs(np.mean(snrs_db) - 12.5) < 2.0


def test_a_copy_stays_on_its_clips_side_of_the_validation_split(monkeypatch):
    """The strength is chosen on clips, copies included, that the model has seen no copy of."""

    class Spy:
        def fit(self, x, _y):
            seen.append(("fit", x[:, 0]))
            return self

        def score(self, x, _y):
            seen.append(("chosen by", x[:, 0]))
            return 0.0

    seen: list = []
    monkeypatch.setattr(clip_baselines, "_model", lambda *_: Spy())
    monkeypatch.setattr(clip_baselines, "STRENGTHS", (1.0,))
    made = [clips.Clip(Path(str(n)), "ab"[n % 2], f"recording {n // 4}", 2) for n in range(80)]
    number = [Scored(np.zeros((1, 521)), np.full((1, 1024), int(c.path.name))) for c in made]
    embedding = next(each for each in clip_baselines.BASELINES if "embedding" in each.name)
    clip_baselines.fit(embedding, made * 3, number * 3, 1)
    (_, fitted), (_, chosen), (_, all_of_them) = seen
    assert len(fitted) + len(chosen) == len(all_of_them) == 240
    assert not {n // 4 for n in fitted} & {n // 4 for n in chosen}
    for rows in (fitted, chosen):
        assert set(np.unique(rows, return_counts=True)[1]) == {3}
    seen.clear()
    clip_baselines.fit(embedding, made, number, 1)
    assert set(seen[1][1]) == set(chosen)  # the clips that clean training chooses by


def test_shuffled_labels_are_not_learnt(sounds, only_reference):
    """What the null hypothesis would show: labels that mean nothing give chance."""
    scorer = Scorer()
    loaded = clips.datasets.load(sounds)
    scored = {None: {clip.path: scorer.score(clip.path) for clip in loaded}}
    rng = np.random.default_rng(0)
    labels = rng.permutation([clip.label for clip in loaded])
    shuffled = [
        clips.Clip(clip.path, str(label), clip.source, clip.fold)
        for clip, label in zip(loaded, labels, strict=True)
    ]
    right = [
        clips.run_fold(shuffled, scored, fold, noise=False)[clips.CLEAN][clips.REFERENCE]
        for fold in (1, 2, 3)
    ]
    assert np.mean([value for fold in right for value in fold[clips.WHOLE].values()]) < 0.85


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


def test_what_is_no_audio_is_named(tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    with pytest.raises(AudioError, match=r"bad\.wav' is not audio"):
        Scorer().score(tmp_path / "bad.wav")


def test_many_samples_come_to_the_root_of_the_mean_posterior():
    posteriors = np.zeros((9, 521), np.float32)
    posteriors[:, [3, 50, 400]] = 0.6, 0.3, 0.1
    scored = Scored(posteriors, np.zeros((9, 1024), np.float32))
    rng = np.random.default_rng(0)
    by_name = {baseline.name: baseline for baseline in clip_baselines.BASELINES}
    root = by_name["LR, root of mean posterior"].feature(scored, rng)
    many = by_name["LR, counts of 64 samples"].feature(scored, rng)
    np.testing.assert_allclose(many, root, atol=0.05)
    assert np.abs(by_name["LR, counts of 1 samples"].feature(scored, rng) - root).max() > 0.05
