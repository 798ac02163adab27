"""`streamtwl label` on what a folder of recordings may hold, stopped and resumed."""

import csv
import fcntl
import json
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest

from streamtwl import labelling
from streamtwl.audio import demo
from streamtwl.audio.recording import Recording
from streamtwl.commands import label_batch
from streamtwl.config import Settings
from streamtwl.errors import UsageError
from streamtwl.labelling import label_files
from streamtwl.pipeline import build

pytestmark = pytest.mark.usefixtures("yamnet")  # so that its file is there

COMMAND = [sys.executable, str(Path(sys.executable).with_name("streamtwl")), "label"]
PATIENCE_S = 120
FAST = ("--reasoner", "evidence")

SIRENS = ("Siren", "Police car (siren)")


@pytest.fixture
def siren(wav) -> Path:
    """A file of 2.4 s."""
    [sound] = [sound for sound in demo.TIMELINE if sound.label == "Siren"]
    samples = demo.scene()[int(sound.start_s * 16_000) : int(sound.end_s * 16_000)]
    return wav("made/siren.wav", samples)


@pytest.fixture
def folder(tmp_path, siren) -> Path:
    """Forty recordings, two of them broken, in three folders."""
    folder = tmp_path / "recordings"
    for number in range(40):
        path = folder / f"night {number % 3}" / f"{number:03}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(siren, path)
    (folder / "night 1" / "004.wav").write_text("no sound")
    (folder / "night 2" / "005.wav").write_bytes(b"")
    return folder


def run(*arguments, env=None, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*COMMAND, *arguments],
        env=os.environ | (env or {}),
        capture_output=True,
        timeout=PATIENCE_S,
        **({"stdin": subprocess.DEVNULL} | kwargs),
    )


def results_in(text: str | bytes) -> dict[str, dict]:
    results = [json.loads(line) for line in text.splitlines()]
    assert len({result["file"] for result in results}) == len(results)
    return {result["file"]: result for result in results}


def assert_same(results: dict[str, dict], others: dict[str, dict]) -> None:
    """The same but for the last digit, which depends on what else was scored at once."""
    assert results.keys() == others.keys()
    for file, result in results.items():
        other = others[file]
        for key in ("label", "duration_s", "error"):
            assert result[key] == other[key]
        assert [each["label"] for each in result["events"]] == [
            each["label"] for each in other["events"]
        ]


# --- names ---


@pytest.mark.parametrize(
    "env",
    [{}, {"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=["here", "C", "ASCII"],
)
def test_names_of_any_bytes_are_labelled(env, siren, tmp_path):
    names = [
        b"caf\xe9.wav",
        b"caf\xe8.wav",
        "öü 日本.wav".encode(),
        b"new\nline.wav",
        b"\x1b[31m.wav",
    ]
    named = os.fsencode(tmp_path)
    for name in names:
        shutil.copy(siren, os.path.join(named, name))
    missing = [b"none\xe9.wav", b"none\n.wav"]
    arguments = [os.path.join(named, name) for name in [*names, *missing]]
    ended = run(*arguments, env=env)
    assert ended.returncode == 1
    results = results_in(ended.stdout)
    assert [Path(file).name for file, each in results.items() if each["label"] in SIRENS] == [
        "caf\\xe9.wav", "caf\\xe8.wav", "öü 日本.wav", "new\nline.wav", "\x1b[31m.wav",
    ]  # fmt: skip
    errors = ended.stderr.decode("ascii").splitlines()  # the names' own bytes as escapes
    assert [line.rpartition("/")[2] for line in errors] == ["none\\xe9.wav", "none\\n.wav"]
    assert all(line.startswith("streamtwl: no such file: ") for line in errors)


def test_names_of_any_bytes_go_to_csv_and_to_tracks(siren, tmp_path):
    names = [b"caf\xe9.wav", b'a, "b".wav', b"-o.wav", b"new\nline.wav", b"x" * 251 + b".wav"]
    folder = tmp_path / "in"
    folder.mkdir()
    for name in names:
        shutil.copy(siren, os.path.join(os.fsencode(folder), name))
    assert run("in", "-o", "out.csv", cwd=tmp_path).returncode == 0
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        files = {row["file"] for row in csv.DictReader(file)}
    assert files == {
        "in/caf\\xe9.wav", 'in/a, "b".wav', "in/-o.wav", "in/new\nline.wav", f"in/{'x' * 251}.wav",
    }  # fmt: skip
    assert run("in", "-d", "tracks", cwd=tmp_path).returncode == 0
    tracks = os.listdir(os.fsencode(tmp_path / "tracks"))
    assert set(tracks) == {name[:-4] + b".txt" for name in names}
    assert run("in", "-o", "out.csv", "-d", "caf\udce9", cwd=tmp_path).returncode == 2
    again = run("in", "-o", "out.csv", "--resume", cwd=tmp_path)
    assert again.stderr.decode().startswith("streamtwl: 4 of 5 files")


def test_standard_input_is_a_file_too(siren):
    with siren.open("rb") as sound:
        ended = run("-", stdin=sound)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert results_in(ended.stdout)["/dev/stdin"]["label"] in SIRENS
    ended = run("-", stdin=subprocess.DEVNULL)
    assert ended.returncode == 1
    assert b"device" in ended.stderr


# --- what is no recording ---


def test_a_file_that_cannot_be_read_costs_only_itself(siren, tmp_path, capsys):
    os.mkfifo(tmp_path / "fifo.wav")
    (tmp_path / "link.wav").symlink_to("nowhere")
    files = [tmp_path / "fifo.wav", Path("/dev/zero"), tmp_path / "link.wav", siren]
    assert label_batch.run(files, None, None, None, Settings()) == 1
    captured = capsys.readouterr()
    results = results_in(captured.out)
    assert [bool(results[str(file)]["error"]) for file in files] == [True, True, True, False]
    assert len(captured.err.splitlines()) == 3


@pytest.mark.parametrize(
    "problem", [RuntimeError("odd"), ValueError("\udce9"), MemoryError(), OSError(5, "I/O error")]
)
@pytest.mark.parametrize("where", ["start", "read"])
def test_whatever_a_decoder_raises_is_that_files_error(
    problem, where, siren, tmp_path, monkeypatch
):
    bad = tmp_path / "bad.wav"
    shutil.copy(siren, bad)
    right = getattr(Recording, where)

    def fail(self, *arguments):
        if self.name == "bad.wav":
            raise problem
        return right(self, *arguments)

    monkeypatch.setattr(Recording, where, fail)
    pipeline = build(Settings(), ["bad.wav", "siren.wav"])
    results = dict(label_files([bad, siren], pipeline))
    assert type(problem).__name__ in results[0].error
    assert "bad.wav" in results[0].error
    assert (results[1].label, results[1].error) == ("Siren", None)


def test_a_file_that_vanishes_while_others_are_labelled(siren, tmp_path, monkeypatch):
    monkeypatch.setattr(labelling, "WIDTH", 1)
    gone = tmp_path / "gone.wav"
    shutil.copy(siren, gone)
    results = label_files([siren, gone, siren], build(Settings(), ["a", "b", "c"]))
    assert next(results)[1].error is None
    gone.unlink()
    assert [result.error is None for _, result in results] in ([False, True], [True])


def test_a_folder_is_searched_and_says_what_it_passed_over(folder, tmp_path, capsys):
    (folder / "results.csv").touch()
    (folder / "loop").symlink_to(folder)
    assert label_batch.run([folder], tmp_path / "out.jsonl", None, None, Settings()) == 1
    results = results_in((tmp_path / "out.jsonl").read_text())
    assert results.keys() == {str(path) for path in folder.rglob("*.wav")}
    assert len([each for each in results.values() if each["error"]]) == 2
    first = capsys.readouterr().err.splitlines()[0]
    assert "not named like recordings: 1" in first
    assert "linked folders: 1" in first


def test_a_folder_without_recordings_is_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "out.csv").write_text("kept")
    ended = run("empty", "-o", "out.csv", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert ended.stderr == b"streamtwl: no recordings in empty: name other folders\n"
    assert (tmp_path / "out.csv").read_text() == "kept"


def test_few_files_are_open_at_once(siren):
    before = len(os.listdir("/proc/self/fd"))
    pipeline = build(Settings(), [f"{n}" for n in range(100)])
    opened = len(os.listdir("/proc/self/fd"))
    most = 0
    for _ in label_files([siren] * 100, pipeline):
        most = max(most, len(os.listdir("/proc/self/fd")))
    assert most <= opened + labelling.WIDTH
    assert before <= opened


def test_closed_standard_streams_are_no_traceback(siren, tmp_path):
    def closing(which: str, *arguments) -> subprocess.CompletedProcess:
        words = " ".join(map(str, [*COMMAND, *arguments]))
        return subprocess.run(["sh", "-c", f"{words} {which}"], capture_output=True, text=True)

    ended = closing(">&-", siren)
    assert ended.returncode == 1
    assert ended.stderr == (
        "streamtwl: cannot write to standard output: it is closed, or has no reader\n"
    )
    ended = closing("2>&-", siren, "none.wav")
    assert (ended.returncode, len(results_in(ended.stdout))) == (1, 2)
    assert closing(">&- 2>&-", siren, "-o", tmp_path / "out.jsonl").returncode == 0
    assert len(results_in((tmp_path / "out.jsonl").read_text())) == 1


# --- stopped and resumed ---


SLOW = """
import time
from streamtwl.results import Writer

def write(self, number, result, written=[], write=Writer.write):
    write(self, number, result)
    written.append(number)
    time.sleep(len(written) >= 5)

Writer.write = write
"""


def killed(start_cli, folder: Path, output: Path, number: int) -> subprocess.Popen:
    """Label a folder until there are five results, then send a signal."""
    target = "-o" if output.suffix else "-d"
    process = start_cli("label", folder, target, output, *FAST, prelude=SLOW)
    while process.poll() is None:
        made = output.read_text().count("\n") if output.is_file() else len(_tracks(output))
        if made >= 5:
            process.send_signal(number)
            process.wait(PATIENCE_S)
    return process


def _tracks(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.txt"))


def test_killed_and_resumed_it_has_the_same_results(start_cli, folder, tmp_path):
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    run(str(folder), "-o", whole, *FAST)
    assert killed(start_cli, folder, parts, signal.SIGKILL).returncode == -signal.SIGKILL
    before = results_in(parts.read_bytes().rpartition(b"\n")[0])
    assert len(before) < 40
    with parts.open("a") as file:
        file.write('{"file": "' + str(folder))  # as if it had been writing
    ended = run(str(folder), "-o", parts, *FAST, "--resume")
    assert ended.returncode == 1
    after = results_in(parts.read_text())
    assert {file: after[file] for file in before} == before  # not made again, but for the failed
    assert_same(after, results_in(whole.read_text()))
    assert len(after) == 40


@pytest.mark.slow
def test_killed_and_resumed_it_has_the_same_tracks(start_cli, folder, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(str(folder), "-d", whole, *FAST)
    killed(start_cli, folder, parts, signal.SIGKILL)
    before = {track: (parts / track).stat().st_mtime_ns for track in _tracks(parts)}
    assert len(before) < 38
    run(str(folder), "-d", parts, *FAST, "--resume")
    assert {track: (parts / track).stat().st_mtime_ns for track in before} == before
    assert _tracks(parts) == _tracks(whole)
    assert len(_tracks(parts)) == 38
    for track in _tracks(parts):
        assert (parts / track).read_text().count("\n") == (whole / track).read_text().count("\n")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_whole_results(number, start_cli, folder, tmp_path):
    output = tmp_path / "out.csv"
    process = killed(start_cli, folder, output, number)
    assert process.returncode == 128 + number
    line = process.stderr.read().decode().splitlines()[-1]
    assert "of 40 files have a result; --resume" in line
    assert output.read_text().endswith("\n")
    run(str(folder), "-o", output, *FAST, "--resume")
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["file"] for row in rows} == {str(path) for path in folder.rglob("*.wav")}


def test_resume_wants_a_place_and_no_pipes(siren, tmp_path):
    resume = label_batch.BatchOptions(resume=True)
    with pytest.raises(UsageError, match="-o or -d"):
        label_batch.run([siren], None, None, None, Settings(), resume)
    with pytest.raises(UsageError, match="pipe"):
        label_batch.run([Path("-")], tmp_path / "out.csv", None, None, Settings(), resume)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_wrong_option_leaves_earlier_results_alone(jobs, siren, tmp_path):
    output, other = tmp_path / "out.jsonl", tmp_path / "other.wav"
    other.write_bytes(siren.read_bytes())
    output.write_text("{}\n")
    batch = label_batch.BatchOptions(jobs=jobs)
    with pytest.raises(UsageError, match="Dgo"):
        label_batch.run([siren, other], output, None, None, Settings(labels="Dgo"), batch)
    assert output.read_text() == "{}\n"


# --- the wall clock ---


def test_events_are_dated_by_the_name(siren, tmp_path, capsys):
    file, undated = tmp_path / "SITE_20260514_203000.wav", tmp_path / "ZOOM0001.WAV"
    shutil.copy(siren, file)
    shutil.copy(siren, undated)
    batch = label_batch.BatchOptions(clock="name", zone="+02:00")
    output = tmp_path / "out.csv"
    assert label_batch.run([file, undated], output, None, None, Settings(), batch) == 0
    with output.open(newline="") as text:
        rows = list(csv.DictReader(text))
    dated = [row for row in rows if row["file"] == str(file)]
    assert dated
    for row in dated:
        assert row["start_time"] == f"2026-05-14T20:30:{float(row['start_s']):06.3f}+02:00"
        assert row["end_time"] == f"2026-05-14T20:30:{float(row['end_s']):06.3f}+02:00"
    assert {row["start_time"] for row in rows if row["file"] == str(undated)} == {""}
    assert "1 files" in capsys.readouterr().err


def test_events_are_dated_by_the_files_date(siren, capsys):
    os.utime(siren, (1_800_000_000, 1_800_000_000))
    batch = label_batch.BatchOptions(clock="mtime", zone="UTC")
    label_batch.run([siren], None, None, None, Settings(), batch)
    [result] = results_in(capsys.readouterr().out).values()
    assert result["start_time"] == "2027-01-15T07:59:57.600+00:00"
    assert result["events"][0]["end_time"] > result["start_time"]
    assert "start_time" not in json.dumps(undated(siren, capsys))


def undated(file: Path, capsys) -> dict:
    label_batch.run([file], None, None, None, Settings())
    return json.loads(capsys.readouterr().out)


def test_label_tracks_have_no_place_for_dates(siren, tmp_path):
    with pytest.raises(UsageError, match="--format"):
        label_batch.run(
            [siren], None, tmp_path, None, Settings(), label_batch.BatchOptions(clock="name")
        )
    with pytest.raises(UsageError, match="--clock"):
        label_batch.run([siren], None, None, None, Settings(), label_batch.BatchOptions(zone="UTC"))


# --- progress ---


def test_progress_is_for_terminals_and_shows_long_files(siren, wav, tmp_path):
    long = wav("long é.wav", np.zeros(16_000 * 400))
    ours, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, siren, long, "none.wav", "-o", tmp_path / "out.jsonl", *FAST],
        stderr=terminal,
        env=os.environ | {"TERM": "xterm"},
    )
    os.close(terminal)
    shown = bytearray()
    try:
        while chunk := os.read(ours, 1 << 16):
            shown += chunk
    except OSError:  # how Linux says that nobody has the terminal open any more
        pass
    finally:
        os.close(ours)
    assert process.wait(PATIENCE_S) == 1
    text = shown.decode()
    assert "of 0:06:40" in text  # the long file's bar
    assert "2 of 3" in text
    assert "siren.wav" not in text  # a short file has none
    assert "no such file: none.wav" in text


def test_without_a_terminal_there_is_no_progress(siren, tmp_path):
    ended = run(siren, "-o", tmp_path / "out.jsonl", env={"FORCE_COLOR": "1"})
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
