"""Sounds that several tests of the paper's experiment use."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

RATE = 16_000


@pytest.fixture(scope="session")
def plain_sounds(tmp_path_factory) -> Path:
    """Two classes that YAMNet tells apart, hiss and whistle: five folds of two clips each."""
    folder = tmp_path_factory.mktemp("plain") / "sounds"
    rng = np.random.default_rng(3)
    t = np.arange(2 * RATE) / RATE
    for n in range(10):
        hiss = 0.1 * rng.standard_normal(len(t))
        whistle = 0.3 * np.sin(2 * np.pi * (900 + 60 * n) * t * (1 + 0.2 * t))
        for label, samples in (("hiss", hiss), ("whistle", whistle)):
            (folder / label).mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / label / f"{n}.wav", samples, RATE)
    return folder
