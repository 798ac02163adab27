"""The built-in demo: twenty seconds of synthesised sounds, made here with numpy, no recording.

Every sound is a short recipe of sines, noise and decays. Its numbers, and its place in the scene,
were searched until YAMNet named the sound correctly, so the scene shows that the pipeline works; it
does not show how well real sound is named.
"""

import wave
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

import numpy as np

from streamtwl.stages import SAMPLE_RATE

SCENE_S = 20.0
SEED = 20
FADE_IN_S = 0.02  # against a click
FADE_OUT_S = 0.1  # a sound that breaks off is recognised as another one
ROOM_TONE_DBFS = -60.0  # RMS

# (frequency over the strike note, amplitude): a bell's hum, prime, tierce, quint, nominal, ...
BELL_PARTIALS = (
    *((0.5, 0.5), (1.0, 0.8), (1.2, 0.9), (1.5, 0.5), (2.0, 1.0), (2.5, 0.5), (2.67, 0.5)),
    *((3.0, 0.7), (4.1, 0.43), (5.4, 0.43), (6.8, 0.43)),
)
DOOR_MODES = ((1.0, 1.0), (1.7, 0.8), (2.6, 0.6), (3.9, 0.5), (5.3, 0.4), (7.7, 0.3))
TUNE = (60, 64, 67, 72, 71, 67, 64, 62, 60)  # MIDI notes, C major
CHORDS = {0: (48, 43), 4: (43, 47), 8: (48, 36)}  # under the tune's notes, by index


@dataclass(frozen=True, slots=True)
class DemoSound:
    """One sound of the scene: the AudioSet display name it should get, and when it sounds."""

    label: str
    start_s: float
    end_s: float


TIMELINE: tuple[DemoSound, ...] = (
    DemoSound("Bird", 0.5, 2.9),
    DemoSound("Knock", 3.8, 6.0),
    DemoSound("Music", 6.8, 9.2),
    DemoSound("Bell", 9.9, 12.4),
    DemoSound("Siren", 13.1, 15.5),
    DemoSound("Rain", 16.4, 19.4),
)


def scene() -> np.ndarray:
    """Return the demo scene, float32[320000] in [-1, 1], 16 kHz mono; always the same samples."""
    mix = _room_tone(SCENE_S)
    for sound, (synthesise, peak_dbfs) in zip(TIMELINE, RECIPES, strict=True):
        samples = _faded(synthesise(sound.end_s - sound.start_s, np.random.default_rng(SEED)))
        _add(mix, sound.start_s, samples * (_amplitude(peak_dbfs) / np.abs(samples).max()))
    return mix.astype(np.float32)


def wav() -> BinaryIO:
    """Return the scene as an open WAV file, in memory."""
    file = BytesIO()
    with wave.open(file, "wb") as written:
        written.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        written.writeframes(np.round(scene() * 32767).astype("<i2").tobytes())
    file.seek(0)
    return file


def _birdsong(duration_s: float, rng: np.random.Generator) -> np.ndarray:
    """A songbird: short whistles, each gliding somewhere else with a fast vibrato, in the open."""
    song = np.zeros(_samples(duration_s))
    for start_s in np.arange(0.05, duration_s - 0.15, 0.22):
        length_s = rng.uniform(0.08, 0.14)
        t = _time(length_s)
        glide = rng.uniform(2500, 4000) + rng.uniform(-1500, 1500) * t / length_s
        whistle = np.sin(_phase(glide + 200 * np.sin(2 * np.pi * 40 * t)))
        _add(song, start_s, whistle * np.sin(np.pi * t / length_s) ** 0.7)
    return _reverberant(song, 0.5, 0.3, rng)


def _knocking(duration_s: float, rng: np.random.Generator) -> np.ndarray:
    """Knuckles on a wooden door: the panel's decaying modes under a dull burst, four and four."""
    t = _time(0.3)
    thud = _noise(len(t), lambda f: 1 / (1 + (f / 2145) ** 4), rng) * np.exp(-t / 0.0206)
    knock = 3 * thud / np.abs(thud).max()
    for ratio, amplitude in DOOR_MODES:
        mode = np.sin(2 * np.pi * 124 * ratio * t + ratio)
        knock += amplitude * mode * np.exp(-t * ratio**0.75 / 0.035)
    door = np.zeros(_samples(duration_s))
    for group_s in (0.05, 1.2):
        for start_s in group_s + 0.17 * np.arange(4):
            _add(door, start_s, rng.uniform(0.8, 1.0) * knock)
    return _reverberant(door, 0.2, 0.2, rng)


def _piano(duration_s: float, rng: np.random.Generator) -> np.ndarray:
    """A piano tune: stretched harmonics of stiff strings, the higher the sooner gone."""
    music = np.zeros(_samples(duration_s))
    t = _time(1.5)
    k = np.arange(1, 14)[:, None]  # harmonics
    for index, melody_note in enumerate(TUNE):
        for note in (melody_note, *CHORDS.get(index, ())):
            f = 440 * 2 ** ((note - 69) / 12) * k * np.sqrt(1 + 4e-4 * k**2)
            decay = np.exp(-t * (1.5 + 0.7 * k)) / k**1.1 * (f < 7000)
            struck = (np.sin(2 * np.pi * f * t) * decay).sum(0) * (1 - np.exp(-t / 0.002))
            _add(music, 0.25 * index, struck)
    return _reverberant(music, 0.5, 0.3, rng)


def _church_bell(duration_s: float, rng: np.random.Generator) -> np.ndarray:
    """A bell: inharmonic partials in pairs that beat, the low ones ringing on; three strokes."""
    t = _time(duration_s)
    ring = np.zeros_like(t)
    for detuning in (1.0, 1.002):
        for ratio, amplitude in BELL_PARTIALS:
            partial = np.sin(2 * np.pi * 774 * ratio * detuning * t + ratio)
            ring += amplitude * partial * np.exp(-t * ratio)
    ring *= 1 - np.exp(-t / 0.0007)
    tower = np.zeros_like(t)
    for start_s in (0.02, 0.77, 1.52):
        _add(tower, start_s, ring)
    return _reverberant(tower, 0.8, 1.0, rng)


def _siren(duration_s: float, rng: np.random.Generator) -> np.ndarray:
    """A wailing siren: seven harmonics, from 600 Hz up to 1500 and back, in a street."""
    sweep = 0.5 - 0.5 * np.cos(2 * np.pi * 0.42 * _time(duration_s))
    phase = _phase(600 * 2.5**sweep)
    wail = np.stack([np.sin(k * phase) / k for k in range(1, 8)]).sum(0)
    return _reverberant(wail, 0.8, 0.3, rng)


def _rain(duration_s: float, rng: np.random.Generator) -> np.ndarray:
    """Rain: 100 drops a second, each a ping dying within milliseconds, over a bright hiss."""
    shower = 0.21 * _noise(_samples(duration_s), lambda f: f / (f + 1000), rng)
    t = _time(0.0125)
    for start_s in rng.uniform(0, duration_s, int(100 * duration_s)):
        ping = np.sin(2 * np.pi * rng.uniform(1500, 6000) * t)
        _add(shower, start_s, rng.exponential(0.5) * ping * np.exp(-t / rng.uniform(0.0005, 0.002)))
    return np.tanh(shower / 1.5)  # no drop far louder than the rest


Recipe = Callable[[float, np.random.Generator], np.ndarray]
RECIPES: tuple[tuple[Recipe, float], ...] = (  # and peaks in dBFS, in the order of TIMELINE
    (_birdsong, -12.0),
    (_knocking, -6.0),
    (_piano, -9.0),
    (_church_bell, -9.0),
    (_siren, -12.0),
    (_rain, -6.0),
)


def _room_tone(duration_s: float) -> np.ndarray:
    """A quiet room: noise that falls off above 400 Hz."""
    soft = _noise(_samples(duration_s), lambda f: 1 / (1 + f / 400), np.random.default_rng(SEED))
    return soft * _amplitude(ROOM_TONE_DBFS)


def _noise(
    samples: int, gain: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """Return float64[samples] of noise with RMS 1; `gain` maps frequency in Hz to amplitude."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    shaped = np.fft.irfft(spectrum * gain(np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)), samples)
    return shaped / np.sqrt(np.mean(shaped**2))


def _reverberant(
    dry: np.ndarray, decay_s: float, wet: float, rng: np.random.Generator
) -> np.ndarray:
    """Add the tail of a room: convolution with noise that loses 60 dB in `decay_s`."""
    t = _time(decay_s)
    tail = rng.standard_normal(len(t)) * 10 ** (-3 * t / decay_s)
    size = len(dry) + len(tail)
    echo = np.fft.irfft(np.fft.rfft(dry, size) * np.fft.rfft(tail, size), size)[: len(dry)]
    return dry + wet * echo / np.sqrt(np.sum(tail**2))


def _faded(samples: np.ndarray) -> np.ndarray:
    t = _time(len(samples) / SAMPLE_RATE)
    return samples * np.minimum(1, np.minimum(t / FADE_IN_S, t[::-1] / FADE_OUT_S))


def _add(mix: np.ndarray, start_s: float, samples: np.ndarray) -> None:
    """Add `samples` to `mix` from `start_s` on, as far as `mix` goes."""
    start = _samples(start_s)
    room = mix[start : start + len(samples)]
    room += samples[: len(room)]


def _phase(frequency: np.ndarray) -> np.ndarray:
    """Return the phase in radians of a tone with this frequency in Hz at each sample."""
    return 2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE


def _time(duration_s: float) -> np.ndarray:
    return np.arange(_samples(duration_s)) / SAMPLE_RATE


def _samples(duration_s: float) -> int:
    return round(duration_s * SAMPLE_RATE)


def _amplitude(level_dbfs: float) -> float:
    return 10 ** (level_dbfs / 20)
