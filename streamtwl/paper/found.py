"""What a cell found, as a file: whole, or not there."""

import json
import os
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Setting = tuple[int, int, str]  # K (0: nothing is drawn), M, condition


@dataclass(slots=True)
class Found:
    """What a cell found."""

    scores: dict[Setting, np.ndarray]  # float16[n, L] of the split's test clips
    cpu_ms: dict[int, float]  # by K: processor time of a trace of a clip, reasoner only
    shown: list[np.ndarray] = field(default_factory=list)  # float16[P, L] of clips, growing
    fit_s: float = 0.0  # processor time


def write(found: Found, path: Path) -> None:
    """Write it; the file is whole, or not there."""
    arrays: dict[str, Any] = {f"scores {n}": array for n, array in enumerate(found.scores.values())}
    arrays |= {f"shown {n}": each.astype(np.float16) for n, each in enumerate(found.shown)}
    about = {
        "settings": [*found.scores],
        "cpu_ms": [*found.cpu_ms.items()],
        "shown": len(found.shown),
        "fit_s": found.fit_s,
    }
    partial = path.with_suffix(f".{os.getpid()}.npz")
    np.savez_compressed(partial, about=np.array(json.dumps(about)), **arrays)
    partial.rename(path)


def read(path: Path) -> Found | None:
    """Return what was written; None where it is not there, or damaged."""
    try:
        with np.load(path) as kept:
            about = json.loads(str(kept["about"]))
            scores = {
                (k, m, condition): kept[f"scores {n}"]
                for n, (k, m, condition) in enumerate(about["settings"])
            }
            shown = [kept[f"shown {n}"] for n in range(about["shown"])]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    return Found(scores, dict(about["cpu_ms"]), shown, about["fit_s"])
