import socket

import pytest
import zmq

from streamtwl.endpoints import allow_ipv6, check_bind, check_port, is_local, reachable
from streamtwl.errors import UsageError


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://127.0.0.1:5577",
        "tcp://127.1.2.3:*",
        "tcp://[::1]:5577",
        "tcp://[::ffff:127.0.0.1]:5577",
        "tcp://lo:5577",
        "tcp://localhost:5577",
        "ipc:///tmp/streamtwl",
        "inproc://streamtwl",
        "nonsense",  # ZeroMQ itself refuses it
        "tcp://5577",
    ],
)
def test_what_only_this_machine_reaches_may_be_bound(endpoint):
    assert is_local(endpoint)
    check_bind(endpoint, "--bind", allowed=False)


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://*:5577",
        "tcp://0.0.0.0:5577",
        "tcp://[::]:5577",
        "tcp://192.168.1.5:5577",
        "tcp://[fe80::1%eth0]:5577",
        "tcp://[::ffff:192.168.1.5]:5577",
        "tcp://no-such-host.invalid:5577",
        "tcp://128.0.0.1:5577",
        "tcp://127.0.0.1.example.invalid:5577",
        "ws://*:5577",
    ],
)
def test_what_others_reach_is_refused_unless_it_is_allowed(endpoint):
    with pytest.raises(UsageError, match=r"--replay-bind .*--curve.*--insecure") as raised:
        check_bind(endpoint, "--replay-bind", allowed=False)
    assert endpoint in str(raised.value)
    check_bind(endpoint, "--replay-bind", allowed=True)


def test_an_interface_is_as_local_as_its_addresses(monkeypatch):
    from types import SimpleNamespace

    def interface(*addresses: str) -> list:
        return [SimpleNamespace(family=socket.AF_INET, address=each) for each in addresses]

    found = {"eth7": interface("10.0.0.3"), "both": interface("127.0.0.1", "10.0.0.3")}
    found["mine"] = interface("127.0.0.1")
    monkeypatch.setattr("psutil.net_if_addrs", lambda: found)
    local = {name: is_local(f"tcp://{name}:5577") for name in found}
    assert local == {"eth7": False, "both": False, "mine": True}


@pytest.fixture
def names(monkeypatch) -> list[str]:
    """Names with addresses of one kind, of both, and without; what was looked up."""
    asked: list[str] = []
    known = {"in-six": ["::1"], "in-both": ["127.0.0.1", "::1"], "localhost": ["127.0.0.1"]}
    look_up = socket.getaddrinfo

    def resolve(host: str, port: None) -> list:
        asked.append(host)
        if host not in known and not host[:1].isdigit():
            raise socket.gaierror
        return [found for each in known.get(host, [host]) for found in look_up(each, port)]

    monkeypatch.setattr("streamtwl.endpoints.getaddrinfo", resolve)
    return asked


@pytest.mark.parametrize(
    ("endpoint", "connect", "expected"),
    [
        ("tcp://127.0.0.1:5578", "tcp://127.0.0.1:5577", "tcp://127.0.0.1:5578"),
        ("tcp://0.0.0.0:5578", "tcp://pi.local:5577", "tcp://pi.local:5578"),
        ("tcp://*:5578", "tcp://10.0.0.3:5577", "tcp://10.0.0.3:5578"),
        ("tcp://[::]:5578", "tcp://[fe80::1]:5577", "tcp://[fe80::1]:5578"),
        ("tcp://127.0.0.1:5578", "tcp://10.0.0.3:5577", "tcp://10.0.0.3:5578"),
        ("tcp://10.0.0.3:5578", "tcp://10.0.0.9:5577", "tcp://10.0.0.3:5578"),
        ("tcp://0.0.0.0:5578", "ipc:///tmp/live", "tcp://127.0.0.1:5578"),
        ("tcp://127.0.0.1:5578", "tcp://[::1]:5577", "tcp://127.0.0.1:5578"),
        ("tcp://[::1]:5578", "tcp://127.0.0.1:5577", "tcp://[::1]:5578"),
        ("tcp://[::1]:5578", "tcp://localhost:5577", "tcp://[::1]:5578"),
        ("tcp://[::1]:5578", "ipc:///tmp/live", "tcp://[::1]:5578"),
        ("tcp://[::1]:5578", "tcp://[fe80::1]:5577", "tcp://[fe80::1]:5578"),
        ("tcp://127.0.0.1:5578", "tcp://127.0.0.2:5577", "tcp://127.0.0.2:5578"),
        ("tcp://127.0.0.1:5578", "tcp://in-six:5577", "tcp://127.0.0.1:5578"),
        ("tcp://[::1]:5578", "tcp://in-six:5577", "tcp://in-six:5578"),
        ("ipc:///tmp/replay", "tcp://127.0.0.1:5577", "ipc:///tmp/replay"),
    ],
)
def test_what_the_publisher_calls_here_is_on_its_host(endpoint, connect, expected, names):
    assert reachable(endpoint, connect) == expected


@pytest.mark.parametrize(
    ("endpoint", "wanted"),
    [
        ("tcp://[::1]:5577", 1),
        ("tcp://[fe80::1%eth0]:5577", 1),
        ("tcp://[::]:*", 1),
        ("tcp://::1:5577", 1),
        ("tcp://[::ffff:127.0.0.1]:5577", 0),
        ("tcp://127.0.0.1:5577", 0),
        ("tcp://*:5577", 0),
        ("tcp://localhost:5577", 0),
        ("ipc:///tmp/[::1]", 0),
        ("nonsense", 0),
        ("tcp://in-six:5577", 1),  # as Debian's ip6-localhost
        ("tcp://in-both:5577", 0),
        ("tcp://in-none:5577", 0),
        ("tcp://lo:5577", 0),
    ],
)
def test_only_what_has_no_other_address_is_spoken_to_in_ipv6(endpoint, wanted, names):
    with zmq.Context() as context, context.socket(zmq.PUB) as one:
        allow_ipv6(one, endpoint)
        assert one.getsockopt(zmq.IPV6) == wanted
    assert not {"*", "lo", ""} & set(names)  # no name server is asked about those


@pytest.mark.parametrize("port", ["65536", "-1", "+1", "1.5", "", " 1", "x", "\u0663"])
def test_a_port_that_is_none_is_refused(port):
    with pytest.raises(zmq.ZMQError):
        check_port(f"tcp://127.0.0.1:{port}")


@pytest.mark.parametrize("endpoint", ["tcp://[::1]:65535", "tcp://lo:*", "ipc:///tmp/a:-1"])
def test_a_port_that_is_one_or_none_that_is_needed_is_taken(endpoint):
    check_port(endpoint)
