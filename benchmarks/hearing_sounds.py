"""What `hearing.py` plays: sets of clips, what is done to them, and two hours without an alarm."""

import csv
import functools
import io
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soxr
from quick import QUICK

from streamtwl.errors import UsageError
from streamtwl.ontology import categories
from streamtwl.stages import SAMPLE_RATE
from streamtwl.training import datasets
from streamtwl.training.posteriors import read

REPOSITORY = Path(__file__).parents[1]
sys.path.append(str(REPOSITORY / "tools"))
import corpus as noise_maker  # noqa: E402

CLIPS = 3 if QUICK else 10_000  # of a set, at most
NOISE_PIECES = 1 if QUICK else 6  # of 30 s, of each kind
HOURS_PARTS, PART_S = (1, 60) if QUICK else (8, 900)
SILENT_BEDS = (
    "birds",
    "fireplace",
    "rain",
    "summer-night",
    "waves",
)  # none of these chose anything
STRETCH_S, FADE_S = 30, 1
SECOND_SHARE = 0.4  # of the stretches have two sounds at once
LEVELS_DBFS = (-45.0, -20.0)
QUIET_DBFS, STEP_DB = -40.0, 20.0
CAMERA_BIT_RATE = 32_000


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording, and the labels that are right for it."""

    path: Path
    right: frozenset[str]
    source: str  # the recording that it was cut from
    label: str  # its class, in the words of its set


def esc10(data: Path) -> list[Clip]:
    """Return ESC-10's fold 4."""
    names = right_names(data / "esc50_audioset.csv")
    clips = [clip for clip in datasets.load(data / "esc10") if clip.fold == 4]
    return [Clip(clip.path, names[clip.label], clip.source, clip.label) for clip in clips]


def kitchen20(data: Path) -> list[Clip]:
    """Return folds 6 to 9 less what training has a part of, of classes that AudioSet names."""
    names = right_names(Path(__file__).with_name("kitchen20_audioset.csv"))
    clips = datasets.load(data / "kitchen20")
    trained = {clip.source for clip in clips if clip.fold < 6}
    kept = [each for each in clips if each.source not in trained and each.label in names]
    return [Clip(each.path, names[each.label], each.source, each.label) for each in kept]


def home(data: Path) -> list[Clip]:
    """Return the recordings on which nothing may be chosen; each is a source of its own."""
    with (data / "home" / "home.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        Clip(
            data / "home" / "audio" / row["filename"],
            frozenset(row["audioset"].split("|")),
            row["filename"],
            row["audioset"].partition("|")[0],
        )
        for row in rows
    ]


SETS: dict[str, Callable[[Path], list[Clip]]] = {
    "ESC-10, fold 4": esc10,
    "kitchen20, folds 6 to 9": kitchen20,
    "home": home,
}
FOLDERS = {"ESC-10, fold 4": "esc10", "kitchen20, folds 6 to 9": "kitchen20", "home": "home"}


def clips_of(name: str, data: Path) -> list[Clip]:
    """Return a set's clips in the order of their names; with --quick a few."""
    clips = sorted(SETS[name](data), key=lambda clip: clip.path)
    return clips[:: -(-len(clips) // CLIPS)]


def right_names(table: Path) -> dict[str, frozenset[str]]:
    """Return the right labels of each category; raises UsageError for one that AudioSet lacks."""
    with table.open(newline="") as file:
        found = {
            row["category"]: frozenset(row["audioset"].split("|")) for row in csv.DictReader(file)
        }
    names = {category: names for category, names in found.items() if names != {""}}
    if unknown := frozenset().union(*names.values()) - {*categories()}:
        raise UsageError(f"{table}: '{min(unknown)}' is no name of AudioSet's")
    return names


# --- what is done to a clip ---


@functools.cache
def noises(corpus: Path | None) -> dict[str, list[np.ndarray]]:
    """Return 30 s pieces by kind, of the kinds for testing; babble needs the corpus' voices."""
    files = sorted((corpus / "test" / "espeak-ng").glob("*.flac")) if corpus else []
    voices = [np.resize(read(file), STRETCH_S * SAMPLE_RATE) for file in files]
    kinds = [kind for kind in noise_maker.NOISES["test"][0] if voices or kind != "babble"]
    return {
        kind: [
            noise_maker.noise(kind, zlib.crc32(f"{kind}-{i}".encode()), voices)
            for i in range(NOISE_PIECES)
        ]
        for kind in kinds
    }


def noisy(samples: np.ndarray, name: str, snr_db: float, corpus: Path | None) -> np.ndarray:
    """Return a clip with noise that many dB below its RMS; its name draws the kind and piece."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    pieces = [piece for of_kind in noises(corpus).values() for piece in of_kind]
    noise = np.resize(np.roll(pieces[rng.integers(len(pieces))], rng.integers(10**6)), len(samples))
    return samples + noise * (rms(samples) / rms(noise) * 10 ** (-snr_db / 20))


def telephone(samples: np.ndarray) -> np.ndarray:
    """Return what is left of it at a sample rate of 8 kHz."""
    return soxr.resample(soxr.resample(samples, SAMPLE_RATE, 8000), 8000, SAMPLE_RATE)


def camera(samples: np.ndarray) -> np.ndarray:
    """Return it from AAC at 16 kHz and 32 kbit/s; the encoder's delay stays."""
    coded = io.BytesIO()
    with av.open(coded, "w", format="adts") as container:
        stream = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        stream.bit_rate = CAMERA_BIT_RATE
        frame = av.AudioFrame.from_ndarray(samples[None].clip(-1, 1), "fltp", "mono")
        frame.sample_rate = SAMPLE_RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    coded.seek(0)
    with av.open(coded) as container:
        frames = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    return np.concatenate(frames).astype(np.float32)


def quiet(samples: np.ndarray) -> np.ndarray:
    """Return it at -40 dBFS."""
    return at_level(samples, QUIET_DBFS)


def step_up(samples: np.ndarray) -> np.ndarray:
    """Return it with the first half 20 dB below the second."""
    return step_down(samples[::-1])[::-1]


def step_down(samples: np.ndarray) -> np.ndarray:
    """Return it with the second half 20 dB below the first."""
    gain = np.where(np.arange(len(samples)) < len(samples) // 2, 1, 10 ** (-STEP_DB / 20))
    return samples * gain.astype(np.float32)


DISTORTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as recorded": lambda samples: samples,
    "telephone, 8 kHz": telephone,
    "camera, AAC 32 kbit/s": camera,
    "-40 dBFS": quiet,
    "20 dB up in mid-clip": step_up,
    "20 dB down in mid-clip": step_down,
}
SNRS_DB = {"clean": None, "10 dB": 10.0, "0 dB": 0.0}


def in_condition(clip: Clip, condition: str, corpus: Path | None) -> np.ndarray:
    """Return a clip's float32[n] samples at 16 kHz under one of SNRS_DB or DISTORTIONS."""
    samples = read(clip.path)
    if condition in DISTORTIONS:
        changed = DISTORTIONS[condition](samples)
    else:
        snr_db = SNRS_DB[condition]
        changed = samples if snr_db is None else noisy(samples, clip.path.name, snr_db, corpus)
    return np.ascontiguousarray(changed, np.float32)


# --- hours in which nothing that is watched for sounds ---


def part_of_hours(part: int, data: Path, corpus: Path | None) -> np.ndarray:
    """Return a quarter of an hour, float32[n] at 16 kHz: beds, noises and synthetic voices.

    Stretches of 30 s with fades, each of one sound or two, each at a level drawn from -45 to -20
    dBFS.
    """
    rng = np.random.default_rng([7, part])
    groups = list(groups_of_hours(data, corpus).values())
    stretches = []
    for _ in range(PART_S // STRETCH_S):
        stretch = np.zeros(STRETCH_S * SAMPLE_RATE, np.float32)
        for _ in range(1 + (rng.random() < SECOND_SHARE)):
            group = groups[rng.choice(len(groups), p=_shares(len(groups)))]
            sound = group[rng.integers(len(group))]
            looped = np.resize(np.roll(sound, rng.integers(len(sound))), len(stretch))
            stretch += at_level(looped, rng.uniform(*LEVELS_DBFS))
        ramp = np.linspace(0, 1, FADE_S * SAMPLE_RATE, dtype=np.float32)
        stretch[: len(ramp)] *= ramp
        stretch[-len(ramp) :] *= ramp[::-1]
        stretches.append(stretch.clip(-1, 1))
    return np.concatenate(stretches)


@functools.cache
def groups_of_hours(data: Path, corpus: Path | None) -> dict[str, list[np.ndarray]]:
    """Return the sounds of the hours by group; groups that are not at hand are not there."""
    beds = [data / "ambience" / "audio" / f"{name}.ogg" for name in SILENT_BEDS]
    voices = sorted((corpus / "test" / "espeak-ng").glob("*.flac")) if corpus else []
    groups = {
        "beds": [read(file) for file in beds if file.exists()],
        "noises": [piece for of_kind in noises(corpus).values() for piece in of_kind],
        "voices": [read(file) for file in voices[:: 10 if QUICK else 1]],
    }
    return {name: sounds for name, sounds in groups.items() if sounds}


def _shares(groups: int) -> list[float]:
    """Return how likely each group is: the beds most."""
    return {1: [1.0], 2: [0.6, 0.4], 3: [0.6, 0.25, 0.15]}[groups]


def at_level(samples: np.ndarray, dbfs: float) -> np.ndarray:
    """Return float32[n] at that RMS; silence as it is."""
    return samples * np.float32(10 ** (dbfs / 20) / max(rms(samples), 1e-9))


def rms(samples: np.ndarray) -> float:
    """Return the root mean square of float32[n]."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
