"""The control socket: who may open it, what it takes, and what it does to a listener."""

import concurrent.futures
import contextlib
import json
import os
import socket
import stat
import threading
import time

import numpy as np
import pytest

from streamtwl.audio.recent import Recent
from streamtwl.control import client, mel, messages, server
from streamtwl.control.server import ControlServer
from streamtwl.errors import ControlError, SoundsError
from streamtwl.stages import SAMPLE_RATE, Block


@pytest.fixture(autouse=True)
def short_state(tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMTWL_STATE", str(tmp_path))


@pytest.fixture
def start():
    running = []

    def start(reload=lambda: ["kettle"], last=lambda seconds, source: ("mic", b"fLaC"), mel=None):
        running.append(ControlServer(reload, last, mel))
        return running[-1]

    yield start
    for each in running:
        each.close()


def talk(path, sent):
    """Send bytes; return the answer, {} where there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        try:
            connection.sendall(sent)
            received = connection.makefile("rb").readline()
        except ConnectionError:
            return {}
    return json.loads(received or b"{}")


def test_only_its_user_can_open_it(start):
    path = start().path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_requests_are_answered(start):
    asked = []
    start(last=lambda seconds, source: asked.append((seconds, source)) or ("mic", b"\0fLaC\xff"))
    assert client.reload() == (1, [])
    answer = client.last(2.5, "door")
    assert (answer.source, answer.flac, asked) == ("mic", b"\0fLaC\xff", [(2.5, "door")])


def test_frames_for_a_spectrogram_join_on_and_are_bounded(start):
    """A rising tone: band by band the loudest one rises, and no frame comes twice."""
    recent = Recent(30.0)
    at = np.arange(12 * SAMPLE_RATE) / SAMPLE_RATE
    sound = (0.1 * np.sin(2 * np.pi * (200 * at + 140 * at**2))).astype(np.float32)
    recent.push(Block(0, 1000, sound, None, 0.0))
    start(
        mel=lambda source, since, most, session: mel.frames(
            *recent.since(since, mel.samples_in(most)), since
        )
    )
    first = client.mel("mic", 0, 100)
    assert len(first.mel) == 100 * 64
    assert first.next - first.position == 100 * 160
    assert client.mel("mic", first.next).mel == b""
    whole = client.mel("mic", 0)
    frames = np.frombuffer(whole.mel, np.uint8).reshape(-1, 64)
    assert len(frames) == messages.MAX_MEL_FRAMES
    assert frames[-100:].tobytes() == first.mel
    loudest = frames.argmax(axis=1)
    assert loudest[-1] > loudest[0] + 20
    recent.push(Block(0, 1000 + len(sound), sound[:SAMPLE_RATE], None, 0.0))
    following = client.mel("mic", first.next)
    assert following.position == first.next
    assert len(following.mel) // 64 == pytest.approx(100, abs=2)


def test_a_listener_without_that_source_says_so(start):
    start()
    with pytest.raises(ControlError, match="it gives no spectrogram"):
        client.mel("mic", 0)
    line = b'{"do": "mel", "source": "mic", "since": 0, "most": 100000}\n'
    assert "most" in talk(client.listeners()[0], line)["error"]


def test_another_user_is_refused_by_both_ends(start, monkeypatch):
    called = []
    control = start(reload=lambda: called.append(1) or [])
    monkeypatch.setattr(messages, "peer_uid", lambda _connection: os.getuid() + 1)
    assert talk(control.path, b'{"do":"reload"}\n') == {}
    assert (control.refused, called) == (1, [])
    with pytest.raises(ControlError, match="another user's"):
        client.last(1.0)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_process_of_another_user_is_refused_though_it_may_open_the_file(start, tmp_path):
    control = start()
    control.path.chmod(0o777)
    for folder in (control.path.parent, *control.path.parents):
        if os.stat(folder).st_mode & 0o005 != 0o005:
            folder.chmod(0o755)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.setuid(65_534)
        os.write(writer, json.dumps(talk(control.path, b'{"do":"reload"}\n')).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 1000) == b"{}"
    assert control.refused == 1


@pytest.mark.parametrize(
    "sent",
    [
        b"\n",
        b"{}\n",
        b'{"do":"format"}\n',
        b'{"do":"last","seconds":1e9}\n',
        b'{"do":"last","seconds":-1}\n',
        b'{"do":"reload","more":1}\n',
        b'{"do":"last","seconds":1,"source":"' + b"x" * 3000 + b'"}\n',
        b"\xff\xfe\n",
        b"x" * 100_000,
        b'{"a":' + b"[" * 4000 + b"\n",  # deeper than a decoder goes
    ],
)
def test_nonsense_is_refused_and_the_next_request_is_answered(start, sent):
    control = start()
    answer = talk(control.path, sent)
    assert answer.get("error", "not a request").startswith("not a request")
    assert client.reload() == (1, [])


def test_one_who_says_nothing_does_not_keep_the_others_out(start, monkeypatch):
    monkeypatch.setattr(server, "PEER_S", 0.3)
    control = start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.connect(str(control.path))
        assert client.reload() == (1, [])


def test_one_who_says_a_letter_now_and_then_does_not_keep_the_others_out(start, monkeypatch):
    monkeypatch.setattr(server, "PEER_S", 0.5)
    control = start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as slow:
        slow.connect(str(control.path))
        letters = 0
        with contextlib.suppress(ConnectionError):  # which is what ends it
            while letters < 100:
                slow.sendall(b" ")
                letters += 1
                time.sleep(0.1)
        assert letters < 100
        assert client.reload() == (1, [])


def test_more_than_may_wait_are_all_answered(start):
    busy = threading.Event()
    start(reload=lambda: busy.wait(20) and ["kettle"])
    with concurrent.futures.ThreadPoolExecutor(3 * server.BACKLOG) as pool:
        asked = [pool.submit(client.reload) for _ in range(3 * server.BACKLOG)]
        time.sleep(0.5)  # all of them are there
        busy.set()
        assert [each.result() for each in asked] == [(1, [])] * len(asked)


def test_an_error_of_the_listener_reaches_the_command(start):
    def broken():
        raise SoundsError("sounds.json is damaged")

    start(reload=broken)
    assert client.reload() == (0, ["sounds.json is damaged"])


def test_what_a_killed_listener_left_is_passed_over_and_removed(start, tmp_path):
    left = tmp_path / "control" / "999999.sock"
    left.parent.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(left))
    assert client.reload() == (0, [])
    control = start()
    assert not left.exists()
    assert client.reload() == (1, [])
    control.close()
    assert not left.parent.exists()
    with pytest.raises(ControlError, match="streamtwl listen"):
        client.last(1.0)


def test_a_folder_that_is_too_deep_is_said_in_a_line(monkeypatch, tmp_path):
    monkeypatch.setenv("STREAMTWL_STATE", str(tmp_path / ("x" * 100)))
    with pytest.raises(ControlError, match="STREAMTWL_STATE"):
        ControlServer(list, lambda seconds, source: ("", b""))
