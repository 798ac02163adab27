"""The HMM filter over the linear model: its scores on streams, and its reasoner's file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from streamtwl.reasoners import card as cards
from streamtwl.reasoners.card import Card
from streamtwl.reasoners.recurrent import INPUTS, OUTPUTS
from streamtwl.training.linear import FLOOR, PatchModel

LEAST = 1e-12  # under a belief's logarithm


@dataclass(frozen=True, slots=True)
class Filter:
    """The forward filter of a hidden Markov model whose states are the labels and "none".

    The state is drawn anew from the prior at the rate 1 / duration_s, else it stays: its transition
    over t seconds is exp(-t / duration_s) I + (1 - exp(-t / duration_s)) 1 prior^T. A patch counts
    with the weight (p(label | patch) / prior) ** exponent: windows overlap and share their noise,
    so each is less than one independent observation. Rabiner, A tutorial on hidden Markov models,
    Proc. IEEE 77 (1989), equations 19-20, with scaled likelihoods for the emissions.
    """

    patch: PatchModel
    duration_s: float
    exponent: float

    def scores(self, log_probabilities: np.ndarray, elapsed_s: np.ndarray) -> np.ndarray:
        """Return float32[n, T, L] of n streams of T patches.

        Takes float32[n, T, L + 1] of `patch`, and float32[n, T] seconds since the patch before.
        """
        log_prior = self.patch.log_prior
        prior = np.exp(log_prior)
        evidence = self.exponent * (log_probabilities - log_prior)
        stays = np.exp(-elapsed_s / self.duration_s)[..., None]
        belief = np.zeros((len(evidence), len(prior)), np.float32)
        found = np.empty_like(evidence)
        for t in range(evidence.shape[1]):
            predicted = stays[:, t] * belief + (1 - stays[:, t]) * prior
            logs = np.log(predicted + np.float32(LEAST)) + evidence[:, t]
            belief = np.exp(logs - logs.max(axis=1, keepdims=True))
            belief /= belief.sum(axis=1, keepdims=True)
            found[:, t] = belief
        return found[..., :-1]


def write(filter: Filter, card: Card, path: Path) -> None:
    """Write a filter's graph with its card in the metadata; `path` is whole, or not there."""
    nodes, constants = _graph(filter)
    n_features, n_states = filter.patch.weight.shape[1], len(filter.patch.bias)
    given = zip(INPUTS, (n_features, n_states, 1), strict=True)
    taken = zip(OUTPUTS, (n_states - 1, n_states), strict=True)
    inputs, outputs = (
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["streams", size]) for n, size in each]
        for each in (given, taken)
    )
    model = helper.make_model(
        helper.make_graph(nodes, card.name, inputs, outputs, constants),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
        producer_name="streamtwl",
    )
    helper.set_model_props(model, {cards.CARD: cards.encode(card)})
    partial = path.with_suffix(".partial")
    onnx.save(model, partial)
    partial.rename(path)


def _graph(filter: Filter) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return the nodes and constants: `Filter.scores` for one patch of each stream."""
    patch = filter.patch
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    posterior, state, elapsed_s = INPUTS
    scores, new_state = OUTPUTS

    def op(kind: str, *inputs: str | np.ndarray | float, output: str = "", **more: Any) -> str:
        names = []
        for each in inputs:
            if not isinstance(each, str):
                values = np.asarray(each)
                values = values if values.dtype in (bool, np.int64) else values.astype(np.float32)
                constants.append(numpy_helper.from_array(values, f"c{len(constants)}"))
                each = constants[-1].name
            names.append(each)
        output = output or f"x{len(nodes)}"
        nodes.append(helper.make_node(kind, names, [output], **more))
        return output

    # embeddings may be below 0, where there is no logarithm; it is computed and not used
    logs = op("Log", op("Add", op("Relu", posterior), FLOOR))
    values = op("Where", patch.features.is_posterior, logs, posterior)
    features = op("Div", op("Sub", values, patch.features.mean), patch.features.scale)
    logits = op("Gemm", features, patch.weight, patch.bias, transB=1)
    likelihood = op("Sub", op("LogSoftmax", logits, axis=1), patch.log_prior)
    evidence = op("Mul", likelihood, filter.exponent)
    stays = op("Exp", op("Mul", elapsed_s, -1 / filter.duration_s))
    drawn = op("Mul", op("Sub", 1.0, stays), np.exp(patch.log_prior))
    predicted = op("Add", op("Mul", stays, state), drawn)
    joint = op("Add", op("Log", op("Add", predicted, LEAST)), evidence)
    op("Softmax", joint, axis=1, output=new_state)
    first, last, axis = (np.array([each]) for each in (0, -1, 1))
    op("Slice", new_state, first, last, axis, output=scores)
    return nodes, constants
