import itertools
import os
import threading
import time

import numpy as np
import pytest

from streamtwl.audio.intake import Intake
from streamtwl.audio.recording import Recording
from streamtwl.errors import AudioError
from streamtwl.stages import Block, Chunk, Source


class Scripted(Source):
    """Gives the chunks of a list, raises the errors in it, then ends."""

    def __init__(self, name: str, script: list, paced: bool = False) -> None:
        super().__init__(name, paced, clocked=False)
        self._script = iter(script)

    def start(self) -> None:
        self.state = "listening"

    def due_in(self, now: float) -> float:
        return 0.0

    def read(self, now: float) -> Chunk | None:
        following = next(self._script, None)
        if following is None:
            self.state = "ended"
        elif isinstance(following, Exception):
            raise following
        return following

    def stop(self) -> None:
        self._script = iter(())


def noise(length: int, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(length)
    return (0.1 * rng.standard_normal((length, channels))).astype(np.float32)


def run(intake: Intake) -> dict[int, list[Block]]:
    """Return the blocks of each stream, checked for what holds of any."""
    streams: dict[int, list[Block]] = {}
    for blocks in intake.ticks():
        assert len({block.stream for block in blocks}) == len(blocks)
        for block in blocks:
            before = streams.setdefault(block.stream, [])
            if before:
                assert not before[-1].last
                assert block.position >= before[-1].position + len(before[-1].samples)
            assert block.samples.dtype == np.float32
            assert block.samples.ndim == 1
            before.append(block)
    for blocks in streams.values():
        assert blocks[-1].last
    return streams


def listen(*sources: Source):
    intake = Intake(sources)
    intake.start()
    streams = list(intake.streams)
    return streams, run(intake)


def joined(blocks: list[Block]) -> np.ndarray:
    return np.concatenate([block.samples for block in blocks])


def test_channels_are_averaged():
    frames = noise(4000, 3)
    chunks = [Chunk(frames[:1000], 16_000, 0), Chunk(frames[1000:], 16_000, 1000)]
    _, blocks = listen(Scripted("a", chunks))
    np.testing.assert_allclose(joined(blocks[0]), frames.mean(axis=1), rtol=0, atol=1e-7)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 17.0, -1e30])
def test_absurd_samples_are_silenced_and_counted(bad):
    frames = noise(1000, 2)
    frames[10, 0] = frames[20, 1] = frames[20, 0] = bad
    expected = frames.copy()
    expected[10, 0] = expected[20] = 0
    [stream], blocks = listen(Scripted("a", [Chunk(frames, 16_000, 0)]))
    assert stream.bad_samples == 3
    np.testing.assert_allclose(joined(blocks[0]), expected.mean(axis=1), rtol=0, atol=1e-7)


def test_loud_is_not_absurd():
    [stream], blocks = listen(Scripted("a", [Chunk(np.full((10, 1), -16, np.float32), 16_000, 0)]))
    assert stream.bad_samples == 0
    assert joined(blocks[0]).tolist() == [-16.0] * 10


@pytest.mark.parametrize(
    ("samples", "clipped"), [([0.99, -0.99], 0), ([1.0, 0.5], 1), ([-1.0, 32_767 / 32_768], 2)]
)
def test_clipped_samples_are_counted(samples, clipped):
    frames = np.array(samples, np.float32)[:, None]
    [stream], _ = listen(Scripted("a", [Chunk(frames, 16_000, 0)]))
    assert (stream.clipped_samples, stream.bad_samples) == (clipped, 0)


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_a_gap_moves_the_position_on_and_is_counted(rate):
    first, second = noise(rate), noise(2 * rate)
    gap = rate // 2
    chunks = [Chunk(first, rate, 0), Chunk(second, rate, rate + gap)]
    [stream], blocks = listen(Scripted("a", chunks))
    assert stream.position == pytest.approx(3.5 * 16_000, abs=1)
    assert stream.dropped_samples == pytest.approx(8000, abs=1)
    ends = [block.position + len(block.samples) for block in blocks[0]]
    jumps = [
        (end, after.position)
        for end, after in zip(ends, blocks[0][1:], strict=False)
        if after.position != end
    ]
    assert jumps == [(pytest.approx(16_000, abs=1), 24_000)]
    assert len(joined(blocks[0])) == pytest.approx(48_000, abs=2)


def test_gapless_chunks_join_without_a_seam():
    frames = noise(48_000)
    chunks = [Chunk(frames[i : i + 960], 48_000, i) for i in range(0, 48_000, 960)]
    [stream], blocks = listen(Scripted("a", chunks))
    _, whole = listen(Scripted("a", [Chunk(frames, 48_000, 0)]))
    assert stream.dropped_samples == 0
    np.testing.assert_allclose(joined(blocks[0]), joined(whole[0]), rtol=0, atol=1e-6)


def test_several_gaps_do_not_make_the_timeline_drift():
    rate, start, chunks = 44_100, 0, []
    for _ in range(20):
        chunks.append(Chunk(noise(1009), rate, start))
        start += 1009 + 331
    [stream], blocks = listen(Scripted("a", chunks))
    sound = [block for block in blocks[0] if len(block.samples)]
    assert stream.position == pytest.approx((start - 331) * 16_000 / rate, abs=2)
    assert stream.dropped_samples + len(joined(sound)) == stream.position


def test_a_reopened_device_goes_on_where_the_clock_is():
    chunks = [
        Chunk(noise(48_000), 48_000, 0, opened_at=0, last_frame_at=101.0),
        Chunk(noise(44_100), 44_100, 0, opened_at=80_000, last_frame_at=106.0),
    ]
    [stream], blocks = listen(Scripted("mic", chunks))
    assert 80_000 in [block.position for block in blocks[0]]
    assert stream.position == pytest.approx(96_000, abs=1)
    assert stream.dropped_samples == pytest.approx(64_000, abs=1)


def test_a_device_that_says_it_opened_too_early_does_not_go_back():
    chunks = [Chunk(noise(16_000), 16_000, 0), Chunk(noise(16_000), 16_000, 0, opened_at=15_000)]
    [stream], blocks = listen(Scripted("mic", chunks))
    assert stream.position == 32_000
    assert stream.dropped_samples == 0
    assert len(joined(blocks[0])) == 32_000


def test_capture_times_are_the_sound_cards():
    at = time.monotonic()
    chunks = [
        Chunk(noise(960), 48_000, i * 960, last_frame_at=at + (i + 1) * 0.02) for i in range(100)
    ]
    _, streams = listen(Scripted("mic", chunks))
    blocks = [block for block in streams[0] if block.captured_at is not None]
    assert len(blocks) >= 100
    begun = [block.captured_at - (block.position + len(block.samples)) / 16_000 for block in blocks]
    assert max(begun) - min(begun) < 0.001  # the delay in the resampler is taken out
    assert begun[0] == pytest.approx(time.time() - time.monotonic() + at, abs=60)


def test_what_the_resampler_still_held_has_a_capture_time_too():
    at = time.monotonic()
    chunks = [
        Chunk(noise(48_000), 48_000, start, last_frame_at=at + start / 48_000 + 1)
        for start in (0, 96_000)
    ]
    _, streams = listen(Scripted("mic", chunks))
    blocks = [block for block in streams[0] if len(block.samples)]
    assert len(blocks) == 4  # at the gap and at the end the resampler is emptied
    assert None not in [block.captured_at for block in blocks]
    ends = [block.position + len(block.samples) for block in blocks]
    begun = [block.captured_at - end / 16_000 for block, end in zip(blocks, ends, strict=True)]
    assert max(begun) - min(begun) < 0.001


def test_files_have_no_capture_time():
    _, blocks = listen(Scripted("a", [Chunk(noise(1000), 48_000, 0)]))
    assert [block.captured_at for block in blocks[0]] == [None] * len(blocks[0])


def test_a_source_that_fails_ends_alone(caplog):
    caplog.set_level("INFO")
    good = [Chunk(noise(100), 16_000, i) for i in range(0, 1000, 100)]
    bad = [Chunk(noise(300), 16_000, 0), AudioError("the cable is out")]
    streams, blocks = listen(Scripted("bad", bad), Scripted("good", good))
    assert str(streams[0].error) == "the cable is out"
    assert streams[1].error is None
    assert [len(joined(blocks[n])) for n in (0, 1)] == [300, 1000]
    assert "the cable is out" in caplog.text


def test_a_source_that_fails_to_open_ends_alone(wav, tmp_path):
    good = wav("good.wav", noise(1000))
    absent = Recording("absent", tmp_path / "absent.wav")
    streams, blocks = listen(absent, Recording("good", good))
    assert "absent.wav" in str(streams[0].error)
    assert len(joined(blocks[0])) == 0
    assert len(joined(blocks[1])) == 1000


@pytest.mark.parametrize("rate", [3000, 800_000])
def test_a_source_of_an_impossible_rate_ends_alone(rate, wav):
    odd, good = wav("odd.wav", noise(8000), rate), wav("good.wav", noise(1000))
    streams, blocks = listen(Recording("odd", odd), Recording("good", good))
    assert f"{rate} Hz" in str(streams[0].error)
    assert len(joined(blocks[1])) == 1000


def test_width_bounds_the_files_that_are_open(wav, tmp_path):
    files = [wav(f"{i}.wav", noise(2000 * (1 + i % 3)), 8000) for i in range(12)]
    intake = Intake((Recording(file.name, file) for file in files), width=3)
    intake.start()
    most, streams = 0, {}
    for blocks in intake.ticks():
        links = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
        opened = [os.readlink(link) for link in links if os.path.exists(link)]
        most = max(most, sum(target.startswith(str(tmp_path)) for target in opened))
        for block in blocks:
            streams.setdefault(block.stream, []).append(block)
    assert most == 3
    assert [len(joined(streams[n])) for n in range(12)] == [4000 * (1 + i % 3) for i in range(12)]


def test_without_sources_there_is_nothing():
    intake = Intake([])
    intake.start()
    assert list(intake.ticks()) == []


def test_stop_ends_every_source_and_opens_no_other():
    endless = (Chunk(noise(160), 16_000, i * 160) for i in itertools.count())
    intake = Intake([Scripted("a", endless), Scripted("b", [])], width=1)
    intake.start()
    ticks = intake.ticks()
    for _ in range(5):
        next(ticks)
    intake.stop()
    rest = [block for blocks in ticks for block in blocks]
    assert [block.stream for block in rest] == [0]
    assert rest[-1].last


def test_close_closes_the_files(wav):
    source = Recording("a", wav("a.wav", noise(100)))
    intake = Intake([source])
    intake.start()
    intake.close()
    assert source.state == "ended"


def test_sound_that_no_window_waits_for_is_left_where_it_is(wav):
    source = Recording("a", wav("a.wav", noise(16_000)), paced=True)
    intake = Intake([source])
    intake.start()
    ticks = intake.ticks(needs=lambda stream: 8000)
    sizes = [len(block.samples) for blocks in ticks for block in blocks]
    assert sum(sizes) == 16_000
    assert len(sizes) < 16  # of the 50 chunks of 20 ms that were due


def test_of_several_sources_only_those_whose_window_is_due_are_read():
    def chunks() -> list[Chunk]:
        return [Chunk(noise(160), 16_000, 160 * i) for i in range(3)]

    first, second = (Scripted(name, chunks(), paced=True) for name in ("a", "b"))
    first.clocked = second.clocked = True
    intake = Intake([first, second])
    intake.start()
    needs = {0: 0, 1: 0}
    ticks = intake.ticks(needs.__getitem__)
    assert [block.stream for block in next(ticks)] == [0, 1]  # nothing came yet
    needs[1] = 16_000 * 3600
    assert [block.stream for block in next(ticks)] == [0]
    needs[0], needs[1] = needs[1], needs[0]
    assert [block.stream for block in next(ticks)] == [1]
    intake.stop()
    assert {block.stream for block in next(ticks)} == {0, 1}  # the ends of both


def test_sound_that_waits_for_a_later_window_keeps_nothing_awake(monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(
        "streamtwl.audio.intake.select.select", lambda _read, _write, _other, s: waits.append(s)
    )
    first, second = (Scripted(name, [Chunk(noise(160), 16_000, 0)] * 4, True) for name in "ab")
    first.clocked = second.clocked = True
    second.due_in = lambda now: 0.05
    intake = Intake([first, second])
    intake.start()
    needs = {0: 0, 1: 0}
    ticks = intake.ticks(needs.__getitem__)
    next(ticks)
    assert waits == []  # the first has sound
    needs[0] = 16_000 * 3600
    next(ticks)
    assert waits == [0.05]  # and still has some, which nothing needs


def test_a_wait_can_be_ended_from_another_thread(wav):
    source = Recording("a", wav("a.wav", noise(16_000 * 30)), paced=True)
    intake = Intake([source])
    intake.start()
    stopping = threading.Timer(0.2, intake.wake)
    stopping.start()
    for _ in intake.ticks(needs=lambda stream: 16_000 * 1000):
        if stopping.finished.is_set():
            intake.stop()
    assert source.state == "ended"


# --- silent sources, wrong scales ---


class Live(Scripted):
    live = True


def states_of(script: list[np.ndarray], kind=Live) -> list[str]:
    """Return the stream's state after each second of sound."""
    source = kind("mic", [Chunk(s, 16_000, 16_000 * i) for i, s in enumerate(script)])
    intake = Intake([source])
    intake.start()
    [stream] = intake.streams
    return [stream.state for _, _ in zip(script, intake.ticks(), strict=False)]


def test_a_live_source_of_zeros_is_silent_and_comes_back(caplog):
    zeros, sound = np.zeros((16_000, 2), np.float32), noise(16_000, 2)
    states = states_of([sound, *[zeros] * 12, sound, *[zeros] * 9, sound])
    assert states == ["listening"] * 10 + ["silent"] * 3 + ["listening"] * 11
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "'mic' gives only zeros for 10 s: is it muted, or its switch off?",
        "'mic' gives sound again",
    ]


def test_zeros_count_from_the_last_sample_that_was_none():
    zeros = np.zeros((16_000, 1), np.float32)
    click = zeros.copy()
    click[8000] = 1e-4
    assert states_of([click, *[zeros] * 10])[-2:] == ["listening", "silent"]


def test_a_live_source_of_one_other_value_is_silent_too(caplog):
    still = np.full((16_000, 2), np.float32(-3e-5))  # as some give when they are muted
    assert states_of([noise(16_000, 2), *[still] * 11])[-2:] == ["silent"] * 2
    assert "'mic' gives only one value for 10 s" in caplog.text


def test_one_channel_that_sounds_is_enough():
    half = noise(16_000, 2)
    half[:, 0] = 0
    assert "silent" not in states_of([half] * 12)


def test_a_recording_of_zeros_is_not_silent():
    assert "silent" not in states_of([np.zeros((16_000, 1), np.float32)] * 12, Scripted)


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        (32_768.0, "full scale is 1, and are taken as zero"),
        (2.0**31, "full scale is 1"),
        (np.nan, "samples are not finite"),
        (20.0, None),  # a few beyond any sense are clicks
        (1.0, None),
    ],
)
def test_floats_at_the_scale_of_integers_are_noted_once(scale, said, caplog):
    listen(Scripted("pipe", [Chunk(scale * noise(16_000), 16_000, 16_000 * i) for i in range(3)]))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == (said is not None)
    assert all(said in line and "scaled as such" in line for line in lines)


def test_a_channel_that_is_not_there_ends_the_stream():
    source = Scripted("mic", [Chunk(noise(1000, 2), 16_000, 0)])
    source.channel = 3
    [stream], _ = listen(source)
    assert "has 2 channel(s), not 3" in str(stream.error)


class Interrupted(Scripted):
    """Gives chunks, or takes the states of a list."""

    def read(self, now: float) -> Chunk | None:
        following = super().read(now)
        if isinstance(following, str):
            self.state = following
            return None
        self.state = "listening" if following is not None else self.state
        return following


@pytest.mark.parametrize("state", ["stalled", "lost"])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_where_a_source_falls_silent_the_sound_breaks_off_at_once_and_once(state, rate):
    frames = noise(2 * rate)
    script = ["opening", state, Chunk(frames[:rate], rate, 0), state, state, "opening"]
    source = Interrupted("a", [*script, Chunk(frames[rate:], rate, rate)])
    [stream], blocks = listen(source)
    assert [block.breaks_off for block in blocks[0]] == [False, True, False, False]
    ends = [block.position + len(block.samples) for block in blocks[0]]
    assert ends[1] == pytest.approx(16_000, abs=1)  # all of it: nothing stays in the resampler
    assert blocks[0][2].position == ends[1]
    assert (stream.dropped_samples, blocks[0][-1].last) == (0, True)


def test_a_gap_breaks_the_sound_off():
    chunks = [Chunk(noise(1000), 16_000, start) for start in (0, 1000, 2500)]
    _, blocks = listen(Scripted("a", chunks))
    assert [block.breaks_off for block in blocks[0]] == [False, False, True, False, False]


@pytest.mark.parametrize("paced", [True, False])
def test_where_the_machine_slept_live_sound_breaks_off(paced, monkeypatch):
    slept_s = iter([5.0, 5.0, 5.2, 65.2, 65.2, 65.2])
    monkeypatch.setattr("streamtwl.audio.intake.machine_slept_s", lambda: next(slept_s))
    chunks = [Chunk(noise(1000), 16_000, start) for start in (0, 1000, 2000, 3000)]
    _, blocks = listen(Scripted("a", chunks, paced))
    broken = [block.position for block in blocks[0] if block.breaks_off]
    assert broken == ([2000] if paced else [])
