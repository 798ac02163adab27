"""Sound of many kinds, whole, joined, cut and damaged: each test makes its own."""

import io
import os
import struct
import threading
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from streamtwl.audio.container import parts
from streamtwl.audio.decoder import Decoder, wav_format
from streamtwl.errors import AudioError

RATE = 16_000
SECONDS = 4


def tone(seconds: float = SECONDS, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """Return float32[n, channels] of a tone in noise, which no codec makes short."""
    n = round(seconds * rate)
    noise = np.random.default_rng(7).normal(0, 0.05, (n, channels))
    wave = 0.4 * np.sin(2 * np.pi * 440 * np.arange(n) / rate)[:, None]
    return (wave + noise).astype(np.float32)


def encode(
    path: Path,
    codec: str,
    rate: int = RATE,
    channels: int = 1,
    seconds: float = SECONDS,
    seekable: bool = True,
    **options: str,
) -> Path:
    """Write a tone with PyAV; where it is not `seekable`, as to a pipe: no header is mended."""
    if codec == "libvorbis":  # which PyAV cannot write
        soundfile.write(path, tone(seconds, rate, channels), rate, format="OGG")
        return path
    target = io.BytesIO()
    sink = target if seekable else type("Pipe", (), {"write": staticmethod(target.write)})()
    kind = {".mkv": "matroska", ".m4a": "ipod", ".aac": "adts", ".wma": "asf", ".ts": "mpegts"}
    form = kind.get(path.suffix, path.suffix[1:])
    with av.open(sink, "w", format=form, options=options) as container:
        layout = {1: "mono", 2: "stereo"}[channels]
        stream = container.add_stream(codec, rate=rate, layout=layout)
        samples = np.ascontiguousarray(tone(seconds, rate, channels).T)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        frame.rate = rate
        frame.pts = 0
        resampler = av.AudioResampler(
            stream.codec_context.format, layout, rate, stream.codec_context.frame_size or 1024
        )
        for resampled in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(resampled))
        container.mux(stream.encode(None))
    path.write_bytes(target.getvalue())
    return path


class Decoded:
    """All of a file, as it was decoded."""

    def __init__(self, path: Path) -> None:
        self.frames = 0
        self.seconds = self.missing_s = 0.0
        self.formats: list[tuple[int, int]] = []
        with path.open("rb") as file:
            decoder = Decoder(file, path.name)
            while (read := decoder.read()) is not None:
                missing, samples = read
                assert samples.dtype == np.float32
                assert samples.shape[1] == decoder.channels
                self.frames += len(samples)
                self.seconds += len(samples) / decoder.rate
                self.missing_s += missing / decoder.rate
                if self.formats[-1:] != [(decoder.rate, decoder.channels)]:
                    self.formats.append((decoder.rate, decoder.channels))
            self.promised_s = decoder.promised_s
            self.skipped_packets = decoder.skipped_packets
            decoder.close()


# --- kinds ---


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.mp3", "libmp3lame", 44_100),
        ("a.ogg", "libvorbis", 44_100),
        ("a.opus", "libopus", 48_000),
        ("a.flac", "flac", 44_100),
        ("a.m4a", "aac", 44_100),
        ("b.m4a", "alac", 44_100),
        ("a.aac", "aac", 44_100),
        ("a.webm", "libopus", 48_000),
        ("a.mkv", "aac", 44_100),
        ("a.mp4", "aac", 44_100),
        ("a.mov", "pcm_s16le", 44_100),
        ("a.3gp", "aac", 44_100),
        ("a.asf", "mp2", 44_100),
        ("a.ts", "mp2", 44_100),
        ("a.caf", "pcm_s24le", 48_000),
        ("a.w64", "pcm_s16le", 48_000),
        ("a.wv", "wavpack", 48_000),
        ("a.tta", "tta", 48_000),
    ],
)
def test_what_people_have_is_decoded_to_its_end(name, codec, rate, tmp_path):
    decoded = Decoded(encode(tmp_path / name, codec, rate))
    assert decoded.seconds == pytest.approx(SECONDS, abs=0.06)
    assert decoded.formats == [(rate, 1)]
    assert decoded.skipped_packets == 0
    assert decoded.missing_s == 0


@pytest.mark.parametrize(
    ("form", "subtype", "rate"),
    [
        ("WAV", "GSM610", 8000),
        ("WAV", "MS_ADPCM", 44_100),
        ("WAV", "IMA_ADPCM", 44_100),
        ("WAV", "G721_32", 8000),
        ("WAV", "ULAW", 8000),
        ("WAV", "ALAW", 8000),
        ("WAV", "PCM_U8", 44_100),
        ("WAV", "PCM_24", 96_000),
        ("WAV", "PCM_32", 384_000),
        ("WAV", "FLOAT", 48_000),
        ("WAV", "DOUBLE", 48_000),
        ("AIFF", "PCM_16", 44_100),
        ("AIFF", "IMA_ADPCM", 44_100),
        ("AU", "ULAW", 8000),
        ("AU", "PCM_16", 44_100),
        ("RF64", "PCM_16", 44_100),
        ("CAF", "ALAC_16", 44_100),
    ],
)
def test_codecs_that_cannot_seek_are_decoded_too(form, subtype, rate, tmp_path):
    path = tmp_path / "sound"
    soundfile.write(path, tone(rate=rate), rate, format=form, subtype=subtype)
    decoded = Decoded(path)
    assert decoded.seconds == pytest.approx(SECONDS, abs=0.1)  # some codecs have long blocks
    assert decoded.skipped_packets == 0


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_samples_are_scaled_to_one_and_keep_their_channels(subtype, channels, tmp_path):
    written = tone(0.1, channels=channels) * np.linspace(0.2, 1, channels, dtype=np.float32)
    soundfile.write(tmp_path / "a.wav", written, RATE, subtype=subtype)
    with (tmp_path / "a.wav").open("rb") as file:
        decoder = Decoder(file, "a.wav")
        blocks = []
        while (read := decoder.read()) is not None:
            blocks.append(read[1])
    step = {"PCM_U8": 1 / 127}.get(subtype, 1 / 32_767)
    np.testing.assert_allclose(np.concatenate(blocks), written, rtol=0, atol=step)


def test_a_name_says_nothing_of_the_kind(tmp_path):
    path = encode(tmp_path / "a.m4a", "aac", 44_100)
    assert Decoded(path.rename(tmp_path / "a.mp3")).seconds == pytest.approx(SECONDS, abs=0.06)


def test_the_sound_of_a_film_with_its_picture(tmp_path):
    with av.open(tmp_path / "film.mp4", "w") as container:
        picture = container.add_stream("mpeg4", rate=10)
        picture.width = picture.height = 64
        sound = container.add_stream("aac", rate=RATE, layout="mono")
        for i in range(10):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))
            frame.pts = i
            container.mux(picture.encode(frame))
        frame = av.AudioFrame.from_ndarray(tone(1).T.copy(), format="fltp", layout="mono")
        frame.rate = RATE
        for resampled in av.AudioResampler("fltp", "mono", RATE, 1024).resample(frame):
            container.mux(sound.encode(resampled))
        container.mux(picture.encode(None))
        container.mux(sound.encode(None))
    assert Decoded(tmp_path / "film.mp4").formats == [(RATE, 1)]


# --- what headers say ---


def test_an_mp3_of_variable_rate_without_a_length_is_decoded_to_its_end(tmp_path):
    quiet = encode(tmp_path / "a.mp3", "libmp3lame", 44_100, write_xing="0")
    loud = encode(tmp_path / "b.mp3", "libmp3lame", 44_100, write_xing="0", seconds=2)
    both = tmp_path / "both.mp3"
    both.write_bytes(quiet.read_bytes() + loud.read_bytes())
    assert Decoded(both).seconds == pytest.approx(SECONDS + 2, abs=0.15)


def test_a_flac_of_unknown_length_is_decoded_to_its_end(tmp_path):
    path = encode(tmp_path / "a.flac", "flac", seekable=False)
    decoded = Decoded(path)
    assert decoded.seconds == pytest.approx(SECONDS, abs=0.001)
    assert decoded.promised_s is None


def with_size(path: Path, data: int) -> Path:
    """Put another size of the sound into a WAV file's header."""
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", data)
    content[4:8] = struct.pack("<I", min(data + at - 4, 0xFFFFFFFF))
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("data", [0, 0xFFFFFFFF, 0x7FFFF000, 32_000, 1_000])
def test_a_wav_whose_size_was_never_put_right_is_decoded_to_its_end(data, wav):
    assert Decoded(with_size(wav("killed.wav", tone()), data)).frames == SECONDS * RATE


@pytest.mark.parametrize(
    "after",
    [
        b"LIST\x04\0\0\0INFO",
        b"id3 " + struct.pack("<I", 100_000) + bytes(range(250)) * 400,
        bytes(500),  # padding
    ],
)
def test_what_stands_behind_the_sound_of_a_wav_is_no_sound(after, wav):
    path = wav("whole.wav", tone())
    path.write_bytes(path.read_bytes() + after)
    decoded = Decoded(path)
    assert decoded.frames == SECONDS * RATE
    assert decoded.promised_s == pytest.approx(SECONDS)


def test_a_wav_beyond_4_gib_goes_on_where_its_size_wrapped(wav):
    rate, channels = 192_000, 8
    path = wav("long.wav", tone(0.01, rate, channels), rate, subtype="FLOAT")
    header = path.read_bytes()[: path.read_bytes().index(b"data") + 8]
    size = (1 << 32) + 4 * channels * rate
    path.write_bytes(header)
    with_size(path, size % (1 << 32))
    with path.open("r+b") as file:
        file.truncate(len(header) + size)  # sparse: it takes no room
        [part] = parts(file)
        assert part.options == {"ignore_length": "1"}
        assert part.promised_s == pytest.approx(1.0)
        part.file.seek(0, os.SEEK_END)
        assert part.file.tell() == len(header) + size


@pytest.mark.parametrize(
    ("name", "codec", "tag", "offset", "size"),
    [
        ("a.au", "pcm_s16be", b".snd", 8, 4),
        ("a.aiff", "pcm_s16be", b"SSND", 4, 4),
        ("a.w64", "pcm_s16le", b"data\xf3", 16, 8),
    ],
)
@pytest.mark.parametrize("unknown", [b"\0", b"\xff"])
def test_other_recorders_that_were_killed(name, codec, tag, offset, size, unknown, tmp_path):
    if name == "a.w64" and unknown == b"\xff":
        pytest.skip("it is 64 bits long: no program writes that")
    path = encode(tmp_path / name, codec)
    content = bytearray(path.read_bytes())
    at = content.index(tag) + offset
    content[at : at + size] = unknown * size
    if content[:4] == b"FORM":
        content[4:8] = unknown * 4
    path.write_bytes(content)
    assert Decoded(path).frames == SECONDS * RATE


def test_a_cut_file_says_what_it_promised(wav):
    path = wav("cut.wav", tone())
    path.write_bytes(path.read_bytes()[: 44 + 2 * RATE])
    decoded = Decoded(path)
    assert (decoded.frames, decoded.promised_s) == (RATE, pytest.approx(SECONDS))


def chunk(kind: bytes, content: bytes, size: int | None = None) -> bytes:
    length = len(content) if size is None else size
    return kind + struct.pack("<I", length) + content + bytes(len(content) % 2)


def wav_of(*chunks: bytes, kind: bytes = b"RIFF") -> bytes:
    content = b"WAVE" + b"".join(chunks)
    return chunk(kind, content, len(content) if kind == b"RIFF" else 0xFFFFFFFF)


def fmt(rate: int = RATE, bits: int = 16) -> bytes:
    frame = bits // 8
    return chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, rate, rate * frame, frame, bits))


SOUND = (tone() * 32_000).astype("<i2").tobytes()


def ds64(size: int) -> bytes:
    return chunk(b"ds64", struct.pack("<QQQI", size, size, 0, 0))


@pytest.mark.parametrize("size", [0, 2**64 - 1, 1000])
def test_an_rf64_whose_size_was_never_put_right_is_decoded_to_its_end(size, tmp_path):
    data = chunk(b"data", SOUND, 0xFFFFFFFF)
    (tmp_path / "a.wav").write_bytes(wav_of(ds64(size), fmt(), data, kind=b"RF64"))
    assert Decoded(tmp_path / "a.wav").frames == SECONDS * RATE


@pytest.mark.parametrize("between", [b"", chunk(b"LIST", b"INFO")])
@pytest.mark.parametrize("count", [2, 3])
def test_a_wav_of_several_data_chunks_is_decoded_to_the_end_of_the_last(between, count, tmp_path):
    data = chunk(b"data", SOUND) + between
    (tmp_path / "a.wav").write_bytes(wav_of(fmt(), data * count))
    decoded = Decoded(tmp_path / "a.wav")
    assert decoded.frames == count * SECONDS * RATE
    assert decoded.promised_s == pytest.approx(count * SECONDS)


def test_24_bits_in_32_are_integers(tmp_path):
    written = tone()
    extensible = struct.pack("<HHIIHHHHIH", 0xFFFE, 1, RATE, 4 * RATE, 4, 32, 22, 24, 0, 1)
    guid = bytes.fromhex("000000001000800000aa00389b71")
    samples = (np.round(written * 2**23).astype(np.int64) << 8).astype("<i4")
    data = chunk(b"data", samples.tobytes())
    content = wav_of(chunk(b"fmt ", extensible + guid), data)
    (tmp_path / "a.wav").write_bytes(content)
    with (tmp_path / "a.wav").open("rb") as file:
        _, first = Decoder(file, "a.wav").read()
    np.testing.assert_allclose(first, written[: len(first)], rtol=0, atol=2**-23)
    assert wav_format(content[: content.index(b"data") + 8]) == ("pcm_s32le", RATE, 1)


def test_integers_of_64_bits(tmp_path):
    samples = (tone().astype(float) * 2**62).astype("<i8")
    (tmp_path / "a.wav").write_bytes(wav_of(fmt(bits=64), chunk(b"data", samples.tobytes())))
    with (tmp_path / "a.wav").open("rb") as file:
        _, first = Decoder(file, "a.wav").read()
    np.testing.assert_allclose(first, tone()[: len(first)] / 2, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.wav", "pcm_s16le"), ("a.flac", "flac"), ("a.m4a", "aac")]
)
@pytest.mark.parametrize("tags", [1, 2])
def test_a_tag_in_front_with_a_large_picture(name, codec, tags, tmp_path):
    path = encode(tmp_path / name, codec)
    tag = b"ID3\4\0\0\0\x60\0\0" + bytes(0x60 << 14)
    path.write_bytes(tags * tag + path.read_bytes())
    assert Decoded(path).seconds == pytest.approx(SECONDS, abs=0.1)


@pytest.mark.parametrize(("name", "codec"), [("a.wav", "pcm_s16le"), ("a.mp3", "libmp3lame")])
def test_a_tag_whose_size_is_wrong_hides_no_sound(name, codec, tmp_path):
    path = encode(tmp_path / name, codec)
    path.write_bytes(b"ID3\4\0\0" + 4 * b"\x7f" + path.read_bytes())
    assert Decoded(path).seconds == pytest.approx(SECONDS, abs=0.1)


def test_no_length_is_promised_where_no_header_has_one(tmp_path):
    with encode(tmp_path / "a.ts", "aac", 44_100).open("rb") as file:
        assert Decoder(file, "a.ts").estimated


def test_an_mp4_file_whose_index_is_missing_is_said_to_be_so(tmp_path):
    path = encode(tmp_path / "a.m4a", "aac", 44_100)
    path.write_bytes(path.read_bytes()[:-2000])
    refused(path, r"its index \(moov\) is missing")


# --- joined ---


@pytest.mark.parametrize(
    ("suffix", "codec", "rates"),
    [
        (".ogg", "libvorbis", (44_100, 22_050)),
        (".opus", "libopus", (48_000, 48_000)),
        (".mp3", "libmp3lame", (44_100, 22_050)),
        (".wav", "pcm_s16le", (44_100, 22_050)),
        (".aac", "aac", (44_100, 44_100)),
        (".flac", "flac", (44_100, 44_100)),
        (".m4a", "aac", (44_100, 22_050)),
        (".aiff", "pcm_s16be", (44_100, 22_050)),
    ],
)
@pytest.mark.parametrize("channels", [(1, 1), (2, 1)])
def test_joined_files_are_decoded_to_the_end_of_the_last(suffix, codec, rates, channels, tmp_path):
    files = [
        encode(tmp_path / f"{i}{suffix}", codec, rate, n)
        for i, (rate, n) in enumerate(zip(rates, channels, strict=True))
    ]
    joined = tmp_path / f"joined{suffix}"
    joined.write_bytes(b"".join(file.read_bytes() for file in files))
    decoded = Decoded(joined)
    assert decoded.seconds == pytest.approx(2 * SECONDS, abs=0.6 if suffix == ".flac" else 0.15)
    assert decoded.formats[0] == (rates[0], channels[0])
    assert decoded.formats[-1] == (rates[1], channels[1])


def test_joined_rf64_files(tmp_path):
    one = wav_of(ds64(len(SOUND)), fmt(), chunk(b"data", SOUND, 0xFFFFFFFF), kind=b"RF64")
    (tmp_path / "a.wav").write_bytes(one + one.replace(fmt(), fmt(rate=8000)))
    decoded = Decoded(tmp_path / "a.wav")
    assert decoded.formats == [(RATE, 1), (8000, 1)]
    assert decoded.seconds == pytest.approx(3 * SECONDS)


def test_nothing_is_missing_where_joined_flac_files_have_other_rates(tmp_path):
    both = [encode(tmp_path / f"{rate}.flac", "flac", rate) for rate in (44_100, 48_000)]
    joined = tmp_path / "joined.flac"
    joined.write_bytes(b"".join(path.read_bytes() for path in both))
    assert Decoded(joined).missing_s == 0


# --- time stamps ---


def stamped(path: Path, starts_s: list[float], picture: bool = False) -> Path:
    """Write a second of sound at each moment, and a picture from 0 on."""
    with av.open(path, "w") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        if picture:
            frames = container.add_stream("mpeg4", rate=10)
            frames.width = frames.height = 64
            container.mux(frames.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), "u1"))))
            container.mux(frames.encode(None))
        for start_s in starts_s:
            samples = (tone(1).T * 32_000).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.rate, frame.pts = RATE, round(start_s * RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("pause_s", [0, 2, 300])
def test_a_pause_of_the_recorder_is_missing(pause_s, tmp_path):
    decoded = Decoded(stamped(tmp_path / "a.mkv", [0, 1 + pause_s]))
    assert decoded.seconds == pytest.approx(2)
    assert decoded.missing_s == pytest.approx(pause_s, abs=0.05)


@pytest.mark.parametrize("late_s", [0, 8])
def test_sound_that_begins_after_the_picture_is_dated_by_it(late_s, tmp_path):
    decoded = Decoded(stamped(tmp_path / "a.mkv", [late_s], picture=True))
    assert decoded.missing_s == pytest.approx(late_s, abs=0.05)


# --- damaged ---


@pytest.mark.parametrize(
    ("name", "codec", "off_s"),  # MP3 has no time stamps, damaged FLAC wrong ones for a while
    [
        ("a.mp3", "libmp3lame", 1.5),
        ("a.flac", "flac", 0.5),
        ("a.ogg", "libvorbis", 0.1),
        ("a.m4a", "aac", 0.1),
    ],
)
def test_damaged_packets_are_skipped_and_what_is_missing_is_known(name, codec, off_s, tmp_path):
    path = encode(tmp_path / name, codec, 44_100, seconds=8)
    content = bytearray(path.read_bytes())
    half = len(content) // 2
    content[half : half + 6000] = bytes((i * 7919) % 256 for i in range(6000))
    path.write_bytes(content)
    decoded = Decoded(path)
    assert decoded.seconds > 6
    assert decoded.seconds + decoded.missing_s == pytest.approx(8, abs=off_s)
    assert decoded.skipped_packets or decoded.missing_s


def test_what_follows_a_long_damaged_stretch_is_decoded(tmp_path):
    path = encode(tmp_path / "a.m4a", "aac", 48_000, seconds=60)
    content = bytearray(path.read_bytes())
    quarter = len(content) // 4
    content[quarter : 3 * quarter] = bytes(2 * quarter)  # as a download leaves it: 1,400 packets
    path.write_bytes(content)
    decoded = Decoded(path)
    assert decoded.seconds + decoded.missing_s == pytest.approx(60, abs=0.5)
    assert decoded.seconds > 25
    assert decoded.skipped_packets > 1000


def test_a_time_stamp_beyond_the_end_shifts_nothing(tmp_path):
    path = stamped(tmp_path / "a.mkv", [float(i) for i in range(8)])
    content, at = bytearray(path.read_bytes()), 0
    for _ in range(2):  # of the clusters, each with its time as a number in front
        at = content.index(b"\x1f\x43\xb6\x75", at + 1)
    time_at = content.index(b"\xe7", at) + 2
    content[time_at] ^= 0x80  # 32.8 s later
    path.write_bytes(content)
    decoded = Decoded(path)
    assert decoded.seconds == pytest.approx(8, abs=0.1)
    assert decoded.missing_s < 0.1


# --- what is no sound ---


def refused(path: Path, problem: str) -> None:
    with path.open("rb") as file, pytest.raises(AudioError, match=problem):
        Decoder(file, path.name)


@pytest.mark.parametrize("name", ["diary.txt", "diary.wav", "diary.mp3", "diary.ogg", "diary.m4a"])
def test_text_is_no_audio(name, tmp_path):
    (tmp_path / name).write_text("Dear diary, today a dog barked.\n" * 50)
    refused(tmp_path / name, f"'{name}' is not audio")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"),
        ("list.ffconcat", "ffconcat version 1.0\nfile {}\n"),
    ],
)
@pytest.mark.parametrize("other", ["http://127.0.0.1:9/a.ts", "other.wav"])
def test_a_list_of_other_files_opens_none_of_them(name, content, other, tmp_path, wav):
    wav("other.wav", tone())
    (tmp_path / name).write_text(content.format(other))
    refused(tmp_path / name, f"'{name}' is ")


def test_a_film_without_sound_has_no_sound_track(tmp_path):
    with av.open(tmp_path / "silent.mp4", "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 64
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))))
        container.mux(stream.encode(None))
    refused(tmp_path / "silent.mp4", "no sound track")


# --- pipes ---


class Piped:
    """A file's content through a pipe."""

    def __init__(self, path: Path) -> None:
        reading, writing = os.pipe()
        self.file = os.fdopen(reading, "rb")
        self._thread = threading.Thread(target=self._write, args=(path.read_bytes(), writing))
        self._thread.start()

    def _write(self, content: bytes, writing: int) -> None:
        with os.fdopen(writing, "wb") as pipe:
            try:
                pipe.write(content)
            except BrokenPipeError:
                pipe.detach()

    def __enter__(self):
        return self.file

    def __exit__(self, *_error: object) -> None:
        self.file.close()
        self._thread.join()


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp3", "libmp3lame"), ("a.flac", "flac"), ("a.ogg", "libvorbis"), ("a.wav", "pcm_s16le")],
)
def test_an_encoded_pipe_is_decoded_to_its_end(name, codec, tmp_path):
    with Piped(encode(tmp_path / name, codec, 44_100)) as pipe:
        decoder = Decoder(pipe, "pipe")
        frames = 0
        while (read := decoder.read()) is not None:
            frames += len(read[1])
        decoder.close()
    assert frames / 44_100 == pytest.approx(SECONDS, abs=0.06)


def test_what_has_to_be_read_back_and_forth_cannot_come_through_a_pipe(tmp_path):
    path = encode(tmp_path / "a.m4a", "aac", 44_100, seconds=60)
    with Piped(path) as pipe, pytest.raises(AudioError, match="from a pipe: save it to a file"):
        Decoder(pipe, "pipe")


@pytest.mark.parametrize(
    ("subtype", "codec"), [("PCM_16", "pcm_s16le"), ("PCM_24", "pcm_s24le"), ("ULAW", "pcm_mulaw")]
)
def test_the_format_in_a_wav_header(subtype, codec, tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(0.1, 48_000, 2), 48_000, subtype=subtype)
    content = (tmp_path / "a.wav").read_bytes()
    assert wav_format(content[: content.index(b"data") + 8]) == (codec, 48_000, 2)


def test_a_header_that_is_none():
    with pytest.raises(AudioError, match="WAV header that cannot be read"):
        wav_format(b"RIFF\0\0\0\0WAVEdata\0\0\0\0")
