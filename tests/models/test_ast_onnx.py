"""AST from Hugging Face's files to a backbone that listens; the weights are random."""

import importlib.util
import json
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

from streamtwl import available, config, ontology
from streamtwl.errors import ModelError, UsageError
from streamtwl.features.fbank import Fbank
from streamtwl.models import ast_onnx, own
from streamtwl.models.runtime import open_session
from streamtwl.pipeline import build
from streamtwl.stages import Block
from streamtwl.training import reader

POWER = np.empty((0, 257), np.float32)
MEAN, STD = -4.2677393, 4.5689974  # of AudioSet: ASTFeatureExtractor's
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
OLD_NAMES = {  # of tensors, in files that transformers 4 wrote, such as MIT's
    "layers.": "encoder.layer.",
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("STREAMTWL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def network(labels=None, **changes) -> ASTForAudioClassification:
    """Return a network of random weights, of positions too."""
    names = dict(enumerate(labels or ontology.audioset_527()))
    torch.manual_seed(1)
    made = ASTForAudioClassification(
        ASTConfig(id2label=names, label2id={n: i for i, n in names.items()}, **changes)
    )
    torch.nn.init.normal_(made.audio_spectrogram_transformer.embeddings.position_embeddings)
    return made.eval()


def save(folder: Path, labels=None, **changes) -> Path:
    """Save a small network as Hugging Face keeps it."""
    network(labels, **SMALL | changes).save_pretrained(folder)
    ASTFeatureExtractor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("ast"))


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory) -> Path:
    """The small network's graph."""
    file = tmp_path_factory.mktemp("onnx") / "ast.onnx"
    ast_onnx.write(*ast_onnx.load(str(folder)), file)
    return file


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    """A copy of the small network's folder."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def change(folder: Path, file: str, **keys) -> None:
    """Set keys of a JSON file."""
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def features(frames: int, rows: int = 2) -> np.ndarray:
    """Return float32[rows, frames, 128] in the filter bank's range."""
    rng = np.random.default_rng(frames)
    return (MEAN + 2 * STD * 0.5 * rng.standard_normal((rows, frames, 128))).astype(np.float32)


def torchs(net: ASTForAudioClassification, fbank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return posterior and embedding as transformers computes them, at AST's full length."""
    values = torch.from_numpy((fbank - MEAN) / (2 * STD)).float()
    with torch.no_grad():
        embedding = net.audio_spectrogram_transformer(values).pooler_output
        return net(values).logits.sigmoid().numpy(), embedding.numpy()


# --- the front end ---


def test_the_filter_bank_is_that_of_transformers(clips):
    extractor = ASTFeatureExtractor()
    for clip in clips[::40]:
        found = Fbank().push(clip.samples, POWER)
        expected = extractor(clip.samples, sampling_rate=16_000)["input_values"][0][: len(found)]
        np.testing.assert_allclose((found - MEAN) / (2 * STD), expected, rtol=0, atol=1e-3)


@pytest.fixture
def kaldi(monkeypatch):
    """torchaudio's kaldi.py, by itself: beside a CPU build of torch the package does not load."""
    found = importlib.util.find_spec("torchaudio")
    if found is None or found.origin is None:
        pytest.skip("no torchaudio here")
    monkeypatch.setitem(sys.modules, "torchaudio", types.ModuleType("torchaudio"))
    path = Path(found.origin).parent / "compliance" / "kaldi.py"
    spec = importlib.util.spec_from_file_location("kaldi", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_filter_bank_is_that_of_torchaudio(kaldi, clips):
    for clip in clips[::40]:
        expected = kaldi.fbank(
            torch.from_numpy(clip.samples)[None],
            sample_frequency=16_000,
            window_type="hanning",
            num_mel_bins=128,
        )
        found = Fbank().push(clip.samples, POWER)
        np.testing.assert_allclose(found / (2 * STD), expected / (2 * STD), rtol=0, atol=1e-3)


# --- the graph ---


def test_the_graph_is_torchs_at_full_length(folder, exported):
    net = ASTForAudioClassification.from_pretrained(folder).eval()
    fbank = features(1024)
    posterior, embedding = torchs(net, fbank)
    for rows in (1, 2):
        found = open_session(exported, 1).run(["posterior", "embedding"], {"fbank": fbank[:rows]})
        np.testing.assert_allclose(found[0], posterior[:rows], rtol=0, atol=1e-3)
        np.testing.assert_allclose(found[1], embedding[:rows], rtol=0, atol=1e-3)


@pytest.mark.parametrize("frames", [50, 51, 96, 555, 1023])
def test_a_shorter_window_is_a_model_of_that_length_with_the_first_positions(
    frames, folder, exported
):
    whole = ASTForAudioClassification.from_pretrained(folder)
    short = network(max_length=frames, **SMALL)
    weights = whole.state_dict()
    table = "audio_spectrogram_transformer.embeddings.position_embeddings"
    grid = weights[table][:, 2:].unflatten(1, (12, 101))  # frequency, time
    cropped = grid[:, :, : (frames - 16) // 10 + 1].flatten(1, 2)
    short.load_state_dict(weights | {table: torch.cat((weights[table][:, :2], cropped), dim=1)})
    posterior, embedding = torchs(short, features(frames))
    found = open_session(exported, 1).run(None, {"fbank": features(frames)})
    np.testing.assert_allclose(found[0], posterior, rtol=0, atol=1e-3)
    np.testing.assert_allclose(found[1], embedding, rtol=0, atol=1e-3)


def test_int8_is_smaller_and_near(exported, tmp_path):
    file = Path(shutil.copy(exported, tmp_path / "int8.onnx"))
    ast_onnx.quantise(file)
    assert file.stat().st_size < 0.8 * exported.stat().st_size
    exact = open_session(exported, 1).run(["embedding"], {"fbank": features(300)})[0]
    found = open_session(file, 1).run(["embedding"], {"fbank": features(300)})[0]
    assert np.corrcoef(exact.ravel(), found.ravel())[0, 1] > 0.99


def test_the_file_says_nothing_of_this_machine(exported):
    assert b"site-packages" not in exported.read_bytes()


def test_files_of_transformers_4_have_other_names_and_the_same_weights(folder, copy):
    weights = load_file(copy / "model.safetensors")
    renamed = {}
    for name, tensor in weights.items():
        for new, old in OLD_NAMES.items():
            name = name.replace(new, old)
        renamed[name] = tensor
    assert not renamed.keys() & {name for name in weights if ".layers." in name}
    save_file(renamed, copy / "model.safetensors", {"format": "pt"})
    again, _ = ast_onnx.load(str(copy))
    for name, tensor in ast_onnx.load(str(folder))[0].state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor)


def test_categories_that_exclude_one_another_have_a_softmax(tmp_path, cache):
    labels = ["yes", "no", "Dog"]
    card = ast_onnx.export(str(save(tmp_path / "commands", labels, max_length=128)), "commands")
    assert card.labels == labels
    assert card.frames == (50, 128)
    session = open_session(own.path("commands"), 1)
    [posterior] = session.run(["posterior"], {"fbank": features(98)})
    np.testing.assert_allclose(posterior.sum(axis=1), 1, atol=1e-5)


# --- a backbone like any other ---


def test_it_listens_with_a_growing_window_and_a_short_one(folder, cache, noise):
    card = ast_onnx.export(str(folder), "ast")
    assert card.labels == list(ontology.audioset_527())
    said: list[str] = []
    settings = available.settings("ast", {"hop_s": 1.0, "backbone.threads": 1}, said.append)
    assert said == []
    pipeline = build(settings, ["a"])
    outcomes = []
    pipeline.subscribe(outcomes.append)
    sound = np.resize(noise, 12 * 16_000)
    pipeline.push([Block(0, 0, sound, None, 0.0, last=True)])
    patches = [outcome.patch for outcome in outcomes if outcome.patch is not None]
    lengths = [[score.length_s for score in patch.scores] for patch in patches]
    assert lengths[:3] == [[1.0, 0.96], [2.0, 0.96], [3.0, 0.96]]
    assert lengths[-1] == [10.24, 0.96]
    assert patches[0].scores[0].embedding.shape == (32,)
    whole = Fbank().push(sound, POWER)
    net = ASTForAudioClassification.from_pretrained(folder).eval()
    at = patches[10]  # the eleventh second
    end = (at.window.position - 400) // 160 + 1
    posterior, _ = torchs(net, whole[None, end - 1024 : end])
    np.testing.assert_allclose(at.scores[0].posterior, posterior[0], rtol=0, atol=1e-3)


def test_a_length_that_it_does_not_score_is_refused(folder, cache):
    ast_onnx.export(str(folder), "ast")
    for window in ("ast:0.4", "ast:10.3"):
        settings = config.override(config.Settings(), {"windows": [window]})
        with pytest.raises(UsageError, match=r"scores windows of 0\.5 to 10\.24 s"):
            build(settings, ["a"])


def test_the_command_line_exports_lists_and_labels(folder, cache, cli, wav, noise):
    made = cli("models", "export-ast", folder, "--offline")
    assert (made.returncode, made.stderr) == (0, "")
    assert f"ast: 527 categories, SHA-256 {own.card('ast').sha256}" in made.stdout
    assert "50 to 1024 frames" in cli("models", "list").stdout
    labelled = cli("label", wav("a.wav", noise), "--pipeline", "ast", "--hop", "1", "--offline")
    assert (labelled.returncode, labelled.stderr) == (0, "")
    again = cli("models", "export-ast", folder)
    assert again.returncode == 2
    assert "models remove ast" in again.stderr


@pytest.fixture
def reader_of_ast(folder, cache, tmp_path) -> Path:
    """A GPT-2 that was trained on a small AST's windows."""
    ast_onnx.export(str(folder), "ast")
    rng = np.random.default_rng(1)
    corpus = tmp_path / "corpus" / "train"
    for name, length_s in (("game", 1), ("music", 30)):
        (corpus / name).mkdir(parents=True)
        sound = 0.1 * rng.standard_normal(16_000 * length_s)
        soundfile.write(corpus / name / "a.flac", sound, 16_000)
    made = tmp_path / "ast-reader.onnx"
    reader.train(
        corpus.parent, [], [], made, reader.Recipe("ast", scenes=1, epochs=1), lambda *_: None
    )
    own.remove("ast")
    return made


def test_full_size_listens_to_the_end(reader_of_ast, cache, cli, wav, noise, tmp_path):
    file = tmp_path / "full.onnx"
    ast_onnx.write(network(), ASTFeatureExtractor(), file)
    own.add("ast", file)
    assert own.card("ast").frames == (50, 1024)
    sound = wav("a.wav", np.resize(noise, 11 * 16_000))
    for reasoner, named in (("evidence", "evidence"), (reader_of_ast, "ast-reader")):
        ran = cli(
            *("listen", "--file", sound, "--fast", "--pipeline", "ast", "--json", "--no-journal"),
            *("--bind", "tcp://127.0.0.1:*", "--reasoner", reasoner),
        )
        assert ran.returncode == 0, ran.stderr
        assert ("trained with other weights of ast" in ran.stderr) == (named == "ast-reader")
        messages = [json.loads(line) for line in ran.stdout.splitlines()]
        labels = [each for each in messages if each["kind"] == "label"]
        assert [each["position"] for each in labels] == [80_240, 160_240, 176_000]
        assert {each["reasoner"] for each in labels} == {named}
        assert messages[-1]["state"] == "ended"


# --- what is none ---


@pytest.mark.parametrize(
    ("file", "keys", "said"),
    [
        ("config.json", {"model_type": "gpt2"}, "of type gpt2, not audio-spectrogram-transformer"),
        ("config.json", {"hidden_size": 48}, "it has no .* that fits"),
        ("config.json", {"num_attention_heads": "many"}, "it is damaged"),
        ("config.json", {"id2label": None, "num_labels": 527}, "have no names: set id2label"),
        ("config.json", {"max_length": 400}, "it has no .*position_embeddings that fits, of 1 "),
        ("preprocessor_config.json", {"sampling_rate": 8000}, "128 bands at 8000 Hz"),
        ("preprocessor_config.json", {"num_mel_bins": 64}, "64 bands at 16000 Hz"),
    ],
)
def test_what_does_not_fit_is_one_line(file, keys, said, copy, cache):
    change(copy, file, **keys)
    with pytest.raises((ModelError, UsageError), match=said) as raised:
        ast_onnx.export(str(copy), "ast")
    assert "\n" not in str(raised.value)
    assert str(copy) in str(raised.value)
    assert own.names() == []


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "model.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"PK\x03\x04"])
def test_a_damaged_folder_is_one_line(file, content, copy, cache):
    (copy / file).unlink()
    if content is not None:
        (copy / file).write_bytes(content)
    with pytest.raises(ModelError, match="is damaged, or lacks") as raised:
        ast_onnx.export(str(copy), "ast")
    assert "\n" not in str(raised.value)


def test_a_tensor_that_is_absent_is_not_made_up(copy, cache):
    weights = load_file(copy / "model.safetensors")
    del weights["classifier.dense.weight"]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"no classifier\.dense\.weight"):
        ast_onnx.export(str(copy), "ast")


def test_no_such_model_is_one_line(cache, cli, tmp_path):
    for named in (tmp_path / "nowhere", "not an id", "nobody/nothing"):
        ran = cli("models", "export-ast", named, "--offline")
        assert ran.returncode == 2
        assert ran.stderr.count("\n") == 1
        assert str(named) in ran.stderr


def test_a_name_is_checked_before_anything_is_loaded(cache):
    with pytest.raises(UsageError, match="models export-ast yamnet: streamtwl has a model"):
        ast_onnx.export("nobody/nothing", "yamnet")
