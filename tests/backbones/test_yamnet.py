import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from streamtwl.audio import demo
from streamtwl.backbones.bank import Bank
from streamtwl.backbones.yamnet import WINDOW, YamNet
from streamtwl.errors import ModelError
from streamtwl.models import registry
from streamtwl.stages import Window
from tests.patches import KIND
from tests.patches import log_mel as log_mel_of


@pytest.fixture(scope="module")
def by_litert(clips, tflite):
    """ESC-10's whole windows end to end, as LiteRT has them.

    Returns float32[N, 15600] samples, float32[N, 96, 64] log-mel, float32[N, 521] scores.
    """
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="needs ai-edge-litert")
    interpreter = litert.Interpreter(str(tflite), num_threads=1)
    interpreter.allocate_tensors()
    [taken] = interpreter.get_input_details()
    scores, log_mel = sorted(
        interpreter.get_output_details(), key=lambda output: np.prod(output["shape"])
    )
    windows = [
        clip.samples[at : at + WINDOW]
        for clip in clips
        for at in range(0, len(clip.samples) - WINDOW + 1, WINDOW)
    ]
    rows = []
    for samples in windows:
        interpreter.set_tensor(taken["index"], samples.reshape(taken["shape"]))
        interpreter.invoke()
        rows.append([interpreter.get_tensor(one["index"]).copy() for one in (log_mel, scores)])
    return (
        np.stack(windows),
        np.stack([row[0].reshape(96, 64) for row in rows]),
        np.stack([row[1].reshape(521) for row in rows]),
    )


@pytest.mark.slow
def test_top_category_agrees_with_googles_file_on_its_own_features(yamnet, by_litert):
    _, log_mel, scores = by_litert
    assert len(log_mel) > 1900
    batches = np.array_split(log_mel, 32)
    ours = np.concatenate([yamnet.posteriors(batch) for batch in batches])
    agree = np.mean(ours.argmax(1) == scores.argmax(1))
    assert agree >= 0.85  # its weights are int8, ours float: 88.7 % when this was written


@pytest.mark.slow
def test_log_mel_agrees_with_googles_file_where_it_is_loud(by_litert):
    samples, theirs, _ = by_litert
    ours = np.stack([log_mel_of(one) for one in samples[::10]])
    loud = ours > 0  # the file's front end is int8 too, quiet bands drown in its rounding
    assert loud.mean() > 0.1
    assert np.abs(ours - theirs[::10])[loud].mean() < 0.02  # 0.007 when this was written


@pytest.fixture(scope="module")
def log_mel():
    """Seven windows of the demo, two seconds apart."""
    frames = log_mel_of(demo.scene())
    return np.stack([frames[at : at + 96] for at in range(100, 1500, 200)])


def test_a_batch_gives_what_each_window_gives_alone(yamnet, log_mel):
    alone = np.concatenate([yamnet.posteriors(one[None]) for one in log_mel])
    np.testing.assert_allclose(yamnet.posteriors(log_mel), alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_posteriors_are_scores_of_521_categories(batch, yamnet, log_mel):
    posteriors = yamnet.posteriors(log_mel[:batch])
    assert posteriors.shape == (batch, 521)
    assert posteriors.dtype == np.float32
    assert posteriors.min() >= 0
    assert posteriors.max() <= 1
    assert posteriors.max() > 0.1  # there is sound in it


def test_a_bank_keeps_the_order_of_the_windows(yamnet, log_mel):
    windows = [
        Window(i, 100 * i, 0, False, (one,), -20.0, None, 0.0) for i, one in enumerate(log_mel)
    ]
    found = Bank([yamnet], [KIND]).score(windows)
    assert [patch.window for patch in found] == windows
    for patch, one in zip(found, log_mel, strict=True):
        [score] = patch.scores
        alone, embedding = yamnet.score(one[None])
        np.testing.assert_allclose(score.posterior, alone[0], rtol=0, atol=1e-5)
        np.testing.assert_allclose(score.embedding, embedding[0], rtol=0, atol=1e-3)
        assert (score.window, score.embedding.shape) == ("yamnet", (1024,))
    assert patch.posterior is found[-1].scores[0].posterior


def test_silence_is_silence(yamnet):
    silence = log_mel_of(np.zeros(WINDOW, np.float32))
    assert yamnet.posteriors(silence[None])[0].argmax() == 494  # "Silence"


def test_the_model_gives_an_embedding_and_frees_the_batch(yamnet, log_mel):
    session = registry.session(registry.find("yamnet"), threads=1)
    [taken] = session.get_inputs()
    assert (taken.name, taken.shape[1:]) == ("log_mel", [96, 64])
    assert not isinstance(taken.shape[0], int)
    [embedding] = session.run(["embedding"], {"log_mel": log_mel})
    assert embedding.shape == (7, 1024)
    assert embedding.std() > 0


def another_model(name: str, shape: list) -> onnxruntime.InferenceSession:
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], ["posterior"])],
        "another",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("posterior", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString())


@pytest.mark.parametrize(
    ("name", "shape"),
    [("audio", ["N", 96, 64]), ("log_mel", ["N", 64, 96]), ("log_mel", ["N", 1, 96, 64])],
)
def test_another_onnx_file_is_refused(name, shape):
    with pytest.raises(ModelError, match="models pull yamnet"):
        YamNet(another_model(name, shape))
