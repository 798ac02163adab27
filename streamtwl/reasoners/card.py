"""The description of a reasoner in its own file, in the ONNX metadata under CARD."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from streamtwl.reasoners.reads import Read

CARD = "streamtwl.card"

Above0 = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, le=1)]


class TraceCard(Struct, kw_only=True):
    """How a reasoner reads a trace."""

    body: str  # the language model
    trained: Literal["embedding", "all"]  # the rest was frozen
    soft: bool  # one token a patch, the expectation of many samples
    samples: tuple[int, int]  # K, from and to; 0, 0 where the trace is soft
    temperature: Above0
    context: Annotated[int, Meta(ge=1)]  # tokens, at most
    residual: str  # what reads the row beside it; empty: there is none
    categories: int = 0  # C of the posterior that the trace is of: the row begins with it; 0: is it


class ReaderCard(Struct, kw_only=True):
    """How a reader joins windows, and what it reads of them: see `reasoners/reader.py`."""

    windows: Annotated[list[str], Meta(min_length=1)]
    prior: float  # the share of the backbones' priors that is taken off
    weights: dict[str, float]  # of the windows in their join
    half_life_s: Above0  # of a window's scores in their mean
    scale: float  # what is no candidate has the confidence sigmoid(scale * join + shift)
    shift: float
    candidates: Annotated[int, Meta(ge=1)]  # categories a hop
    context: Annotated[int, Meta(ge=2)]  # hops, at most
    behind_s: Annotated[
        float, Meta(ge=0)
    ]  # from the moment that a score is about to the end of its window


class Card(Struct, kw_only=True):
    """Where a trained reasoner comes from, and what it needs."""

    name: str  # [a-z0-9_-]+
    about: str
    kind: Literal[
        "recurrent", "gpt2", "reader"
    ]  # the contract that the graph keeps: see the module
    backbone: str  # the first one that it reads
    hop_s: Above0  # of the streams it was trained on
    labels: list[str]  # of its scores, in their order
    on: Share  # the thresholds chosen with it: an event begins here ...
    off: Share  # ... and ends here
    data: str  # what it was trained on
    folds: list[int]  # of the data, seen in training
    command: str  # makes it again
    version: str  # of streamtwl
    trace: TraceCard | None = None  # of a gpt2
    reader: ReaderCard | None = None
    validation: dict[str, float] = {}  # its figures on the validation split that it was chosen on
    reads: list[Read] = []  # its row, in order; empty: the posterior of the first window there is
    sha256: dict[str, str] = {}  # of the weights of the backbones that it was trained with


def decode(text: str) -> Card:
    """Return the card in a file's metadata; raises msgspec.MsgspecError."""
    return msgspec.json.decode(text, type=Card)


def encode(card: Card) -> str:
    """Return a card as it goes into a file's metadata."""
    return msgspec.json.encode(card).decode()
