"""The sources that somebody asked for, each with a name of its own."""

import itertools
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from streamtwl.audio import demo
from streamtwl.audio.microphone import Microphone
from streamtwl.audio.pipe import Pipe
from streamtwl.audio.recording import Recording
from streamtwl.audio.source import Source
from streamtwl.errors import UsageError
from streamtwl.messages import SOURCE_NAME


@dataclass(frozen=True)
class SourceOptions:
    """Which sources `listen` was asked for."""

    devices: list[str]
    files: list[Path]
    stdin: bool
    demo: bool
    fast: bool
    encoding: str
    rate: int
    channels: int
    channel: int | None  # the one to use of each source, from 1; None: the mix
    names: list[str]


def make_sources(asked: SourceOptions) -> list[Source]:
    """Make the sources, each with a name of its own; raises UsageError."""
    if asked.fast and (asked.devices or asked.stdin or not (asked.files or asked.demo)):
        raise UsageError("--fast is for --file and --demo: other sound comes when it comes")
    microphones = asked.devices
    if not (microphones or asked.files or asked.stdin or asked.demo):
        microphones = [""]
    kinds = ["mic"] * len(microphones) + [source_name(file) for file in asked.files]
    kinds += ["stdin"] * asked.stdin + ["demo"] * asked.demo
    names = iter(_names(asked.names, kinds))
    paced = not asked.fast
    sources: list[Source] = [
        Microphone(next(names), device, asked.channel) for device in microphones
    ]
    sources += [Recording(next(names), file, paced, asked.channel) for file in asked.files]
    if asked.stdin and sys.stdin is None:
        raise UsageError("--stdin: standard input is closed")
    if asked.stdin:
        sources.append(
            Pipe(
                next(names),
                sys.stdin.buffer,
                asked.rate,
                asked.channels,
                asked.encoding,
                asked.channel,
            )
        )
    if asked.demo:
        sources.append(Recording(next(names), demo.wav(), paced))
    return sources


def channel_number(said: str) -> int | None:
    """Return the number, from 1, of a channel: mix (None), left, right or a number; UsageError."""
    number = {"mix": 0, "left": 1, "right": 2}.get(said)
    if number is None and said.isascii() and said.isdigit():
        number = int(said) or None
    if number is None:
        raise UsageError(f"--channel {said}: it takes mix, left, right, or a number from 1 on")
    return number or None


def _names(given: list[str], kinds: list[str]) -> list[str]:
    """Return a name a source: those given, then its kind, numbered where it comes again."""
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
    """Return what a recording is called where nobody says; its samples are keyed by it."""
    return re.sub("[^a-z0-9_-]+", "-", file.stem.lower()).strip("-") or "file"
