import io
import os
import threading
import time
import warnings
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from streamtwl.audio.recording import Recording
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


@pytest.fixture
def said(caplog):
    """What was logged, as one text."""
    return lambda: "\n".join(record.getMessage() for record in caplog.records)


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


def test_a_wav_shorter_than_its_header_says_is_read_to_its_end_and_noted(wav, said):
    path = wav("cut.wav", noise(16_000))
    path.write_bytes(path.read_bytes()[:20_044])
    assert len(read_whole(path)) == 10_000
    assert "'cut.wav': by its header 1.00 s long, decoded to its end: 0.6" in said()


def test_a_whole_file_is_not_noted(wav, said):
    read_whole(wav("whole.wav", noise(16_000)))
    assert said() == ""


def test_a_cut_flac_is_read_to_its_end_and_noted(wav, said):
    path = wav("cut.flac", noise(160_000))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert 60_000 < len(read_whole(path)) < 100_000
    assert "'cut.flac': by its header 10.00 s long" in said()


def test_sound_that_is_missing_leaves_a_gap(tmp_path, wav, said):
    content = bytearray(wav("a.flac", noise(160_000)).read_bytes())
    half = len(content) // 2
    content[half : half + 20_000] = bytes(20_000)
    path = tmp_path / "damaged.flac"
    path.write_bytes(content)
    recording = Recording("a", path)
    recording.start()
    chunks = []
    while recording.state != "ended":
        chunk = recording.read(time.monotonic())
        chunks += [chunk] if chunk is not None else []
    ends = [chunk.start + len(chunk.frames) for chunk in chunks]
    assert ends[-1] == 160_000
    gaps = [c.start - end for c, end in zip(chunks[1:], ends, strict=False) if c.start != end]
    assert len(gaps) == 1
    assert "s of sound missing" in said()


def test_numbers_beyond_float32_are_infinite_without_a_word(tmp_path):
    frames = noise(1000).astype(np.float64)
    frames[10] = 1e300
    soundfile.write(tmp_path / "a.wav", frames, 16_000, subtype="DOUBLE")
    with warnings.catch_warnings(action="error", category=RuntimeWarning):
        assert np.isinf(read_whole(tmp_path / "a.wav")[10])


def test_joined_files_of_other_rates_follow_one_another(tmp_path, wav):
    joined = tmp_path / "joined.wav"
    parts = [wav("a.wav", noise(16_000, 2)), wav("b.wav", noise(32_000), 32_000)]
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    recording = Recording("a", joined)
    recording.start()
    assert recording.duration_s == pytest.approx(1.0)
    chunks = []
    while recording.state != "ended":
        chunk = recording.read(time.monotonic())
        chunks += [chunk] if chunk is not None else []
    assert {(chunk.rate, chunk.opened_at) for chunk in chunks} == {(16_000, 0), (32_000, 16_000)}
    assert sum(len(chunk.frames) / chunk.rate for chunk in chunks) == pytest.approx(2.0)


def test_a_film_that_begins_without_sound_misses_none(tmp_path, said):
    with av.open(tmp_path / "film.mkv", "w") as container:
        sound = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        picture = container.add_stream("mpeg4", rate=10)
        picture.width = picture.height = 64
        for i in range(100):
            image = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))
            image.pts = i
            container.mux(picture.encode(image))
        samples = np.full((1, 16_000), 1000, np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.rate, frame.pts = 16_000, 5 * 16_000
        container.mux(sound.encode(frame))
        container.mux(picture.encode(None))
    recording = Recording("a", tmp_path / "film.mkv")
    recording.start()
    starts = []
    while recording.state != "ended":
        chunk = recording.read(time.monotonic())
        starts += [chunk.start] if chunk is not None else []
    assert starts[0] == pytest.approx(5 * 16_000, abs=800)
    assert said() == ""  # nothing missing, and the picture's length is not the sound's


@pytest.mark.parametrize("rate", [3000, 800_000])
def test_an_impossible_rate_is_refused(rate, wav):
    refused(wav("odd.wav", noise(1000), rate), f"{rate} Hz")


def test_a_pipe_by_name_is_read(wav):
    content = wav("a.wav", noise(16_000)).read_bytes()
    reading, writing = os.pipe()
    writer = threading.Thread(target=lambda: (os.write(writing, content), os.close(writing)))
    writer.start()
    frames = read_whole(Path(f"/dev/fd/{reading}"))
    writer.join()
    os.close(reading)
    assert len(frames) == 16_000


@pytest.mark.parametrize("begins", [True, False])
def test_a_pipe_that_gives_nothing_can_be_stopped(begins, wav):
    reading, writing = os.pipe()
    recording = Recording("a", Path(f"/dev/fd/{reading}"))
    recording.stop_requested = lambda: 1
    if begins:
        os.write(writing, wav("a.wav", noise(16_000)).read_bytes()[:20_044])

    def read_all() -> None:
        recording.start()
        while recording.state != "ended":
            recording.read(time.monotonic())

    worker = threading.Thread(target=read_all, daemon=True)
    worker.start()
    worker.join(60)
    stopped = not worker.is_alive()
    os.close(writing)
    worker.join(60)
    os.close(reading)
    assert stopped


def test_a_device_is_no_file():
    refused(Path("/dev/null"), "/dev/null is a device: name a file, or pipe sound in")


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
