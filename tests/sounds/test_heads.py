"""Heads on points that the test makes: whom they recognise, and how rarely they are wrong."""

import numpy as np
import pytest

from streamtwl.sounds import heads
from streamtwl.sounds.heads import ON, Taught
from streamtwl.sounds.space import unit

SIZE = 128


class Points:
    """A space whose features are what it is given."""

    def __init__(self, points):
        self.points = points

    def features(self, embeddings):
        return embeddings["x"]


def cloud(rng, count, centre=None, spread=1.0):
    rows = spread * rng.standard_normal((count, SIZE))
    return unit(rows if centre is None else rows + centre)


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def space(rng):
    return Points(cloud(rng, 3000))


def taught(rng, name, centre, recordings=3, rate=1.0):
    return Taught(name, [cloud(rng, 10, centre, 0.7) for _ in range(recordings)], rate)


def test_a_sound_is_told_from_others_and_from_what_was_never_met(rng, space):
    centres = 14 * np.eye(SIZE)
    fitted = heads.fit(space, [taught(rng, f"{i}", centres[i]) for i in range(4)])
    for i in range(4):
        confidences = fitted.confidences({"x": cloud(rng, 200, centres[i], 0.7)})
        assert (confidences[:, i] >= ON).mean() > 0.9
        assert (np.delete(confidences, i, axis=1) >= ON).mean() < 0.02
    assert (fitted.confidences({"x": cloud(rng, 200, centres[9])}) >= ON).mean() < 0.02


def test_the_promised_rate_holds_on_points_that_it_has_not_seen(rng, space):
    day = cloud(rng, 57_600)  # one a LOOK_S
    for rate in (100.0, 1000.0):
        sounds = [taught(rng, f"{i}", 12 * np.eye(SIZE)[i], rate=rate) for i in range(6)]
        fitted = [heads.fit(space, [sound]) for sound in sounds]
        passed = [(each.confidences({"x": day}) >= ON).sum() for each in fitted]
        assert rate / 3 < np.mean(passed) < 3 * rate


def test_a_sound_that_is_allowed_more_false_alarms_is_found_more_often(rng, space):
    centre = 7 * np.eye(SIZE)[0]
    test = cloud(rng, 500, centre)
    found = [
        (heads.fit(space, [taught(np.random.default_rng(1), "a", centre, rate=rate)])
         .confidences({"x": test}) >= ON).mean()
        for rate in (0.1, 10.0, 1000.0)
    ]  # fmt: skip
    assert found[0] < found[1] < found[2]


def test_the_users_background_raises_the_threshold_where_it_is_like_the_sound(rng, space):
    centre = 8 * np.eye(SIZE)[0]
    sound = taught(rng, "a", centre)
    hum = cloud(rng, 500, 4 * np.eye(SIZE)[0])
    plain = heads.fit(space, [sound])
    at_home = heads.fit(space, [sound], hum)
    more = cloud(rng, 3000, 4 * np.eye(SIZE)[0])
    alarms = [(each.confidences({"x": more}) >= ON).sum() for each in (plain, at_home)]
    assert alarms[1] < alarms[0] / 2
    unlike = heads.fit(space, [sound], cloud(rng, 500, 4 * np.eye(SIZE)[7]))
    assert unlike.heads[0].threshold < at_home.heads[0].threshold


def test_the_same_sound_within_the_bank_does_not_count_against_it(rng):
    centre = 12 * np.eye(SIZE)[0]
    general = cloud(rng, 3000)
    with_it = np.concatenate((general[:-20], cloud(rng, 20, centre, 0.7)))
    test = cloud(np.random.default_rng(2), 300, centre, 0.7)
    fitted = heads.fit(Points(with_it), [taught(rng, "a", centre)])
    assert fitted.heads[0].left_out > 3
    assert (fitted.confidences({"x": test}) >= ON).mean() > 0.4


def test_recordings_are_recognised_from_the_others_or_not(rng, space):
    alike = taught(rng, "a", 12 * np.eye(SIZE)[0], recordings=4)
    assert heads.found_again(space, [alike], "a", [1.0]) == ({1.0: 4}, 4)
    unlike = Taught("b", [cloud(rng, 10, 12 * np.eye(SIZE)[i], 0.7) for i in range(1, 5)], 1.0)
    assert heads.found_again(space, [alike, unlike], "b", [1.0]) == ({1.0: 0}, 4)
    once = taught(rng, "c", 12 * np.eye(SIZE)[0], recordings=1)
    assert heads.found_again(space, [once], "c", [1.0]) == ({1.0: 0}, 0)
