"""What goes wrong in a stage, or in who takes the outcomes, is raised where blocks are pushed."""

import numpy as np
import pytest

from streamtwl.audio.block import Block
from streamtwl.config import Settings
from streamtwl.pipeline import build

pytestmark = pytest.mark.usefixtures("yamnet")  # so that its file is there

TWO_SECONDS = Block(0, 0, np.zeros(32_000, np.float32), None, 0.0, last=True)


class Broken(Exception):
    pass


def broken(*_arguments):
    raise Broken


def test_every_window_and_the_end_have_an_outcome():
    pipeline = build(Settings(), ["mic"])
    outcomes = []
    pipeline.subscribe(outcomes.append)
    pipeline.push([TWO_SECONDS])
    positions = [(outcome.position, outcome.decision is None) for outcome in outcomes]
    assert positions == [
        (15_600, False), (23_280, False), (30_960, False), (32_000, False), (32_000, True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "verb"),
    [("reasoner", "step"), ("events", "step"), ("events", "close"), ("reasoner", "forget")],
)
def test_an_error_in_a_stage_is_raised_by_push(stage, verb):
    pipeline = build(Settings(), ["mic"])
    pipeline.subscribe(lambda outcome: None)
    setattr(getattr(pipeline, stage), verb, broken)
    with pytest.raises(Broken):
        pipeline.push([TWO_SECONDS])


@pytest.mark.parametrize("at_the_end", [False, True])
def test_an_error_of_who_takes_the_outcomes_is_raised_by_push(at_the_end):
    pipeline = build(Settings(), ["mic"])
    pipeline.subscribe(
        lambda outcome: broken() if (outcome.decision is None) == at_the_end else None
    )
    with pytest.raises(Broken):
        pipeline.push([TWO_SECONDS])
