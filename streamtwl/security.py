"""Who may subscribe: this machine; beyond it, holders of CURVE keys.

    keys/server.key_secret, server.key      the publisher's
    keys/clients/*.key                      public keys of those who may subscribe
    keys/NAME.key_secret, NAME.key          a subscriber's own

Files are pyzmq's certificates. A `.key` is public and can be given to others. CURVE encrypts, and
authenticates each side to the other (https://rfc.zeromq.org/spec/26/).
"""

import logging
import os
import re
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import zmq

from streamtwl import folders
from streamtwl.errors import UsageError

if TYPE_CHECKING:
    from zmq.auth.thread import ThreadAuthenticator

_log = logging.getLogger(__name__)

SERVER, CLIENT = "server", "client"  # default names of keys
CLIENTS = "clients"  # the folder with the keys of those who may subscribe
DOMAIN = b"streamtwl"  # of the guard; without a domain ZeroMQ accepts all where no guard runs
Z85_CHARACTERS = 40  # of a key, as text
LOG_EVERY_S = 60.0  # from one line about a refused key to the next
LOGGED_KEYS = 100  # refused keys remembered for that


def keys_folder() -> Path:
    """Return where keys are by default, in the config folder; raises UsageError."""
    return folders.config() / "keys"


@dataclass(frozen=True)
class ServerKeys:
    """A publisher's keys, and the folder with its subscribers' public ones."""

    public: bytes
    secret: bytes = field(repr=False)
    clients: Path

    @classmethod
    def load(cls, folder: Path) -> "ServerKeys":
        """Read them from a folder of keys; raises UsageError."""
        public, secret = _secret_pair(folder / f"{SERVER}.key_secret", "streamtwl keys new")
        clients = folder / CLIENTS
        if not any(clients.glob("*.key")):
            _log.warning("no one may subscribe yet: put public keys (*.key) into %s", clients)
        return cls(public, secret, clients)

    def apply(self, one: zmq.Socket) -> None:
        """Make a socket, before it is bound, accept CURVE connections only, none without a
        guard."""
        one.curve_server = True
        one.zap_domain = DOMAIN
        one.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        one.curve_publickey, one.curve_secretkey = self.public, self.secret

    def guard(self, context: zmq.Context) -> "ThreadAuthenticator":
        """Start checking the keys of a context's clients; stop it before the context ends."""
        from zmq.auth.thread import ThreadAuthenticator

        class Guard(ThreadAuthenticator):
            """Also passes a client's address to the checker of keys."""

            async def handle_zap_message(self, msg: list[bytes]) -> None:
                checker.address = msg[3].decode(errors="replace") if len(msg) > 3 else "?"
                await super().handle_zap_message(msg)

        checker = _Checker(self.clients, self.public)
        guard = Guard(context)
        guard.configure_curve_callback(DOMAIN.decode(), checker)
        guard.start()
        return guard


@dataclass(frozen=True)
class ClientKeys:
    """A subscriber's keys, and its publisher's public one."""

    server: bytes
    public: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def load(cls, server_key: str | Path, key: str | Path | None = None) -> "ClientKeys":
        """Read them: `server_key` is a file or the key itself, `key` your own secret file.

        Raises UsageError.
        """
        own = Path(key) if key else keys_folder() / f"{CLIENT}.key_secret"
        public, secret = _secret_pair(own, "streamtwl keys new --client")
        if len(str(server_key)) == Z85_CHARACTERS and not Path(server_key).exists():
            return cls(str(server_key).encode(), public, secret)
        return cls(_certificate(Path(server_key), "copy it from the publisher's keys")[0],
                   public, secret)  # fmt: skip

    def apply(self, one: zmq.Socket) -> None:
        """Make a socket, before it is connected, use CURVE with that publisher only."""
        try:
            one.curve_serverkey = self.server
            one.curve_publickey, one.curve_secretkey = self.public, self.secret
        except zmq.ZMQError:
            raise UsageError(
                f"'{self.server.decode(errors='replace')}' is not a server key: give the "
                "publisher's server.key, or the 40 characters in it"
            ) from None


class _Checker:
    """Looks up a client's key in the folder, which may change at any time."""

    def __init__(self, clients: Path, own: bytes) -> None:
        """`own`: the publisher's public key, which its own subscribers have, too."""
        self._own = own
        self.address = "?"  # of the client that is being checked
        self._clients = clients
        self._logged_at: OrderedDict[bytes, float] = OrderedDict()  # refused key: monotonic seconds

    def callback(self, _domain: str, key: bytes) -> bool:
        """Return whether the owner of a public key (Z85) may subscribe."""
        allowed = key == self._own or key in self._allowed()
        now = time.monotonic()
        if not allowed and now >= self._logged_at.get(key, 0.0) + LOG_EVERY_S:
            _log.warning(
                "refused %s: its key %s is not in %s", self.address, key.decode(), self._clients
            )
            self._logged_at[key] = now
            if len(self._logged_at) > LOGGED_KEYS:
                self._logged_at.popitem(last=False)
        return allowed

    def _allowed(self) -> set[bytes]:
        keys = set()
        for file in self._clients.glob("*.key"):
            try:
                keys.add(_certificate(file, "")[0])
            except UsageError as error:
                _log.warning("%s", error)
        return keys


def make_keys(folder: Path, name: str) -> Path:
    """Make a pair of keys in a folder for its owner only; return the public one's file.

    Raises UsageError where there is one of that name already, or the folder cannot be written.
    """
    from zmq.auth import create_certificates

    if not zmq.has("curve"):
        raise UsageError("this build of ZeroMQ has no CURVE: install pyzmq from its wheel")
    public, secret = folder / f"{name}.key", folder / f"{name}.key_secret"
    if not re.fullmatch(r"[\w-][\w.-]*", name):
        raise UsageError(f"the name '{name}': use letters, digits, -, _ and .")
    if public.exists() or secret.exists():
        raise UsageError(f"there is a key '{name}' in {folder} already: choose another name")
    mask = os.umask(0o077)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        (folder / CLIENTS).mkdir(exist_ok=True)
        create_certificates(folder, name)
    except OSError as error:
        raise UsageError(
            f"cannot make keys in {folder}: {error.strerror}: choose another with --folder or "
            "STREAMTWL_CONFIG=FOLDER"
        ) from None
    finally:
        os.umask(mask)
    return public


def _secret_pair(file: Path, made_by: str) -> tuple[bytes, bytes]:
    public, secret = _certificate(file, f"`{made_by}` makes one")
    if secret is None:
        raise UsageError(f"{file} has no secret key in it: name the file that ends in .key_secret")
    if file.stat().st_mode & 0o077:
        raise UsageError(f"others can read the secret key {file}: chmod 600 {file}")
    return public, secret


def _certificate(file: Path, else_do: str) -> tuple[bytes, bytes | None]:
    from zmq.auth import load_certificate

    try:
        if not file.is_file():
            raise UsageError(f"there is no key {file}: {else_do}")
        return load_certificate(file)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the key {file}: {error}") from None
