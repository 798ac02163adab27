"""A backbone of the user's own: what `models add` takes and refuses; a pipeline runs it."""

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from streamtwl import config, ontology
from streamtwl.backbones.own import Waveform
from streamtwl.backbones.own import make as backbone
from streamtwl.errors import ModelError, UsageError
from streamtwl.models import own
from streamtwl.pipeline import build
from streamtwl.reasoners import choice
from streamtwl.stages import Block

LABELS = ["Dog", "Animal", "my kettle"]
LINES = "\n".join(LABELS)
FLOAT = TensorProto.FLOAT
POWER = np.empty((0, 257), np.float32)  # the shared spectrum, which waveforms do not need


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("STREAMTWL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def model(
    shape=("N", 96, 64),
    n_labels=3,
    labels=LINES,
    sigmoid=True,
    embedding=False,
    dtype=FLOAT,
    output="posterior",
    name="x",
    frames="",
) -> onnx.ModelProto:
    """Return a graph whose first posterior grows with what it takes; the others are 0.5."""
    weights = np.zeros((1, n_labels), np.float32)
    weights[0, 0] = 1e4 if len(shape) == 2 else 1
    axes = np.arange(1, len(shape))
    nodes = [
        helper.make_node("Cast", [name], ["float"], to=FLOAT),
        helper.make_node("Mul", ["float", "float"], ["square"]),
        helper.make_node("ReduceMean", ["square", "axes"], ["mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "one"], ["embedding"]),
        helper.make_node("MatMul", ["embedding", "weights"], ["logits"]),
        helper.make_node("Sigmoid" if sigmoid else "Identity", ["logits"], [output]),
    ]
    outputs = [helper.make_tensor_value_info(output, FLOAT, ["N", n_labels])]
    if embedding:
        outputs.append(helper.make_tensor_value_info("embedding", FLOAT, ["N", 1]))
    constants = {"axes": axes, "one": np.array([1]), "weights": weights}
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(name, dtype, shape)],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    metadata = {"labels": labels, "frames": frames}
    helper.set_model_props(made, {key: text for key, text in metadata.items() if text})
    return made


@pytest.fixture
def saved(tmp_path):
    """Save a graph: saved(shape=...) returns its path."""

    def save(**kwargs):
        onnx.save(model(**kwargs), tmp_path / "mine.onnx")
        return tmp_path / "mine.onnx"

    return save


def run(name: str, samples: np.ndarray, **changes):
    """Return the patches and decisions of a pipeline over some sound."""
    settings = config.Settings()
    changes = {"backbone.model": name, "reasoner.file": "evidence"} | changes
    pipeline = build(config.override(settings, changes), ["test"])
    outcomes = []
    pipeline.subscribe(outcomes.append)
    pipeline.push([Block(0, 0, samples.astype(np.float32), None, 0.0, last=True)])
    found = [each for each in outcomes if each.patch is not None]
    return [each.patch for each in found], [each.decision for each in found]


@pytest.fixture
def sound() -> np.ndarray:
    """A second of nothing, then two of a loud tone."""
    tone = 0.5 * np.sin(2 * np.pi * 440 / 16_000 * np.arange(32_000))
    return np.concatenate((np.zeros(16_000), tone))


@pytest.mark.parametrize("samples", [15_600, 16_000, 8_000, 15_999, "samples"])
@pytest.mark.parametrize("n", ["N", 1])
def test_a_waveform_model_runs_through_the_pipeline(samples, n, saved, sound):
    own.add("mine", saved(shape=(n, samples)))
    patches, decisions = run("mine", sound)
    length = samples if isinstance(samples, int) else 15_360
    assert {each.scores[0].length_s for each in patches} == {length / 16_000}
    assert decisions[-1].label == "Dog"
    assert decisions[0].scores == pytest.approx([0.5, 0.5, 0.5])
    assert decisions[-1].scores[0] > 0.9
    # the window is the newest sound: all zeros at first, all tone in the end
    expected = 1 / (1 + np.exp(-1e4 * 0.125))
    assert patches[-2].posterior[0] == pytest.approx(expected, abs=1e-3)


def test_a_log_mel_model_runs_through_the_pipeline_with_its_embedding(saved, sound):
    own.add("mine", saved(embedding=True))
    patches, decisions = run("mine", sound)
    assert patches[0].scores[0].embedding.shape == (1,)
    silence = np.log(0.001) ** 2
    assert patches[0].scores[0].embedding[0] == pytest.approx(silence, rel=1e-4)
    assert len(decisions[0].scores) == 3


def test_a_model_over_the_filter_bank_has_windows_of_any_length(saved, sound):
    file = saved(name="fbank", shape=("N", "frames", 40), frames="[20, 150]", embedding=True)
    card = own.add("mine", file)
    assert (card.frames, card.bands) == ((20, 150), 40)
    changes = {"windows": ["mine:1.5", "mine:0.2"], "backbone.model": "", "reasoner.file": ""}
    patches, _ = run("mine", sound, **changes)
    lengths = [[score.length_s for score in patch.scores] for patch in patches]
    np.testing.assert_allclose(lengths[:3], [[0.96, 0.2], [1.44, 0.2], [1.5, 0.2]])
    silence = np.log(2.0**-23) ** 2
    assert patches[0].scores[1].embedding[0] == pytest.approx(silence, rel=1e-4)
    with pytest.raises(UsageError, match=r"mine scores windows of 0\.2 to 1\.5 s"):
        run("mine", sound, **changes | {"windows": ["mine:1.6"]})


@pytest.mark.parametrize("frames", ["", "[50]", "[0, 100]", "[100, 50]", "some"])
def test_a_model_over_the_filter_bank_says_which_lengths_it_takes(frames, saved):
    with pytest.raises(ModelError, match=r"has frames.*export-ast"):
        own.add("mine", saved(name="fbank", shape=("N", "frames", 40), frames=frames))


def test_without_an_embedding_it_has_no_width(saved, sound):
    own.add("mine", saved())
    patches, _ = run("mine", sound)
    assert patches[0].scores[0].embedding.shape == (0,)


def test_categories_with_audiosets_names_have_its_parents(saved):
    own.add("mine", saved())
    assert ontology.parents_among(LABELS) == ((1,), (), ())
    assert ontology.parents_among(["Bark", "Animal"]) == ((1,), ())  # Dog is not there
    assert ontology.parents_among(["Animal", "Dog", "Bark"]) == ((), (0,), (1,))
    _, decisions = run("mine", np.zeros(20_000))
    assert decisions[0].specific == pytest.approx([1.0, 0.0, 0.5], abs=2e-5)  # Animal yields


@pytest.mark.parametrize(
    ("labels", "expected"),
    [("all", LABELS), ("my kettle", ["my kettle"]), ("everyday", ["Dog"])],
)
def test_labels_are_those_of_its_categories(labels, expected, saved):
    own.add("mine", saved())
    settings = config.override(
        config.load(config.find("yamnet")),
        {"backbone.model": "mine", "reasoner.file": "", "labels": labels},
    )
    assert build(settings, ["test"]).reasoner.labels == expected


def test_a_trained_reasoner_reads_what_it_was_trained_on_and_not_mine(saved):
    own.add("mine", saved())
    settings = config.override(
        config.Settings(), {"windows": ["mine"], "reasoner.file": "esc10-gpt2"}
    )
    assert choice.windows(settings, choice.load(settings).card) == ["yamnet"]


def test_a_hop_longer_than_its_windows_is_refused(saved):
    own.add("mine", saved(shape=("N", 1600)))
    with pytest.raises(UsageError, match=r"hop_s is 0.48 s.*has only 0.1 s"):
        run("mine", np.zeros(20_000))


def test_frames_are_the_samples_end_to_end_whatever_the_blocks():
    samples = np.arange(1000, dtype=np.float32)
    for size in (1, 7, 160, 1000):
        front_end = Waveform(80)
        parts = [front_end.push(samples[i : i + size], POWER) for i in range(0, 1000, size)]
        assert np.concatenate(parts).tolist() == samples[:960].reshape(-1, 80).tolist()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.txt", "\ufeffone\n\ntwo\nthree\n"),
        ("labels.csv", "index,mid,display_name\n0,/m/1,one\n1,/m/2,two\n2,/m/3,three\n"),
        ("labels.csv", "label\none\ntwo\nthree\n"),
    ],
)
def test_labels_come_from_a_file(name, content, saved, tmp_path):
    (tmp_path / name).write_text(content)
    assert own.add("mine", saved(labels=""), tmp_path / name).labels == ["one", "two", "three"]


@pytest.mark.parametrize("labels", ['["a", "b, c", "d"]', "a\nb, c\nd\n"])
def test_labels_come_from_the_files_metadata(labels, saved):
    assert own.add("mine", saved(labels=labels)).labels == ["a", "b, c", "d"]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"n_labels": 4}, r"\[2, 4\], but there are 3 labels"),
        ({"labels": ""}, "no labels: name them with --labels"),
        ({"labels": "a\na\nb"}, "'a' is there twice"),
        ({"labels": '["a", "", "b"]'}, "one has no name"),
        ({"sigmoid": False, "shape": ("N", 16_000)}, r"goes from 0 to .*sigmoid"),
        ({"shape": ("N", 128, 64)}, r"x tensor\(float\)\['N', 128, 64\]; a backbone takes"),
        ({"shape": ("N", 96, 64, 1)}, "a backbone takes one input"),
        ({"shape": (7, 16_000)}, "a backbone takes one input"),
        ({"shape": ("N", 100)}, "0.1 to 60 s"),
        ({"shape": ("N", 16_000), "dtype": TensorProto.DOUBLE}, r"tensor\(double\)"),
    ],
)
def test_what_does_not_fit_is_one_line(made, said, saved, cache):
    with pytest.raises(ModelError, match=said) as raised:
        own.add("mine", saved(**made))
    assert "\n" not in str(raised.value)
    assert "mine.onnx" in str(raised.value)
    assert own.names() == []
    assert list((cache / "own").iterdir()) == []


def test_ast_is_said_to_be_made_not_fetched(cli):
    assert "export-ast" in cli("models", "list").stdout
    for command in (("pull", "ast"), ("path", "ast"), ("verify", "ast")):
        ran = cli("models", *command)
        assert ran.returncode == 2
        assert "ast is not here yet: `streamtwl models export-ast " in ran.stderr


def two_outputs():
    made = model(embedding=True, output="probabilities")
    return made.SerializeToString()


def weights_elsewhere():
    made = model()
    weights = next(each for each in made.graph.initializer if each.name == "weights")
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "../mine.data", "length": "12"}.items():
        entry = weights.external_data.add()
        entry.key, entry.value = key, value
    return made.SerializeToString()


def fails_on_two():
    made = model(shape=("N", "frames", "bands"))
    reshape = numpy_helper.from_array(np.array([1, 5]), "five")
    made.graph.initializer.append(reshape)
    made.graph.node.insert(0, helper.make_node("Reshape", ["x", "five"], ["never"]))
    made.graph.output.append(helper.make_tensor_value_info("never", FLOAT, [1, 5]))
    return made.SerializeToString()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda: b"", "cannot load it"),
        (lambda: b"PK\x03\x04 no model", "cannot load it"),
        (lambda: model().SerializeToString()[:-50], "cannot load it"),
        (two_outputs, "it gives probabilities, embedding: call one of them posterior"),
        (weights_elsewhere, "export it as one file"),
        (fails_on_two, "it fails on"),
    ],
)
def test_a_foreign_file_is_one_line(content, said, tmp_path):
    (tmp_path / "mine.onnx").write_bytes(content())
    with pytest.raises(ModelError, match=said) as raised:
        own.add("mine", tmp_path / "mine.onnx")
    assert "\n" not in str(raised.value)
    assert own.names() == []


@pytest.mark.parametrize("name", ["yamnet", "mn04", "Mine", "../mine", "", "a b", "-x"])
def test_a_name_that_is_taken_or_none_is_refused(name, saved):
    with pytest.raises(UsageError, match="models add"):
        own.add(name, saved())


def test_what_is_there_is_not_replaced_by_accident(saved):
    own.add("mine", saved())
    with pytest.raises(UsageError, match="models remove mine"):
        own.add("mine", saved())
    own.remove("mine")
    own.add("mine", saved())
    with pytest.raises(UsageError, match="there is mine"):
        own.remove("yamnet")


@pytest.mark.parametrize("suffix", [".onnx", ".json"])
def test_what_is_damaged_later_is_said_when_it_is_used(suffix, saved):
    own.add("mine", saved())
    own.path("mine").with_suffix(suffix).write_bytes(b"{}")
    with pytest.raises(ModelError, match="models remove mine"):
        run("mine", np.zeros(20_000))


def test_a_labels_file_that_cannot_be_read_is_a_usage_error(saved, tmp_path):
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    for name in ("none.txt", "bad.csv", "latin.txt"):
        with pytest.raises(UsageError, match=f"--labels .*{name}"):
            own.add("mine", saved(), tmp_path / name)


def test_the_command_line_adds_lists_verifies_uses_and_removes(saved, cli, wav, sound, tmp_path):
    added = cli("models", "add", "mine", saved(shape=("N", 16_000)))
    assert (added.returncode, added.stderr) == (0, "")
    assert 'windows = ["mine"]' in added.stdout
    assert "16000 samples, 3 categories" in cli("models", "list").stdout
    assert cli("models", "path", "mine").stdout == f"{own.path('mine')}\n"
    assert cli("models", "verify").stdout.startswith("mine: whole")
    (tmp_path / "mine.toml").write_text(
        'backbone = {model = "mine", provider = "cpu"}\nreasoner.file = ""\n'
    )
    labelled = cli("label", wav("a.wav", sound), "--pipeline", tmp_path / "mine.toml")
    assert labelled.returncode == 0, labelled.stderr
    assert '"Dog"' in labelled.stdout
    assert cli("models", "remove", "mine").returncode == 0
    gone = cli("label", wav("a.wav", sound), "--pipeline", tmp_path / "mine.toml")
    assert gone.returncode == 2
    assert "no model is called 'mine'" in gone.stderr


def test_a_prior_is_measured_on_recordings_and_goes_with_its_model(saved, cli, wav, sound):
    own.add("mine", saved(shape=("N", 8_000)))
    file = wav("sounds/a.wav", sound)
    wav("sounds/b.wav", sound[:16_000])
    measured = cli("models", "prior", "mine", file.parent)
    assert (measured.returncode, measured.stderr) == (0, "")
    assert "0.1 minutes" in measured.stdout
    prior = backbone("mine", config.Settings()).prior
    assert prior[1:] == pytest.approx([0, 0], abs=0.01)  # they are 0.5 always
    assert 1 < prior[0] < 11  # 0.5 or 1: its logits are 0 or, where it is loud, 11.5
    assert own.names() == ["mine"]
    own.remove("mine")
    own.add("mine", saved(shape=("N", 8_000)))
    assert backbone("mine", config.Settings()).prior is None


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("mine", "empty"), 1, "no sound in .*empty"),
        (("mine", "nowhere"), 1, "nowhere"),
        (("yours", "empty"), 2, "no model is called 'yours'"),
        (("mine",), 2, "FOLDER"),
    ],
)
def test_what_no_prior_can_be_measured_on_is_said(arguments, code, said, saved, cli, tmp_path):
    own.add("mine", saved(shape=("N", 8_000)))
    (tmp_path / "empty").mkdir()
    name, *folders = arguments
    ended = cli("models", "prior", name, *(tmp_path / each for each in folders))
    assert ended.returncode == code
    assert re.search(said, ended.stderr), ended.stderr
    assert "Traceback" not in ended.stderr
    assert not own.path("mine").with_suffix(".prior.json").exists()
