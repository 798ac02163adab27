"""Hours of sound through the whole graph: memory, descriptors and threads stay as they are."""

import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile

from streamtwl.messages import Status
from tests.conftest import PATIENCE_S

from .conftest import looped

RATE = 16_000


@pytest.mark.parametrize(
    ("hours", "settling_s", "limit_mb"),
    [
        (0.3, 60, 12.0),  # of which 8 are repeats that are held, up to 2 MB of payloads a topic
        pytest.param(2.0, 3600, 8.0, marks=pytest.mark.soak),  # by then no more of those are held
    ],
    ids=["short", "long"],
)
@pytest.mark.timeout(3600)
def test_nothing_grows(hours, settling_s, limit_mb, clips, listen, tmp_path: Path, figure):
    sound = tmp_path / "hours.wav"
    with soundfile.SoundFile(sound, "w", RATE, 1) as file:
        for samples in looped(clips, 3600 * hours):
            file.write(samples)
    began = time.monotonic()
    listening = listen("--file", sound, "--fast", "--labels", "everyday")
    process = psutil.Process(listening.process.pid)
    rows = []  # seconds of sound, resident MB, descriptors, threads
    ended = False
    while not ended:
        message = listening.until(lambda message: isinstance(message, Status))
        ended = message.state == "ended"
        if not ended:
            resident_mb = process.memory_info().rss / 1e6
            heard_s = message.position / RATE
            rows.append((heard_s, resident_mb, process.num_fds(), process.num_threads()))
        listening.messages[:-1] = []
    took_s = time.monotonic() - began
    assert listening.process.wait(PATIENCE_S) == 0
    assert message.position == pytest.approx(3600 * hours * RATE, abs=RATE)
    assert (message.dropped_messages, message.stalled_subscribers, message.journal) == (0, 0, None)
    heard_s, resident_mb, descriptors, threads = np.array(
        [row for row in rows if row[0] > settling_s]
    ).T
    half = heard_s > heard_s[-1] / 2
    slope_mb_per_h = 3600 * np.polyfit(heard_s, resident_mb, 1)[0]
    later_mb_per_h = 3600 * np.polyfit(heard_s[half], resident_mb[half], 1)[0]
    figure(
        f"{hours:g} h of sound in {took_s:.0f} s",
        f"resident {resident_mb[0]:.1f} MB after {settling_s} s, {resident_mb[-1]:.1f} MB at the "
        f"end, slope {slope_mb_per_h:+.2f} MB/h, in the second half {later_mb_per_h:+.2f}; "
        f"{spread(descriptors)} descriptors, "
        f"{spread(threads)} threads; {message.journal_errors} not in the journal",
    )
    assert resident_mb.max() - resident_mb[0] < limit_mb
    assert len(set(descriptors)) == len(set(threads)) == 1


def spread(numbers: np.ndarray) -> str:
    return f"{numbers.min():.0f} to {numbers.max():.0f}"
