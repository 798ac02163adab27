"""From files to heads with the real networks, and `teach`, `label` and `sounds` on them."""

import json
from pathlib import Path

import numpy as np
import pytest

from streamtwl.commands import teach
from streamtwl.errors import AudioError, StreamtwlError
from streamtwl.sounds import augment, space
from streamtwl.sounds.embedding import Embedder
from streamtwl.sounds.store import Store
from streamtwl.stages import SAMPLE_RATE, WindowKind


def warble(seconds=2.0, seed=0):
    """A tone that wavers twelve times a second, like nothing in AudioSet."""
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    hz = 1400 + 400 * np.sign(np.sin(2 * np.pi * 12 * t))
    noise = np.random.default_rng(seed).standard_normal(len(t))
    return (0.2 * np.sin(2 * np.pi * np.cumsum(hz) / SAMPLE_RATE) + 0.002 * noise).astype("f4")


def in_a_room(sound, lead_s, tail_s, seed):
    rng = np.random.default_rng(seed)
    lead, tail = (rng.standard_normal(round(s * SAMPLE_RATE)) for s in (lead_s, tail_s))
    return np.concatenate((0.003 * lead, sound, 0.003 * tail)).astype(np.float32)


@pytest.fixture
def embedder(yamnet):
    return Embedder([yamnet], [WindowKind("yamnet:0.96", 0, 0.96)])


def test_variants_are_the_same_each_time_and_hold_the_recording():
    sound = warble(1.0)
    first, again = ([*augment.variants(sound, 4)] for _ in range(2))
    for (mix, start), (same, _) in zip(first, again, strict=True):
        assert np.array_equal(mix, same)
        assert np.abs(mix).max() <= 1
        there = mix[start : start + len(sound)]
        assert np.square(there).mean() > 2 * np.square(mix[:start]).mean()
    mix, start = first[0]
    assert np.corrcoef(mix[start : start + len(sound)], sound)[0, 1] > 0.99


def test_windows_are_those_of_the_live_path_however_long_the_sound(embedder, yamnet):
    samples = np.tile(warble(1.0), 30)
    ends, found = embedder.embed(samples)
    assert ends[:3].tolist() == [15_600, 23_280, 30_960]
    alone = embedder.embed(samples[: 5 * SAMPLE_RATE])[1]["yamnet:0.96"]
    assert np.allclose(found["yamnet:0.96"][:8], alone[:8], atol=1e-4)


def test_what_was_scored_once_is_kept_and_a_damaged_file_is_made_again(
    embedder, tmp_path, monkeypatch
):
    monkeypatch.setenv("STREAMTWL_CACHE", str(tmp_path))
    rows = embedder.example(warble(0.5))["yamnet:0.96"]
    [kept] = tmp_path.glob("sounds/*.npz")
    began = kept.stat().st_mtime_ns
    assert np.allclose(embedder.example(warble(0.5))["yamnet:0.96"], rows, atol=0.01)
    assert kept.stat().st_mtime_ns == began
    kept.write_bytes(b"PK damaged")
    assert np.allclose(embedder.example(warble(0.5))["yamnet:0.96"], rows, atol=0.01)


def test_what_was_scored_is_deleted_with_its_recording(embedder, tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMTWL_CACHE", str(tmp_path / "cache"))
    store = Store(tmp_path / "store")
    for name, seed in (("kettle", 1), ("pot", 2)):
        [example] = store.add(name, [("a", warble(0.5, seed))]).examples
        embedder.example(store.samples(example))
    store.remove("kettle")
    [kept] = (tmp_path / "cache" / "sounds").iterdir()
    [left] = (tmp_path / "store" / "recordings").iterdir()
    assert kept.name.startswith(left.stem)


def test_the_bank_that_ships_is_of_training_parts_only_and_small():
    bank = space.shipped()
    assert set(bank.card.windows) == {"corpus", "kitchen20", "rooms"}
    assert sum(file.stat().st_size for file in space.FOLDER.iterdir()) < 2_000_000
    assert len(bank.groups) == sum(bank.card.windows.values())
    for windows in (["yamnet:0.96"], ["mn04:3"], ["mn04:3", "yamnet:0.96", "other:1"]):
        points = space.Space(windows, bank).points
        assert np.allclose(np.linalg.norm(points, axis=1), 1, atol=1e-5)
    without = space.Space(["mn04:3"], bank, ["kitchen20"]).points
    assert len(without) == len(bank.groups) - bank.card.windows["kitchen20"]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Folders of a user who has taught nothing; `set` is what the command line needs."""
    places = {"STREAMTWL_DATA": tmp_path / "data", "STREAMTWL_STATE": tmp_path / "s"}
    return {name: str(place) for name, place in places.items()}


def test_a_sound_that_is_taught_has_its_label_and_others_have_not(cli, own, wav, yamnet, noise):
    first = wav("kettle.wav", in_a_room(warble(2.0, 1), 0.5, 0.5, 1))
    taught = cli("teach", "my kettle", first, env=own)
    assert taught.returncode == 0, taught.stderr
    assert "my kettle: 1 recording" in taught.stdout
    assert "1 false alarm a day" in taught.stdout
    test = wav("test.wav", in_a_room(0.5 * warble(3.0, 2), 2.0, 2.0, 2))
    other = wav("other.wav", in_a_room(np.tile(noise, 2), 1.0, 1.0, 3))
    labelled = cli("label", test, other, env=own)
    found = {Path(x["file"]).name: x for x in map(json.loads, labelled.stdout.splitlines())}
    with_it, without = found["test.wav"], found["other.wav"]
    spans = [each for each in with_it["events"] if each["label"] == "my kettle"]
    assert with_it["label"] == "my kettle"
    assert len(spans) == 1
    assert 0.5 < spans[0]["start_s"] < 4.0
    assert "my kettle" not in [each["label"] for each in without["events"]]
    off = cli("sounds", "remove", "my kettle", env=own)
    assert "removed" in off.stdout
    assert "my kettle" not in cli("label", test, env=own).stdout


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "name the sound"),
        ({"name": "kettle"}, "name recordings"),
        ({"name": "kettle", "files": [Path("absent.wav")]}, "absent.wav"),
        ({"name": "ket*le", "files": [Path("a.wav")]}, "patterns"),
        ({"name": "kettle", "false_alarms": 5.0}, "no sound"),
        ({"name": "kettle", "last": 5.0}, "streamtwl listen"),
        ({"name": "kettle", "last": 500.0}, "up to 30"),
        ({"background": True, "record": 2}, "--background takes"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(own, monkeypatch, options, problem):
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StreamtwlError, match=problem):
        teach.teach(**options)
    assert not Path(own["STREAMTWL_DATA"]).exists()


def test_silence_is_not_learnt_and_nothing_is_kept(own, monkeypatch, wav):
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(AudioError, match="nothing in it sounds"):
        teach.teach("kettle", [wav("silence.wav", np.zeros(SAMPLE_RATE))])
    assert Store().sounds() == []


@pytest.mark.slow
def test_background_of_files_is_kept_as_embeddings_only(cli, own, wav, yamnet, noise, tmp_path):
    ended = cli("teach", "--background", wav("room.wav", np.tile(0.1 * noise, 30)), env=own)
    assert ended.returncode == 0, ended.stderr
    assert "1.0 minutes" in ended.stdout
    kept = [file.suffix for file in (tmp_path / "data").rglob("*") if file.is_file()]
    assert sorted(set(kept)) in ([".json", ".npz"], ["", ".json", ".npz"])


@pytest.mark.slow
def test_sounds_travel_in_an_archive(cli, own, wav, yamnet, tmp_path):
    cli("teach", "kettle", wav("a.wav", warble(1.0)), "--false-alarms", "9", env=own)
    out = tmp_path / "all.zip"
    assert cli("sounds", "export", "-o", out, env=own).returncode == 0
    there = own | {"STREAMTWL_DATA": str(tmp_path / "other")}
    assert "kettle: 1 recordings" in cli("sounds", "import", out, env=there).stdout
    assert cli("sounds", "rename", "kettle", "pot", env=there).returncode == 0
    [sound] = Store(tmp_path / "other" / "sounds").sounds()
    assert (sound.name, sound.false_alarms_a_day) == ("pot", 9)
