"""Radio and a camera through `listen`: lost, back again, and their passwords seen by nobody."""

import contextlib
import itertools
import signal

import numpy as np
import pytest
import soundfile

from streamtwl.audio import demo
from streamtwl.messages import Event, Label, Status, encode
from tests.conftest import PATIENCE_S
from tests.network_servers import ffmpeg, free_port, rtsp_gate, rtsp_server, wait_for

REPLAY = ("--replay-bind", "tcp://127.0.0.1:*")
SECRETS = (b"anna", b"s3cret", b"live", b"yard.wav")


@pytest.fixture
def serve(tmp_path):
    """A server of a siren, for each kind: serve(kind) returns (the address, how to start it)."""
    siren = np.tile(demo.scene()[209_600:248_000], 60)  # 2.4 s
    soundfile.write(tmp_path / "live.mp3", siren, 16_000)
    soundfile.write(tmp_path / "yard.wav", siren, 16_000)
    port = free_port()
    with rtsp_gate(port) as gate:
        yield {
            "radio": (
                f"http://anna:s3cret@127.0.0.1:{port}/live?key=s3cret",
                lambda: ffmpeg(tmp_path / "live.mp3", port),
            ),
            "camera": (
                f"rtsp://anna:s3cret@127.0.0.1:{gate}/yard.wav",
                lambda: rtsp_server(tmp_path, port),
            ),
        }


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", ["radio", "camera"])
def test_it_comes_back_and_nobody_sees_its_password(kind, serve, listen, figure):
    address, server = serve[kind]

    def newest(messages: list) -> dict[str, Event]:
        return {m.id: m for m in messages if isinstance(m, Event)}

    def state() -> str:
        return next(m.state for m in reversed(listening.messages) if isinstance(m, Status))

    def is_open() -> bool:
        return any(event.end is None for event in newest(listening.messages).values())

    with contextlib.ExitStack() as servers:
        listening = listen(address, "--labels", "everyday", "--log-level", "debug")
        listening.until(lambda m: isinstance(m, Status) and m.state == "lost")  # not there yet
        servers.enter_context(server())
        listening.until(lambda _: is_open())
        servers.close()
        listening.until(lambda m: isinstance(m, Status) and m.state == "lost")
        listening.until(lambda m: isinstance(m, Status) and m.state == "lost")
        assert not is_open()
        broke_off, known = listening.messages[-1].position, newest(listening.messages)
        servers.enter_context(server())
        listening.until(lambda _: is_open())
        listening.process.send_signal(signal.SIGINT)
        listening.until(lambda _: state() == "ended")
        assert listening.process.wait(PATIENCE_S) == 0

    status = listening.messages[-1]
    assert (status.source, status.reopened) == ("127-0-0-1", 1)
    assert max(event.end for event in known.values()) == broke_off
    events = newest(listening.messages)
    assert all(events[each].start > broke_off for each in events.keys() - known.keys())
    assert status.dropped_samples > 8_000

    labels = [m for m in listening.messages if isinstance(m, Label)]
    assert all(label.captured_at is not None for label in labels)
    jumps = [b.position - a.position for a, b in itertools.pairwise(labels)]
    gap = max(range(len(jumps)), key=jumps.__getitem__)
    by_clock = labels[gap + 1].captured_at - labels[gap].captured_at
    assert jumps[gap] / 16_000 == pytest.approx(by_clock, abs=0.5)  # the timeline went on

    shown = b"".join(encode(message, "json") for message in listening.messages)
    shown += listening.process.stderr.read() + listening.journal.read_bytes()
    assert not any(secret in shown for secret in SECRETS)
    figure(f"{kind} lost", f"{status.dropped_samples / 16_000:.1f} s missing")


def test_an_address_that_is_refused_is_one_line_and_the_end(cli, tmp_path):
    port, options = free_port(), ("--no-journal", "--bind", "tcp://127.0.0.1:*", *REPLAY)
    with rtsp_server(tmp_path, port), rtsp_gate(port) as gate:
        wait_for(port)
        ended = cli("listen", f"rtsp://anna:s3cret@127.0.0.1:{gate}/none.wav", *options)
    assert ended.returncode == 1
    assert "404" in ended.stderr
    assert len(ended.stderr.splitlines()) <= 2
    assert "s3cret" not in ended.stdout + ended.stderr


@pytest.mark.parametrize("address", ["kazoo:1", "ftp://anna:s3cret@host/x", "http://a:s3cret@"])
def test_what_is_no_address_is_a_usage_error(address, cli):
    ended = cli("listen", address)
    assert ended.returncode == 2
    assert ended.stderr.startswith("streamtwl: ")
    assert len(ended.stderr.splitlines()) == 1
    assert "s3cret" not in ended.stderr


def test_a_file_by_its_bare_name(cli, wav, noise):
    options = ("--no-journal", "--bind", "tcp://127.0.0.1:*", *REPLAY)
    ended = cli("listen", wav("door.wav", noise), "--fast", "--json", *options)
    assert ended.returncode == 0, ended.stderr
    assert '"source":"door"' in ended.stdout
