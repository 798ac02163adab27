"""What a trained reasoner reads of a patch, and how the windows follow from it."""

import logging
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from streamtwl import available, config
from streamtwl.backbones import bank
from streamtwl.config import Settings, override
from streamtwl.errors import ModelError, UsageError
from streamtwl.models import registry
from streamtwl.ontology import categories
from streamtwl.pipeline import build, hearing
from streamtwl.reasoners import card as cards
from streamtwl.reasoners import choice, graph, reads
from streamtwl.reasoners.card import Card
from streamtwl.reasoners.recurrent import INPUTS, OUTPUTS, Recurrent
from streamtwl.stages import Patch, Score
from tests.patches import window

YAMNET = ("yamnet:0.96", "posterior")
BOTH = [YAMNET, ("mn04:0.96", "embedding"), ("mn04:2", "posterior")]
CARD = Card(
    name="toy",
    about="its first two numbers are its labels",
    kind="recurrent",
    backbone="yamnet",
    hop_s=0.48,
    labels=["first", "second"],
    on=0.5,
    off=0.2,
    data="none",
    folds=[],
    command="pytest",
    version="0",
)


def write(path: Path, width: int, **card) -> Path:
    """Write a graph that gives back the first two numbers of a row of that width."""
    size = dict(zip(INPUTS, (width, 1, 1), strict=True)) | dict(zip(OUTPUTS, (2, 1), strict=True))
    info = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["S", size[name]])
        for name in size
    }
    posterior, state, elapsed_s = INPUTS
    scores, new_state = OUTPUTS
    nodes = [
        helper.make_node("Split", [posterior, "sizes"], [scores, "rest"], axis=1),
        helper.make_node("Add", [state, elapsed_s], [new_state]),
    ]
    sizes = helper.make_tensor("sizes", TensorProto.INT64, [2], [2, width - 2])
    made = helper.make_graph(
        nodes, "toy", [info[n] for n in INPUTS], [info[n] for n in OUTPUTS], [sizes]
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    written = cards.encode(msgspec.structs.replace(CARD, **card))
    helper.set_model_props(model, {cards.CARD: written})
    onnx.save(model, path)
    return path


def patch() -> Patch:
    """Return a patch of two windows with other numbers everywhere."""
    outputs = np.arange(10, dtype=np.float32) / 10
    return Patch(
        window(15_600),
        (
            Score("a:1", 1.0, outputs[:3], outputs[3:5]),
            Score("b:2", 2.0, outputs[5:7], outputs[7:]),
        ),
    )


def test_a_row_is_what_the_card_names_in_its_order():
    row = reads.row(patch(), [("b:2", "embedding"), ("a:1", "posterior")])
    np.testing.assert_allclose(row, [0.7, 0.8, 0.9, 0.0, 0.1, 0.2])


def test_without_a_word_in_the_card_it_is_the_first_windows_posterior():
    np.testing.assert_allclose(reads.row(patch(), []), [0.0, 0.1, 0.2])


def test_columns_take_a_row_of_everything_apart():
    columns = reads.columns(patch())
    row = reads.row(patch(), [*columns])
    for each in columns:
        np.testing.assert_array_equal(row[columns[each]], reads.row(patch(), [each]))


def test_training_reads_embeddings_and_the_longest_posterior_of_each_backbone():
    found = reads.of_windows(["yamnet:0.96", "mn04:2", "mn04:10", "mn04:0.96", "mine"])
    assert found == [
        ("yamnet:0.96", "posterior"),
        ("mn04:2", "embedding"),
        ("mn04:10", "embedding"),
        ("mn04:10", "posterior"),
        ("mn04:0.96", "embedding"),
        ("mine", "embedding"),
        ("mine", "posterior"),
    ]
    assert reads.windows_of(found) == ["yamnet:0.96", "mn04:2", "mn04:10", "mn04:0.96", "mine"]


def test_a_reasoner_steps_on_what_its_card_names(tmp_path):
    read = [("b:2", "embedding"), ("a:1", "posterior")]
    reasoner = Recurrent(graph.load(write(tmp_path / "toy.onnx", 6, reads=read)))
    [decision] = reasoner.step([patch()])
    np.testing.assert_allclose(decision.scores, [0.7, 0.8])


# In a pipeline


def with_file(file: Path, pipeline: str = config.DEFAULT_PIPELINE) -> Settings:
    return override(config.load(config.find(pipeline)), {"reasoner.file": str(file)})


@pytest.mark.parametrize("pipeline", ["default", "evidence", "yamnet", "light"])
def test_the_windows_that_run_are_those_that_the_file_reads(mn04, tmp_path, pipeline):
    settings = with_file(write(tmp_path / "toy.onnx", 521 + 384 + 527, reads=BOTH), pipeline)
    built = build(settings, ["mic"])
    assert [backbone.name for backbone in built.bank.backbones] == ["yamnet", "mn04"]
    assert built.settings.windows == ["yamnet:0.96", "mn04:0.96", "mn04:2"]
    silent = bank.of_silence(built.bank.backbones, hearing(built.settings)[1])
    [decision] = built.reasoner.step([silent])
    np.testing.assert_array_equal(decision.scores, silent.posterior[:2])


@pytest.mark.usefixtures("yamnet")
@pytest.mark.parametrize("pipeline", ["default", "yamnet", "light"])
def test_a_card_that_names_a_backbone_alone_reads_it_in_any_pipeline(tmp_path, pipeline):
    file = write(tmp_path / "toy.onnx", len(categories()))
    [name] = {
        each.partition(":")[0]
        for each in build(with_file(file, pipeline), ["mic"]).settings.windows
    }
    assert name == "yamnet"


def test_the_deprecated_name_of_a_backbone_does_not_win_over_the_file(mn04, tmp_path):
    file = write(tmp_path / "toy.onnx", 521, reads=[YAMNET])
    settings = override(Settings(), {"backbone.model": "mn04", "reasoner.file": str(file)})
    assert build(settings, ["mic"]).settings.windows == ["yamnet:0.96"]


def test_a_row_of_another_width_is_refused(mn04, tmp_path):
    file = write(tmp_path / "toy.onnx", 700, reads=BOTH)
    with pytest.raises(UsageError, match=r"700 numbers .* 1432 here \(yamnet:0.96 posterior, mn04"):
        build(with_file(file), ["mic"])


@pytest.mark.usefixtures("yamnet")
@pytest.mark.parametrize(("trained_with", "warns"), [("f" * 64, True), ("", False)])
def test_other_weights_than_it_was_trained_with_are_warned_of(
    tmp_path, caplog, trained_with, warns
):
    sha256 = trained_with or registry.checksum(registry.find("yamnet"))
    file = write(tmp_path / "toy.onnx", 521, reads=[YAMNET], sha256={"yamnet": sha256})
    with caplog.at_level(logging.WARNING):
        build(with_file(file), ["mic"])
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == warns
    assert all("toy was trained with other weights of yamnet" in each for each in said)


# What has to be here


@pytest.fixture
def here(monkeypatch) -> set[str]:
    """The backbones whose weights are on this machine."""
    there = {"yamnet"}
    monkeypatch.setattr(available, "_is_here", there.__contains__)
    return there


def test_weights_that_the_file_needs_are_missed_in_one_line_with_the_command(tmp_path, here):
    file = write(tmp_path / "toy.onnx", 1432, reads=BOTH)
    said = []
    with pytest.raises(ModelError) as raised:
        available.settings("default", {"reasoner.file": str(file)}, said.append)
    assert said == []
    line = str(raised.value)
    assert "\n" not in line
    assert f"{file} reads mn04, whose weights are not here" in line
    assert "`streamtwl models pull mn04`" in line
    here.add("mn04")
    settings = available.settings("default", {"reasoner.file": str(file)}, said.append)
    assert settings.windows == ["yamnet:0.96", "mn04:0.96", "mn04:2"]


def test_weights_that_the_file_does_not_need_are_not_missed(tmp_path, here):
    file = write(tmp_path / "toy.onnx", 521, reads=[YAMNET])
    said = []
    settings = available.settings("default", {"reasoner.file": str(file)}, said.append)
    assert (settings.windows, said) == (["yamnet:0.96"], [])


@pytest.mark.parametrize("reasoner", ["", "evidence"])
def test_without_a_file_the_fallback_is_what_it_was(here, reasoner):
    said = []
    settings = available.settings("default", {"reasoner.file": reasoner}, said.append)
    assert settings.windows == ["yamnet:0.96"]
    assert len(said) == 1


def test_a_backbone_that_there_is_none_of_is_refused_with_those_there_are(tmp_path):
    file = write(tmp_path / "toy.onnx", 521, reads=[("beats:2", "posterior")])
    for check in (build, lambda settings, _: choice.windows(settings, graph.load(file).card)):
        with pytest.raises(UsageError, match=r"reads the backbone beats.*yamnet, mn04") as raised:
            check(with_file(file), ["mic"])
        assert str(file) in str(raised.value)
