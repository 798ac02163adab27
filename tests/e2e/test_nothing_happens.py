"""Half an hour in which nothing happens: no event may be reported that is not there."""

import numpy as np
import pytest
import soundfile

from tests.conftest import PATIENCE_S

RATE = 16_000
MINUTES = 30
ROOM_DBFS, FAN_DBFS, FAN_HUM_DBFS, TRAFFIC_DBFS = -62.0, -48.0, -58.0, -46.0
# What a fan, or a road far off, may rightly be called.
THERE = {"Mechanical fan", "Air conditioning", "Traffic noise, roadway noise", "Car passing by"}


def noise(seconds: float, corner_hz: float, order: int, rng: np.random.Generator) -> np.ndarray:
    """White noise through a low-pass of that order, RMS 1."""
    n = round(seconds * RATE)
    spectrum = np.fft.rfft(rng.standard_normal(n))
    spectrum /= (1 + (np.fft.rfftfreq(n, 1 / RATE) / corner_hz) ** 2) ** (order / 2)
    samples = np.fft.irfft(spectrum, n)
    return samples / samples.std()


def gain(dbfs: float) -> float:
    return 10 ** (dbfs / 20)


def room_tone(seconds: float, rng: np.random.Generator) -> np.ndarray:
    return gain(ROOM_DBFS) * noise(seconds, 200, 1, rng)


def fan(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Broadband air, pulsing with the blades, over a motor's hum."""
    t = np.arange(round(seconds * RATE)) / RATE
    hum = sum(np.sin(2 * np.pi * f * t) / k for k, f in enumerate((100, 200, 300, 47), 1))
    blades = 1 + 0.15 * np.sin(2 * np.pi * 23 * t)
    return gain(FAN_DBFS) * blades * noise(seconds, 900, 2, rng) + gain(FAN_HUM_DBFS) * hum


def distant_traffic(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """A low rumble that swells as each car passes, about every 11 s."""
    t = np.arange(round(seconds * RATE)) / RATE
    swell = np.full(len(t), 0.3)
    for passing in np.arange(5, seconds, 11) + rng.uniform(-4, 4):
        swell += rng.uniform(0.3, 1) * np.exp(-(((t - passing) / rng.uniform(1.5, 4)) ** 2))
    return gain(TRAFFIC_DBFS) * swell * noise(seconds, 250, 2, rng)


def quiet_half_hour() -> np.ndarray:
    """By turns a minute of the room alone, of the fan, of the traffic, and of both."""
    rng = np.random.default_rng(1130)
    minutes = []
    for minute in range(MINUTES):
        samples = room_tone(60, rng)
        if minute % 4 in (1, 3):
            samples += fan(60, rng)
        if minute % 4 in (2, 3):
            samples += distant_traffic(60, rng)
        minutes.append(samples)
    return np.concatenate(minutes)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    path = tmp_path_factory.mktemp("quiet") / "quiet.wav"
    soundfile.write(path, quiet_half_hour(), RATE, subtype="FLOAT")
    return str(path)


@pytest.mark.parametrize("labels", ["all", "everyday"])
def test_no_event_is_reported_that_is_not_there(quiet, labels, run):
    listening = run(
        *("listen", "--file", quiet, "--fast", "--json", "--labels", labels),
        *("--bind", "tcp://127.0.0.1:*"),
    )
    assert listening.process.wait(PATIENCE_S) == 0, listening.stderr()
    assert len(listening.messages("label")) == 3749  # (1800 - 0.975) / 0.48, and the first
    events = [m for m in listening.messages("event") if m["label"] not in THERE]
    assert not events, [(m["label"], m["start"] / RATE, m["peak"]) for m in events]
