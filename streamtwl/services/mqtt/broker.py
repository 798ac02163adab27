"""A broker's address, with user and password, and what its refusals mean."""

import logging
import os
import re
import secrets
import ssl
from urllib.parse import SplitResult, unquote, urlsplit

import aiomqtt

from streamtwl import folders
from streamtwl.config import MqttSettings
from streamtwl.endpoints import can_be_host, is_local
from streamtwl.errors import UsageError
from streamtwl.services.mqtt.topics import OFFLINE

_log = logging.getLogger(__name__)
_paho = logging.getLogger("streamtwl.mqtt.client")
_paho.setLevel(logging.CRITICAL)  # what it has to say is in its exceptions

PASSWORD = "STREAMTWL_MQTT_PASSWORD"
PORTS = {"mqtt": 1883, "mqtts": 8883}
ANSWER_S = 10.0  # for a broker's confirmation
KEEPALIVE_S = 15
LONGEST = 65_535  # bytes of a string in MQTT


class Broker:
    """A broker's address, with user and password: never shown."""

    def __init__(self, settings: MqttSettings) -> None:
        """Raises UsageError."""
        parts = _parts(settings.url)
        self.host, self.port = parts.hostname or "", parts.port or PORTS[parts.scheme]
        self._user = None if parts.username is None else unquote(parts.username)
        self._password = _password(settings.password_file)
        _check("user", self._user or "")
        _check("password", self._password)
        self._tls = _tls(settings.ca_file) if parts.scheme == "mqtts" else None
        if settings.ca_file and not self._tls:
            raise UsageError(
                "services.mqtt.ca_file is of mqtts://: with mqtt:// nothing is encrypted"
            )
        if self._password and self._user is None:
            raise UsageError("--mqtt: there is a password without a user: mqtt://user@host")
        if self._password and not self._tls and not is_local(f"tcp://{self.host}:{self.port}"):
            _log.warning("mqtt: the password goes to %s unencrypted: use mqtts://", self.host)

    def client(self, name: str = "", status: str = "") -> aiomqtt.Client:
        """Return a client that is not connected yet.

        `name` is its id, "": any; `status` is the topic of its last will.
        """
        will = aiomqtt.Will(status, OFFLINE, qos=1, retain=True) if status else None
        return aiomqtt.Client(
            self.host,
            self.port,
            identifier=f"streamtwl-{name or secrets.token_hex(4)}",  # some brokers name no client
            username=self._user,
            password=self._password or None,
            tls_context=self._tls,
            will=will,
            timeout=ANSWER_S,
            keepalive=KEEPALIVE_S,
            logger=_paho,
        )

    def why(self, error: BaseException) -> str:
        """Return what an error says, and what to look at."""
        said = str(error)
        if re.search("not authori[sz]ed|user ?name or password", said, re.IGNORECASE):
            return f"{said}: the user is in mqtt://user@host, the password in ${PASSWORD}"
        if self._tls and re.search("reset by peer|WRONG_VERSION|EOF occurred|record layer", said):
            return f"{said}: is it mqtt://, without TLS?"
        return said

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


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
    if parts.scheme not in PORTS or not can_be_host(parts.hostname or "") or wrong:
        # it is not shown: where it is wrong, a password may be anywhere in it
        raise UsageError(f"--mqtt: this is not an address: {takes}")
    return parts


def _check(what: str, text: str) -> None:
    """Raise UsageError for a user or password that MQTT cannot carry."""
    try:
        if len(text.encode()) > LONGEST or "\0" in text:
            raise UsageError(f"--mqtt: the {what} is longer than {LONGEST} bytes, or has a zero")
    except UnicodeEncodeError:
        raise UsageError(f"--mqtt: the {what} is not UTF-8") from None


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
