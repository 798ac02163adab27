"""EfficientAT's MobileNetV3s from the release's .pt files to ONNX, without torch.

F. Schmid, K. Koutini, G. Widmer, "Efficient Large-Scale Audio Tagging Via Transformer-To-CNN
Knowledge Distillation", ICASSP 2023; github.com/fschmid56/EfficientAT (MIT). The layers are those
of MobileNetV3-Large (A. Howard et al., 2019, table 1) with channels times a width.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from streamtwl.errors import ModelError
from streamtwl.models import pt_file

N_CATEGORIES = 527
MEL_BANDS = 128
WIDTHS = {"mn04": 0.4, "mn10": 1.0, "mn20": 2.0, "mn40": 4.0}
EPSILON = 1e-3  # of batch norm


class _Block(NamedTuple):
    """An inverted residual; channels as of width 1."""

    kernel: int
    expanded: int
    out: int
    squeezes: bool  # it has squeeze-excite
    activation: str
    stride: int


_BLOCKS = (
    _Block(3, 16, 16, False, "Relu", 1),
    _Block(3, 64, 24, False, "Relu", 2),
    _Block(3, 72, 24, False, "Relu", 1),
    _Block(5, 72, 40, True, "Relu", 2),
    _Block(5, 120, 40, True, "Relu", 1),
    _Block(5, 120, 40, True, "Relu", 1),
    _Block(3, 240, 80, False, "HardSwish", 2),
    _Block(3, 200, 80, False, "HardSwish", 1),
    _Block(3, 184, 80, False, "HardSwish", 1),
    _Block(3, 184, 80, False, "HardSwish", 1),
    _Block(3, 480, 112, True, "HardSwish", 1),
    _Block(3, 672, 112, True, "HardSwish", 1),
    _Block(5, 672, 160, True, "HardSwish", 2),
    _Block(5, 960, 160, True, "HardSwish", 1),
    _Block(5, 960, 160, True, "HardSwish", 1),
)
_HEAD = 1280  # units of the hidden linear layer at width 1


def build(pt: Path) -> onnx.ModelProto:
    """Return log_mel float32[N, frames, 128] -> posterior [N, 527], embedding [N, D].

    The embedding is the mean over time and frequency before the classifier (D is 384 for mn04, 960
    for mn10). Raises ModelError if `pt` is not one of EfficientAT's files.
    """
    return build_from(pt_file.read(pt), str(pt))


def build_from(weights: dict[str, np.ndarray], origin: str = "state dict") -> onnx.ModelProto:
    """Return the same for a state dict; raises ModelError if names or shapes do not match."""
    weights = {name: each for name, each in weights.items() if "num_batches" not in name}
    found = {name: each.shape for name, each in weights.items()}
    name = next((name for name, width in WIDTHS.items() if shapes(width) == found), None)
    if name is None:
        raise ModelError(
            f"{origin} does not have the tensors of {', '.join(WIDTHS)}: get one of the files "
            "mn04_as_mAP_432.pt, mn10_as_mAP_471.pt ... of EfficientAT's release v0.0.1"
        )
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        model = _Graph(weights).model(name)
    folded = [numpy_helper.to_array(each) for each in model.graph.initializer]
    if not all(np.isfinite(each).all() for each in (*weights.values(), *folded)):
        raise ModelError(f"{origin} holds weights that are not finite: get it again")
    return model


def shapes(width: float) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors, by name, of the network of that width."""
    before = _channels(16, width)
    wanted = _conv_shapes("features.0", (before, 1, 3, 3))
    for i, block in enumerate(_BLOCKS, 1):
        inner, out = _channels(block.expanded, width), _channels(block.out, width)
        expand, depthwise, squeeze, project = _names(i, inner != before, block.squeezes)
        if expand:
            wanted |= _conv_shapes(expand, (inner, before, 1, 1))
        wanted |= _conv_shapes(depthwise, (inner, 1, block.kernel, block.kernel))
        if squeeze:
            squeezed = _channels(inner // 4, 1)
            wanted |= _linear_shapes(f"{squeeze}.fc1", squeezed, inner)
            wanted |= _linear_shapes(f"{squeeze}.fc2", inner, squeezed)
        wanted |= _conv_shapes(project, (out, inner, 1, 1))
        before = out
    wanted |= _conv_shapes("features.16", (6 * before, before, 1, 1))
    hidden = _channels(_HEAD, width)
    wanted |= _linear_shapes("classifier.2", hidden, 6 * before)
    return wanted | _linear_shapes("classifier.5", N_CATEGORIES, hidden)


def _names(i: int, expands: bool, squeezes: bool) -> tuple[str, str, str, str]:
    """Return the names of a block's layers: expand, depthwise, squeeze, project; "" if absent."""
    numbers = iter(range(4))

    def name(there: bool) -> str:
        return f"features.{i}.block.{next(numbers)}" if there else ""

    expand, depthwise = name(expands), name(True)
    squeeze = f"{name(True)}.conc_se_layers.0" if squeezes else ""
    return expand, depthwise, squeeze, name(True)


def _channels(n: float, width: float) -> int:
    """Return n times width as a multiple of 8, never below 0.9 of that."""
    rounded = max(8, int(n * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * n * width else rounded


def _conv_shapes(name: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    norm = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.0.weight": shape} | {f"{name}.1.{each}": shape[:1] for each in norm}


def _linear_shapes(name: str, out: int, into: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


class _Graph:
    """The network's nodes, layer by layer; `_x` names the newest tensor."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._x = "log_mel"

    def model(self, name: str) -> onnx.ModelProto:
        self._op("Transpose", perm=[0, 2, 1])  # to [N, 128, frames]
        self._op("Unsqueeze", self._constant(np.array([1])))
        self._conv("features.0", stride=2)
        self._op("HardSwish")
        channels = self._weights["features.0.0.weight"].shape[0]
        for i, block in enumerate(_BLOCKS, 1):
            channels = self._residual(i, block, channels)
        self._conv("features.16")
        self._op("HardSwish")
        self._op("GlobalAveragePool")
        self._op("Flatten", output="embedding")
        self._linear("classifier.2")
        self._op("HardSwish")
        self._linear("classifier.5")
        self._op("Sigmoid", output="posterior")
        embedding = self._weights["classifier.2.weight"].shape[1]
        return helper.make_model(
            helper.make_graph(
                self._nodes,
                name,
                [_tensor("log_mel", ["N", "frames", MEL_BANDS])],
                [_tensor("posterior", ["N", N_CATEGORIES]), _tensor("embedding", ["N", embedding])],
                self._constants,
            ),
            opset_imports=[helper.make_opsetid("", 20)],
            ir_version=10,
            producer_name="streamtwl",
        )

    def _residual(self, i: int, block: _Block, channels: int) -> int:
        """Add block `i` with that many input channels; return its output channels."""
        into = self._x
        widens = self._weights[f"features.{i}.block.0.0.weight"].shape[2:] == (1, 1)
        expand, depthwise, squeeze, project = _names(i, widens, block.squeezes)
        if expand:
            self._conv(expand)
            self._op(block.activation)
        self._conv(depthwise, block.stride)
        self._op(block.activation)
        if squeeze:
            self._squeeze_excite(squeeze)
        out = self._conv(project)
        if block.stride == 1 and out == channels:
            self._op("Add", into)
        return out

    def _conv(self, name: str, stride: int = 1) -> int:
        """Add a convolution with its batch norm folded in; return its output channels."""
        kernel = self._weights[f"{name}.0.weight"].astype(np.float64)
        norm = {
            each: self._weights[f"{name}.1.{each}"].astype(np.float64)
            for each in ("weight", "bias", "running_mean", "running_var")
        }
        scale = norm["weight"] / np.sqrt(norm["running_var"] + EPSILON)
        out, per_group, size, _ = kernel.shape
        depthwise = per_group == 1 and size > 1 and name != "features.0"
        self._op(
            "Conv",
            self._constant(kernel * scale[:, None, None, None]),
            self._constant(norm["bias"] - norm["running_mean"] * scale),
            kernel_shape=[size, size],
            strides=[stride, stride],
            pads=[size // 2] * 4,
            group=out if depthwise else 1,
        )
        return out

    def _squeeze_excite(self, name: str) -> None:
        """Scale each channel by a function of all channels' means (J. Hu et al., 2018)."""
        into = self._x
        self._op("GlobalAveragePool")
        for layer, activation in (("fc1", "Relu"), ("fc2", "Sigmoid")):
            weight = self._weights[f"{name}.{layer}.weight"][:, :, None, None]
            self._op(
                "Conv",
                self._constant(weight),
                self._constant(self._weights[f"{name}.{layer}.bias"]),
            )
            self._op(activation)
        self._op("Mul", into)

    def _linear(self, name: str) -> None:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        self._op("Gemm", self._constant(weight), self._constant(bias), transB=1)

    def _op(self, kind: str, *more: str, output: str = "", **attributes: Any) -> None:
        """Add a node that reads the newest tensor; its output becomes the newest."""
        output = output or f"x{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, [self._x, *more], [output], **attributes))
        self._x = output

    def _constant(self, values: np.ndarray) -> str:
        name = f"c{len(self._constants)}"
        values = values if values.dtype == np.int64 else values.astype(np.float32)
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name


def _tensor(name: str, shape: list[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
