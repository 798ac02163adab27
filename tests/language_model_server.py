"""A language model's server on loopback that answers as a test wants it to, also wrongly."""

import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Handler = http.server.BaseHTTPRequestHandler
Act = Callable[[Handler, dict[str, Any]], None]


@dataclass
class Server:
    """Its address, what it received, and what it does, one act a request; the last one goes on."""

    port: int
    acts: list[Act]
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    received: threading.Event = field(default_factory=threading.Event)
    going: threading.Event = field(default_factory=threading.Event)  # ends what hangs

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


@contextlib.contextmanager
def language_model(*acts: Act) -> Iterator[Server]:
    """Serve until the end of the block."""

    class Requests(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.paths.append(self.path)
            served.headers.append({name.lower(): value for name, value in self.headers.items()})
            served.requests.append(body)
            act = served.acts.pop(0) if len(served.acts) > 1 else served.acts[0]
            served.received.set()
            act(self, body)

        def do_GET(self) -> None:
            self.do_POST()  # a redirect that was followed

        def log_message(self, *_arguments) -> None:
            """Say nothing."""

    class Quiet(http.server.ThreadingHTTPServer):
        def handle_error(self, *_arguments) -> None:
            """A client that went."""

    with Quiet(("127.0.0.1", 0), Requests) as server:
        server.daemon_threads = True
        server.block_on_close = False
        served = Server(server.server_port, list(acts))
        server.served = served
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield served
        finally:
            served.going.set()
            server.shutdown()


def sends(text: str, status: int = 200, **headers: str) -> Act:
    """Send a whole reply."""

    def act(to: Handler, _body: dict[str, Any]) -> None:
        payload = text.encode()
        to.send_response(status)
        for name, value in {"Content-Length": str(len(payload)), **headers}.items():
            to.send_header(name.replace("_", "-"), value)
        to.end_headers()
        to.wfile.write(payload)

    return act


def says(content: str | None, **more: Any) -> Act:
    """Answer a chat, or a completion, with that text."""
    choice = {"message": {"content": content, **more}, "text": content, "finish_reason": "stop"}
    return sends(json.dumps({"choices": [choice]}), Content_Type="application/json")


def repeats(content: Callable[[str], str]) -> Act:
    """Send a reply with the request's headers in it, as some proxies do to help."""

    def act(to: Handler, body: dict[str, Any]) -> None:
        sends(content(to.headers["Authorization"]))(to, body)

    return act


def names(label: str, **more: Any) -> Act:
    """Answer as a chat model with structured output does."""
    return says(json.dumps({"label": label}), **more)


def hangs(before: bytes = b"") -> Act:
    """Send the beginning of a reply, and then nothing."""

    def act(to: Handler, _body: dict[str, Any]) -> None:
        if before:
            to.send_response(200)
            to.send_header("Content-Length", "1000")
            to.end_headers()
            to.wfile.write(before)
            to.wfile.flush()
        to.server.served.going.wait()

    return act


def drips(to: Handler, _body: dict[str, Any]) -> None:
    """Send a byte now and then, for ever: no single wait is long."""
    to.send_response(200)
    to.end_headers()
    while not to.server.served.going.wait(0.02):
        to.wfile.write(b" ")
        to.wfile.flush()


def floods(to: Handler, _body: dict[str, Any]) -> None:
    """Send more than anybody wants."""
    to.send_response(200)
    to.end_headers()
    while not to.server.served.going.is_set():
        to.wfile.write(b" " * 65536)


def hangs_up(to: Handler, _body: dict[str, Any]) -> None:
    """Close the connection in the middle of a reply."""
    to.send_response(200)
    to.send_header("Content-Length", "1000")
    to.end_headers()
    to.wfile.write(b'{"choices": [')
