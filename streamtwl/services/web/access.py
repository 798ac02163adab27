"""Who may see the page, how often, and with which headers: the same for every answer.

Requests are refused in this order: of a peer that is not the proxy, too many of one address (429),
for another host's name, too long, from another site, without a session.
"""

import asyncio
import hashlib
import hmac
import ipaddress
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

A_SECOND, BURST = 50.0, 200.0  # requests of one address
ADDRESSES = 10_000  # remembered
LOGIN_S, LOGINS = 20.0, 5.0  # one login in so many seconds, so many at once
ALL_LOGIN_S, ALL_LOGINS = 2.0, 30.0  # of all addresses together: scrypt takes memory
SESSIONS = 100
SESSION_S = 7 * 86_400.0
BODY_BYTES = 65_536
COOKIE = "streamtwl_session"
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


class Buckets:
    """A token bucket for each address, of the newest ADDRESSES."""

    def __init__(self, a_second: float, burst: float) -> None:
        self._a_second, self._burst = a_second, burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, at

    def take(self, address: str) -> float:
        """Take a token; return 0, or the seconds until there is one."""
        now = time.monotonic()
        left, at = self._left.pop(address, (self._burst, now))
        left = min(self._burst, left + self._a_second * (now - at))
        wait_s = 0.0 if left >= 1 else (1 - left) / self._a_second
        self._left[address] = (left if wait_s else left - 1, now)
        if len(self._left) > ADDRESSES:
            self._left.popitem(last=False)
        return wait_s


@dataclass
class Session:
    """Somebody who gave the password."""

    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    until: float = 0.0  # monotonic


class Access:
    """Lets requests through to the app, or refuses them."""

    def __init__(
        self,
        password: Password | None = None,
        proxy: str | None = None,
        hosts: frozenset[str] = frozenset({"localhost"}),
        encrypted: bool = False,
        token: str = "",
    ) -> None:
        """`proxy`: the address of the only peer, which says for whom it asks.

        `hosts`: the names by which the page may be called up where there is no password or proxy.
        `token`: of programs, which send it as `Authorization: Bearer` and have no session.
        """
        self._password = password
        self._proxy, self._hosts, self._encrypted = proxy, hosts, encrypted
        self._token = token.encode(errors="replace")
        self._requests = Buckets(A_SECOND, BURST)
        self._logins = Buckets(1 / LOGIN_S, LOGINS)
        self._all_logins = Buckets(1 / ALL_LOGIN_S, ALL_LOGINS)
        self._hashing = asyncio.Semaphore(1)
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self.refused = 0  # requests

    @property
    def has_password(self) -> bool:
        """Whether one has to log in."""
        return self._password is not None

    def wrap(self, app: App) -> App:
        """Return an ASGI app that lets requests through to `app`."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                return
            headers = {
                name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
            }
            sending = self._with_headers(scope, headers, send)
            refusal = self._refusal(scope, headers)
            if refusal is None:
                await app(scope, _limited(receive), sending)
            else:
                self.refused += 1
                await _answer(sending, *refusal)

        return guarded

    async def login(self, scope: Scope, password: str) -> tuple[str | None, float]:
        """Return a new session's token, None for a wrong password; and how long to wait first."""
        # who is refused takes nothing of what all share: else one address locks everybody out
        wait_s = self._logins.take(_network(scope["state"]["address"]))
        wait_s = wait_s or self._all_logins.take("all")
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
        return token, 0.0

    def logout(self, scope: Scope) -> None:
        """End the request's session."""
        self._sessions.pop(scope["state"].get("token", ""), None)

    def cookie(self, scope: Scope, token: str) -> str:
        """Return the Set-Cookie header of a session; an empty token deletes it."""
        secure = "; Secure" if scope["state"]["encrypted"] else ""
        age = round(SESSION_S) if token else 0
        return f"{COOKIE}={token}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}"

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str, dict] | None:
        """Return status, reason and headers of what is refused; None: let it through."""
        peer = _plain((scope.get("client") or ("?",))[0])
        state = scope["state"] = {"address": peer, "encrypted": self._encrypted, "csrf": ""}
        if self._proxy is not None:
            if peer != self._proxy:
                return 403, "only the proxy may connect", {}
            state["address"] = headers.get("x-forwarded-for", peer).rpartition(",")[2].strip()
            state["encrypted"] = headers.get("x-forwarded-proto") == "https"
        if wait_s := self._requests.take(_network(state["address"])):
            return 429, "too many requests", {"retry-after": str(math.ceil(wait_s))}
        host = headers.get("host", "")
        open_to_all = self._password is None and self._proxy is None
        if open_to_all and _host(host) not in self._hosts:
            return 421, "this page is not called that: open it as localhost", {}
        if not headers.get("content-length", "0").isdecimal():
            return 400, "not a length", {}
        if int(headers.get("content-length", "0")) > BODY_BYTES:
            return 413, "too long", {}
        if scope["method"] not in SAFE and not _same_site(headers, host):
            return 403, "the request comes from another site", {}
        return None if self._password is None else self._without_session(scope, headers)

    def _without_session(self, scope: Scope, headers: dict[str, str]) -> tuple | None:
        path = scope["path"]
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme == "Bearer" and path.startswith("/api/"):
            given = bearer.encode("latin-1")
            fits = bool(self._token) and hmac.compare_digest(given, self._token)
            refusal = 401, "this is not the token", {"www-authenticate": "Bearer"}
            return None if fits else refusal
        token = _cookie(headers.get("cookie", ""))
        session = self._sessions.get(token)
        if session is not None and session.until < time.monotonic():
            self._sessions.pop(token)
            session = None
        if session is None:
            if path in OPEN or path.startswith("/assets/"):
                return None
            if path.startswith("/api/"):
                return 401, "log in first", {}
            return 303, "log in first", {"location": "/login"}
        scope["state"] |= {"csrf": session.csrf, "token": token}
        given = headers.get("x-csrf-token", "").encode("latin-1", "replace")
        wants_token = scope["method"] not in SAFE and path != "/api/login"
        if wants_token and not hmac.compare_digest(given, session.csrf.encode()):
            return 403, "the CSRF token is missing or wrong", {}
        return None

    def _with_headers(self, scope: Scope, headers: dict[str, str], send: Send) -> Send:
        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                more = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                if self._encrypted:
                    more.append((b"strict-transport-security", b"max-age=31536000"))
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


def _network(address: str) -> str:
    """Return what requests are counted by: an IPv4 address, the /64 of an IPv6 address."""
    try:
        found = ipaddress.ip_address(_plain(address))
    except ValueError:
        return "?"
    return str(found if found.version == 4 else ipaddress.ip_network((found, 64), strict=False))


def _plain(address: str) -> str:
    """Return an address; an IPv4 address in IPv6's notation (::ffff:192.0.2.1) as it is."""
    try:
        mapped = ipaddress.IPv6Address(address).ipv4_mapped
    except ValueError:
        return address
    return str(mapped) if mapped else address


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


def _cookie(header: str) -> str:
    for each in header.split(";"):
        name, _, value = each.strip().partition("=")
        if name == COOKIE:
            return value
    return ""
