"""A reasoner's file: an ONNX graph, and the card in its metadata."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streamtwl.errors import UNDECODABLE, UsageError
from streamtwl.models import registry, runtime
from streamtwl.models.runtime import Provider
from streamtwl.reasoners import card as cards
from streamtwl.reasoners.card import Card

SUFFIX = ".onnx"
KINDS = {"tensor(int64)": np.int64, "tensor(bool)": np.bool_}  # of inputs that are not float32


@dataclass(frozen=True, slots=True)
class Graph:
    """A loaded file."""

    path: Path
    session: Any  # onnxruntime.InferenceSession
    card: Card
    shapes: dict[str, list]  # of inputs and outputs, by name; a string is a size that varies
    sha256: str


def load(path: Path, threads: int = 1, provider: Provider = "auto") -> Graph:
    """Load a reasoner's file; raises UsageError where it is none."""
    session = open_session(path, threads, provider)
    card = read_card(session, path)
    shapes = {each.name: each.shape for each in (*session.get_inputs(), *session.get_outputs())}
    if not _is_finite(session):
        raise UsageError(f"--reasoner {path}: it gives numbers that are none: its file is damaged")
    return Graph(path, session, card, shapes, registry.sha256(path))


def _is_finite(session: Any) -> bool:
    """Whether one step gives finite scores; also where the graph cannot be tried like this."""
    given: dict[str, np.ndarray] = {}
    for each in session.get_inputs():
        sizes = [size if isinstance(size, int) else 1 for size in each.shape]
        if "." in each.name:  # of a cache, in which nothing is
            sizes[-2] = 0
        given[each.name] = np.ones(sizes, KINDS.get(each.type, np.float32))
    if "position_ids" in given:
        given["position_ids"][:] = 0
    try:
        [scores] = session.run(["scores"], given)
    except runtime.errors():
        return True
    return bool(np.isfinite(scores).all())


def check(graph: Graph, inputs: list[str], outputs: list[str]) -> None:
    """Raise UsageError where a graph is of another kind, or does not fit its card."""
    path, card, sizes = graph.path, graph.card, graph.shapes
    given = [each.name for each in graph.session.get_inputs()]
    taken = [each.name for each in graph.session.get_outputs()]
    if _own(given) != inputs or _own(taken) != outputs:
        raise UsageError(
            f"--reasoner {path}: its graph takes {', '.join(given)} and gives "
            f"{', '.join(taken)}; a {card.kind} one has {', '.join(inputs)} and "
            f"{', '.join(outputs)}"
        )
    n_labels = len(card.labels)
    for what, found, wanted in (
        ("state", sizes["state"][1], "a number"),
        ("scores", sizes["scores"][-1], n_labels or "of labels"),
    ):
        if found != wanted and not (wanted == "a number" and isinstance(found, int)):
            raise UsageError(
                f"--reasoner {path}: its {what} has the size {found}, not {wanted}: "
                f"its card has {n_labels} labels"
            )


def open_session(path: Path, threads: int, provider: Provider = "auto") -> Any:
    """Open a file; raises UsageError where it is no ONNX file."""
    try:
        return registry.open_session(path, threads, provider)
    except runtime.errors() as error:
        raise UsageError(f"--reasoner {path}: it is no ONNX file ({_first(error)})") from None


def read_card(session: Any, path: Path) -> Card:
    """Return the card in a file's metadata; raises UsageError where there is none."""
    written = session.get_modelmeta().custom_metadata_map.get(cards.CARD)
    if written is None:
        raise UsageError(f"--reasoner {path}: it carries no card; `streamtwl train` makes one")
    try:
        return cards.decode(written)
    except UNDECODABLE as error:
        raise UsageError(f"--reasoner {path}: its card does not fit ({error})") from None


def _own(names: Iterable[str]) -> list[str]:
    """Return the names without those of a cache, of which there are as many as layers."""
    return [name for name in names if "." not in name]


def _first(error: BaseException) -> str:
    return str(error).splitlines()[0]
