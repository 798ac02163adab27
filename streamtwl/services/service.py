"""What a service is, and where it gets the listener's messages from."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from weakref import WeakSet

from streamtwl.client import Subscription, subscribe
from streamtwl.messages import AnyMessage

Positions = Mapping[tuple[str, str], int]  # (session, topic): seq of the last message had
Figures = Mapping[str, float]  # what a service counts, as sent, lost, waiting


LATE_S = 30.0  # after its publication a message is history
STEADY_S = 5.0  # to which differences of two clocks are alike
SURE_S = 15.0  # for which a greater one lasts, before it is taken for the clock's


class Lateness:
    """Says which messages are history, whatever the listener's clock is beside ours.

    What comes in time comes with the smallest difference. A greater one is of messages that were
    held up or are replayed, and falls as these catch up; one that stays is of a clock that was set.
    """

    def __init__(self) -> None:
        self._ahead_s = math.inf  # of the listener's clock, and the way here
        self._other_s, self._since = math.nan, 0.0  # the newest, and since when it is like that

    def take(self, live: AnyMessage) -> None:
        """Take a message that has, as a rule, just been published."""
        ahead_s, now = time.time() - live.published_at, time.monotonic()
        if not abs(ahead_s - self._other_s) < STEADY_S:
            self._other_s, self._since = ahead_s, now
        if ahead_s < self._ahead_s or now > self._since + SURE_S:
            self._ahead_s = ahead_s

    def is_late(self, published_at: float) -> bool:
        """Return whether it was published long ago, by the listener's clock."""
        ahead_s = self._ahead_s if math.isfinite(self._ahead_s) else 0.0
        return time.time() - published_at - ahead_s > LATE_S


class Service(Protocol):
    """A user of the listener's messages, in the event loop of `streamtwl serve`."""

    name: str  # as in [services.NAME]

    async def run(self, feed: "Feed") -> None:
        """Serve until it is cancelled.

        What it raises is logged, and `run` is called again after a while; a UsageError of the
        first call ends `serve`. Nothing here may block: the services share one thread.
        """
        ...

    def figures(self) -> Figures:
        """Return what it counts: what waits, what was lost or dropped."""
        ...


@dataclass
class Feed:
    """The messages of one listener, for one service or more: `open` subscribes to them.

    A subscription is the service's own. One that does not read holds up no other: ZeroMQ's queues
    before it are bounded; what they had no room for is requested from the journal as soon as it
    reads again, and what cannot be recovered is counted in the subscription's `lost`.
    """

    connect: str
    server_key: str | None = None
    key: Path | None = None
    begin: Positions = field(default_factory=dict)  # where the listener's session begins
    figures: Callable[[], dict[str, Figures]] = dict  # those of all services, by name
    name: str = ""  # what its outboxes are called after; "": `connect`
    opened: WeakSet[Subscription] = field(default_factory=WeakSet)

    def open(
        self,
        kinds: Sequence[str] = (),
        resume: Positions | None = None,
        from_start: bool = False,
    ) -> Subscription:
        """Return a subscription to these kinds (none: all); close it, as with `async with`.

        It goes on after `resume`, else, with `from_start`, where the session of a listener that
        started us began, else with what comes now. Raises UsageError.
        """
        known = dict(resume or {})  # the oldest first
        for topic, seq in (self.begin if from_start else {}).items():
            known.setdefault(topic, seq)
        subscription = subscribe(
            self.connect, kinds, resume=known, server_key=self.server_key, key=self.key
        )
        self.opened.add(subscription)
        return subscription
