"""What protects the page: its password, the token of programs, the key of its link, TLS files."""

import logging
import os
import secrets
import ssl
from pathlib import Path

from streamtwl import folders
from streamtwl.config import WebSettings
from streamtwl.errors import UsageError

_log = logging.getLogger(__name__)

PASSWORD, TOKEN = "STREAMTWL_WEB_PASSWORD", "STREAMTWL_WEB_TOKEN"
SHORTEST_TOKEN = 20  # characters


def password_and_token(settings: WebSettings) -> tuple[str, str]:
    """Return both, "" where there is none; raises UsageError."""
    password = _secret("password_file", settings.password_file, PASSWORD)
    token = _secret("token_file", settings.token_file, TOKEN)
    if token and not password:
        raise UsageError("services.web: a token is for programs; it takes a password, too")
    if token and len(token) < SHORTEST_TOKEN:
        raise UsageError(
            f"services.web: a token takes {SHORTEST_TOKEN} characters or more, as "
            "`openssl rand -hex 20` makes them"
        )
    return password, token


def key() -> str:
    """Return the key of this user's pages, which is made where there is none; raises UsageError.

    It is kept, so that a link and a session outlive a restart; where it cannot be, it is a new one.
    """
    path = folders.state() / "services" / "web-key"
    if not path.exists():
        new = path.with_name(f"web-key.{os.getpid()}")
        made = secrets.token_urlsafe(24)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            new.touch(mode=0o600)
            new.write_text(f"{made}\n")
            new.replace(path)  # as a whole, or not at all
        except OSError as error:
            _log.warning(
                "the page's key is for this run only, %s cannot be written: %s",
                path,
                error.strerror,
            )
            return made
    return _first_line("the page's key", path)


def tls_files(settings: WebSettings) -> tuple[str | None, str | None]:
    """Return certificate and key, None for none; raises UsageError where they cannot be used."""
    if settings.certificate_key and not settings.certificate:
        raise UsageError("services.web.certificate_key: it takes a certificate, too")
    certificate, private_key = (
        str(folders.expand(each)) if each else None
        for each in (settings.certificate, settings.certificate_key)
    )
    if certificate is None:
        return None, None
    what = f"services.web.certificate {certificate!r}, certificate_key {private_key!r}"
    try:
        if private_key is not None and os.stat(private_key).st_mode & 0o007:
            raise UsageError(f"{what}: anybody can read it: chmod o= {private_key}")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, private_key, password=_no_password)
    except (OSError, ValueError) as error:  # ssl's errors are some
        problem = getattr(error, "strerror", None) or error
        raise UsageError(f"{what}: {problem}") from None
    return certificate, private_key


def _no_password() -> str:
    raise ValueError("the key takes a password: write one without it")


def _secret(option: str, file: str, variable: str) -> str:
    if not file:
        return os.environ.get(variable, "")
    return _first_line(f"services.web.{option}", folders.expand(file))


def _first_line(what: str, path: Path) -> str:
    """Return the first line of a file that is its owner's alone; raises UsageError."""
    try:
        lines = path.read_text().splitlines()
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or "it is not text"
        raise UsageError(f"{what} {path}: {problem}") from None
    if mode & 0o077:
        raise UsageError(f"{what} {path}: others can read it: chmod 600 {path}")
    if not lines or not lines[0]:
        raise UsageError(f"{what} {path}: its first line is empty")
    return lines[0]
