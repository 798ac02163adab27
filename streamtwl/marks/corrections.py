"""What marks teach: where a label is not believed, as it sounds like what was marked wrong.

Each label with events that were marked wrong gets a head (`sounds/heads.py`) on the backbones'
embeddings, learnt from those events against general sound, as a taught sound is. Its threshold is
above all that was marked right, the label's own recordings included where it is taught. The label
keeps its confidence below the threshold and loses it above.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streamtwl.errors import UsageError
from streamtwl.marks.store import Mark, Marks
from streamtwl.sounds import heads
from streamtwl.sounds.heads import Head, Taught
from streamtwl.sounds.space import Space
from streamtwl.sounds.store import Store
from streamtwl.sounds.teaching import Teacher
from streamtwl.stages import Patch

LIKE_A_DAY = 240.0  # moments of general sound that may be taken for what was marked wrong
STEEPNESS = 2.0  # in how many odds of the head the confidence falls
APART = 1.0  # spreads above what was marked right, at least


@dataclass(frozen=True)
class Correction:
    """Of one label."""

    label: str
    wrong: int  # marks that it is learnt from
    right: int
    head: Head
    reach: float  # share of the hops that were marked wrong which it lowers


class Corrections:
    """By what factor the confidences of some labels fall at a hop; state: none."""

    def __init__(self, space: Space, corrections: Sequence[Correction]) -> None:
        self.space, self.corrections = space, list(corrections)
        self.labels = [each.label for each in corrections]
        own = [each.head for each in corrections]
        self._weights = np.stack([head.weights for head in own], axis=1)  # float32[F, T]
        self._offsets = np.array([head.offset - head.threshold for head in own], np.float32)
        self._spreads = np.array([head.spread for head in own], np.float32)

    def score(self, patch: Patch) -> np.ndarray:
        """Return float32[T], the factors in [0, 1] of a hop: 0.5 is at the threshold."""
        embeddings = {score.window: score.embedding[None] for score in patch.scores}
        [row] = self.space.features(embeddings) @ self._weights + self._offsets
        return 1 / (1 + np.exp(np.clip(STEEPNESS * row / self._spreads, -50, 50)))


def of_user(teacher: Teacher) -> Corrections | None:
    """Return what the user's marks correct; None where that is nothing. Raises SoundsError."""
    try:
        return learn(teacher, Marks().all(), Store())
    except UsageError:
        return None  # a user without a home: nothing can have been marked


def learn(teacher: Teacher, marks: Sequence[Mark], store: Store) -> Corrections | None:
    """Return the corrections of all labels that were marked wrong; None where there are none.

    Marks without embeddings of this teacher's windows and weights teach nothing.
    """
    if not teacher.windows:
        return None
    right: dict[str, list[np.ndarray]] = {}
    wrong: dict[str, list[np.ndarray]] = {}
    for mark in marks:
        if (rows := _features(teacher, mark)) is not None:
            verdicts = right if mark.verdict == "right" else wrong
            verdicts.setdefault(mark.label, []).append(rows)
    if not wrong:
        return None
    mistaken = [Taught(label, rows, LIKE_A_DAY) for label, rows in wrong.items()]
    learnt = heads.fit(teacher.space, mistaken).heads
    taught = {sound.name.casefold(): sound for sound in store.sounds()}
    found = []
    for sound, head in zip(mistaken, learnt, strict=True):
        own = taught.get(sound.name.casefold())
        known = teacher.taught(store, [own])[0].recordings if own else []
        found.append(_correction(sound, head, right.get(sound.name, []), known))
    return Corrections(teacher.space, found)


def _features(teacher: Teacher, mark: Mark) -> np.ndarray | None:
    """Return float32[n, F] of an event's hops, None where they are of other windows or weights."""
    rows = {window: mark.embeddings.get(name) for window, name in teacher.named.items()}
    if any(each is None or not len(each) for each in rows.values()):
        return None
    return teacher.space.features({name: each for name, each in rows.items() if each is not None})


def _correction(
    wrong: Taught, head: Head, right: Sequence[np.ndarray], known: Sequence[np.ndarray]
) -> Correction:
    """Raise the threshold above what is `right`, float32[n, F] an event, and `known` recordings."""
    threshold = head.threshold
    if right or known:
        among = np.concatenate([*right, *known]) @ head.weights + head.offset
        threshold = max(threshold, float(among.max()) + APART * head.spread)
    own = np.concatenate(wrong.recordings) @ head.weights + head.offset
    head = Head(head.weights, head.offset, threshold, head.spread, head.left_out)
    reach = float((own >= threshold).mean())
    return Correction(wrong.name, len(wrong.recordings), len(right), head, reach)
