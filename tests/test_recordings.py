"""Which files a batch is made of, and what is no recording."""

import contextlib
import os
import socket
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from streamtwl import cli
from streamtwl.errors import AudioError
from streamtwl.file_names import one_line, readable
from streamtwl.labelling import BatchRecording
from streamtwl.recordings import STDIN, find


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def paths(*arguments: Path) -> list[Path]:
    return [file.path for file in find(arguments)[0]]


@contextlib.contextmanager
def another_user():
    """Be somebody who may read only what everybody may, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.fixture
def public():
    """A folder that every user can get to."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        for closed in folder.rglob("*"):
            closed.chmod(0o755)


def test_a_folder_gives_its_recordings_in_order(tmp_path):
    make(tmp_path, "b.wav", "a.FLAC", "c/z.mp3", "c/d/y.Opus", "a/x.mp4")
    assert [str(path.relative_to(tmp_path)) for path in paths(tmp_path)] == [
        "a.FLAC", "b.wav", "a/x.mp4", "c/z.mp3", "c/d/y.Opus",
    ]  # fmt: skip


def test_what_is_passed_over_in_a_folder_is_counted(tmp_path):
    make(tmp_path, "a.wav", ".b.wav", ".git/c.wav", "results.jsonl", "notes.txt", "sub/d.csv")
    os.mkfifo(tmp_path / "fifo.wav")
    (tmp_path / "sub" / "up").symlink_to("..")
    found, passed_over = find([tmp_path])
    assert [file.path.name for file in found] == ["a.wav"]
    assert passed_over == {
        "hidden": 2, "not named like recordings": 3, "pipes or devices": 1, "linked folders": 1,
    }  # fmt: skip


def test_a_file_that_is_named_is_taken_whatever_its_name(tmp_path):
    make(tmp_path, ".hidden", "notes.txt")
    assert paths(tmp_path / ".hidden", tmp_path / "notes.txt", tmp_path / "none.wav") == [
        tmp_path / ".hidden", tmp_path / "notes.txt", tmp_path / "none.wav",
    ]  # fmt: skip


def test_each_file_is_taken_once(tmp_path, monkeypatch):
    make(tmp_path, "a.wav", "sub/b.wav")
    monkeypatch.chdir(tmp_path)
    assert paths(Path("a.wav"), tmp_path, Path("sub"), Path("sub/../a.wav")) == [
        Path("a.wav"), tmp_path / "sub" / "b.wav",
    ]  # fmt: skip


def test_a_broken_link_in_a_folder_is_taken_so_that_its_result_says_so(tmp_path):
    (tmp_path / "a.wav").symlink_to("nowhere")
    assert paths(tmp_path) == [tmp_path / "a.wav"]


def test_result_files_lie_as_the_recordings_do(tmp_path):
    make(tmp_path, "one/x.wav", "one/night/x.wav", "two/x.wav")
    places = [str(file.place) for file in find([tmp_path / "one"])[0]]
    assert places == ["x.wav", "night/x.wav"]
    places = [str(file.place) for file in find([tmp_path / "one", tmp_path / "two"])[0]]
    assert places == ["one/x.wav", "one/night/x.wav", "two/x.wav"]
    assert [str(file.place) for file in find([tmp_path / "one" / "x.wav"])[0]] == ["x.wav"]


def test_a_dash_is_standard_input():
    assert paths(Path("-")) == [STDIN]


def test_what_would_never_end_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo.wav")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket.wav"))
    for name, what in [
        (tmp_path / "fifo.wav", "named pipe"),
        (tmp_path / "socket.wav", "socket"),
        (Path("/dev/zero"), "device"),
        (tmp_path, "folder"),
        (tmp_path / "none.wav", "no such file"),
        (tmp_path / ("x" * 300), "too long"),
    ]:
        with pytest.raises(AudioError, match=what):
            BatchRecording(name).start()


def test_links_that_lead_nowhere_are_refused(tmp_path):
    (tmp_path / "a.wav").symlink_to("nowhere")
    (tmp_path / "b.wav").symlink_to("b.wav")
    with pytest.raises(AudioError, match="link to nowhere"):
        BatchRecording(tmp_path / "a.wav").start()
    with pytest.raises(AudioError, match="levels of symbolic links"):
        BatchRecording(tmp_path / "b.wav").start()


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="no /dev/fd here")
def test_the_pipe_of_a_shell_is_taken_and_another_device_is_not(wav):
    reading, writing = os.pipe()
    ours, terminal = os.openpty()
    os.write(writing, wav("a.wav", np.ones(1000)).read_bytes())
    os.close(writing)
    try:
        recording = BatchRecording(Path(f"/dev/fd/{reading}"))
        recording.start()
        assert len(recording.read(0.0).frames) == 1000
        recording.close()
        with pytest.raises(AudioError, match="device"):
            BatchRecording(Path(f"/dev/fd/{terminal}")).start()
    finally:
        for each in (reading, ours, terminal):
            os.close(each)


def test_a_folder_that_may_not_be_listed_stands_for_itself(public):
    make(public, "a.wav", "closed/b.wav", "z/c.wav")
    (public / "closed").chmod(0)
    with another_user():
        assert paths(public) == [public / "a.wav", public / "closed", public / "z" / "c.wav"]
        for file in (public / "closed", public / "closed" / "b.wav"):
            with pytest.raises(AudioError, match="permission denied"):
                BatchRecording(file).start()
        assert [str(file.place) for file in find([public / "closed"])[0]] == ["closed"]


def test_the_command_line_leaves_permissions_to_the_batch(public, monkeypatch):
    make(public, "a.wav")
    (public / "a.wav").chmod(0)
    taken = []
    monkeypatch.setattr("streamtwl.commands.label_batch.run", lambda files, *_: taken.extend(files))
    monkeypatch.setattr(sys, "argv", ["streamtwl", "label", str(public / "a.wav")])
    for user in (contextlib.nullcontext(), another_user()):  # who may not read what it imports
        with user, pytest.raises(SystemExit):
            cli.main()
    assert taken == [public / "a.wav"] * 2


def test_a_working_folder_that_is_gone_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(AudioError, match="working folder"):
        find([Path("a.wav")])


def test_names_are_made_readable_and_stay_apart():
    name = os.fsdecode(b"caf\xe9 \xc3\xa9.wav")
    assert readable(name) == "caf\\xe9 é.wav"
    assert readable(os.fsdecode(b"\xe8")) != readable(os.fsdecode(b"\xe9"))
    assert one_line("a\nb\x1b[31m\r é") == "a\\nb\\x1b[31m\\r é"
