"""Training targets: the open vocabulary's teacher, and the names of a data set's labels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from streamtwl.errors import UsageError
from streamtwl.ontology import categories
from streamtwl.training import steps, trace_training
from streamtwl.training.fitting import SceneArrays
from streamtwl.training.recipe import Recipe
from streamtwl.training.targets import TRUE_WEIGHT, OpenTargets, names_of
from streamtwl.training.trace_reasoner import build

INDEX = {name: i for i, name in enumerate(categories())}
DOG, BARK, ANIMAL, SIREN = (INDEX[name] for name in ("Dog", "Bark", "Animal", "Siren"))
PATCHES = 6


def streams(scores: dict[int, list[float]], ahead: list[float], cleaner=None) -> SceneArrays:
    """One stream of a label "dog"; what the backbone scores, by category."""
    rows = np.zeros((1, PATCHES, len(categories())), np.float32)
    for category, each in scores.items():
        rows[0, :, category] = each
    sounding = np.array(ahead)[None, :, None] > 0
    clean = None
    if cleaner is not None:
        clean = np.zeros_like(rows)
        for category, scores in cleaner.items():
            clean[0, :, category] = scores
    return SceneArrays(
        rows,
        np.ones(len(categories()), bool),
        np.full((1, PATCHES), 0.48, np.float32),
        sounding,
        sounding,
        np.array(ahead, float)[None, :, None],
        clean,
    )


def targets(**corrected: list[int]) -> OpenTargets:
    return OpenTargets(corrected, ["dog"], half_life_s=0.7)


def target(scene: SceneArrays, **corrected: list[int]) -> np.ndarray:
    """float32[T, C] of the newest patch."""
    return targets(**corrected).examples(scene, None).target[0, :, 0].numpy()


def test_the_teacher_hears_the_two_windows_to_come():
    scene = streams({SIREN: [0, 0, 0.8, 0.4, 0, 0]}, [0] * PATCHES)
    np.testing.assert_allclose(target(scene)[:, SIREN], [0.4, 0.6, 0.2, 0, 0, 0], atol=1e-6)


def test_the_teacher_hears_in_less_noise():
    scene = streams({SIREN: [0.1] * PATCHES}, [0] * PATCHES, cleaner={SIREN: [0.5] * PATCHES})
    np.testing.assert_allclose(target(scene)[:, SIREN], 0.5)


def test_the_truth_corrects_the_teacher():
    """The likeliest name gets 1, the other in proportion, the parent as much; else they get 0."""
    scores = {DOG: [0.2] * PATCHES, BARK: [0.1] * PATCHES, SIREN: [0.3] * PATCHES}
    probabilities = target(streams(scores, [1, 1, 0.5, 0, 0, 0]), dog=[DOG, BARK])
    np.testing.assert_allclose(probabilities[:, DOG], [1, 1, 0.5, 0, 0, 0])
    np.testing.assert_allclose(probabilities[:, BARK], [0.5, 0.5, 0.25, 0, 0, 0])
    np.testing.assert_allclose(probabilities[:, ANIMAL], [1, 1, 0.5, 0, 0, 0])
    np.testing.assert_allclose(probabilities[:, SIREN], 0.3)


def test_a_sound_that_the_teacher_never_hears_has_its_first_name():
    probabilities = target(streams({}, [1] * PATCHES), dog=[DOG, BARK])
    assert (probabilities[:, DOG] == 1).all()
    assert (probabilities[:, BARK] == 0).all()


@pytest.mark.parametrize(
    ("other", "dog", "bark"),
    [([BARK], [1, 1, 0.5], [0.5, 0.5, 0.5]), ([ANIMAL], [1, 1, 0], [0.5, 0.5, 0])],
)
def test_labels_that_overlap_are_taught_side_by_side(other, dog, bark):
    """A shared name, or a kind of the other label, gets what either label gives it."""
    scores = streams({DOG: [0.2] * PATCHES, BARK: [0.1] * PATCHES}, [0] * PATCHES)
    ahead = np.repeat([[1, 0], [1, 0.5], [0, 0.5]], 2, axis=0)[None]
    both = OpenTargets({"dog": [DOG, BARK], "other": other}, ["dog", "other"], half_life_s=0.7)
    probabilities = both.examples(replace(scores, ahead=ahead), None).target[0, ::2, 0].numpy()
    np.testing.assert_allclose(probabilities[:, DOG], dog)
    np.testing.assert_allclose(probabilities[:, BARK], bark)
    np.testing.assert_allclose(probabilities[:, ANIMAL], [1, 1, 0.5])


def test_what_is_not_taught_is_left_to_the_teacher():
    scene = streams({DOG: [0.2] * PATCHES}, [1] * PATCHES)
    np.testing.assert_allclose(target(scene)[:, DOG], 0.2)


def test_what_the_truth_corrects_counts_more():
    weight = targets(dog=[DOG, BARK]).examples(streams({}, [0] * PATCHES), None).weight
    assert weight is not None
    assert weight.unique().tolist() == [1.0, TRUE_WEIGHT]
    assert np.flatnonzero(weight > 1).tolist() == sorted([DOG, BARK])


def test_scores_of_the_labels_are_those_of_their_best_names():
    scores = np.zeros((1, 2, len(categories())), np.float32)
    scores[0, :, [DOG, BARK, ANIMAL]] = [[0.2, 0.5], [0.7, 0.1], [0.9, 0.9]]
    np.testing.assert_allclose(targets(dog=[DOG, BARK]).label_scores(scores)[0, :, 0], [0.7, 0.5])


def test_the_residual_path_is_the_evidence_and_looks_back():
    """Now: pooled. A patch ago: the window after it. Two ago: the mean of the two after it."""
    path = steps.Pooled(1, half_life_s=0.48, lags=2)
    posteriors = np.array([0.8, 0.4, 0.0, 0.6], np.float32)[None, :, None]
    elapsed_s = np.array([[1e9, 0.48, 0.48, 0.48]], np.float32)
    scene = SceneArrays(posteriors, np.ones(1, bool), elapsed_s, *[np.zeros((1, 4, 1))] * 3)
    now, one_ago, two_ago = trace_training.beliefs_of(path, scene)[0, :, :, 0].T.numpy()
    np.testing.assert_allclose(now, [0.8, 0.6, 0.3, 0.45], atol=1e-6)
    np.testing.assert_allclose(one_ago, posteriors[0, :, 0])
    np.testing.assert_allclose(two_ago[1:], [0.6, 0.2, 0.3], atol=1e-6)


def test_what_no_truth_corrects_is_said_at_least_as_surely_as_by_the_evidence():
    """Dog is corrected, and Animal with it; Siren is not."""
    labels = targets(dog=[DOG, BARK])
    floored = labels.floored
    assert floored is not None
    assert not floored[[DOG, BARK, ANIMAL]].any()
    assert floored[SIREN]
    assert build(labels, [], Recipe(open=True, residual=False)).grown is None
    made = build(labels, [], Recipe(open=True)).eval()
    assert made.grown is not None
    with torch.no_grad():
        made.bias -= 5  # it believes in nothing
    scene = streams({DOG: [0.8] * PATCHES, SIREN: [0.8] * PATCHES}, [0] * PATCHES)
    probabilities = trace_training.predict(made, labels.examples(scene, made.residual), 0, 0)[0, -1]
    evidence = trace_training.beliefs_of(made.residual, scene)[0, -1]
    np.testing.assert_allclose(probabilities[:, SIREN], evidence[:, SIREN], atol=1e-4)
    assert (probabilities[:, DOG] < 0.1).all()


# Names


def test_names_by_a_table(tmp_path):
    table = tmp_path / "names.csv"
    table.write_text("category,audioset\nhound,Dog|Bark\n")
    assert names_of(["hound"], table) == {"hound": [DOG, BARK]}


@pytest.mark.parametrize("label", ["Bark", "bark"])
def test_names_that_audioset_has_too(label):
    assert BARK in names_of([label], None)[label]


def test_a_label_of_two_words_as_a_folder_is_called():
    assert INDEX["Church bell"] in names_of(["church_bell"], None)["church_bell"]


@pytest.mark.parametrize("text", [None, "a,b\n1,2\n", "category,audioset\ndog,Dogg\n"])
def test_a_table_that_is_none_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "names.csv").write_text(text)
    with pytest.raises(UsageError, match=r"names\.csv"):
        names_of(["dog"], tmp_path / "names.csv")


@pytest.mark.parametrize("rows", ["Dog\n", "Siren,siren\nDog\n", "Dog,\n"])
def test_a_row_without_its_category_is_refused_with_its_line(tmp_path, rows):
    (tmp_path / "names.csv").write_text(f"audioset,category\n{rows}")
    line = 1 + rows.count("\n")
    with pytest.raises(UsageError, match=rf"names\.csv.*line {line}.*category") as raised:
        names_of(["dog"], tmp_path / "names.csv")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("row", ["kettle42", "kettle42,", "kettle42,|"])
def test_a_row_without_names_gives_none(tmp_path, row):
    (tmp_path / "names.csv").write_text(f"category,audioset\n{row}\ndog,Dog,more\n")
    assert names_of(["dog"], tmp_path / "names.csv") == {"dog": [DOG]}
    with pytest.raises(UsageError, match="'kettle42' is not a name of AudioSet"):
        names_of(["kettle42"], tmp_path / "names.csv")


def test_a_label_without_a_name_is_refused():
    with pytest.raises(UsageError, match=r"'kettle42' is not a name of AudioSet.*--names"):
        names_of(["kettle42"], None)
