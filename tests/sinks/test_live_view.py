"""The live view: what it shows of the thinking."""

import contextlib
import io
import os

import pytest
from msgspec.structs import replace
from rich.console import Console

from streamtwl.messages import Event, Label, Patch, Scored
from streamtwl.sinks.live_view import LiveView
from tests import example_messages as examples


@pytest.fixture
def shown(monkeypatch):
    """Return what is on the screen after these messages."""

    def show(*messages) -> str:
        screen = Console(file=io.StringIO(), width=120, height=40, force_terminal=False)
        monkeypatch.setattr("streamtwl.sinks.live_view.Console", lambda **_: screen)
        view = LiveView("tcp://127.0.0.1:5577")
        with view:
            for message in messages:
                view.take(message)
        return screen.file.getvalue()

    return show


def patch(position: int, **drawn: float) -> Patch:
    return replace(
        examples.patch(0),
        position=position,
        drawn=[Scored(*each) for each in drawn.items()],
    )


def label(name: str, confidence: float, **thought: int) -> Label:
    return replace(examples.label(0, name=name), confidence=confidence, top=[], **thought)


def event(phase: str, end: int | None) -> Event:
    return replace(examples.event(0), phase=phase, start=16_000, end=end, peak=0.75)


def test_the_trace_grows_newest_first(shown):
    screen = shown(
        patch(16_000, Cat=0.75), patch(32_000, Dog=0.5), label("dog", 0.5, traces=1, samples=16)
    )
    lines = [line for line in screen.splitlines() if " %" in line]
    assert ["Dog 50 %" in lines[0], "Cat 75 %" in lines[1]] == [True, True]


def test_the_decision_before_and_after_thinking_on_and_how_much_there_was(shown):
    first = label("cat", 0.41, traces=4, samples=1920)
    then = label("dog", 0.62, refinement=2, traces=12, samples=5760)
    assert "cat 0.41 at once, from 1,920 samples in 4 traces" in shown(patch(32_000), first)
    screen = shown(patch(32_000), first, then)
    assert "cat 0.41 → dog 0.62 after 2 refinements, 5,760 samples in 12 traces" in screen


def test_second_thoughts_on_events_are_told(shown):
    assert "Dog, 1.0 s, peak 0.75, revised" in shown(event("revised", 32_000))
    assert "Dog: retracted" in shown(event("revised", 16_000))
    screen = shown(event("onset", None), event("revised", None))
    assert screen.count("Dog (") == 1  # it replaces what was told


@pytest.mark.parametrize("state", ["lost", "stalled", "silent"])
def test_an_error_is_shown_as_it_is(state, shown):
    status = replace(examples.status(0), state=state, error="HDA [hw:0,0] and [/bold] are gone")
    assert f"{state}: HDA [hw:0,0] and [/bold] are gone" in shown(status)


def test_a_terminal_that_is_gone_is_an_error_and_nothing_to_pass_over(monkeypatch):
    ours, terminal = os.openpty()
    with contextlib.suppress(OSError), open(terminal, "w") as screen:  # its closing writes too
        monkeypatch.setattr("sys.stdout", screen)
        view = LiveView("tcp://127.0.0.1:5577")
        view.__enter__()
        view.show()
        os.close(ours)
        with pytest.raises(OSError, match="Input/output"):
            view.show()
