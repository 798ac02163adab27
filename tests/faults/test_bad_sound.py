"""Sound that is none: NaN and infinity in bursts, and a pipe that falls silent."""

import numpy as np

from streamtwl.audio import demo
from streamtwl.messages import Label, Status


def test_bursts_of_nan_are_counted_and_labels_go_on(listen, figure):
    sound = demo.scene().astype("<f4")
    rng = np.random.default_rng(3)
    bad = 0
    for start in range(0, len(sound), 16_000):
        burst = slice(start, start + int(rng.integers(1, 4000)))
        sound[burst] = rng.choice([np.nan, np.inf, -np.inf, 1e30])
        bad += len(sound[burst])
    listening = listen("--stdin", "--format", "f32le", "--labels", "everyday")
    listening.process.stdin.write(sound.tobytes())
    assert listening.end() == 0
    labels = [message for message in listening.messages if isinstance(message, Label)]
    windows = 1 + int(np.ceil((len(sound) - 15_600) / 7680))
    assert len({label.position for label in labels}) == windows
    assert all(0 <= label.confidence <= 1 for label in labels)
    assert {label.label for label in labels} - {None}
    last = listening.messages[-1]
    assert (last.bad_samples, last.dropped_windows) == (bad, 0)
    figure("NaN bursts", f"{bad} bad samples of {len(sound)}, {len(labels)} labels of {windows}")


def test_a_pipe_that_falls_silent_is_told_and_goes_on(listen):
    listening = listen("--stdin")
    listening.feed(np.zeros(16_000, "<i2"))
    listening.until(lambda message: isinstance(message, Label))
    stalled = listening.until(
        lambda message: isinstance(message, Status) and message.state != "listening"
    )
    assert stalled.state == "stalled"
    assert "pipe" in stalled.error
    listening.feed(np.zeros(16_000, "<i2"))
    status = listening.until(
        lambda message: isinstance(message, Status) and message.state != "stalled"
    )
    assert (status.state, status.error) == ("listening", None)
    assert listening.end() == 0
