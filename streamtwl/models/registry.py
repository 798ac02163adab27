"""Where models come from and where they are kept; which there are is in `catalogue.py`.

A model is built once from the file that carries its weights (its carrier), and checked by SHA-256
whenever it is loaded. The carrier is looked for in the places that $STREAMTWL_MODELS names, in the
cache folder, and then at its origin. The cache is the user's cache folder, or
$STREAMTWL_CACHE. One process at a time gets a model, the others wait for it.
"""

import contextlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from streamtwl import folders
from streamtwl.errors import ModelError, NoAnswerError, UsageError
from streamtwl.models import download, unreachable
from streamtwl.models.catalogue import MODELS as MODELS  # part of this module too
from streamtwl.models.catalogue import Announce, Model, Progress
from streamtwl.models.catalogue import find as find
from streamtwl.models.download import Download
from streamtwl.models.runtime import Provider, open_session
from streamtwl.models.wheel import Wheel, sha256

if TYPE_CHECKING:
    import onnxruntime

_log = logging.getLogger(__name__)

CHECKPOINTS = Path(__file__).parent / "checkpoints"  # reasoners that this project trained
WEIGHTS = Path(__file__).parent / "weights"  # backbones that it trained
RESEARCH = Path(__file__).parents[2] / "benchmarks" / "checkpoints"  # in a checkout only
BUILDER = 1  # increase it when a `build` makes another file from the same carrier
PLACES = "STREAMTWL_MODELS"  # folders and files, separated by colons
LOCK_S = 600.0  # to wait for another process that gets the same model


def path(model: Model) -> Path:
    """Return where the model's ONNX file is, or will be."""
    return folders.cache() / f"{model.name}.onnx"


def checksum(model: Model) -> str | None:
    """Return the SHA-256 of the model's file if it is there and intact, else None."""
    try:
        card = json.loads(_card(model).read_text())
        found = sha256(path(model))
        whole = (card["sha256"], card["builder"]) == (found, BUILDER)
        if isinstance(model.carrier, Wheel):  # and not made of an older one
            whole = whole and card["carrier_sha256"] == model.carrier.sha256
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return found if whole else None


def is_here(model: Model) -> bool:
    """Whether `pull` needs no network: the model, or its carrier, is on this machine."""
    there = (
        checksum(model) or _placed(model) or os.path.exists(folders.cache() / model.carrier.file)
    )
    return bool(there)


def pull(
    model: Model,
    progress: Progress | None = None,
    announce: Announce = _log.warning,
    *,
    source: str | None = None,
    retry: bool = False,
) -> Path:
    """Return the model's file, getting and building it first if it is absent or damaged.

    `progress` is called with bytes so far and in all, `announce` with a line that names host and
    size before anything is fetched. `source` is a file, folder or URL to get it from, instead of
    all others. A host that did not answer within the last hour is not tried again, unless by
    `retry`. Raises ModelError that says what to do, NoAnswerError where a host does not answer.
    """
    if source is None and checksum(model) is not None:
        return path(model)
    folder = folders.cache()
    try:
        if retry:
            unreachable.forget(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(model, folder, announce):
            if source is None and checksum(model) is not None:  # another process got it
                return path(model)
            if path(model).exists() and source is None:
                _log.warning("%s is damaged or out of date: building it again", path(model))
            with tempfile.TemporaryDirectory(prefix=_scratch(model), dir=folder) as scratch:
                _get(model, folder, Path(scratch), progress, announce, source)
    except OSError as error:
        raise ModelError(
            f"cannot write to the cache folder {folder} ({error.strerror or error}): "
            "make room or choose another with STREAMTWL_CACHE=FOLDER"
        ) from None
    return path(model)


def put_off(model: Model) -> None:
    """Do not try the model's origin for an hour, as if it had not answered."""
    with contextlib.suppress(OSError):  # then it is tried again, which does no harm
        unreachable.remember(folders.cache(), model.carrier.origin)


@contextlib.contextmanager
def _alone(model: Model, folder: Path, announce: Announce) -> Iterator[None]:
    """Keep other processes from getting the same model; remove what killed ones left."""
    lock = filelock.FileLock(folder / f".{model.name}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        announce(f"another streamtwl is fetching {model.name}: waiting for it")
        try:
            lock.acquire(timeout=LOCK_S)
        except filelock.Timeout:
            raise ModelError(
                f"another process has been fetching {model.name} for {LOCK_S / 60:.0f} minutes "
                f"(it holds {lock.lock_file}): end it and try again"
            ) from None
    try:
        for left in folder.glob(f"{_scratch(model)}*"):
            shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        lock.release()


def _scratch(model: Model) -> str:
    return f".build-{model.name}-"


def _get(
    model: Model,
    folder: Path,
    scratch: Path,
    progress: Progress | None,
    announce: Announce,
    source: str | None,
) -> None:
    """Make the ONNX file and, last, the card that vouches for it."""
    carrier, origin = _carrier(model, folder, scratch, progress, announce, source)
    try:  # uv has checked what it unpacked
        unpacked = carrier.is_dir()
        vouched = model.carrier.sha256 if unpacked else model.carrier.vouch(carrier, announce)
    except OSError as error:
        raise ModelError(f"cannot read {carrier}: {error.strerror or error}") from None
    built = model.build(carrier, scratch)
    card = {"sha256": sha256(built), "carrier_sha256": vouched, "builder": BUILDER}
    built.replace(path(model))
    _card(model).write_text(json.dumps(card | {"source": origin}))


def _carrier(
    model: Model,
    folder: Path,
    scratch: Path,
    progress: Progress | None,
    announce: Announce,
    source: str | None,
) -> tuple[Path, str]:
    """Return the model's carrier, and where it is from."""
    wanted = model.carrier
    if source is not None and source.partition("://")[0] in ("http", "https"):
        wanted = Download(download.check(source), wanted.size, wanted.sha256)
        return wanted.fetch(folder, scratch, progress, announce), wanted.origin
    if place := _named(model, source) if source is not None else _placed(model):
        return place, str(place)
    if not (folder / wanted.file).exists():
        unreachable.check(folder, wanted.origin, model.name)
    try:
        return wanted.fetch(folder, scratch, progress, announce), wanted.origin
    except NoAnswerError:
        unreachable.remember(folder, wanted.origin)
        raise


def _placed(model: Model) -> Path | None:
    """Return the model's carrier from $STREAMTWL_MODELS, if it is there."""
    for named in filter(None, os.environ.get(PLACES, "").split(os.pathsep)):
        place = folders.expand(named)
        found = place if place.name == model.carrier.file else place / model.carrier.file
        if os.path.isfile(found):  # False, too, where it may not be looked for
            return found
    return None


def _named(model: Model, source: str) -> Path:
    """Return the carrier that the user names, by itself or by its folder; raises UsageError."""
    place = folders.expand(source)
    if place.is_dir() and (place / model.carrier.file).exists():
        return place / model.carrier.file
    if not place.is_file():
        lacks = f"has no {model.carrier.file}" if place.is_dir() else "is not there"
        raise UsageError(
            f"--from {source}: it {lacks}; it takes that file, a folder with it, or its http(s):// "
            "address"
        )
    return place


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
        names = ", ".join(["evidence", "llm", *sorted(found)])
        raise UsageError(f"no reasoner is called '{name}': there is {names}, or an .onnx file")
    return found[name]


def session(
    model: Model, threads: int, provider: Provider = "auto"
) -> "onnxruntime.InferenceSession":
    """Return an ONNX Runtime session over the model's file, which has to be there."""
    return open_session(path(model), threads, provider)


def _card(model: Model) -> Path:
    return path(model).with_suffix(".json")
