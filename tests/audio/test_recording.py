import io
import os
import threading
import time

import numpy as np
import pytest
import soundfile

from streamtwl.audio.recording import Pipe, Recording
from streamtwl.audio.source import Source
from streamtwl.errors import AudioError


def noise(length: int, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(length)
    return rng.uniform(-1, 1, (length, channels)).astype(np.float32)


def drain(source: Source) -> np.ndarray:
    """Read a source to its end; return float32[n, channels]."""
    frames, expected = [], 0
    while source.state != "ended":
        chunk = source.read(time.monotonic())
        if chunk is not None:
            assert chunk.start == expected
            assert chunk.frames.dtype == np.float32
            expected += len(chunk.frames)
            frames.append(chunk.frames)
    return np.concatenate(frames)


def read_at(source: Source, now: float) -> list[int]:
    """Read a source to its end, all at one moment; return the sizes of its chunks."""
    sizes = []
    while source.state != "ended":
        chunk = source.read(now)
        sizes += [] if chunk is None else [len(chunk.frames)]
    return sizes


def read_whole(path) -> np.ndarray:
    recording = Recording("a", path)
    recording.start()
    return drain(recording)


# --- files ---


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.aiff"])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_file_is_read_whole(name, channels, wav):
    written = noise(30_000, channels)
    recording = Recording("a", wav(name, written, 22_050))
    recording.start()
    assert recording.duration_s == pytest.approx(30_000 / 22_050)
    np.testing.assert_allclose(drain(recording), written, rtol=0, atol=1 / 32_768)
    recording.close()


def test_an_open_file_is_a_recording_too():
    memory = io.BytesIO()
    soundfile.write(memory, noise(1000), 16_000, format="WAV")
    memory.seek(0)
    recording = Recording("demo", memory)
    recording.start()
    assert len(drain(recording)) == 1000


def refused(path, problem: str) -> None:
    recording = Recording("a", path)
    with pytest.raises(AudioError, match=problem):
        recording.start()


def test_a_missing_file_is_named(tmp_path):
    refused(tmp_path / "nowhere.wav", "no such file.*nowhere.wav")


def test_a_folder_is_named_with_a_way_out(tmp_path):
    refused(tmp_path, r"is a folder.*\*\.wav")


def test_an_empty_file_is_said_to_be_empty(tmp_path):
    (tmp_path / "empty.wav").touch()
    refused(tmp_path / "empty.wav", "'empty.wav' is empty")


@pytest.mark.parametrize("name", ["notes.wav", "notes.txt", "notes.mp3", "notes.flac", "notes.ogg"])
def test_text_is_not_audio(name, tmp_path):
    (tmp_path / name).write_text("Dear diary, today I heard a dog.\n" * 50)
    refused(tmp_path / name, f"'{name}' is not audio")


def test_a_raw_file_is_refused_as_any_that_says_nothing_of_its_format(tmp_path):
    (tmp_path / "sound.raw").write_bytes(bytes(3200))
    refused(tmp_path / "sound.raw", "sound.raw")


def test_a_wav_without_samples_holds_no_sound(wav):
    refused(wav("zero.wav", noise(0)), "'zero.wav' holds no sound")


def test_a_wav_shorter_than_its_header_says_is_an_error(wav):
    path = wav("cut.wav", noise(16_000))
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(AudioError, match=r"cut\.wav"):
        read_whole(path)


def test_a_wav_from_a_pipe_says_nothing_of_its_length_and_is_read(wav):
    path = wav("piped.wav", noise(16_000))
    content = path.read_bytes()  # ffmpeg, writing to a pipe, leaves both sizes at the highest
    at = content.index(b"data") + 4
    path.write_bytes(content[:4] + b"\xff" * 4 + content[8:at] + b"\xff" * 4 + content[at + 4 :])
    assert len(read_whole(path)) == 16_000


def test_a_cut_flac_is_an_error(wav):
    path = wav("cut.flac", noise(160_000))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(AudioError, match=r"cut\.flac"):
        read_whole(path)


def test_fast_gives_all_without_waiting(wav):
    recording = Recording("a", wav("a.wav", noise(160_000)))
    recording.start()
    now = time.monotonic()
    assert recording.due_in(now) == 0
    sizes = read_at(recording, now)  # time does not pass
    assert sum(sizes) == 160_000


def test_paced_gives_what_has_been_played_by_then(wav):
    recording = Recording("a", wav("a.wav", noise(16_000)), paced=True)
    recording.start()
    now = time.monotonic()
    assert recording.due_in(now) > 0
    assert recording.read(now - 1) is None
    chunk = recording.read(now + 0.1)
    assert len(chunk.frames) == pytest.approx(1600, abs=160)
    assert recording.due_in(now + 0.1) == pytest.approx(0.02, abs=0.01)
    assert recording.read(now + 0.1) is None
    given = len(chunk.frames)
    for at in np.arange(0.2, 1.2, 0.1):
        chunk = recording.read(now + at)
        given += 0 if chunk is None else len(chunk.frames)
    assert given == 16_000
    assert recording.state == "ended"


def test_paced_catches_up_in_bounded_chunks(wav):
    recording = Recording("a", wav("a.wav", noise(160_000)), paced=True)
    recording.start()
    sizes = read_at(recording, time.monotonic() + 100)
    assert sum(sizes) == 160_000
    assert max(sizes) <= 16_000


@pytest.mark.parametrize("paced", [True, False])
def test_stop_ends_a_recording(paced, wav):
    recording = Recording("a", wav("a.wav", noise(160_000)), paced)
    recording.start()
    given = len(recording.read(time.monotonic() + 0.5).frames)
    recording.stop()
    while recording.state != "ended":
        chunk = recording.read(time.monotonic() + 0.5)
        given += 0 if chunk is None else len(chunk.frames)
    assert 0 < given < 160_000
    assert recording.read(time.monotonic()) is None


# --- pipes ---


class RealPipe:
    """Both ends of an os.pipe, the reading one in a `Pipe`."""

    def __init__(self, rate: int = 16_000, channels: int = 1, encoding: str = "s16le") -> None:
        reading, self.fileno = os.pipe()
        self.file = os.fdopen(reading, "rb")
        self.source = Pipe("stdin", self.file, rate, channels, encoding)
        self.source.start()

    def write(self, content: bytes) -> None:
        os.write(self.fileno, content)

    def end(self) -> None:
        if self.fileno >= 0:
            os.close(self.fileno)
            self.fileno = -1


@pytest.fixture
def pipe():
    made = []

    def make(*arguments) -> RealPipe:
        made.append(RealPipe(*arguments))
        return made[-1]

    yield make
    for one in made:
        one.end()
        one.file.close()


def test_s16le_is_scaled_to_one(pipe):
    one = pipe()
    one.write(np.array([0, 1, -1, 16_384, 32_767, -32_768], "<i2").tobytes())
    one.end()
    assert drain(one.source)[:, 0].tolist() == [0, 2**-15, -(2**-15), 0.5, 32_767 / 32_768, -1]


def test_f32le_is_taken_as_it_is(pipe):
    one = pipe(48_000, 2, "f32le")
    written = noise(1000, 2)
    one.write(written.astype("<f4").tobytes())
    one.end()
    np.testing.assert_array_equal(drain(one.source), written)


def test_chunks_carry_the_rate_that_was_asked_for(pipe):
    one = pipe(44_100)
    one.write(bytes(200))
    chunk = one.source.read(time.monotonic())
    assert (chunk.rate, chunk.start, chunk.heard_at) == (44_100, 0, None)


@pytest.mark.parametrize(("encoding", "channels"), [("s16le", 1), ("s16le", 2), ("f32le", 3)])
def test_frames_cut_by_reads_are_joined(encoding, channels, pipe):
    one = pipe(16_000, channels, encoding)
    written = np.round(noise(500, channels) * 32_767)
    written = written.astype("<i2") if encoding == "s16le" else noise(500, channels)
    content = written.tobytes()
    frames, at = [], 0
    for size in [1, 1, 2, 3, 5, 7, 11, 101, len(content)]:
        one.write(content[at : at + size])
        at += size
        chunk = one.source.read(time.monotonic())
        if chunk is not None:
            assert chunk.start == sum(map(len, frames))
            frames.append(chunk.frames)
    one.end()
    assert one.source.read(time.monotonic()) is None
    assert one.source.state == "ended"
    expected = written / np.float32(32_768) if encoding == "s16le" else written
    np.testing.assert_array_equal(np.concatenate(frames), expected)


def test_an_end_inside_a_frame_is_an_error(pipe):
    one = pipe(16_000, 2)
    one.write(bytes(4 * 10 + 3))
    one.end()
    assert len(one.source.read(time.monotonic()).frames) == 10
    with pytest.raises(AudioError, match=r"inside a frame \(3 bytes.*--channels 2"):
        one.source.read(time.monotonic())
    assert one.source.state == "ended"


def test_an_idle_pipe_gives_nothing_and_does_not_block(pipe):
    one = pipe()
    assert one.source.read(time.monotonic()) is None
    assert one.source.state == "listening"
    assert one.source.filenos() == [one.file.fileno()]


def test_more_than_the_pipe_holds_comes_through_whole(pipe):
    one = pipe()
    written = (np.arange(500_000) % 65_536 - 32_768).astype("<i2")

    def produce() -> None:
        content = memoryview(written.tobytes())
        while content:
            content = content[os.write(one.fileno, content) :]
        one.end()

    producer = threading.Thread(target=produce)
    producer.start()
    frames = drain(one.source)
    producer.join()
    np.testing.assert_array_equal(frames[:, 0] * 32_768, written)


def test_stop_takes_what_is_in_the_pipe(pipe):
    one = pipe()
    one.write(bytes(2 * 700))
    one.source.stop()
    assert one.source.due_in(time.monotonic()) == 0
    assert len(drain(one.source)) == 700


def test_stop_ends_an_idle_pipe(pipe):
    one = pipe()
    one.source.stop()
    assert one.source.read(time.monotonic()) is None
    assert one.source.state == "ended"


@pytest.mark.parametrize("rate", [0, -1, 7999, 192_001])
def test_a_pipe_of_an_impossible_rate_is_refused(rate):
    with pytest.raises(AudioError, match=f"{rate} Hz"):
        Pipe("stdin", io.BytesIO(), rate, 1, "s16le")
