"""When a message says that its sound was captured."""

import pytest

from streamtwl.pipeline import Outcome
from streamtwl.report import Reporter
from streamtwl.sounding import Sounding

CAPTURED_AT = 1_700_000_000.0


@pytest.mark.parametrize("captured_at", [CAPTURED_AT, None])
def test_ends_without_a_window_are_dated_by_the_newest_one(captured_at):
    """As those of events whose taught sound was removed; a file's have no date at all."""
    reporter = Reporter(["mic", "door"], ["Dog"], ["Dog"], "reader", journalled=True)
    reporter.outcome(Outcome(1, 32_000, captured_at, None, None, []), None)
    ended = Sounding(1, "kettle", 16_000, 24_000, 0.9, 0.9)
    [message] = reporter.outcome(Outcome(1, 24_000, None, None, None, [("offset", ended)]), None)
    assert message.captured_at == (captured_at and captured_at - 0.5)
