"""The corpus: cutting, resampling, licences, what must not sound, noises, and the lists."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from streamtwl.errors import AudioError
from streamtwl.training import datasets
from tests.conftest import PATIENCE_S

TOOLS = Path(__file__).parents[2] / "tools"
sys.path.insert(0, str(TOOLS))
import corpus as tool  # noqa: E402

RATE = 16_000


def tone(seconds: float, rate: int = RATE, hz: float = 440.0) -> np.ndarray:
    return (0.1 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype("f4")


@pytest.fixture(scope="module")
def target_filter() -> tool.TargetFilter:
    return tool.TargetFilter()


@pytest.fixture
def unpacked(tmp_path, esc10) -> Path:
    """An unpacked package: two tones, a long one, and what is to be left out."""
    folder = tmp_path / "unpacked"
    sounds = folder / "usr/share/games/beeps"
    sounds.mkdir(parents=True)
    soundfile.write(sounds / "low.wav", tone(3, hz=200), RATE)
    soundfile.write(sounds / "High.OGG", tone(2, 44_100, 1000), 44_100, format="OGG")
    soundfile.write(sounds / "long.flac", tone(95), RATE)
    soundfile.write(sounds / "click.wav", tone(0.2), RATE)
    soundfile.write(sounds / "mute.wav", np.zeros(RATE), RATE)
    soundfile.write(sounds / "big_dog_1.wav", tone(1), RATE)
    (sounds / "broken.wav").write_bytes(b"RIFF no more")
    shutil.copy(esc10 / "audio" / "1-100032-A-0.ogg", sounds / "unsuspected.ogg")
    (folder / "usr/share/doc/beeps").mkdir(parents=True)
    (folder / "usr/share/doc/beeps/copyright").write_text(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n"
        "Files: *\nCopyright: someone\nLicense: CC0-1.0\n"
    )
    return folder


def run(*arguments, **env) -> subprocess.CompletedProcess:
    command = [sys.executable, TOOLS / "corpus.py", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_S, env=os.environ | env
    )


def lengths_s(samples: np.ndarray) -> list[float]:
    return [len(piece) / RATE for _, piece, useless in tool.cut(samples) if useless is None]


@pytest.mark.parametrize(
    ("seconds", "pieces"),
    [(0.4, []), (0.5, [0.5]), (30, [30]), (30.4, [30]), (75, [30, 30, 15])],
)
def test_pieces_are_of_half_a_second_to_thirty(seconds, pieces):
    assert lengths_s(tone(seconds)) == pieces


def test_silence_is_no_piece():
    assert lengths_s(np.concatenate((tone(30), np.zeros(30 * RATE, "f4"), tone(5)))) == [30, 5]
    assert [useless for *_, useless in tool.cut(np.full(RATE, np.nan, "f4"))] == ["silent"]


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000])
def test_files_become_16_khz_mono_and_give_their_first_minute(tmp_path, rate):
    left = tone(2, rate)
    soundfile.write(tmp_path / "two.wav", np.stack((left, np.zeros_like(left)), axis=1), rate)
    samples = tool.read(tmp_path / "two.wav")
    assert samples.dtype == np.float32
    assert abs(len(samples) - 2 * RATE) <= 1
    np.testing.assert_allclose(samples[800:-800], tone(2)[800 : len(samples) - 800] / 2, atol=2e-3)
    soundfile.write(tmp_path / "long.flac", tone(70, rate), rate)
    assert abs(len(tool.read(tmp_path / "long.flac")) - 60 * RATE) <= 1


def test_what_is_no_audio_is_refused(tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(AudioError, match=r"text\.wav"):
        tool.read(tmp_path / "text.wav")


MACHINE_READABLE = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: beeps
License: GPL-3+

Files: *
Copyright: 2020 someone
License: CC-BY-SA-4.0
 The text of it.

Files: sounds/a.ogg
       sounds/b.ogg
Copyright: 2020 someone
License: CC0-1.0 or GPL-2+

Files: music/*
Copyright: someone else
License: CC0-1.0 or GPL-2+

License: GPL-2+
 Its words.
"""
FREE_FORM = """This package was debianized by someone.

   These files are distributed under the Creative Commons Attribution-ShareAlike
   3.0 license. On Debian systems the GNU General Public License is in
   `/usr/share/common-licenses/GPL-2'. Some of it is in the public domain.
"""


def test_licences_of_a_machine_readable_copyright_are_those_of_its_files():
    assert tool.licences(MACHINE_READABLE) == ["CC0-1.0 or GPL-2+", "CC-BY-SA-4.0"]


def test_licences_of_another_copyright_are_those_that_it_names():
    named = tool.licences(FREE_FORM)
    assert set(named) == {
        "GPL-2",
        "Creative Commons Attribution-ShareAlike 3.0",
        "public domain",
    }
    assert tool.licences("All by me, under the GNU General Public License version 2.") == [
        "GNU General Public License"
    ]
    assert tool.licences("Do what you like.") == []


TARGET_NAMES = """
    animals/dog.ogg wolf-die-2.ogg ambient/rain_loop.wav Rain.ogg sounds/sea.ogg waves.ogg
    campfire.ogg crossbow-fire.ogg torch.ogg babyLaugh.ogg cry3.wav sneeze.ogg clock_tick.ogg
    tick1.wav helicopter.ogg chain-saw.ogg chainsaw.wav saw.ogg birds/rooster.ogg hen_1.ogg
    chicken.ogg storm.ogg ambient/weather/a.ogg beach/gulls.ogg"""
OTHER_NAMES = """
    train.ogg terrain.ogg music/search.ogg seafarer.wav firewall.ogg then.ogg cockpit.ogg
    surface.wav sawtooth.wav usr/share/games/a/sounds/laser.ogg wav/speech.wav critic.ogg"""


@pytest.mark.parametrize("name", TARGET_NAMES.split())
def test_names_of_targets_are_known(name):
    assert tool.TARGET_NAME.search(f"usr/share/games/x/{name}".lower())


@pytest.mark.parametrize("name", OTHER_NAMES.split())
def test_names_of_other_things_are_not(name):
    assert not tool.TARGET_NAME.search(name)


def test_an_esc_10_clip_is_found_and_a_tone_is_not(target_filter, esc10):
    found = {
        target_filter.found(tool.read(file))
        for file in sorted((esc10 / "audio").glob("1-*-0.ogg"))  # dogs
    }
    assert found & {"Dog", "Bark", "Yip", "Howl", "Bow-wow", "Growling", "Whimper (dog)"}
    assert target_filter.found(tone(3)) is None
    assert target_filter.found(tone(0.5)) is None  # shorter than a window


def test_most_of_esc_10_would_be_dropped_but_not_all(target_filter, esc10):
    files = sorted((esc10 / "audio").glob("*.ogg"))[::8]
    found = [target_filter.found(tool.read(file)) is not None for file in files]
    assert len(found) == 50
    assert np.mean(found) > 0.6  # so the names are looked at as well


@pytest.mark.parametrize("kind", [kind for kinds, _ in tool.NOISES.values() for kind in kinds])
def test_noises_are_30_s_at_one_level_and_each_seed_another(kind):
    voices = [tone(30, hz=100.0 * i) for i in range(1, 8)]
    made = [tool.noise(kind, seed, voices) for seed in (1, 1, 2)]
    assert made[0].dtype == np.float32
    assert made[0].shape == (30 * RATE,)
    assert np.sqrt(np.mean(made[0] ** 2)) == pytest.approx(tool.NOISE_RMS, rel=0.02)
    np.testing.assert_array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])


def test_no_kind_of_noise_is_on_both_sides():
    assert not set(tool.NOISES["train"][0]) & set(tool.NOISES["test"][0])


def test_a_package_becomes_pieces_and_a_record_of_what_was_dropped(unpacked, tmp_path):
    corpus = tmp_path / "corpus"
    done = run("cut", corpus, "train", "beeps", "1.0-1", unpacked)
    assert done.returncode == 0, done.stderr
    lengths = {
        file.name.rsplit("-", 2)[0] + file.stem[-3:]: soundfile.info(file)
        for file in (corpus / "train" / "beeps").iterdir()
    }
    assert {name: round(about.duration, 2) for name, about in lengths.items()} == {
        "low-00": 3.0,
        "High-00": 2.0,
        "long-00": 30.0,
        "long-30": 30.0,
    }
    assert {(about.samplerate, about.channels) for about in lengths.values()} == {(RATE, 1)}

    done = run("licences", corpus)
    assert done.returncode == 0, done.stderr
    [row] = read_csv(corpus / "LICENCES.csv")
    dropped = row.pop("dropped")
    assert row == {
        "package": "beeps",
        "version": "1.0-1",
        "licences": "CC0-1.0",
        "split": "train",
        "source": "usr/share/games/beeps",
        "hours": "0.018",
    }
    for reason in ("1 short", "1 silent", "1 name", "1 unreadable"):
        assert reason in dropped
    assert "unsuspected" not in str(list(corpus.rglob("*.flac")))  # a dog, by its sound


def test_a_test_piece_that_is_in_training_is_removed(unpacked, tmp_path):
    corpus = tmp_path / "corpus"
    (unpacked / "usr/share/doc/more").symlink_to("beeps")
    run("cut", corpus, "train", "beeps", "1", unpacked)
    soundfile.write(unpacked / "new.wav", tone(4, hz=300), RATE)
    run("cut", corpus, "test", "more", "1", unpacked)
    for _ in range(2):  # the second time finds it removed, and says the same
        run("licences", corpus)
        assert [file.name[:3] for file in (corpus / "test").rglob("*.flac")] == ["new"]
        row = read_csv(corpus / "LICENCES.csv")[1]
        assert (row["package"], row["hours"]) == ("more", "0.001")
        assert "4 also in train" in row["dropped"]
    assert len(list((corpus / "train").rglob("*.flac"))) == 4


def read_csv(file: Path) -> list[dict]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def test_the_targets_names_are_those_that_the_trial_counts_as_right(data, esc10):
    labels = {clip.label for clip in datasets.load(esc10)}
    everything = read_csv(data / "esc50_audioset.csv")
    right = {row["category"]: row["audioset"] for row in everything if row["category"] in labels}
    assert {row["category"]: row["audioset"] for row in read_csv(tool.TARGETS)} == right


def test_the_shell_script_explains_itself_and_its_split_is_fixed():
    script = TOOLS / "corpus.sh"
    done = subprocess.run([script, "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "LICENCES.csv" in done.stdout
    sides: dict[str, set[str]] = {"train": set(), "test": set()}
    for line in script.read_text().splitlines():
        split, _, package = line.partition(" ")
        if split in sides:
            sides[split].add(package)
    assert len(sides["train"]) > 10
    assert len(sides["test"]) > 10
    assert not sides["train"] & sides["test"]
