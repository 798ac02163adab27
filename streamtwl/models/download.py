"""Weights that are one file on a web server: downloads resume where they broke off, and time out.

Proxies are those of the environment (http_proxy, https_proxy, no_proxy), certificate authorities
those of the system or of SSL_CERT_FILE.
"""

import http.client
import json
import logging
import queue
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from streamtwl.errors import ModelError, NoAnswerError, UsageError
from streamtwl.models.wheel import refuse_offline, sha256

_log = logging.getLogger(__name__)
T = TypeVar("T")

CONNECT_S = 5.0  # for a host to be looked up and to answer
READ_S = 15.0  # for the next bytes
RESPONSE_S = 30.0  # for a response to begin, redirections included
SLOWEST = 20_000  # bytes a second, on the whole, ...
GRACE_S = 60.0  # ... after so many seconds
ATTEMPTS = 5  # while each one makes progress
CHUNK = 1 << 16  # bytes


@dataclass(frozen=True, slots=True)
class Download:
    """One file on a web server."""

    url: str
    size: int  # bytes; approximate where `sha256` is None
    sha256: str | None = None  # of a known copy; another file is used if its tensors fit

    @property
    def file(self) -> str:
        """The file's name."""
        return PurePosixPath(unquote(urlsplit(self.url).path)).name or "download"

    @property
    def origin(self) -> str:
        """Its host, for messages."""
        return urlsplit(self.url).hostname or self.url

    def vouch(self, file: Path, announce: Callable[[str], None]) -> str:
        """Return the SHA-256 of a copy, and announce it if it is not the one known."""
        found = sha256(file)
        if found != self.sha256:
            known = (
                f", not {self.sha256}" if self.sha256 else ", and there is none to compare it with"
            )
            announce(f"{file.name} has SHA-256 {found}{known}: taken if its tensors fit")
        return found

    def fetch(
        self,
        folder: Path,
        scratch: Path,
        progress: Callable[[int, int], None] | None = None,
        announce: Callable[[str], None] = _log.warning,
    ) -> Path:
        """Return the path of the file: the one in `folder`, or a fresh one in `scratch`.

        `announce` gets a line with host and size before anything is fetched. A partial download
        stays in `folder`, and the next call resumes it.
        Raises ModelError, NoAnswerError where a host does not answer in time.
        """
        if (folder / self.file).exists():
            return folder / self.file
        refuse_offline(self.file, folder)
        about = "" if self.sha256 else "about "
        announce(f"fetching {self.file} ({about}{self.size / 1e6:.1f} MB) from {self.origin}")
        part = folder / f"{self.file}.part"
        by_hand = f"Or get {self.file} elsewhere and put it into {folder}"
        try:
            await_answer(self.url)
            _receive_all(self, part, progress or (lambda done, total: None))
        except _Failed as error:
            kept = _kept(self.url, part)
            goes_on = f", it goes on from {kept / 1e6:.1f} MB" if kept else ""
            raise (NoAnswerError if error.waited else ModelError)(
                f"cannot download {self.file} from {self.origin} ({error}): check the network and "
                f"try again{goes_on}. {by_hand}"
            ) from None
        got = part.replace(scratch / self.file)
        _validator(part).unlink(missing_ok=True)
        return got


class _Failed(Exception):
    """Why a download cannot go on, in a few words."""

    waited = False  # too long to repeat it at every start


class _Waited(_Failed):
    """It took too long."""

    waited = True


class _BrokeOff(_Waited):
    """The connection broke off; the download can be resumed."""


def check(url: str) -> str:
    """Return the user's address; raises UsageError if it is not one, or holds a password."""
    try:
        split = urlsplit(url)
        whole = split.scheme in ("http", "https") and split.hostname and split.port != 0
    except ValueError:  # of the port, or of brackets
        whole = False
    if not whole or "@" in split.netloc:
        raise UsageError(
            "--from: it takes a file, a folder, or http(s)://HOST/PATH without user and password"
        )
    return url


def await_answer(url: str) -> None:
    """Return when the host of `url`, or the proxy for it, takes a connection.

    Raises _Waited after CONNECT_S, the name's lookup included, which no socket's time-out covers;
    _Failed where it refuses the connection, or there is no host of that name.
    """
    split = urlsplit(url)
    proxy = urllib.request.getproxies().get(split.scheme)
    if proxy and not urllib.request.proxy_bypass(split.hostname or ""):
        split = urlsplit(proxy if "//" in proxy else f"//{proxy}", scheme="http")
    address = (split.hostname or "", split.port or {"https": 443}.get(split.scheme, 80))
    try:
        _within(CONNECT_S, lambda: socket.create_connection(address, CONNECT_S)).close()
    except TimeoutError:
        raise _Waited(f"no answer from {address[0]} within {CONNECT_S:g} s") from None
    except OSError as error:
        raise _Failed(f"{address[0]}: {error.strerror or error}") from None


def _within(seconds: float, call: Callable[[], T]) -> T:
    """Return or raise what `call` does; raise TimeoutError if that takes too long."""
    outcome: queue.SimpleQueue[T | Exception] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put(call())
        except (OSError, http.client.HTTPException, ValueError) as error:
            outcome.put(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        result = outcome.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(result, Exception):
        raise result
    return result


def _receive_all(wanted: Download, part: Path, progress: Callable[[int, int], None]) -> None:
    """Fill `part`, resuming where it broke off; raises _Failed."""
    deadline = time.monotonic() + GRACE_S + wanted.size / SLOWEST
    for attempt in range(ATTEMPTS):
        before = _kept(wanted.url, part)
        try:
            _receive(wanted, part, before, deadline, progress)
            return
        except _BrokeOff:
            if attempt == ATTEMPTS - 1 or part.stat().st_size <= before:
                raise


def _receive(
    wanted: Download,
    part: Path,
    before: int,
    deadline: float,
    progress: Callable[[int, int], None],
) -> None:
    """Take one response: the rest of the file, or all of it where the server's has changed."""
    with _open(wanted.url, part, before) as response:
        done = _begins_at(response, before)
        length = response.length  # bytes to come; None where the server does not say
        total = wanted.size if length is None else done + length
        if total > 2 * wanted.size + CHUNK:
            raise _Failed(f"{total / 1e6:.1f} MB: it is another file")
        _validator(part).write_text(json.dumps([wanted.url, response.headers.get("ETag", "")]))
        with part.open("r+b" if done else "wb") as file:
            file.truncate(done)
            file.seek(done)
            for chunk in _chunks(response):
                file.write(chunk)
                done += len(chunk)
                progress(min(done, total), total)
                if done > 2 * wanted.size + CHUNK:
                    raise _Failed("it does not end: it is another file")
                if time.monotonic() > deadline:
                    raise _Waited(f"slower than {SLOWEST / 1000:.0f} kB/s")
        if length is not None and done < total:
            raise _BrokeOff(f"it broke off after {done / 1e6:.1f} of {total / 1e6:.1f} MB")


def _open(url: str, part: Path, before: int) -> http.client.HTTPResponse:
    """Ask for the file from `before` on; raises _Failed."""
    headers = {"User-Agent": "streamtwl", "Accept-Encoding": "identity"}
    if before:
        _, tag = json.loads(_validator(part).read_text())
        headers |= {"Range": f"bytes={before}-", "If-Range": tag}
    request = urllib.request.Request(url, headers=headers)
    opener = urllib.request.build_opener()  # a new one: urlopen's keeps the first one's proxies
    try:
        response = _within(RESPONSE_S, lambda: opener.open(request, timeout=READ_S))
    except urllib.error.HTTPError as error:
        error.close()
        if before and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return _open(url, part, 0)  # the whole file, or more, was there already
        raise _Failed(f"HTTP {error.code} {' '.join(str(error.reason).split())}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise _Waited("no answer in time") from None
        raise _Failed(str(reason) or type(reason).__name__) from None
    if urlsplit(response.url).scheme not in ("https", urlsplit(url).scheme):
        response.close()
        raise _Failed("it is redirected to an address without encryption")
    return response


def _begins_at(response: http.client.HTTPResponse, before: int) -> int:
    """Return the position in the file at which the response's body begins."""
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        return 0
    if not response.headers.get("Content-Range", "").startswith(f"bytes {before}-"):
        raise _Failed(f"it gave {response.headers.get('Content-Range')} instead of {before}-")
    return before


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := response.read1(CHUNK):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise _BrokeOff(f"it broke off: {error or type(error).__name__}") from None


def _kept(url: str, part: Path) -> int:
    """Return how many bytes of this file are kept; 0 without a strong ETag from the server."""
    try:
        of, tag = json.loads(_validator(part).read_text())
        return part.stat().st_size if of == url and tag.startswith('"') else 0
    except (OSError, ValueError, TypeError, AttributeError):
        return 0


def _validator(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")
