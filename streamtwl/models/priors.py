"""Backbones' mean logits on generic audio: those that ship, and those of the user's machine.

`tools/prior.py` measured the former, `streamtwl models prior` measures the latter, on recordings of
the user's, and keeps them beside the model. Each names the weights that it was measured on.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from streamtwl.errors import UNDECODABLE, ModelError

_log = logging.getLogger(__name__)

FOLDER = Path(__file__).parent / "priors"
_said: set[str] = set()  # backbones of which it was said that their prior is of other weights


class Prior(msgspec.Struct):
    """What was measured, and on what."""

    backbone: str
    sha256: str  # of the model's file
    windows_s: list[float]
    minutes: dict[str, float]  # by group of recordings, which count alike
    mean_logits: dict[str, float]  # by category


def beside(model: Path) -> Path:
    """Return where the user's own measurement of a model is, or would be."""
    return model.with_suffix(".prior.json")


def of(
    backbone: str, categories: Sequence[str], sha256: str, model: Path, ships: str = ""
) -> np.ndarray | None:
    """Return float32[C], the mean logit of each category on generic audio; None: not measured.

    The user's own counts more than `ships`, the name of one that ships; one that was measured on
    the weights `sha256` more than any other. If there is only another it is taken, if it has the
    categories, and one line says so. Raises ModelError for a file that is damaged.
    """
    own = beside(model)
    files = [own] if own.exists() else []
    files += [FOLDER / f"{ships}.json"] if ships else []
    found = [_read(file, backbone) for file in files]
    fitting = [each for each in found if each.mean_logits.keys() >= {*categories}]
    if not fitting:
        return None
    prior = next((each for each in fitting if each.sha256 == sha256), fitting[0])
    if sha256 and sha256 != prior.sha256 and backbone not in _said:
        _said.add(backbone)
        _log.warning(
            "the prior of %s is of other weights (SHA-256 %.8s..., these: %.8s...), and used as it "
            "is: `streamtwl models prior %s FOLDER` measures it on your recordings",
            backbone,
            prior.sha256,
            sha256,
            backbone,
        )
    return np.array([prior.mean_logits[name] for name in categories], np.float32)


def _read(file: Path, backbone: str) -> Prior:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Prior)
    except (OSError, *UNDECODABLE) as error:
        raise ModelError(
            f"{file} is damaged ({error}): remove it, or run `streamtwl models prior {backbone} "
            "FOLDER` again"
        ) from None
