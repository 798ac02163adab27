"""What the settings page shows: windows and models, thresholds by label, and the sounds taught."""

import asyncio
from typing import Any

import msgspec

from streamtwl.config import EventSettings
from streamtwl.errors import JournalError
from streamtwl.services.web.live import Hub
from streamtwl.services.web.past import Past


async def shown(hub: Hub, past: Past, until: float, here: bool) -> dict[str, Any]:
    """Return the settings of the listener; of sounds only where it is `here`, on this machine.

    Thresholds are those of the labels that came near in the day before `until`, seconds since 1970.
    Raises SoundsError.
    """
    hello = next((each.hello for each in hub.sources.values() if each.hello), None)
    if hello is None:
        return {"labels": [], "settings": {}, "sounds": None, "thresholds": []}
    counted = await _seen(past, until)
    return {
        "labels": len(hello.labels),
        "windows": hello.settings.get("windows", []),
        "hop_s": hello.settings.get("hop_s"),
        "reasoner": hello.settings.get("reasoner", {}).get("file") or "evidence",
        "models": hello.models,
        "providers": hello.providers,
        "level": hello.settings.get("level", {}),
        "thresholds": _thresholds(hello.settings.get("events", {}), counted),
        "sounds": await asyncio.to_thread(_taught) if here else None,
    }


async def _seen(past: Past, until: float) -> dict[str, int]:
    """Return the labels that came near in the last day, with the number of their events."""
    try:
        names = await past.labels()
        events = await past.totals(until)
    except JournalError:
        return {}
    return events | {name: 0 for name in names if name not in events}


def _thresholds(events: dict[str, Any], labels: dict[str, int]) -> list[dict[str, Any]]:
    """Return at which scores events of each label begin and end."""
    try:
        settings = msgspec.convert(events, EventSettings)
    except msgspec.ValidationError:  # of a version to come
        return []
    rules = {label: settings.rule(label) for label in labels}
    return [
        {
            "label": label,
            "events": labels[label],
            "on": rule.on,
            "off": rule.off,
            "min_duration_s": rule.min_duration_s,
            "wanted": settings.wants(label),
        }
        for label, rule in rules.items()
    ]


def _taught() -> list[dict[str, Any]]:
    from streamtwl.sounds.store import Store

    return [
        {
            "name": sound.name,
            "taught_at": sound.taught_at,
            "recordings": len(sound.examples),
            "seconds": round(sum(each.seconds for each in sound.examples), 1),
            "false_alarms_a_day": sound.false_alarms_a_day,
        }
        for sound in Store().sounds()
    ]
