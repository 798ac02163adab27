"""Messages of a listener and rules, for tests of alerts."""

import msgspec

from streamtwl.services.alerts.engine import Engine
from streamtwl.services.alerts.rules import Rule
from tests.example_messages import event, label, status

NOON = 1_764_331_200.0  # a Friday in November
RATE = 16_000


class Sound:
    """Messages of a listener, by seconds of sound."""

    def __init__(self, session: str = "s", at: float = NOON) -> None:
        self.session, self.at, self._seq = session, at, 0

    def event(self, phase: str, start: float, now: float, name: str = "Dog", n: int = 1, **more):
        self._seq += 1
        end = None if phase == "onset" or phase == "revised" else round(now * RATE)
        fields = {"phase": phase, "label": name, "id": f"{self.session}-{n}", "end": end}
        fields |= {"start": round(start * RATE), **self._now(now)} | more
        return msgspec.structs.replace(event(self._seq, self.session), **fields)

    def label(self, now: float, name: str | None = "Dog"):
        return msgspec.structs.replace(label(0, self.session, name=name), **self._now(now))

    def status(self, now: float, state: str = "listening"):
        return msgspec.structs.replace(status(0, self.session), state=state, **self._now(now))

    def _now(self, now: float):
        wall = self.at + now
        return {"position": round(now * RATE), "captured_at": wall, "published_at": wall}


def rule(**fields) -> Rule:
    return msgspec.convert({"name": "r", "actions": ["a"]} | fields, Rule)


def fired(engine: Engine, *messages) -> list[str]:
    return [firing.event or "-" for message in messages for firing in engine.take(message)]
