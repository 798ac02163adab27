"""What the fault tests share: a listener in a process of its own, and somebody who hears it."""

import itertools
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq

from streamtwl.messages import AnyMessage, Label, decode
from tests.conftest import COMMAND, PATIENCE_S


class Listening:
    """`streamtwl listen --quiet` and a subscriber that keeps every message."""

    def __init__(
        self, context: zmq.Context, folder: Path, arguments: tuple, env: dict[str, str]
    ) -> None:
        self.messages: list[AnyMessage] = []
        self.journal = folder / "journal.sqlite"
        endpoint = f"ipc://{folder}/{time.monotonic_ns()}"
        self._socket = context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 5)
        self._socket.subscribe("")
        self._socket.connect(endpoint)
        options = ["--quiet", "--bind", endpoint, "--replay-bind", f"{endpoint}-replay"]
        if "--journal" not in arguments:
            options += ["--journal", str(self.journal)]
        self.process = subprocess.Popen(
            [*COMMAND, "listen", *options, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | env,
        )

    def feed(self, samples: np.ndarray) -> None:
        """Write to its standard input, as it is or as s16le."""
        if samples.dtype == np.float32:
            samples = (samples * 32_767).astype("<i2")
        self.process.stdin.write(samples.tobytes())
        self.process.stdin.flush()

    def hear(self, timeout_s: float = PATIENCE_S) -> AnyMessage | None:
        """Return the next message, None where there is none in time."""
        if not self._socket.poll(1000 * timeout_s):
            return None
        self.messages.append(decode(self._socket.recv_multipart()[1]))
        return self.messages[-1]

    def until(self, condition: Callable[[AnyMessage], bool]) -> AnyMessage:
        """Hear messages up to one that meets the condition; return it."""
        while not (message := self.hear()) or not condition(message):
            assert message is not None, f"nothing more; it said: {self.said()}"
        return message

    def feed_until(self, condition: Callable[[Label], bool]) -> Label:
        """Feed silence, a second at a time, until a label meets the condition; return it."""
        for _ in range(1000):
            self.feed(np.zeros(16_000, "<i2"))
            label = self.until(lambda message: isinstance(message, Label))
            if condition(label):
                return label
        raise AssertionError("1000 s of sound, and no such label")

    def said(self) -> str:
        """What it wrote to standard error, once it is ended."""
        self.process.kill()
        return self.process.stderr.read().decode()

    def end(self) -> int:
        """End its sound, hear the rest, and return its exit code."""
        self.process.stdin.close()
        self.until(lambda message: getattr(message, "state", "") == "ended")
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stderr):
            pipe.close()
        self._socket.close(0)


@pytest.fixture
def listen(tmp_path: Path, yamnet) -> Iterator[Callable[..., Listening]]:
    """Start listeners that end with the test: listen("--stdin", env={...})."""
    with zmq.Context() as context:
        started: list[Listening] = []

        def start(*arguments, env: dict[str, str] | None = None) -> Listening:
            started.append(Listening(context, tmp_path, arguments, env or {}))
            return started[-1]

        yield start
        for listening in started:
            listening.close()


@pytest.fixture
def figure(record_property, capsys):
    """Say and record a figure: figure("kills", "30, 0 labels lost")."""

    def say(what: str, value: object) -> None:
        record_property(what, value)
        with capsys.disabled():
            print(f"\n    {what}: {value}", end="", flush=True)

    return say


def looped(clips: list, seconds: float) -> Iterator[np.ndarray]:
    """Clips one after the other, again and again, float32 at 16 kHz."""
    left = round(16_000 * seconds)
    for clip in itertools.cycle(clips):
        if left <= 0:
            return
        yield clip.samples[:left]
        left -= len(clip.samples)
