"""The service: one HTTP server, one subscription, and as many pages as look at them."""

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from streamtwl import folders
from streamtwl.config import WebSettings
from streamtwl.endpoints import is_local
from streamtwl.errors import SinkError, UsageError
from streamtwl.messages import JOURNALLED, AnyMessage, encode
from streamtwl.services.service import Feed, Figures
from streamtwl.services.web.access import Access, Password
from streamtwl.services.web.api import ASSETS, Api
from streamtwl.services.web.live import Hub
from streamtwl.services.web.marks import Marking
from streamtwl.services.web.past import Past
from streamtwl.sinks.journal import Entry, Journal
from streamtwl.sinks.repeats import Repeated, Repeats, entry

_log = logging.getLogger(__name__)

CONNECTIONS = 200  # at once; beyond that 503
BACKLOG = 128
KEEP_ALIVE_S = 20
END_S = 1  # for answers under way
BATCH_S = 0.5  # from one commit to a journal of our own to the next
PATIENCE_S = 5.0  # with it
BATCH = 2000  # messages that wait for it at most
PASSWORD, TOKEN = "STREAMTWL_WEB_PASSWORD", "STREAMTWL_WEB_TOKEN"
SHORTEST_TOKEN = 20  # characters


class Web:
    """A `Service`."""

    name = "web"

    def __init__(self, settings: WebSettings) -> None:
        """Raises UsageError for an address that others reach and nothing protects."""
        self._host, self._port = _address(settings.address)
        self._settings = settings
        if settings.certificate_key and not settings.certificate:
            raise UsageError("services.web.certificate_key: it takes a certificate, too")
        secret = _secret("password_file", settings.password_file, PASSWORD)
        token = _secret("token_file", settings.token_file, TOKEN)
        if token and not secret:
            raise UsageError("services.web: a token is for programs; it takes a password, too")
        if token and len(token) < SHORTEST_TOKEN:
            raise UsageError(
                f"services.web: a token takes {SHORTEST_TOKEN} characters or more, as "
                "`openssl rand -hex 20` makes them"
            )
        local = is_local(f"tcp://{self._host}:{self._port}")
        if not (local or secret or settings.proxy):
            raise UsageError(
                f"--web {settings.address}: others reach this address: set a password "
                f"(${PASSWORD}, or password_file under [services.web] in the pipeline), or name "
                "the proxy before it (proxy)"
            )
        self._private = bool(secret) or (local and not settings.proxy)
        self._access = Access(
            password=Password(secret) if secret else None,
            proxy=_proxy(settings.proxy),
            hosts=_hosts(self._host),
            encrypted=bool(settings.certificate),
            token=token,
        )
        self._hub = Hub()
        self.address: str | None = None  # of the page, once it is there
        self._dropped = 0  # messages that a journal of our own had no room for

    def figures(self) -> Figures:
        """Return the pages that are open, and what they and the addresses were refused."""
        return {
            "pages": float(len(self._hub.pages)),
            "dropped": float(self._hub.dropped + self._dropped),
            "refused": float(self._access.refused),
        }

    async def run(self, feed: Feed) -> None:
        """Serve; raises SinkError where the address is in use, UsageError for bad TLS files."""
        here = is_local(feed.connect)
        kept = folders.expand(self._settings.journal) if self._settings.journal else None
        past = Past(kept, self._hub if here or kept is not None else None, owned=not here)
        self._hub.begin(feed.figures, spectrogram=here and self._private)
        marking = Marking(past, here, self._private)
        routes = Api(self._hub, past, self._access, here, marking).app()
        routes.add_exception_handler(404, _nothing_there)
        app = self._access.wrap(routes)
        listening = _bind(self._host, self._port)
        server = _Server(self._config(app))
        host, port = listening.getsockname()[:2]
        scheme = "https" if self._settings.certificate else "http"
        shown = f"[{host}]" if ":" in host else host
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        self.address = f"{scheme}://{shown}:{port}"
        _log.warning("the page is at %s", self.address)
        tasks = [
            asyncio.create_task(server.serve(sockets=[listening])),
            asyncio.create_task(self._follow(feed, None if here else kept)),
            asyncio.create_task(self._hub.draw()),
            asyncio.create_task(self._hub.watch()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            self._hub.end()
            server.should_exit = True
            for task in tasks[1:]:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError, TimeoutError):
                await asyncio.wait_for(asyncio.shield(tasks[0]), END_S + 0.5)
            listening.close()

    async def _follow(self, feed: Feed, kept: Path | None) -> None:
        """Pass the listener's messages to the pages, and into a journal of our own."""
        queue: asyncio.Queue[AnyMessage] = asyncio.Queue(BATCH)
        keeping = asyncio.create_task(_keep(queue, kept)) if kept is not None else None
        try:
            async with feed.open() as messages:
                async for message in messages:
                    self._hub.take(message)
                    if keeping is not None and isinstance(message, JOURNALLED):
                        if queue.full():
                            self._dropped += 1
                        else:
                            queue.put_nowait(message)
        finally:
            if keeping is not None:
                keeping.cancel()

    def _config(self, app: Any) -> uvicorn.Config:
        """Return the server's settings; raises UsageError for TLS files that cannot be used."""
        settings = self._settings
        certificate, key = (
            str(folders.expand(each)) if each else None
            for each in (settings.certificate, settings.certificate_key)
        )
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            http="h11",
            ws="none",
            limit_concurrency=CONNECTIONS,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=END_S,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        try:
            config.load()
        except OSError as error:  # ssl's errors are some
            raise UsageError(
                f"services.web.certificate {settings.certificate}, certificate_key "
                f"{settings.certificate_key}: {error.strerror or error}"
            ) from None
        return config


class _Server(uvicorn.Server):
    """One that leaves signals to `streamtwl serve`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _nothing_there(request: Request, _error: Exception) -> Response:
    """Answer for an address that is none: the page says so itself, with its links."""
    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": f"there is no {request.url.path}"}, 404)
    return FileResponse(ASSETS / "index.html", 404, {"cache-control": "no-cache"})


async def _keep(queue: asyncio.Queue[AnyMessage], path: Path) -> None:
    """Write messages into a journal of our own: the listener's is on another machine.

    As the listener does: repeats as a summary.
    """
    journal = await asyncio.to_thread(Journal, path)
    repeats = Repeats(replayed=False)
    try:
        while True:
            batch = [await queue.get()]
            await asyncio.sleep(BATCH_S)
            while not queue.empty():
                batch.append(queue.get_nowait())
            entries = [one for each in batch for one in _entries(repeats, each)] + repeats.due()
            if entries and not await asyncio.to_thread(journal.commit, entries, PATIENCE_S):
                repeats.forget()
    finally:
        journal.commit(repeats.due(all_of_it=True), PATIENCE_S)
        journal.close()


def _entries(repeats: Repeats, message: AnyMessage) -> list[Entry]:
    if repeats.is_repeat(message) and isinstance(message, Repeated):
        return repeats.hold(message, b"")
    return [*repeats.before(message), entry(message, encode(message))]


def _address(named: str) -> tuple[str, int]:
    """Return host and port of [host:]port; raises UsageError."""
    host, _, port = named.rpartition(":")
    if not port.isdecimal() or int(port) > 65_535:
        raise UsageError(f"--web '{named}': it takes [HOST:]PORT, as 127.0.0.1:8765")
    return host.strip("[]").replace("*", "0.0.0.0") or "127.0.0.1", int(port)


def _secret(option: str, file: str, variable: str) -> str:
    """Return a secret, "" where there is none; raises UsageError."""
    if not file:
        return os.environ.get(variable, "")
    path = folders.expand(file)
    try:
        lines = path.read_text().splitlines()
        mode = path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or "it is not text"
        raise UsageError(f"services.web.{option} {path}: {problem}") from None
    if mode & 0o077:
        raise UsageError(f"services.web.{option} {path}: others can read it: chmod 600 {path}")
    if not lines or not lines[0]:
        raise UsageError(f"services.web.{option} {path}: its first line is empty")
    return lines[0]


def _proxy(named: str) -> str | None:
    """Return the proxy's address as peers have it; raises UsageError."""
    if not named:
        return None
    try:
        return str(ipaddress.ip_address(named))
    except ValueError:
        raise UsageError(f"services.web.proxy '{named}': it takes an IP address") from None


def _hosts(host: str) -> frozenset[str]:
    """Return the names by which a page without a password may be called up.

    Others could be the names of a stranger's site that resolve to this machine (DNS rebinding).
    """
    return frozenset({"localhost", "127.0.0.1", "::1", host})


def _bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound; raises SinkError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen(BACKLOG)
        except BaseException:
            bound.close()
            raise
    except OSError as error:
        raise SinkError(f"--web {host}:{port}: {error.strerror or error}") from None
    return bound
