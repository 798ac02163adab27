"""A sound that is taught while a `listen` runs reaches its subscribers without a restart."""

import itertools
import json
import os
import subprocess

import numpy as np
import soundfile

from tests.conftest import COMMAND, PATIENCE_S
from tests.sounds.test_teaching import in_a_room, warble

ports = itertools.count(15877)


def command(*arguments, env):
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


def has(kind, **fields):
    return lambda messages: any(
        each["kind"] == kind and all(fields[name](each[name]) for name in fields)
        for each in messages
    )


def test_what_is_taught_meanwhile_arrives_at_a_subscriber(run, yamnet, tmp_path):
    own = {"STREAMTWL_DATA": str(tmp_path / "d"), "STREAMTWL_STATE": str(tmp_path / "s")}
    endpoint = f"tcp://127.0.0.1:{next(ports)}"
    once = in_a_room(warble(2.0, 1), 4.0, 6.0, 1)
    soundfile.write(tmp_path / "scene.wav", np.tile(once, 100), 16_000)
    soundfile.write(tmp_path / "kettle.wav", warble(2.0, 2), 16_000)
    listening = run(
        "listen", "--file", str(tmp_path / "scene.wav"), "--bind", endpoint, "--json", env=own
    )
    subscriber = run("subscribe", "--connect", endpoint, "--json", env=own)
    subscriber.wait_for(has("hello", labels=lambda labels: "my kettle" not in labels))
    taught = command("teach", "my kettle", tmp_path / "kettle.wav", env=own)
    assert "1 running streamtwl listens for it now" in taught.stderr, taught.stderr
    subscriber.wait_for(has("hello", labels=lambda labels: "my kettle" in labels))
    subscriber.wait_for(
        has("event", label=lambda x: x == "my kettle", phase=lambda x: x == "offset")
    )
    last = command("teach", "the last", "--last", "10", env=own)
    assert last.returncode == 0, last.stderr
    shown = command("sounds", "show", "the last", env=own)
    assert "the last 10 s of scene" in shown.stdout
    gone = command("sounds", "remove", "my kettle", env=own)
    assert gone.returncode == 0, gone.stderr
    count = len(subscriber.messages("hello"))
    subscriber.wait_for(
        lambda _: any("my kettle" not in m["labels"] for m in subscriber.messages("hello")[1:])
    )
    assert count >= 2
    assert listening.end() == 0
    history = command("history", "--label", "my kettle", "--json", env=own)
    assert json.loads(history.stdout.splitlines()[0])["label"] == "my kettle"
    assert not (tmp_path / "s" / "control").exists()


def test_without_a_control_socket_nothing_is_taken_in_before_a_restart(run, yamnet, tmp_path):
    own = {"STREAMTWL_DATA": str(tmp_path / "d"), "STREAMTWL_STATE": str(tmp_path / "s")}
    soundfile.write(tmp_path / "scene.wav", np.tile(warble(5.0), 60), 16_000)
    soundfile.write(tmp_path / "kettle.wav", warble(1.0, 2), 16_000)
    listening = run(
        "listen", "--file", str(tmp_path / "scene.wav"), "--bind", "tcp://127.0.0.1:*", "--json",
        "--no-control", env=own,
    )  # fmt: skip
    listening.wait_for(has("label", label=lambda _: True))
    taught = command("teach", "my kettle", tmp_path / "kettle.wav", env=own)
    assert taught.returncode == 0
    assert "listen" not in taught.stderr
    assert not (tmp_path / "s" / "control").exists()


CTRL_C = """
import os, signal, sys, threading, time
import numpy as np
from streamtwl.audio import microphone
from streamtwl.stages import Chunk

class Fake(microphone.Microphone):
    def start(self):
        self.at, self.state = 0, "listening"
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    def filenos(self):
        return []
    def due_in(self, now):
        return 0.02
    def read(self, now):
        self.at += 320
        return Chunk(np.full((320, 1), 0.1, "f4"), 16000, self.at - 320, 0)
    def stop(self):
        self.state = "ended"
    def close(self):
        pass

from streamtwl.sounds import takes
takes.Microphone = Fake
"""


def test_ctrl_c_while_recording_keeps_nothing_and_ends_at_once(start_cli, yamnet, tmp_path):
    own = os.environ | {"STREAMTWL_DATA": str(tmp_path / "d")}
    recording = start_cli("teach", "kettle", "--record", "30", prelude=CTRL_C, env=own)
    _, stderr = recording.communicate(timeout=PATIENCE_S)
    assert recording.returncode == 130
    assert "nothing was kept" in stderr.decode()
    assert "Traceback" not in stderr.decode()
    assert not (tmp_path / "d").exists()
