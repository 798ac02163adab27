"""The service: one HTTP server, one subscription, and as many pages as look at them."""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response

from streamtwl import folders
from streamtwl.config import WebSettings
from streamtwl.endpoints import can_be_host, is_local
from streamtwl.errors import JournalError, SinkError, UsageError
from streamtwl.messages import JOURNALLED, AnyMessage, encode
from streamtwl.services.server import Once
from streamtwl.services.service import Feed, Figures
from streamtwl.services.web import credentials
from streamtwl.services.web.access import Access, Password
from streamtwl.services.web.api import ASSETS, Api
from streamtwl.services.web.connections import BACKLOG, CONNECTIONS, OF_ONE, Impatient, Listening
from streamtwl.services.web.live import Hub
from streamtwl.services.web.marks import Marking
from streamtwl.services.web.past import Past
from streamtwl.services.web.peers import plain
from streamtwl.sinks.journal import Entry, Journal
from streamtwl.sinks.repeats import Repeated, Repeats, entry

_log = logging.getLogger(__name__)

KEEP_ALIVE_S = 20
END_S = 1  # for answers under way
BATCH_S = 0.5  # from one commit to a journal of our own to the next
PATIENCE_S = 5.0  # with it
BATCH = 2000  # messages that wait for it at most
AGAIN_S = 60.0  # from one try to open it to the next

_once_an_hour = Once(3600.0)


class Web:
    """A `Service`."""

    name = "web"

    def __init__(self, settings: WebSettings) -> None:
        """Raises UsageError for an address that others reach and nothing protects."""
        self._host, self._port = _address(settings.address)
        self._settings = settings
        password, token = credentials.password_and_token(settings)
        self._tls = credentials.tls_files(settings)
        local = is_local(f"tcp://{self._host}:{self._port}")
        if not (local or password or settings.proxy):
            raise UsageError(
                f"--web {settings.address}: others reach this address: set a password "
                f"(${credentials.PASSWORD}, or password_file under [services.web] in the "
                "pipeline), or name the proxy before it (proxy)"
            )
        self._proxy = _proxy(settings.proxy)
        if self._proxy and not (password or settings.names):
            raise UsageError(
                "services.web.proxy without a password takes names, too: those by which the page "
                'is called up at the proxy, as names = ["ears.lan"]'
            )
        self._key = "" if password or self._proxy else credentials.key()
        self._access = Access(
            password=Password(password) if password else None,
            proxy=self._proxy,
            hosts=_hosts(self._host, settings),
            encrypted=bool(settings.certificate),
            token=token,
            key=self._key,
        )
        self._hub = Hub()
        self.address: str | None = None  # of the page, once it is there
        self.link = ""  # the same, with the key
        self._listening: Listening | None = None
        self._dropped = 0  # messages that a journal of our own had no room for

    def figures(self) -> Figures:
        """Return the pages that are open, and what they and the addresses were refused."""
        return {
            "pages": float(len(self._hub.pages)),
            "dropped": float(self._hub.dropped + self._dropped),
            "refused": float(self._access.refused),
            "refused_connections": float(self._listening.refused if self._listening else 0),
        }

    async def run(self, feed: Feed) -> None:
        """Serve; raises SinkError where the address is in use, or TLS files are bad meanwhile."""
        here = is_local(feed.connect)
        kept = folders.expand(self._settings.journal) if self._settings.journal else None
        past = Past(kept, self._hub if here or kept is not None else None, owned=not here)
        self._hub.begin(feed.figures, spectrogram=here)
        routes = Api(self._hub, past, self._access, here, Marking(past, here)).app()
        routes.add_exception_handler(404, _nothing_there)
        routes.add_exception_handler(405, _not_so)
        routes.add_exception_handler(ClientDisconnect, _cut_off)
        app = self._access.wrap(routes)
        config = self._config(app)
        listening = self._listening = _bind(
            self._host, self._port, CONNECTIONS if self._proxy else OF_ONE
        )
        server = _Server(config)
        self._say_where(*listening.getsockname()[:2])
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

    def _say_where(self, host: str, port: int) -> None:
        scheme = "https" if self._settings.certificate else "http"
        shown = f"[{host}]" if ":" in host else host
        self.address = f"{scheme}://{shown}:{port}"
        self.link = f"{self.address}/?key={self._key}" if self._key else self.address
        everywhere = host in ("0.0.0.0", "::")
        name = self.link.replace(shown, socket.gethostname()) if everywhere else self.link
        _log.warning("the page is at %s", name)

    async def _follow(self, feed: Feed, kept: Path | None) -> None:
        """Pass the listener's messages to the pages, and into a journal of our own."""
        queue: asyncio.Queue[AnyMessage] = asyncio.Queue(BATCH)
        keeping = asyncio.create_task(_keep(queue, kept)) if kept is not None else None
        try:
            async with feed.open() as messages:
                async for message in messages:
                    self._hub.take(message)
                    if keeping is not None and isinstance(message, JOURNALLED):
                        if keeping.done():
                            keeping.result()  # which raises
                        if queue.full():
                            self._dropped += 1
                        else:
                            queue.put_nowait(message)
        finally:
            if keeping is not None:
                keeping.cancel()

    def _config(self, app: Any) -> uvicorn.Config:
        """Return the server's settings; raises SinkError for TLS files that became unusable."""
        for name in ("uvicorn", "uvicorn.error"):
            logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger("uvicorn.error").addFilter(_once_an_hour)
        certificate, key = self._tls
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            http=Impatient,
            ws="none",
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=END_S,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        try:
            credentials.tls_files(self._settings)
            config.load()
        except (UsageError, OSError) as error:
            raise SinkError(str(error)) from None
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


async def _not_so(request: Request, _error: Exception) -> Response:
    """Answer a method that an address does not take."""
    return JSONResponse({"error": f"{request.url.path} does not take {request.method}"}, 405)


async def _cut_off(_request: Request, _error: Exception) -> Response:
    """Answer one whose request is too long, or who has gone."""
    return JSONResponse({"error": "the request is too long, or was cut off"}, 413)


async def _keep(queue: asyncio.Queue[AnyMessage], path: Path) -> None:
    """Write messages into a journal of our own: the listener's is on another machine.

    As the listener does: repeats as a summary.
    """
    journal = await _opened(path)
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


async def _opened(path: Path) -> Journal:
    """Return a journal, as soon as it can be one."""
    said = False
    while True:
        try:
            return await asyncio.to_thread(Journal, path)
        except JournalError as error:
            if not said:
                _log.warning("services.web.journal: %s; it is tried again", error)
            said = True
        await asyncio.sleep(AGAIN_S)


def _entries(repeats: Repeats, message: AnyMessage) -> list[Entry]:
    if repeats.is_repeat(message) and isinstance(message, Repeated):
        return repeats.hold(message, b"")
    return [*repeats.before(message), entry(message, encode(message))]


def _address(named: str) -> tuple[str, int]:
    """Return host and port of [host:]port; raises UsageError."""
    host, _, port = named.rpartition(":")
    if not port.isdecimal() or int(port) > 65_535:
        raise UsageError(f"--web '{named}': it takes [HOST:]PORT, as 127.0.0.1:8765")
    host = host.strip("[]").replace("*", "0.0.0.0") or "127.0.0.1"
    if not can_be_host(host):
        raise UsageError(f"--web '{named}': '{host}' is no name of a host")
    return host, int(port)


def _proxy(named: str) -> str | None:
    """Return the proxy's address as peers have it; raises UsageError."""
    if not named:
        return None
    try:
        return plain(str(ipaddress.ip_address(named)))
    except ValueError:
        raise UsageError(f"services.web.proxy '{named}': it takes an IP address") from None


def _hosts(host: str, settings: WebSettings) -> frozenset[str]:
    """Return the names by which a page without a password may be called up.

    Others could be the names of a stranger's site that resolve to this machine (DNS rebinding).
    """
    if settings.proxy:
        return frozenset(name.lower() for name in settings.names)
    return frozenset({"localhost", "127.0.0.1", "::1", host, *map(str.lower, settings.names)})


def _bind(host: str, port: int, of_one: int) -> Listening:
    """Return a socket that is bound; raises SinkError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = Listening(of_one, family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen(BACKLOG)
        except BaseException:
            bound.close()
            raise
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SinkError(
                f"{host}:{port} is in use, perhaps by another streamtwl: choose one, as "
                f"--web {port + 1}"
            ) from None
        raise SinkError(f"--web {host}:{port}: {error.strerror or error}") from None
    return bound
