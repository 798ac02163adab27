"""streamtwl as its users run it: as processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PATIENCE_S

STREAMTWL = [sys.executable, "-c", "from streamtwl.cli import main; main()"]


class Running:
    """A streamtwl process that writes JSON lines to a file."""

    def __init__(self, arguments: list[str], out: Path, env: dict[str, str] | None = None) -> None:
        self._out = out
        with out.open("w") as stdout, out.with_suffix(".err").open("w") as stderr:
            self.process = subprocess.Popen(
                STREAMTWL + arguments, stdout=stdout, stderr=stderr, env=os.environ | (env or {})
            )

    def messages(self, kind: str | None = None) -> list[dict]:
        lines = self._out.read_text().split("\n")[:-1]
        messages = [json.loads(line) for line in lines]
        return [each for each in messages if kind in (None, each["kind"])]

    def wait_for(self, condition, timeout_s: float = PATIENCE_S) -> None:
        """Wait until the messages so far meet the condition."""
        deadline = time.monotonic() + timeout_s
        while not condition(self.messages()):
            assert self.process.poll() is None, self.stderr()
            assert time.monotonic() < deadline, f"nothing such in {timeout_s} s: {self.stderr()}"
            time.sleep(0.1)

    def stderr(self) -> str:
        return self._out.with_suffix(".err").read_text()

    def end(self, how: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(how)
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def run(tmp_path: Path) -> Iterator:
    """Start streamtwl processes that end with the test, each with any port for replay."""
    started: list[Running] = []

    def start(*arguments: str, env: dict[str, str] | None = None) -> Running:
        if arguments[0] == "listen":
            arguments += ("--replay-bind", "tcp://127.0.0.1:*")
        started.append(Running(list(arguments), tmp_path / f"{len(started)}.jsonl", env))
        return started[-1]

    yield start
    for running in started:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()
