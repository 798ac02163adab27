"""A broker's address, user and password."""

import pytest

pytest.importorskip("aiomqtt")

from streamtwl.config import MqttSettings
from streamtwl.errors import UsageError
from streamtwl.services.mqtt import make
from streamtwl.services.mqtt.broker import Broker, _password


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
        ("mqtt://a..b", "it takes mqtt://"),
        (f"mqtt://{'a' * 70}.org", "it takes mqtt://"),
        ("ears:secret@broker", "it takes mqtt://"),
        ("mqtt//ears:secret@broker", "it takes mqtt://"),
        ("mqtt://broker?password=secret", "it takes mqtt://"),
        (f"mqtt://{'u' * 70_000}@host", "the user is longer than 65535 bytes"),
    ],
)
def test_an_address_that_cannot_be_is_refused_without_its_secret(url, why):
    with pytest.raises(UsageError, match=why) as refusal:
        make(MqttSettings(url=url))
    assert "sec" not in str(refusal.value).replace("see", "")


def test_a_user_may_have_any_letter():
    assert Broker(MqttSettings(url="mqtt://me%40home@host"))._user == "me@home"


def test_certificates_without_tls_are_refused():
    with pytest.raises(UsageError, match=r"ca_file is of mqtts://"):
        make(MqttSettings(url="mqtt://host", ca_file="ca.pem"))


@pytest.mark.parametrize(
    ("password", "why"),
    [("p\udcff", "the password is not UTF-8"), ("ü" * 40_000, "longer than 65535 bytes")],
)
def test_a_password_that_mqtt_cannot_carry_is_refused(monkeypatch, password, why):
    monkeypatch.setattr("os.environ", {"STREAMTWL_MQTT_PASSWORD": password})
    with pytest.raises(UsageError, match=why):
        make(MqttSettings(url="mqtt://ears@127.0.0.1"))


def test_a_password_comes_from_the_environment_or_a_file(monkeypatch, tmp_path):
    (tmp_path / "password").write_text("of the file\nand more")
    monkeypatch.setenv("STREAMTWL_MQTT_PASSWORD", "of the environment")
    assert _password("") == "of the environment"
    assert _password(str(tmp_path / "password")) == "of the file"
    with pytest.raises(UsageError, match="cannot read the password file"):
        _password(str(tmp_path / "absent"))
    with pytest.raises(UsageError, match="without a user"):
        make(MqttSettings(url="mqtt://host"))
