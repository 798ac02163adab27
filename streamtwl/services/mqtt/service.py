"""Events and states to an MQTT broker, QoS 1: reading goes on while it is away."""

import asyncio
import contextlib
import logging
import time

import msgspec

from streamtwl.client import Subscription
from streamtwl.config import MqttSettings
from streamtwl.label_filter import unknown_names
from streamtwl.messages import Hello
from streamtwl.ontology import taken_in
from streamtwl.services.mqtt.broker import Broker
from streamtwl.services.mqtt.sender import Sender
from streamtwl.services.mqtt.states import Memory, States
from streamtwl.services.mqtt.topics import Topics
from streamtwl.services.outbox import Outbox, after
from streamtwl.services.service import Feed, Figures

_log = logging.getLogger(__name__)

SAVE_S = 10.0  # from one writing of the position to the next, without events


def make(settings: MqttSettings) -> "MqttService":
    """Return the service; raises UsageError."""
    return MqttService(settings)


class MqttService:
    """Reads the listener's messages into an outbox and states, which a sender takes to the broker.

    An event is in the outbox until the broker has confirmed it. States are not history: a broker
    that comes back gets those of now.
    """

    name = "mqtt"

    def __init__(self, settings: MqttSettings) -> None:
        """Raises UsageError."""
        self._broker = Broker(settings)
        self._topics = Topics(settings.prefix, settings.discovery)
        self._labels = list(dict.fromkeys(settings.labels))
        self._outbox: Outbox | None = None
        self._sender: Sender | None = None
        self._counts = {"sent": 0, "reconnects": 0, "given_up": 0, "lost": 0}

    def figures(self) -> Figures:
        """Return what was sent, what waits and what was lost, and whether the broker is there."""
        outbox, sender = self._outbox, self._sender
        return {
            **self._counts,
            "connected": sender is not None and sender.connected,
            "waiting": outbox.waiting if outbox else 0,
            "dropped": outbox.dropped if outbox else 0,
        }

    async def run(self, feed: Feed) -> None:
        """Read and send until cancelled."""
        with contextlib.closing(Outbox(self.name, feed)) as outbox:
            states = States(self._topics, self._labels, outbox.state(Memory))
            sender = Sender(self._broker, self._topics, self._labels, outbox, states, self._counts)
            self._outbox, self._sender = outbox, sender
            try:
                async with asyncio.TaskGroup() as tasks:
                    events = feed.open(["event"], outbox.positions, from_start=True)
                    live = feed.open(["hello", "label", "status"])
                    tasks.create_task(self._read_events(events, sender))
                    tasks.create_task(self._read_live(live, events, sender))
                    tasks.create_task(sender.run())
            except ExceptionGroup as group:
                error: Exception = group
                while isinstance(error, ExceptionGroup):
                    error = error.exceptions[0]
                raise error from None
            finally:
                self._outbox = self._sender = None

    async def _read_events(self, events: Subscription, sender: Sender) -> None:
        """Take the listener's events: each message into the outbox, once."""
        states, outbox = sender.states, sender.outbox
        async with events:
            async for message in events:
                states.take(message)
                entry = (self._topics.of(message.source, "event"), msgspec.json.encode(message))
                outbox.save(after(events, message), states.memory, [entry])
                self._counts["lost"] = events.lost.total()
                sender.changed.set()

    async def _read_live(self, live: Subscription, events: Subscription, sender: Sender) -> None:
        """Take what states are of; nothing of the past."""
        states, saved_at, opened, met = sender.states, time.monotonic(), 0, ""
        async with live:
            async for message in live:
                if isinstance(message, Hello):
                    if met != message.session:
                        self._meet(message)
                    met = message.session
                    continue
                states.take(message, events.lacking)
                if events.opened > opened or time.monotonic() > saved_at + SAVE_S:
                    saved_at, opened = time.monotonic(), events.opened
                    sender.outbox.save(events.positions, states.memory)
                    self._counts["lost"] = events.lost.total()
                if states.changes:
                    sender.changed.set()

    def _meet(self, hello: Hello) -> None:
        """Say which of the labels the listener never names."""
        named = {label.lower() for label in hello.labels}
        never = [label for label in self._labels if named.isdisjoint(taken_in(label))]
        for problem in unknown_names(never, hello.labels):
            _log.warning("--mqtt-labels: %s", problem)
