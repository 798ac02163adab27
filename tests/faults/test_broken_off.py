"""Sound that breaks off while something sounds: its events end then, not when it comes back."""

import signal

import numpy as np
import pytest

from streamtwl.audio import demo
from streamtwl.messages import AnyMessage, Event, Status


@pytest.fixture(scope="module")
def siren() -> np.ndarray:
    """2.4 s of a siren, 16 kHz, s16le."""
    [sound] = [sound for sound in demo.TIMELINE if sound.label == "Siren"]
    samples = demo.scene()[int(sound.start_s * 16_000) : int(sound.end_s * 16_000)]
    return (samples * 32_767).astype("<i2")


def sounding(messages: list[AnyMessage]) -> dict[str, Event]:
    """The newest word on each event."""
    return {m.id: m for m in messages if isinstance(m, Event)}


def is_open(listening) -> bool:
    return any(event.end is None for event in sounding(listening.messages).values())


def check(listening, broke_off: int) -> None:
    """By the end all is over; nothing lies over the place where the sound broke off."""
    events = sounding(listening.messages).values()
    assert all(event.end is not None for event in events)
    for event in events:
        assert event.void or event.end <= broke_off or event.start >= broke_off
    assert any(not event.void and event.end == broke_off for event in events)
    assert any(not event.void and event.start == broke_off for event in events)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("reasoner", ["reader", "evidence"])
def test_a_pipe_that_stalls_ends_its_events(reasoner, siren, listen):
    listening = listen("--stdin", "--labels", "everyday", "--reasoner", reasoner)
    listening.feed(siren)
    listening.until(lambda _: is_open(listening))
    listening.until(lambda _: not is_open(listening))  # though nothing more comes
    status = listening.until(lambda m: isinstance(m, Status) and m.state != "listening")
    assert (status.state, status.position) == ("stalled", len(siren))
    listening.feed(siren)
    assert listening.end() == 0
    check(listening, len(siren))


@pytest.mark.timeout(120)
def test_a_listener_that_was_stopped_ends_the_events_of_its_pipe(siren, listen):
    listening = listen("--stdin", "--labels", "everyday")
    listening.feed(siren)
    listening.until(lambda _: is_open(listening))
    listening.until(lambda m: isinstance(m, Status) and m.position >= len(siren) - 7680)
    listening.process.send_signal(signal.SIGSTOP)
    while listening.hear(6.0) is not None:  # silent for longer than a pipe may be
        pass
    listening.feed(siren[:24_000])  # is there when it goes on; a pipe holds 64 kB
    listening.process.send_signal(signal.SIGCONT)
    assert listening.end() == 0
    check(listening, len(siren))
