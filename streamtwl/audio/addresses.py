"""Sources by address, as `mic:USB` or `rtsp://camera/1`; each gets a name of its own.

To add a kind of source, add a function to SCHEMES, or an entry point (see `plugins.py`).
"""

import itertools
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from streamtwl import plugins
from streamtwl.audio import demo
from streamtwl.audio.microphone import Microphone
from streamtwl.audio.network import NetworkStream
from streamtwl.audio.network_address import PORTS, Address
from streamtwl.audio.pipe import Pipe
from streamtwl.audio.recording import Recording
from streamtwl.errors import UsageError
from streamtwl.file_names import one_line
from streamtwl.messages import SOURCE_NAME
from streamtwl.stages import Source

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):(.*)", re.DOTALL)


@dataclass(frozen=True)
class SourceOptions:
    """Which sources `listen` takes, and how."""

    addresses: list[str] = field(default_factory=list)  # in the order of their names
    fast: bool = False  # files as fast as they are decoded
    encoding: str = "s16le"  # of standard input, as the next two
    rate: int = 16_000
    channels: int = 1
    channel: int | None = None  # the one to use of each source, from 1; None: the mix
    names: list[str] = field(default_factory=list)
    shard: str | None = None  # I/N: only those sources that fall to it


MakeSource = Callable[[str, str, SourceOptions], Source]  # of its name, its address without scheme


def make_sources(options: SourceOptions) -> list[Source]:
    """Make the sources, each with a name of its own; raises UsageError."""
    addresses = [split(address) for address in options.addresses or ["mic:"]]
    if options.fast and any(scheme not in ("file", "demo") for scheme, _ in addresses):
        raise UsageError("--fast is for files and the demo: other sound comes when it comes")
    if sum((scheme, rest) in STANDARD_INPUT for scheme, rest in addresses) > 1:
        raise UsageError("there is only one standard input: name it once")
    names = _names(options.names, [_default_name(*address) for address in addresses])
    named = [*zip(names, addresses, strict=True)]
    if options.shard is not None:
        mine, of = shard(options.shard)
        named = [each for each in named if shard_of(each[0], of) == mine]
        if not named:
            raise UsageError(f"--shard {options.shard}: none of the sources falls to it")
    return [
        plugins.load("sources", scheme, SCHEMES)(name, rest, options)
        for name, (scheme, rest) in named
    ]


def shard(said: str) -> tuple[int, int]:
    """Return I and N of `I/N`; raises UsageError."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", said)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"--shard {said}: it takes I/N, I from 1 to N, as 1/4")
    return int(found[1]), int(found[2])


def shard_of(name: str, shards: int) -> int:
    """Return which of so many shards a source falls to, from 1: the same on every machine.

    By rendezvous hashing (D. G. Thaler and C. V. Ravishankar, 1998): one shard more takes its share
    from all others, and no source moves between those.
    """
    return max(range(1, shards + 1), key=lambda each: sha256(f"{each}/{name}".encode()).digest())


def split(address: str) -> tuple[str, str]:
    """Return (scheme, rest) of an address; the path of a file is one, as it is.

    Raises UsageError, without a user and password that may be in it.
    """
    found = _SCHEME.fullmatch(address)
    if found and (found[1] in SCHEMES or found[1] in plugins.names("sources")):
        return found[1], found[2]
    if address == "-" or os.path.exists(address):
        return "file", address
    shown = one_line(address)
    if "@" in address or "://" in address:  # there may be a password, or a key
        shown = one_line(address.rpartition("@")[2].partition("://")[0].partition("/")[0])
    kinds = ", ".join(f"{scheme}:" for scheme in (*SCHEMES, *plugins.names("sources")))
    raise UsageError(f"'{shown}': no such file, and no address: those begin with {kinds}")


def channel_number(said: str) -> int | None:
    """Return a channel's number, from 1, or None for mix; raises UsageError."""
    number = {"mix": 0, "left": 1, "right": 2}.get(said)
    if number is None and said.isascii() and said.isdigit():
        number = int(said) or None
    if number is None:
        raise UsageError(f"--channel {said}: it takes mix, left, right, or a number from 1 on")
    return number or None


def _microphone(name: str, rest: str, options: SourceOptions) -> Source:
    return Microphone(name, rest, options.channel)


def _file(name: str, rest: str, options: SourceOptions) -> Source:
    if not rest:
        raise UsageError("file: it takes a path, as file:street.flac, or - for standard input")
    return Recording(name, Path(rest), not options.fast, options.channel)


def _stdin(name: str, rest: str, options: SourceOptions) -> Source:
    if rest:
        raise UsageError(f"stdin:{one_line(rest)}: nothing follows stdin:")
    if sys.stdin is None:
        raise UsageError("stdin: standard input is closed")
    return Pipe(
        name,
        sys.stdin.buffer,
        options.rate,
        options.channels,
        options.encoding,
        options.channel,
    )


def _demo(name: str, rest: str, options: SourceOptions) -> Source:
    if rest:
        raise UsageError(f"demo:{one_line(rest)}: nothing follows demo:")
    return Recording(name, demo.wav(), not options.fast)


def _network(scheme: str) -> MakeSource:
    def make(name: str, rest: str, options: SourceOptions) -> Source:
        return NetworkStream(name, Address(f"{scheme}:{rest}"), options.channel)

    return make


SCHEMES: dict[str, MakeSource] = {
    "mic": _microphone,
    "file": _file,
    "stdin": _stdin,
    "demo": _demo,
    **{scheme: _network(scheme) for scheme in PORTS},
}
STANDARD_INPUT = (("stdin", ""), ("file", "-"))


def _default_name(scheme: str, rest: str) -> str:
    """Return a file's stem, the host of what has one, else the scheme."""
    if scheme == "file":
        return source_name(Path(rest))
    if rest.startswith("//"):
        try:
            return _slug(urlsplit(rest).hostname or "") or scheme
        except ValueError:  # reported when the source is made
            return scheme
    return _slug(scheme)


def _names(given: list[str], kinds: list[str]) -> list[str]:
    """Return a name for each source: those given, then its kind, numbered where it repeats."""
    if len(given) > len(kinds):
        raise UsageError(f"{len(given)} times --name for {len(kinds)} source(s)")
    for name in given:
        if not SOURCE_NAME.fullmatch(name):
            raise UsageError(f"--name '{name}': it takes a-z, 0-9, _ and -")
    if len(set(given)) < len(given):
        raise UsageError("two sources have the same --name")
    names = list(given)
    for kind in kinds[len(given) :]:
        candidates = itertools.chain([kind], (f"{kind}-{n}" for n in itertools.count(2)))
        names.append(next(name for name in candidates if name not in names))
    return names


def source_name(file: Path) -> str:
    """Return a recording's default name; its samples are keyed by it."""
    return _slug(file.stem) or "file"


def _slug(stem: str) -> str:
    return re.sub("[^a-z0-9_-]+", "-", stem.lower()).strip("-")
