"""Scenes whose timeline is known: a data set's clips at random moments over a background.

A scene is planned once and made at each SNR: scenes of one number differ only in SNR. A clip is
cut where it is silent (below -70 dBFS) for over 0.5 s; each part is an event of its own. A third of
the events overlap another. The background is 10 to 30 s of one package of the corpus after the
other (see `tools/corpus.sh`), all at one level.

SNR: the RMS of an event over its own length against the RMS of the background over the whole scene.
Events lie up to 3 dB from the SNR that their scene is named for; the timeline has each one's own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
from numpy.random import Generator

from streamtwl.errors import UsageError
from streamtwl.stages import SAMPLE_RATE
from streamtwl.training.datasets import Clip
from streamtwl.training.posteriors import read as read_sound

COLUMNS = ("onset_s", "offset_s", "label", "src_file", "clip", "snr_db")
SILENT_DBFS = -70.0
SILENCE_S = 0.5
SHORTEST_S = 0.1  # of an event: shorter ones are what a codec leaves of a cut
SHORTEST_CROP_S = 0.4
FAINTEST_DB = -40.0  # of a part, against the loudest of its clip
GAP_S = (0.5, 8.0)
OVERLAP = (0.2, 0.8)  # where in an event another one begins
GROUPS = (2, 1, 1, 1, 1)  # events that sound together: two of six overlap
SPREAD_DB = 3.0
LEVEL_DBFS = (-32.0, -20.0)  # RMS of a scene's events
RUN_S = (10.0, 30.0)
CREST = 10.0  # a piece's level is lowered until its peak is at most this times the requested RMS
FADE = round(0.01 * SAMPLE_RATE)
BACKGROUND_DBFS = (-53.0, -18.0)
FLOOR_DBFS = -75.0


@dataclass(frozen=True)
class Part:
    """A stretch of a clip that sounds throughout; positions at 16 kHz."""

    file: Path
    label: str
    src_file: str  # the recording that the clip is from, as ESC-50's table names it
    start: int
    stop: int


@dataclass(frozen=True)
class Event:
    """A part of a clip, placed in a scene."""

    part: Part
    onset: int
    level_db: float  # against the other events

    @property
    def offset(self) -> int:
        """The position at which it ends."""
        return self.onset + self.part.stop - self.part.start


@dataclass(frozen=True)
class Stretch:
    """A piece of the corpus, placed in a background."""

    file: Path
    onset: int
    length: int
    level_db: float  # against the other stretches


@dataclass(frozen=True)
class Plan:
    """Everything about a scene that is drawn at random; `make_scene` makes it at an SNR."""

    length: int
    background: tuple[Stretch, ...]
    events: tuple[Event, ...]
    level_dbfs: float  # RMS of the events


def read_parts(clips: Sequence[Clip]) -> list[Part]:
    """Return what sounds in these clips."""
    return [
        Part(clip.path, clip.label, clip.source, start, stop)
        for clip in clips
        for start, stop in sounding(read(clip.path))
    ]


def sounding(samples: np.ndarray) -> list[tuple[int, int]]:
    """Return (start, stop) of what lies between silences of over 0.5 s in float32[n] at 16 kHz."""
    frame = SAMPLE_RATE // 100
    frames = np.append(samples, np.zeros(-len(samples) % frame)).reshape(-1, frame)
    loud = np.flatnonzero(np.square(frames).mean(axis=1) > 10 ** (SILENT_DBFS / 10))
    if not len(loud):
        return []
    gaps = np.flatnonzero(np.diff(loud) - 1 > SILENCE_S * 100)
    starts = frame * loud[[0, *(gaps + 1)]]
    stops = np.minimum(frame * (loud[[*gaps, -1]] + 1), len(samples))
    parts = list(zip(starts.tolist(), stops.tolist(), strict=True))
    faintest = max(rms(samples[a:b]) for a, b in parts) * 10 ** (FAINTEST_DB / 20)
    shortest = SHORTEST_S * SAMPLE_RATE
    return [(a, b) for a, b in parts if b - a >= shortest and rms(samples[a:b]) >= faintest]


def read_pieces(corpus: Path, split: str = "test") -> list[list[Path]]:
    """Return the pieces of each package on one side of the corpus; raises UsageError."""
    packages = [sorted(folder.glob("*.flac")) for folder in sorted((corpus / split).glob("*"))]
    if not any(packages):
        raise UsageError(f"'{corpus}' has no {split} pieces: tools/corpus.sh {corpus} makes them")
    return [pieces for pieces in packages if pieces]


def cropped(rng: Generator, parts: Sequence[Part]) -> list[Part]:
    """Return the parts, half of them cut to a stretch of themselves, at least 0.4 s.

    A data set's clips are all of one length, sounds are not: a model trained on whole clips learns
    when they end.
    """
    return [_crop(rng, part) if rng.random() < 0.5 else part for part in parts]


def _crop(rng: Generator, part: Part) -> Part:
    whole = part.stop - part.start
    length = round(rng.uniform(min(whole, SHORTEST_CROP_S * SAMPLE_RATE), whole))
    start = part.start + int(rng.integers(0, whole - length + 1))
    return replace(part, start=start, stop=start + length)


def plan_scene(
    rng: Generator, parts: Sequence[Part], packages: list[list[Path]], seconds: float
) -> Plan:
    """Draw a scene: each label as often as any other, no clip twice while others are left."""
    length = round(seconds * SAMPLE_RATE)
    by_label: dict[str, dict[Path, list[Part]]] = {}  # and by clip
    for part in parts:
        by_label.setdefault(part.label, {}).setdefault(part.file, []).append(part)
    clips = {label: dealt(rng, list(files.values())) for label, files in by_label.items()}
    labels = dealt(rng, list(by_label))
    events: list[Event] = []
    end = 0
    for together in dealt(rng, GROUPS):
        onset = end + round(rng.uniform(*GAP_S) * SAMPLE_RATE)
        group: list[Event] = []
        while len(group) < together:
            clip = next(clips[next(labels)])
            part = clip[rng.integers(len(clip))]
            if group and part.label == group[0].part.label and len(by_label) > 1:
                continue
            group.append(Event(part, onset, float(rng.uniform(-SPREAD_DB, SPREAD_DB))))
            onset += round(rng.uniform(*OVERLAP) * (part.stop - part.start))
        end = max(event.offset for event in group)
        if end > length:
            break
        events += group
    level_dbfs = float(rng.uniform(*LEVEL_DBFS))
    return Plan(length, plan_background(rng, packages, length), tuple(events), level_dbfs)


def plan_background(
    rng: Generator, packages: list[list[Path]], length: int, levels_db: tuple[float, float] = (0, 0)
) -> tuple[Stretch, ...]:
    """Draw a background of `length` samples: runs of pieces of one package, each at one level."""
    pieces = dealt(rng, [dealt(rng, package) for package in packages])
    stretches = []
    at = 0
    while at < length:
        package, level_db = next(pieces), float(rng.uniform(*levels_db))
        run_end = min(length, at + round(rng.uniform(*RUN_S) * SAMPLE_RATE))
        while at < run_end:
            file = next(package)
            taken = min(soundfile.info(file).frames, run_end - at + FADE)
            stretches.append(Stretch(file, at, taken, level_db))
            at += taken - FADE  # the next one fades in while this one fades out
    return tuple(stretches)


def make_scene(plan: Plan, snr_db: float) -> tuple[np.ndarray, list[dict]]:
    """Return int16[length] at 16 kHz, and its timeline: a row of COLUMNS for each event."""
    scene = make_background(plan.background, plan.length)
    scene *= 10 ** ((plan.level_dbfs - snr_db) / 20) / max(rms(scene), 1e-12)
    for event in plan.events:
        part = event.part
        samples = faded(read(part.file)[part.start : part.stop])
        gain = 10 ** ((plan.level_dbfs + event.level_db) / 20) / rms(samples)
        scene[event.onset : event.offset] += gain * samples
    timeline = []
    for event in sorted(plan.events, key=lambda event: event.onset):
        times = [f"{position / SAMPLE_RATE:.4f}" for position in (event.onset, event.offset)]
        names = event.part.label, event.part.src_file, event.part.file.name
        row = (*times, *names, f"{snr_db + event.level_db:.2f}")
        timeline.append(dict(zip(COLUMNS, row, strict=True)))
    return pcm_16(scene), timeline


def make_background_scene(rng: Generator, packages: list[list[Path]], seconds: float) -> np.ndarray:
    """Return int16[n] at 16 kHz of the corpus at levels that vary, over a floor of white noise."""
    length = round(seconds * SAMPLE_RATE)
    scene = make_background(plan_background(rng, packages, length, BACKGROUND_DBFS), length)
    scene += 10 ** (FLOOR_DBFS / 20) * rng.standard_normal(length)
    return pcm_16(scene)


def make_background(stretches: Sequence[Stretch], length: int) -> np.ndarray:
    """Return float64[length]: each stretch at its level; 0 dB is an RMS of 1."""
    made = np.zeros(length)
    for stretch in stretches:
        samples = faded(read(stretch.file)[: stretch.length])[: length - stretch.onset]
        loudest = max(rms(samples), np.abs(samples).max() / CREST, 1e-12)
        samples *= 10 ** (stretch.level_db / 20) / loudest
        made[stretch.onset : stretch.onset + len(samples)] += samples
    return made


def faded(samples: np.ndarray) -> np.ndarray:
    """Return float64[n] that begins and ends within 10 ms without a click."""
    ramp = np.minimum(1, (np.arange(len(samples)) + 0.5) / FADE)
    return samples * ramp * ramp[::-1]


def pcm_16(scene: np.ndarray) -> np.ndarray:
    """Return int16[n]; a scene that would clip is scaled down as a whole, which keeps its SNR."""
    peak = max(float(np.abs(scene).max(initial=0)), 1.0)
    return np.rint(scene * (32767 / peak)).astype(np.int16)


def rms(samples: np.ndarray) -> float:
    """Return the root of the mean square."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


@lru_cache(maxsize=256)
def read(file: Path) -> np.ndarray:
    """Return a sound file as float32[n], 16 kHz mono."""
    return read_sound(file)


def dealt(rng: Generator, cards: Sequence) -> Iterator:
    """Yield all cards in random order, then shuffle and deal again, for ever."""
    while True:
        for i in rng.permutation(len(cards)):
            yield cards[i]
