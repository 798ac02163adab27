"""What is taught is kept: whole or not at all, under names that can be used."""

import concurrent.futures

import numpy as np
import pytest

from streamtwl.errors import SoundsError, UsageError
from streamtwl.sounds.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "sounds")


def sounds_like(seed, seconds=0.5):
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal(round(16_000 * seconds))).astype(np.float32)


def test_a_sound_is_there_with_its_recordings_for_the_next_reader(store):
    samples = sounds_like(1)
    store.add("kettle", [("kettle1.wav", samples)], 5.0)
    [sound] = Store(store.folder).sounds()
    assert (sound.name, sound.false_alarms_a_day) == ("kettle", 5.0)
    assert [example.origin for example in sound.examples] == ["kettle1.wav"]
    assert np.abs(store.samples(sound.examples[0]) - samples).max() <= 1 / 32767


def test_the_same_name_in_any_case_adds_and_the_same_recording_does_not(store):
    store.add("kettle", [("a", sounds_like(1))])
    store.add("Kettle", [("b", sounds_like(2)), ("a again", sounds_like(1))], 3.0)
    store.add("kettle", [])
    [sound] = store.sounds()
    assert (sound.name, len(sound.examples), sound.false_alarms_a_day) == ("kettle", 2, 3.0)


def test_removing_deletes_the_recordings_that_no_other_sound_has(store):
    store.add("kettle", [("a", sounds_like(1)), ("b", sounds_like(2))])
    store.add("pot", [("a", sounds_like(1))])
    store.remove("KETTLE")
    assert [sound.name for sound in store.sounds()] == ["pot"]
    assert len([*store.folder.glob("recordings/*")]) == 1
    store.add("kettle", [("b", sounds_like(2))])
    with pytest.raises(SoundsError, match=r"kettl.*did you mean"):
        store.find("kettl")


def test_renaming_takes_no_name_that_is_taken(store):
    store.add("kettle", [("a", sounds_like(1))])
    store.add("pot", [("b", sounds_like(2))])
    with pytest.raises(SoundsError, match="'pot' is taught already"):
        store.rename("kettle", "Pot")
    store.rename("kettle", "Kettle")
    assert [sound.name for sound in store.sounds()] == ["Kettle", "pot"]


@pytest.mark.parametrize("name", ["", " kettle", "a\nb", "x" * 61, "dog*", "a?", "[a]", "\x1b[31m"])
def test_names_that_could_not_be_used_are_refused(store, name):
    with pytest.raises(UsageError):
        store.add(name, [("a", sounds_like(1))])
    assert store.sounds() == []


def test_a_change_that_fails_changes_nothing(store, monkeypatch):
    store.add("kettle", [("a", sounds_like(1))])
    monkeypatch.setattr("os.fsync", lambda _fd: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(SoundsError, match=r"No space left.*STREAMTWL_DATA"):
        store.add("pot", [("b", sounds_like(2))])
    assert [sound.name for sound in store.sounds()] == ["kettle"]
    assert not [*store.folder.rglob(".tmp*")]
    assert [f for f in store.folder.iterdir() if f.name.startswith(".")] in (
        [],
        [store.folder / ".lock"],
    )


def test_those_who_teach_at_once_wait_for_each_other(store):
    def teach(number):
        Store(store.folder).add(f"sound {number}", [("a", sounds_like(number, 0.2))])

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        list(pool.map(teach, range(12)))
    assert {sound.name for sound in store.sounds()} == {f"sound {i}" for i in range(12)}


@pytest.mark.parametrize(
    "text",
    [b"{", b"[]", b'{"version": 1, "sounds": [{"name": "a", "taught_at": "", "examples": '
     b'[{"file": "../../secret", "seconds": 1}]}]}'],
)  # fmt: skip
def test_a_damaged_index_is_said_in_a_line(store, text):
    store.folder.mkdir()
    (store.folder / "sounds.json").write_bytes(text)
    with pytest.raises(SoundsError, match=r"sounds\.json is damaged"):
        store.sounds()


def test_the_folder_is_the_users_own(store):
    store.add("kettle", [("a", sounds_like(1))])
    assert store.folder.stat().st_mode & 0o077 == 0


def test_background_is_kept_by_the_windows_that_made_it(store):
    assert store.background("a") == {}
    store.add_background("a", {"x:1": np.ones((3, 4), np.float32)})
    assert store.add_background("a", {"x:1": np.zeros((2, 4), np.float32)}) == 5
    assert store.background("a")["x:1"].sum() == 12
    assert store.background("b") == {}
    assert store.remove_background()
    assert not store.remove_background()
