"""`streamtwl train --body none` in a process that has no torch."""

import json

import numpy as np
import pytest
import soundfile

from streamtwl import available
from streamtwl.errors import ConfigError, ModelError
from streamtwl.reasoners import graph
from streamtwl.training import train as training
from streamtwl.training.recipe import Recipe
from tests.conftest import PATIENCE_S

RATE = 16_000
WITHOUT_TORCH = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from streamtwl.training import scored_scenes
scored_scenes.SCENE_S = 20.0
scored_scenes.TRAINING_SCENES = scored_scenes.VALIDATION_SCENES = 2
scored_scenes.BACKGROUND_SCENES = 1
"""


@pytest.fixture
def sounds(tmp_path):
    """A folder per class, and backgrounds."""
    rng = np.random.default_rng(3)
    t = np.arange(2 * RATE) / RATE
    for label, hz in (("beep", 1000), ("hum", 120)):
        (tmp_path / "sounds" / label).mkdir(parents=True)
        for i in range(8):
            sound = 0.2 * np.sin(2 * np.pi * hz * (1 + 0.02 * i) * t)
            soundfile.write(tmp_path / "sounds" / label / f"{i}.wav", sound, RATE)
    (tmp_path / "corpus" / "train" / "a").mkdir(parents=True)
    for i in range(8):
        noise = 0.01 * rng.standard_normal(5 * RATE)
        soundfile.write(tmp_path / "corpus" / "train" / "a" / f"{i}.flac", noise, RATE)
    return tmp_path


@pytest.mark.usefixtures("yamnet")
def test_it_makes_a_file_that_names_its_sounds(sounds, start_cli, cli):
    out = sounds / "tones.onnx"
    options = ["--body", "none", "--windows", "yamnet:0.96", "--corpus", sounds / "corpus"]
    process = start_cli("train", sounds / "sounds", "-o", out, *options, prelude=WITHOUT_TORCH)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors
    card = graph.load(out).card
    assert card.reads == [("yamnet:0.96", "posterior")]
    assert card.labels == ["beep", "hum"]
    assert " --body none --windows yamnet:0.96 " in card.command
    assert card.command.startswith("streamtwl train sounds ")
    ended = cli("label", sounds / "sounds" / "beep" / "3.wav", "--reasoner", out)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["top"][0]["label"] == "beep"


@pytest.mark.usefixtures("yamnet")
def test_with_a_language_model_it_says_what_to_install_before_any_work(sounds, start_cli):
    command = ["train", sounds / "sounds", "--corpus", sounds / "corpus"]
    process = start_cli(*command, "--windows", "yamnet:0.96", prelude=WITHOUT_TORCH)
    out, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (2, b"")
    [line] = errors.decode().splitlines()
    assert "train needs torch" in line
    assert "'.[cpu,train]'" in line
    assert "--body none" in line
    assert "'.[cpu,fit]'" in line


# Which windows


def test_named_windows_are_taken_apart():
    assert training.windows("yamnet:0.96, yamnet") == ("yamnet:0.96", "yamnet")
    assert training.windows(None) == ()


@pytest.mark.parametrize("named", ["", "mn04:", "yamnet:0.96,yamnet:0.96"])
def test_windows_that_cannot_be_are_refused(named):
    with pytest.raises(ConfigError, match="windows"):
        training.windows(named)


def test_windows_whose_weights_are_not_here_are_refused_with_the_command(monkeypatch):
    monkeypatch.setattr(available, "_is_here", lambda name: name != "mn04")
    with pytest.raises(ModelError, match=r"mn04:2 needs mn04.*`streamtwl models pull mn04`"):
        training.windows("mn04:2")


@pytest.mark.parametrize(
    ("here", "expected"),
    [
        ({"yamnet", "mn04"}, training.WINDOWS),
        ({"yamnet"}, ("yamnet:0.96",)),
        (set(), ("yamnet:0.96",)),
    ],
)
def test_without_a_word_all_are_read_whose_weights_are_here(monkeypatch, caplog, here, expected):
    monkeypatch.setattr(available, "_is_here", here.__contains__)
    assert training.best_windows() == expected
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (expected != training.WINDOWS)
    assert all("without mn04," in line and "`streamtwl models pull mn04`" in line for line in said)


def test_what_reads_the_trace_alone_reads_yamnet():
    assert Recipe(residual=False).reads == [("yamnet:0.96", "posterior")]
    assert ("mn04:2", "embedding") in Recipe(windows=training.WINDOWS).reads
