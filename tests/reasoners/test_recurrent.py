"""A trained reasoner's file: what it does, and how one that does not fit is refused."""

import json
import logging
import sys
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from streamtwl import config
from streamtwl.audio import demo
from streamtwl.config import Settings, override
from streamtwl.errors import ModelError, UsageError
from streamtwl.models import registry
from streamtwl.ontology import categories
from streamtwl.pipeline import Pipeline, build
from streamtwl.reasoners import card as cards
from streamtwl.reasoners import graph
from streamtwl.reasoners.card import Card
from streamtwl.reasoners.recurrent import INPUTS, OUTPUTS, Recurrent
from tests.patches import patches

RATE = 16_000
LABELS = ["alarm", "barking"]
SOUNDS = ["Siren", "Dog"]  # the categories behind them
CARD = Card(
    name="toy-1",
    about="adds up what it hears of a siren and a dog, fading in a second",
    kind="recurrent",
    backbone="yamnet",
    hop_s=0.48,
    labels=LABELS,
    on=0.3,
    off=0.15,
    data="none",
    folds=[],
    command="pytest",
    version="0",
)


def write(
    path: Path,
    card: str | None = cards.encode(CARD),
    inputs: list[str] = INPUTS,
    outputs: list[str] = OUTPUTS,
) -> Path:
    """Write a graph: state * exp(-elapsed) + the categories' scores; clipped, that is the score."""
    index = [categories().index(name) for name in SOUNDS]
    sizes = [len(categories()), len(LABELS), 1]
    shape = dict(zip(inputs, sizes, strict=True))
    posterior, state, elapsed_s = inputs
    scores, new_state = outputs
    nodes = [
        helper.make_node("Gather", [posterior, "index"], ["heard"], axis=1),
        helper.make_node("Neg", [elapsed_s], ["minus"]),
        helper.make_node("Exp", ["minus"], ["kept"]),
        helper.make_node("Mul", [state, "kept"], ["past"]),
        helper.make_node("Add", ["past", "heard"], [new_state]),
        helper.make_node("Clip", [new_state, "zero", "one"], [scores]),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["S", shape[n]]) for n in inputs],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["S", len(LABELS)]) for n in outputs],
        [
            numpy_helper.from_array(np.array(index, np.int64), "index"),
            numpy_helper.from_array(np.float32(0), "zero"),
            numpy_helper.from_array(np.float32(1), "one"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if card is not None:
        helper.set_model_props(model, {cards.CARD: card})
    onnx.save(model, path)
    return path


def with_card(path: Path, **changes) -> Path:
    return write(path, cards.encode(msgspec.structs.replace(CARD, **changes)))


@pytest.fixture
def toy(tmp_path) -> Path:
    return write(tmp_path / "toy.onnx")


def asking_for(file: Path | str, **changes) -> Settings:
    return override(Settings(), {"reasoner.file": str(file), **changes})


def refusal(raised: pytest.ExceptionInfo) -> str:
    said = str(raised.value)
    assert len(said.splitlines()) == 1
    return said


def posterior(**scores: float) -> np.ndarray:
    heard = np.zeros(len(categories()), np.float32)
    for name, score in scores.items():
        heard[categories().index(name)] = score
    return heard


def step(reasoner: Recurrent, seconds: float, heard: np.ndarray, stream: int = 0):
    [decision] = reasoner.step(patches([stream], [round(RATE * seconds)], heard[None]))
    return decision


# What it does


def test_the_first_step_has_no_past_and_the_next_ones_do(toy):
    reasoner = Recurrent(graph.load(toy))
    assert step(reasoner, 1, posterior(Siren=0.6)).scores == pytest.approx([0.6, 0])
    later = step(reasoner, 1.5, posterior(Dog=0.2))
    assert later.scores == pytest.approx([0.6 * np.exp(-0.5), 0.2])
    assert step(reasoner, 61.5, posterior(Dog=0.2)).scores == pytest.approx([0, 0.2])


def test_streams_do_not_hear_each_other(toy):
    together, alone = (
        Recurrent(graph.load(toy)),
        [Recurrent(graph.load(toy)), Recurrent(graph.load(toy))],
    )
    rng = np.random.default_rng(2)
    for hop in range(6):
        heard = rng.random((2, len(categories()))).astype(np.float32) / 3
        at = [15_600 + 7680 * hop, 15_600 + 1280 * hop]
        order = [0, 1] if hop % 2 else [1, 0]
        decisions = together.step(
            patches([(7, 3)[n] for n in order], [at[n] for n in order], heard[order])
        )
        for n, decision in zip(order, decisions, strict=True):
            expected = step(alone[n], at[n] / RATE, heard[n])
            assert decision.scores == pytest.approx(expected.scores, abs=1e-6)


def test_a_stream_that_is_forgotten_begins_anew(toy):
    reasoner = Recurrent(graph.load(toy))
    for stream in (0, 1):
        step(reasoner, 1, posterior(Siren=0.8), stream)
    reasoner.forget(0)
    reasoner.forget(5)  # never heard of
    assert step(reasoner, 1.1, posterior(Dog=0.4), 0).scores == pytest.approx([0, 0.4])
    assert step(reasoner, 1.1, posterior(Dog=0.4), 1).label == "alarm"


@pytest.mark.parametrize(("score", "label"), [(0.29, None), (0.31, "barking"), (0.0, None)])
def test_under_the_cards_threshold_nothing_is_named(toy, score, label):
    decision = step(Recurrent(graph.load(toy)), 1, posterior(Dog=score))
    assert decision.label == label
    assert decision.confidence == pytest.approx(score)
    assert decision.specific == pytest.approx(decision.scores)


def test_it_says_what_it_is(toy):
    reasoner = Recurrent(graph.load(toy))
    assert (reasoner.name, reasoner.labels) == ("toy-1", LABELS)
    assert reasoner.sha256 == registry.sha256(toy)
    assert reasoner.refine(1e9) is None


def test_a_card_comes_back_as_it_was():
    full = msgspec.structs.replace(
        CARD, folds=[1, 2], validation={"f1": 0.5}, about='a "ü"', reads=[("mn04:2", "embedding")]
    )
    assert cards.decode(cards.encode(full)) == full
    for name in json.loads(cards.encode(CARD)).keys() - {
        "validation",
        "trace",
        "reader",
        "reads",
        "sha256",
    }:
        rest = json.loads(cards.encode(CARD))
        del rest[name]
        with pytest.raises(msgspec.ValidationError, match=name):
            cards.decode(json.dumps(rest))


# What is refused


@pytest.mark.parametrize("name", ["nowhere.onnx", "some/folder", "./toy"])
def test_a_file_that_is_not_there_is_refused(name):
    with pytest.raises(UsageError, match="no such file") as raised:
        registry.find_reasoner(name)
    assert name in refusal(raised)


def test_a_folder_is_no_file(tmp_path):
    folder = tmp_path / "toy.onnx"
    folder.mkdir()
    with pytest.raises(UsageError, match="no such file"):
        registry.find_reasoner(str(folder))


def test_a_name_that_no_reasoner_has_is_refused_with_those_there_are():
    with pytest.raises(UsageError, match="'nosuch'") as raised:
        registry.find_reasoner("nosuch")
    assert "evidence" in refusal(raised)
    assert ".onnx" in refusal(raised)


def test_a_reasoner_is_found_by_its_path_or_the_name_of_one_that_is_shipped(
    toy, monkeypatch, tmp_path
):
    assert registry.find_reasoner(str(toy)) == toy
    monkeypatch.setattr(registry, "CHECKPOINTS", tmp_path)
    monkeypatch.setattr(registry, "RESEARCH", tmp_path / "none")  # as from a wheel
    assert registry.find_reasoner("toy") == toy
    with pytest.raises(UsageError, match="evidence, llm, toy"):
        registry.find_reasoner("nosuch")


@pytest.mark.parametrize("content", [b"", b"no ONNX at all\nin two lines", bytes(1000)])
def test_a_file_that_is_not_onnx_is_refused(tmp_path, content):
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="no ONNX file") as raised:
        Recurrent(graph.load(path))
    assert str(path) in refusal(raised)


def test_an_onnx_file_without_a_card_is_refused(tmp_path):
    path = write(tmp_path / "bare.onnx", card=None)
    with pytest.raises(UsageError, match="streamtwl train") as raised:
        Recurrent(graph.load(path))
    assert str(path) in refusal(raised)


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ("not JSON", "JSON"),
        ("{}", "name"),
        (cards.encode(CARD).replace("recurrent", "oracle"), "oracle"),
        (cards.encode(CARD).replace('"on":0.3', '"on":"high"'), r"\$\.on"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(tmp_path, card, said):
    path = write(tmp_path / "bad.onnx", card)
    with pytest.raises(UsageError, match=said) as raised:
        Recurrent(graph.load(path))
    assert f"{path}: its card does not fit" in refusal(raised)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (["posterior", "hidden", "elapsed_s"], OUTPUTS),
        (["state", "posterior", "elapsed_s"], OUTPUTS),
        (INPUTS, ["scores", "hidden"]),
    ],
)
def test_another_graph_is_refused_with_what_it_takes_and_should(tmp_path, inputs, outputs):
    path = write(tmp_path / "other.onnx", inputs=inputs, outputs=outputs)
    with pytest.raises(UsageError) as raised:
        Recurrent(graph.load(path))
    said = refusal(raised)
    assert said.startswith(f"--reasoner {path}: ")
    for names in (inputs, outputs, INPUTS, OUTPUTS):
        assert ", ".join(names) in said


def test_without_onnx_runtime_it_does_not_blame_the_file(toy, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match=r"streamtwl\[cpu\]"):
        Recurrent(graph.load(toy))


@pytest.mark.parametrize("labels", [[], ["alarm"], ["alarm", "barking", "saw"]])
def test_a_card_with_other_labels_than_the_graph_has_scores_is_refused(tmp_path, labels):
    path = with_card(tmp_path / "toy.onnx", labels=labels)
    with pytest.raises(UsageError, match="label") as raised:
        Recurrent(graph.load(path))
    assert str(path) in refusal(raised)


@pytest.mark.usefixtures("yamnet")
@pytest.mark.parametrize(("name", "size"), [("posterior", 10), ("state", "D")])
def test_a_graph_of_other_shapes_is_refused(tmp_path, name, size):
    path = write(tmp_path / "toy.onnx")
    model = onnx.load(path)
    dim = model.graph.input[INPUTS.index(name)].type.tensor_type.shape.dim[1]
    setattr(dim, "dim_param" if isinstance(size, str) else "dim_value", size)
    onnx.save(model, path)
    with pytest.raises(UsageError, match=name) as raised:
        build(asking_for(path), ["mic"])
    assert str(path) in refusal(raised)


# In the pipeline


def told(pipeline: Pipeline, *scores: float) -> list[tuple[str, str]]:
    """Return the events of a stream whose second label scores so."""
    changes = []
    for hop, score in enumerate(scores):
        row = np.array([0, score], np.float32)
        changes += pipeline.events.step(0, 15_600 + 7680 * hop, row, row)
    return [(phase, event.label) for phase, event in changes + pipeline.events.close(0, 10**6)]


BARKING = [("onset", "barking"), ("offset", "barking")]


@pytest.mark.usefixtures("yamnet")
def test_a_pipeline_takes_the_cards_labels_and_thresholds(toy):
    pipeline = build(asking_for(toy), ["mic"])
    assert pipeline.reasoner.labels == LABELS
    assert (pipeline.settings.events.on, pipeline.settings.events.off) == (0.3, 0.15)
    assert told(pipeline, 0.29, 0.29) == []
    assert told(pipeline, 0.31, 0.16, 0.16, 0.31) == BARKING  # with 0.4 and 0.2 it would not
    assert told(pipeline, 0.31, 0.14, 0.31) == BARKING * 2


@pytest.mark.usefixtures("yamnet")
@pytest.mark.parametrize(
    ("events", "scores", "expected"),
    [
        ({"on": 0.5}, (0.49, 0.51, 0.16, 0.51), BARKING),
        ({"on": 0.4, "off": 0.2}, (0.39, 0.41, 0.19, 0.41), BARKING * 2),  # as evidence has them
        ({"off": 0.2}, (0.31, 0.19, 0.31), BARKING * 2),
        ({"label": {"Barking": {"on": 0.6}}}, (0.59, 0.61, 0.16), BARKING),
        ({"label": {"bark*": {"on": 0.6, "off": 0.5}}}, (0.59, 0.61, 0.49, 0.61), BARKING * 2),
        ({"label": {"alarm": {"on": 0.6}}}, (0.31,), BARKING),
        ({"exclude": ["BARK*"]}, (0.9,), []),
        ({"exclude": ["bark"]}, (0.9,), BARKING),
        ({"include": ["al*"]}, (0.9,), []),
    ],
)
def test_what_the_users_pipeline_says_of_events_goes_before_the_card(toy, events, scores, expected):
    changes = {f"events.{key}": value for key, value in events.items()}
    assert told(build(asking_for(toy, **changes), ["mic"]), *scores) == expected


@pytest.mark.usefixtures("yamnet")
def test_a_threshold_that_does_not_fit_the_cards_is_refused_with_both(toy):
    with pytest.raises(UsageError, match=r"off \(0\.35\) is above on \(0\.3\): set both"):
        build(asking_for(toy, **{"events.off": 0.35}), ["mic"])


@pytest.mark.usefixtures("yamnet")
def test_the_shipped_rules_for_audiosets_words_do_not_apply_to_its_labels(tmp_path):
    path = with_card(tmp_path / "toy.onnx", labels=["noise", "Wind"])  # both are AudioSet's too
    shipped = config.load(config.find(config.DEFAULT_PIPELINE))
    pipeline = build(override(shipped, {"reasoner.file": str(path)}), ["mic"])
    scores = np.full(2, 0.31, np.float32)
    told = [event.label for _, event in pipeline.events.step(0, 15_600, scores, scores)]
    assert told == ["noise", "Wind"]


@pytest.mark.usefixtures("yamnet")
@pytest.mark.parametrize("file", ["", "evidence"])
def test_without_a_file_it_is_evidence(file):
    pipeline = build(asking_for(file, labels="Dog, Siren"), ["mic"])
    assert (pipeline.reasoner.name, pipeline.reasoner.labels) == ("evidence", ["Dog", "Siren"])


def test_labels_as_well_are_refused(toy):
    with pytest.raises(UsageError, match="leave --labels out") as raised:
        build(asking_for(toy, labels="everyday"), ["mic"])
    assert "toy-1" in refusal(raised)
    assert "alarm" in refusal(raised)


def test_another_backbone_is_refused(tmp_path):
    path = with_card(tmp_path / "toy.onnx", backbone="beats")
    with pytest.raises(UsageError, match="reads the backbone beats") as raised:
        build(asking_for(path), ["mic"])
    said = refusal(raised)
    assert str(path) in said
    assert "beats" in said
    assert "yamnet" in said


def test_an_event_rule_of_no_label_is_refused_and_of_the_cards_own_is_not(toy, yamnet):
    with pytest.raises(UsageError, match="barkin") as raised:
        build(asking_for(toy, **{"events.include": ["barkin"]}), ["mic"])
    refusal(raised)
    build(asking_for(toy, **{"events.include": ["barking"]}), ["mic"])


@pytest.mark.usefixtures("yamnet")
@pytest.mark.parametrize(("hop_s", "warns"), [(0.48, False), (0.1, True)])
def test_another_hop_is_only_warned_of(toy, caplog, hop_s, warns):
    with caplog.at_level(logging.WARNING):
        assert build(asking_for(toy, hop_s=hop_s), ["mic"]).reasoner.name == "toy-1"
    warned = [record.getMessage() for record in caplog.records]
    assert bool(warned) == warns
    assert all("0.48" in said and "0.1 s" in said and "toy-1" in said for said in warned)


# On the command line


@pytest.fixture
def siren(wav) -> Path:
    """A file of 2.4 s."""
    [sound] = [sound for sound in demo.TIMELINE if sound.label == "Siren"]
    return wav("siren.wav", demo.scene()[int(sound.start_s * RATE) : int(sound.end_s * RATE)])


@pytest.mark.usefixtures("yamnet")
def test_label_names_what_the_card_names(cli, siren, toy):
    ended = cli("label", siren, "--reasoner", toy)
    assert (ended.returncode, ended.stderr.splitlines()[1:]) == (0, [])
    result = json.loads(ended.stdout)
    assert result["label"] == "alarm"
    assert {event["label"] for event in result["events"]} == {"alarm"}
    assert {each["label"] for each in result["top"]} == set(LABELS)


@pytest.mark.usefixtures("yamnet")
def test_listen_tells_who_decided(cli, siren, toy):
    ended = cli(
        "listen", "--file", siren, "--fast", "--json", "--reasoner", toy,
        "--bind", "tcp://127.0.0.1:*", "--no-journal",
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    messages = [json.loads(line) for line in ended.stdout.splitlines()]
    hello, labels, events = (
        [message for message in messages if message["kind"] == kind]
        for kind in ("hello", "label", "event")
    )
    assert hello[0]["labels"] == LABELS
    assert hello[0]["models"]["toy-1"] == registry.sha256(toy)
    assert {message["reasoner"] for message in labels} == {"toy-1"}
    assert {each["label"] for message in labels for each in message["top"]} == set(LABELS)
    assert "alarm" in {message["label"] for message in labels}
    assert {message["label"] for message in events} == {"alarm"}


@pytest.mark.usefixtures("yamnet")
@pytest.mark.parametrize(
    ("reasoner", "said"), [("nosuch", "evidence"), ("nosuch.onnx", "no such file")]
)
def test_a_wrong_name_exits_with_two_and_one_line(cli, siren, reasoner, said):
    ended = cli("label", siren, "--reasoner", reasoner)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stderr.startswith("streamtwl: ")
    assert reasoner in ended.stderr
    assert said in ended.stderr
