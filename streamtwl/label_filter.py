"""Selects labels and events by name."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from streamtwl.messages import AnyMessage, Event, Label

REMEMBERED = 1000  # events that were taken
NAMES = "see `streamtwl labels`"  # where they are


class LabelFilter:
    """Takes labels and events whose name matches one of several patterns; other kinds always.

    An event that was taken is taken to its end, even if it is revised to another label: a receiver
    of its onset has to receive the correction.
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        """`patterns` may contain * and ?, in any case; none: everything matches."""
        self._patterns = [pattern.lower() for pattern in patterns]
        self._taken: deque[str] = deque(maxlen=REMEMBERED)  # ids of events

    def takes(self, message: AnyMessage) -> bool:
        """Return whether a message is wanted; call it in the order of `seq`."""
        if not self._patterns or not isinstance(message, Label | Event):
            return True
        wanted = fits(message.label or "", self._patterns)
        if isinstance(message, Label):
            return wanted
        known = message.id in self._taken
        if wanted and not known:
            self._taken.append(message.id)
        return wanted or known


def fits(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name matches one of several patterns (* and ?), in any case."""
    return any(fnmatchcase(name.lower(), pattern.lower()) for pattern in patterns)


def unknown_names(
    names: Iterable[str], known: Iterable[str], what: str = "sound", hint: str = NAMES
) -> Iterator[str]:
    """Yield a message for each name or pattern (* and ?) that matches nothing in `known`.

    `what` is the kind of thing they name; `hint` is added where no name is similar.
    """
    known = list(known)
    for name in names:
        if not any(fnmatchcase(each.lower(), name.lower()) for each in known):
            yield no_such(name, known, what, hint)


def no_such(name: str, known: Iterable[str], what: str = "sound", hint: str = NAMES) -> str:
    """Return the message that no `what` is called `name`, with similar names, or `hint`."""
    spelled = {each.lower(): each for each in known}
    near = [spelled[each] for each in get_close_matches(name.lower(), spelled, n=3, cutoff=0.5)]
    hint = f"did you mean: {', '.join(near)}" if near else hint
    return f"no {what} is called '{name}' ({hint})"
