"""ZeroMQ endpoints: whether they are valid, local to this machine, or open to the network."""

import errno
import ipaddress
import re
from socket import AF_INET, AF_INET6, getaddrinfo

import psutil
import zmq

from streamtwl.errors import UsageError


def check_port(endpoint: str) -> None:
    """Raise ZMQError for an invalid port, which ZeroMQ itself would take modulo 65536."""
    port = endpoint.rpartition(":")[2]
    wrong = not re.fullmatch("[0-9]+|[*]", port) or (port != "*" and int(port) > 65535)
    if endpoint.startswith("tcp://") and wrong:
        raise zmq.ZMQError(errno.EINVAL)


def allow_ipv6(socket: zmq.Socket, endpoint: str) -> None:
    """Turn on IPv6 for a socket, before it binds or connects, where its endpoint needs it.

    That is an IPv6 address, or a name that has no other. Elsewhere it stays off: otherwise `*`
    would be IPv6's wildcard, and a name would resolve to IPv6 if it can.
    """
    host = _host(endpoint)
    if endpoint.startswith("tcp://") and _speaks_ipv6(host):
        socket.setsockopt(zmq.IPV6, 1)


def check_bind(endpoint: str, option: str, allowed: bool) -> None:
    """Raise UsageError for an endpoint that other machines can reach, unless allowed."""
    if not allowed and not is_local(endpoint):
        raise UsageError(
            f"{option} {endpoint} is open to the network, unencrypted, for anyone: use --curve "
            "(`streamtwl keys new` makes keys), or --insecure"
        )


def can_be_host(host: str) -> bool:
    """Whether a host is an address or a name that can be looked up."""
    try:
        return bool(host.encode("idna"))
    except UnicodeError:  # an empty label, or one of over 63 letters
        return False


def is_local(endpoint: str) -> bool:
    """Whether only this machine reaches an endpoint; ZeroMQ itself refuses what is not one."""
    transport, separator, _ = endpoint.partition("://")
    host = _host(endpoint)
    if not separator or not host or transport in ("ipc", "inproc"):
        return True
    try:
        return _is_loopback(host)
    except ValueError:  # an interface, or a name
        interface = psutil.net_if_addrs().get(host, [])
        found = [a.address for a in interface if a.family in (AF_INET, AF_INET6)]
        try:
            found = found or [str(a[4][0]) for a in getaddrinfo(host, None)]
        except (OSError, UnicodeError):
            return False
        return all(map(_is_loopback, found))


def _host(endpoint: str) -> str:
    """Return the host in an endpoint, without the brackets around an IPv6 address."""
    return endpoint.partition("://")[2].rpartition(":")[0].strip("[]")


def _is_ipv6(host: str) -> bool:
    try:
        found = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:  # `*`, an interface, a name
        return False
    return found.version == 6 and getattr(found, "ipv4_mapped", None) is None


def _speaks_ipv6(host: str) -> bool:
    """Return whether a host is an IPv6 address, or a name that has no other."""
    if host in ("*", "") or host in psutil.net_if_addrs():  # these need no name server
        return False
    try:
        return _is_ipv6(host) or {found[0] for found in getaddrinfo(host, None)} == {AF_INET6}
    except (OSError, UnicodeError):  # a name that does not resolve (yet)
        return False


def _is_loopback(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])  # without the zone
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


def reachable(endpoint: str, connect: str) -> str:
    """Return an endpoint that a publisher names, as seen by a subscriber.

    `*`, 0.0.0.0 and [::], and loopback addresses of the publisher, become the host of `connect`.
    Where that is this machine, one in IPv4 and the other in IPv6, the endpoint stays as it is.
    """
    transport, _, address = endpoint.partition("://")
    host, _, port = address.rpartition(":")
    anywhere = host in ("*", "0.0.0.0", "[::]")
    if transport != "tcp" or not (anywhere or is_local(endpoint)):
        return endpoint
    transport, _, address = connect.partition("://")
    seen_host = address.rpartition(":")[0] if transport == "tcp" else "127.0.0.1"
    other_kind = _is_ipv6(host) != _speaks_ipv6(seen_host.strip("[]"))
    if not anywhere and other_kind and is_local(connect):
        return endpoint
    return f"tcp://{seen_host}:{port}"
