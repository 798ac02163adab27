"""Downloads from a web server on loopback: resumed, bounded, and said in one line."""

import contextlib
import hashlib
import http.server
import json
import socket
import threading

import numpy as np
import pytest

from streamtwl.errors import ModelError, NoAnswerError, UsageError
from streamtwl.models import download
from streamtwl.models.download import Download

CONTENT = np.random.default_rng(3).bytes(300_000)
SIZE = len(CONTENT)
TAG = '"first"'


class Server(http.server.ThreadingHTTPServer):
    """Gives one file; what it does wrong is set by the test."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.tag = CONTENT, TAG
        self.cut_after: list[int] = []  # bytes of the body after which a response breaks off
        self.status: int | None = None
        self.location: str | None = None
        self.ranges: list[str | None] = []  # of the requests
        self.url = f"http://127.0.0.1:{self.server_port}/v1/weights.pt"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        wanted = self.headers.get("Range")
        server.ranges.append(wanted)
        if server.status:
            self.send_response(server.status)
            if server.location:
                self.send_header("Location", server.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = 0
        if wanted and self.headers.get("If-Range") == server.tag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        if start >= len(server.content):
            self.send_error(416)
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        if server.tag:
            self.send_header("ETag", server.tag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cut_after.pop(0) if server.cut_after else None])

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "STREAMTWL_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


@pytest.fixture
def scratch(tmp_path):
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def wanted(server, size=SIZE) -> Download:
    return Download(server.url, size, hashlib.sha256(CONTENT).hexdigest())


def test_a_file_comes_whole_after_one_line_with_host_and_size(server, folder, scratch):
    said, progress = [], []
    got = wanted(server).fetch(folder, scratch, lambda *done: progress.append(done), said.append)
    assert got == scratch / "weights.pt"
    assert got.read_bytes() == CONTENT
    assert said == ["fetching weights.pt (0.3 MB) from 127.0.0.1"]
    assert progress[-1] == (len(CONTENT), len(CONTENT))
    assert list(folder.iterdir()) == []


def test_what_breaks_off_is_continued_in_the_same_run(server, folder, scratch):
    server.cut_after = [100_000, 50_000]
    got = wanted(server).fetch(folder, scratch)
    assert got.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_what_broke_off_for_good_is_continued_by_the_next_run(server, folder, scratch):
    server.cut_after = [100_000, 0]
    with pytest.raises(ModelError, match=r"broke off.*goes on from 0\.1 MB.*put it into") as raised:
        wanted(server).fetch(folder, scratch)
    assert "\n" not in str(raised.value)
    assert (folder / "weights.pt.part").read_bytes() == CONTENT[:100_000]
    assert wanted(server).fetch(folder, scratch).read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=100000-"
    assert list(folder.iterdir()) == []


def test_a_file_that_changed_at_the_server_is_fetched_anew(server, folder, scratch):
    server.cut_after = [100_000, 0]
    with pytest.raises(ModelError):
        wanted(server).fetch(folder, scratch)
    server.content, server.tag = CONTENT[::-1], '"second"'
    assert wanted(server).fetch(folder, scratch).read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("tag", ["", 'W/"weak"'])
def test_without_a_strong_tag_it_begins_anew(tag, server, folder, scratch):
    server.tag, server.cut_after = tag, [100_000]
    assert wanted(server).fetch(folder, scratch).read_bytes() == CONTENT
    assert server.ranges == [None, None]


@pytest.mark.parametrize(
    "card", ["", "[]", "{", '["http://other.example/weights.pt", "\\"first\\""]', "[1, 2]"]
)
def test_what_is_kept_of_something_else_is_not_continued(card, server, folder, scratch):
    (folder / "weights.pt.part").write_bytes(b"x" * 1000)
    (folder / "weights.pt.part.json").write_text(card)
    assert wanted(server).fetch(folder, scratch).read_bytes() == CONTENT
    assert server.ranges == [None]


def test_all_kept_by_a_process_that_was_killed_is_no_dead_end(server, folder, scratch):
    (folder / "weights.pt.part").write_bytes(CONTENT)
    (folder / "weights.pt.part.json").write_text(json.dumps([server.url, TAG]))
    assert wanted(server).fetch(folder, scratch).read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT)}-", None]


@pytest.mark.parametrize("status", [403, 404, 416, 500, 503])
def test_a_refusal_is_one_line_and_no_wait(status, server, folder, scratch):
    server.status = status
    with pytest.raises(ModelError, match=f"weights.pt from 127.0.0.1 .HTTP {status}") as raised:
        wanted(server).fetch(folder, scratch)
    assert not isinstance(raised.value, NoAnswerError)
    assert "\n" not in str(raised.value)


def test_redirections_without_end_are_one_line(server, folder, scratch):
    server.status, server.location = 302, server.url
    with pytest.raises(ModelError, match="HTTP 302") as raised:
        wanted(server).fetch(folder, scratch)
    assert "\n" not in str(raised.value)


def test_a_much_larger_file_is_another_one(server, folder, scratch):
    with pytest.raises(ModelError, match="another file"):
        wanted(server, size=1000).fetch(folder, scratch)


def test_nobody_there_is_one_line_and_no_wait(server, folder, scratch):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ModelError, match="refused") as raised:
        Download(f"http://127.0.0.1:{port}/weights.pt", 10).fetch(folder, scratch)
    assert not isinstance(raised.value, NoAnswerError)


def test_a_host_that_takes_no_connection_is_no_answer(server, folder, scratch, monkeypatch):
    """As a firewall that drops, or name servers that do not answer: the call does not return."""
    ended = threading.Event()
    monkeypatch.setattr(download, "CONNECT_S", 0.05)
    monkeypatch.setattr(socket, "create_connection", lambda *_: ended.wait())
    with pytest.raises(NoAnswerError, match=r"no answer from 127\.0\.0\.1 within"):
        wanted(server).fetch(folder, scratch)
    ended.set()


def test_a_host_that_takes_connections_and_says_nothing_is_no_answer(
    server, folder, scratch, monkeypatch
):
    monkeypatch.setattr(download, "READ_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/weights.pt"
        with pytest.raises(NoAnswerError, match="no answer in time"):
            Download(url, 10).fetch(folder, scratch)


def test_headers_that_never_end_are_no_answer(server, folder, scratch, monkeypatch):
    monkeypatch.setattr(download, "RESPONSE_S", 0.3)
    ended = threading.Event()

    def drip(listener) -> None:
        listener.accept()[0].close()  # the look whether somebody is there
        connection, _ = listener.accept()
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        with contextlib.suppress(OSError):  # nobody listens any more
            while not ended.wait(0.01):
                connection.sendall(b"X: y\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=drip, args=(listener,), daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/weights.pt"
        with pytest.raises(ModelError):
            Download(url, 10).fetch(folder, scratch)
        ended.set()


def test_a_body_that_is_too_slow_is_given_up(server, folder, scratch, monkeypatch):
    monkeypatch.setattr(download, "GRACE_S", -1.0)
    monkeypatch.setattr(download, "SLOWEST", 1e9)
    with pytest.raises(NoAnswerError, match="slower than"):
        wanted(server).fetch(folder, scratch)


def test_the_proxy_of_the_environment_is_used(server, folder, scratch, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("no_proxy", "")
    got = Download("http://weights.invalid/weights.pt", len(CONTENT)).fetch(folder, scratch)
    assert got.read_bytes() == CONTENT


def test_offline_nothing_is_fetched(server, folder, scratch, monkeypatch):
    monkeypatch.setenv("STREAMTWL_OFFLINE", "1")
    with pytest.raises(ModelError, match=f"weights.pt.*--offline.*put it into {folder}"):
        wanted(server).fetch(folder, scratch)
    assert server.ranges == []
    (folder / "weights.pt").write_bytes(b"placed by hand")
    assert wanted(server).fetch(folder, scratch) == folder / "weights.pt"


@pytest.mark.parametrize(
    "url",
    [
        *("http://", "http:///path", "http://[", "http://host:port/x", "http://host:99999/x"),
        *("https://me:secret@host/x", "ftp://host/x"),
    ],
)
def test_what_is_no_address_is_refused_and_no_password_repeated(url):
    with pytest.raises(UsageError, match="--from: it takes") as raised:
        download.check(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://host/a/weights.pt?token=1", "weights.pt"),
        ("http://host/", "download"),
        ("http://host/a%2F..%2Fweights.pt", "weights.pt"),
    ],
)
def test_a_file_is_called_by_the_last_part_of_its_path(url, name):
    assert Download(url, 1).file == name
