"""Torch modules to reasoners' files."""

import logging
import warnings
from pathlib import Path
from typing import Any

import msgspec
import onnx
import torch

from streamtwl.reasoners import card as cards


def write(
    module: torch.nn.Module,
    example_inputs: dict[str, Any],
    dynamic: dict[str, Any],
    inputs: list[str],
    outputs: list[str],
    card: msgspec.Struct,
    path: Path,
) -> None:
    """Write a module's graph with its card in the metadata; `path` is whole, or not there.

    `example_inputs` are tensors, or lists of tensors, to trace it with, by parameter name;
    `dynamic` names the dimensions of each that may vary; `inputs` and `outputs` are the graph's.
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
    onnx.helper.set_model_props(model, {cards.CARD: msgspec.json.encode(card).decode()})
    partial = path.with_suffix(".partial")
    onnx.save(model, partial)
    partial.rename(path)
