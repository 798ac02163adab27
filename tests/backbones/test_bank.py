"""Windows to patches, with backbones that only note what they are given."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamtwl.backbones.bank import Bank
from streamtwl.features.spectrum import FRAME, FRAME_HOP
from streamtwl.stages import Window, WindowKind


class Counting:
    """A backbone whose posterior is the first and the last frame that it got, and how many."""

    frame, frame_hop = FRAME, FRAME_HOP

    def __init__(self, name: str = "counting") -> None:
        self.name = name
        self.batches: list[tuple[int, ...]] = []

    def score(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.batches.append(features.shape)
        frames = np.full(len(features), features.shape[1])
        found = np.stack((features[:, 0, 0], features[:, -1, 0], frames), axis=1)
        return found.astype(np.float32), -found[:, :2]


def kinds(*named: str, names: Sequence[str] = ("a", "b")) -> list[WindowKind]:
    """Return kinds of windows of the backbones called `names`."""
    split = [each.split(":") for each in named]
    return [
        WindowKind(each, names.index(name), float(length))
        for each, (name, length) in zip(named, split, strict=True)
    ]


def window(stream: int, *frames: int) -> Window:
    """Return a window with so many frames of each backbone, which count up from 1000 * stream."""
    features = tuple(
        1000 * stream + np.arange(n, dtype=np.float32)[:, None] + np.zeros((1, 4), np.float32)
        for n in frames
    )
    return Window(stream, 48_000, 0, False, features, -20.0, None, 0.0)


def test_scores_are_of_the_newest_frames_in_the_pipelines_order():
    backbones = [Counting(), Counting()]
    bank = Bank(backbones, kinds("b:3", "a:0.96", "b:0.5", "a:2"))
    [patch] = bank.score([window(1, 200, 300)])
    assert [score.window for score in patch.scores] == ["b:3", "a:0.96", "b:0.5", "a:2"]
    assert [score.posterior.tolist() for score in patch.scores] == [
        [1000, 1299, 300],
        [1104, 1199, 96],
        [1250, 1299, 50],
        [1000, 1199, 200],
    ]
    assert [score.length_s for score in patch.scores] == pytest.approx([3, 0.96, 0.5, 2])
    assert patch.scores[0].embedding.tolist() == [-1000, -1299]
    assert patch.posterior is patch.scores[0].posterior


def test_windows_of_one_length_of_all_streams_are_one_batch():
    backbones = [Counting(), Counting()]
    windows = [window(stream, 200, 300) for stream in (7, 3, 5)]
    patches = Bank(backbones, kinds("a:2", "b:3", "b:1")).score(windows)
    assert [each.batches for each in backbones] == [[(3, 200, 4)], [(3, 300, 4), (3, 100, 4)]]
    assert [patch.window for patch in patches] == windows
    assert [patch.posterior[0] for patch in patches] == [7000, 3000, 5000]


def test_a_window_longer_than_the_sound_is_what_there_is():
    backbone = Counting()
    bank = Bank([backbone], kinds("a:0.96", "a:3"))
    new, old = bank.score([window(1, 97), window(2, 300)])
    assert [score.length_s for score in new.scores] == pytest.approx([0.96, 0.97])
    assert [score.length_s for score in old.scores] == pytest.approx([0.96, 3])
    assert [score.posterior[2] for score in new.scores] == [96, 97]
    assert sorted(backbone.batches) == [(1, 97, 4), (1, 300, 4), (2, 96, 4)]


def test_two_kinds_that_are_the_same_frames_so_far_are_scored_once():
    backbone = Counting()
    bank = Bank([backbone], kinds("a:2", "a:3", "a:5"))
    first, second = bank.score([window(1, 98), window(2, 98)])
    assert backbone.batches == [(2, 98, 4)]
    for patch in (first, second):
        assert [score.window for score in patch.scores] == ["a:2", "a:3", "a:5"]
        assert len({score.posterior.tobytes() for score in patch.scores}) == 1
        assert [score.length_s for score in patch.scores] == pytest.approx([0.98] * 3)


def test_a_new_streams_window_shares_a_batch_with_an_old_ones_of_that_length():
    backbone = Counting()
    old, new = Bank([backbone], kinds("a:0.96", "a:3")).score([window(1, 300), window(2, 96)])
    assert sorted(backbone.batches) == [(1, 300, 4), (2, 96, 4)]
    assert [score.posterior.tolist() for score in new.scores] == [[2000, 2095, 96]] * 2
    assert old.scores[0].posterior.tolist() == [1204, 1299, 96]


def test_no_windows_are_no_patches():
    backbone = Counting()
    assert Bank([backbone], kinds("a:1")).score([]) == []
    assert backbone.batches == []


@given(
    lengths=st.lists(st.sampled_from([50, 96, 200, 300]), min_size=1, max_size=4, unique=True),
    there=st.lists(st.integers(10, 300), min_size=1, max_size=5),
)
def test_each_score_is_what_its_window_gives_alone(lengths, there):
    named = kinds(*(f"a:{frames / 100:g}" for frames in lengths))
    windows = [window(stream, frames) for stream, frames in enumerate(there)]
    backbone = Counting()
    together = Bank([backbone], named).score(windows)
    for at, patch in zip(windows, together, strict=True):
        for kind, frames, score in zip(named, lengths, patch.scores, strict=True):
            newest = at.features[0][-frames:]
            assert score.window == kind.name
            assert score.posterior.tolist() == [newest[0, 0], newest[-1, 0], len(newest)]
    sizes = {min(frames, has) for frames in lengths for has in there}
    assert sorted(batch[1] for batch in backbone.batches) == sorted(sizes)


# --- a gate ---

HOP = 7_680


def at(hop: int, stream: int = 0) -> Window:
    """Return a stream's window at a hop, its first frame that hop's number in thousands."""
    return replace(window(hop, 300), stream=stream, position=15_600 + HOP * hop)


def long_scores(bank: Bank, hops: Sequence[int], stream: int = 0) -> list[int]:
    """Return the hop at which the score of the second window of each hop was made."""
    patches = [patch for hop in hops for patch in bank.score([at(hop, stream)])]
    assert [patch.posterior[0] // 1000 for patch in patches] == [*hops]
    return [int(patch.scores[1].posterior[0] // 1000) for patch in patches]


def gated(opens: Callable[[int], bool]) -> Bank:
    """Return a bank of two windows whose gate goes by the hop's number."""
    return Bank(
        [Counting()], kinds("a:2", "a:3"), lambda score: opens(int(score.posterior[0] // 1000))
    )


def test_behind_a_closed_gate_the_last_score_is_held_for_a_second():
    bank = gated(lambda _: False)
    assert long_scores(bank, range(7)) == [0, 0, 0, 3, 3, 3, 6]
    assert bank.held == {0: 4}


def test_an_open_gate_scores_at_every_hop():
    bank = gated(lambda _: True)
    assert long_scores(bank, range(4)) == [0, 1, 2, 3]
    assert bank.held == {}


def test_a_gate_opens_at_the_hop_that_is_worth_it():
    assert long_scores(gated(lambda hop: hop == 2), range(5)) == [0, 0, 2, 2, 2]


def test_nothing_is_held_across_a_gap():
    bank = gated(lambda _: False)
    assert long_scores(bank, [0, 1]) == [0, 0]
    bank.forget(0)
    assert long_scores(bank, [2, 3]) == [2, 2]


def test_streams_do_not_hold_each_others_scores():
    bank = gated(lambda _: False)
    bank.score([at(0, stream=1), at(5, stream=2)])
    first, second = bank.score([at(1, stream=1), at(6, stream=2)])
    assert [each.scores[1].posterior[0] // 1000 for each in (first, second)] == [0, 5]


def test_after_the_deadline_what_can_be_held_is():
    bank = gated(lambda _: True)
    bank.score([at(0)], deadline=-math.inf)  # there is nothing to hold yet
    [late] = bank.score([at(1)], deadline=-math.inf)
    assert [score.posterior[0] // 1000 for score in late.scores] == [1, 0]
    assert bank.held == {0: 1}


def test_without_a_gate_a_late_hop_is_scored_whole():
    bank = Bank([Counting()], kinds("a:2", "a:3"))
    bank.score([at(0)])
    [late] = bank.score([at(1)], deadline=-math.inf)
    assert [score.posterior[0] // 1000 for score in late.scores] == [1, 1]
