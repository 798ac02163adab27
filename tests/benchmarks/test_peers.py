"""What `benchmarks/peers.py` counts, and that its peers get the same windows."""

import wave

import numpy as np
import peer
import peer_tables
import peers
import pytest

from streamtwl.features import log_mel
from streamtwl.features.spectrum import Spectrum


def test_windows_are_cut_a_hop_apart_to_the_end_of_the_sound():
    samples = np.arange(1, 20_001, dtype=np.float32)
    windows = peer.cut(samples, 7680)
    assert windows.shape == (3, peer.WINDOW)
    assert [window[0] for window in windows] == [1, 7681, 15361]
    assert windows[2, 20_000 - 15_360 :].max() == 0  # beyond the end
    assert peer.cut(samples[:100], 7680).shape == (1, peer.WINDOW)


def test_a_recording_is_read_as_it_was_written(tmp_path):
    samples = np.sin(np.arange(1000, dtype=np.float32)) / 2
    file = peers.write(tmp_path / "a.wav", samples)
    with wave.open(str(file)) as recording:
        assert recording.getframerate() == peer.RATE
    assert peer.read(str(file)) == pytest.approx(samples, abs=1e-4)


def test_the_front_end_beside_onnx_runtime_is_that_of_yamnet(monkeypatch):
    given = []

    class Session:
        def __init__(self, *_arguments, **_options) -> None: ...

        def run(self, _outputs, feeds):
            given.append(feeds["log_mel"])
            return [np.zeros((1, 521), np.float32)]

    monkeypatch.setattr("onnxruntime.InferenceSession", Session)
    samples = np.random.default_rng(1).normal(0, 0.1, 40_000).astype(np.float32)
    scores = peer.OnnxRuntime(0.48, "", []).scores(samples)
    expected = log_mel.yamnet(Spectrum().push(samples))
    assert len(scores) == len(given) == len(peer.cut(samples, 7680))
    assert given[0][0] == pytest.approx(expected[:96], abs=1e-3)
    assert given[2][0] == pytest.approx(expected[96:192], abs=1e-3)


def test_ratios_are_of_the_same_round_and_labels_are_paired():
    def cost(*ms):
        return {"ms_a_second": [*ms], "windows_a_second": 9.0, "peak_mb": 2.0, "own_mb": 1.0}

    about = {"mediapipe": "M", "light": "L"}
    started = {"import_s": [0.5], "load_s": [0.5], "first_s": [0.5], "first_cpu_s": [0.5]}
    found = {
        "about": about,
        "cost": {"0.96": {"mediapipe": cost(2, 4, 8), "light": cost(1, 2, 8)}},
        "start": dict.fromkeys(about, started),
        "labels": {
            "mediapipe": {"right": {"s": [True, False]}, "sources": ["a", "b"]},
            "light": {"right": {"s": [True, True]}, "sources": ["a", "b"]},
        },
    }
    table = peer_tables.markdown(found)
    assert "| L | 2.00 (1.00 to 8.00) | 0.50 (0.50 to 1.00) | 9 | 2, 1 |" in table
    assert "| M | 50 | 50.0 (0 to 100) | +50.0 (+0.0 to +100.0) |" in table
    assert "| L | 100 | 100.0 (100 to 100) |  |" in table
