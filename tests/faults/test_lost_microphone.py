"""A microphone that is lost and comes back while a second source goes on."""

import itertools
import signal

import numpy as np
import pytest

from streamtwl.audio import demo
from streamtwl.messages import Event, Label, Status
from tests.conftest import PATIENCE_S

HOP = 7680  # samples
SETTLED = 7  # labels: 3.8 s after opening, ALSA's ages are to be believed
AWAY = 4  # labels of the other source


@pytest.mark.parametrize("how", ["the server ended", "the device unloaded"])
def test_it_comes_back_and_the_other_source_has_no_gap(how, virtual_mic, listen, wav, figure):
    other = wav("other.wav", np.zeros(16_000 * 120))
    siren = wav("siren.wav", np.tile(demo.scene()[209_600:248_000], 40))  # 2.4 s
    listening = listen(
        *("--device", "default", "--file", other, "--labels", "everyday"), env=virtual_mic.env
    )
    lose, restore = {
        "the server ended": (virtual_mic.unplug, virtual_mic.plug_in),
        "the device unloaded": (virtual_mic.unload, virtual_mic.load),
    }[how]

    def labels(source: str) -> list[Label]:
        return [m for m in listening.messages if isinstance(m, Label) and m.source == source]

    def states(source: str) -> list[str]:
        told = [m for m in listening.messages if isinstance(m, Status) and m.source == source]
        return [state for state, _ in itertools.groupby(m.state for m in told)]

    def more(source: str, count: int) -> None:
        enough = len(labels(source)) + count
        listening.until(lambda _: len(labels(source)) >= enough)

    def events() -> list[Event]:
        told = {m.id: m for m in listening.messages if isinstance(m, Event) and m.source == "mic"}
        return list(told.values())

    more("mic", SETTLED)
    player = virtual_mic.play(siren)
    listening.until(lambda _: any(event.end is None for event in events()))
    lose()
    listening.until(lambda _: states("mic")[-1] == "lost")
    listening.until(lambda _: all(event.end is not None for event in events()))
    assert states("mic")[-1] == "lost"
    listening.until(lambda m: isinstance(m, Status) and m.source == "mic")
    broke_off = listening.messages[-1].position
    assert max(event.end for event in events()) == broke_off
    known = {event.id for event in events()}
    player.kill()
    player.wait()
    more("other", AWAY)
    restore()
    listening.until(lambda _: states("mic")[-1] == "listening")
    more("mic", SETTLED)
    listening.process.send_signal(signal.SIGINT)
    listening.until(lambda _: states("mic")[-1] == states("other")[-1] == "ended")
    assert listening.process.wait(PATIENCE_S) == 0

    assert len({message.session for message in listening.messages}) == 1
    after = [event for event in events() if event.id not in known]
    assert all(event.start > broke_off for event in after)
    assert all(event.end <= broke_off for event in events() if event.id in known)

    went_on = labels("other")
    assert [label.seq for label in went_on] == list(range(went_on[0].seq, went_on[-1].seq + 1))
    assert set(np.diff([label.position for label in went_on[:-1]])) == {HOP}  # the end cuts a hop
    assert states("other")[-2:] == ["listening", "ended"]
    assert "lost" not in states("other")
    assert [s for s in states("mic") if s != "opening"] == [
        "listening",
        "lost",
        "listening",
        "ended",
    ]

    mic = labels("mic")
    jumps = [b.position - a.position for a, b in itertools.pairwise(mic[:-1])]
    gap = max(range(len(jumps)), key=jumps.__getitem__)
    assert jumps.count(HOP) == len(jumps) - 1
    by_clock = mic[-2].captured_at - mic[gap].captured_at
    by_position = (mic[-2].position - mic[gap].position) / 16_000
    assert by_position == pytest.approx(by_clock, abs=0.3)  # the timeline went on
    status = [m for m in listening.messages if isinstance(m, Status) and m.source == "mic"][-1]
    assert status.reopened >= 1
    assert status.dropped_samples > 16_000
    assert status.dropped_windows >= 2
    figure(
        f"microphone lost ({how})",
        f"for {status.dropped_samples / 16_000:.1f} s, {status.dropped_windows} windows; the other "
        f"source's {len(went_on)} labels without a gap",
    )
