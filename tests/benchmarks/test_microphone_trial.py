"""The microphone trial's own parts: where a scene began, and the time base of its events."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from streamtwl.messages import Event, Patch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
COMMON = {"source": "mic", "session": "s", "captured_at": None, "published_at": 0.0, "seq": 3}
RATE = 16_000
WINDOW, HOP = 15_600, 7680


@pytest.fixture(scope="module")
def microphone_trial():
    pytest.importorskip("torch")  # live_trial.py trains
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(BENCHMARKS))
        spec = importlib.util.spec_from_file_location(
            "microphone_trial", BENCHMARKS / "microphone_trial.py"
        )
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("began", [48_001, 53_910, 70_000])
def test_a_scenes_beginning_is_found_to_a_sample(microphone_trial, began):
    rng = np.random.default_rng(3)
    loudness = np.repeat(10 ** rng.uniform(-3, -1, 40), RATE // 2)
    sound = (loudness * rng.standard_normal(len(loudness))).astype(np.float32)
    silence = np.zeros(began, np.float32)
    recorded = np.concatenate((silence, sound, silence)).astype(np.float64)
    patches = [
        Patch(
            **COMMON,
            position=end,
            top=[],
            level_dbfs=max(-120.0, 10 * np.log10(np.mean(recorded[end - HOP : end] ** 2) + 1e-12)),
        )
        for end in range(WINDOW, len(recorded), HOP)
    ]
    assert microphone_trial.beginning(patches, sound) == began


def test_what_was_told_of_a_scene_is_in_its_own_time(microphone_trial):
    def event(position: int, start: int, end: int | None) -> Event:
        about = {"id": "e", "phase": "onset", "label": "dog", "peak": 0.5, "mean": 0.4}
        return Event(**COMMON, **about, position=position, start=start, end=end)

    messages = [
        event(900, 800, None),  # before it
        event(1200, 900, None),
        event(1500, 1100, 1400),
        event(1000 + 2 * RATE + 1, 1100, 1400),  # after it
    ]
    kept = microphone_trial.shifted(messages, began=1000, duration_s=2.0)
    assert [(each.position, each.start, each.end) for each in kept] == [
        (200, 0, None),
        (500, 100, 400),
    ]
