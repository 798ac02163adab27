"""A trace in words, as a language model reads it: seconds, names, how strongly; within a budget.

One line a step while that fits:

    12.0-12.5 s: Dog 62 %, Bark 55 %, Animal 20 %

otherwise one line an event, a name with the stretch in which it was among a step's strongest:

    12.0-14.4 s: Dog, up to 62 %

and where that is too long as well, the oldest lines are left out.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from streamtwl.stages import SAMPLE_RATE

STRONGEST = 5  # names of a step of confidences
LEAST = 0.05  # confidence that is worth a word
NAME_LENGTH = 60  # characters
MARKS = '<>{}|[];"`\\'  # of chat templates, JSON and our own lists


@dataclass(frozen=True, slots=True)
class Step:
    """One patch: when, and its names, strongest first, with confidences or numbers of draws."""

    start_s: float
    end_s: float
    names: tuple[tuple[str, float], ...]


def step(position: int, behind: int, hop_s: float, names: tuple[tuple[str, float], ...]) -> Step:
    """Return the step of a patch: the hop from the moment on that its scores are about.

    That is `behind` samples before the end of its window, at `position`, as events are dated.
    """
    start_s = max(0.0, (position - behind) / SAMPLE_RATE)
    return Step(start_s, start_s + hop_s, names)


def confidences(scores: np.ndarray, names: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """Return the strongest names of float32[C] in [0, 1]."""
    strongest = np.argsort(-scores, kind="stable")[:STRONGEST]
    return tuple((names[i], float(scores[i])) for i in strongest if scores[i] >= LEAST)


def draws(categories: np.ndarray, names: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """Return the names of int[K] drawn categories with their counts, most frequent first.

    Their order says nothing, as each draw is independent of the others.
    """
    drawn, counts = np.unique(categories, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return tuple((names[drawn[i]], float(counts[i])) for i in order)


def words(steps: Sequence[Step], characters: int, drawn: bool = False) -> str:
    """Return the trace in at most so many characters; `drawn`: its numbers count draws."""
    lines = [_step(step, drawn) for step in steps]
    if _length(lines) > characters:
        lines = [line for _, line in sorted(_events(steps, drawn), key=lambda event: event[0])]
    while lines and _length(lines) > characters:
        del lines[0]
    return "\n".join(lines) or "(nothing)"


def plain(name: str) -> str:
    """Return a name as one short run of printable characters without a prompt's own marks.

    Names are other people's: of backbones, of data sets. Whatever they say, they cannot end a line,
    a list or a message of a chat template.
    """
    kept = "".join(each if each.isprintable() and each not in MARKS else " " for each in name)
    return " ".join(kept.split())[:NAME_LENGTH].strip() or "unnamed"


def _length(lines: Sequence[str]) -> int:
    return sum(len(line) + 1 for line in lines)


def _step(step: Step, drawn: bool) -> str:
    named = [f"{plain(name)} {_amount(value, drawn)}" for name, value in step.names]
    return f"{_span(step.start_s, step.end_s)}: {', '.join(named) or '-'}"


def _events(steps: Sequence[Step], drawn: bool) -> Iterator[tuple[float, str]]:
    """Yield (start, line) for each name and stretch of consecutive steps that have it."""
    for name in dict.fromkeys(name for step in steps for name, _ in step.names):
        values = [dict(step.names).get(name) for step in steps]
        by_step = zip(steps, values, strict=True)
        for there, group in itertools.groupby(by_step, key=lambda pair: pair[1] is not None):
            if not there:
                continue
            stretch = list(group)
            amounts = [value for _, value in stretch if value is not None]
            strength = sum(amounts) if drawn else max(amounts)
            span = _span(stretch[0][0].start_s, stretch[-1][0].end_s)
            upto = "" if drawn else "up to "
            yield stretch[0][0].start_s, f"{span}: {plain(name)}, {upto}{_amount(strength, drawn)}"


def _span(start_s: float, end_s: float) -> str:
    return f"{start_s:.1f}-{end_s:.1f} s"


def _amount(value: float, drawn: bool) -> str:
    return f"{value:.0f}" if drawn else f"{100 * value:.0f} %"
