"""Do YAMNet and mn04 in int8 pay? Speed of a window against what a clip's label loses.

    .venv/bin/python benchmarks/int8.py --corpus CORPUS [--test] [--json int8.json]

Each variant of a network is quantised by ONNX Runtime's static quantisation (QDQ), calibrated on
the corpus's training side, timed in turn with the float network, and heard through the pipeline
`evidence`, the other network in float. Without --test the clips are those of the training folds (1,
2, 3, 5) of ESC-10 and kitchen20: choose there. With --test they are ESC-10's fold 4 and kitchen20's
folds 6 to 9. Differences are paired, intervals by bootstrap over recordings.
"""

import argparse
import itertools
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hearing
import numpy as np
import onnx
from hearing_sounds import FOLDERS, REPOSITORY, Clip, clips_of, right_names
from onnx import TensorProto, helper, numpy_helper
from quick import QUICK, add_option
from rich.console import Console

from streamtwl import config
from streamtwl.backbones.efficientat import EfficientAt
from streamtwl.backbones.yamnet import YamNet
from streamtwl.bench.compare import mean_interval
from streamtwl.errors import StreamtwlError, UsageError
from streamtwl.features import log_mel
from streamtwl.features.spectrum import Spectrum
from streamtwl.models import registry
from streamtwl.models.runtime import open_session
from streamtwl.training import datasets
from streamtwl.training.posteriors import read

FRAMES = {"yamnet": 96, "mn04": 300}  # of the windows of `evidence`
FRONT_END = {"yamnet": log_mel.yamnet, "mn04": log_mel.efficientat}
BACKBONE = {"yamnet": lambda session: YamNet(session), "mn04": lambda s: EfficientAt("mn04", s)}
WINDOWS = 8 if QUICK else 64  # to calibrate on, and as many others to compare logits
SETS = ("ESC-10, fold 4", "kitchen20, folds 6 to 9")
CALLS, CALL_S = (2, 0.01) if QUICK else (20, 0.2)
OUTPUTS = ["posterior", "embedding"]
SMALL = 256  # weights in float32 that are not worth a Cast
_say = Console(stderr=True).print


@dataclass(frozen=True, slots=True)
class Variant:
    """How a network is quantised."""

    about: str
    equalised: bool = False
    activations: str = "QUInt8"
    weights: str = "QInt8"
    method: str = "MinMax"
    reduced: bool = False  # weights of 7 bits: no saturation where there is no VNNI
    only: Callable[[Sequence[onnx.NodeProto]], list[str]] | None = None  # else every Conv and Gemm
    per_channel: bool = True
    operators: bool = False  # QLinearConv in the file, not QDQ
    corrected: bool = False  # each logit by its mean error on the windows to calibrate on


def inner(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """Return all convolutions and ReLUs but the first, without the classifier."""
    return [node.name for node in nodes if node.op_type in ("Conv", "Relu")][2:]


def relu_blocks(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """Return what is before the first squeeze-excite, the first convolution excepted."""
    before = itertools.takewhile(lambda node: node.op_type != "GlobalAveragePool", nodes)
    return [node.name for node in before if node.op_type in ("Conv", "Relu", "Add")][1:]


def pointwise(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """Return the 1x1 convolutions outside of squeeze-excite, the dearest half of the network."""
    return [
        node.name
        for node in nodes
        if node.op_type == "Conv"
        and any(
            each.name == "kernel_shape" and list(each.ints) == [1, 1] for each in node.attribute
        )
    ]


VARIANTS = {
    "yamnet": (
        Variant("U8S8, min to max"),
        Variant("U8S8, min to max, weights of 7 bits", reduced=True),
        Variant("U8S8, min to max, equalised", equalised=True),
        Variant("U8S8, equalised, weights of 7 bits", equalised=True, reduced=True),
        Variant("U8S8, equalised, 7 bits, mean error off", True, reduced=True, corrected=True),
        Variant("U8S8, equalised, 7 bits, 99.999 %", True, method="Percentile", reduced=True),
        Variant("U8S8, equalised, 7 bits, first and last in float", True, reduced=True, only=inner),
        Variant("U8U8, equalised", equalised=True, weights="QUInt8"),
        Variant("U8U8, equalised, QLinearConv", True, weights="QUInt8", operators=True),
        Variant("S8S8, equalised", equalised=True, activations="QInt8"),
        Variant("U8S8, one scale a tensor", per_channel=False),
    ),
    "mn04": (
        Variant("U8S8, min to max"),
        Variant("U8S8, weights of 7 bits", reduced=True),
        Variant("U8U8", weights="QUInt8"),
        Variant("S8S8", activations="QInt8"),
        Variant("U8S8, blocks with ReLU only", only=relu_blocks, reduced=True),
        Variant("U8S8, 1x1 convolutions only", only=pointwise, reduced=True),
    ),
}
HALF, LINEAR = "weights in float16", "only the linear layers' weights, dynamic"


def main() -> None:
    """Quantise, time, listen, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--corpus", type=Path, required=True, help="made by tools/corpus.sh; its folder train/")
    add("--data", type=Path, default=REPOSITORY.parent / "shared" / "data", help="(../shared/data)")
    add("--test", action="store_true", help="the test folds, after all is chosen")
    add("--network", action="append", choices=[*FRAMES], help="(both)")
    add(
        "--only", action="append", help="variants of these words (all); the float one is always run"
    )
    add("--every", type=int, default=1, help="take one clip of so many (%(default)s)")
    add("--no-clips", action="store_true", help="time and logits only")
    add("--keep", type=Path, help="where the networks are left, for `streamtwl models add`")
    add("--repeats", type=int, default=2 if QUICK else 9, help="rounds of all (%(default)s)")
    add("--json", type=Path, help="write the figures here as well")
    add_option(parser)
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # ONNX Runtime's advice on each file
    clips = [] if options.no_clips else chosen_clips(options)[:: options.every]
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name in options.network or FRAMES:
            registry.pull(registry.find(name))
            windows = features(name, options.corpus, 2 * WINDOWS)
            files = made(name, options.only or [""], windows[::2], folder)
            found[name] = figures(name, files, windows[1::2], clips, options.repeats)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    print(markdown(found, clips))


def chosen_clips(options: argparse.Namespace) -> list[Clip]:
    """Return the clips of the training folds, or with --test those of the test folds."""
    there = [name for name in SETS if (options.data / FOLDERS[name]).is_dir()]
    if options.test:
        return [clip for name in there for clip in clips_of(name, options.data)]
    tables = {
        "esc10": options.data / "esc50_audioset.csv",
        "kitchen20": Path(__file__).with_name("kitchen20_audioset.csv"),
    }
    found = []
    for folder in (FOLDERS[name] for name in there):
        names = right_names(tables[folder])
        for each in datasets.load(options.data / folder):
            if each.fold in (1, 2, 3, 5) and each.label in names:
                found.append(Clip(each.path, names[each.label], each.source, each.label))
    found.sort(key=lambda clip: clip.path)
    return found[:: len(found) // 6] if QUICK else found


# --- quantisation ---


def made(name: str, wanted: Sequence[str], windows: np.ndarray, folder: Path) -> dict[str, Path]:
    """Return the file of each variant by what it is; the float one first."""
    plain = registry.path(registry.find(name))
    files = {"float32": plain}
    for i, variant in enumerate(VARIANTS[name][: 2 if QUICK else None]):
        if any(words in variant.about for words in wanted):
            _say(f"{name}: {variant.about}")
            files[variant.about] = folder / f"{name}-{i}.onnx"
            quantise(plain, files[variant.about], variant, windows)
    half, linear = (folder / f"{name}-{each}.onnx" for each in ("half", "linear"))
    if any(words in HALF for words in wanted):
        onnx.save(with_half_weights(onnx.load(plain)), half)
        files[HALF] = half
    if any(words in LINEAR for words in wanted):
        from onnxruntime.quantization import QuantType, quantize_dynamic

        kinds = {"weight_type": QuantType.QUInt8, "op_types_to_quantize": ["Gemm", "MatMul"]}
        quantize_dynamic(plain, linear, per_channel=True, **kinds)
        files[LINEAR] = linear
    return files


def features(name: str, corpus: Path, n: int) -> np.ndarray:
    """Return n windows float32[n, frames, bands] of the corpus, spread over its packages."""
    files = sorted((corpus / "train").rglob("*.flac"))
    if not files:
        raise UsageError(f"--corpus {corpus}: there is no .flac under train/")
    rng, frames, found = np.random.default_rng(20), FRAMES[name], []
    by_package = [[*group] for _, group in itertools.groupby(files, lambda file: file.parent)]
    for package in itertools.cycle(by_package):
        samples = read(package[rng.integers(len(package))])
        samples = np.resize(samples, max(len(samples), 160 * (frames + 2)))  # short ones repeat
        at = rng.integers(len(samples) - 160 * (frames + 2) + 1)
        power = Spectrum().push(samples[at : at + 160 * (frames + 2)].astype(np.float32))
        found.append(FRONT_END[name](power)[:frames])
        if len(found) == n:
            return np.stack(found)
    raise AssertionError("the cycle has no end")


def quantise(plain: Path, out: Path, variant: Variant, windows: np.ndarray) -> None:
    """Write the quantised network."""
    from onnxruntime import quantization as q

    class Windows(q.CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(windows)

        def get_next(self) -> dict[str, np.ndarray] | None:
            window = next(self._left, None)
            return None if window is None else {"log_mel": window[None]}

    model = onnx.load(plain)
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}-{i}"
    if variant.equalised:
        equalise(model, windows)
    kinds = {
        "activation_type": q.QuantType[variant.activations],
        "weight_type": q.QuantType[variant.weights],
        "calibrate_method": q.CalibrationMethod[variant.method],
        "quant_format": q.QuantFormat.QOperator if variant.operators else q.QuantFormat.QDQ,
    }
    if variant.only:
        kinds["nodes_to_quantize"] = variant.only(model.graph.node)
    else:
        kinds["op_types_to_quantize"] = ["Conv", "Relu", "Gemm", "Add", "GlobalAveragePool", "Mul"]
    with tempfile.NamedTemporaryFile(suffix=".onnx") as whole:
        onnx.save(model, whole.name)
        q.quantize_static(
            whole.name,
            out,
            Windows(),
            per_channel=variant.per_channel,
            reduce_range=variant.reduced,
            **kinds,
        )
    if variant.corrected:
        onnx.save(without_mean_error(plain, out, windows), out)


def without_mean_error(plain: Path, quantised: Path, windows: np.ndarray) -> onnx.ModelProto:
    """Return the quantised network with each logit's mean error on these windows taken off."""
    ours, theirs = (
        logit(open_session(file, 1, "cpu").run(["posterior"], {"log_mel": windows})[0])
        for file in (plain, quantised)
    )
    model = onnx.load(quantised)
    nodes = [*model.graph.node]
    last = next(i for i, node in enumerate(nodes) if "posterior" in node.output)
    error = numpy_helper.from_array((ours - theirs).mean(0).astype(np.float32), "mean_error")
    nodes.insert(last, helper.make_node("Add", [nodes[last].input[0], "mean_error"], ["mended"]))
    nodes[last + 1].input[0] = "mended"
    model.graph.initializer.append(error)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def equalise(model: onnx.ModelProto, windows: np.ndarray) -> None:
    """Give the channels between two convolutions the same range, in place; the function stays.

    Cross-layer equalisation (M. Nagel et al., ICCV 2019), by the activations' own ranges: a ReLU
    passes a factor on, so channel c of the first is divided by it and of the second multiplied.
    """
    nodes = [*model.graph.node]
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    reads: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            reads.setdefault(name, []).append(node)
    pairs = []  # (convolution, its activation's output, next convolution)
    for node in nodes:
        after = reads.get(node.output[0], [])
        if node.op_type == "Conv" and len(after) == 1 and after[0].op_type == "Relu":
            then = reads.get(after[0].output[0], [])
            if len(then) == 1 and then[0].op_type == "Conv":
                pairs.append((node, after[0].output[0], then[0]))
    ranges = channel_ranges(model, [name for _, name, _ in pairs], windows)
    for first, name, second in pairs:
        largest = ranges[name]
        depthwise = weights[second.input[1]].dims[1] == 1
        scale = np.maximum(largest / max(largest.max(), 1e-9), 1e-3) ** (1 if depthwise else 0.5)
        scale = scale.astype(np.float32)
        shape = (-1, 1, 1, 1) if depthwise else (1, -1, 1, 1)
        multiply(weights[first.input[1]], 1 / scale.reshape(-1, 1, 1, 1))
        multiply(weights[first.input[2]], 1 / scale)
        multiply(weights[second.input[1]], scale.reshape(shape))


def channel_ranges(
    model: onnx.ModelProto, names: Sequence[str], windows: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the largest value of each channel of these tensors float[N, C, H, W]."""
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    more = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
    probed.graph.output.extend(more)
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        onnx.save(probed, file.name)
        session = open_session(Path(file.name), 1, "cpu")
    found = [np.zeros(1, np.float32)] * len(names)
    for window in windows:
        outputs = session.run([*names], {"log_mel": window[None]})
        found = [np.maximum(a, b.max((0, 2, 3))) for a, b in zip(found, outputs, strict=True)]
    return dict(zip(names, found, strict=True))


def multiply(tensor: onnx.TensorProto, by: np.ndarray) -> None:
    """Multiply a weight in place."""
    values = (numpy_helper.to_array(tensor) * by).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def with_half_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the network with weights kept in float16 and widened as it is loaded."""
    casts, kept = [], []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < SMALL:
            kept.append(tensor)
            continue
        kept.append(numpy_helper.from_array(values.astype(np.float16), f"{tensor.name}-half"))
        casts.append(helper.make_node("Cast", [kept[-1].name], [tensor.name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(kept)
    model.graph.node.extend(nodes)
    return model


# --- figures ---


def figures(
    name: str, files: dict[str, Path], windows: np.ndarray, clips: Sequence[Clip], repeats: int
) -> dict[str, Any]:
    """Return, by variant, its size, time, change of the logits, and the clips that are right."""
    sessions = {about: open_session(file, 1, "cpu") for about, file in files.items()}
    times = in_turn(sessions, name, repeats)
    logits = {
        about: logit(session.run(["posterior"], {"log_mel": windows})[0])
        for about, session in sessions.items()
    }
    right = heard(name, sessions, clips) if clips else {}
    found: dict[str, Any] = {}
    for about, file in files.items():
        apart = logits[about] - logits["float32"]
        same = logits[about].argmax(1) == logits["float32"].argmax(1)
        found[about] = {"mb": file.stat().st_size / 1e6, "ms": times[about]}
        found[about] |= {"rms": float(np.sqrt(np.mean(apart**2))), "same": float(np.mean(same))}
        if about in right:
            found[about]["right"] = right[about]
    return found


def logit(posterior: np.ndarray) -> np.ndarray:
    """Return float[n, C] logits, those below -12 as -12: nothing is read of them."""
    clipped = np.clip(posterior.astype(np.float64), 6e-6, 1 - 6e-6)
    return np.log(clipped / (1 - clipped))


def in_turn(sessions: dict[str, Any], name: str, repeats: int) -> dict[str, list[float]]:
    """Return the processor milliseconds of a window, of each in turn, round by round."""
    bands = {"yamnet": 64, "mn04": 128}[name]
    rng = np.random.default_rng(1)
    fed = {"log_mel": rng.standard_normal((1, FRAMES[name], bands)).astype(np.float32)}
    times: dict[str, list[float]] = {about: [] for about in sessions}
    for _ in range(repeats + 1):
        for about, session in sessions.items():
            calls, began = 0, time.process_time()
            while calls < CALLS or time.process_time() - began < CALL_S:
                session.run(OUTPUTS, fed)
                calls += 1
            times[about].append(1000 * (time.process_time() - began) / calls)
    return {about: each[1:] for about, each in times.items()}  # the first warms


def heard(name: str, sessions: dict[str, Any], clips: Sequence[Clip]) -> dict[str, list[bool]]:
    """Return, by variant, which clips `evidence` names rightly with that network."""
    settings = config.load(config.find("evidence"))
    [other] = FRAMES.keys() - {name}
    file = registry.pull(registry.find(other))
    shared = hearing.Remembering(BACKBONE[other](open_session(file, 1, "cpu")))  # scored once
    own = {
        about: hearing.Remembering(BACKBONE[name](session)) for about, session in sessions.items()
    }
    rows = {
        about: hearing.Row(settings, {name: backbone, other: shared})
        for about, backbone in own.items()
    }
    found: dict[str, list[bool]] = {about: [] for about in sessions}
    for i in range(0, len(clips), hearing.WIDTH):
        batch = clips[i : i + hearing.WIDTH]
        _say(f"{name}: clip {i} of {len(clips)}")
        sounds = (np.ascontiguousarray(read(clip.path), np.float32) for clip in batch)
        for clip, by_row in zip(batch, hearing.listen(rows, sounds), strict=True):
            for about, taken in by_row.items():
                found[about].append(bool(taken.judged(clip.right)["right"]))
        for each in (*own.values(), shared):
            each.forget()
    return found


def markdown(found: dict[str, Any], clips: Sequence[Clip]) -> str:
    """Return a table for each network."""
    sources = [clip.source for clip in clips]
    lines = ["**--quick: these figures say nothing.**", ""] if QUICK else []
    for name, variants in found.items():
        plain = variants["float32"]
        lines += [
            f"| {name}, {FRAMES[name] / 100:g} s | MB | ms a window | x as fast | logits: RMS of "
            f"the change, same strongest | right, % of {len(clips)} clips | loses, points |",
            "| --- |" + " --- |" * 6,
        ]
        for about, one in variants.items():
            faster = [a / b for a, b in zip(plain["ms"], one["ms"], strict=True)]
            cells = [f"{one['mb']:.1f}", spread(one["ms"])]
            cells.append("" if one is plain else spread(faster))
            cells.append("" if one is plain else f"{one['rms']:.2f}, {one['same']:.0%}")
            cells += lost(one.get("right"), plain.get("right"), sources)
            lines.append(f"| {about} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def lost(right: list[bool] | None, plain: list[bool] | None, sources: list[str]) -> list[str]:
    """Return what is right, and what is lost against the float network, as cells."""
    if right is None or plain is None:
        return ["", ""]
    less = np.subtract(plain, right, dtype=float)
    found = mean_interval(less, sources)
    mean, low, high = (100 * each for each in (found.mean, found.low, found.high))
    share = f"{100 * statistics.mean(right):.1f}"
    return [share, "" if right is plain else f"{mean:.1f} ({low:.1f} to {high:.1f})"]


def spread(values: Sequence[float]) -> str:
    """Return the median, and the least and the most."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    try:
        main()
    except (StreamtwlError, OSError) as error:
        sys.exit(f"int8.py: {error}")
