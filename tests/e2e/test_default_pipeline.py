"""The default pipeline, two backbones and a reader, from a file to a subscriber elsewhere."""

import json
import subprocess
import sys
import threading

import numpy as np
import pytest
import soundfile

from streamtwl.models import registry
from tests.conftest import PATIENCE_S, mn04_file

DOG = ("Dog", "Bark", "Bow-wow", "Yip")
SUBSCRIBER = """
import json, sys
from streamtwl import Event, Hello, subscribe
for message in subscribe(sys.argv[1], kinds=["hello", "label", "event"]):
    if isinstance(message, Hello):
        print(json.dumps(["hello", sorted(message.models)]), flush=True)
    elif isinstance(message, Event):
        print(json.dumps(["event", message.phase, message.label]), flush=True)
    else:
        print(json.dumps(["label", message.label]), flush=True)
"""


@pytest.fixture
def weights(yamnet, monkeypatch):
    """Both backbones' weights, for processes too."""
    monkeypatch.setenv("STREAMTWL_MODELS", str(mn04_file()))
    registry.pull(registry.find("mn04"))


@pytest.fixture
def dog(esc10, tmp_path):
    """A file of a dog that barks, over and over."""
    frames, rate = soundfile.read(sorted((esc10 / "audio").glob("*-0.ogg"))[0])
    path = tmp_path / "dog.wav"
    soundfile.write(path, np.tile(frames, 12), rate)  # a minute: the subscriber has time to join
    return path


@pytest.mark.parametrize(
    ("options", "models"),
    [
        ((), ["mn04", "reader", "yamnet"]),
        (("--pipeline", "evidence"), ["mn04", "yamnet"]),
    ],
    ids=["default", "evidence"],
)
def test_a_subscriber_in_another_process_receives_what_a_file_holds(
    options, models, weights, dog, run, tmp_path
):
    endpoint = f"ipc://{tmp_path}/publish"
    listening = run("listen", "--file", str(dog), "--bind", endpoint, "--json", *options)
    subscriber = subprocess.Popen(
        [sys.executable, "-c", SUBSCRIBER, endpoint], stdout=subprocess.PIPE, text=True
    )
    received = []
    waited = threading.Timer(PATIENCE_S / 2, subscriber.kill)  # then there are no more lines
    waited.start()
    try:
        for line in subscriber.stdout:
            received.append(json.loads(line))
            named = {kind for kind, *_, name in received if kind == "hello" or name in DOG}
            if named == {"hello", "label", "event"}:
                break
    finally:
        waited.cancel()
        subscriber.kill()
        subscriber.wait(PATIENCE_S)
    hello = next(each for each in received if each[0] == "hello")
    assert hello[1] == models
    assert named == {"hello", "label", "event"}
    assert listening.end() == 0
    assert "models pull" not in listening.stderr()
