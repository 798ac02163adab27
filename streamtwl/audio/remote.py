"""Network addresses to containers that FFmpeg demuxes: http, https, rtsp and rtsps.

http(s) is fetched with Python's own client, so certificates are always verified (a list's segments
too, which FFmpeg would not do) by the authorities that the system trusts, or by $SSL_CERT_FILE.
Redirects are followed, to http and https only. A playlist may name further files on the same host,
and nothing else. rtsp(s) is FFmpeg's, its sound over the connection itself (TCP), no video.
"""

import errno
import http.client
import socket
import ssl
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import unquote, urlsplit

import av
import av.error
from av.container import InputContainer

from streamtwl.audio.network_address import Address
from streamtwl.audio.opening import open_input
from streamtwl.errors import AudioError, UnreachableError

OPEN_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 15.0  # longer than a segment of a list, which come one at a time
PROBE_US = "1000000"  # of sound at most, before decoding begins; FFmpeg would take 5 s of it
RTSP_PROTOCOLS = "rtsp,rtsps,rtp,tcp,tls"
# FFmpeg's own client is not below; and what a list may name is checked here, not by its ending
LIST_OPTIONS = {"http_persistent": "0", "extension_picky": "0"}
LATER = (408, 425, 429)  # the HTTP 4xx codes that mean: try again


def open_remote(address: Address) -> tuple[InputContainer, bool]:
    """Open an address; return its container, and whether it is live, of unknown length.

    Raises UnreachableError where another try may succeed, AudioError where the server has said no:
    no such host or path, wrong password, a certificate that is not trusted, no audio.
    """
    if address.parts.scheme.startswith("rtsp"):
        return _open_rtsp(address)
    client = _Client(address)
    try:
        container = open_input(
            address.bare,
            io_open=client.open,
            options=LIST_OPTIONS,
            container_options={"protocol_whitelist": "none", "analyzeduration": PROBE_US},
            timeout=(2 * OPEN_TIMEOUT_S, READ_TIMEOUT_S),
        )
    except (OSError, http.client.HTTPException, av.error.FFmpegError, ValueError) as error:
        raise _problem(address, error) from None
    endless = container.duration is None if container.format.name == "hls" else client.endless
    return container, endless


def _open_rtsp(address: Address) -> tuple[InputContainer, bool]:
    authorities = ssl.get_default_verify_paths().cafile
    try:
        container = open_input(
            address.with_user,
            container_options={
                "protocol_whitelist": RTSP_PROTOCOLS,
                "rtsp_transport": "tcp",
                "allowed_media_types": "audio",
                "analyzeduration": PROBE_US,
                "tls_verify": "1",
            }
            | ({"ca_file": authorities} if authorities else {}),
            timeout=(OPEN_TIMEOUT_S, READ_TIMEOUT_S),
        )
    except (OSError, av.error.FFmpegError, ValueError) as error:
        raise _problem(address, _looked_at(address, error)) from None
    return container, container.duration is None


def _looked_at(address: Address, error: Exception) -> Exception:
    """Return what is behind FFmpeg's input/output error: no such host, or its certificate."""
    if not isinstance(error, av.error.OSError) or type(error) is not av.error.OSError:
        return error
    try:
        place = (address.host, address.port)
        with socket.create_connection(place, OPEN_TIMEOUT_S) as connection:
            if address.parts.scheme == "rtsps":
                ssl.create_default_context().wrap_socket(
                    connection, server_hostname=address.host
                ).close()
    except OSError as found:
        return found
    return error


def broken(address: Address, error: Exception) -> UnreachableError:
    """Return the error of a connection that broke."""
    return UnreachableError(f"{address}: {_reason(error)}")


def _problem(address: Address, error: Exception) -> AudioError:
    """Return a failed opening's error: UnreachableError where another try may succeed."""
    if isinstance(error, urllib.error.HTTPError):
        final = 400 <= error.code < 500 and error.code not in LATER
    elif isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        return _problem(address, error.reason)
    elif isinstance(error, socket.gaierror):
        final = error.errno in (socket.EAI_NONAME, socket.EAI_NODATA)
    elif isinstance(error, av.error.HTTPError):
        final = isinstance(error, av.error.HTTPClientError) and not isinstance(
            error, av.error.HTTPTooManyRequestsError
        )
    else:
        dropped: tuple = (OSError, av.error.ExitError, av.error.EOFError)
        if address.parts.scheme.startswith("rtsp"):  # so FFmpeg calls a connection that is closed
            dropped += (av.error.InvalidDataError,)
        refused = (ssl.SSLError, av.error.PermissionError, av.error.FileNotFoundError)
        final = isinstance(error, refused) or not isinstance(error, dropped)
    kind = AudioError if final else UnreachableError
    return kind(f"{address}: {_reason(error)}")


def _reason(error: Exception) -> str:
    """Return in a few words what went wrong, without any address in it."""
    if isinstance(error, urllib.error.HTTPError):
        reason = f"the server says {error.code} {error.reason}"
        return f"{reason}: check user and password" if error.code in (401, 403) else reason
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted ({error.verify_message}): "
            "name its authority's file in SSL_CERT_FILE"
        )
    if isinstance(error, ssl.SSLError):
        return f"no encrypted connection: {(error.reason or 'failed').replace('_', ' ').lower()}"
    if isinstance(error, TimeoutError | av.error.ExitError):
        return "no answer in time"
    if isinstance(error, av.error.PermissionError | av.error.FileNotFoundError):
        return "a list of other files: name those"
    if isinstance(error, av.error.InvalidDataError):
        return "what it sends is not audio, or it is no such server"
    if isinstance(error, EOFError):
        return "the server ended the connection"
    said = (
        getattr(error, "strerror", None) or getattr(error, "reason", None) or type(error).__name__
    )
    if isinstance(error, av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError):
        return f"{said}: check user and password"
    return str(said).splitlines()[0]


class _Client:
    """Fetches http(s) for FFmpeg, with the address's user and password if its host requires
    them."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._hosts: set[str] = set()  # the address's, and that it redirects to
        self.endless = True  # the address's own content has no known length
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        parts = address.parts
        if parts.username is not None:
            user, password = unquote(parts.username), unquote(parts.password or "")
            passwords.add_password(None, address.bare, user, password)
            passwords.add_password(None, f"{address}/", user, password)
        self._opener = urllib.request.OpenerDirector()  # no ftp, no files
        for handler in (
            urllib.request.ProxyHandler(),
            _HttpHandler(),
            urllib.request.HTTPSHandler(),
            urllib.request.HTTPBasicAuthHandler(passwords),
            urllib.request.HTTPDigestAuthHandler(passwords),
            urllib.request.HTTPRedirectHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.UnknownHandler(),
        ):
            self._opener.add_handler(handler)

    def open(self, url: str, _flags: int, _options: dict) -> "_Body":
        """Open a URL that FFmpeg wants; raises AudioError where it is not the address's own."""
        parts = urlsplit(url)
        first = not self._hosts
        downgraded = self._address.parts.scheme == "https" and parts.scheme != "https"
        if not first and (parts.hostname not in self._hosts or downgraded):
            place = f"{parts.scheme}://{parts.hostname}" if parts.hostname else "files here"
            raise AudioError(f"{self._address}: a list of other addresses ({place}): name those")
        request = urllib.request.Request(url, headers={"User-Agent": "streamtwl"})
        response = self._opener.open(request, timeout=OPEN_TIMEOUT_S if first else READ_TIMEOUT_S)
        if first:
            self._hosts = {self._address.host, urlsplit(response.url).hostname or ""}
            radio = any(name.lower().startswith("icy-") for name in response.headers)
            self.endless = radio or response.length is None
        return _Body(response)


class _Body:
    """A server's response as a file whose `read` returns what has arrived."""

    def __init__(self, response: Any) -> None:
        self._response = response
        self.close = response.close

    def read(self, size: int) -> bytes:
        received = self._response.read1(size)
        if not received and self._response.length:
            raise ConnectionResetError(errno.ECONNRESET, "the connection broke off")
        return received


class _IcyStart:
    """A response whose status line SHOUTcast begins with ICY in place of HTTP/1.0."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.readline = self._status_line

    def _status_line(self, limit: int) -> bytes:
        self.readline = self._file.readline
        return b"HTTP/1.0" + self._file.readline(limit)[len(b"ICY") :]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _Response(http.client.HTTPResponse):
    def begin(self) -> None:
        if self.headers is None and self.fp.peek(3)[:3] == b"ICY":
            self.fp = _IcyStart(self.fp)
        super().begin()


class _Connection(http.client.HTTPConnection):
    response_class = _Response


class _HttpHandler(urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, request)
