"""A backbone that this project trained: its card, in the ONNX file's metadata."""

import msgspec

CARD = "streamtwl.card"


class BackboneCard(msgspec.Struct, kw_only=True):
    """Where a trained backbone comes from, and what it says."""

    name: str
    about: str
    labels: list[str]  # its categories, in the posterior's order
    data: str  # what it was trained on
    folds: list[int]  # of the data sets, seen in training
    teachers: dict[str, str]  # backbones that taught it, and their checksums
    held_out_loss: float  # cross-entropy a patch and category, on scenes left out
    command: str  # makes it again
    version: str  # of streamtwl
