"""Events and states to an MQTT broker, QoS 1: reading goes on while it is away."""

import asyncio
import contextlib
import logging
import os
import re
import ssl
import time
from urllib.parse import SplitResult, unquote, urlsplit

import aiomqtt
import msgspec

from streamtwl import folders
from streamtwl.audio.back_off import BACK_OFF_S
from streamtwl.client import Subscription
from streamtwl.config import MqttSettings
from streamtwl.endpoints import is_local
from streamtwl.errors import UsageError
from streamtwl.label_filter import unknown_names
from streamtwl.messages import Hello
from streamtwl.ontology import taken_in
from streamtwl.services.mqtt.states import Memory, States
from streamtwl.services.mqtt.topics import OFFLINE, ONLINE, Topics
from streamtwl.services.outbox import Outbox, after
from streamtwl.services.service import Feed, Figures, Lateness

_log = logging.getLogger(__name__)
_paho = logging.getLogger("streamtwl.mqtt.client")
_paho.setLevel(logging.CRITICAL)  # what it has to say is in its exceptions

PASSWORD = "STREAMTWL_MQTT_PASSWORD"
PORTS = {"mqtt": 1883, "mqtts": 8883}
ANSWER_S = 10.0  # for a broker's confirmation
SAVE_S = 10.0  # from one writing of the position to the next, without events
LOOK_S = 5.0  # for sources that have gone
KEEPALIVE_S = 15


def make(settings: MqttSettings) -> "MqttService":
    """Return the service; raises UsageError."""
    return MqttService(settings)


class Broker:
    """A broker's address, with user and password: never shown."""

    def __init__(self, settings: MqttSettings) -> None:
        """Raises UsageError."""
        parts = _parts(settings.url)
        self.host, self.port = parts.hostname or "", parts.port or PORTS[parts.scheme]
        self._user = None if parts.username is None else unquote(parts.username)
        self._password = _password(settings.password_file)
        self._tls = _tls(settings.ca_file) if parts.scheme == "mqtts" else None
        if settings.ca_file and not self._tls:
            raise UsageError(
                "services.mqtt.ca_file is of mqtts://: with mqtt:// nothing is encrypted"
            )
        if self._password and self._user is None:
            raise UsageError("--mqtt: there is a password without a user: mqtt://user@host")
        if self._password and not self._tls and not is_local(f"tcp://{self.host}:{self.port}"):
            _log.warning("mqtt: the password goes to %s unencrypted: use mqtts://", self.host)

    def client(self, status: str = "") -> aiomqtt.Client:
        """Return a client that is not connected yet; `status` is the topic of its last will."""
        will = aiomqtt.Will(status, OFFLINE, qos=1, retain=True) if status else None
        return aiomqtt.Client(
            self.host,
            self.port,
            username=self._user,
            password=self._password or None,
            tls_context=self._tls,
            will=will,
            timeout=ANSWER_S,
            keepalive=KEEPALIVE_S,
            logger=_paho,
        )

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class MqttService:
    """Reads the listener's messages into an outbox and states, and sends them to the broker.

    An event is in the outbox until the broker has confirmed it. States are not history: a broker
    that comes back gets those of now.
    """

    name = "mqtt"

    def __init__(self, settings: MqttSettings) -> None:
        """Raises UsageError."""
        self._broker = Broker(settings)
        self._topics = Topics(settings.prefix, settings.discovery)
        self._labels = list(dict.fromkeys(settings.labels))
        self._changed = asyncio.Event()
        self._outbox: Outbox | None = None
        self._connected = False
        self._counts = {"sent": 0, "reconnects": 0, "lost": 0}

    def figures(self) -> Figures:
        """Return what was sent, what waits and what was lost, and whether the broker is there."""
        outbox = self._outbox
        return {
            **self._counts,
            "connected": self._connected,
            "waiting": outbox.waiting if outbox else 0,
            "dropped": outbox.dropped if outbox else 0,
        }

    async def run(self, feed: Feed) -> None:
        """Read and send until cancelled."""
        with contextlib.closing(Outbox(self.name, feed)) as outbox:
            self._outbox = outbox
            states = States(self._topics, self._labels, outbox.state(Memory))
            try:
                async with asyncio.TaskGroup() as tasks:
                    events = feed.open(["event"], outbox.positions, from_start=True)
                    live = feed.open(["hello", "label", "status"])
                    tasks.create_task(self._read_events(events, outbox, states))
                    tasks.create_task(self._read_live(live, events, outbox, states))
                    tasks.create_task(self._connect(outbox, states))
            except ExceptionGroup as group:
                error: Exception = group
                while isinstance(error, ExceptionGroup):
                    error = error.exceptions[0]
                raise error from None
            finally:
                self._outbox, self._connected = None, False

    async def _read_events(self, events: Subscription, outbox: Outbox, states: States) -> None:
        """Take the listener's events: each message into the outbox, once."""
        async with events:
            async for message in events:
                states.take(message)
                entry = (self._topics.of(message.source, "event"), msgspec.json.encode(message))
                outbox.save(after(events, message), states.memory, [entry])
                self._counts["lost"] = events.lost.total()
                self._changed.set()

    async def _read_live(
        self, live: Subscription, events: Subscription, outbox: Outbox, states: States
    ) -> None:
        """Take what states are of; nothing of the past."""
        saved_at, opened, met = time.monotonic(), 0, ""
        async with live:
            async for message in live:
                if isinstance(message, Hello):
                    if met != message.session:
                        self._meet(message)
                    met = message.session
                    continue
                states.take(message)
                if events.opened > opened or time.monotonic() > saved_at + SAVE_S:
                    saved_at, opened = time.monotonic(), events.opened
                    outbox.save(events.positions, states.memory)
                if states.changes:
                    self._changed.set()

    def _meet(self, hello: Hello) -> None:
        """Say which of the labels the listener never names."""
        named = {label.lower() for label in hello.labels}
        never = [label for label in self._labels if named.isdisjoint(taken_in(label))]
        for problem in unknown_names(never, hello.labels):
            _log.warning("--mqtt-labels: %s", problem)

    async def _connect(self, outbox: Outbox, states: States) -> None:
        """Keep a connection to the broker; what goes wrong is said once."""
        failures, said = 0, ""
        while True:
            began = time.monotonic()
            try:
                async with self._broker.client(self._topics.status) as client:
                    if said:
                        _log.warning("mqtt: connected to %s again", self._broker)
                    failures, said, self._connected = 0, "", True
                    await self._serve(client, outbox, states)
            except* (aiomqtt.MqttError, OSError) as group:
                why = f"mqtt: {self._broker}: {group.exceptions[0]}"
                if said != why:
                    _log.warning("%s; events wait for it", why)
                said = why
                self._counts["reconnects"] += self._connected
            self._connected = False
            failures = 0 if time.monotonic() > began + BACK_OFF_S[-1] else failures
            await asyncio.sleep(BACK_OFF_S[min(failures, len(BACK_OFF_S) - 1)])
            failures += 1

    async def _serve(self, client: aiomqtt.Client, outbox: Outbox, states: States) -> None:
        """Send what there is, and what comes; raises MqttError, in a group, at the connection's
        end."""
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(self._listen(client, outbox, states))
            try:
                await self._send(client, outbox, states)
            finally:
                listening.cancel()
                with contextlib.suppress(aiomqtt.MqttError, TimeoutError):
                    await client.publish(self._topics.status, OFFLINE, 1, True, timeout=1.0)

    async def _listen(self, client: aiomqtt.Client, outbox: Outbox, states: States) -> None:
        """Announce all entities again where Home Assistant was started; notice the end."""
        if self._topics.birth:
            await client.subscribe(self._topics.birth)
        async for message in client.messages:
            if message.payload == ONLINE and not message.retain:
                await self._greet(client, outbox, states)

    async def _greet(self, client: aiomqtt.Client, outbox: Outbox, states: States) -> None:
        """Publish all that is retained: entities, states, ourselves."""
        states.changes.clear()
        announced = []
        for source in states.sources:
            for topic, payload in self._topics.discovered(source, self._labels):
                announced.append(topic)
                await client.publish(topic, msgspec.json.encode(payload), 1, True)
        for topic in set(states.memory.announced) - set(announced):
            await client.publish(topic, b"", 1, True)  # no longer there
        states.memory.announced = announced
        for topic in list(states.all):  # each as it is then: `_send` may have sent it meanwhile
            await client.publish(topic, states.all[topic], 1, True)
        await client.publish(self._topics.status, ONLINE, 1, True)

    async def _send(self, client: aiomqtt.Client, outbox: Outbox, states: States) -> None:
        """Send for as long as the broker confirms."""
        greeted: list[str] | None = None
        while True:
            if greeted != states.sources:
                greeted = list(states.sources)
                await self._greet(client, outbox, states)
            if (entry := outbox.first()) is not None:  # one, so that states never wait for many
                await client.publish(entry.target, _dated(entry.payload, states.lateness), 1)
                outbox.done(entry)
                self._counts["sent"] += 1
            while states.changes:
                topic, payload = states.changes.popleft()
                await client.publish(topic, payload, 1, True)
            if entry is not None:
                continue
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), LOOK_S)
            states.look()


def _dated(payload: bytes, lateness: Lateness) -> bytes:
    """Return an event's payload, with a mark where it is history by now."""
    event = msgspec.json.decode(payload)
    return msgspec.json.encode(event | {"late": lateness.is_late(event["published_at"])})


def _parts(url: str) -> SplitResult:
    """Return the parts of a broker's address; raises UsageError, without its secrets."""
    takes = "it takes mqtt://[user@]host[:port] or mqtts://"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UsageError(f"--mqtt: this is not an address: {takes}") from None
    if parts.password is not None:
        raise UsageError(
            f"--mqtt: a password in an address can be seen by others: put it into ${PASSWORD} or a "
            "file that --mqtt-password-file names"
        )
    more = parts.path.strip("/") or parts.query or parts.fragment
    wrong = more or port == 0 or re.search(r"[\x00-\x20\x7f]", url)
    if parts.scheme not in PORTS or not parts.hostname or wrong:
        raise UsageError(f"--mqtt {url!r}: {takes}")
    return parts


def _password(file: str) -> str:
    if not file:
        return os.environ.get(PASSWORD, "")
    try:
        return folders.expand(file).read_text().partition("\n")[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise UsageError(f"cannot read the password file {file}: {why}") from None


def _tls(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(folders.expand(ca_file)) if ca_file else None)
    except OSError as error:  # ssl.SSLError too
        raise UsageError(f"services.mqtt.ca_file {ca_file}: {error.strerror or error}") from None
