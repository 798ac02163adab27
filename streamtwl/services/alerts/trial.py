"""What rules would have done: over a journal, in the order in which it was published.

A summary of states stands in the journal where their repetition ended, up to a minute after events
that came between them.
"""

import heapq
import itertools
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

from streamtwl import history
from streamtwl.errors import UsageError
from streamtwl.history import Wanted
from streamtwl.messages import AnyMessage
from streamtwl.services.alerts import actions
from streamtwl.services.alerts.rules import Rules
from streamtwl.sinks.repeats import STRETCH_S
from streamtwl.unrolling import unrolled

LATE_S = STRETCH_S + 10.0  # that a message may stand in the journal behind younger ones
MOST = 50_000  # messages that are held to be put in order


def in_order(messages: Iterable[AnyMessage]) -> Iterator[AnyMessage]:
    """Yield a journal's messages as they were published, summaries as what they stand for."""
    held: list[tuple[float, int, AnyMessage]] = []
    numbers = itertools.count()  # of equal times the first one first
    newest = -math.inf
    for message in messages:
        if message.published_at < newest - LATE_S:  # the clock was set back
            yield from _all(held)
            newest = -math.inf
        newest = max(newest, message.published_at)
        for each in unrolled(message):
            heapq.heappush(held, (each.published_at, next(numbers), each))
        while held and (held[0][0] < newest - LATE_S or len(held) > MOST):
            yield heapq.heappop(held)[2]
    yield from _all(held)


def _all(held: list[tuple[float, int, AnyMessage]]) -> Iterator[AnyMessage]:
    while held:
        yield heapq.heappop(held)[2]


def problems(rules: Rules, journal: Path) -> Iterator[str]:
    """Yield what `serve` would refuse, or say, of actions and labels, and what is not known."""
    for name, action in rules.actions.items():
        if name in rules.unset:
            yield f"[action.{name}]: the variable {rules.unset[name]} is not set: not checked"
            continue
        try:
            actions.make(name, action)
        except UsageError as error:
            yield str(error)
        except ModuleNotFoundError as error:
            yield f"[action.{name}]: it needs the package {error.name}: not checked"
    for rule in rules.rules:
        if why := history.why_nothing(journal, Wanted(labels=rule.labels)):
            yield f"rule '{rule.name}': {why}"
