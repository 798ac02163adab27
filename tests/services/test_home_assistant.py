"""MQTT to a real Home Assistant: what it finds, what it does, and what it says of what is away.

STREAMTWL_HOME_ASSISTANT names a folder that `tools/home_assistant.sh make` has filled.
"""

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("aiomqtt")

from streamtwl.config import MqttSettings
from streamtwl.services.mqtt import make
from tests.example_messages import hello
from tests.services.conftest import free_port, wait_until

ROOT = Path(__file__).parents[2]
INSTALLED = os.environ.get("STREAMTWL_HOME_ASSISTANT")
CONFIGURATION = """
http:
  server_host: 127.0.0.1
  server_port: {port}
api:
config:
onboarding:
automation: !include automations.yaml
script:
input_boolean: {{heard: {{name: Heard}}}}
"""
AUTOMATIONS = """
- id: dog
  alias: Dog
  use_blueprint:
    path: streamtwl/sound.yaml
    input:
      sound: binary_sensor.streamtwl_mic_dog
      pause: 1
      do:
        - action: input_boolean.turn_on
          target: {entity_id: input_boolean.heard}
"""
OTHER_SETTINGS = {"set_client_cert": False, "set_ca_cert": "off", "transport": "tcp"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not INSTALLED, reason="STREAMTWL_HOME_ASSISTANT is not set: tools/home_assistant.sh"
    ),
]


class HomeAssistant:
    """A running one, with a user."""

    def __init__(self, port: int) -> None:
        self._address = f"http://127.0.0.1:{port}"
        self._token = ""
        wait_until(self._answers, "Home Assistant does not answer")
        client = {"client_id": f"{self._address}/"}
        user = {"name": "a", "username": "a", "password": "a-password", "language": "en"}
        code = self.call("/api/onboarding/users", client | user)["auth_code"]
        form = client | {"grant_type": "authorization_code", "code": code}
        request = urllib.request.Request(
            f"{self._address}/auth/token", urllib.parse.urlencode(form).encode()
        )
        with urllib.request.urlopen(request) as answer:
            self._token = json.load(answer)["access_token"]

    def call(self, path: str, body: object = None):
        """Request something of the REST API."""
        headers = {"content-type": "application/json", "authorization": f"Bearer {self._token}"}
        sent = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._address}{path}", sent, headers)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def use(self, broker: int) -> None:
        """Add the MQTT integration."""
        flows = "/api/config/config_entries/flow"
        flow = self.call(flows, {"handler": "mqtt"})["flow_id"]
        where = {"broker": "127.0.0.1", "port": broker, "protocol": "5"}
        added = self.call(f"{flows}/{flow}", where | {"other_settings": OTHER_SETTINGS})
        assert added["type"] == "create_entry", added

    def state(self, entity: str) -> str | None:
        """Return an entity's state, None where there is none."""
        try:
            return self.call(f"/api/states/{entity}")["state"]
        except urllib.error.HTTPError:
            return None

    def _answers(self) -> bool:
        try:
            return bool(self.call("/api/onboarding"))
        except OSError:
            return False


@pytest.fixture
def home(tmp_path):
    """Run a Home Assistant that has the blueprint and an automation of it."""
    port, config = free_port(), Path(INSTALLED) / "root" / tmp_path.name
    blueprints = config / "blueprints" / "automation" / "streamtwl"
    blueprints.mkdir(parents=True)
    shutil.copy(ROOT / "packaging" / "home-assistant" / "sound.yaml", blueprints)
    (config / "configuration.yaml").write_text(CONFIGURATION.format(port=port))
    (config / "automations.yaml").write_text(AUTOMATIONS)
    running = subprocess.Popen(
        [ROOT / "tools" / "home_assistant.sh", "run", INSTALLED, config.name],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield HomeAssistant(port)
    finally:
        running.terminate()
        running.wait()
        shutil.rmtree(config)


def test_it_finds_the_sensors_acts_on_a_sound_and_sees_what_is_away(
    home, mosquitto, listener, running
):
    broker = mosquitto()
    home.use(broker.port)
    settings = MqttSettings(url=f"mqtt://127.0.0.1:{broker.port}", labels=["Dog", "Cat"])
    serving = running([make(settings)], listener.feed)
    listener.emit(hello(0, listener.session, listener.publisher.replay))
    sensors = {label: f"binary_sensor.streamtwl_mic_{label}" for label in ("dog", "cat")}
    wait_until(lambda: {home.state(each) for each in sensors.values()} == {"off"})

    listener.sounds("Dog")
    wait_until(lambda: home.state(sensors["dog"]) == "on")
    wait_until(lambda: home.state("input_boolean.heard") == "on", "the blueprint does nothing")
    assert home.state("sensor.streamtwl_mic_last_sound") == "Dog"
    assert home.state(sensors["cat"]) == "off"
    listener.sounds("Dog", "offset")
    wait_until(lambda: home.state(sensors["dog"]) == "off")

    broker.stop()
    wait_until(lambda: home.state(sensors["dog"]) == "unavailable")
    broker.start()
    wait_until(lambda: home.state(sensors["dog"]) == "off")
    serving.close()
    wait_until(lambda: home.state(sensors["dog"]) == "unavailable")
