"""Archives: out and in again, and those that were made to harm."""

import contextlib
import zipfile

import msgspec
import numpy as np
import pytest

from streamtwl.errors import SoundsError, StreamtwlError
from streamtwl.sounds import archive, recording
from streamtwl.sounds.store import Store


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "sounds")
    samples = (0.1 * np.random.default_rng(1).standard_normal(8000)).astype(np.float32)
    store.add("kettle", [("kettle.wav", samples)], 4.0)
    store.add("pot", [("pot.wav", samples[:4000])])
    return store


@pytest.fixture
def exported(store, tmp_path):
    archive.export(store, [], tmp_path / "all.zip")
    return tmp_path / "all.zip"


def test_what_was_exported_is_the_same_after_import(store, exported, tmp_path):
    other = Store(tmp_path / "other")
    other.add("kettle", [("mine", np.full(1600, 0.1, np.float32))])
    archive.load(other, exported)
    kettle, pot = other.sounds()
    assert ([len(s.examples) for s in (kettle, pot)], kettle.false_alarms_a_day) == ([2, 1], 4.0)
    assert np.array_equal(
        other.samples(kettle.examples[1]), store.samples(store.find("kettle").examples[0])
    )


def test_one_sound_alone_can_be_exported_and_nothing_is_overwritten(store, tmp_path):
    file = tmp_path / "one.zip"
    archive.export(store, ["Pot"], file)
    other = Store(tmp_path / "other")
    archive.load(other, file)
    assert [sound.name for sound in other.sounds()] == ["pot"]
    with pytest.raises(SoundsError, match="exists"):
        archive.export(store, [], file)


def changed(exported, tmp_path, change):
    """Write the archive again, its members, name to bytes, as `change` leaves them."""
    with zipfile.ZipFile(exported) as read:
        members = {each.filename: read.read(each) for each in read.infolist()}
    change(members)
    file = tmp_path / "changed.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as written:
        for name, content in members.items():
            written.writestr(name, content)
    return file


def in_index(old, new):
    def change(members):
        assert old in members["sounds.json"]
        members["sounds.json"] = members["sounds.json"].replace(old, new)

    return change


def first_flac(members):
    return next(name for name in members if name.endswith(".flac"))


def renamed_to(path):
    def change(members):
        name = first_flac(members)
        members[path] = members.pop(name)
        members["sounds.json"] = members["sounds.json"].replace(name.encode(), path.encode())

    return change


HOSTILE = {
    "a path that leads out": renamed_to("../../evil.flac"),
    "an absolute path": renamed_to("/tmp/evil.flac"),
    "a member more": lambda m: m.update({"../../.bashrc": b"echo"}),
    "no index": lambda m: m.pop("sounds.json"),
    "a damaged index": lambda m: m.update({"sounds.json": b"{"}),
    "an index without end": lambda m: m.update({"sounds.json": b" " * 9_000_000}),
    "a recording missing": lambda m: m.pop(first_flac(m)),
    "a recording that is none": lambda m: m.update({first_flac(m): b"fLaC" + bytes(100)}),
    "a recording too big": lambda m: m.update({first_flac(m): bytes(3_000_000)}),
    "a recording too long": lambda m: m.update(
        {first_flac(m): recording.encode(np.zeros(40 * 16_000, np.float32))}
    ),
    "a name with an escape": in_index(b'"pot"', b'"\\u001b[2J"'),
    "a name that is a pattern": in_index(b'"pot"', b'"*"'),
    "a sound of no recording": lambda m: (
        m.clear(),
        m.update({"sounds.json": b'{"sounds":[{"name":"a","taught_at":"","examples":[]}]}'}),
    ),
    "no sound": lambda m: (m.clear(), m.update({"sounds.json": b'{"sounds":[]}'})),
    "an index that is nested too deep": in_index(b'"version":1', b'"more":' + b"[" * 9000),
    "another version": in_index(b'"version":1', b'"version":9'),
    "a rate that is none": in_index(b'"false_alarms_a_day":4.0', b'"false_alarms_a_day":-1'),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_archive_is_refused_and_adds_nothing(what, exported, tmp_path):
    file = changed(exported, tmp_path, HOSTILE[what])
    other = Store(tmp_path / "other")
    before = {path for path in tmp_path.rglob("*") if "other" not in path.parts}
    with pytest.raises(StreamtwlError):
        archive.load(other, file)
    assert other.sounds() == []
    assert {path for path in tmp_path.rglob("*") if "other" not in path.parts} == before


def test_a_header_that_lies_about_a_size_does_not_help(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_BYTES", 1000)
    with pytest.raises(SoundsError, match="members, or more"):
        archive.load(Store(tmp_path / "other"), exported)


def test_what_is_no_archive_is_said_in_a_line(tmp_path, store):
    (tmp_path / "no.zip").write_bytes(b"PK nonsense")
    with pytest.raises(SoundsError, match="no archive"):
        archive.load(store, tmp_path / "no.zip")
    with pytest.raises(SoundsError, match="no such file"):
        archive.load(store, tmp_path / "absent.zip")


def test_an_origin_is_no_more_than_text(exported, tmp_path):
    file = changed(exported, tmp_path, in_index(b'"kettle.wav"', b'"\\u001b[2Jevil"'))
    other = Store(tmp_path / "other")
    archive.load(other, file)
    assert msgspec.json.encode(other.find("kettle").examples[0].origin) == b'"\\u001b[2Jevil"'


@pytest.mark.parametrize("how", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_in_what_is_compressed_is_said(how, exported, tmp_path):
    with zipfile.ZipFile(exported) as read:
        members = {each.filename: read.read(each) for each in read.infolist()}
    file = tmp_path / "packed.zip"
    for at in range(60, 400, 7):
        with zipfile.ZipFile(file, "w", how) as written:
            for name, content in members.items():
                written.writestr(name, content)
        damaged = bytearray(file.read_bytes())
        damaged[at : at + 5] = b"\xff" * 5
        file.write_bytes(damaged)
        with contextlib.suppress(SoundsError):  # what says nothing may be damaged
            archive.load(Store(tmp_path / "other"), file)


def test_an_export_that_fails_leaves_nothing(store, tmp_path, monkeypatch):
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(zipfile.ZipFile, "writestr", lambda *_: (_ for _ in ()).throw(full))
    with pytest.raises(SoundsError, match="No space left"):
        archive.export(store, [], tmp_path / "all.zip")
    assert not (tmp_path / "all.zip").exists()
