"""A machine that cannot keep up: the oldest windows are dropped whole and counted; it recovers."""

import itertools
import time

import msgspec
import psutil
import pytest

from streamtwl.messages import Status
from streamtwl.sinks.lines import Plain

HELD_UP_S = 25.0  # beyond what capture's ring (10 s) and its pipe (1 MB) hold


def test_windows_that_nobody_had_time_for_are_dropped_and_counted(
    virtual_mic, run, record_property
):
    listening = run(
        *("listen", "--device", "default", "--json", "--bind", "tcp://127.0.0.1:*"),
        env=virtual_mic.env,
    )

    def status() -> dict:
        return listening.messages("status")[-1]

    listening.wait_for(lambda ms: sum(m["kind"] == "label" for m in ms) > 2)
    process = psutil.Process(listening.process.pid)
    process.suspend()  # the capture process goes on, as the sound does
    time.sleep(HELD_UP_S)
    before = len(listening.messages("label"))
    process.resume()
    listening.wait_for(lambda ms: [m for m in ms if m["kind"] == "status"][-1]["dropped_windows"])
    lost = status()
    listening.wait_for(lambda ms: sum(m["kind"] == "label" for m in ms) > before + 50)
    time.sleep(3)
    after = status()
    assert listening.end() == 0, listening.stderr()

    labels = listening.messages("label")[:-1]  # the last one speaks up to the end
    gaps = [
        later["position"] - earlier["position"] for earlier, later in itertools.pairwise(labels)
    ]
    [gap] = [gap for gap in gaps if gap != 7680]  # one, and whole windows at both sides of it
    assert 0 < lost["dropped_samples"] < gap
    assert lost["dropped_windows"] == pytest.approx(gap / 7680 - 1, abs=1)
    assert after["dropped_samples"] == lost["dropped_samples"]  # it has recovered
    assert after["state"] in ("listening", "silent")  # nobody plays anything
    assert after["hops"] > lost["hops"]
    said = Plain().line(msgspec.convert(lost, Status))
    assert f"{lost['dropped_windows']} windows lost" in said
    record_property("overload", f"held up {HELD_UP_S} s: {lost['dropped_windows']} windows dropped")
