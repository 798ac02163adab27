import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamtwl.backbones.yamnet import WINDOW
from streamtwl.features.window import Windower
from streamtwl.stages import Block, End, Window, WindowKind
from tests.patches import KIND, FrontEndOnly, log_mel

HOPS = st.sampled_from([160, 1280, 7680, 15360])
SIZES = st.lists(st.integers(1, 20_000), min_size=1, max_size=6)


def noise(length: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(length)).astype(np.float32)


def block(samples, position=0, stream=0, last=False, captured_at=None, ready_at=0.0) -> Block:
    return Block(stream, position, np.asarray(samples, np.float32), captured_at, ready_at, last)


def blocks_of(samples, sizes, position=0, last=True) -> list[Block]:
    """Cut samples into blocks of these sizes, over and over; an empty one marks the end."""
    blocks, at = [], 0
    while at < len(samples):
        size = sizes[len(blocks) % len(sizes)]
        blocks.append(block(samples[at : at + size], position + at))
        at += size
    return [*blocks, block([], position + len(samples), last=True)] if last else blocks


def batches_of(windower: Windower, blocks: list[Block]) -> list[list[Window]]:
    return [cut for cut in windower.push(blocks) if not isinstance(cut, End)]


def windows_of(windower: Windower, blocks: list[Block]) -> list[Window]:
    return [window for one in blocks for batch in batches_of(windower, [one]) for window in batch]


def reference_ends(length: int, hop: int) -> list[int]:
    """Where the patches of a clip end by `pad_waveform` in YAMNet's features.py."""
    if not length:
        return []
    after_first = max(length, 15_600) - 15_600
    padded = 15_600 + math.ceil(after_first / hop) * hop
    return list(range(15_600, padded + 1, hop))


@pytest.mark.slow
@given(length=st.integers(0, 60_000), hop=HOPS, sizes=SIZES)
def test_windows_are_those_of_yamnets_reference(length, hop, sizes):
    samples = noise(length)
    windows = windows_of(
        Windower(hop / 16_000, [FrontEndOnly()], [KIND]), blocks_of(samples, sizes)
    )
    ends = reference_ends(length, hop)
    assert [window.position for window in windows] == [min(end, length) for end in ends]
    padded = np.concatenate((samples, np.zeros(WINDOW + hop, np.float32)))
    for window, end in zip(windows, ends, strict=True):
        expected = log_mel(padded[end - WINDOW : end])
        np.testing.assert_allclose(window.features[0], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("length", "ends"),
    [
        (0, []),
        (1, [1]),
        (15_599, [15_599]),
        (15_600, [15_600]),
        (15_601, [15_600, 15_601]),
        (23_280, [15_600, 23_280]),
        (23_281, [15_600, 23_280, 23_281]),
    ],
)
def test_the_tail_is_padded_to_the_next_hop(length, ends):
    windows = windows_of(Windower(0.48, [FrontEndOnly()], [KIND]), blocks_of(noise(length), [4000]))
    assert [window.position for window in windows] == ends


def test_the_last_block_may_hold_samples():
    windows = windows_of(
        Windower(0.48, [FrontEndOnly()], [KIND]), [block(noise(15_600), last=True)]
    )
    assert [window.position for window in windows] == [15_600]


@given(
    stretches=st.lists(
        st.tuples(st.integers(1, 20_000), st.integers(1, 40_000)), min_size=2, max_size=4
    ),
    hop=HOPS,
    sizes=SIZES,
)
def test_no_window_spans_a_gap_and_the_missing_are_counted(stretches, hop, sizes):
    blocks, spans, position = [], [], 0
    for index, (length, gap) in enumerate(stretches):
        blocks += blocks_of(noise(length, index), sizes, position, last=False)
        spans.append((position, position + length, noise(length, index)))
        position += length + gap
    end = spans[-1][1]
    blocks.append(block([], end, last=True))
    windower = Windower(hop / 16_000, [FrontEndOnly()], [KIND])
    windows = windows_of(windower, blocks)

    expected, dropped, due = [], 0, WINDOW
    for start, stop, samples in spans:
        whole = list(range(start + WINDOW, stop + 1, hop))
        while due < start + WINDOW:  # windows that a gapless stream would have had
            dropped, due = dropped + 1, due + hop
        for at in whole:
            expected.append((at, samples[at - WINDOW - start : at - start]))
        due = (whole[-1] if whole else start + WINDOW - hop) + hop
        if stop == end and (not whole or whole[-1] < end):
            tail = samples[due - WINDOW - start :]
            expected.append((end, np.pad(tail, (0, WINDOW - len(tail)))))
    assert [window.position for window in windows] == [at for at, _ in expected]
    assert windower.dropped.get(0, 0) == dropped
    for window, (_, samples) in zip(windows, expected, strict=True):
        np.testing.assert_allclose(window.features[0], log_mel(samples), rtol=0, atol=1e-4)


def test_a_gap_of_one_sample_counts():
    windower = Windower(0.48, [FrontEndOnly()], [KIND])
    windows_of(windower, [block(noise(15_000)), block(noise(15_600), 15_001, last=True)])
    assert windower.dropped == {0: 2}  # those that would have ended at 15,600 and 23,280


def test_a_stream_without_gaps_has_dropped_nothing():
    windower = Windower(0.08, [FrontEndOnly()], [KIND])
    windows_of(windower, blocks_of(noise(40_000), [333]))
    assert windower.dropped.get(0, 0) == 0


def test_two_streams_share_batches():
    windower = Windower(0.48, [FrontEndOnly()], [KIND])
    first, second = noise(15_600 + 7680, 1), noise(15_600, 2)
    batches = batches_of(windower, [block(first, stream=4), block(second, stream=9)])
    assert [[window.stream for window in batch] for batch in batches] == [[4, 9], [4]]
    np.testing.assert_allclose(batches[0][1].features[0], log_mel(second), rtol=0, atol=1e-4)


def test_streams_do_not_mix():
    windower = Windower(0.48, [FrontEndOnly()], [KIND])
    for at in range(0, 15_600, 1200):
        batches = batches_of(
            windower, [block(noise(15_600, s)[at : at + 1200], at, stream=s) for s in (0, 1)]
        )
    for stream, window in enumerate(batches[0]):
        expected = log_mel(noise(15_600, stream))
        np.testing.assert_allclose(window.features[0], expected, rtol=0, atol=1e-4)


def test_a_number_can_be_used_again_once_its_stream_has_ended():
    windower = Windower(0.48, [FrontEndOnly()], [KIND])
    for _ in range(2):
        windows = windows_of(windower, blocks_of(noise(16_000), [500]))
        assert [window.position for window in windows] == [15_600, 16_000]
    assert windower.dropped.get(0, 0) == 0


def test_capture_time_is_that_of_the_windows_end():
    windower = Windower(0.48, [FrontEndOnly()], [KIND])
    batches = batches_of(
        windower, [block(noise(15_600 + 7680 + 800), captured_at=100.0, ready_at=5.0)]
    )
    windows = [window for batch in batches for window in batch]
    assert [window.captured_at for window in windows] == pytest.approx(
        [100 - 8480 / 16_000, 100 - 800 / 16_000]
    )
    assert [window.ready_at for window in windows] == [5.0, 5.0]


def test_files_have_no_capture_time():
    windows = windows_of(
        Windower(0.48, [FrontEndOnly()], [KIND]), blocks_of(noise(16_000), [16_000])
    )
    assert [window.captured_at for window in windows] == [None, None]


def test_silence_is_floored_at_minus_120_dbfs():
    [window] = windows_of(
        Windower(0.48, [FrontEndOnly()], [KIND]), blocks_of(np.zeros(15_600), [15_600])
    )
    assert window.level_dbfs == -120.0


@pytest.mark.parametrize("size", [160, 7680, 40_000])
def test_the_level_does_not_depend_on_block_sizes(size):
    tone = np.sin(2 * np.pi * 100 * np.arange(32_000) / 16_000)
    windows = windows_of(
        Windower(0.08, [FrontEndOnly()], [KIND]), blocks_of(tone, [size], last=False)
    )
    assert len(windows) == 13
    assert [window.level_dbfs for window in windows] == pytest.approx([-3.01] * 13, abs=0.1)


def test_the_level_of_a_short_clip_leaves_the_padding_out():
    tone = np.sin(2 * np.pi * 100 * np.arange(1600) / 16_000)
    [window] = windows_of(Windower(0.48, [FrontEndOnly()], [KIND]), blocks_of(tone, [1600]))
    assert window.level_dbfs == pytest.approx(-3.01, abs=0.1)


def test_windows_know_where_their_stretch_begins():
    windower = Windower(0.48, [FrontEndOnly()], [KIND])
    blocks = [block(noise(24_000)), block(noise(16_000), 30_000), block([], 46_000, last=True)]
    assert [w.start for w in windows_of(windower, blocks)] == [0, 0, 30_000, 30_000]


def test_where_the_sound_breaks_off_windows_begin_anew_though_no_sample_is_missing():
    windower = Windower(0.48, [FrontEndOnly()], [KIND])
    first = Block(0, 0, noise(17_000, 1), None, 0.0, breaks_off=True)
    assert [w.position for w in windows_of(windower, [first])] == [15_600]
    assert windower.needs(0) == WINDOW
    after = noise(15_600, 2)
    [window] = windows_of(windower, [block(after, 17_000)])
    assert (window.position, window.start) == (32_600, 17_000)
    np.testing.assert_allclose(window.features[0], log_mel(after), rtol=0, atol=1e-4)
    assert windower.dropped == {0: 2}


# --- several lengths, several backbones ---


def test_a_longer_window_grows_until_there_is_sound_enough():
    backbones = [FrontEndOnly(), FrontEndOnly()]
    kinds = [KIND, WindowKind("short", 1, 0.96), WindowKind("long", 1, 2.0)]
    samples = noise(64_000)
    cut = Windower(0.48, backbones, kinds).push([block(samples)])
    windows = [window for batch in cut for window in batch]
    counts = [tuple(map(len, window.features)) for window in windows]
    assert counts == [(96, 96), (96, 144), (96, 192)] + [(96, 200)] * 4
    for window in windows:
        short, long = window.features
        np.testing.assert_array_equal(short, long[-96:])
    for window in windows[3:]:
        _, long = window.features
        start = window.position - (199 * 160 + 400)
        expected = log_mel(samples[start : window.position])
        assert long.shape == (200, 64)
        np.testing.assert_allclose(long, expected, rtol=0, atol=1e-4)


class Other(FrontEndOnly):
    """A backbone of the same front end, for windows of other lengths."""

    def __init__(self, *lengths_s: float) -> None:
        super().__init__()
        self.lengths_s = lengths_s


@pytest.mark.parametrize(
    ("first", "others", "starts_at"),
    [
        (Other(0.1, 10), [FrontEndOnly()], 15_600),  # YAMNet has to have its 96 frames
        (Other(0.1, 10), [Other(0.5, 10)], 8240),
        (Other(0.1, 10), [Other(0.05, 10)], 3440),
    ],
)
def test_the_first_window_has_what_every_backbone_needs(first, others, starts_at):
    kinds = [WindowKind("a:0.2", 0, 0.2), WindowKind("b", 1, others[0].lengths_s[0])]
    windows = windows_of(Windower(0.1, [first, *others], kinds), blocks_of(noise(40_000), [700]))
    assert windows[0].position == starts_at
    assert [w.position for w in windows[1:3]] == [starts_at + 1600, starts_at + 3200]
    least = round(100 * others[0].lengths_s[0])
    assert all(len(window.features[1]) >= least for window in windows)


@pytest.mark.parametrize("size", [1000, 80_000, 400_000])
def test_a_hop_may_be_longer_than_the_time_to_a_first_decision(size):
    kinds = [WindowKind("a:10.24", 0, 10.24), WindowKind("a:0.96", 0, 0.96)]
    samples = noise(200_000)
    windows = windows_of(Windower(5.0, [Other(0.5, 10.24)], kinds), blocks_of(samples, [size]))
    assert [window.position for window in windows] == [80_240, 160_240, 200_000]
    assert [len(window.features[0]) for window in windows] == [500, 1000, 1024]
    whole = log_mel(np.pad(samples, (0, 80)))  # to the next frame
    np.testing.assert_allclose(windows[2].features[0], whole[-1024:], rtol=0, atol=1e-4)
    levels = [20 * np.log10(np.sqrt(np.mean(part**2))) for part in np.split(samples, 5)[:4:2]]
    assert [w.level_dbfs for w in windows[:2]] == pytest.approx(levels, abs=0.2)


@pytest.mark.parametrize(
    ("length", "ends"),
    [
        (1, [1]),  # padded to 0.96 s
        (16_000, [16_000]),
        (80_239, [80_239]),
        (80_240, [80_240]),
        (80_241, [80_240, 80_241]),
    ],
)
def test_a_long_hop_is_not_padded_with_seconds_of_zeros(length, ends):
    kinds = [WindowKind("a:10.24", 0, 10.24)]
    windower = Windower(5.0, [Other(0.5, 10.24)], kinds)
    windows = windows_of(windower, [block(noise(length), last=True)])
    assert [window.position for window in windows] == ends
    padded = np.pad(noise(length), (0, max(160, 15_600 - length)))
    expected = log_mel(padded[: max(15_600, 160 * math.ceil((length - 400) / 160) + 400)])
    np.testing.assert_allclose(windows[-1].features[0], expected, rtol=0, atol=1e-4)


# --- where sound breaks off ---


def cuts(windower: Windower, *blocks: Block) -> list:
    """Return (position, first) of each window, and each End as it is."""
    made = []
    for one in blocks:
        for cut in windower.push([one]):
            made += [cut] if isinstance(cut, End) else [(w.position, w.first) for w in cut]
    return made


def test_a_gap_is_decided_here_and_travels():
    windower = Windower(0.48, [FrontEndOnly()], [KIND])
    made = cuts(windower, block(noise(24_000)), block(noise(16_000), 40_000, last=True))
    assert made == [
        (15_600, True),
        (23_280, False),
        End(0, 24_000, None, False),
        (55_600, True),
        (56_000, False),
        End(0, 56_000, None, True),
    ]


def test_where_a_block_says_that_sound_breaks_off_what_follows_begins_anew():
    windower = Windower(0.48, [FrontEndOnly()], [KIND])
    broken = Block(0, 0, noise(16_000), 9.0, 0.0, breaks_off=True)
    made = cuts(windower, broken, block(noise(16_000), 16_000))
    assert made == [(15_600, True), End(0, 16_000, 9.0, False), (31_600, True)]
