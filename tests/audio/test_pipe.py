import io
import os
import threading
import time

import numpy as np
import pytest
import soundfile

from streamtwl.audio.pipe import Pipe
from streamtwl.errors import AudioError
from streamtwl.stages import Source


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
    assert (chunk.rate, chunk.start, chunk.last_frame_at) == (44_100, 0, None)


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


@pytest.mark.parametrize("rate", [0, -1, 3999, 768_001])
def test_a_pipe_of_an_impossible_rate_is_refused(rate):
    with pytest.raises(AudioError, match=f"{rate} Hz"):
        Pipe("stdin", io.BytesIO(), rate, 1, "s16le")


# --- encodings, WAV headers ---


@pytest.mark.parametrize(
    ("encoding", "stored", "expected"),
    [
        ("u8", bytes([0, 128, 255]), [-1, 0, 127 / 128]),
        ("s24le", bytes([0, 0, 128, 0, 0, 0, 255, 255, 127]), [-1, 0, 1 - 2**-23]),
        ("s32le", np.array([-(2**31), 0, 2**30], "<i4").tobytes(), [-1, 0, 0.5]),
    ],
)
def test_other_encodings_are_scaled_to_one(encoding, stored, expected, pipe):
    one = pipe(16_000, 1, encoding)
    one.write(stored)
    one.end()
    np.testing.assert_allclose(drain(one.source)[:, 0], expected, rtol=0, atol=1e-7)


def wav_bytes(frames: np.ndarray, rate: int, subtype: str) -> bytes:
    memory = io.BytesIO()
    soundfile.write(memory, frames, rate, format="WAV", subtype=subtype)
    return memory.getvalue()


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT"])
@pytest.mark.parametrize("cut", [[1, 2, 5, 30, 43], [4000]])
def test_a_wav_header_is_read_and_not_heard(subtype, cut, pipe):
    one = pipe()  # 16 kHz, mono, s16le: the header knows better
    content = wav_bytes(noise(300, 2), 48_000, subtype)
    rates, frames = set(), []
    for start, end in zip([0, *cut], [*cut, len(content)], strict=True):
        one.write(content[start:end])
        chunk = one.source.read(time.monotonic())
        if chunk is not None:
            rates.add(chunk.rate)
            frames.append(chunk.frames)
    assert rates == {48_000}
    np.testing.assert_allclose(np.concatenate(frames)[:300], noise(300, 2), rtol=0, atol=1 / 127)


def test_what_follows_the_sound_of_a_wav_is_no_error(pipe):
    one = pipe()
    one.write(wav_bytes(noise(300, 2), 48_000, "PCM_16") + b"LIST\x02\0\0\0IN\0")
    one.end()
    assert len(drain(one.source)) >= 300


def test_a_comment_in_a_wav_header_may_say_data(pipe):
    content = wav_bytes(noise(300, 2), 48_000, "PCM_16")
    at = content.index(b"fmt ")
    one = pipe()
    one.write(content[:at] + b"LIST\x12\0\0\0INFOICMT\5\0\0\0data!\0" + content[at:])
    one.end()
    assert len(drain(one.source)) == 300


@pytest.mark.parametrize("channels", [b"\0\0", None])
def test_a_wav_header_that_says_nothing_of_use_is_an_error(channels, pipe):
    content = wav_bytes(noise(300, 2), 48_000, "PCM_16")
    at = content.index(b"fmt ") + 10
    without = content[:12] + content[content.index(b"data") :]  # what is to come before it
    one = pipe()
    one.write(without if channels is None else content[:at] + channels + content[at + 2 :])
    with pytest.raises(AudioError, match=r"WAV header that cannot be read.*--file -"):
        one.source.read(time.monotonic())
    assert one.source.state == "ended"


def test_what_cannot_be_read_is_an_error(tmp_path):
    with (tmp_path / "file").open("wb") as written:
        source = Pipe("stdin", written, 16_000, 1, "s16le")
        source.start()
        with pytest.raises(AudioError, match=r"'stdin' cannot be read: Bad file descriptor"):
            source.read(time.monotonic())
    assert source.state == "ended"


def test_a_wav_header_without_an_end_is_an_error(pipe):
    one = pipe()
    one.write(b"RIFF....WAVEfmt ")
    assert one.source.read(time.monotonic()) is None
    one.end()
    with pytest.raises(AudioError, match="a WAV header without sound"):
        one.source.read(time.monotonic())


@pytest.mark.parametrize(
    "magic", [b"fLaC", b"OggS", b"ID3\4", b"FORM", b"RIFX", b"caff", b"....ftyp"]
)
def test_encoded_sound_is_no_raw_samples(magic, pipe):
    one = pipe()
    one.write(magic + bytes(100))
    with pytest.raises(AudioError, match=r"use --file - in place of --stdin"):
        one.source.read(time.monotonic())


# --- wrong settings ---


def feed(one: RealPipe, seconds: int, bytes_per_s: int) -> None:
    """Give a pipe so much each second of a clock that the test moves."""
    for second in range(seconds):
        for size in [16_000] * (bytes_per_s // 16_000) + [bytes_per_s % 16_000]:
            one.write(bytes(size))
            one.source.read(1000.0 + second)


@pytest.mark.parametrize(
    ("bytes_per_s", "said"),
    [
        (32_000, None),  # s16le at 16 kHz
        (35_280, None),
        (64_000, "times faster than real time"),  # it is stereo
        (192_000, "times faster than real time"),  # and at 48 kHz
        (16_000, "2.0 times slower than real time"),  # it is u8
    ],
)
def test_a_pace_far_from_real_time_is_noted_once(bytes_per_s, said, pipe, caplog):
    feed(pipe(), 40, bytes_per_s)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == (said is not None)
    assert all(said in line and "--rate, --channels or --format" in line for line in lines)
