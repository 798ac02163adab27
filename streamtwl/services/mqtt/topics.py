"""MQTT's topics, and what Home Assistant discovers under them.

    PREFIX/status/INSTANCE             online, offline (last will) of one `serve`
    PREFIX/SOURCE/availability         online while its source listens, else offline
    PREFIX/SOURCE/event                each event message, JSON; not retained
    PREFIX/SOURCE/state                the label in force, the last sound, the level, JSON
    PREFIX/SOURCE/label/LABEL          ON while a label that was chosen sounds, else OFF

Discovery is as https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery has it, with the
keys of the pages "MQTT binary sensor" (binary_sensor.mqtt) and "MQTT sensor" (sensor.mqtt): one
retained message for each entity. All were accepted by the schemas of Home Assistant 2024.3.3
(`homeassistant.components.mqtt`), which knows all keys but `default_entity_id` (new in 2025.10, in
place of `object_id`) and leaves out what it does not know; 2026.11.0 makes the entities of them.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import streamtwl
from streamtwl.errors import ConfigError

ON, OFF, ONLINE, OFFLINE = b"ON", b"OFF", b"online", b"offline"
LONGEST = 255  # characters of a state in Home Assistant
PREFIX = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")  # no wildcard, no control character


def check_prefix(prefix: str, key: str) -> str:
    """Return a prefix of topics; raises ConfigError where it is none."""
    if len(prefix) > 100 or not PREFIX.fullmatch(prefix):
        raise ConfigError(f"{key} is {prefix!r}: it takes letters, digits, _, -, . and / between")
    return prefix


def slug(label: str) -> str:
    """Return a label as it stands in topics and ids: [a-z0-9_]+, of another label another one.

    Labels are a user's or a model's: they may hold wildcards, slashes, anything.
    """
    plain = re.sub("[^a-z0-9]+", "_", label.lower()).strip("_")[:40]
    if plain and plain.replace("_", " ") == label.lower():
        return plain
    return f"{plain}_{_hash(label)}".strip("_")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:8]


class Topics:
    """The topics under a prefix."""

    def __init__(self, prefix: str, discovery: str) -> None:
        """Raises ConfigError for a prefix that cannot be; `discovery` may be empty: none."""
        self._prefix = check_prefix(prefix, "services.mqtt.prefix")
        self._discovery = discovery and check_prefix(discovery, "services.mqtt.discovery")
        if prefix == discovery:
            raise ConfigError(
                f"services.mqtt.prefix and .discovery are both {prefix!r}: that is Home Assistant's"
            )
        self.birth = f"{discovery}/status" if discovery else ""  # Home Assistant's own

    def status(self, instance: str) -> str:
        """Return the topic of the last will; every instance has one, as listeners may share all."""
        return f"{self._prefix}/status/{instance}"

    def of(self, source: str, what: str) -> str:
        """Return a topic of a source."""
        return f"{self._prefix}/{source}/{what}"

    def label(self, source: str, label: str) -> str:
        """Return the topic of a label's binary sensor."""
        return self.of(source, f"label/{slug(label)}")

    def discovered(
        self, source: str, labels: Sequence[str], instance: str
    ) -> Iterator[tuple[str, Any]]:
        """Yield topic and payload of each entity of a source."""
        if not self._discovery:
            return
        common = {
            "availability": [
                {"topic": self.status(instance)},
                {"topic": self.of(source, "availability")},
            ],
            "availability_mode": "all",
            "qos": 1,
            "origin": {"name": "streamtwl", "sw_version": streamtwl.__version__},
            "device": {
                "identifiers": [self._unique(source)],
                "name": f"streamtwl {source}",
                "manufacturer": "streamtwl",
                "model": "Sound",
                "sw_version": streamtwl.__version__,
            },
        }
        for label in labels:
            yield self._entity("binary_sensor", source, slug(label), common, {
                "name": label[:LONGEST],
                "state_topic": self.label(source, label),
                "payload_on": ON.decode(),
                "payload_off": OFF.decode(),
                "device_class": "sound",
            })  # fmt: skip
        state = self.of(source, "state")
        measured = {"state_class": "measurement"}
        for name, key, more in (
            ("Last sound", "last_sound", {"json_attributes_topic": state}),
            ("Confidence", "confidence", {"unit_of_measurement": "%", **measured}),
            ("Level", "level_dbfs", {"unit_of_measurement": "dBFS", **measured}),
            (
                "Sound level",
                "level_dba",
                {"unit_of_measurement": "dBA", "device_class": "sound_pressure", **measured},
            ),
        ):
            yield self._entity("sensor", source, key, common, {
                "name": name,
                "state_topic": state,
                "value_template": f"{{{{ value_json.{key} }}}}",
                **more,
            })  # fmt: skip

    def _entity(
        self, component: str, source: str, key: str, common: dict[str, Any], own: dict[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        node = self._node(source)
        # of "kitchen" and "smoke_alarm" another one than of "kitchen_smoke" and "alarm"
        unique = f"{self._unique(source)}-{key}"
        return (
            f"{self._discovery}/{component}/{unique}/config",
            {
                **own,
                "unique_id": unique,
                "default_entity_id": f"{component}.{node}_{key}",
                **common,
            },
        )

    def _node(self, source: str) -> str:
        return f"{self._prefix}_{source}".replace("/", "_").replace(".", "_")

    def _unique(self, source: str) -> str:
        """Return the id of a source's device: of another prefix and source another one."""
        node = self._node(source)
        plain = re.fullmatch("[A-Za-z0-9]+", self._prefix)  # it ends at the first "_"
        return node if plain else f"{node}_{_hash(self.of(source, ''))}"
