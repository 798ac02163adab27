"""Whose request it is, and how many each may make."""

import ipaddress
import time
from collections import OrderedDict

ADDRESSES = 10_000  # remembered


class Buckets:
    """A token bucket for each address, of the newest ADDRESSES."""

    def __init__(self, a_second: float, burst: float) -> None:
        self._a_second, self._burst = a_second, burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, at

    def take(self, address: str) -> float:
        """Take a token; return 0, or the seconds until there is one."""
        now = time.monotonic()
        left, at = self._left.pop(address, (self._burst, now))
        left = min(self._burst, left + self._a_second * (now - at))
        wait_s = 0.0 if left >= 1 else (1 - left) / self._a_second
        self._left[address] = (left if wait_s else left - 1, now)
        if len(self._left) > ADDRESSES:
            self._left.popitem(last=False)
        return wait_s


def network(address: str) -> str:
    """Return what requests are counted by: an IPv4 address, the /64 of an IPv6 address."""
    try:
        found = ipaddress.ip_address(plain(address))
    except ValueError:
        return "?"
    return str(found if found.version == 4 else ipaddress.ip_network((found, 64), strict=False))


def plain(address: str) -> str:
    """Return an address; an IPv4 address in IPv6's notation (::ffff:192.0.2.1) as it is."""
    try:
        mapped = ipaddress.IPv6Address(address).ipv4_mapped
    except ValueError:
        return address
    return str(mapped) if mapped else address


def forwarded_for(forwarded: str) -> str:
    """Return the newest address in X-Forwarded-For, without brackets and port."""
    newest = forwarded.rpartition(",")[2].strip()
    if newest.startswith("["):
        return newest.partition("]")[0][1:]
    return newest.partition(":")[0] if newest.count(":") == 1 else newest
