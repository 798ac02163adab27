"""MQTT, with Home Assistant's discovery: extra `mqtt`."""

from streamtwl.services.mqtt.service import make

__all__ = ["make"]
