"""The scene maker, on ESC-10's clips where they are, else on clips and pieces made here."""

import csv
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from streamtwl.training import datasets, scenes
from tests.conftest import PATIENCE_S

TOOLS = Path(__file__).parents[2] / "tools"

RATE = 16_000


def tone(seconds: float, hz: float = 440.0, level: float = 0.1) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype("f4")


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


@pytest.fixture
def corpus(tmp_path) -> Path:
    """A corpus with two packages to test on and one to train on."""
    rng = np.random.default_rng(5)
    for place, lengths in {
        "test/a": (0.5, 3.0, 30.0),
        "test/b": (12.0, 2.0),
        "train/c": (20.0,),
    }.items():
        folder = tmp_path / "corpus" / place
        folder.mkdir(parents=True)
        for i, seconds in enumerate(lengths):
            piece = 0.02 * (i + 1) * rng.standard_normal(round(seconds * RATE))
            soundfile.write(folder / f"{i}.flac", piece, RATE)
    return tmp_path / "corpus"


@pytest.fixture
def esc(tmp_path) -> Path:
    """A small data set in ESC-50's layout: four labels, two clips each, two folds, at 44.1 kHz."""
    folder = tmp_path / "esc"
    (folder / "audio").mkdir(parents=True)
    (folder / "meta").mkdir()
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for i, label in enumerate(("dog", "rain", "clock", "saw")):
        for fold in (1, 2):
            name = f"{fold}-{100 + i}-A-{i}.wav"
            loud = tone(2.0 * 44_100 / RATE, 200.0 * (i + 1), 0.05 * (i + 1))
            soundfile.write(folder / "audio" / name, np.append(loud, np.zeros(66_150)), 44_100)
            rows.append(f"{name},{fold},{i},{label},True,{100 + i},A")
    (folder / "meta" / "esc10.csv").write_text("\n".join(rows) + "\n")
    return folder


def fold_1(esc: Path) -> list[scenes.Part]:
    return scenes.read_parts([clip for clip in datasets.load(esc) if clip.fold == 1])


def planned(esc: Path, corpus: Path, seconds: float = 60.0, seed: int = 3) -> scenes.Plan:
    parts = fold_1(esc)
    rng = np.random.default_rng(seed)
    return scenes.plan_scene(rng, parts, scenes.read_pieces(corpus), seconds)


def rms_db(samples: np.ndarray) -> float:
    return 20 * np.log10(scenes.rms(samples))


def test_silence_at_the_ends_and_within_is_cut_away():
    bark = tone(0.4)
    clip = np.concatenate((silence(0.7), bark, silence(0.8), bark, silence(0.3), bark, silence(2)))
    seconds = np.array(scenes.sounding(clip)) / RATE
    np.testing.assert_allclose(seconds, [[0.7, 1.1], [1.9, 3.0]], atol=0.011)


def test_what_a_codec_leaves_of_a_cut_is_no_event():
    clip = np.concatenate((tone(1), silence(1), tone(0.05), silence(1), tone(0.5, level=0.0005)))
    assert scenes.sounding(clip) == [(0, RATE)]


def test_a_silent_clip_has_no_parts():
    assert scenes.sounding(silence(5)) == []


@given(st.lists(st.tuples(st.booleans(), st.floats(0.02, 2.0)), max_size=8))
def test_parts_are_in_order_apart_and_loud_at_both_ends(stretches):
    clip = np.concatenate([silence(0), *(tone(s) if on else silence(s) for on, s in stretches)])
    parts = scenes.sounding(clip)
    for start, stop in parts:
        assert 0 <= start < stop <= len(clip)
        assert np.abs(clip[start : start + 160]).max() > 0
        assert np.abs(clip[stop - 160 : stop]).max() > 0
    for (_, stop), (start, _) in itertools.pairwise(parts):
        assert start - stop > 0.49 * RATE


def test_the_truth_says_where_the_sound_is(esc, corpus):
    plan = planned(esc, corpus)
    scene, timeline = scenes.make_scene(plan, 60.0)  # at 60 dB the background is out of the way
    assert scene.dtype == np.int16
    assert len(scene) == 60 * RATE
    sounds = np.zeros(len(scene), bool)
    for row in timeline:
        onset, offset = (round(float(row[name]) * RATE) for name in ("onset_s", "offset_s"))
        sounds[onset:offset] = True
        assert offset - onset == pytest.approx(2 * RATE, abs=200)  # 1.5 s of zeros cut away
    assert rms_db(scene[sounds] / 32768) - rms_db(scene[~sounds] / 32768) > 50


@pytest.mark.parametrize("snr_db", [20, 10, 5])
def test_the_snr_is_as_defined(esc, corpus, snr_db):
    plan = planned(esc, corpus)
    scene, timeline = scenes.make_scene(plan, snr_db)
    silent, _ = scenes.make_scene(
        scenes.Plan(plan.length, plan.background, (), plan.level_dbfs), snr_db
    )
    clear = [row for row in timeline if not overlapped(row, timeline)]
    assert clear
    for row in clear:
        inside = slice(*(round(float(row[name]) * RATE) for name in ("onset_s", "offset_s")))
        event = scene[inside].astype(float) - silent[inside]
        snr = rms_db(event) - rms_db(silent)
        assert snr == pytest.approx(float(row["snr_db"]), abs=0.1)
        assert abs(snr - snr_db) <= scenes.SPREAD_DB + 0.1


def test_scenes_are_paired_over_snr(esc, corpus):
    plan = planned(esc, corpus)
    timelines = [scenes.make_scene(plan, snr_db)[1] for snr_db in (20, 10, 5)]
    for rows in zip(*timelines, strict=True):
        assert len({(row["onset_s"], row["offset_s"], row["clip"]) for row in rows}) == 1
        levels = [float(row["snr_db"]) for row in rows]
        assert levels[0] - levels[1] == pytest.approx(10, abs=0.02)


def test_a_third_of_the_events_overlap_one_of_another_label(esc, corpus):
    plan = planned(esc, corpus, seconds=1800)
    rows = scenes.make_scene(plan, 10)[1]
    others = [overlapped(row, rows) for row in rows]
    assert np.mean([bool(each) for each in others]) == pytest.approx(1 / 3, abs=0.03)
    assert all(row["label"] not in each for row, each in zip(rows, others, strict=True))
    assert {row["clip"][0] for row in rows} == {"1"}  # of that fold alone
    counts = np.unique([row["label"] for row in rows], return_counts=True)[1]
    assert len(counts) == 4
    assert counts.min() > 0.7 * counts.max()


def overlapped(row: dict, rows: list[dict]) -> list[str]:
    onset, offset = float(row["onset_s"]), float(row["offset_s"])
    return [
        other["label"]
        for other in rows
        if other is not row
        and float(other["onset_s"]) < offset
        and float(other["offset_s"]) > onset
    ]


def test_a_scene_that_would_clip_is_made_softer_as_a_whole():
    scene = np.array([0.5, -2.0, 1.0])
    np.testing.assert_array_equal(scenes.pcm_16(scene), [8192, -32767, 16384])


def test_the_background_has_no_gaps(esc, corpus):
    plan = planned(esc, corpus)
    made = scenes.make_background(plan.background, plan.length)
    levels = np.sqrt(np.square(made.reshape(-1, 1600)).mean(axis=1))  # of every 0.1 s
    assert levels.min() > 0.5
    assert levels.max() < 2
    assert {stretch.file.parts[-3] for stretch in plan.background} == {"test"}


def run(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, TOOLS / "make_scene.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(esc, corpus, tmp_path):
    written = []
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        out = tmp_path / name
        common = ("--data", esc, "--corpus", corpus, "--out", out, "--seed", seed)
        done = run(*common, "--scenes", 2, "--minutes", 0.5, "--fold", 2)
        assert done.returncode == 0, done.stderr
        assert run(*common, "--background", "--minutes", 0.5).returncode == 0
        written.append({file.name: file.read_bytes() for file in out.iterdir()})
    assert len(written[0]) == 2 * 2 * 3 + 2
    assert written[0] == written[1]
    assert written[0].keys() == written[2].keys()
    assert all(
        written[0][name] != written[2][name] for name in written[0] if name != "background.csv"
    )


def test_nothing_sounds_at_many_levels_and_its_timeline_is_empty(corpus, tmp_path):
    assert (
        run("--corpus", corpus, "--out", tmp_path, "--background", "--minutes", 3).returncode == 0
    )
    samples, rate = soundfile.read(tmp_path / "background.flac")
    assert (rate, len(samples)) == (RATE, 180 * RATE)
    levels = [rms_db(second) for second in samples.reshape(-1, RATE)]
    assert min(levels) > -80
    assert max(levels) - min(levels) > 10
    assert (tmp_path / "background.csv").read_text() == ",".join(scenes.COLUMNS) + "\n"


@pytest.mark.parametrize(
    ("option", "value", "says"), [("--corpus", "nowhere", "corpus.sh"), ("--fold", 9, "no fold 9")]
)
def test_a_mistake_is_answered_in_one_line(esc, corpus, tmp_path, option, value, says):
    done = run("--data", esc, "--corpus", corpus, "--out", tmp_path / "out", option, value)
    assert done.returncode == 1
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_help_teaches():
    done = run("--help")
    assert done.returncode == 0
    assert "SNR: the RMS of an event" in done.stdout


def test_scenes_of_esc_10(esc10, corpus, tmp_path):
    done = run(
        "--data", esc10, "--corpus", corpus, "--out", tmp_path / "out", "--fold", 4, "--scenes", 1
    )
    assert done.returncode == 0, done.stderr
    with (esc10 / "meta" / "esc10.csv").open(newline="") as file:
        table = {row["filename"]: row for row in csv.DictReader(file)}
    for snr in (20, 10, 5):
        stem = tmp_path / "out" / f"fold4-00-snr{snr}"
        assert soundfile.info(f"{stem}.flac").frames == 120 * RATE
        with open(f"{stem}.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) > 10
        for row in rows:
            about = table[row["clip"]]
            assert (about["fold"], about["category"]) == ("4", row["label"])
            assert about["src_file"] == row["src_file"]
            assert 0.1 <= float(row["offset_s"]) - float(row["onset_s"]) <= 7.3
