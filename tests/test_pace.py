"""What is said where the machine is too slow for a hop."""

import re
import time
from types import SimpleNamespace

import numpy as np
import pytest

from streamtwl import config, pace
from streamtwl.backbones.bank import Bank
from streamtwl.features.spectrum import FRAME, FRAME_HOP
from streamtwl.stages import WindowKind


class Bands:
    def push(self, samples, power):
        return np.empty((0, 7), np.float32)


class Backbone:
    lengths_s, frame, frame_hop = (0.5, 10.24), FRAME, FRAME_HOP

    def __init__(self, name):
        self.name, self.shapes = name, []

    def front_end(self):
        return Bands()

    def score(self, features):
        self.shapes.append(features.shape)
        time.sleep(0.01)
        return np.zeros((len(features), 1)), np.zeros((len(features), 0))


def settings(hop_s=1.0, windows=("slow:10.24", "slow:0.96")) -> config.Settings:
    return config.override(config.Settings(), {"hop_s": hop_s, "windows": [*windows]})


def bank(*took: dict[str, float]):
    """Return a bank that takes so many seconds, run after run."""
    runs = iter(took)
    return SimpleNamespace(seconds=lambda streams: next(runs))


def test_a_bank_runs_every_full_window_of_all_streams():
    a, b = Backbone("a"), Backbone("b")
    kinds = [WindowKind("a:10.24", 0, 10.24), WindowKind("b:3", 1, 3.0), WindowKind("a:1", 0, 1.0)]
    took = Bank([a, b], kinds).seconds(2)
    assert (a.shapes, b.shapes) == ([(2, 1024, 7), (2, 100, 7)], [(2, 300, 7)])
    assert took["a"] >= 0.02
    assert took["b"] >= 0.01


def test_a_machine_that_holds_the_hop_is_run_once_and_nothing_is_said():
    assert pace.problem(bank({"slow": 0.8}), settings(), 1) is None


def test_a_first_run_that_allocates_is_not_the_measure():
    assert pace.problem(bank({"slow": 3.0}, {"slow": 0.5}), settings(), 1) is None


def test_a_short_hop_is_advised_to_the_hundredth():
    took = {"slow": 0.057}
    problem = pace.problem(bank(took, took), settings(hop_s=0.05), 1)
    assert problem is not None
    assert "--hop 0.08, or" in problem


@pytest.mark.parametrize(
    ("took", "streams", "said"),
    [
        ({"slow": 4.1, "quick": 0.1}, 1, "slow is too slow here for a hop of 1 s: .*1 source take "
         "4.2 s: --hop 5.3, or"),
        ({"slow": 2.0}, 2, "2 sources take 2 s: --hop 2.5, or"),
        ({"slow": 12.0}, 1, "1 source take 12 s: score shorter windows or fewer"),
    ],
)  # fmt: skip
def test_one_line_says_which_hop_it_holds(took, streams, said):
    problem = pace.problem(bank(took, took), settings(), streams)
    assert problem is not None
    assert re.search(said, problem)
    assert "\n" not in problem
