"""What the page requests, and anyone else may: JSON under /api/, as `operations.py` says."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from streamtwl import __version__
from streamtwl.errors import UNDECODABLE, JournalError, SoundsError, StreamtwlError, UsageError
from streamtwl.services.web import settings, table
from streamtwl.services.web.access import Access, Receive, Scope, Send
from streamtwl.services.web.live import Hub
from streamtwl.services.web.marks import Marking
from streamtwl.services.web.operations import (
    Counted,
    Listed,
    Live,
    Login,
    Minutes,
    Period,
    Thresholds,
    Word,
    openapi,
)
from streamtwl.services.web.past import NoHistoryError, Past
from streamtwl.services.web.peers import network
from streamtwl.services.web.shown import quantiles, status_of

ASSETS = Path(__file__).parent / "assets"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webmanifest": "application/manifest+json",
}
VIEWS = ("/", "/history", "/health", "/settings", "/event/{id}")  # all the same page
BEAT_S = 15.0  # from one sign of life to the next where nothing happens
STUCK_S = 20.0  # that a page may not read, before its connection ends
DAY_S = 86_400.0
LONGEST_S = 32 * DAY_S
SHARED_S = 5.0


class Api:
    """The routes."""

    def __init__(self, hub: Hub, past: Past, access: Access, here: bool, marking: Marking) -> None:
        """`here`: the listener is on this machine."""
        self._hub, self._past, self._access, self._here = hub, past, access, here
        self._marking = marking
        self._files = {
            path.name: (path.read_bytes(), KINDS[path.suffix])
            for path in ASSETS.iterdir()
            if path.suffix in KINDS
        }

    def app(self) -> Starlette:
        """Return the ASGI app."""
        page = self._file("index.html")
        named = {f"/assets/{name}": self._file(name) for name in self._files}
        routes = [
            *(Route(path, page) for path in VIEWS),
            Route("/login", self._file("login.html")),
            Route("/manifest.webmanifest", self._file("manifest.webmanifest")),
            Route("/favicon.ico", self._file("icon.svg")),
            *(Route(path, answer) for path, answer in named.items()),
            Route("/api/openapi.json", lambda _: _json(openapi())),
            *(
                Route(path, self._answering(work), methods=[method])
                for method, path, work, *_ in self._operations()
            ),
            Route("/api/live", _AsApp(self._live), methods=["GET"]),
        ]
        return Starlette(routes=routes)

    def _operations(self) -> list[tuple]:
        return [
            ("GET", "/api/session", self._session),
            ("POST", "/api/login", self._login),
            ("POST", "/api/logout", self._logout),
            ("GET", "/api/state", self._state),
            ("GET", "/api/events", self._events),
            ("GET", "/api/events.csv", self._table),
            ("GET", "/api/events/{id}", self._event),
            ("GET", "/api/events/{id}/clip", self._clip),
            ("POST", "/api/events/{id}/mark", self._mark),
            ("DELETE", "/api/events/{id}/mark", self._unmark),
            ("GET", "/api/counts", self._counts),
            ("GET", "/api/levels", self._levels),
            ("GET", "/api/settings", self._settings),
            ("GET", "/api/what-if", self._what_if),
            ("GET", "/api/health", self._health),
        ]

    def _file(self, name: str) -> Callable[[Request], Response]:
        content, kind = self._files[name]
        # Pages are small, and a new version is to be seen at once
        return lambda _: Response(content, media_type=kind, headers={"cache-control": "no-cache"})

    def _answering(self, work: Callable[[Request], Awaitable[Any]]) -> Callable:
        async def answer(request: Request) -> Response:
            try:
                found = await work(request)
            except NoHistoryError as error:
                return _json({"error": str(error)}, 404)
            except (UsageError, msgspec.ValidationError) as error:
                return _json({"error": str(error)}, 400)
            except (JournalError, SoundsError, StreamtwlError) as error:
                return _json({"error": str(error)}, 503)
            return found if isinstance(found, Response) else _json(found)

        return answer

    async def _session(self, request: Request) -> Any:
        state = request.scope["state"]
        return {
            "csrf": state["csrf"],
            "password": self._access.has_password,
            "trusted": state["trusted"],
            "version": __version__,
        }

    async def _login(self, request: Request) -> Any:
        try:
            given = msgspec.json.decode(await request.body(), type=Login)
        except UNDECODABLE:
            return _json({"error": 'it takes {"password": "..."}'}, 400)
        token, wait_s = await self._access.login(request.scope, given.password)
        if wait_s:
            seconds = math.ceil(wait_s)
            refusal = {"error": f"too many attempts: wait {seconds} s"}
            return _json(refusal, 429, {"retry-after": str(seconds)})
        if token is None:
            return _json({"error": "this is not the password"}, 403)
        return _json({"ok": True}, 200, {"set-cookie": self._access.cookie(request.scope, token)})

    async def _logout(self, request: Request) -> Any:
        self._access.logout(request.scope)
        return _json({"ok": True}, 200, {"set-cookie": self._access.cookie(request.scope, "")})

    async def _state(self, request: Request) -> Any:
        return self._hub.snapshot(_trusted(request))

    async def _events(self, request: Request) -> Any:
        wanted = _query(request, Listed)
        found = await self._past.events(*_span(wanted), *_those(wanted), bool(wanted.began))
        page = found[wanted.offset : wanted.offset + wanted.limit]
        listed = [self._past.shown(each) for each in page]
        shown = await self._marking.beside(listed, _trusted(request))
        return {"total": len(found), "events": shown}

    async def _table(self, request: Request) -> Any:
        wanted = _query(request, Period)
        found = await self._past.events(*_span(wanted), *_those(wanted), bool(wanted.began))
        rows = map(self._past.shown, found)
        content = await asyncio.to_thread(table.of, rows)
        return Response(content, media_type="text/csv", headers=table.HEADERS)

    async def _event(self, request: Request) -> Any:
        identity = request.path_params["id"]
        found = await self._past.event(identity)
        if not found:
            return _json({"error": "there is no such event, or no more"}, 404)
        known = self._hub.sources.get(found["event"]["source"])
        labels = known.hello.labels if known and known.hello else []
        marking = await self._marking.of(identity, _trusted(request))
        return found | {"marking": marking, "labels": labels}

    async def _clip(self, request: Request) -> Any:
        path, status = await self._marking.clip(request.path_params["id"], _trusted(request))
        return FileResponse(path, media_type="audio/flac", stat_result=status)

    async def _mark(self, request: Request) -> Any:
        try:
            word = msgspec.json.decode(await request.body(), type=Word)
        except UNDECODABLE:
            return _json({"error": 'it takes {"verdict": "right" or "wrong", "was": "..."}'}, 400)
        return await self._marking.mark(request.path_params["id"], word.verdict, word.was.strip())

    async def _unmark(self, request: Request) -> Any:
        return await self._marking.undo(request.path_params["id"])

    async def _counts(self, request: Request) -> Any:
        wanted = _query(request, Counted)
        return await self._past.counts(wanted.period, _until(wanted.until), *_those(wanted))

    async def _levels(self, request: Request) -> Any:
        wanted = _query(request, Minutes)
        return await self._past.levels(*_span(wanted), wanted.source or "*")

    async def _settings(self, _request: Request) -> Any:
        return await settings.shown(self._hub, self._past, _until(0.0), self._here)

    async def _what_if(self, request: Request) -> Any:
        wanted = _query(request, Thresholds)
        if wanted.off > wanted.on:
            raise UsageError(f"off ({wanted.off:g}) is above on ({wanted.on:g})")
        return await self._past.what_if(wanted.label, wanted.on, wanted.off)

    async def _health(self, request: Request) -> Any:
        try:
            journal, problem = str(self._past.path), None
        except StreamtwlError as error:
            journal, problem = None, str(error)
        return {
            "sources": {
                name: {
                    "away_s": known.away_s,
                    "status": known.status and status_of(known.status),
                    "latency_ms": quantiles(known.latencies),
                    "level": known.level,
                }
                for name, known in self._hub.sources.items()
            },
            "services": self._hub.figures(),
            "journal": journal,
            "no_journal": problem,
            **self._hub.about_spectrogram(_trusted(request)),
        }

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send server-sent events until the page goes, or does not read."""
        request = Request(scope, receive)
        try:
            wanted = _query(request, Live)
        except msgspec.ValidationError as error:
            await _json({"error": str(error)}, 400)(scope, receive, send)
            return
        of = network(scope["state"]["address"])
        page = self._hub.open(bool(wanted.mel), _trusted(request), of)
        if page is None:
            refusal = {"error": "too many pages are open"}
            await _json(refusal, 503, {"retry-after": "30"})(scope, receive, send)
            return
        gone = asyncio.create_task(_gone(receive, page.end))
        try:
            headers = [
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"x-accel-buffering", b"no"),
            ]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            while (chunks := await page.take(BEAT_S)) is not None and self._access.holds(scope):
                body = chunks or b": still here\n\n"
                sent = send({"type": "http.response.body", "body": body, "more_body": True})
                await asyncio.wait_for(sent, STUCK_S)
            await send({"type": "http.response.body", "body": b""})
        except (TimeoutError, OSError):  # it does not read, or has gone
            return
        finally:
            gone.cancel()
            self._hub.close(page)


class _AsApp:
    """An ASGI app as a route's endpoint: no function, so Starlette hands it the connection."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


async def _gone(receive: Receive, end: Callable[[], None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    end()


def _trusted(request: Request) -> bool:
    """Whether who asks may hear: see `access.py`."""
    return bool(request.scope["state"]["trusted"])


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    body = msgspec.json.encode(content)
    return Response(body, status, headers, media_type="application/json")


def _until(said: float) -> float:
    """Return the end of a time; now is rounded so that pages that open together share what is
    read."""
    return said or math.ceil(time.time() / SHARED_S) * SHARED_S


def _span(wanted: Minutes) -> tuple[float, float]:
    until = _until(wanted.until)
    since = wanted.since or until - DAY_S
    if not until - LONGEST_S <= since <= until:
        raise UsageError(f"since {since:.0f}, until {until:.0f}: it takes up to 31 days")
    return since, until


def _those(wanted: Period | Counted) -> tuple[list[str], str]:
    """Return the labels and the source that are wanted."""
    return [wanted.label] if wanted.label else [], wanted.source or "*"


def _query(request: Request, kind: type) -> Any:
    """Return a query's parameters; raises ValidationError for wrong ones."""
    return msgspec.convert(dict(request.query_params), kind, strict=False)
