"""`streamtwl train`, from a folder per class to a file that the pipeline takes."""

import subprocess
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from streamtwl.config import TraceSettings
from streamtwl.errors import UsageError
from streamtwl.models import registry
from streamtwl.reasoners import card as cards
from streamtwl.reasoners import graph
from streamtwl.reasoners.card import Card
from streamtwl.reasoners.gpt2 import Gpt2
from streamtwl.reasoners.recurrent import Recurrent
from streamtwl.training import scored_scenes, trace_model, trace_reasoner, training_scenes
from streamtwl.training import train as training
from streamtwl.training.recipe import Recipe, options
from streamtwl.training.trace_model import TraceModel
from streamtwl.training.trace_reasoner import Choice, Trained
from tests.conftest import PATIENCE_S, mn04_file

RATE = 16_000
BOTH = ("yamnet:0.96", "mn04:0.96")
TONES = {"beep": 1000, "hum": 120}

pytestmark = pytest.mark.usefixtures("yamnet")  # so that its file is there


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """(a folder per class, backgrounds)."""
    folder = tmp_path_factory.mktemp("material")
    rng = np.random.default_rng(3)
    for label, hz in TONES.items():
        (folder / "sounds" / label).mkdir(parents=True)
        for i in range(10):
            seconds = np.arange(2 * RATE) / RATE
            sound = np.sin(2 * np.pi * hz * (1 + 0.02 * i) * seconds)
            soundfile.write(folder / "sounds" / label / f"{i}.wav", 0.2 * sound, RATE)
    for package in ("train/a", "test/b"):
        (folder / "corpus" / package).mkdir(parents=True)
        for i in range(8):
            noise = 0.01 * rng.standard_normal(5 * RATE)
            soundfile.write(folder / "corpus" / package / f"{i}.flac", noise, RATE)
    return folder


@pytest.fixture(autouse=True)
def one_thread():
    """Several threads at work so small wait for each other where the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def short(monkeypatch):
    """Fewer and shorter scenes."""
    monkeypatch.setattr(scored_scenes, "SCENE_S", 30.0)
    monkeypatch.setattr(scored_scenes, "TRAINING_SCENES", 4)
    monkeypatch.setattr(scored_scenes, "VALIDATION_SCENES", 4)
    monkeypatch.setattr(scored_scenes, "BACKGROUND_SCENES", 2)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (Recipe(trunk="none", seed=1), "--body none --windows yamnet:0.96 --seed 1"),
        (Recipe(epochs=3, seed=1), "--epochs 3 --windows yamnet:0.96 --seed 1"),
        (Recipe(epochs=1, seed=1, windows=BOTH), "--epochs 1 --windows yamnet:0.96,mn04:0.96 "),
        (
            Recipe(epochs=2, seed=1, soft=False, residual=False, trained="embedding"),
            "--body tiny --train embedding --trace sampled --no-residual --epochs 2",
        ),
    ],
)
def test_it_makes_a_file_that_says_what_it_is_and_hears_its_sounds(
    material, tmp_path, short, recipe, said, monkeypatch
):
    monkeypatch.setattr(training, "_is_worse", lambda *_: False)  # so little says nothing
    reported = {}
    if recipe.windows == BOTH:
        registry.pull(registry.find("mn04"), source=str(mn04_file()))

    def progress(what: str, done: int, total: int) -> None:
        reported[what] = (done, total)

    out = tmp_path / "tones.onnx"
    inputs = material / "sounds", material / "corpus", out
    card = training.train(*inputs, [4], recipe, progress)
    assert all(done == total for done, total in reported.values())
    assert reported[training_scenes.FITTING] == (12, 12)
    assert list(reported) == list(training.STAGES[: 4 if recipe.trunk == "none" else 6])
    loads = (
        Recurrent if recipe.trunk == "none" else partial(Gpt2, settings=TraceSettings(), hop_s=0.48)
    )
    assert loads(graph.load(out)).card == card
    assert (card.name, card.labels, card.folds) == ("tones", ["beep", "hum"], [1, 2, 3, 5])
    assert f"--leave-out 4 {said}" in card.command
    kind = "train" if recipe.is_of_train else "bench train"
    assert card.command.startswith(f"streamtwl {kind} sounds ")
    assert card.reads == recipe.reads
    assert card.sha256.keys() == {window.partition(":")[0] for window in recipe.windows}
    assert str(tmp_path) not in card.command
    command = [sys.executable, "-c", "from streamtwl.cli import main; main()", "label"]
    sound = material / "sounds" / "beep" / "3.wav"
    done = subprocess.run(
        [*command, str(sound), "--reasoner", str(out)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    assert '"label":"beep"' in done.stdout.replace(" ", "")


def weights_and_card(model: TraceModel, hop_s: float, card: Card, path: Path) -> None:
    torch.save((model.state_dict(), hop_s, cards.encode(card)), path)


@pytest.mark.parametrize("f1", [0.5, 0.6])
def test_a_language_model_that_is_worse_on_validation_scenes_is_not_kept(
    f1, material, tmp_path, short, monkeypatch, caplog
):
    def choose(prepared, targets, recipe, scratch, progress) -> Choice:
        scratch.mkdir()
        (scratch / "first.pt").touch()
        return Choice(1, 0.5, 0.2, f1, 0.0)

    def train(prepared, targets, recipe, choice, scratch, progress) -> Trained:
        assert f1 > 0.55, "half of the training could have been saved"
        model = trace_reasoner.build(targets, prepared.parts, recipe)
        return Trained(model=model, **asdict(choice))

    fitted = training.fitting.fit_filter
    monkeypatch.setattr(
        training.fitting, "fit_filter", lambda *scenes: replace(fitted(*scenes), in_force_f1=0.55)
    )
    monkeypatch.setattr(trace_reasoner, "choose", choose)
    monkeypatch.setattr(trace_reasoner, "train", train)
    monkeypatch.setattr(trace_model, "export", weights_and_card)
    out = tmp_path / "tones.onnx"
    inputs = material / "sounds", material / "corpus", out
    card = training.train(*inputs, [], Recipe(seed=1), lambda *_: None)
    assert [path.name for path in tmp_path.iterdir()] == ["tones.onnx"]
    if f1 > 0.55:
        assert (card.kind, caplog.text) == ("gpt2", "")
        return
    assert card == graph.read_card(graph.open_session(out, 1), out)
    assert card.kind == "recurrent"
    assert "--body none --windows yamnet:0.96 --seed 1" in card.command
    assert "GPT-2 (F1 0.500) is below the hidden Markov model (0.550)" in caplog.text


def test_a_training_stopped_in_either_stage_goes_on_to_the_same_file(
    material, tmp_path, short, monkeypatch
):
    monkeypatch.setattr(training, "_is_worse", lambda *_: False)
    monkeypatch.setattr(scored_scenes, "SCENE_S", 10.0)
    monkeypatch.setattr(scored_scenes, "TRAINING_SCENES", 2)
    monkeypatch.setattr(scored_scenes, "VALIDATION_SCENES", 2)
    monkeypatch.setattr(scored_scenes, "BACKGROUND_SCENES", 1)
    # To trace the graph takes longer than to train so little, and is the other tests' matter.
    monkeypatch.setattr(trace_model, "export", weights_and_card)
    recipe = Recipe(epochs=2, seed=1)
    stops = [training.CHECKING, training.FINAL]

    def stop(what: str, done: int, total: int) -> None:
        if stops and what == stops[0] and done > 0.6 * total:
            raise KeyboardInterrupt(stops.pop(0))

    inputs = material / "sounds", material / "corpus"
    whole, stopped = (tmp_path / name / "tones.onnx" for name in ("whole", "stopped"))
    whole.parent.mkdir()
    stopped.parent.mkdir()
    training.train(*inputs, whole, [4], recipe, lambda *_: None)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            training.train(*inputs, stopped, [4], recipe, stop)
        assert not stopped.exists()
    training.train(*inputs, stopped, [4], recipe, stop)
    assert stopped.read_bytes() == whole.read_bytes()
    assert list(stopped.parent.iterdir()) == [stopped]


@pytest.mark.parametrize("trunk", ["openai-community/gpt2", "a folder"])
def test_a_trunk_is_named_by_what_finds_it_elsewhere(tmp_path, trunk):
    local = tmp_path / "a folder"
    local.mkdir()
    recipe = Recipe(trunk=str(local) if trunk == "a folder" else trunk)
    quoted = "'a folder'" if trunk == "a folder" else trunk
    assert f"--body {quoted} --train" in options(recipe)


@pytest.mark.parametrize("name", ["Tones.onnx", "tones.bin"])
def test_a_name_that_could_not_go_on_the_wire_is_refused_before_any_work(material, tmp_path, name):
    with pytest.raises(UsageError, match=r"\.onnx"):
        training.train(
            material / "sounds", material / "corpus", tmp_path / name, [], Recipe(), print
        )


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (Recipe(windows=("mn04:2", "yamnet:0.96")), "name yamnet:0.96 first"),
        (Recipe(windows=("mn04:2",), residual=False), "leave --windows out"),
    ],
)
def test_what_does_not_go_together_is_refused_before_any_work(material, tmp_path, recipe, said):
    def progress(*done) -> None:
        raise AssertionError(done)

    inputs = material / "sounds", material / "corpus", tmp_path / "t.onnx"
    with pytest.raises(UsageError, match=said):
        training.train(*inputs, [], recipe, progress)
    assert list(tmp_path.iterdir()) == []


def test_leaving_everything_out_is_refused(material, tmp_path):
    with pytest.raises(UsageError, match="--leave-out"):
        training.train(
            material / "sounds",
            material / "corpus",
            tmp_path / "t.onnx",
            [1, 2, 3, 4, 5],
            Recipe(),
            print,
        )
