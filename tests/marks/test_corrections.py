"""What was marked wrong lowers its label where it sounds alike, and nowhere else."""

import numpy as np
import pytest

from streamtwl.config import EventSettings
from streamtwl.events import EventTracker
from streamtwl.marks import corrections
from streamtwl.marks.store import Mark
from streamtwl.reasoners.corrected import Corrected
from streamtwl.sounds import space
from streamtwl.sounds.space import Space
from streamtwl.sounds.store import Store
from streamtwl.stages import Decision, Patch, Score
from tests.patches import window
from tests.reasoners.test_taught import Own, scores

WINDOW = "mn04:3"
NAMED = f"{WINDOW}@899a8c62"


class Teacher:
    """Learns on the shipped bank's own space; no network runs."""

    windows, named = [WINDOW], {WINDOW: NAMED}

    def __init__(self):
        self.space = Space([WINDOW], space.shipped())

    def taught(self, store, sounds):
        return []


@pytest.fixture(scope="module")
def teacher():
    return Teacher()


def sound(number, count=4, wobble=0.15):
    """Embeddings of the hops of one kind of sound, float32[count, 384]."""
    bank = space.shipped()
    mean, scale = bank._of(WINDOW, "mean"), bank._of(WINDOW, "scale")
    kind = np.random.default_rng(number).standard_normal(384)
    rows = kind + wobble * np.random.default_rng([number, count]).standard_normal((count, 384))
    return (mean + scale * rows).astype(np.float32)


def mark(number, rows, label="Dog", verdict="wrong"):
    return Mark(f"e{number}", verdict, label, embeddings={NAMED: rows})


def learn(teacher, marks, tmp_path):
    return corrections.learn(teacher, marks, Store(tmp_path / "sounds"))


def patch(row, position=16_000):
    posterior = np.zeros(3, np.float32)
    return Patch(window(position), (Score(WINDOW, 3.0, posterior, row),))


def test_what_sounds_like_it_loses_the_label_and_other_sounds_keep_it(teacher, tmp_path):
    learnt = learn(teacher, [mark(i, sound(7)) for i in range(3)], tmp_path)
    assert learnt.labels == ["Dog"]
    assert learnt.score(patch(sound(7)[0])) < 0.2
    assert learnt.score(patch(sound(8)[0])) > 0.8
    [correction] = learnt.corrections
    assert (correction.wrong, correction.right, correction.reach) == (3, 0, 1.0)


def test_what_was_marked_right_keeps_its_label_even_if_it_sounds_alike(teacher, tmp_path):
    same = sound(7, wobble=0.0)
    marks = [mark(0, same), mark(1, same, verdict="right")]
    assert learn(teacher, marks, tmp_path).score(patch(same[0])) > 0.8


def test_marks_as_right_alone_correct_nothing(teacher, tmp_path):
    assert learn(teacher, [mark(0, sound(7), verdict="right")], tmp_path) is None
    assert learn(teacher, [], tmp_path) is None


def test_embeddings_of_other_weights_or_of_none_teach_nothing(teacher, tmp_path):
    other = Mark("a", "wrong", "Dog", embeddings={f"{WINDOW}@00000000": sound(7)})
    assert learn(teacher, [other, Mark("b", "wrong", "Dog")], tmp_path) is None


def corrected(teacher, tmp_path, own):
    return Corrected(own, learn(teacher, [mark(0, sound(7))], tmp_path))


def test_a_decision_is_lowered_everywhere_it_says_so(teacher, tmp_path):
    earlier = np.full((2, 2, 2), 0.6, np.float32)
    own = Own(scores(0.9, 0.2), earlier, scores(0.9, 0.2))
    reasoner = corrected(teacher, tmp_path, own)
    [before] = reasoner.step([patch(sound(8)[0])])
    assert before.label == "Dog"
    assert before.scores == pytest.approx(own._decision.scores, rel=0.1)
    [decision] = reasoner.step([patch(sound(7)[0])])
    assert decision.label is None
    for each in (decision.scores, decision.specific, decision.in_force):
        assert each[0] < 0.2
        assert each[1] == pytest.approx(0.2)
    assert decision.earlier[0, :, 0] == pytest.approx(0.6, rel=0.1)  # of the other sound
    [decision] = reasoner.step([patch(sound(8)[0])])
    assert (decision.earlier[0, :, 0] < 0.2).all()  # of the hop before
    assert own._decision.scores[0] == pytest.approx(0.9)  # what it said is not overwritten


def test_another_label_comes_into_force_where_its_events_would_begin(teacher, tmp_path):
    [decision] = corrected(teacher, tmp_path, Own(scores(0.9, 0.6))).step([patch(sound(7)[0])])
    assert (decision.label, decision.confidence) == ("Siren", pytest.approx(0.6))


def test_the_event_does_not_begin(teacher, tmp_path):
    reasoner = corrected(teacher, tmp_path, Own(scores(0.9, 0.1)))
    tracker = EventTracker(reasoner.labels, EventSettings(on=0.43, off=0.22))
    changes = []
    for hop in range(1, 6):
        [decision] = reasoner.step([patch(sound(7)[0], hop * 7680)])
        changes += tracker.step(0, hop * 7680, decision.scores, decision.specific)
    assert changes == []


def test_labels_that_the_reasoner_has_not_are_passed_over(teacher, tmp_path):
    learnt = learn(teacher, [mark(0, sound(7), "kettle")], tmp_path)
    [decision] = Corrected(Own(scores(0.9, 0.1)), learnt).step([patch(sound(7)[0])])
    assert isinstance(decision, Decision)
    assert decision.label == "Dog"
