import csv

import numpy as np
import pytest

from streamtwl import ontology
from streamtwl.errors import UsageError
from streamtwl.ontology import (
    ancestors,
    categories,
    check_names,
    descendants,
    everyday,
    parents,
    vocabulary,
)
from tests.patches import log_mel

INDEX = {name: i for i, name in enumerate(categories())}


def posterior(**scores: float) -> np.ndarray:
    heard = np.zeros(521, np.float32)
    for name, score in scores.items():
        heard[INDEX[name.replace("_", " ")]] = score
    return heard


def named(labels: str, heard: np.ndarray, ratio: float = 0.2) -> str:
    """Return the label that wins."""
    known = vocabulary(labels)
    return known.labels[int(known.most_specific(known.scores(heard), ratio).argmax())]


# --- AudioSet ---


def test_categories_are_those_of_the_data_at_hand(data):
    rows = list(csv.DictReader((data / "audioset_yamnet.csv").read_text().splitlines()))
    assert list(categories()) == [row["display_name"] for row in rows]
    assert [" ".join(map(str, above)) for above in parents()] == [row["parents"] for row in rows]


def test_there_are_521_different_categories():
    assert len(categories()) == len(set(categories())) == 521


def test_descendants_are_transitive_and_never_their_own():
    assert {INDEX["Dog"], INDEX["Bark"]} <= descendants()[INDEX["Animal"]]
    assert INDEX["Bark"] in descendants()[INDEX["Dog"]]
    assert INDEX["Animal"] not in descendants()[INDEX["Dog"]]
    for category, below in enumerate(descendants()):
        assert category not in below
        assert all(descendants()[kind] <= below for kind in below)


def test_ancestors_are_descendants_seen_from_below():
    assert INDEX["Animal"] in ancestors()[INDEX["Bark"]]
    assert INDEX["Bark"] not in ancestors()[INDEX["Animal"]]
    for category, above in enumerate(ancestors()):
        assert above == {i for i, below in enumerate(descendants()) if category in below}
        assert above >= set(parents()[category])


# --- the most specific wins ---


def test_animal_yields_to_dog():
    heard = posterior(Animal=0.9, Dog=0.3)
    assert named("all", heard) == "Dog"
    assert named("all", heard, ratio=2.0) == "Animal"


def test_a_parent_keeps_what_its_kinds_do_not_share():
    assert named("all", posterior(Animal=0.9, Dog=0.17)) == "Animal"
    assert named("all", posterior(Animal=0.9, Dog=0.19)) == "Dog"


def test_a_grandparent_yields_too_and_dog_yields_to_bark():
    assert named("all", posterior(Animal=0.9, Bark=0.3)) == "Bark"
    assert named("all", posterior(Animal=0.9, Dog=0.8, Bark=0.3)) == "Bark"


def test_strangers_do_not_yield():
    assert named("all", posterior(Siren=0.5, Dog=0.4)) == "Siren"


def test_who_does_not_yield_keeps_the_score():
    known = vocabulary("all")
    scores = known.scores(posterior(Animal=0.9, Dog=0.3, Siren=0.5))
    specific = known.most_specific(scores, 0.2)
    of = dict(zip(known.labels, specific.tolist(), strict=True))
    assert (of["Animal"], of["Dog"], of["Siren"]) == (0, pytest.approx(0.3), 0.5)
    assert scores[known.labels.index("Animal")] == pytest.approx(0.9)  # the scores are not touched


# --- vocabularies ---


def test_all_names_every_category_but_silence():
    assert vocabulary("all").labels == [name for name in categories() if name != "Silence"]
    heard = np.random.default_rng(0).random(521).astype(np.float32)
    scores = vocabulary("all").scores(heard)
    np.testing.assert_array_equal(scores, np.delete(heard, INDEX["Silence"]))


def test_everyday_sounds_are_made_of_real_categories_each_in_one():
    members = [name for names in everyday().values() for name in names]
    assert set(members) <= set(categories())
    assert len(members) == len(set(members))
    assert all(everyday().values())
    assert 50 <= len(everyday()) <= 80
    assert len({label.lower() for label in everyday()}) == len(everyday())


def test_an_everyday_sound_scores_as_its_highest_category():
    known = vocabulary("everyday")
    assert known.labels == list(everyday())
    heard = np.random.default_rng(1).random(521).astype(np.float32)
    scores = dict(zip(known.labels, known.scores(heard).tolist(), strict=True))
    for label, names in everyday().items():
        assert scores[label] == max(heard[INDEX[name]] for name in names)


def test_a_category_has_the_lowest_threshold_of_the_labels_that_roll_it_up():
    both = vocabulary("Animal,Dog")
    found = both.lowest(np.array([0.3, 0.1]))
    named = {name: found[categories().index(name)] for name in ("Animal", "Cat", "Bark", "Siren")}
    assert named == {"Animal": 0.3, "Cat": 0.3, "Bark": 0.1, "Siren": 1.0}
    np.testing.assert_array_equal(both.lowest(np.array([0.1, 0.3]))[found < 1], 0.1)


def test_a_listed_category_takes_its_kinds_in():
    known = vocabulary("Animal")
    assert known.labels == ["Animal"]
    assert known.scores(posterior(Bark=0.7)).tolist() == [pytest.approx(0.7)]
    assert known.scores(posterior(Siren=0.7)).tolist() == [0]


def test_of_listed_ones_the_more_specific_is_named():
    assert named("Animal, Dog", posterior(Bark=0.7)) == "Dog"
    assert named("Animal, Dog", posterior(Animal=0.7, Dog=0.1)) == "Animal"
    assert named("Animal, Dog", posterior(Meow=0.7)) == "Animal"


@pytest.mark.parametrize(
    ("listed", "labels"),
    [
        ("Dog", ["Dog"]),
        ("Dog, Siren", ["Dog", "Siren"]),
        ("Siren,Dog", ["Siren", "Dog"]),
        ("  dog ,  SIREN ", ["Dog", "Siren"]),
        ("Dog, Dog, dog", ["Dog"]),
        ("Smoke detector, smoke alarm", ["Smoke detector, smoke alarm"]),
        ("Dog, Smoke detector, smoke alarm, Siren",
         ["Dog", "Smoke detector, smoke alarm", "Siren"]),
        ("Inside, large room or hall, Dog", ["Inside, large room or hall", "Dog"]),
        ("Crying baby, Baby cry, infant cry", ["Crying baby", "Baby cry, infant cry"]),
    ],
)  # fmt: skip
def test_names_with_commas_are_told_apart(listed, labels):
    assert vocabulary(listed).labels == labels


def test_every_name_can_be_listed():
    for name in [*everyday(), *categories()]:
        assert vocabulary(f"Dog, {name}").labels[-1] == name


@pytest.mark.parametrize(
    ("wrong", "near"), [("Dgo", "Dog"), ("sirene", "Siren"), ("Dog, Bakr", "Bark")]
)
def test_an_unknown_name_is_refused_with_those_near_it(wrong, near):
    with pytest.raises(UsageError) as raised:
        vocabulary(wrong)
    assert f"'{wrong.split(', ')[-1]}'" in str(raised.value)
    assert near in str(raised.value)


@pytest.mark.parametrize("wrong", ["", "Dog,", "xqzjkvw", ",", "Smoke detector"])
def test_a_list_that_is_none_is_refused(wrong):
    with pytest.raises(UsageError, match="everyday, all, or names"):
        vocabulary(wrong)


def test_names_in_a_pipeline_are_checked():
    check_names([*everyday(), *categories()], "[events.label]")
    with pytest.raises(UsageError, match=r"\[events\.label\].*'Dgo'.*Dog"):
        check_names(["Dog", "Dgo"], "[events.label]")


# --- on real sound ---


@pytest.fixture(scope="module")
def mean_posteriors(yamnet, clips):
    """The mean posterior of each of ESC-10's clips, float32[N, 521]."""

    def mean(samples: np.ndarray) -> np.ndarray:
        frames = log_mel(samples)
        windows = [frames[at : at + 96] for at in range(0, len(frames) - 95, 48)]
        return yamnet.posteriors(np.stack(windows)).mean(axis=0)

    return np.stack([mean(clip.samples) for clip in clips])


def test_the_rule_names_far_more_of_esc10_rightly(mean_posteriors, clips, data):
    with (data / "esc50_audioset.csv").open() as file:
        right = {int(row["target"]): row["audioset"].split("|") for row in csv.DictReader(file)}
    known = vocabulary("all")

    def share_right(ratio: float) -> float:
        specific = [known.most_specific(known.scores(heard), ratio) for heard in mean_posteriors]
        labels = [known.labels[int(scores.argmax())] for scores in specific]
        rights = [right[clip.target] for clip in clips]
        return float(np.mean([label in names for label, names in zip(labels, rights, strict=True)]))

    # DESIGN.md's 24 and 50.5 % let "Silence" win; "all" leaves it out: 29.8 and 61.5 %.
    assert share_right(2.0) == pytest.approx(0.30, abs=0.03)
    assert share_right(0.2) == pytest.approx(0.615, abs=0.03)


def test_the_vocabularies_are_shipped_with_the_package():
    assert (ontology._FOLDER / "audioset_yamnet.csv").is_file()
    assert (ontology._FOLDER / "everyday.toml").is_file()


def test_names_and_patterns_of_events_are_checked_whatever_their_case():
    ontology.check_names(["bark", "Inside, *", "smoke alarm"], "here")
    with pytest.raises(UsageError, match=r"here: no sound is called 'Brak' \(did you mean: Bark"):
        ontology.check_names(["Brak"], "here")
