"""Where things are kept, also for a user without a home."""

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from streamtwl import folders
from streamtwl.errors import UsageError
from streamtwl.models import registry
from tests.conftest import COMMAND, PATIENCE_S, REPOSITORY

VARIABLES = {"STREAMTWL_CACHE": folders.cache, "STREAMTWL_STATE": folders.state}
VARIABLES |= {"STREAMTWL_CONFIG": folders.config, "STREAMTWL_DATA": folders.data}
UID = 4242


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """A user whom neither the environment nor passwd gives a home, in an empty folder."""

    def nobody(_uid):
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in (
        "HOME",
        "XDG_CACHE_HOME",
        "XDG_STATE_HOME",
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        *VARIABLES,
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("variable", VARIABLES)
def test_without_a_home_the_variable_to_set_is_named(variable, homeless, monkeypatch, tmp_path):
    with pytest.raises(UsageError, match=f"no home.*: set {variable}=FOLDER"):
        VARIABLES[variable]()
    for empty in ("", "relative"):  # a home that is none
        monkeypatch.setenv("HOME", empty)
        with pytest.raises(UsageError, match=f"set {variable}=FOLDER"):
            VARIABLES[variable]()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("variable", VARIABLES)
def test_without_a_home_the_folder_that_is_named_is_taken(variable, homeless, monkeypatch):
    monkeypatch.setenv(variable, "/somewhere")
    assert VARIABLES[variable]() == Path("/somewhere")


@pytest.mark.parametrize("kind", ["cache", "state", "config", "data"])
def test_by_default_they_are_the_users_own(kind, monkeypatch):
    monkeypatch.delenv(f"STREAMTWL_{kind.upper()}", raising=False)
    monkeypatch.setenv(f"XDG_{kind.upper()}_HOME", "/somewhere")
    assert VARIABLES[f"STREAMTWL_{kind.upper()}"]() == Path("/somewhere/streamtwl")


def test_a_tilde_is_the_home(monkeypatch, homeless):
    with pytest.raises(UsageError, match=r"~/here.*whole path"):
        folders.expand("~/here")
    monkeypatch.setenv("STREAMTWL_STATE", "~/here")
    with pytest.raises(UsageError, match="~/here"):
        folders.state()
    monkeypatch.setenv("HOME", "/home/me")
    assert folders.state() == folders.expand("~/here") == Path("/home/me/here")


# --- a container's `--user` ---


@pytest.fixture
def as_nobody(tmp_path):
    """Run the command line as a user whom nobody knows: as_nobody("label", ..., **env)."""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root may become another user (setpriv, of util-linux)")
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    os.chown(cwd, UID, UID)
    # Python may lie in a folder of root's: reading it is all that is left to the user.
    become = ["setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups"]
    become += ["--inh-caps", "-all,+dac_read_search", "--ambient-caps", "-all,+dac_read_search"]
    path = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY)}
    if subprocess.run([*become, sys.executable, "-c", ""], env=path).returncode:
        pytest.skip("another user may not run this Python")

    def run(*arguments, **env) -> subprocess.CompletedProcess:
        ended = subprocess.run(
            [*become, *COMMAND, *map(str, arguments)],
            env=path | env,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert list(cwd.iterdir()) == []  # no folder that is called ~
        return ended

    return run


@pytest.mark.parametrize(
    ("arguments", "variable"),
    [
        (("listen", "--demo", "--fast"), "STREAMTWL_CACHE"),
        (("label", "a.wav"), "STREAMTWL_CACHE"),
        (("models", "pull"), "STREAMTWL_CACHE"),
        (("models", "list"), "STREAMTWL_CACHE"),
        (("models", "path"), "STREAMTWL_CACHE"),
        (("history",), "STREAMTWL_STATE"),
        (("keys", "new"), "STREAMTWL_CONFIG"),
        (("subscribe", "--server-key", "server.key"), "STREAMTWL_CONFIG"),
    ],
)
def test_an_unknown_user_is_told_what_to_set(arguments, variable, as_nobody):
    ended = as_nobody(*arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"set {variable}=FOLDER" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_an_unknown_user_with_the_three_folders_listens(as_nobody, yamnet, tmp_path):
    own = {name: tmp_path / name for name in VARIABLES}
    for folder in own.values():
        folder.mkdir()
    for suffix in (".onnx", ".json"):
        model = registry.path(registry.find("yamnet")).with_suffix(suffix)
        shutil.copy(model, own["STREAMTWL_CACHE"])
    for folder in own.values():
        os.chown(folder, UID, UID)
    for ancestor in list(tmp_path.parents)[:-1]:
        if "pytest" in ancestor.name:
            ancestor.chmod(0o755)
    env = {name: str(folder) for name, folder in own.items()}
    assert as_nobody("keys", "new", **env).returncode == 0
    binds = ("--bind", "tcp://127.0.0.1:*", "--replay-bind", "tcp://127.0.0.1:*", "--curve")
    listened = as_nobody("listen", "--demo", "--fast", "--labels", "everyday", *binds, **env)
    assert listened.returncode == 0, listened.stderr
    heard = as_nobody("history", "--label", "Bird", **env)
    assert (heard.returncode, "Bird" in heard.stdout) == (0, True)
