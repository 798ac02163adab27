"""MQTT: topics and states; with a real broker, its restarts and refusals."""

import asyncio
import json
import logging
import re
import shutil
import subprocess
import time

import msgspec
import pytest

paho = pytest.importorskip("paho.mqtt.client")

from streamtwl.config import MqttSettings  # noqa: E402
from streamtwl.errors import UsageError  # noqa: E402
from streamtwl.services.mqtt import service  # noqa: E402
from streamtwl.services.mqtt.service import MqttService, make  # noqa: E402
from streamtwl.services.mqtt.states import Memory, States  # noqa: E402
from streamtwl.services.mqtt.topics import Topics, slug  # noqa: E402
from tests.example_messages import event, label, status  # noqa: E402
from tests.services.conftest import wait_until  # noqa: E402

HOSTILE = ["#", "+/+", "a/../b", "Dog\n", "", "$SYS", "Hü\u0000nd", "x" * 500, '{{ 1 }}"<b>']
TOPICS = Topics("streamtwl", "homeassistant")


class Reader:
    """What a broker has: retained states, and each event as it comes."""

    def __init__(self, port: int, password: str | None = None) -> None:
        self.states: dict[str, bytes] = {}
        self.events: list[dict] = []
        self.history: list[tuple[str, bytes]] = []
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, "reader", clean_session=False)
        if password:
            self._client.username_pw_set("ears", password)
        self._client.on_message = self._take
        self.subscribed = False
        self._client.on_subscribe = self._subscribed
        self._client.on_connect = lambda *_: self._client.subscribe("#", 1)
        self._client.reconnect_delay_set(0.05, 0.1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        wait_until(lambda: self.subscribed)

    def _subscribed(self, *_) -> None:
        self.subscribed = True

    def _take(self, _client, _user, message) -> None:
        if message.dup and (message.topic, message.payload) in self.history:
            return  # between the broker and us: it was stopped before it had our confirmation
        self.history.append((message.topic, message.payload))
        if message.topic.endswith("/event"):
            self.events.append(json.loads(message.payload))
        else:
            self.states[message.topic] = message.payload

    def publish(self, topic: str, payload: str) -> None:
        self._client.publish(topic, payload, 1)

    def close(self) -> None:
        self._client.loop_stop()


@pytest.fixture
def reader():
    open_: list[Reader] = []

    def start(broker, password: str | None = None) -> Reader:
        open_.append(Reader(broker.port, password))
        return open_[-1]

    yield start
    for one in open_:
        one.close()


@pytest.fixture
def quick(monkeypatch) -> None:
    """Try again soon."""
    monkeypatch.setattr(service, "BACK_OFF_S", (0.05,))
    monkeypatch.setattr(service, "LOOK_S", 0.05)


def settings(broker, *labels: str, user: str = "") -> MqttSettings:
    return MqttSettings(url=f"mqtt://{user}127.0.0.1:{broker.port}", labels=list(labels))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_label_is_one_harmless_level_of_a_topic(name):
    assert re.fullmatch("[a-z0-9_]{1,60}", slug(name))
    for topic, payload in TOPICS.discovered("mic", [name]):
        assert re.fullmatch(r"homeassistant/\w+/[a-zA-Z0-9_-]+/config", topic)
        assert re.fullmatch(r"[\w/]+", payload["state_topic"])


def test_two_labels_never_share_a_topic():
    assert slug("Doorbell") == "doorbell"
    assert slug("Speech synthesizer") == "speech_synthesizer"
    assert len({slug(each) for each in [*HOSTILE, "Dog", "dog!", "a b", "a_b", "a-b"]}) >= 13


def test_labels_that_differ_in_case_alone_share_one():
    assert slug("DOG") == slug("dog")


@pytest.mark.parametrize("prefix", ["", "#", "a/+", "/a", "a\n", "a//b", "x" * 101])
def test_a_prefix_that_cannot_be_is_refused(prefix):
    with pytest.raises(UsageError, match=r"services\.mqtt\.prefix"):
        Topics(prefix, "")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("mqtt://user:secret@host", "a password in an address"),
        ("mqtt://user:sec/ret@host", "not an address"),
        ("http://host", "it takes mqtt://"),
        ("mqtt://", "it takes mqtt://"),
        ("mqtt://host/topic", "it takes mqtt://"),
        ("mqtt://host:0", "it takes mqtt://"),
        ("mqtt://a host", "it takes mqtt://"),
        ("mqtt://host\0", "it takes mqtt://"),
    ],
)
def test_an_address_that_cannot_be_is_refused_without_its_secret(url, why):
    with pytest.raises(UsageError, match=why) as refusal:
        make(MqttSettings(url=url))
    assert "sec" not in str(refusal.value).replace("see", "")


def test_a_user_may_have_any_letter():
    assert service.Broker(MqttSettings(url="mqtt://me%40home@host"))._user == "me@home"


def test_certificates_without_tls_are_refused():
    with pytest.raises(UsageError, match=r"ca_file is of mqtts://"):
        make(MqttSettings(url="mqtt://host", ca_file="ca.pem"))


def test_a_password_comes_from_the_environment_or_a_file(monkeypatch, tmp_path):
    (tmp_path / "password").write_text("of the file\nand more")
    monkeypatch.setenv("STREAMTWL_MQTT_PASSWORD", "of the environment")
    assert service._password("") == "of the environment"
    assert service._password(str(tmp_path / "password")) == "of the file"
    with pytest.raises(UsageError, match="cannot read the password file"):
        service._password(str(tmp_path / "absent"))
    with pytest.raises(UsageError, match="without a user"):
        make(MqttSettings(url="mqtt://host"))


def now(message, **more):
    return msgspec.structs.replace(message, published_at=time.time(), **more)


def of_label(states: States, name: str) -> bytes:
    return states.all[TOPICS.label("mic", name)]


def test_a_binary_sensor_follows_its_events():
    states = States(TOPICS, ["Dog", "Cat"], Memory())
    dog = {"id": "1", "label": "Dog", "end": None}
    states.take(now(event(0), **dog))
    assert (of_label(states, "Dog"), of_label(states, "Cat")) == (b"ON", b"OFF")
    states.take(now(event(1), **dog | {"label": "Cat", "phase": "revised"}))
    assert (of_label(states, "Dog"), of_label(states, "Cat")) == (b"OFF", b"ON")
    states.take(now(event(2), **dog | {"label": "Cat", "phase": "offset", "end": 9}))
    assert (of_label(states, "Dog"), of_label(states, "Cat")) == (b"OFF", b"OFF")


def test_a_binary_sensor_follows_the_kinds_of_its_sound_too():
    states = States(TOPICS, ["Dog", "Smoke alarm", "Bark"], Memory())
    states.take(now(event(0), id="1", label="Whimper (dog)", end=None))
    assert [of_label(states, each) for each in ("Dog", "Bark")] == [b"ON", b"OFF"]
    states.take(now(event(1), id="2", label="Smoke detector, smoke alarm", end=None))
    assert of_label(states, "Smoke alarm") == b"ON"


def test_an_everyday_sound_is_not_on_for_another():
    states = States(TOPICS, ["Door", "Doorbell", "Animal"], Memory())
    states.take(now(event(0), id="1", label="Ding-dong", end=None))
    assert of_label(states, "Doorbell") == b"ON"
    assert of_label(states, "Door") == b"OFF"
    states.take(now(event(1), id="2", label="Dog", end=None))
    assert of_label(states, "Animal") == b"ON"  # a category, with all of its kinds


def test_what_is_history_switches_nothing_on():
    states = States(TOPICS, ["Dog"], Memory())
    dog = {"id": "1", "label": "Dog", "published_at": time.time() - 3600}
    states.take(msgspec.structs.replace(event(0), end=None, **dog))
    states.take(msgspec.structs.replace(event(1), end=9, phase="offset", **dog))
    states.take(now(status(0)))
    assert (TOPICS.label("mic", "Dog"), b"ON") not in states.changes
    assert of_label(states, "Dog") == b"OFF"


def test_a_listener_whose_clock_is_wrong_switches_all_the_same():
    states = States(TOPICS, ["Dog"], Memory())
    for leap in (-86_400, 86_400):
        then = {"published_at": time.time() + leap}
        states.take(msgspec.structs.replace(status(0), **then))
        states.take(msgspec.structs.replace(event(0), id="1", label="Dog", end=None, **then))
        assert of_label(states, "Dog") == b"ON"
        states.take(msgspec.structs.replace(event(1), id="1", label="Dog", end=9, **then))
        assert of_label(states, "Dog") == b"OFF"


def test_a_sound_of_a_listener_that_was_killed_ends_with_the_next_session():
    states = States(TOPICS, ["Dog"], Memory())
    states.take(now(status(0, "a")))
    states.take(now(event(0, "a"), label="Dog", end=None))
    assert of_label(states, "Dog") == b"ON"
    states.take(now(status(0, "b")))
    states.take(now(label(0, "b")))
    assert of_label(states, "Dog") == b"OFF"


def test_an_event_of_an_old_session_that_comes_late_does_not_last():
    states = States(TOPICS, ["Dog"], Memory())
    states.take(now(status(0, "a")))
    states.take(now(status(0, "b")))
    states.take(now(event(0, "a"), label="Dog", end=None))
    states.take(now(event(0, "b"), label="Dog", end=None, id="b-1"))
    assert list(states.memory.sounding["mic"]) == ["b-1"]


def test_the_level_is_published_unweighted_and_a_weighted():
    states = States(TOPICS, [], Memory())
    states.take(now(status(0), level_dbfs=-31.26, level_dba=52.34))
    state = json.loads(states.all["streamtwl/mic/state"])
    assert (state["level_dbfs"], state["level_dba"]) == (-31.3, 52.3)
    announced = dict(TOPICS.discovered("mic", []))
    config = announced["homeassistant/sensor/streamtwl_mic_level_dba/config"]
    assert (config["device_class"], config["unit_of_measurement"]) == ("sound_pressure", "dBA")


def test_a_listener_that_says_nothing_is_not_available(monkeypatch):
    states = States(TOPICS, [], Memory())
    states.take(now(status(0)))
    assert states.all["streamtwl/mic/availability"] == b"online"
    monkeypatch.setattr("streamtwl.services.mqtt.states.GONE_S", -1.0)
    states.look()
    assert states.all["streamtwl/mic/availability"] == b"offline"


def test_a_state_that_changes_during_a_greeting_stays():
    states = States(TOPICS, ["Dog"], Memory())
    states.take(now(status(0), state="listening"))
    retained: dict[str, bytes] = {}

    class Client:
        async def publish(self, topic: str, payload: bytes, _qos: int, _retain: bool) -> None:
            retained[topic] = payload
            if topic.endswith("/availability"):
                states.take(now(event(1), phase="onset", label="Dog", end=None))
                retained.update(states.changes)  # as `_send` does meanwhile
                states.changes.clear()

    asyncio.run(make(MqttSettings(url="mqtt://host"))._greet(Client(), None, states))
    retained.update(states.changes)
    assert {topic: retained[topic] for topic in states.all} == states.all
    assert of_label(states, "Dog") == b"ON"


@pytest.mark.slow
def test_events_and_states_reach_a_broker(listener, mosquitto, reader, running, quick):
    broker = mosquitto()
    reading = reader(broker)
    one = running([make(settings(broker, "Dog"))], listener.feed)
    listener.sounds("Dog", number=1)
    wait_until(lambda: reading.events)
    wait_until(lambda: reading.states.get("streamtwl/mic/label/dog") == b"ON")
    listener.sounds("Dog", "offset", number=1)
    wait_until(lambda: reading.states["streamtwl/mic/label/dog"] == b"OFF")
    assert [each["phase"] for each in reading.events] == ["onset", "offset"]
    assert not reading.events[0]["late"]
    assert json.loads(reading.states["streamtwl/mic/state"])["last_sound"] == "Dog"
    assert reading.states["streamtwl/status"] == b"online"
    config = json.loads(reading.states["homeassistant/binary_sensor/streamtwl_mic_dog/config"])
    assert config["state_topic"] == "streamtwl/mic/label/dog"
    one.close()
    wait_until(lambda: reading.states["streamtwl/status"] == b"offline")


@pytest.mark.slow
def test_home_assistant_is_announced_to_again_and_what_is_gone_is_taken_back(
    listener, mosquitto, reader, running, quick
):
    broker = mosquitto()
    reading = reader(broker)
    config = "homeassistant/binary_sensor/streamtwl_mic_dog/config"
    one = running([make(settings(broker, "Dog"))], listener.feed)
    wait_until(lambda: reading.states.get(config))
    reading.history.clear()
    reading.publish("homeassistant/status", "online")
    wait_until(lambda: config in [topic for topic, _ in reading.history])
    listener.sounds("Dog")  # it keeps what it has announced with the next event
    wait_until(lambda: reading.events)
    one.close()
    running([make(settings(broker))], listener.feed)
    wait_until(lambda: reading.states[config] == b"")


@pytest.mark.slow
def test_what_a_broker_missed_comes_once_when_it_is_back(
    listener, mosquitto, reader, running, quick, caplog
):
    broker = mosquitto()
    reading = reader(broker)
    serving = make(settings(broker))
    first = running([serving], listener.feed)
    for number in range(3):
        listener.sounds("Dog", number=number)
    wait_until(lambda: len(reading.events) == 3)
    broker.stop()
    with caplog.at_level(logging.WARNING, "streamtwl"):
        for number in range(3, 300):
            listener.sounds("Dog", number=number)
        wait_until(lambda: serving.figures()["waiting"] >= 297)
        first.close()  # and the service ends as well
        for number in range(300, 400):
            listener.sounds("Dog", number=number)
        second = make(settings(broker))
        running([second], listener.feed)
        wait_until(lambda: second.figures()["waiting"] >= 397)
        time.sleep(0.5)
        broker.start()
        wait_until(lambda: len(reading.events) >= 400)
    assert [each["seq"] for each in reading.events] == list(range(400))
    said = [each.getMessage() for each in caplog.records if "wait for it" in each.getMessage()]
    assert len(said) <= 3  # by each of the two, and where the connection broke


@pytest.mark.slow
def test_a_service_that_is_killed_loses_nothing(listener, mosquitto, reader, start_cli):
    broker, kills = mosquitto(), 3
    reading = reader(broker)
    url = f"mqtt://127.0.0.1:{broker.port}"
    sent = 0
    for kill in range(kills + 1):
        process = start_cli("serve", "--connect", listener.publisher.endpoint, "--mqtt", url)
        before = len(reading.events)
        while len(reading.events) < before + 5:
            sent = listener.sounds("Dog", number=sent).seq
            time.sleep(0.05)
        if kill < kills:
            process.kill()
            process.wait()
    wait_until(lambda: reading.events[-1]["seq"] == sent)
    seqs = [each["seq"] for each in reading.events]
    assert sorted(set(seqs)) == list(range(seqs[0], sent + 1))
    assert len(seqs) - len(set(seqs)) <= kills  # confirmed by the broker, not yet noted: QoS 1


@pytest.mark.slow
def test_a_wrong_password_is_said_once_and_tried_again(
    listener, mosquitto, reader, running, quick, caplog, monkeypatch
):
    broker = mosquitto(password="right")
    monkeypatch.setenv("STREAMTWL_MQTT_PASSWORD", "wrong-one")
    serving: MqttService = make(settings(broker, user="ears@"))
    with caplog.at_level(logging.WARNING, "streamtwl"):
        running([serving], listener.feed)
        listener.sounds("Dog")
        wait_until(lambda: serving.figures()["waiting"])
        time.sleep(0.5)
    said = [each.getMessage() for each in caplog.records]
    assert len([each for each in said if "uthori" in each]) == 1, said
    assert "wrong-one" not in "".join(said)
    serving._broker._password = "right"
    wait_until(lambda: serving.figures()["sent"] == 1)


@pytest.mark.slow
def test_tls_with_a_certificate_of_ones_own(
    listener, mosquitto, running, quick, caplog, tmp_path, monkeypatch
):
    if shutil.which("openssl") is None:
        pytest.skip("no openssl: apt-get install openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out",
         certificate, "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    broker = mosquitto("", f"certfile {certificate}", f"keyfile {key}")
    url = f"mqtts://localhost:{broker.port}"
    trusting = make(MqttSettings(url=url, ca_file=str(certificate)))
    one = running([trusting], listener.feed)
    listener.sounds("Dog")
    wait_until(lambda: trusting.figures()["sent"] == 1)
    one.close()
    running([make(MqttSettings(url=url))], listener.feed)
    wait_until(lambda: "CERTIFICATE_VERIFY_FAILED" in caplog.text)
    with pytest.raises(UsageError, match=r"services.mqtt.ca_file .*: No such file"):
        make(MqttSettings(url=url, ca_file=str(tmp_path / "absent")))


@pytest.mark.slow
def test_a_listener_hands_its_events_to_a_broker(mosquitto, reader, start_cli, tmp_path):
    """`listen --mqtt`, the child that it starts, and a second run."""
    broker = mosquitto()
    reading = reader(broker)
    arguments = ["listen", "--demo", "--fast", "--quiet", "--pipeline", "yamnet"]
    arguments += ["--bind", "tcp://127.0.0.1:*", "--replay-bind", "tcp://127.0.0.1:*"]
    arguments += [
        "--journal",
        tmp_path / "journal.sqlite",
        "--mqtt",
        f"mqtt://127.0.0.1:{broker.port}",
    ]
    process = start_cli(*arguments)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert len({each["id"] for each in reading.events}) >= 3, errors
    assert [each["seq"] for each in reading.events] == list(range(len(reading.events)))
