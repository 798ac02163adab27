"""Torch modules to reasoners' files."""

import logging
import warnings
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnx.numpy_helper
import torch

from streamtwl.reasoners import card as cards

WORTH_HALVING = 1000  # weights of a tensor


def write(
    module: torch.nn.Module,
    example_inputs: dict[str, Any],
    dynamic: dict[str, Any],
    inputs: list[str],
    outputs: list[str],
    card: msgspec.Struct,
    path: Path,
    half: bool = False,
) -> None:
    """Write a module's graph with its card in the metadata; `path` is whole, or not there.

    `example_inputs` are tensors, or lists of tensors, to trace it with, by parameter name;
    `dynamic` names the dimensions of each that may vary; `inputs` and `outputs` are the graph's.
    With `half` weights are stored in half precision; the network computes as before.
    """
    module.eval()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own exporter, about itself
        program = torch.onnx.export(
            module,
            kwargs=example_inputs,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=dynamic,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    graph = model.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]  # torch's stack traces, with this machine's paths
    if half:
        _store_halves(graph)
    onnx.helper.set_model_props(model, {cards.CARD: msgspec.json.encode(card).decode()})
    partial = path.with_suffix(".partial")
    onnx.save(model, partial)
    partial.rename(path)


def _store_halves(graph: onnx.GraphProto) -> None:
    """Replace large float32 weights by float16 ones and a cast, which sessions fold when opened."""
    for weight in graph.initializer:
        values = onnx.numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < WORTH_HALVING:
            continue
        name, stored = weight.name, f"{weight.name}.half"
        weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), stored))
        cast = onnx.helper.make_node("Cast", [stored], [name], to=onnx.TensorProto.FLOAT)
        graph.node.insert(0, cast)
