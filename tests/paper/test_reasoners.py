"""Arithmetic and linear reasoners on patches that are made by hand."""

from pathlib import Path

import numpy as np
import pytest

from streamtwl.errors import UsageError
from streamtwl.paper import linear_models, reasoners
from streamtwl.paper.plan import Simple
from streamtwl.paper.reasoners import Draws, Task
from streamtwl.training.datasets import Clip
from streamtwl.training.posteriors import Scored

KINDS = Simple.__args__
NAMES = ["x", "y", "z", "other"]  # of the categories


@pytest.fixture(autouse=True)
def few_strengths(monkeypatch):
    """One strength of regularisation instead of six, for speed."""
    monkeypatch.setattr(linear_models, "STRENGTHS", (1.0,))


def patches(shares: list[list[float]]) -> Scored:
    posteriors = np.array(shares, np.float32)
    return Scored(posteriors, np.tile(posteriors, 2))


def task(n: int = 20, shuffled: bool = False) -> Task:
    """Clips of a and b, which the categories x and y say; z says the opposite, faintly."""
    rng = np.random.default_rng(2)
    clips, scored = [], []
    labels = ["ab"[i % 2] for i in range(n)]
    if shuffled:
        labels = rng.permutation(labels).tolist()
    for i in range(n):
        clips.append(Clip(Path(f"{i}.wav"), labels[i], f"recording {i // 2}", 1))
        strong = 0.6 + 0.1 * rng.random((4, 1))
        pair = (
            np.hstack((strong, 0.2 * strong)) if i % 2 == 0 else np.hstack((0.2 * strong, strong))
        )
        scored.append(patches(np.hstack((pair, 0.01 + 0.1 * rng.random((4, 2)))).tolist()))
    truth = np.array([[clip.label == label for label in "ab"] for clip in clips])
    return Task(["a", "b"], False, clips, scored, truth, NAMES, 0.48, 0, {"a": [0], "b": [1, 2]})


@pytest.mark.parametrize("kind", KINDS)
def test_every_reasoner_tells_two_plain_classes_apart(kind):
    made = task()
    scores = reasoners.fit(kind, made, [16])(
        made.scored, [c.path.name for c in made.clips], Draws(16, 2)
    )
    assert scores.shape == ((2 if kind == "counts" else 1), 20, 2)
    assert (scores[0].argmax(axis=1) == made.truth.argmax(axis=1)).mean() >= 0.95


@pytest.mark.parametrize("kind", ["mean", "linear", "counts"])
def test_shuffled_labels_are_not_learnt(kind):
    made, fresh = task(40, shuffled=True), task(40)
    scores = reasoners.fit(kind, made, [4])(fresh.scored, [f"{i}" for i in range(40)], Draws(4))
    assert 0.1 < (scores[0].argmax(axis=1) == fresh.truth.argmax(axis=1)).mean() < 0.9


def test_vote_mean_and_log_mean_differ_as_they_should():
    made = task()
    two_to_one = patches([[0.4, 0.3, 0, 0], [0.4, 0.3, 0, 0], [0.0, 0.9, 0, 0]])
    one_says_never = patches([[0.9, 0.2, 0, 0], [0.9, 0.2, 0, 0], [0.0, 0.3, 0, 0]])

    def best(kind: str, clip: Scored) -> str:
        return "ab"[reasoners.fit(kind, made)([clip], ["c"], Draws())[0, 0].argmax()]

    assert [best(f"names-{kind}", two_to_one) for kind in ("vote", "mean")] == ["a", "b"]
    assert [best(f"names-{kind}", one_says_never) for kind in ("mean", "log-mean")] == ["a", "b"]


def test_a_patch_that_scores_nothing_has_no_vote():
    clip = patches([[0, 0, 0, 0.9], [0, 0, 0, 0.9], [0, 0.1, 0, 0.9]])  # silence, then b
    scores = reasoners.fit("names-vote", task())([clip], ["c"], Draws())[0, 0]
    assert scores.argmax() == 1


def test_a_label_has_the_highest_of_its_names_and_one_without_is_never_chosen():
    made = task()
    clip = patches([[0.3, 0.1, 0.5, 0]])
    scores = reasoners.fit("names-mean", made)([clip], ["c"], Draws())[0, 0]
    np.testing.assert_allclose(scores, [0.3, 0.5])
    made.names.pop("a")
    assert reasoners.fit("names-mean", made)([clip], ["c"], Draws())[0, 0, 0] == 0.0
    made.names.clear()
    with pytest.raises(UsageError, match="no label has a name of AudioSet"):
        reasoners.fit("names-mean", made)


def test_draws_are_the_same_whatever_else_is_drawn():
    clip = task().scored[0]
    many, few = (reasoners.draw(clip, "c", Draws(k, m, 3)) for k, m in ((16, 4), (4, 2)))
    assert many.shape == (4, 4, 16, 2)
    np.testing.assert_array_equal(many[:, :2, :4], few)
    assert (many != reasoners.draw(clip, "c", Draws(16, 4, 4))).any()
    assert (many != reasoners.draw(clip, "d", Draws(16, 4, 3))).any()
    begun = reasoners.draw(Scored(clip.posteriors[:2], clip.embeddings), "c", Draws(16, 4, 3))
    np.testing.assert_array_equal(many[:2], begun)


def test_many_samples_come_to_the_root_of_the_mean_posterior():
    clip = patches([[0.6, 0.3, 0.1, 0.0]] * 9)
    drawn = reasoners.draw(clip, "c", Draws(512))[:, 0, :, 0]
    root = linear_models.FEATURES["linear-root"].of(clip)
    np.testing.assert_allclose(linear_models.root_of_counts(drawn, 4), root, atol=0.05)
    one = linear_models.root_of_counts(drawn[:1, :1], 4)
    assert np.abs(one - root).max() > 0.2


def test_a_copy_stays_on_its_clips_side_of_the_validation_split():
    made = task()
    twice = Task(
        made.labels, False, made.clips * 2, made.scored * 2, np.tile(made.truth, (2, 1)), NAMES,
        0.48, 0,
    )  # fmt: skip
    halves = twice.halves()
    np.testing.assert_array_equal(halves[:20], halves[20:])
    sides = [
        {clip.source for clip, one in zip(made.clips, halves, strict=False) if bool(one) is side}
        for side in (True, False)
    ]
    assert not sides[0] & sides[1]
    assert 0 < halves.sum() < 40


def test_labels_that_sound_at_once_are_each_found():
    made = task()
    both = Task(
        ["a", "b"],
        True,
        made.clips,
        [patches([[0.8 * a, 0.8 * b, 0.01, 0.01]] * 3) for a, b in np.ndindex(2, 2)] * 5,
        np.array([[a, b] for a, b in np.ndindex(2, 2)] * 5, bool),
        NAMES,
        0.48,
        0,
        {"a": [0], "b": [1]},
    )
    for kind in ("names-mean", "mean", "linear", "counts"):
        scores = reasoners.fit(kind, both, [16])(
            both.scored, [f"{i}" for i in range(20)], Draws(16)
        )[0]
        for label in (0, 1):
            there = both.truth[:, label]
            assert scores[there, label].min() > scores[~there, label].max(), (kind, label)
