"""`make listen` gets mn04 where that can be done, and listens in any case."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import PATIENCE_S, REPOSITORY, TRAINING

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


def test_no_quick_test_imports_by_itself_what_make_test_does_not_install():
    """Torch above all: one such import ends the whole run."""
    elsewhere = r"(?:from|import) (?:torch|torchaudio|ray|duckdb|pyarrow|moto)\b"
    tests = REPOSITORY / "tests"
    importing = [
        path.relative_to(tests).as_posix()
        for path in sorted(tests.rglob("*.py"))
        if re.search(rf"^{elsewhere}", path.read_text(), re.MULTILINE)
    ]
    assert [path for path in importing if not path.startswith(TRAINING)] == []
