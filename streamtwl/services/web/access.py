"""Who may see the page, how often, and with which headers: the same for every answer.

Requests are refused in this order: of a peer that is not the proxy, too many of one address (429),
for another host's name, too long, from another site, without a session. Who may also hear, and
change something, is *trusted*: by the password, a program's token, or, on a page for this machine
alone, the key in the link that is printed at the start.
"""

import asyncio
import hashlib
import hmac
import logging
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from streamtwl.services.web.peers import ADDRESSES, Buckets, forwarded_for, network, plain

_log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

A_SECOND, BURST = 50.0, 200.0  # requests of one address
LOGIN_S, LOGINS = 20.0, 5.0  # one login in so many seconds, so many at once
ALL_LOGIN_S, ALL_LOGINS = 2.0, 30.0  # of all strangers together: scrypt takes memory
SAID_S, SAID = 3600.0, 10.0  # one line on too many requests in so many seconds, so many at once
SESSIONS = 100
SESSION_S = 7 * 86_400.0
BODY_BYTES = 65_536
COOKIE = "streamtwl_session"  # and the port: another page of this host has another
OPEN = ("/login", "/api/login", "/assets/", "/manifest.webmanifest", "/favicon.ico")  # to all
SAFE = ("GET", "HEAD", "OPTIONS")
# scrypt's parameters: OWASP's password storage cheat sheet (N = 2^15, r = 8, p = 3), 32 MB
SCRYPT = {"n": 2**15, "r": 8, "p": 3, "maxmem": 2**26}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; media-src 'self'; manifest-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "microphone=(), camera=(), geolocation=()",
}


class Password:
    """A password, of which only a scrypt hash is kept."""

    def __init__(self, password: str) -> None:
        self._salt = secrets.token_bytes(16)
        self._hash = self._scrypt(password)

    def fits(self, password: str) -> bool:
        """Whether it is this one; takes about a tenth of a second."""
        return hmac.compare_digest(self._hash, self._scrypt(password))

    def _scrypt(self, password: str) -> bytes:
        return hashlib.scrypt(password.encode(errors="replace"), salt=self._salt, **SCRYPT)


@dataclass
class Session:
    """Somebody who gave the password."""

    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    until: float = math.inf  # monotonic


class Access:
    """Lets requests through to the app, or refuses them."""

    def __init__(
        self,
        password: Password | None = None,
        proxy: str | None = None,
        hosts: frozenset[str] = frozenset({"localhost"}),
        encrypted: bool = False,
        token: str = "",
        key: str = "",
    ) -> None:
        """`proxy`: the address of the only peer, which says for whom it asks.

        `hosts`: the names by which the page may be called up where there is no password.
        `token`: of programs, which send it as `Authorization: Bearer` and have no session.
        `key`: in the link to a page without password or proxy; it is a program's token, too.
        """
        self._password = password
        self._proxy, self._hosts, self._encrypted = proxy, hosts, encrypted
        self._key = key
        self._token = (token or key).encode(errors="replace")
        self._requests = Buckets(A_SECOND, BURST)
        self._logins = Buckets(1 / LOGIN_S, LOGINS)
        self._all_logins = Buckets(1 / ALL_LOGIN_S, ALL_LOGINS)
        self._lines = Buckets(1 / SAID_S, 1.0)
        self._all_lines = Buckets(SAID / SAID_S, SAID)
        self._hashing = asyncio.Semaphore(1)
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._met: OrderedDict[str, None] = OrderedDict()  # networks that have logged in
        if key:  # it outlives a restart, as the key does
            self._sessions[_derived(key, "session")] = Session(_derived(key, "csrf"))
        self.refused = 0  # requests

    @property
    def has_password(self) -> bool:
        """Whether one has to log in."""
        return self._password is not None

    def holds(self, scope: Scope) -> bool:
        """Whether a request that was let through would be now: its session goes on."""
        token = scope["state"].get("token")
        return token is None or self._session(token) is not None

    def wrap(self, app: App) -> App:
        """Return an ASGI app that lets requests through to `app`."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                return
            headers = {
                name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
            }
            sending = self._with_headers(scope, headers, send)
            refusal = self._refusal(scope, headers) or self._with_key(scope, headers)
            if refusal is None:
                await app(scope, _limited(receive), sending)
            else:
                self.refused += 1
                await _answer(sending, *refusal)

        return guarded

    async def login(self, scope: Scope, password: str) -> tuple[str | None, float]:
        """Return a new session's token, None for a wrong password; and how long to wait first."""
        # who is refused takes nothing of what all share: else one address locks everybody out
        one = network(scope["state"]["address"])
        wait_s = self._logins.take(one)
        wait_s = wait_s or (0.0 if one in self._met else self._all_logins.take("all"))
        if wait_s or self._password is None:
            return None, wait_s
        async with self._hashing:
            fits = await asyncio.to_thread(self._password.fits, password)
        if not fits:
            return None, 0.0
        token = secrets.token_urlsafe(32)
        self._sessions[token] = Session(until=time.monotonic() + SESSION_S)
        while len(self._sessions) > SESSIONS:
            self._sessions.popitem(last=False)
        self._met[one] = None
        if len(self._met) > ADDRESSES:
            self._met.popitem(last=False)
        return token, 0.0

    def logout(self, scope: Scope) -> None:
        """End the request's session; that of the key is everybody's who has it."""
        if not self._key:
            self._sessions.pop(scope["state"].get("token", ""), None)

    def cookie(self, scope: Scope, token: str) -> str:
        """Return the Set-Cookie header of a session; an empty token deletes it."""
        secure = "; Secure" if scope["state"]["encrypted"] else ""
        age = round(SESSION_S) if token else 0
        named = f"{scope['state']['cookie']}={token}"
        return f"{named}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}"

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str, dict] | None:
        """Return status, reason and headers of what is refused; None: let it through."""
        peer = plain((scope.get("client") or ("?",))[0])
        host = headers.get("host", "")
        state = scope["state"] = {
            "address": peer,
            "encrypted": self._encrypted,
            "csrf": "",
            "trusted": False,
            "cookie": f"{COOKIE}_{_port(host)}",
        }
        if self._proxy is not None:
            if peer != self._proxy:
                return 403, "only the proxy may connect", {}
            if "x-forwarded-for" not in headers:
                return 403, "the proxy does not say for whom it asks (X-Forwarded-For)", {}
            state["address"] = forwarded_for(headers["x-forwarded-for"])
            state["encrypted"] = headers.get("x-forwarded-proto") == "https"
        if wait_s := self._requests.take(network(state["address"])):
            self._say(network(state["address"]))
            return 429, "too many requests", {"retry-after": str(math.ceil(wait_s))}
        if self._password is None and _host(host) not in self._hosts:
            return 421, "this page is not called that", {}
        if not headers.get("content-length", "0").isdecimal():
            return 400, "not a length", {}
        if int(headers.get("content-length", "0")) > BODY_BYTES:
            return 413, "too long", {}
        path, changes = scope["path"], scope["method"] not in SAFE
        if (changes or path.startswith("/api/")) and not _same_site(headers, host):
            return 403, "the request comes from another site", {}
        return self._without_session(scope, headers, changes)

    def _say(self, one: str) -> None:
        """Log that requests of a network are refused: now and then."""
        if not self._lines.take(one) and not self._all_lines.take("all"):
            _log.warning("web: too many requests of %s: they are refused", one)

    def _session(self, token: str) -> Session | None:
        session = self._sessions.get(token)
        if session is not None and session.until < time.monotonic():
            del self._sessions[token]
            return None
        return session

    def _without_session(
        self, scope: Scope, headers: dict[str, str], changes: bool
    ) -> tuple[int, str, dict] | None:
        path, state = scope["path"], scope["state"]
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        mine = self._token or self._password is not None  # else it is for the proxy
        if mine and scheme.lower() == "bearer" and path.startswith("/api/"):
            given = bearer.strip().encode("latin-1")
            state["trusted"] = bool(self._token) and hmac.compare_digest(given, self._token)
            refusal = 401, "this is not the token", {"www-authenticate": "Bearer"}
            return None if state["trusted"] else refusal
        token = _cookie(headers.get("cookie", ""), state["cookie"])
        session = self._session(token)
        if session is None:
            return self._of_a_stranger(path, changes)
        state |= {"csrf": session.csrf, "token": token, "trusted": True}
        given = headers.get("x-csrf-token", "").encode("latin-1", "replace")
        wants_token = changes and path != "/api/login"
        if wants_token and not hmac.compare_digest(given, session.csrf.encode()):
            return 403, "the CSRF token is missing or wrong", {}
        return None

    def _of_a_stranger(self, path: str, changes: bool) -> tuple[int, str, dict] | None:
        if self._password is None:
            if changes and self._key:
                return 403, "open the link that streamtwl printed at its start, with the key", {}
            return None
        if path in OPEN or path.startswith("/assets/"):
            return None
        if path.startswith("/api/"):
            return 401, "log in first", {}
        return 303, "log in first", {"location": "/login"}

    def _with_key(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str, dict] | None:
        """Begin the session of one who opens the link with the key; else do nothing."""
        if not self._key or scope["path"].startswith("/api/"):
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("key")
        if given is None:
            return None
        if not hmac.compare_digest(given[0].encode(), self._key.encode()):
            return 403, "this is not the key: open the link that streamtwl printed at its start", {}
        cookie = self.cookie(scope, _derived(self._key, "session"))
        return 303, "this way", {"location": "/", "set-cookie": cookie}

    def _with_headers(self, scope: Scope, headers: dict[str, str], send: Send) -> Send:
        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                more = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                present = {name for name, _ in message["headers"]}
                if b"cache-control" not in present:
                    more.append((b"cache-control", b"no-store"))
                message["headers"] = [*message["headers"], *more]
            await send(message)

        return sending


async def _answer(send: Send, status: int, reason: str, headers: dict[str, str]) -> None:
    body = f'{{"error":"{reason}"}}'.encode()
    named = {"content-type": "application/json", "content-length": str(len(body))} | headers
    listed = [(name.encode(), value.encode()) for name, value in named.items()]
    await send({"type": "http.response.start", "status": status, "headers": listed})
    await send({"type": "http.response.body", "body": body})


def _limited(receive: Receive) -> Receive:
    """Return a `receive` that takes no more than BODY_BYTES, whatever the length says."""
    taken = 0

    async def receiving() -> MutableMapping[str, Any]:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        return {"type": "http.disconnect"} if taken > BODY_BYTES else message

    return receiving


def _port(host: str) -> str:
    """Return the port in a Host header, "" where it names none."""
    port = host.rpartition(":")[2]
    return port if port.isdecimal() else ""


def _derived(key: str, use: str) -> str:
    return hmac.new(key.encode(), use.encode(), "sha256").hexdigest()


def _host(header: str) -> str:
    """Return the name in a Host header, without its port."""
    if header.startswith("["):
        return header.partition("]")[0][1:]
    return header.partition(":")[0].lower()


def _same_site(headers: dict[str, str], host: str) -> bool:
    """Whether a browser says that one of our own pages asks, or there is no browser."""
    if site := headers.get("sec-fetch-site"):
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2] == host


def _cookie(header: str, name: str) -> str:
    for each in header.split(";"):
        named, _, value = each.strip().partition("=")
        if named == name:
            return value
    return ""
