"""`make listen` gets mn04 where that can be done, and listens in any case."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import PATIENCE_S, REPOSITORY

PROGRAM = """#!/bin/sh
echo "$*" >> "$(dirname "$0")/calls"
case "$1" in models) echo "the model's path"; echo "streamtwl: going on" >&2; exit $PULLED;; esac
"""


@pytest.fixture
def clone(tmp_path) -> Path:
    """A clone that is set up, with a stand-in for streamtwl that writes down its arguments."""
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    program, packages = tmp_path / ".venv/bin/streamtwl", tmp_path / "tools/system_packages.sh"
    for script, text in ((program, PROGRAM), (packages, "#!/bin/sh\n")):
        script.parent.mkdir(parents=True)
        script.write_text(text)
        script.chmod(0o755)
    for older in ("pyproject.toml", "constraints.txt"):
        (tmp_path / older).touch()
    (tmp_path / ".venv/.cpu").touch()
    return tmp_path


@pytest.mark.parametrize("pulled", ["0", "1"])
@pytest.mark.parametrize(
    ("arguments", "pull", "listen"),
    [
        ([], "mn04 --optional", "--labels everyday"),
        (["ARGS=--offline --labels all"], "mn04 --optional --offline", "--offline --labels all"),
    ],
)
def test_it_listens_with_and_without_mn04(clone, pulled, arguments, pull, listen):
    ended = subprocess.run(
        ["make", "-C", clone, "listen", *arguments],
        env=os.environ | {"PULLED": pulled},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert (ended.returncode, ended.stderr) == (0, "streamtwl: going on\n")
    assert "the model's path" not in ended.stdout
    calls = (clone / ".venv/bin/calls").read_text().splitlines()
    assert calls == [f"models pull {pull}", "devices", f"listen {listen}"]
