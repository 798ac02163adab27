"""What is taught is kept: whole or not at all, under names that can be used."""

import concurrent.futures
import contextlib

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
    assert {file.name for file in store.folder.rglob("*") if file.is_file()} == {
        ".lock", "sounds.json", "sounds.backup.json", store.sounds()[0].examples[0].file
    }  # fmt: skip


def test_what_is_too_much_leaves_no_recording_behind(store, monkeypatch):
    monkeypatch.setattr("streamtwl.sounds.store.MAX_RECORDINGS", 1)
    with pytest.raises(SoundsError, match="2 recordings"):
        store.add("pot", [("a", sounds_like(1)), ("b", sounds_like(2))])
    assert not [*store.folder.rglob("*.flac")]


def test_what_a_killed_one_left_is_deleted_by_the_next(store):
    store.add("kettle", [("a", sounds_like(1))])
    recordings = store.folder / "recordings"
    for name in ("0123456789abcdef.flac", ".partial-1"):
        (recordings / name).write_bytes(b"somebody's voice")
    store.rename("kettle", "pot")
    assert [file.name for file in recordings.iterdir()] == [store.sounds()[0].examples[0].file]


def test_no_sound_without_a_recording(store):
    with pytest.raises(SoundsError, match="takes a recording"):
        store.add("kettle", [])
    assert store.sounds() == []


@pytest.mark.parametrize("damage", [bytes.__len__, lambda flac: len(flac) // 2, lambda flac: 0])
def test_a_damaged_recording_is_said_with_its_sound_and_what_to_do(store, damage):
    [example] = store.add("kettle", [("a", sounds_like(1))]).examples
    file = store.folder / "recordings" / example.file
    if damage is bytes.__len__:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: damage(file.read_bytes())])
    with pytest.raises(SoundsError, match=r"recording of kettle.*sounds remove"):
        store.samples(example)


def test_those_who_teach_at_once_wait_for_each_other(store):
    def teach(number):
        Store(store.folder).add(f"sound {number}", [("a", sounds_like(number, 0.2))])

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        list(pool.map(teach, range(12)))
    assert {sound.name for sound in store.sounds()} == {f"sound {i}" for i in range(12)}


@pytest.mark.parametrize(
    "text",
    [b"{", b"[]", b'{"version":1,"more":' + b"[" * 9000,
     b'{"version": 1, "sounds": [{"name": "a", "taught_at": "", "examples": []}]}',
     b'{"version": 1, "sounds": [{"name": "a", "taught_at": "", "examples": '
     b'[{"file": "../../secret", "seconds": 1}]}]}'],
)  # fmt: skip
def test_a_damaged_index_is_said_in_a_line(store, text):
    store.folder.mkdir()
    (store.folder / "sounds.json").write_bytes(text)
    with pytest.raises(SoundsError, match=r"sounds\.json is damaged"):
        store.sounds()


def test_an_index_that_is_gone_takes_no_recordings_with_it(store):
    store.add("kettle", [("a", sounds_like(1)), ("b", sounds_like(2))])
    index = store.folder / "sounds.json"
    index.write_bytes(index.read_bytes()[:20])
    with pytest.raises(SoundsError, match=r"put sounds\.backup\.json in its place"):
        store.add("pot", [("c", sounds_like(3))])
    index.unlink()
    with pytest.raises(SoundsError, match=r"put sounds\.backup\.json in its place"):
        store.add("pot", [("c", sounds_like(3))])
    assert len([*store.folder.glob("recordings/*.flac")]) == 2
    (store.folder / "sounds.backup.json").rename(index)
    store.add("pot", [("c", sounds_like(3))])
    assert [len(sound.examples) for sound in store.sounds()] == [2, 1]


def test_a_store_of_before_the_backup_loses_nothing_either(store):
    store.add("kettle", [("a", sounds_like(1))])
    (store.folder / "sounds.backup.json").unlink()
    index = store.folder / "sounds.json"
    whole = index.read_bytes()
    index.unlink()
    with pytest.raises(SoundsError, match="is not there, but recordings are: move the folder"):
        store.add("pot", [("c", sounds_like(3))])
    index.write_bytes(whole[:20])
    with pytest.raises(SoundsError, match=r"is damaged .*: mend it"):
        store.sounds()
    index.write_bytes(whole)
    store.add("pot", [("c", sounds_like(3))])
    assert (store.folder / "sounds.backup.json").read_bytes() == index.read_bytes()


def test_an_index_of_another_version_is_not_called_damaged(store):
    store.folder.mkdir()
    (store.folder / "sounds.json").write_text('{"version": 2, "sounds": {"kettle": 1}}')
    with pytest.raises(SoundsError, match="another version"):
        store.sounds()


def test_damage_anywhere_in_the_background_is_said(store):
    rng = np.random.default_rng(1)
    store.add_background("k", {"a:1": np.ones((9, 5), np.float32), "b:2": np.zeros((9, 3))})
    file = store.folder / "background" / "k.npz"
    whole, intact = file.read_bytes(), store.background("k")
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        file.write_bytes(damaged)
        with contextlib.suppress(SoundsError):
            found = store.background("k")  # a bit that says nothing
            assert all(np.array_equal(found[name], intact[name]) for name in intact)


def test_a_background_that_cannot_be_removed_is_said(store, monkeypatch):
    store.add_background("k", {"a:1": np.ones((9, 5), np.float32)})
    refuse = OSError(30, "Read-only file system")
    monkeypatch.setattr("pathlib.Path.unlink", lambda *_, **__: (_ for _ in ()).throw(refuse))
    with pytest.raises(SoundsError, match="Read-only"):
        store.remove_background()


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
