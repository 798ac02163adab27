"""Network streams: what comes through, and what is refused, from servers on loopback."""

import contextlib
import io
import socket
import threading
import time

import numpy as np
import pytest
import soundfile

from streamtwl.audio import connection as connection_module
from streamtwl.audio.connection import Connection
from streamtwl.audio.intake import Intake
from streamtwl.audio.network import NetworkStream
from streamtwl.audio.network_address import Address
from streamtwl.errors import DeviceError
from tests.conftest import PATIENCE_S
from tests.network_servers import (
    ffmpeg,
    free_port,
    make_certificate,
    rtsp_gate,
    rtsp_server,
    wait_for,
    web_server,
)

SECONDS = 2.0


def sound(kind: str = "WAV", seconds: float = SECONDS, rate: int = 16_000) -> bytes:
    """Noise, so that no silence is found in it."""
    samples = np.random.default_rng(1).uniform(-0.3, 0.3, round(seconds * rate))
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind)
    return file.getvalue()


class Received:
    """A source that is read to its end, or until `enough`."""

    def __init__(self, address: str, enough=lambda _received: False) -> None:
        self.source = NetworkStream("net", Address(address))
        self.blocks: list = []
        self.states: list[str] = []
        with contextlib.closing(Intake([self.source])) as intake:
            intake.start()
            [self.stream] = intake.streams
            until = time.monotonic() + PATIENCE_S
            for blocks in intake.ticks():
                assert time.monotonic() < until, self.source.error
                self.blocks += blocks
                if self.states[-1:] != [self.source.state]:
                    self.states.append(self.source.state)
                if enough(self) and not intake.stopping:
                    intake.stop()
        self.error = self.stream.error

    @property
    def seconds(self) -> float:
        return sum(len(block.samples) for block in self.blocks) / 16_000


@pytest.fixture
def web():
    with web_server() as server:
        yield server


# --- what comes through ---


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_file_on_a_web_server_is_played_whole_and_ends(kind, web):
    web.pages["/sound"] = sound(kind)
    began = time.monotonic()
    received = Received(f"http://127.0.0.1:{web.port}/sound")
    assert (received.states[-1], received.error) == ("ended", None)
    assert received.seconds == pytest.approx(SECONDS, abs=0.1)
    assert time.monotonic() - began > SECONDS - 0.3  # at the pace of real time
    assert all(block.captured_at is None for block in received.blocks)
    assert web.wanted == ["/sound"]


def test_a_file_that_breaks_off_is_an_error_after_what_came(web):
    whole = sound(seconds=6.0)
    web.pages["/sound"] = whole[: len(whole) // 2]
    web.lengths["/sound"] = len(whole)
    received = Received(f"http://127.0.0.1:{web.port}/sound")
    assert received.states[-1] == "ended"
    assert "broke off" in str(received.error)
    assert received.seconds == pytest.approx(3.0, abs=0.3)


@pytest.mark.slow
def test_a_radio_is_live_comes_back_and_its_timeline_goes_on(tmp_path):
    port, radio = free_port(), tmp_path / "radio.mp3"
    radio.write_bytes(sound("MP3", 5.0))
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        first.enter_context(ffmpeg(radio, port))

        def enough(received: Received) -> bool:
            if received.seconds > 1 and received.states[-1] == "listening":
                first.close()
            if (
                received.states[-1] == "lost"
                and received.seconds > 1
                and not second._exit_callbacks
            ):
                second.enter_context(ffmpeg(radio, port))
            return received.source.reopened == 1 and received.states[-1] == "listening"

        received = Received(f"http://127.0.0.1:{port}/live", enough)
    assert received.states[-4:] == ["listening", "lost", "listening", "ended"]
    [broke_off] = [block for block in received.blocks if block.breaks_off]
    after = next(b for b in received.blocks if b.position > broke_off.position and len(b.samples))
    ended_at = broke_off.position + len(broke_off.samples)
    assert after.position - ended_at >= 0.5 * 16_000  # it tries again after a second
    by_clock = after.captured_at - broke_off.captured_at
    by_position = (after.position + len(after.samples) - ended_at) / 16_000
    assert by_position == pytest.approx(by_clock, abs=0.5)
    assert received.stream.dropped_samples == pytest.approx(after.position - ended_at, abs=2)


@pytest.mark.slow
def test_a_camera_is_heard_with_user_and_password_and_comes_back(tmp_path):
    (tmp_path / "yard.wav").write_bytes(sound(seconds=60))
    port = free_port()
    with contextlib.ExitStack() as servers, rtsp_gate(port) as gate:
        servers.enter_context(rtsp_server(tmp_path, port))
        restarted = []

        def enough(received: Received) -> bool:
            if received.seconds > 1 and not restarted:
                servers.close()
                restarted.append(servers.enter_context(rtsp_server(tmp_path, port)))
            return received.source.reopened > 0

        received = Received(f"rtsp://anna:s3cret@127.0.0.1:{gate}/yard.wav", enough)
    assert "lost" in received.states
    assert received.error is None
    assert any(block.captured_at is not None for block in received.blocks)


@pytest.mark.slow
def test_a_server_that_comes_later_is_waited_for(tmp_path):
    port, radio = free_port(), tmp_path / "radio.mp3"
    radio.write_bytes(sound("MP3", 5.0))
    with contextlib.ExitStack() as servers:
        started = []

        def enough(received: Received) -> bool:
            if received.states[-1] == "lost" and not started:
                started.append(servers.enter_context(ffmpeg(radio, port)))
            return received.states[-1] == "listening"

        received = Received(f"http://127.0.0.1:{port}/live", enough)
    assert "lost" in received.states
    assert (received.source.reopened, received.stream.dropped_samples) == (0, 0)


def playlist(*segments: str, ended: bool = True) -> bytes:
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:2"]
    lines += [line for segment in segments for line in ("#EXTINF:2,", segment)]
    return "\n".join([*lines, *["#EXT-X-ENDLIST"] * ended, ""]).encode()


def test_a_playlist_of_its_own_segments_is_played(web):
    web.pages["/a.mp3"] = sound("MP3")
    web.pages["/radio/list.m3u8"] = playlist("/a.mp3", f"http://127.0.0.1:{web.port}/a.mp3")
    received = Received(f"http://127.0.0.1:{web.port}/radio/list.m3u8")
    assert (received.states[-1], received.error) == ("ended", None)
    assert received.seconds == pytest.approx(2 * SECONDS, abs=0.3)


def test_shoutcast_says_icy():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(4096)
                client.sendall(b"ICY 200 OK\r\nicy-name: Radio\r\n\r\n" + sound("MP3"))

        threading.Thread(target=serve, daemon=True).start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        received = Received(address, lambda received: received.states[-1] == "lost")
    assert received.seconds == pytest.approx(SECONDS, abs=0.1)


# --- what is refused ---


def refused(address: str) -> str:
    received = Received(address)
    assert [state for state in received.states if state != "opening"] == ["ended"]
    assert isinstance(received.error, DeviceError)
    said = str(received.error)
    assert said.isprintable()
    assert not any(secret in said for secret in ("anna", "s3cret", "token"))
    return said


@pytest.mark.parametrize(
    ("page", "says"),
    [(404, "404"), (403, "user and password"), (410, "410"), (b"no audio at all", "not audio")],
)
def test_a_server_that_refuses_at_the_start_is_one_line(page, says, web):
    web.pages["/token"] = page
    assert says in refused(f"http://anna:s3cret@127.0.0.1:{web.port}/token?key=token")


@pytest.mark.parametrize("page", [429, 500, 503])
def test_a_server_that_has_trouble_is_tried_again(page, web):
    web.pages["/sound"] = page
    address = f"http://127.0.0.1:{web.port}/sound"
    received = Received(address, lambda received: len(web.wanted) > 1)
    assert received.states[0] == "lost"
    assert received.error is None


def test_a_web_server_gets_user_and_password(web):
    web.private = True
    web.pages["/sound"] = sound()
    assert "user and password" in refused(f"http://127.0.0.1:{web.port}/sound")
    assert "user and password" in refused(f"http://anna:token@127.0.0.1:{web.port}/sound")
    assert Received(f"http://anna:s3cret@127.0.0.1:{web.port}/sound").error is None


@pytest.mark.parametrize("path", ["/none.wav", "/token"])
def test_a_camera_that_refuses_is_one_line(path, tmp_path):
    port = free_port()
    with rtsp_server(tmp_path, port), rtsp_gate(port) as gate:
        wait_for(port)
        user = "anna:s3cret@" if path == "/none.wav" else "anna:token@"
        said = "404" if path == "/none.wav" else "user and password"
        assert said in refused(f"rtsp://{user}127.0.0.1:{gate}{path}")


@pytest.mark.parametrize(
    "list_of_others",
    [
        playlist("file:///etc/hostname"),
        playlist("file:/etc/hostname.ts"),
        playlist("tcp://127.0.0.1:PORT/a.ts"),
        playlist("http://localhost:PORT/other.ts"),
        playlist("concat:http://localhost:PORT/other.ts"),
        playlist("data:audio/mpeg;base64,AAAA"),
        b"ffconcat version 1.0\nfile 'file:/etc/hostname'\n",
        b"ffconcat version 1.0\nfile 'http://localhost:PORT/other.ts'\n",
    ],
)
def test_a_list_of_what_is_elsewhere_opens_nothing(list_of_others, web):
    web.pages["/list.m3u8"] = list_of_others.replace(b"PORT", str(web.port).encode())
    web.pages["/other.ts"] = sound("MP3")
    refused(f"http://127.0.0.1:{web.port}/list.m3u8")
    assert web.wanted == ["/list.m3u8"]


@pytest.mark.parametrize("scheme", ["https", "rtsps"])
def test_a_certificate_that_nobody_trusts_is_refused(scheme, tmp_path):
    with web_server(make_certificate(tmp_path)) as web:
        web.pages["/sound"] = sound()
        assert "SSL_CERT_FILE" in refused(f"{scheme}://127.0.0.1:{web.port}/sound")
        assert web.wanted == []


def test_a_certificate_of_ones_own_authority_is_trusted(tmp_path, monkeypatch):
    with web_server(make_certificate(tmp_path)) as web:
        web.pages["/sound"] = sound()
        web.pages["/list.m3u8"] = playlist("/sound")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        assert Received(f"https://127.0.0.1:{web.port}/sound").seconds == SECONDS
        of_cameras = f"rtsps://127.0.0.1:{web.port}/sound"  # trusted, though it is a web server
        received = Received(of_cameras, lambda received: received.states[-1] == "lost")
        assert "lost" in received.states


def test_a_list_over_https_names_nothing_without_it(tmp_path, monkeypatch):
    with web_server(make_certificate(tmp_path)) as web, web_server() as plain:
        web.pages["/list.m3u8"] = playlist(f"http://127.0.0.1:{plain.port}/sound")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        assert "other addresses" in refused(f"https://127.0.0.1:{web.port}/list.m3u8")
        assert plain.wanted == []


# --- its buffer and its thread ---


class FakeDecoder:
    """Gives frames of 0.1 s at 1 kHz, each with its number, as fast as they are read."""

    rate, count = 1000, 1000

    def __init__(self, *_arguments) -> None:
        self.given = 0

    def read(self):
        if self.given == self.count:
            return None
        self.given += 1
        return 0, np.full((100, 1), self.given - 1, np.float32)

    def close(self) -> None:
        pass


@pytest.fixture
def fake(monkeypatch):
    """Connections without a network: fake(endless) makes one."""

    def make(endless: bool) -> Connection:
        opened = (contextlib.nullcontext(), endless)
        monkeypatch.setattr(connection_module, "open_remote", lambda _address: opened)
        monkeypatch.setattr(connection_module, "Decoder", FakeDecoder)
        monkeypatch.setattr(connection_module, "check_rate", lambda *_: None)
        return Connection(Address("http://127.0.0.1/"))

    return make


def test_the_oldest_sound_goes_when_nobody_takes_it(fake):
    connection = fake(True)
    connection._thread.join(PATIENCE_S)
    taken = []
    while pieces := connection.take(0.5):
        taken += pieces
    connection.close()
    assert sum(piece.seconds for piece in taken) == pytest.approx(
        connection_module.BUFFER_S, abs=0.15
    )
    assert all(piece.start == 100 * piece.frames[0, 0] for piece in taken)
    assert taken[-1].start == 99_900


def test_a_recording_waits_until_there_is_room(fake):
    connection = fake(False)
    taken = []
    until = time.monotonic() + PATIENCE_S
    while not (connection.over and not connection.next_s()):
        assert time.monotonic() < until
        taken += connection.take(0.5)
        assert connection._held_s <= connection_module.BUFFER_S + 0.1
    connection.close()
    assert [piece.frames[0, 0] for piece in taken] == list(range(1000))


def test_a_fault_of_the_program_in_its_thread_is_raised(monkeypatch):
    def fail(_address):
        raise RuntimeError("a fault")

    monkeypatch.setattr(connection_module, "open_remote", fail)
    with pytest.raises(RuntimeError, match="a fault"):
        Received("http://127.0.0.1/")


def test_a_server_that_says_nothing_delays_no_end(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        began = time.monotonic()
        received = Received(address, lambda received: True)
    assert received.states[-1] == "ended"
    assert time.monotonic() - began < 8.0  # its time-out is 10 s


def test_what_is_sent_again_after_a_loss_is_not_taken_twice(web):
    """As Icecast does: each connection begins with the seconds before it."""
    web.pages["/radio"] = sound("MP3")
    web.lengths["/radio"] = None
    address = f"http://127.0.0.1:{web.port}/radio"
    received = Received(address, lambda received: received.states.count("lost") == 2)
    assert received.source.reopened == 1
    assert SECONDS + 0.5 < received.seconds < 2 * SECONDS - 0.2  # it came back after a second
    assert received.stream.dropped_samples < 0.5 * 16_000


def test_a_radio_that_falls_silent_is_stalled_and_goes_on(monkeypatch):
    monkeypatch.setattr(connection_module, "SILENT_S", 0.5)
    more = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(4096)
                client.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + sound("MP3"))
                more.wait(PATIENCE_S)
                client.sendall(sound("MP3"))

        threading.Thread(target=serve, daemon=True).start()

        def enough(received: Received) -> bool:
            if received.states[-1] == "stalled":
                more.set()
            return "lost" in received.states

        received = Received(f"http://127.0.0.1:{server.getsockname()[1]}/", enough)
    sounded = [state for state in received.states if state in ("listening", "stalled")]
    assert sounded == ["listening", "stalled", "listening"]
    assert received.seconds == pytest.approx(2 * SECONDS, abs=0.2)
    assert any(block.breaks_off for block in received.blocks)
