"""Scenes played through the product: `streamtwl listen` in a process, a subscriber in this one."""

import os
import socket as sockets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import zmq

from streamtwl.errors import SinkError
from streamtwl.messages import AnyMessage, Event, Label, Patch, Status, decode

STREAMTWL = (sys.executable, "-c", "from streamtwl.cli import main; main()")
PATIENCE_S = 120.0  # without a message, while the listener runs
_encoder = msgspec.msgpack.Encoder()


def play(
    files: Sequence[Path],
    options: Sequence[str],
    kept: Path,
    progress: Callable[[int, int], None],
    environment: Mapping[str, str] | None = None,
) -> list[AnyMessage]:
    """Return the label, event and status messages that a subscriber had of these recordings.

    They run as fast as they go, side by side, each a source named after its file. `progress` is
    called with the recordings that have ended and how many there are. Messages are kept in the file
    `kept` and read from it the next time. `environment` is added to the listener's. Raises
    SinkError where the listener fails or a message is lost.
    """
    if kept.exists():
        return msgspec.msgpack.decode(kept.read_bytes(), type=list[AnyMessage])
    sources = [argument for file in files for argument in ("--file", str(file))]
    messages = record([*sources, "--fast", *options], len(files), progress, environment=environment)
    refuse_gaps(messages)
    messages = [message for message in messages if not isinstance(message, Patch)]
    partial = kept.with_suffix(".partial")
    partial.write_bytes(_encoder.encode(messages))
    partial.rename(kept)
    return messages


def record(
    options: Sequence[str],
    sources: int,
    progress: Callable[[int, int], None],
    on_message: Callable[[AnyMessage], None] = lambda _: None,
    environment: Mapping[str, str] | None = None,
) -> list[AnyMessage]:
    """Run `streamtwl listen` with these options to its end; return what a subscriber received.

    `on_message` is called with each message as it comes.
    """
    bind = f"tcp://127.0.0.1:{_free_port()}"
    messages: list[AnyMessage] = []
    ended: set[str] = set()
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.setsockopt(zmq.RECONNECT_IVL, 10)
        for kind in (Patch, Label, Event, Status):
            socket.subscribe(f"{kind.__name__.lower()}/")
        socket.connect(bind)
        command = [*STREAMTWL, "listen", "--quiet", "--no-journal", "--bind", bind, *options]
        own = os.environ | (environment or {})
        with (
            tempfile.TemporaryFile("w+") as errors,  # a pipe that nobody reads would fill up
            subprocess.Popen(command, stderr=errors, text=True, env=own) as listener,
        ):
            last_at = time.monotonic()
            while listener.poll() is None or socket.poll(200):
                if socket.poll(200):
                    message = decode(socket.recv_multipart()[-1])
                    messages.append(message)
                    last_at = time.monotonic()
                    on_message(message)
                    over = isinstance(message, Status) and message.state == "ended"
                    if over and message.source not in ended:  # it is said again each second
                        ended.add(message.source)
                        progress(len(ended), sources)
                elif time.monotonic() > last_at + PATIENCE_S:
                    listener.kill()
            if listener.returncode:
                errors.seek(0)
                raise SinkError(f"streamtwl listen failed: {errors.read().strip()}")
    return messages


def refuse_gaps(messages: Sequence[AnyMessage]) -> None:
    """Raise SinkError where a message is missing, the first and the last included."""
    sources = {each.source for each in messages}
    ended = {each.source for each in messages if isinstance(each, Status) and each.state == "ended"}
    if sources - ended:
        raise SinkError(f"the end of {', '.join(sorted(sources - ended))} never arrived")
    last: dict[str, int] = {}
    for message in messages:
        if isinstance(message, Status):
            last |= message.last_seq
    for kind in (Label, Event):
        for topic in {topic for topic in last if topic.startswith(f"{kind.__name__.lower()}/")}:
            numbers = {message.seq for message in messages if message.topic == topic}
            missing = set(range(last[topic] + 1)) - numbers
            if missing:
                raise SinkError(f"{len(missing)} messages of {topic} never arrived")


def of_source(messages: Sequence[AnyMessage], source: str) -> list[Label | Event]:
    """Return one source's labels and events in the order they were published, each once."""
    seen: set[tuple[str, int]] = set()
    kept: list[Label | Event] = []
    for message in messages:
        if isinstance(message, Label | Event) and message.source == source:
            key = (message.topic, message.seq)
            if key not in seen:
                seen.add(key)
                kept.append(message)
    return kept


def at_latency(messages: Sequence[AnyMessage], latency_ms: float) -> list[AnyMessage]:
    """Return the messages as if every decision had come that late.

    Recordings that run as fast as they go, twenty at once, are as late as the machine is busy; that
    says nothing about the method.
    """
    return [
        msgspec.structs.replace(message, latency_ms=latency_ms)
        if isinstance(message, Label)
        else message
        for message in messages
    ]


def _free_port() -> int:
    with sockets.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
