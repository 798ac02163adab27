"""Models of the user's own: ONNX files that were checked and are kept beside a card, by name."""

import contextlib
import csv
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from streamtwl import folders, plugins
from streamtwl.errors import UNDECODABLE, ModelError, UsageError
from streamtwl.models import catalogue, priors, registry
from streamtwl.models.runtime import errors, open_session
from streamtwl.stages import SAMPLE_RATE

if TYPE_CHECKING:
    import onnxruntime

LOG_MEL = (96, 64)  # frames and bands of YAMNet's window
FBANK = "fbank"  # the name of an input that takes Kaldi's filter bank
USUAL_SAMPLES = 15_360  # 0.96 s, of a waveform whose length the file leaves open
MIN_SAMPLES, MAX_SAMPLES = SAMPLE_RATE // 10, 60 * SAMPLE_RATE

Input = Literal["log_mel", "waveform", "fbank"]


class Card(msgspec.Struct):
    """What is known of a file: NAME.json beside NAME.onnx."""

    sha256: str
    input: Input
    samples: int  # of a waveform's window; 0 for the others
    labels: list[str]  # C, in the posterior's order
    posterior: str  # the output's name
    embedding: str | None  # the output's name, where there is one
    origin: str  # the path that it was added from
    frames: tuple[int, int] = (0, 0)  # of the shortest and the longest window; fbank only
    bands: int = 0  # fbank only


def names() -> list[str]:
    """Return the names of the models that the user added; none of a folder that cannot be read."""
    with contextlib.suppress(OSError):
        return sorted(file.stem for file in _folder().glob("*.onnx"))
    return []


def needs_pull(backbone: str) -> bool:
    """Whether a backbone has to come from the registry: the user or a package did not add it."""
    if backbone in catalogue.SHIPPED or backbone in plugins.names("backbones"):
        return False
    return backbone in catalogue.MODELS or backbone not in names()


def path(name: str) -> Path:
    """Return where the file of that name is, or will be."""
    return _folder() / f"{name}.onnx"


def card(name: str) -> Card:
    """Return a model's card; raises ModelError where its file is damaged, or not there."""
    try:
        found = msgspec.json.decode(_card(name).read_bytes(), type=Card)
        if found.sha256 == registry.sha256(path(name)):
            return found
    except (OSError, *UNDECODABLE):
        pass
    raise ModelError(
        f"{path(name)} is damaged, or its card {_card(name).name} is: run `streamtwl models remove "
        f"{name}` and add it again"
    )


def check_name(name: str, command: str = "add") -> None:
    """Raise UsageError unless `models COMMAND` can add a model of that name."""
    what = f"models {command} {name}"
    if not re.fullmatch("[a-z0-9][a-z0-9_-]*", name):
        raise UsageError(f"{what}: a name consists of a-z, 0-9, _ and -")
    if name in (*registry.MODELS, *catalogue.SHIPPED, *plugins.names("backbones")):
        raise UsageError(f"{what}: streamtwl has a model of that name, choose another")
    if path(name).exists():
        raise UsageError(f"{what}: it exists already: run `streamtwl models remove {name}`")


def add(name: str, file: Path, labels: Path | None = None, origin: str = "") -> Card:
    """Check a file and keep a copy of it; raises UsageError, ModelError if it is not suitable.

    `origin` is where it is from, if not from that path.
    """
    check_name(name)
    if not file.is_file():
        raise UsageError(f"models add {name}: there is no file {file}")
    listed = None if labels is None else read_labels(labels)
    try:
        _folder().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".add-", dir=_folder()) as scratch:
            copy = Path(shutil.copyfile(file, Path(scratch) / "model.onnx"))
            made = _check(copy, file, listed)  # the copy: the file may change in between
            made.origin = origin or made.origin
            copy.replace(path(name))
            _card(name).write_bytes(msgspec.json.encode(made))
    except OSError as error:
        raise ModelError(
            f"cannot copy {file} to {_folder()} ({error.strerror or error}): "
            "make room or choose another cache folder with STREAMTWL_CACHE=FOLDER"
        ) from None
    return made


def remove(name: str) -> None:
    """Remove a model that the user added; raises UsageError for any other."""
    if name not in names():
        there = f"there is {', '.join(names())}" if names() else "none was added"
        raise UsageError(f"models remove {name}: it takes a model that you added, {there}")
    path(name).unlink()
    _card(name).unlink(missing_ok=True)
    priors.beside(path(name)).unlink(missing_ok=True)


def read_labels(file: Path) -> list[str]:
    """Return names, one a line, or the column display_name, label or name of a .csv file."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--labels {file}: {getattr(error, 'strerror', None) or error}") from None
    if file.suffix.lower() != ".csv":
        return [line.strip() for line in text.splitlines() if line.strip()]
    rows = csv.DictReader(text.splitlines())
    columns = [
        each for each in ("display_name", "label", "name") if each in (rows.fieldnames or [])
    ]
    if not columns:
        raise UsageError(f"--labels {file}: it has no column display_name, label or name")
    return [(row[columns[0]] or "").strip() for row in rows]


def run(
    session: "onnxruntime.InferenceSession", outputs: list[str], windows: np.ndarray
) -> list[np.ndarray]:
    """Return the outputs of windows float32[N, ...]; one at a time if the graph fixes N at 1."""
    [taken] = session.get_inputs()
    if taken.shape[0] != 1:
        return session.run(outputs, {taken.name: windows})
    each = [session.run(outputs, {taken.name: window[None]}) for window in windows]
    return [np.concatenate(parts) for parts in zip(*each, strict=True)]


def _check(copy: Path, file: Path, labels: list[str] | None) -> Card:
    """Return the card of a file; raises ModelError that says why it is not suitable."""
    try:
        session = open_session(copy, 1, "cpu")
    except errors() as error:
        reason = _first(error).replace(str(copy), file.name)
        whole = "; export it as one file, weights included" if "external" in reason.lower() else ""
        raise ModelError(f"{file}: ONNX Runtime cannot load it ({reason}){whole}") from None
    kind, samples, bands = _input(session, file)
    frames = _frames(session, file) if kind == "fbank" else (0, 0)
    if labels is None:
        labels = _labels_within(session, file)
    _check_labels(labels, file)
    posterior, embedding = _outputs(session, file)
    shape = {"log_mel": LOG_MEL, "waveform": (samples,), "fbank": (frames[0], bands)}[kind]
    windows = np.random.default_rng(0).normal(0, 0.1, (2, *shape)).astype(np.float32)
    windows[0] = 0 if kind == "waveform" else np.log(0.001)  # silence
    try:
        [scores, *vectors] = run(session, [posterior, *filter(None, [embedding])], windows)
    except errors() as error:
        raise ModelError(f"{file}: it fails on {list(windows.shape)} ({_first(error)})") from None
    if scores.shape != (2, len(labels)):
        raise ModelError(
            f"{file}: {posterior} of 2 windows is {list(scores.shape)}, but there are "
            f"{len(labels)} labels: name others with --labels"
        )
    if not (np.isfinite(scores).all() and scores.min() >= 0 and scores.max() <= 1):
        raise ModelError(
            f"{file}: {posterior} goes from {scores.min():g} to {scores.max():g}: a posterior is "
            "in [0, 1], end the graph with a sigmoid or softmax"
        )
    if any(each.ndim != 2 or each.shape[0] != 2 for each in vectors):
        raise ModelError(
            f"{file}: {embedding} of 2 windows is {list(vectors[0].shape)}, not [2, D]: export it "
            "flat, or leave it out"
        )
    sha256 = registry.sha256(copy)
    return Card(sha256, kind, samples, labels, posterior, embedding, str(file), frames, bands)


def _input(session: "onnxruntime.InferenceSession", file: Path) -> tuple[Input, int, int]:
    """Return the kind of input, and the samples of a waveform's window, or the bands of fbank."""
    inputs = session.get_inputs()
    shape = list(inputs[0].shape) if len(inputs) == 1 else []
    free_or_one = shape and (shape[0] == 1 or not isinstance(shape[0], int))
    if free_or_one and inputs[0].type == "tensor(float)":
        sizes = [each if isinstance(each, int) else None for each in shape[1:]]
        if inputs[0].name == FBANK and len(sizes) == 2 and sizes[0] is None and sizes[1]:
            return "fbank", 0, sizes[1]
        if len(sizes) == 2 and sizes[0] in (None, LOG_MEL[0]) and sizes[1] in (None, LOG_MEL[1]):
            return "log_mel", 0, 0
        if len(sizes) == 1 and (sizes[0] is None or MIN_SAMPLES <= sizes[0] <= MAX_SAMPLES):
            return "waveform", sizes[0] or USUAL_SAMPLES, 0
    takes = ", ".join(f"{each.name} {each.type}{each.shape}" for each in inputs) or "nothing"
    raise ModelError(
        f"{file}: it takes {takes}; a backbone takes one input, float32 log-mel [N, 96, 64] as "
        "YAMNet's, or a 16 kHz waveform [N, samples] of 0.1 to 60 s"
    )


def _frames(session: "onnxruntime.InferenceSession", file: Path) -> tuple[int, int]:
    """Return the least and the most frames that a graph over the filter bank takes."""
    text = session.get_modelmeta().custom_metadata_map.get("frames", "")
    try:
        fewest, most = msgspec.json.decode(text, type=tuple[int, int])
    except UNDECODABLE:
        fewest, most = 0, 0
    if not 1 <= fewest <= most:
        raise ModelError(
            f"{file}: its metadata has frames {text or 'nowhere'}, a file with an input {FBANK} "
            "has the least and the most, as [50, 1024]: make it with `streamtwl models export-ast`"
        )
    return fewest, most


def _outputs(session: "onnxruntime.InferenceSession", file: Path) -> tuple[str, str | None]:
    """Return the names of the posterior and of the embedding, if there is one."""
    given = [each.name for each in session.get_outputs()]
    if "posterior" not in given and len(given) > 1:
        raise ModelError(
            f"{file}: it gives {', '.join(given)}: call one of them posterior, and another "
            "embedding if you like"
        )
    posterior = "posterior" if "posterior" in given else given[0]
    return posterior, "embedding" if "embedding" in given and posterior != "embedding" else None


def _labels_within(session: "onnxruntime.InferenceSession", file: Path) -> list[str]:
    """Return the labels in the file's metadata: a JSON list, or one a line."""
    text = session.get_modelmeta().custom_metadata_map.get("labels", "")
    if not text.strip():
        raise ModelError(
            f"{file}: its metadata has no labels: name them with --labels FILE, one a line"
        )
    try:
        return msgspec.json.decode(text, type=list[str])
    except UNDECODABLE:
        return [line.strip() for line in text.splitlines() if line.strip()]


def _check_labels(labels: list[str], file: Path) -> None:
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice or "" in labels:
        problem = f"'{twice[0]}' is there twice" if twice and twice[0] else "one has no name"
        raise ModelError(f"{file}: of its {len(labels)} labels {problem}: each takes its own name")


def _first(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _folder() -> Path:
    return folders.cache() / "own"


def _card(name: str) -> Path:
    return path(name).with_suffix(".json")
