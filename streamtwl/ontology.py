"""AudioSet's categories, their hierarchy, and vocabularies made from them.

Where several categories of one family score, the most specific is named: a parent yields to a
descendant whose score is at least `ratio` times its own. Without that rule "Animal" beats "Dog".
"""

import csv
import tomllib
from collections.abc import Iterable, Sequence, Set
from functools import cache
from importlib.resources import files

import numpy as np

from streamtwl.errors import UsageError
from streamtwl.label_filter import no_such, unknown_names

_FOLDER = files("streamtwl") / "vocabularies"


class Vocabulary:
    """Labels, each the roll-up of some of the backbone's categories: its score is their highest."""

    def __init__(self, members: dict[str, list[int]], kinds: Sequence[Set[int]]) -> None:
        """Take each label's categories, as indices into the posterior, the most general first.

        `kinds` holds the indices of each category's descendants.
        """
        self.labels = list(members)
        self._members, self._starts = _ragged(list(members.values()))
        # A label is a kind of another whose own category is an ancestor of all that it rolls up.
        below = [
            [j for j, ids in enumerate(members.values()) if kinds[head] >= set(ids)]
            for head, *_ in members.values()
        ]
        self._parents = np.array([i for i, labels in enumerate(below) if labels], np.intp)
        self._kinds, self._kinds_starts = _ragged([labels for labels in below if labels])

    def scores(self, posterior: np.ndarray) -> np.ndarray:
        """Return float32[..., L], each label's score, of posteriors float32[..., C]."""
        return np.maximum.reduceat(posterior[..., self._members], self._starts, axis=-1)

    def lowest(self, thresholds: np.ndarray) -> np.ndarray:
        """Return float[C]: the lowest of float[L] among the labels that roll a category up.

        It is 1 where no label does.
        """
        sizes = np.diff(self._starts, append=len(self._members))
        found = np.ones(len(categories()))
        np.minimum.at(found, self._members, np.repeat(thresholds, sizes))
        return found

    def most_specific(self, scores: np.ndarray, ratio: float) -> np.ndarray:
        """Return float32[..., L] with 0 for each label that yields to a kind of itself."""
        specific = scores.copy()
        if len(self._parents):
            best = np.maximum.reduceat(scores[..., self._kinds], self._kinds_starts, axis=-1)
            own = scores[..., self._parents]
            specific[..., self._parents] = np.where(best >= ratio * own, np.float32(0), own)
        return specific


def _ragged(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows end to end, and where each begins, as `reduceat` takes them."""
    starts = np.cumsum([0, *(len(row) for row in rows)])[:-1]
    return np.array([i for row in rows for i in row], np.intp), starts.astype(np.intp)


@cache
def categories() -> tuple[str, ...]:
    """Return the display names of YAMNet's 521 categories, in the posterior's order."""
    return tuple(row["display_name"] for row in _rows())


@cache
def parents() -> tuple[tuple[int, ...], ...]:
    """Return for each category the indices of its nearest ancestors."""
    return tuple(tuple(int(p) for p in row["parents"].split()) for row in _rows())


@cache
def audioset_527() -> tuple[str, ...]:
    """Return the display names of the 527 categories that AudioSet's labels have, in their order.

    YAMNet's are 521 of them: not those of men's and women's voices, battle cries and funny music.
    """
    return tuple(row["display_name"] for row in _rows("audioset_527.csv"))


@cache
def ancestors() -> tuple[frozenset[int], ...]:
    """Return for each category the indices of all that it is a kind of; not itself."""
    found: list[set[int]] = [set() for _ in parents()]
    for category, nearest in enumerate(parents()):
        above = list(nearest)
        while above:
            parent = above.pop()
            found[category].add(parent)
            above.extend(parents()[parent])
    return tuple(frozenset(above) for above in found)


@cache
def descendants() -> tuple[frozenset[int], ...]:
    """Return for each category the indices of all its kinds, and their kinds; not itself."""
    below: list[set[int]] = [set() for _ in ancestors()]
    for child, above in enumerate(ancestors()):
        for parent in above:
            below[parent].add(child)
    return tuple(frozenset(kinds) for kinds in below)


@cache
def everyday() -> dict[str, tuple[str, ...]]:
    """Return about 70 sounds of everyday life, each with the categories it rolls up."""
    listed = tomllib.loads((_FOLDER / "everyday.toml").read_text())["sounds"]
    return {label: tuple(names) for label, names in listed.items()}


def vocabulary(labels: str, names: Sequence[str] | None = None) -> Vocabulary:
    """Return the vocabulary that `labels` names: "everyday", "all", or names separated by commas.

    A name is one of the everyday sounds or of the backbone's categories `names` (default:
    YAMNet's), which then takes its kinds in. Raises UsageError for a name that is neither.
    """
    names = categories() if names is None else names
    kinds = kinds_among(names)
    index = {name: i for i, name in enumerate(names)}
    if labels == "all":  # "Silence" is no sound: where it wins, the label is None
        return Vocabulary({name: [i] for name, i in index.items() if name != "Silence"}, kinds)
    rolled_up = {
        label: members
        for label, rolled in everyday().items()
        if (members := [index[name] for name in rolled if name in index])
    }
    if labels == "everyday":
        if not rolled_up:
            raise UsageError("--labels everyday: the backbone has none of them; it takes all")
        return Vocabulary(rolled_up, kinds)
    for name, i in index.items():
        rolled_up.setdefault(name, [i, *sorted(kinds[i])])
    return Vocabulary({name: rolled_up[name] for name in _names(labels, list(rolled_up))}, kinds)


@cache
def taken_in(name: str) -> frozenset[str]:
    """Return, in lower case, a sound's name and what else it takes in: its categories, their kinds.

    Of an everyday sound not those that another one has: `Door` is no `Doorbell`. The name is of any
    case; of no everyday sound and no category: itself alone.
    """
    lower = name.lower()
    rolled_up = {
        label.lower(): {each.lower() for each in members} for label, members in everyday().items()
    }
    members = rolled_up.get(lower, set()) | {lower}
    index = {each.lower(): i for i, each in enumerate(categories())}
    below = {i for each in members & index.keys() for i in descendants()[index[each]]}
    kinds = {categories()[i].lower() for i in below}
    if lower in rolled_up:
        others = {label: each for label, each in rolled_up.items() if label != lower}
        kinds -= set(others).union(*others.values())
    return frozenset(members | kinds)


def parents_among(names: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Return for each name the indices of its nearest ancestors in AudioSet among the names."""
    audioset = {name: i for i, name in enumerate(categories())}
    index = {audioset[name]: i for i, name in enumerate(names) if name in audioset}
    found = []
    for name in names:
        above = ancestors()[audioset[name]] & index.keys() if name in audioset else frozenset()
        farther = {each for ancestor in above for each in ancestors()[ancestor]}
        found.append(tuple(sorted(index[each] for each in above - farther)))
    return tuple(found)


def kinds_among(names: Sequence[str]) -> list[frozenset[int]]:
    """Return for each name the indices of its descendants in AudioSet among the names."""
    audioset = {name: i for i, name in enumerate(categories())}
    index = {audioset[name]: i for i, name in enumerate(names) if name in audioset}
    return [
        frozenset(index[each] for each in descendants()[audioset[name]] & index.keys())
        if name in audioset
        else frozenset()
        for name in names
    ]


def check_names(names: Iterable[str], where: str, others: Iterable[str] = ()) -> None:
    """Raise UsageError for a name or pattern (* and ?) that no sound, category or other has."""
    for problem in unknown_names(names, [*others, *everyday(), *categories()]):
        raise UsageError(f"{where}: {problem}")


def _names(listed: str, known: list[str]) -> list[str]:
    """Split a list at its commas; AudioSet's own names have commas too: the longest name wins."""
    spelled = {name.lower(): name for name in known}
    pieces = [piece.strip() for piece in listed.split(",")]
    names = []
    while pieces:
        for taken in range(len(pieces), 0, -1):
            name = spelled.get(", ".join(pieces[:taken]).lower())
            if name is not None:
                break
        else:
            problem = no_such(pieces[0], known)
            raise UsageError(f"{problem}; --labels takes everyday, all, or names")
        names.append(name)
        del pieces[:taken]
    return list(dict.fromkeys(names))


def _rows(table: str = "audioset_yamnet.csv") -> list[dict[str, str]]:
    return list(csv.DictReader((_FOLDER / table).read_text().splitlines()))
