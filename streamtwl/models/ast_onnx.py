"""Hugging Face's `ASTForAudioClassification` to ONNX, for windows of any length.

AST: Y. Gong, Y.-A. Chung, J. Glass, "AST: Audio Spectrogram Transformer", Interspeech 2021. Its
table of positions is as long as the sounds that it was trained on, 10.24 s; a shorter window takes
the first columns of it, so that one graph serves every length.
"""

import json
import logging
import pickle
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    PreTrainedConfig,
)

from streamtwl.errors import ModelError, UsageError
from streamtwl.models import own, wheel
from streamtwl.ontology import audioset_527
from streamtwl.stages import SAMPLE_RATE

MODEL_TYPE = "audio-spectrogram-transformer"
SHORTEST = 50  # frames of a window: half a second, the shortest that the paper scores
HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
DAMAGED = (  # what transformers raises on files that are not what they should be
    *(OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, EOFError),
    *(pickle.UnpicklingError, SafetensorError, StrictDataclassError),
)


class CroppedPositions(nn.Module):
    """AST's embeddings, with the table of positions cropped to the frames that there are."""

    def __init__(self, embeddings: Any) -> None:
        super().__init__()
        self.whole = embeddings
        self.bands, self.times = embeddings.get_shape(embeddings.config)  # patches

    def forward(self, fbank: Tensor) -> Tensor:
        """Return float32[N, 2 + patches, D] of float32[N, frames, bands], normalised."""
        whole = self.whole
        patches = whole.patch_embeddings.projection(fbank.transpose(1, 2).unsqueeze(1))
        tokens, table = whole.position_embeddings.split((2, self.bands * self.times), dim=1)
        table = table.transpose(1, 2).reshape(1, -1, self.bands, self.times)
        patches = (patches + table[..., : patches.shape[-1]]).flatten(2).transpose(1, 2)
        first = torch.cat((whole.cls_token, whole.distillation_token), dim=1) + tokens
        return torch.cat((first.expand(patches.shape[0], -1, -1), patches), dim=1)


class Exported(nn.Module):
    """An AST from the filter bank to posterior and embedding."""

    def __init__(self, model: ASTForAudioClassification, extractor: ASTFeatureExtractor) -> None:
        """Take a model, whose embeddings are changed, and the extractor that it was trained on."""
        super().__init__()
        trunk: Any = model.audio_spectrogram_transformer
        self.trunk = trunk
        self.trunk.embeddings = CroppedPositions(self.trunk.embeddings)
        self.classifier = model.classifier
        self.exclusive = is_exclusive(model.config)
        normalises = extractor.do_normalize
        self.mean = extractor.mean if normalises else 0.0
        self.scale = 1 / (2 * extractor.std) if normalises else 1.0

    def forward(self, fbank: Tensor) -> tuple[Tensor, Tensor]:
        """Return posteriors float32[N, C], embeddings [N, D] of float32[N, frames, bands]."""
        embedding = self.trunk((fbank - self.mean) * self.scale).pooler_output
        logits = self.classifier(embedding)
        return (logits.softmax(dim=-1) if self.exclusive else logits.sigmoid()), embedding


def is_exclusive(config: ASTConfig) -> bool:
    """Whether one category excludes the others, as others than AudioSet's may."""
    problem = getattr(config, "problem_type", None)
    if problem is None:
        return {*labels(config)} != {*audioset_527()}
    return problem == "single_label_classification"


def labels(config: ASTConfig) -> list[str]:
    """Return the categories' names in the order of the logits."""
    names: Any = config.id2label
    return [names[i] for i in sorted(names)]


def export(named: str, name: str, int8: bool = False) -> own.Card:
    """Keep a model as the backbone `name`; `named` is a directory or an id of the hub.

    `int8`: with the weights of its linear layers quantised, activations as they come. Raises
    UsageError where there is no such model or it is none of AST's, ModelError where it is damaged.
    """
    own.check_name(name, "export-ast")
    model, extractor = load(named)
    with tempfile.TemporaryDirectory(prefix="streamtwl-ast-") as scratch:
        file = Path(scratch) / f"{name}.onnx"
        write(model, extractor, file)
        if int8:
            quantise(file)
        return own.add(name, file, origin=named)


def load(named: str) -> tuple[ASTForAudioClassification, ASTFeatureExtractor]:
    """Return a model with its front end; raises UsageError or ModelError as `export` does."""
    path = Path(named)
    if not path.is_dir() and (path.exists() or not HUB_ID.fullmatch(named)):
        raise UsageError(
            f"{named}: there is no such directory; it takes one with config.json, or an id of "
            "Hugging Face's hub such as MIT/ast-finetuned-audioset-10-10-0.4593"
        )
    local = path.is_dir() or wheel.is_offline()
    for quiet in ("huggingface_hub", "transformers"):  # one logs every retry, one what is missing
        logging.getLogger(quiet).setLevel(logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    try:
        found, _ = PreTrainedConfig.get_config_dict(named, local_files_only=local)
        if not found:
            raise OSError("no config.json")
        _check_type(named, found)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of filters that are empty, as AST's lowest are
            extractor = ASTFeatureExtractor.from_pretrained(named, local_files_only=local)
        loaded: Any = ASTForAudioClassification.from_pretrained(
            named,
            local_files_only=local,
            dtype=torch.float32,
            attn_implementation="eager",  # without torch's guard against masks that leave nothing
            ignore_mismatched_sizes=True,  # which are reported, as those that are missing
            output_loading_info=True,
        )
    except DAMAGED as error:
        raise _refusal(named, path.is_dir(), error) from None
    model, report = loaded
    if absent := sorted(report["missing_keys"]) + [name for name, *_ in report["mismatched_keys"]]:
        raise ModelError(
            f"{named}: it has no {absent[0]} that fits, of {len(absent)} tensors: get it again"
        )
    _check(named, model.config, extractor)
    return model.eval(), extractor


def _check_type(named: str, config: dict[str, Any]) -> None:
    if config.get("model_type") != MODEL_TYPE:
        raise UsageError(
            f"{named}: it is a model of type {config.get('model_type')}, not {MODEL_TYPE}: other "
            "networks become backbones with `streamtwl models add`"
        )


def _refusal(named: str, local: bool, error: BaseException) -> UsageError | ModelError:
    """Return what to raise where transformers could not read a model."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if local:
        return ModelError(
            f"{named}: it is damaged, or lacks config.json, preprocessor_config.json or "
            f"model.safetensors ({reason}): get it again"
        )
    return UsageError(
        f"{named}: not available from the Hugging Face hub ({reason}); where the hub can be "
        f"reached, run `hf download {named} --local-dir DIR`, then name DIR"
    )


def _check(named: str, config: ASTConfig, extractor: ASTFeatureExtractor) -> None:
    """Raise ModelError for what the front end or a backbone's card has no place for."""
    bands, rate = extractor.num_mel_bins, extractor.sampling_rate
    if (rate, bands) != (SAMPLE_RATE, config.num_mel_bins):
        raise ModelError(
            f"{named}: preprocessor_config.json has {bands} bands at {rate} Hz, the network takes "
            f"{config.num_mel_bins} at {SAMPLE_RATE} Hz: get the two from the same place"
        )
    if config.max_length < SHORTEST:
        raise ModelError(
            f"{named}: it takes {config.max_length} frames, a window has {SHORTEST} or more: use "
            "another model"
        )
    if any(re.fullmatch(r"LABEL_\d+", label) for label in labels(config)):
        raise ModelError(
            f"{named}: its {config.num_labels} categories have no names: set id2label in "
            "config.json"
        )


def write(model: ASTForAudioClassification, extractor: ASTFeatureExtractor, file: Path) -> None:
    """Write fbank float32[N, frames, bands] -> posterior float32[N, C], embedding [N, D].

    The model's embeddings are changed. The metadata have what `own.add` reads: labels, and the
    least and the most frames.
    """
    config = model.config
    frames = [max(SHORTEST, _patch(config)), config.max_length]
    example = torch.zeros(2, sum(frames) // 2, config.num_mel_bins)
    dimensions = {
        0: torch.export.Dim("N"),
        1: torch.export.Dim("frames", min=frames[0], max=frames[1]),
    }
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own exporter, about itself
        program = torch.onnx.export(
            Exported(model, extractor).eval(),
            kwargs={"fbank": example},
            input_names=["fbank"],
            output_names=["posterior", "embedding"],
            dynamic_shapes={"fbank": dimensions},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    made = program.model_proto
    for part in (made.graph, *made.graph.node, *made.graph.value_info, *made.graph.input):
        del part.metadata_props[:]  # torch's stack traces, with this machine's paths
    metadata = {"labels": json.dumps(labels(config)), "frames": json.dumps(frames)}
    onnx.helper.set_model_props(made, metadata)
    onnx.save(made, file)


def _patch(config: ASTConfig) -> int:
    """Return the frames that a patch covers."""
    size = config.patch_size
    return size if isinstance(size, int) else size[1]


def quantise(file: Path) -> None:
    """Replace a graph by one with int8 weights, and activations that are quantised as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    metadata = {each.key: each.value for each in onnx.load(file).metadata_props}
    root = logging.getLogger()
    root.addFilter(_is_error)  # the rest is advice on shape inference, which torch has done
    try:
        quantize_dynamic(
            file, file, ["MatMul", "Gemm"], weight_type=QuantType.QInt8, per_channel=True
        )
    finally:
        root.removeFilter(_is_error)
    made = onnx.load(file)
    onnx.helper.set_model_props(made, metadata)
    onnx.save(made, file)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR
