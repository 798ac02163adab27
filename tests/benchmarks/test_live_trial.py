"""The live trial's own parts: what is played, and the open vocabulary in the words of ESC-10."""

import itertools

import pytest
from trial_judging import closed, read_truth
from trial_methods import LIVE, OPEN, plays, scene_name
from trial_methods import slug as as_slug
from trial_sounds import KITCHEN_TEST, KITCHEN_TRAINING, Sounds

from streamtwl.messages import Event, Label, Scored
from streamtwl.ontology import categories, everyday
from streamtwl.training import datasets

COMMON = {"source": "s", "session": "s", "captured_at": None, "published_at": 0.0, "seq": 3}
RIGHT = {"dog": frozenset({"Dog", "Bark"}), "rain": frozenset({"Rain", "Raindrop"})}


def label(named: str | None, **top: float) -> Label:
    return Label(
        **COMMON,
        position=15_600,
        label=named,
        confidence=max(top.values(), default=0.0),
        top=[Scored(name, value) for name, value in top.items()],
        reasoner="evidence",
        samples=0,
        traces=0,
        refinement=0,
        latency_ms=7.0,
    )


def event(named: str) -> Event:
    about = {"id": "e", "phase": "onset", "start": 0, "end": None, "peak": 0.5, "mean": 0.4}
    return Event(**COMMON, **about, position=1, label=named)


def scored(message: Label) -> dict[str, float]:
    assert len({each.label for each in message.top}) == len(message.top)
    return {each.label: each.score for each in message.top}


# The open vocabulary, closed


def test_a_class_has_the_best_score_of_its_names():
    named = label("Bark", Dog=0.3, Bark=0.6, Raindrop=0.2, Rain=0.1, Siren=0.9)
    found = closed(named, RIGHT)
    assert found.label == "dog"
    assert scored(found) == {"dog": 0.6, "rain": 0.2}
    reversed_ = label("Bark", Bark=0.6, Dog=0.3)
    assert scored(closed(reversed_, RIGHT)) == {"dog": 0.6}


@pytest.mark.parametrize("named", ["Siren", None])
def test_a_name_of_no_class_names_nothing(named):
    found = closed(label(named, Siren=0.9), RIGHT)
    assert (found.label, found.top) == (None, [])


def test_the_rest_of_a_message_stays_and_so_does_what_was_given():
    named = label("Dog", Dog=0.5)
    found = closed(named, RIGHT)
    assert (found.seq, found.position, found.latency_ms) == (3, 15_600, 7.0)
    assert (named.label, scored(named)) == ("Dog", {"Dog": 0.5})


def test_events_are_renamed_and_others_are_left():
    assert closed(event("Raindrop"), RIGHT).label == "rain"
    assert closed(event("Siren"), RIGHT) == event("Siren")
    assert closed(event("Dog"), RIGHT).id == "e"


# Which names are right


@pytest.fixture
def right_names(esc10):
    return Sounds(esc10.parent, "esc10").right_names


def test_every_class_of_esc_10_has_names_that_can_be_told(right_names, esc10):
    assert set(right_names) == {clip.label for clip in datasets.load(esc10)}
    known = {*categories(), *everyday()}
    for names in right_names.values():
        assert names
        assert names <= known


def test_no_name_is_right_for_two_classes(right_names):
    for (a, names), (b, others) in itertools.combinations(right_names.items(), 2):
        assert not names & others, (a, b)


def test_every_class_can_be_told_by_either_vocabulary(right_names):
    for vocabulary in (categories(), everyday()):
        for label, names in right_names.items():
            assert names & set(vocabulary), label


def test_no_everyday_sound_takes_in_more_than_its_class(right_names):
    """An everyday name is right for a class if it is for any of the categories behind it."""
    for label, names in right_names.items():
        for name in names & everyday().keys():
            others = {*everyday()[name]} - names
            taken = {other for other, theirs in right_names.items() if theirs & others}
            assert not taken, (label, name)


@pytest.mark.parametrize(
    ("label", "name"),
    [("dog", "Bark"), ("rooster", "Rooster"), ("crying_baby", "Crying baby"), ("rain", "Rain")],
)
def test_some_names_are_right(right_names, label, name):
    assert name in right_names[label]


# What is played


def test_every_method_plays_every_fold_and_level_and_nothing():
    listed = plays([2, 5])
    assert len(set(listed)) == len(listed)
    for method in LIVE:
        own = {each[1:] for each in listed if each[0] == method}
        assert own == {(fold, at) for fold in (2, 5) for at in (20, 10, 5, None)}
    for method in OPEN:  # not trained, so the background is the same in every fold
        own = {each[1:] for each in listed if each[0] == method}
        assert own == {(fold, at) for fold in (2, 5) for at in (20, 10, 5)} | {(2, None)}
    assert {each[0] for each in listed} == {*LIVE, *OPEN}


def test_a_methods_plays_are_in_the_order_in_which_methods_are_compared():
    orders = [
        [each[1:] for each in plays([1, 2]) if each[0] == method and each[2] is not None]
        for method in (*LIVE, *OPEN)
    ]
    assert all(order == orders[0] for order in orders)


def test_names_of_scenes_and_methods_are_sources_and_files():
    assert scene_name(3, 7, 5) == "fold3-07-snr5"
    slugs = [as_slug(method) for method in (*LIVE, *OPEN)]
    assert len(set(slugs)) == len(slugs)
    for slug in [*slugs, scene_name(1, 0, 20)]:
        assert set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")


def test_truth_is_read_as_it_was_written(wav, tmp_path):
    wav("a.flac", [0.0] * 40_000)
    (tmp_path / "a.csv").write_text(
        "onset_s,offset_s,label,src_file,clip,snr_db\n0.5000,1.2500,dog,1,a.ogg,5.0\n"
    )
    truth, duration_s = read_truth(tmp_path / "a")
    assert duration_s == 2.5
    assert [(each.label, each.onset_s, each.offset_s) for each in truth] == [("dog", 0.5, 1.25)]
    wav("background.flac", [0.0] * 16_000)
    assert read_truth(tmp_path / "background") == ([], 1.0)


# Whose sounds are played


def test_no_recording_of_kitchen20_is_trained_on_and_played(data):
    if not (data / "kitchen20").is_dir():
        pytest.skip("kitchen20 is absent")
    sounds = Sounds(data, "kitchen20")
    [fold] = sounds.folds
    published = {clip.path: clip.fold for clip in datasets.load(data / "kitchen20")}
    test = [clip for clip in sounds.clips if clip.fold == fold]
    training = [clip for clip in sounds.clips if clip.fold != fold]
    assert {published[clip.path] for clip in test} == {*KITCHEN_TEST}
    assert {published[clip.path] for clip in training} == {*KITCHEN_TRAINING}
    assert not {clip.source for clip in test} & {clip.source for clip in training}
    assert len(test) == 219
    assert sounds.labels == sorted(sounds.right_names)
    assert sounds.right_names["blender"] == {"Blender"}
