"""Which labels and events somebody wants, by their names."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from streamtwl.messages import AnyMessage, Event, Label

REMEMBERED = 1000  # events that were taken
NAMES = "see `streamtwl labels`"  # where they are


class LabelFilter:
    """Takes labels and events whose name fits one of several patterns; other kinds always.

    An event that was taken is taken to its end, also where it is revised to be another label's:
    who heard it begin has to hear that it was not.
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        """`patterns` take * and ? and any case; none: everything fits."""
        self._patterns = [pattern.lower() for pattern in patterns]
        self._taken: deque[str] = deque(maxlen=REMEMBERED)  # ids of events

    def takes(self, message: AnyMessage) -> bool:
        """Return whether a message is wanted; to be asked in the order of `seq`."""
        if not self._patterns or not isinstance(message, Label | Event):
            return True
        name = (message.label or "").lower()
        fits = any(fnmatchcase(name, pattern) for pattern in self._patterns)
        if isinstance(message, Label):
            return fits
        known = message.id in self._taken
        if fits and not known:
            self._taken.append(message.id)
        return fits or known


def unknown_names(
    names: Iterable[str], known: Iterable[str], what: str = "sound", hint: str = NAMES
) -> Iterator[str]:
    """Yield what is wrong with each name or pattern (* and ?) that nothing known has.

    `what` they are names of; `hint` is what to say where nothing is spelled alike.
    """
    known = list(known)
    for name in names:
        if not any(fnmatchcase(each.lower(), name.lower()) for each in known):
            yield no_such(name, known, what, hint)


def no_such(name: str, known: Iterable[str], what: str = "sound", hint: str = NAMES) -> str:
    """Return that no `what` is called `name`, with what is known and spelled alike, or `hint`."""
    spelled = {each.lower(): each for each in known}
    near = [spelled[each] for each in get_close_matches(name.lower(), spelled, n=3, cutoff=0.5)]
    hint = f"near it: {', '.join(near)}" if near else hint
    return f"no {what} is called '{name}' ({hint})"
