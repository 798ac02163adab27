"""The heat map of History: how often each label sounded, by hours or by days."""

import bisect
from datetime import datetime, timedelta
from typing import Any

from streamtwl import history
from streamtwl.errors import UsageError
from streamtwl.messages import Event

PERIODS = {"hour": 24, "day": 30}  # columns
LABELS = 24  # rows


def beginnings(period: str, until: float) -> list[float]:
    """Return the Unix seconds at which the hours or days up to `until` begin, of local time."""
    try:
        last = datetime.fromtimestamp(until).astimezone()
    except (ValueError, OverflowError, OSError):
        raise UsageError(f"until {until:g}: not a time") from None
    count = PERIODS[period]
    if period == "hour":
        last = last.replace(minute=0, second=0, microsecond=0)
        return [last.timestamp() - 3600 * back for back in range(count - 1, -1, -1)]
    midnight = last.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    days = (midnight - timedelta(days=back) for back in range(count - 1, -1, -1))
    return [day.astimezone().timestamp() for day in days]


def cells(period: str, columns: list[float], events: list[Event]) -> dict[str, Any]:
    """Return how often and how long each label sounded in each column."""
    found: dict[str, dict[int, list[float]]] = {}
    for event in events:
        at = history.began_at(event)
        column = bisect.bisect_right(columns, at) - 1
        if column < 0:  # it began before
            continue
        cell = found.setdefault(event.label, {}).setdefault(column, [0, 0.0])
        cell[0] += 1
        cell[1] += history.lasted_s(event)
    totals = {
        label: (
            sum(int(cell[0]) for cell in row.values()),
            sum(cell[1] for cell in row.values()),
        )
        for label, row in found.items()
    }
    most = sorted(totals, key=lambda label: (-totals[label][0], label))
    return {
        "period": period,
        "columns": columns,
        "labels": len(most),
        "events": sum(total for total, _ in totals.values()),
        "rows": [
            {
                "label": label,
                "events": totals[label][0],
                "seconds": round(totals[label][1], 1),
                "cells": [
                    [column, cell[0], round(cell[1], 1)]
                    for column, cell in sorted(found[label].items())
                ],
            }
            for label in most[:LABELS]
        ],
    }
