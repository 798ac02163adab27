"""What `benchmarks/int8.py` does to a network, on a small one."""

import int8
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

BANDS = 8


@pytest.fixture
def network() -> onnx.ModelProto:
    """Three convolutions with ReLUs, 1x1, depthwise and 1x1, with channels of unlike ranges."""
    rng = np.random.default_rng(5)
    loud = 10.0 ** np.arange(-2, 2).reshape(4, 1, 1, 1)
    shapes = {"a": (4, 1, 1, 1), "b": (4, 1, 3, 3), "c": (3, 4, 1, 1)}
    weights = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    weights["a"] = np.abs(weights["a"]) * loud
    tensors = [
        numpy_helper.from_array(np.array([1]), "axis"),
        *(numpy_helper.from_array(each.astype(np.float32), n) for n, each in weights.items()),
        *(
            numpy_helper.from_array(np.full(shape[0], 0.1, np.float32), f"{name}-bias")
            for name, shape in shapes.items()
        ),
    ]
    nodes = [helper.make_node("Unsqueeze", ["log_mel", "axis"], ["x"])]
    before = "x"
    for name, shape in shapes.items():
        pads = [shape[2] // 2] * 4
        of = {"group": 4 if name == "b" else 1, "kernel_shape": shape[2:], "pads": pads}
        inputs = [before, name, f"{name}-bias"]
        nodes.append(helper.make_node("Conv", inputs, [f"{name}-out"], **of))
        nodes.append(helper.make_node("Relu", [f"{name}-out"], [f"{name}-relu"]))
        before = f"{name}-relu"
    taken = helper.make_tensor_value_info("log_mel", TensorProto.FLOAT, ["N", "T", BANDS])
    given = helper.make_tensor_value_info(before, TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "small", [taken], [given], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def outputs(model: onnx.ModelProto, windows: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"log_mel": windows})[0]


def test_an_equalised_network_has_the_same_outputs_and_channels_of_nearer_ranges(network):
    windows = np.random.default_rng(6).standard_normal((4, 20, BANDS)).astype(np.float32)
    before = outputs(network, windows)
    ranges = int8.channel_ranges(network, ["a-relu"], windows)["a-relu"]
    assert ranges.max() > 50 * ranges.min()
    int8.equalise(network, windows)
    assert outputs(network, windows) == pytest.approx(before, rel=1e-4, abs=1e-4)
    ranges = int8.channel_ranges(network, ["a-relu"], windows)["a-relu"]
    assert ranges.max() < 1.1 * ranges.min()


def test_weights_in_half_the_bytes_are_widened_again(network, monkeypatch):
    monkeypatch.setattr(int8, "SMALL", 10)
    windows = np.random.default_rng(6).standard_normal((1, 20, BANDS)).astype(np.float32)
    before = outputs(network, windows)
    half = int8.with_half_weights(network)
    kinds = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    assert kinds["b-half"] == kinds["c-half"] == TensorProto.FLOAT16
    assert kinds["a"] == TensorProto.FLOAT
    after = outputs(half, windows)
    assert after == pytest.approx(before, rel=0.01, abs=0.01 * float(before.max()))
    assert not np.array_equal(after, before)


def test_the_mean_error_of_each_logit_is_taken_off(network, tmp_path):
    network.graph.node.extend(
        [
            helper.make_node("ReduceMean", ["c-relu"], ["mean"], axes=[2, 3], keepdims=0),
            helper.make_node("Sigmoid", ["mean"], ["posterior"]),
        ]
    )
    network.graph.output[0].name = "posterior"
    windows = np.random.default_rng(6).standard_normal((8, 20, BANDS)).astype(np.float32) / 9
    onnx.save(network, tmp_path / "plain.onnx")
    before = int8.logit(outputs(network, windows))
    bias = next(tensor for tensor in network.graph.initializer if tensor.name == "c-bias")
    bias.CopyFrom(numpy_helper.from_array(np.full(3, 0.4, np.float32), "c-bias"))
    onnx.save(network, tmp_path / "moved.onnx")
    assert not np.allclose(int8.logit(outputs(network, windows)).mean(0), before.mean(0), atol=0.02)
    mended = int8.without_mean_error(tmp_path / "plain.onnx", tmp_path / "moved.onnx", windows)
    after = int8.logit(outputs(mended, windows))
    assert after.mean(0) == pytest.approx(before.mean(0), abs=1e-3)


def test_what_is_lost_is_paired():
    plain, right = [True, True, False, True], [True, False, True, True]
    share, less = int8.lost(right, plain, ["a", "b", "c", "d"])
    assert share == "75.0"
    assert less.startswith("0.0 (-")
    assert int8.lost(plain, plain, ["a", "b", "c", "d"]) == ["75.0", ""]
