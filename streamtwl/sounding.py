"""Events, the sound without gaps that they lie in, and the labels whose events are wanted."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from streamtwl.config import EventSettings, LabelEventSettings


@dataclass(slots=True)
class Sounding:
    """One event, pending, open or over."""

    number: int  # in its stream, from 0, in order of onset
    label: str
    start: int  # position
    end: int | None = None  # position; None while it lasts
    peak: float = 0.0
    mean: float = 0.0
    retracted: bool = False  # there was no such event; `end` is then `start`
    patches: int = field(default=0, repr=False)

    def add(self, score: float) -> None:
        """Take the score of one more patch."""
        self.patches += 1
        self.peak = max(self.peak, score)
        self.mean += (score - self.mean) / self.patches


Change = tuple[Literal["onset", "offset", "revised"], Sounding]


@dataclass(slots=True)
class Stretch:
    """Sound without gaps, of which the first patch covers everything from its start."""

    start: int = 0  # position
    first: int | None = None  # where its first patch is; None: there was none yet
    newest: int = 0  # where its newest patch is
    decided_to: int = 0  # position of the newest patch's end, or where the sound broke off
    _behind: int = 0

    def is_news(self, position: int) -> bool:
        """Whether a patch covers anything that came after the sound broke off."""
        return self.first is not None or position > self.decided_to

    def take(self, position: int, start: int | None, behind: int) -> int:
        """Return where a patch is: `behind` samples before its end, later than the one before.

        While there are not twice as many samples, it is in the middle of those that there are: no
        window is longer yet. The first patch of a stretch begins it.
        """
        if self.first is None:
            self.start = max(self.decided_to, start or 0)
        at = position - min(behind, (position - self.start) // 2)
        self.newest = at if self.first is None else max(at, self.newest + 1)
        self.first = self.newest if self.first is None else self.first
        self._behind = behind
        self.decided_to = position
        return self.newest

    def window_end(self, at: int) -> int:
        """Return where the window of the patch at `at` ends."""
        return at + min(self._behind, at - self.start)

    def end(self, position: int) -> None:
        """The sound broke off."""
        self.first, self.decided_to = None, position


def rules(labels: Sequence[str], settings: EventSettings) -> dict[int, LabelEventSettings]:
    """Return the rules of those labels, by index, whose events are wanted."""
    wanted = [(i, label) for i, label in enumerate(labels) if settings.wants(label)]
    return {i: settings.rule(label) for i, label in wanted}
