"""How requests to a language model's server leave the machine: little goes, and little comes."""

import ssl
import threading
from collections.abc import AsyncIterator, Callable, Set
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx2

LIMIT = 4_000_000  # bytes of an answer, thinking included
HEADERS = {
    *("accept", "accept-encoding", "authorization", "connection", "content-length"),
    *("content-type", "host", "transfer-encoding", "user-agent"),
}


class Daemons(ThreadPoolExecutor):
    """Resolves host names on threads that the program's end does not wait for, as they may hang."""

    def submit(self, call: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        """Begin a call; return its result to be."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()

        def run() -> None:
            try:
                future.set_result(call(*args, **named))
            except (OSError, ValueError) as error:  # gaierror, UnicodeError
                future.set_exception(error)

        threading.Thread(target=run, name="resolver", daemon=True).start()
        return future


class Limited(httpx2.AsyncHTTPTransport):
    """A transport that sends no other headers, and whose replies have at most LIMIT bytes.

    Of a reply's headers one remains: compression, which was not requested, could make of LIMIT
    bytes a thousand times as many, and not everything that is called a charset decodes to text.
    """

    def __init__(self, headers: Set[str]) -> None:
        # The default context, other than httpx2's own, reads SSL_CERT_FILE.
        super().__init__(verify=ssl.create_default_context(), trust_env=False)
        self._headers = headers

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        for name in (
            request.headers.keys() - self._headers
        ):  # of the system, from OPENAI_* variables
            del request.headers[name]
        response = await super().handle_async_request(request)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _LimitedStream(response.stream)
        pause_s = response.headers.get("retry-after", "")
        response.headers = httpx2.Headers({"Retry-After": pause_s})
        return response


class _LimitedStream(httpx2.AsyncByteStream):
    def __init__(self, whole: httpx2.AsyncByteStream) -> None:
        self._whole = whole

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._whole:
            size += len(chunk)
            if size > LIMIT:
                raise httpx2.ReadError(f"its answer has more than {LIMIT} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._whole.aclose()
