"""The wheel holds all that `listen` needs, and nothing that is not ours."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from streamtwl.models.registry import CHECKPOINTS

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    """The contents of the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", folder, REPOSITORY],
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_the_wheel_listens_by_itself(unpacked, yamnet, tmp_path):
    program = "import streamtwl.cli as c; print(c.__file__); c.main()"
    options = ["--demo", "--fast", "--labels", "everyday", "--no-journal"]
    options += ["--bind", "tcp://127.0.0.1:*"]
    listened = subprocess.run(
        [sys.executable, "-c", program, "listen", *options],
        env=os.environ | {"PYTHONPATH": str(unpacked)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert listened.stdout.startswith(str(unpacked)), listened.stderr
    for label in ("Bird", "Knock", "Music", "Church bell", "Siren", "Rain"):
        assert re.search(rf"\[(onset|revised)\] {label}\n", listened.stdout), listened.stdout


def test_the_wheel_holds_no_sound_and_no_weights_but_our_own(unpacked):
    files = [path for path in unpacked.rglob("*") if path.is_file()]
    assert {"LICENSE", "NOTICE"} <= {path.name for path in files}
    weights = [p for p in files if p.suffix in (".onnx", ".tflite", ".wav", ".ogg", ".data")]
    own = [f"streamtwl/models/checkpoints/{file.name}" for file in CHECKPOINTS.glob("*.onnx")]
    assert sorted(p.relative_to(unpacked).as_posix() for p in weights) == sorted(own)
    assert sum(path.stat().st_size for path in files) < 13_000_000
