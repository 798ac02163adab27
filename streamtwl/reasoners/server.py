"""The address of a language model's server, and the key that it gets."""

import os
import re

from streamtwl.audio.network_address import Address
from streamtwl.errors import UsageError

KEY = "OPENAI_API_KEY"
LONGEST_ADDRESS = 2048  # characters


def address_of(endpoint: str) -> Address:
    """Return the address of a server; raises UsageError for one that is not http(s)://host/path."""
    if len(endpoint) > LONGEST_ADDRESS or not endpoint.startswith(("http://", "https://")):
        raise UsageError(  # not shown: it may be a key
            "--endpoint takes the address of a server, as http://127.0.0.1:8000/v1"
        )
    address = Address(endpoint)
    if "@" in address.parts.netloc or address.parts.query:
        raise UsageError(
            f"--endpoint {address}: leave user, password and query out; the key comes from {KEY}"
        )
    return address


def key_for(address: Address, variable: str) -> str:
    """Return the key in the environment, "" for none.

    The one in OPENAI_API_KEY does not go over a network unencrypted; one in a variable that the
    user names does. Raises UsageError where that variable is absent.
    """
    key = os.environ.get(variable or KEY, "").strip()
    if variable and not key:
        raise UsageError(f"key_env under [llm] is {variable}, which is not in the environment")
    if not variable and address.parts.scheme == "http" and not _is_loopback(address.host):
        return ""
    if not key.isascii() or not key.isprintable():
        raise UsageError(f"the key in {variable or KEY} has characters that no key has")
    return key


def _is_loopback(host: str) -> bool:
    return host == "localhost" or host == "::1" or bool(re.fullmatch(r"127(\.\d+){3}", host))
