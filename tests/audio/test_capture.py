import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from streamtwl.audio import capture
from streamtwl.audio import microphone as microphone_module
from streamtwl.audio.capture import choose_input, rates
from streamtwl.audio.microphone import Microphone, list_inputs
from streamtwl.errors import DeviceError
from tests.conftest import PATIENCE_S

NOWHERE = "no such microphone 4711"


def device(index: int, name: str, is_default: bool = False) -> dict:
    return {"index": index, "name": name, "channels": 2, "is_default": is_default}


INPUTS = [
    device(0, "HDA Intel PCH: ALC257 Analog (hw:0,0)"),
    device(3, "USB Audio: - (hw:1,0)"),
    device(4, "pulse", is_default=True),
    device(7, "USB Audio Pro: Line (hw:2,0)"),
]


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        ("", 4),
        ("7", 7),
        ("pulse", 4),
        ("PULSE", 4),
        ("intel", 0),
        ("USB Audio: - (hw:1,0)", 3),
        ("USB Audio: - (hw:5,0)", 3),  # plugged in again: another card number
        ("usb audio: -", 3),
        ("Line", 7),
    ],
)
def test_an_input_is_chosen_by_default_index_or_name(wanted, index):
    assert choose_input(INPUTS, wanted)["index"] == index


def test_a_whole_name_goes_before_longer_ones():
    inputs = [device(0, "Webcam Pro (hw:0,0)"), device(1, "Webcam (hw:1,0)")]
    assert choose_input(inputs, "webcam")["index"] == 1


def test_of_two_alike_the_exact_name_is_taken():
    inputs = [device(0, "Webcam (hw:0,0)"), device(1, "Webcam (hw:1,0)")]
    assert choose_input(inputs, "Webcam (hw:1,0)")["index"] == 1
    with pytest.raises(ValueError, match="2 inputs match"):
        choose_input(inputs, "Webcam")


@pytest.mark.parametrize("wanted", ["1", "99", "banjo", "pulsee"])
def test_what_matches_nothing_is_refused(wanted):
    with pytest.raises(ValueError, match=f"no input device matches '{wanted}'.*streamtwl devices"):
        choose_input(INPUTS, wanted)


def test_what_matches_several_is_refused():
    with pytest.raises(ValueError, match="2 inputs match 'usb'"):
        choose_input(INPUTS, "usb")


def test_without_a_default_the_first_is_taken():
    assert choose_input(INPUTS[:2], "")["index"] == 0


@pytest.mark.parametrize("wanted", ["", "0", "usb"])
def test_without_any_input_the_demo_is_named(wanted):
    with pytest.raises(ValueError, match="--demo"):
        choose_input([], wanted)


@pytest.mark.parametrize(
    ("host_api", "name", "first"),
    [
        ("ALSA", "USB Audio: - (hw:1,0)", [16_000, 44_100, 48_000]),
        ("ALSA", "pulse", [48_000, 44_100, 96_000]),
        ("ALSA", "default", [48_000, 44_100, 96_000]),
        ("Core Audio", "MacBook Microphone", [16_000, 44_100, 48_000]),
    ],
)
def test_no_sound_server_is_asked_to_resample_to_16_khz(host_api, name, first):
    offered = rates({"host_api": host_api, "name": name, "default_rate_hz": 44_100.0})
    assert offered[:3] == first
    assert sorted(offered) == [8_000, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000]


def run_capture(*arguments, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", capture.__name__, *arguments],
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


@pytest.fixture
def without_portaudio(tmp_path):
    """What sounddevice does where the library is missing (it cannot be taken away here)."""
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    return {"PYTHONPATH": str(tmp_path)}


STALLED = """
import os, struct
from types import SimpleNamespace

default = SimpleNamespace(device=(0, 0))
PortAudioError = OSError
RATE, BLOCK, BLOCKS = 16_000, 1_280, 100  # 8 s, which the ring holds and no pipe does
CLOCK = SimpleNamespace(currentTime=1.0, inputBufferAdcTime=0.92)

def query_devices():
    return [{"index": 0, "name": "one", "hostapi": 0, "max_input_channels": 1,
             "default_samplerate": float(RATE)}]

def query_hostapis(index):
    return {"name": "Core Audio"}

def check_input_settings(device, channels, dtype, extra_settings, samplerate):
    pass

class RawInputStream:
    active = True
    def __init__(self, callback, **settings):
        self._callback = callback
    def __enter__(self):
        for i in range(BLOCKS):
            frames = struct.pack(f"<{BLOCK}f", *range(i * BLOCK, (i + 1) * BLOCK))
            self._callback(frames, BLOCK, CLOCK, SimpleNamespace(input_overflow=False))
        open(os.environ["DONE"], "w").close()
    def __exit__(self, *error):
        pass
"""


def test_what_a_full_pipe_has_no_room_for_comes_later(tmp_path):
    (tmp_path / "sounddevice.py").write_text(STALLED)
    command = [sys.executable, "-m", capture.__name__, "open", ""]
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "DONE": str(tmp_path / "done")}
    ends = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, **ends) as process:
        try:
            until = time.monotonic() + PATIENCE_S
            while not (tmp_path / "done").exists():  # nothing is read before
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.01)
            received, _ = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    opening, _, rest = received.partition(b"\n")
    assert json.loads(opening)["rate"] == 16_000
    chunks = []
    while rest:
        start, count, *_ = capture.HEADER.unpack_from(rest)
        frames = np.frombuffer(rest, np.float32, count, capture.HEADER.size)
        assert start == sum(map(len, chunks))
        chunks.append(frames)
        rest = rest[capture.HEADER.size + frames.nbytes :]
    assert np.array_equal(np.concatenate(chunks), np.arange(128_000))
    assert len(chunks) < 100  # several blocks in one, where the pipe was full


@pytest.mark.parametrize("command", [("list",), ("open", "")])
def test_a_missing_portaudio_is_named_with_its_package(command, without_portaudio):
    ended = run_capture(*command, **without_portaudio)
    assert ended.returncode != 0
    assert "libportaudio2" in json.loads(ended.stderr)["error"]
    assert ended.stdout == ""


def test_an_absent_device_is_one_json_error():
    ended = run_capture("open", NOWHERE)
    assert ended.returncode != 0
    assert ended.stdout == ""
    assert list(json.loads(ended.stderr.splitlines()[-1])) == ["error"]


def test_list_inputs_raises_without_portaudio(without_portaudio, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", without_portaudio["PYTHONPATH"])
    with pytest.raises(DeviceError, match="libportaudio2"):
        list_inputs()


def test_a_microphone_that_was_never_there_raises_and_ends():
    microphone = Microphone("mic", NOWHERE)
    microphone.start()

    def listen() -> None:
        while microphone.state == "opening":
            assert microphone.read(time.monotonic()) is None
            time.sleep(0.01)

    try:
        with pytest.raises(DeviceError, match="mic"):
            listen()
        assert microphone.state == "ended"
    finally:
        microphone.close()


class Played:
    """A capture process that says what a test wants it to, in place of PortAudio's."""

    def __init__(self, folder, monkeypatch) -> None:
        self._file = folder / "chunks"
        self._file.touch()
        (folder / "played.py").write_text(
            "import sys, time\n"
            f"with open({str(self._file)!r}, 'rb') as chunks:\n"
            "    while True:\n"
            "        sys.stdout.buffer.write(chunks.read())\n"
            "        sys.stdout.flush()\n"
            "        time.sleep(0.01)\n"
        )
        monkeypatch.setenv("PYTHONPATH", str(folder))
        played = SimpleNamespace(__name__="played", HEADER=capture.HEADER)
        monkeypatch.setattr(microphone_module, "capture", played)
        self.begin()

    def begin(self) -> None:
        """Say what the process that is started next says first."""
        self._file.write_bytes(b'{"rate": 16000, "channels": 1, "device": "played"}\n')

    def chunk(self, start: int, count: int, came_at: float, age_s: float = 0.0) -> None:
        header = capture.HEADER.pack(start, count, 0, came_at, age_s)
        self._write(header + np.zeros(count, np.float32).tobytes())

    def _write(self, content: bytes) -> None:
        with self._file.open("ab") as chunks:
            chunks.write(content)


def read_once(microphone: Microphone) -> list[tuple[int, int]]:
    """Return (start, number) of the frames that came, in a list; an empty one where none did."""
    time.sleep(0.005)
    chunk = microphone.read(time.monotonic())
    return [] if chunk is None else [(chunk.start, len(chunk.frames))]


@pytest.fixture
def played(tmp_path, monkeypatch):
    """A microphone, and what its process says."""
    one = Played(tmp_path, monkeypatch)
    microphone = Microphone("mic")
    microphone.start()
    yield microphone, one
    microphone.close()


@pytest.mark.timeout(60)
def test_a_microphone_whose_process_was_stopped_unnoticed_is_lost(played):
    """Its frames join on, so that nothing but the time at which they came shows it."""
    microphone, one = played
    now = time.monotonic()
    one.chunk(0, 1600, now)
    one.chunk(1600, 1600, now + 0.1)
    one.chunk(3200, 1600, now + 60.2)
    given = []
    while microphone.state != "lost":
        given += read_once(microphone)
    assert sum(count for _, count in given) == 3200
    assert "no sound from the device" in microphone.error


@pytest.mark.timeout(60)
@pytest.mark.parametrize("late_s", [0.0, 1.5])
def test_a_microphone_whose_frames_come_late_together_is_not_lost(late_s, played):
    """So it is where this program was stopped and the microphone's process was not."""
    microphone, one = played
    now = time.monotonic()
    one.chunk(0, 1600, now)
    one.chunk(1600, 1600, now + 0.1 + late_s)
    one.chunk(3200, 160_000, now + 10.1 + late_s)  # ten seconds, all at once
    one.chunk(163_200 + 48_000, 1600, now + 13.2 + late_s)  # three were lost, and counted
    given = []
    while sum(count for _, count in given) < 164_800:
        given += read_once(microphone)
        assert microphone.state != "lost"
    assert given[-1] == (211_200, 1600)


@pytest.mark.timeout(60)
def test_a_gap_lasts_from_the_last_arrival_to_the_first_whatever_comes_late(played):
    """How old a frame was when it came is not known of the first ones of an opening."""
    microphone, one = played
    now, late_s = time.monotonic(), {0: 0.3, 1: 0.2, 9: 0.15}
    for began_at, age_s in ((now, 0.05), (now + 9.0, 0.0)):
        for i in range(10):
            one.chunk(1600 * i, 1600, began_at + 0.1 * (i + 1) + late_s.get(i, 0.0), age_s)
        chunk = None
        while chunk is None or chunk.start + len(chunk.frames) < 16_000:
            chunk = microphone.read(time.monotonic()) or chunk
            time.sleep(0.005)
        one.begin()
        microphone._child.kill()
    assert microphone.reopened == 1
    assert chunk.opened_at == pytest.approx(9 * 16_000, abs=1)
