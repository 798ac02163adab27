"""From the outbox and the states to the broker, for as long as it is there."""

import asyncio
import contextlib
import logging
import secrets
from collections import deque
from collections.abc import Sequence

import aiomqtt
import msgspec

from streamtwl.audio.back_off import BACK_OFF_S
from streamtwl.services.mqtt.broker import Broker
from streamtwl.services.mqtt.states import States
from streamtwl.services.mqtt.topics import OFF, OFFLINE, ON, ONLINE, Topics
from streamtwl.services.outbox import Outbox
from streamtwl.services.service import Lateness

_log = logging.getLogger(__name__)

LOOK_S = 5.0  # for sources that have gone
LEAVE_S = 1.0  # to say that nothing comes any more
TRIES = 5  # of a message at which the connection breaks
REFUSED = 100  # remembered


class Sender:
    """Keeps a connection to the broker; `changed` is set where there is something to send."""

    def __init__(
        self,
        broker: Broker,
        topics: Topics,
        labels: Sequence[str],
        outbox: Outbox,
        states: States,
        counts: dict[str, int],
    ) -> None:
        """`counts`: what it adds to, "sent", "reconnects" and "given_up"."""
        self.outbox, self.states = outbox, states
        self.changed = asyncio.Event()
        self.connected = False
        self._broker, self._topics, self._labels = broker, topics, labels
        self._counts = counts
        memory = states.memory
        memory.instance = memory.instance or secrets.token_hex(4)
        self._status = topics.status(memory.instance)
        self._greeted: list[str] | None = None  # sources that the broker has all states of
        self._failures, self._said = 0, ""  # since all was well
        self._under_way: tuple[str, bytes] | None = None  # what the broker has not confirmed
        self._suspect: tuple[str, bytes] | None = None  # what it last was when it broke
        self._tries = 0  # of that
        self._refused: deque[tuple[str, bytes]] = deque(maxlen=REFUSED)

    async def run(self) -> None:
        """Send until cancelled; what goes wrong is said once."""
        while True:
            try:
                name = self.states.memory.instance
                async with self._broker.client(name, self._status) as client:
                    self.connected, self._greeted = True, None
                    await self._serve(client)
            except* (aiomqtt.MqttError, OSError) as group:
                why = f"mqtt: {self._broker}: {self._broker.why(group.exceptions[0])}"
                if self._said != why:
                    _log.warning("%s; events wait for it", why)
                self._said = why
                self._counts["reconnects"] += self.connected
                self._blame()
            self.connected = False
            await asyncio.sleep(BACK_OFF_S[min(self._failures, len(BACK_OFF_S) - 1)])
            self._failures += 1

    def _blame(self) -> None:
        """Leave out a message at which the broker breaks off again and again."""
        broken, self._under_way = self._under_way, None
        if broken is None:
            return
        self._tries = self._tries + 1 if broken == self._suspect else 1
        self._suspect = broken
        if self._tries < TRIES:
            return
        self._refused.append(broken)
        self._counts["given_up"] += 1
        self._failures = 0
        topic, payload = broken
        _log.warning(
            "mqtt: %s breaks off at %s, %d bytes: it is left out", self._broker, topic, len(payload)
        )

    def _well(self) -> None:
        """Note that what there was has been confirmed."""
        if self._said:
            _log.warning("mqtt: connected to %s again", self._broker)
        self._failures, self._said = 0, ""

    async def _serve(self, client: aiomqtt.Client) -> None:
        """Send what there is, and what comes; raises MqttError, in a group, at the connection's
        end."""
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(self._listen(client))
            try:
                await self._send(client)
            finally:
                listening.cancel()
                with contextlib.suppress(aiomqtt.MqttError, TimeoutError):
                    async with asyncio.timeout(LEAVE_S):
                        await self._leave(client)

    async def _listen(self, client: aiomqtt.Client) -> None:
        """Have all published again where Home Assistant was started, or another listener at this
        prefix gives up a source that is ours now; notice the end."""
        if self._topics.birth:
            await client.subscribe(self._topics.birth)
        await client.subscribe(self._topics.of("+", "availability"))
        available = self._topics.of("{}", "availability").format
        async for message in client.messages:
            topic, said = str(message.topic), message.payload
            born = topic == self._topics.birth and said == ONLINE
            ours = topic in map(available, self.states.sources)
            online = self.states.all.get(topic) == ONLINE
            given_up = ours and (not said or (online and said != ONLINE))
            if (born or given_up) and not message.retain:
                self._greeted = None
                self.changed.set()

    async def _publish(
        self, client: aiomqtt.Client, topic: str, payload: bytes, retain: bool = True
    ) -> None:
        """Publish, and wait for the confirmation; what was refused is left out."""
        if (topic, payload) in self._refused:
            return
        self._under_way = topic, payload
        sent = payload if retain else _dated(payload, self.states.lateness)
        await client.publish(topic, sent, 1, retain)
        if self._under_way == self._suspect:
            self._suspect = None
        self._under_way = None

    async def _greet(self, client: aiomqtt.Client) -> None:
        """Publish all that is retained: entities, states, ourselves; clear what was."""
        states, memory = self.states, self.states.memory
        self._greeted = states.sources
        states.changes.clear()
        entities = {
            topic: msgspec.json.encode(payload)
            for source in states.sources
            for topic, payload in self._topics.discovered(source, self._labels, memory.instance)
        }
        own = [topic for source in states.sources for topic in states.retained(source)]
        wanted = dict.fromkeys([self._status, *entities, *own])
        gone = [topic for topic in memory.announced if topic not in wanted]
        if wanted.keys() - set(memory.announced):  # before it is published: we may be killed
            memory.announced = [*gone, *wanted]
            self.outbox.save(self.outbox.positions, memory)
        for topic in gone:
            await self._publish(client, topic, b"")
        memory.announced = [*wanted]
        for topic, payload in entities.items():
            await self._publish(client, topic, payload)
        for topic in list(states.all):  # each as it is then
            await self._publish(client, topic, states.all[topic])
        await self._publish(client, self._status, ONLINE)

    async def _send(self, client: aiomqtt.Client) -> None:
        """Send for as long as the broker confirms."""
        states, outbox = self.states, self.outbox
        while True:
            self.changed.clear()  # first: what comes from here on is looked at again
            if self._greeted != states.sources:
                await self._greet(client)
            if (entry := outbox.first()) is not None:  # one, so that states never wait for many
                await self._publish(client, entry.target, entry.payload, retain=False)
                outbox.done(entry)
                self._counts["sent"] += (entry.target, entry.payload) not in self._refused
            while states.changes:
                await self._publish(client, *states.changes.popleft())
            self._well()
            if entry is None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.changed.wait(), LOOK_S)
                states.look()

    async def _leave(self, client: aiomqtt.Client) -> None:
        """Say that nothing is known any more."""
        await client.publish(self._status, OFFLINE, 1, True)
        for topic, payload in list(self.states.all.items()):
            if (last := {ONLINE: OFFLINE, ON: OFF}.get(payload)) is not None:
                await client.publish(topic, last, 1, True)


def _dated(payload: bytes, lateness: Lateness) -> bytes:
    """Return an event's payload, with a mark where it is history by now."""
    event = msgspec.json.decode(payload)
    return msgspec.json.encode(event | {"late": lateness.is_late(event["published_at"])})
