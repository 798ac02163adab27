"""Another package adds a source, a backbone, a reasoner and a sink, and `listen` runs with them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import streamtwl
from streamtwl import plugins
from streamtwl.errors import UsageError
from tests.conftest import PATIENCE_S

PACKAGE = Path(__file__).parent / "third_party"
PIPELINE = """
hop_s = 0.1
backbone.model = "loudness"
reasoner.file = "gate"
sinks.notebook.file = {file}
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Install the package into a folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
    subprocess.run([*pip, PACKAGE], check=True, timeout=PATIENCE_S)
    return folder


def test_listen_runs_with_all_four(installed, tmp_path):
    (tmp_path / "mine.toml").write_text(PIPELINE.format(file=repr(str(tmp_path / "notes"))))
    command = [sys.executable, "-m", "streamtwl", "listen", "beep:440"]
    command += ["--pipeline", tmp_path / "mine.toml", "--bind", "tcp://127.0.0.1:*", "--no-journal"]
    root = Path(__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": f"{installed}:{root}", "STREAMTWL_CACHE": str(tmp_path)}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "[onset] Loud" in ended.stdout
    notes = [line.split() for line in (tmp_path / "notes").read_text().splitlines()]
    onsets = [(phase, label) for phase, label, _ in notes if phase == "onset"]
    assert onsets == [("onset", "Quiet"), ("onset", "Loud"), ("onset", "Quiet")]
    starts = {label: float(start) for phase, label, start in notes if phase == "onset"}
    assert starts["Loud"] == pytest.approx(1.0, abs=0.15)


def test_a_name_that_nobody_has_is_one_line_with_those_there_are():
    with pytest.raises(UsageError, match="no backbone is called 'bats': there is yamnet"):
        plugins.load("backbones", "bats", {"yamnet": None})


def test_the_public_surface_is_this():
    assert streamtwl.__all__ == [
        *("Backbone", "Event", "Hello", "Label", "Level", "Patch", "Reasoner", "Sink", "Source"),
        *(
            "Status",
            "StreamtwlError",
            "Subscription",
            "__version__",
            "classify",
            "listen",
            "subscribe",
        ),
    ]
    for name in streamtwl.__all__:
        assert getattr(streamtwl, name) is not None
