"""Scenes to train on, of clips made here, scored by YAMNet."""

import itertools
import os
from itertools import chain

import numpy as np
import pytest
import soundfile

from streamtwl.backbones.yamnet import WINDOW
from streamtwl.errors import UsageError
from streamtwl.training import scenes, scored_scenes
from streamtwl.training.datasets import Clip
from streamtwl.training.posteriors import Scorer
from streamtwl.training.scenes import Event, Plan, Stretch
from streamtwl.training.scored_scenes import (
    Material,
    ScoredScene,
    Sound,
    make_training_scenes,
    materials,
    positions,
)

RATE = 16_000
SCENE_S = 8.0
LABELS = ("clock", "dog", "saw")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Two packages to train on, two to test on; both sides have pieces of the same names."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(5)
    for package, pieces in {"train/a": 9, "train/b": 8, "test/a": 2, "test/c": 2}.items():
        (folder / package).mkdir(parents=True)
        for i in range(pieces):
            piece = 0.02 * rng.standard_normal(2 * RATE)
            soundfile.write(folder / package / f"{i}.flac", piece, RATE)
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Clip]:
    """Three labels in five folds, each with two clips of one recording and one of another."""
    folder = tmp_path_factory.mktemp("clips")
    made = []
    for (i, label), fold, take in itertools.product(enumerate(LABELS), range(1, 6), "abc"):
        path = folder / f"{label}-{fold}{take}.wav"
        sine = np.sin(2 * np.pi * (300 * i + 200 + 10 * fold) * np.arange(RATE) / RATE)
        soundfile.write(path, 0.1 * sine, RATE)
        made.append(Clip(path, label, f"{label}-{fold}{take.replace('b', 'a')}", fold))
    return made


@pytest.fixture
def scorer(yamnet, tmp_path) -> Scorer:
    """With a cache of its own."""
    return Scorer(threads=1, folder=tmp_path / "posteriors")


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(scored_scenes, "SCENE_S", SCENE_S)


def quiet(_done: int, _total: int) -> None:
    pass


def scored(*seconds: float, truth=(), duration_s: float = 10.0) -> ScoredScene:
    """A stream whose windows end at these seconds."""
    ends = np.array([round(RATE * at) for at in seconds], np.int64)
    return ScoredScene("s", duration_s, ends, np.zeros((len(ends), 4), np.float32), list(truth))


# Materials


@pytest.mark.parametrize("fold", [1, 2, 3, 4, 5])
def test_nothing_of_one_material_is_in_another(clips, corpus, fold):
    split_materials = materials(clips, corpus, fold)
    for a, b in itertools.combinations(split_materials, 2):
        assert not {clip.source for clip in a.clips} & {clip.source for clip in b.clips}
        assert not set(chain(*a.packages)) & set(chain(*b.packages))
    fit, choose, test = split_materials
    assert {clip.fold for clip in test.clips} == {fold}
    together = sorted(
        (clip for each in split_materials for clip in each.clips), key=lambda clip: clip.path
    )
    assert together == clips  # and all is used
    used = sorted(piece for each in split_materials for pieces in each.packages for piece in pieces)
    assert used == sorted(corpus.glob("*/*/*.flac"))
    for material in split_materials:
        assert {clip.label for clip in material.clips} == set(LABELS)
        assert all(material.packages)
        assert all(len({piece.parent for piece in pieces}) == 1 for pieces in material.packages)
    assert len(fit.clips) > 2 * len(choose.clips)


def test_test_pieces_are_of_the_corpuss_test_side_alone(clips, corpus):
    sides = [
        {piece.parent.parent.name for pieces in each.packages for piece in pieces}
        for each in materials(clips, corpus, 1)
    ]
    assert sides == [{"train"}, {"train"}, {"test"}]


def test_pieces_are_on_the_same_side_in_every_fold(clips, corpus):
    firsts = [materials(clips, corpus, fold, seed=fold)[0].packages for fold in (1, 4)]
    assert firsts[0] == firsts[1]


def test_a_recording_in_two_folds_is_refused(clips, corpus):
    leaking = [*clips, Clip(clips[0].path.with_name("x.wav"), "dog", clips[0].source, 2)]
    with pytest.raises(UsageError, match=clips[0].source):
        materials(leaking, corpus, 2)


def test_without_a_corpus_it_says_how_to_get_one(clips, tmp_path):
    with pytest.raises(UsageError, match=r"corpus\.sh"):
        materials(clips, tmp_path, 1)


# What sounds


def test_a_label_sounds_after_its_onset_up_to_its_offset():
    stream = scored(1.0, 2.0, 2.1, 3.0, 3.1, truth=[Sound("dog", 2.0, 3.0)])
    assert stream.sounding(["saw", "dog"]).tolist() == [
        [False, False], [False, False], [False, True], [False, True], [False, False],
    ]  # fmt: skip


def test_sounds_overlap_and_come_again():
    truth = [Sound("dog", 1.0, 4.0), Sound("saw", 2.0, 6.0), Sound("dog", 7.0, 8.0)]
    sounding = scored(1.5, 3.0, 5.0, 6.5, 7.5, truth=truth).sounding(["dog", "saw"])
    assert sounding[:, 0].tolist() == [True, True, False, False, True]
    assert sounding[:, 1].tolist() == [False, True, True, False, False]


def test_asked_of_a_moment_before_the_windows_end():
    stream = scored(2.0, 2.4, 3.4, 3.6, truth=[Sound("dog", 2.0, 3.0)])
    assert stream.sounding(["dog"]).ravel().tolist() == [False, True, False, False]
    assert stream.sounding(["dog"], before_s=0.5).ravel().tolist() == [False, False, True, False]


def test_nothing_sounds_where_there_is_nothing():
    assert scored(1.0, 2.0).sounding(["dog", "saw"]).sum() == 0
    assert scored(truth=[Sound("dog", 1, 2)]).sounding(["dog"]).shape == (0, 1)


# Where windows end


def test_windows_end_a_hop_apart_and_the_last_one_with_the_recording():
    found = positions(4, 0.48, 2.0)
    assert found.dtype == np.int64
    assert found.tolist() == [WINDOW, WINDOW + 7680, WINDOW + 2 * 7680, 32_000]
    assert positions(1, 0.48, 0.5).tolist() == [8000]
    assert positions(0, 0.48, 0.5).tolist() == []


@pytest.mark.parametrize("samples", [8000, 15_600, 23_280, 23_281, 40_000])
def test_a_recording_has_as_many_patches_as_positions_short_of_its_end(scorer, samples):
    rows = scorer.score_samples(np.zeros(samples, np.float32))
    ends = positions(len(rows), scorer.hop_s, samples / RATE)
    assert ends[-1] == samples
    assert (ends[:-1] < samples).all()


# Training streams


def test_the_same_seed_gives_the_same_streams_and_another_does_not(clips, corpus, scorer, short):
    fit, *_ = materials(clips, corpus, 1)
    one, again, other = (
        make_training_scenes(fit, 2, seed, scorer, quiet) for seed in ([1, 1], [1, 1], [1, 2])
    )
    for a, b, c in zip(one, again, other, strict=True):
        assert a.truth == b.truth != c.truth
        np.testing.assert_array_equal(a.rows, b.rows)
        assert np.abs(a.rows - c.rows).max() > 0.01
    assert one[0].truth != one[1].truth
    [first] = make_training_scenes(fit, 1, [1, 1], scorer, quiet)
    assert first.truth == one[0].truth  # whatever the count


def test_a_stream_is_whole(clips, corpus, scorer, short):
    fit, *_ = materials(clips, corpus, 1)
    reported = []
    made = make_training_scenes(fit, 2, [3], scorer, lambda *progress: reported.append(progress))
    assert reported == [(1, 2), (2, 2)]
    for stream in made:
        assert stream.duration_s == SCENE_S
        assert stream.rows.shape == (len(stream.positions), 521 + 1024)
        assert stream.rows.dtype == np.float16
        assert stream.positions[-1] == SCENE_S * RATE
        assert stream.truth
        for sound in stream.truth:
            assert sound.label in LABELS
            assert 0 < sound.onset_s < sound.offset_s <= SCENE_S


def test_the_second_time_posteriors_are_read_from_the_cache(clips, corpus, scorer, short):
    fit, *_ = materials(clips, corpus, 1)
    made = make_training_scenes(fit, 2, [1], scorer, quiet)
    kept = sorted(scorer.folder.iterdir())
    assert len(kept) == 2
    for path in kept:  # what was not read from here would show
        np.save(path, np.load(path) + 1)
    again = make_training_scenes(fit, 2, [1], scorer, quiet)
    for a, b in zip(made, again, strict=True):
        np.testing.assert_array_equal(a.rows + 1, b.rows)
    assert sorted(scorer.folder.iterdir()) == kept


def test_a_corpus_made_again_at_the_same_place_is_not_read_from_the_cache(
    clips, corpus, scorer, tmp_path
):
    piece = tmp_path / "piece.wav"
    part = scenes.read_parts(clips[:1])[0]
    plan = Plan(2 * RATE, (Stretch(piece, 0, 2 * RATE, 0.0),), (Event(part, 0, 0.0),), -20.0)
    rng = np.random.default_rng(1)
    scored = []
    for number in range(2):  # of the same size, and at once
        soundfile.write(piece, 0.1 * rng.standard_normal(2 * RATE), RATE)
        scenes.read.cache_clear()  # as another process would find it
        os.utime(piece, ns=(0, number))
        scored.append(scored_scenes.score_scene("a", plan, 5.0, scorer).rows)
    assert not np.allclose(*scored)
    np.testing.assert_array_equal(scored_scenes.score_scene("a", plan, 5.0, scorer).rows, scored[1])
    assert len(list(scorer.folder.iterdir())) == 2


def test_another_snr_or_model_is_not_read_from_the_cache(clips, corpus, scorer):
    plan = Plan(2 * RATE, (), (), -20.0)
    scored_scenes.score_scene("a", plan, 10.0, scorer)
    scored_scenes.score_scene("b", plan, 10.0, scorer)
    assert len(list(scorer.folder.iterdir())) == 1
    scored_scenes.score_scene("a", plan, 5.0, scorer)
    scorer.key += "/another"
    scored_scenes.score_scene("a", plan, 5.0, scorer)
    assert len(list(scorer.folder.iterdir())) == 3


def test_training_snrs_are_of_the_range(clips, corpus, scorer, short, monkeypatch):
    snrs_db = []
    made = scored_scenes.score_scene

    def note(name, plan, snr_db, scorer):
        snrs_db.append(snr_db)
        return made(name, Plan(RATE, (), (), -20.0), snr_db, scorer)

    monkeypatch.setattr(scored_scenes, "score_scene", note)
    material = Material(clips, materials(clips, corpus, 1)[0].packages)
    make_training_scenes(material, 12, [1], scorer, quiet)
    low, high = scored_scenes.TRAINING_SNR_DB
    assert low <= min(snrs_db) < low + 10 < high - 10 < max(snrs_db) <= high
