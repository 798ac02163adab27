"""Whether the machine can score live windows at this hop, and at which hop it could."""

import math
from collections.abc import Sequence

from streamtwl.backbones.bank import Bank
from streamtwl.config import Settings

SHARE = 0.8  # of a hop, for the backbones; the rest is for other stages and other programs


def problem(bank: Bank, settings: Settings, streams: int) -> str | None:
    """Return a line with the hop to choose where the windows take longer than theirs has."""
    if sum(bank.seconds(streams).values()) <= SHARE * settings.hop_s:
        return None
    took = bank.seconds(streams)  # again: the first run allocates
    total_s = sum(took.values())
    if total_s <= SHARE * settings.hop_s:
        return None
    slowest = max(took, key=lambda name: took[name])
    return (
        f"{slowest} is too slow here for a hop of {settings.hop_s:g} s: the windows of "
        f"{_number(streams, 'source')} take {total_s:.2g} s: {_advice(settings.windows, total_s)}"
    )


def _advice(windows: Sequence[str], total_s: float) -> str:
    """Return what to do; a hop is no longer than the first window."""
    per_s = 10 if total_s > SHARE else 100  # hops are rounded up to tenths, short ones less
    held_s = math.ceil(total_s / SHARE * per_s) / per_s
    longest_s = float(windows[0].partition(":")[2] or 0)
    others = "score shorter windows or fewer, or run on a GPU"
    return f"--hop {held_s:g}, or {others}" if held_s <= longest_s else others


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count > 1)}"
