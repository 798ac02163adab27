"""Network addresses, without their secrets wherever they are shown."""

import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, quote, urlsplit

from streamtwl.errors import UsageError

PORTS = {"http": 80, "https": 443, "rtsp": 554, "rtsps": 322}
SAFE = "/%:@!$&'()*+,;=~?-._"  # in a path and a query


@dataclass(frozen=True)
class Address:
    """An address whose user, password, path and query are never shown: cameras have keys there.

    Raises UsageError for an invalid one.
    """

    text: str = field(repr=False)

    def __post_init__(self) -> None:
        scheme = self.text.partition(":")[0]
        if re.search(r"[\x00-\x20\x7f]", self.text):
            raise UsageError(f"{scheme}: an address has no spaces or control characters: use %20")
        try:
            parts = urlsplit(self.text)
            host = (parts.hostname or "").encode("idna")
            port = parts.port
        except ValueError as error:
            problem = str(error).replace(self.text, "").split("'")[0].strip()
            raise UsageError(
                f"{scheme}: not an address ({problem}): {scheme}://host/path"
            ) from None
        if not host or port == 0:
            raise UsageError(f"{scheme}: it takes an address: {scheme}://host/path")

    @property
    def parts(self) -> SplitResult:
        """Its parts, with what is not ASCII in path and query in %xx."""
        parts = urlsplit(self.text)
        path, query = (quote(part, safe=SAFE) for part in (parts.path, parts.query))
        return parts._replace(path=path, query=query, fragment="")

    @property
    def host(self) -> str:
        """The host's name."""
        return self.parts.hostname or ""

    @property
    def port(self) -> int:
        """The port, the scheme's own where none is given."""
        return self.parts.port or PORTS[self.parts.scheme]

    @property
    def bare(self) -> str:
        """The address without user and password."""
        return self.parts._replace(netloc=self._place).geturl()

    @property
    def with_user(self) -> str:
        """The address with user and password, for FFmpeg."""
        user, at, _ = self.parts.netloc.rpartition("@")
        return self.parts._replace(netloc=f"{user}{at}{self._place}").geturl()

    @property
    def _place(self) -> str:
        host = self.host.encode("idna").decode()
        host = f"[{host}]" if ":" in host else host
        return f"{host}:{self.parts.port}" if self.parts.port else host

    def __str__(self) -> str:
        return f"{self.parts.scheme}://{self._place}"
