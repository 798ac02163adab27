"""Hosts that did not answer: remembered for an hour, so that not every start waits for them."""

import json
import time
from pathlib import Path

from streamtwl.errors import NoAnswerError

REMEMBERED_S = 3600.0
_FILE = "unreachable.json"  # in the cache folder: {origin: wall-clock seconds}


def remember(folder: Path, origin: str) -> None:
    """Remember that `origin` has just not answered; raises OSError."""
    times = _read(folder) | {origin: time.time()}
    (folder / _FILE).write_text(json.dumps(times))


def check(folder: Path, origin: str, model: str) -> None:
    """Raise NoAnswerError where `origin` did not answer within the last hour."""
    at = _read(folder).get(origin)
    if at is not None and 0 <= time.time() - at < REMEMBERED_S:  # not where the clock was set back
        minutes = round((time.time() - at) / 60)
        raise NoAnswerError(
            f"{model} is not here, and fetching from {origin} failed {minutes} min ago: "
            f"`streamtwl models pull {model}` tries again"
        )


def forget(folder: Path) -> None:
    """Try all hosts again; raises OSError."""
    (folder / _FILE).unlink(missing_ok=True)


def _read(folder: Path) -> dict[str, float]:
    try:
        times = json.loads((folder / _FILE).read_text())
        return {origin: float(at) for origin, at in times.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
