"""What is done where a rule applies: a notification, a webhook, a command, an MQTT message.

Each takes a firing, its JSON, and returns when it is done; ActionError says why it is not.
"""

import asyncio
import contextlib
import hashlib
import hmac
import importlib
import json
import logging
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

from streamtwl.audio.network_address import Address
from streamtwl.config import MqttSettings
from streamtwl.errors import SinkError, UsageError
from streamtwl.services.alerts import notify
from streamtwl.services.alerts.rules import Action

Perform = Callable[[bytes], Awaitable[None]]  # takes a Firing as JSON
SIGNATURE, TIMESTAMP, DELIVERY = "X-Streamtwl-Signature", "X-Streamtwl-Timestamp", "X-Streamtwl-Id"
SECRETS = re.compile(r"STREAMTWL_\w*(PASSWORD|TOKEN|SECRET|KEY)")  # that a command does not get
PASSING = (408, 425, 429)  # refusals that may pass
TITLE = "streamtwl"


class ActionError(SinkError):
    """An action that failed; `passing`: another try may succeed."""

    def __init__(self, message: str, passing: bool = True) -> None:
        super().__init__(message)
        self.passing = passing


def make(name: str, action: Action, secrets: Collection[str] = ()) -> Perform:
    """Return what performs an action; `secrets`: variables that no program gets.

    Raises UsageError, ModuleNotFoundError without the extra.
    """
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in secrets and not SECRETS.fullmatch(key)
    }
    try:
        if action.webhook:
            return _Webhook(action)
        if action.command:
            return _Command(action, kept)
        return _Apprise(action.apprise, kept) if action.apprise else _Mqtt(action)
    except UsageError as error:
        raise UsageError(f"[action.{name}]: {error}") from None


def _silence(*loggers: str) -> None:
    """Have libraries say nothing: they would say whole addresses, with their secrets."""
    for name in loggers:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


async def _run(
    command: Sequence[str], environment: Mapping[str, str], given: bytes | None = None
) -> int:
    """Run a program, `given` on its stdin, and return its exit code; if cancelled, end it.

    With it ends what it has started.
    """
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdin=quiet if given is None else asyncio.subprocess.PIPE,
        stdout=quiet,
        stderr=quiet,
        start_new_session=True,
    )
    try:
        await process.communicate(given)
        return await process.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise


class _Apprise:
    """Any of the services that apprise knows; nothing of its is written to the disk."""

    def __init__(self, url: str, environment: Mapping[str, str]) -> None:
        _silence("apprise")
        self._url, self._environment = url, environment
        count = len(notify.opened(url))
        if count != 1:
            why = (
                "apprise takes no such address: see https://github.com/caronc/apprise/wiki"
                if not count
                else f"apprise: these are {count} addresses: each takes an action of its own"
            )
            raise UsageError(why)

    async def __call__(self, firing: bytes) -> None:
        text = json.loads(firing)["text"]
        given = json.dumps({"url": self._url, "title": TITLE, "text": text}).encode()
        if await _run([sys.executable, "-P", notify.__file__], self._environment, given):
            raise ActionError("the service did not take the notification")


class _Webhook:
    """POST of the firing, signed: HMAC-SHA256 over "timestamp.body" with the secret, in hex."""

    def __init__(self, action: Action) -> None:
        httpx: Any = importlib.import_module("httpx2")
        _silence("httpx2", "httpcore2")
        self._errors = (httpx.HTTPError, httpx.InvalidURL)
        self._address = str(Address(action.webhook))  # without user, path and query
        self._url, self._secret = action.webhook, action.secret.encode()
        no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
        try:
            self._client = httpx.AsyncClient(
                timeout=action.timeout_s, follow_redirects=False, cookies=no_cookies
            )
        except (ValueError, ImportError, httpx.InvalidURL) as error:
            raise UsageError(f"a proxy that the environment names: {error}") from None

    async def __call__(self, firing: bytes) -> None:
        stamp = str(int(time.time()))
        headers = {"Content-Type": "application/json", TIMESTAMP: stamp}
        headers[DELIVERY] = hashlib.sha256(json.loads(firing)["id"].encode()).hexdigest()[:32]
        if self._secret:
            signed = hmac.new(self._secret, stamp.encode() + b"." + firing, hashlib.sha256)
            headers[SIGNATURE] = f"sha256={signed.hexdigest()}"
        try:
            async with self._client.stream(
                "POST", self._url, content=firing, headers=headers
            ) as response:
                code = response.status_code  # of the answer no more is read
        except self._errors as error:
            why = str(error) or type(error).__name__
            raise ActionError(f"{self._address}: {why}") from None
        if not 200 <= code < 300:
            passing = code >= 500 or code in PASSING
            raise ActionError(f"{self._address} answers {code}", passing)


class _Command:
    """A program of the user's, with the firing in its environment: STREAMTWL_LABEL and so on."""

    def __init__(self, action: Action, environment: Mapping[str, str]) -> None:
        self._command, self._environment = action.command, environment
        if shutil.which(self._command[0]) is None:
            raise UsageError(f"command: there is no program '{self._command[0]}'")

    async def __call__(self, firing: bytes) -> None:
        values = {
            f"STREAMTWL_{name.upper()}": str(value).replace("\0", "")
            for name, value in json.loads(firing).items()
            if value is not None
        }
        try:
            code = await _run(self._command, {**self._environment, **values})
        except OSError as error:
            raise ActionError(f"{self._command[0]}: {error.strerror}") from None
        if code:
            raise ActionError(f"{self._command[0]} ended with exit code {code}")


class _Mqtt:
    """A message to a broker, QoS 1; the password is in $STREAMTWL_MQTT_PASSWORD."""

    def __init__(self, action: Action) -> None:
        self._mqtt: Any = importlib.import_module("aiomqtt")
        from streamtwl.services.mqtt.broker import Broker
        from streamtwl.services.mqtt.topics import check_prefix

        address, slashes, rest = action.mqtt.partition("://")
        place, _, topic = rest.partition("/")
        self._topic = check_prefix(topic, "mqtt: the topic")
        self._broker = Broker(MqttSettings(url=f"{address}{slashes}{place}"))

    async def __call__(self, firing: bytes) -> None:
        try:
            async with self._broker.client() as client:
                await client.publish(self._topic, firing, 1)
        except self._mqtt.MqttError as error:
            raise ActionError(f"{self._broker}: {error}") from None
