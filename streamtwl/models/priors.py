"""Each backbone's mean logits on generic audio, as `tools/prior.py` measured them."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "priors"


def of(backbone: str, categories: Sequence[str]) -> np.ndarray:
    """Return float32[C], the mean logit of each category on generic audio."""
    card = (FOLDER / f"{backbone}.json").read_text(encoding="utf-8")
    logits = json.loads(card)["mean_logits"]
    return np.array([logits[name] for name in categories], np.float32)
