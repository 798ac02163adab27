"""Servers on loopback: FFmpeg's HTTP listener, a web server, and an RTSP server that wants a user.

All but the web server are programs of others, in processes of their own.
"""

import base64
import contextlib
import http.server
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import PATIENCE_S

USER, PASSWORD = "anna", "s3cret"
AUTHORIZATION = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def wait_for(port: int) -> None:
    """Return when a server takes connections."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)


@contextlib.contextmanager
def process(*command: object) -> Iterator[subprocess.Popen]:
    """Run a program until the end of the block."""
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    with subprocess.Popen([*map(str, command)], stderr=subprocess.DEVNULL, **quiet) as running:
        try:
            yield running
        finally:
            running.kill()


def ffmpeg(sound: Path, port: int):
    """FFmpeg as a radio: one listener, in real time, again and again."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg: apt-get install ffmpeg")
    play = ("-re", "-stream_loop", "-1", "-i", sound, "-c", "copy", "-f", sound.suffix[1:])
    address = f"http://127.0.0.1:{port}/live"
    return process("ffmpeg", "-nostdin", "-loglevel", "error", *play, "-listen", "1", address)


def rtsp_server(folder: Path, port: int):
    """A camera for each file of the folder, as rtsp://127.0.0.1:PORT/FILE, A-law at 8 kHz."""
    pytest.importorskip("aio_rtsp_toolkit", reason="no aio-rtsp-toolkit: it is in the extra `test`")
    program = "import asyncio, sys; from aio_rtsp_toolkit import server; " + (
        "asyncio.run(server.serve(sys.argv[1], '127.0.0.1', int(sys.argv[2]), control_port=0))"
    )
    return process(sys.executable, "-c", program, folder, port)


@contextlib.contextmanager
def rtsp_gate(port: int) -> Iterator[int]:
    """A port in front of an RTSP server that lets only USER in."""
    with socket.create_server(("127.0.0.1", 0)) as gate:

        def copy(source: socket.socket, target: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while received := source.recv(65536):
                    target.sendall(received)
            for end in (source, target):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

        def serve(client: socket.socket) -> None:
            with client, contextlib.suppress(OSError):
                request = client.recv(65536).decode()
                while request and AUTHORIZATION not in request:
                    number = request.partition("CSeq: ")[2].partition("\r\n")[0]
                    client.sendall(
                        f"RTSP/1.0 401 Unauthorized\r\nCSeq: {number}\r\n"
                        'WWW-Authenticate: Basic realm="camera"\r\n\r\n'.encode()
                    )
                    request = client.recv(65536).decode()
                with socket.create_connection(("127.0.0.1", port)) as server:
                    server.sendall(request.encode())
                    back = threading.Thread(target=copy, args=(server, client), daemon=True)
                    back.start()
                    copy(client, server)
                    back.join()

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = gate.accept()
                    threading.Thread(target=serve, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield gate.getsockname()[1]


@dataclass
class Web:
    """A web server: what it has by path, and what was wanted of it."""

    port: int
    pages: dict[str, bytes | int] = field(default_factory=dict)  # by path; or an HTTP status
    lengths: dict[str, int | None] = field(default_factory=dict)  # said, where not the page's own
    wanted: list[str] = field(default_factory=list)
    private: bool = False  # it wants USER and PASSWORD


@contextlib.contextmanager
def web_server(certificate: Path | None = None) -> Iterator[Web]:
    """Serve pages over http, or https with a certificate."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            web.wanted.append(self.path)
            page = web.pages.get(self.path.partition("?")[0], 404)
            if web.private and self.headers["Authorization"] != AUTHORIZATION:
                page = 401
            if isinstance(page, int):
                self.send_response(page)
                self.send_header("WWW-Authenticate", 'Basic realm="radio"')
                self.end_headers()
                return
            self.send_response(200)
            length = web.lengths.get(self.path, len(page))
            if length is not None:
                self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_arguments) -> None:
            """Say nothing."""

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_arguments) -> None:
            """A client that went, or did not trust the certificate."""

    with Server(("127.0.0.1", 0), Handler) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        web = Web(server.server_port)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield web
        finally:
            server.shutdown()


def make_certificate(folder: Path) -> Path:
    """A key and a certificate for 127.0.0.1 that it signed itself, in one file."""
    file = folder / "server.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", folder / "key.pem", "-out", folder / "certificate.pem"),
        ],
        check=True,
        capture_output=True,
    )
    file.write_text("".join((folder / f"{n}.pem").read_text() for n in ("key", "certificate")))
    return file
