"""Cut recordings, or make noises, into the pieces of the target-free corpus.

tools/corpus.sh is what to run: it fetches the packages and calls this for each.

A piece is 16 kHz mono FLAC of 0.5 to 30 s in FOLDER/<split>/<package>/; a file gives its first
minute, a package at most 1.5 hours. Target-free: nothing that ESC-10's ten classes name may sound.
A file whose name speaks of one is left out, and so is a piece of which YAMNet gives a category
that is right for one of the classes more than 0.3 in any window. Only the noises stay whatever
YAMNet finds: nothing sounds in them, and to mistake brown noise for an ocean is an error that must
count. FOLDER/.made holds a record of each finished package, with every piece's source (and, for a
noise, what YAMNet found), so that it is not made again.
"""

import argparse
import contextlib
import csv
import hashlib
import json
import os
import re
import shutil
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
from rich.progress import track

from streamtwl.audio.resample import Resampler
from streamtwl.backbones.yamnet import YamNet
from streamtwl.errors import AudioError, StreamtwlError
from streamtwl.features.window import Windower
from streamtwl.models import registry
from streamtwl.ontology import categories
from streamtwl.stages import SAMPLE_RATE, Block, End, WindowKind

TARGETS = Path(__file__).with_name("esc10_audioset.csv")  # ESC-10's classes, AudioSet's names
ENDINGS = (".wav", ".ogg", ".oga", ".flac", ".mp3", ".opus")
PIECE_S = (0.5, 30.0)
FILE_S = 60.0  # so that music is not most of it
PACKAGE_S = 5400.0
SILENT_DBFS = -60.0
HOP_S = 0.48
TARGET_SCORE = 0.3
NOISE_RMS = 0.05
NOISES = {  # the kinds, and how many pieces of 30 s of each
    "train": (("white", "pink", "hum50", "band", "fan"), 24),
    "test": (("brown", "blue", "hum60", "traffic", "babble"), 12),
}
Sound = tuple[str, Path | np.ndarray]  # its path in the package; its file, or the noise itself
TARGET_NAME = re.compile(
    r"(?<![a-z])(dogs?|wol(f|ves)|hounds?|cocks?|hens?|seas?|fires?|saws?|cry|cries)(?![a-z])"
    r"|(?<![a-z])(pupp|bark|howl|chick|rain|wave|surf(?!ace)|tick|heli|sob|weep)"
    r"|rooster|storm|weather|ocean|seashore|beach|coast|campfire|bonfire|fireplace|flame|burn"
    r"|crackl|torch|blaze|bab(y|ies)|infant|crying|sneez|tchoo|clock|chopper|chain.?saw|sawmill"
)


class TargetFilter:
    """Says which category that is right for one of ESC-10's classes sounds in a piece, if any."""

    def __init__(self) -> None:
        with TARGETS.open(newline="") as file:
            rows = [*csv.DictReader(file)]
        self.categories = [name for row in rows for name in row["audioset"].split("|")]
        self._indices = [categories().index(name) for name in self.categories]
        registry.pull(model := registry.find("yamnet"))
        self._yamnet = YamNet(registry.session(model, threads=1))

    def found(self, samples: np.ndarray) -> str | None:
        """Return the category that scores highest, and too high, in float32[n] at 16 kHz."""
        block = Block(0, 0, samples, None, 0.0, last=True)
        cut = Windower(HOP_S, [self._yamnet], [WindowKind("yamnet", 0, 0.96)]).push([block])
        windows = [window for batch in cut if not isinstance(batch, End) for window in batch]
        posteriors = self._yamnet.posteriors(np.stack([window.features[0] for window in windows]))
        highest = posteriors[:, self._indices].max(axis=0)
        return self.categories[highest.argmax()] if highest.max() > TARGET_SCORE else None


def read(file: Path) -> np.ndarray:
    """Return the first minute of a sound file as float32[n], 16 kHz mono; raises AudioError."""
    try:
        with soundfile.SoundFile(file) as sound:
            rate = sound.samplerate
            frames = sound.read(int(FILE_S * rate), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"'{file}' is not audio: {error.error_string}") from None
    resampler = Resampler(rate)
    return np.concatenate((resampler.push(frames.mean(axis=1)), resampler.flush()))


def cut(samples: np.ndarray) -> Iterator[tuple[float, np.ndarray, str | None]]:
    """Yield (start in seconds, piece, "short" or "silent" if it is) of float32[n] at 16 kHz."""
    shortest, longest = (int(seconds * SAMPLE_RATE) for seconds in PIECE_S)
    for start in range(0, len(samples), longest):
        piece = samples[start : start + longest]
        loud = np.mean(np.square(piece, dtype=np.float64)) > 10 ** (SILENT_DBFS / 10)
        useless = "short" if len(piece) < shortest else None if loud else "silent"
        yield start / SAMPLE_RATE, piece, useless


def licences(copyright_text: str) -> list[str]:
    """Return the licences that a debian/copyright names, the most frequent first.

    In its machine-readable format they are the License fields of the Files paragraphs; elsewhere
    the well-known ones that its words name.
    """
    if copyright_text.startswith("Format:"):
        paragraphs = re.split(r"\n\s*\n", copyright_text)
        files = [paragraph for paragraph in paragraphs if re.search(r"^Files:", paragraph, re.M)]
        named = re.findall(r"^License:[ \t]*(\S.*?)\s*$", "\n".join(files), re.M)
    else:
        words = " ".join(copyright_text.split())
        named = re.findall(r"common-licenses/([A-Z][A-Za-z]*(?:-\d(?:\.\d)?)?)", words)
        named += re.findall(r"Creative Commons (?:[-–] )?[A-Z][\w-]+(?: \d\.\d)?", words)
        named += ["BSD"] * ("Redistribution and use in source and binary forms" in words)
        named += ["public domain"] * ("public domain" in words.lower())
        named = named or re.findall(r"GNU (?:Lesser |Library )?General Public License", words)
    return [name for name, _ in Counter(named).most_common()]


def noise(kind: str, seed: int, voices: list[np.ndarray] = ()) -> np.ndarray:
    """Return 30 s of noise at -26 dBFS, float32[480000]; `voices`, as long, make the babble."""
    rng, length = np.random.default_rng(seed), int(PIECE_S[1] * SAMPLE_RATE)
    seconds = np.arange(length) / SAMPLE_RATE
    hz = np.maximum(np.fft.rfftfreq(length, 1 / SAMPLE_RATE), 20)

    def shaped(gain: np.ndarray | float) -> np.ndarray:
        made = np.fft.irfft(np.fft.rfft(rng.standard_normal(length)) * gain, length)
        return made / made.std()

    def band(low: float, high: float) -> np.ndarray:
        return shaped(1 / np.sqrt((1 + (low / hz) ** 8) * (1 + (hz / high) ** 8)))

    def tones(fundamental: float, count: int) -> np.ndarray:
        phases = 2 * np.pi * (np.outer(np.arange(1, count), fundamental * seconds))
        made = (rng.uniform(0.1, 1, count - 1) / np.arange(1, count)) @ np.sin(phases)
        return made / made.std()

    match kind:
        case "white" | "pink" | "brown" | "blue":
            made = shaped(hz ** {"white": 0.0, "pink": -0.5, "brown": -1.0, "blue": 0.5}[kind])
        case "hum50" | "hum60":  # mains, its harmonics, a little hiss
            made = tones(float(kind[3:]), 40) + rng.uniform(0.02, 0.2) * shaped(1.0)
        case "band":  # one to four octaves
            low = rng.uniform(80, 1500)
            made = band(low, low * 2 ** rng.uniform(1, 4))
        case "fan":  # air, and the blades that pass
            blades = rng.uniform(15, 30)
            air = band(40, rng.uniform(400, 1500)) * (1 + 0.2 * np.sin(6.2832 * blades * seconds))
            made = air + rng.uniform(0.1, 0.5) * tones(blades, 12)
        case "traffic":  # six vehicles that pass, each with its tyres and engine
            made = 0.2 * band(30, 400)
            for _ in range(6):
                distance = (seconds - rng.uniform(0, PIECE_S[1])) / rng.uniform(1, 4)
                vehicle = band(60, rng.uniform(500, 2500)) + 0.5 * tones(rng.uniform(25, 60), 20)
                made += rng.uniform(0.3, 1) * np.exp(-0.5 * distance**2) * vehicle
        case "babble":
            six = rng.permutation(len(voices))[:6]
            made = sum(np.roll(voices[i], rng.integers(length)) for i in six)
    return (NOISE_RMS / np.sqrt(np.mean(np.square(made))) * made).clip(-1, 1).astype(np.float32)


def add(
    home: Path, sounds: list[Sound], target_filter: TargetFilter, version: str, licence: str
) -> dict:
    """Cut the sounds of a package into `home`, FOLDER/<split>/<package>; return its record."""
    folder, split, package = home.parents[1], home.parent.name, home.name
    shutil.rmtree(home, ignore_errors=True)  # of a run that was stopped
    home.mkdir(parents=True)
    dropped: Counter[str] = Counter()
    pieces = []
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        done = threads.map(lambda sound: _write_pieces(home, *sound, target_filter), sounds)
        for kept, lost in track(done, package, len(sounds), transient=True):
            pieces += kept
            dropped.update(lost)
    record = {"package": package, "version": version, "licences": licence, "split": split}
    record |= {"dropped": dropped, "pieces": pieces}
    (folder / ".made").mkdir(exist_ok=True)
    (folder / ".made" / f"{split}-{package}.json").write_text(json.dumps(record, indent=1))
    return record


def _write_pieces(
    home: Path, source: str, sound: Path | np.ndarray, target_filter: TargetFilter
) -> tuple[list[dict], list[str]]:
    """Write what is of use of one sound; return the pieces, and why others were dropped."""
    if TARGET_NAME.search(source.lower()):
        return [], ["name"]
    try:
        samples = read(sound) if isinstance(sound, Path) else sound
    except AudioError:
        return [], ["unreadable"]
    kept, lost = [], []
    for start_s, piece, useless in cut(samples):
        found = None if useless else target_filter.found(piece)
        if useless or (found and isinstance(sound, Path)):
            lost.append(useless or found)
            continue
        path_hash = hashlib.sha256(source.encode()).hexdigest()[:8]  # stems repeat over folders
        name = f"{Path(source).stem[:60]}-{path_hash}-{start_s:02.0f}.flac"
        soundfile.write(home / name, piece, SAMPLE_RATE, subtype="PCM_16")
        place = {"file": f"{home.parent.name}/{home.name}/{name}", "source": source}
        seconds = len(piece) / SAMPLE_RATE
        kept.append(place | {"start_s": start_s, "seconds": seconds, "heard": found or ""})
    return kept, lost


def recordings(unpacked: Path) -> list[Sound]:
    """Return (path in the package, file) of 1.5 hours of its sounds, chosen by hash of the path."""
    found = [file for file in unpacked.rglob("*") if file.suffix.lower() in ENDINGS]
    named = [(str(file.relative_to(unpacked)), file) for file in found if not file.is_symlink()]
    chosen, seconds = [], 0.0
    for name, file in sorted(named, key=lambda pair: hashlib.sha256(pair[0].encode()).digest()):
        if seconds < PACKAGE_S:
            chosen.append((name, file))
            with contextlib.suppress(soundfile.LibsndfileError):  # `add` counts it as unreadable
                seconds += min(FILE_S, soundfile.info(file).duration)
    return chosen


def noises(folder: Path, split: str) -> list[Sound]:
    """Return (name, samples) of the split's noises; the babble is of its espeak-ng voices."""
    voices = [read(file) for file in sorted((folder / split / "espeak-ng").glob("*.flac"))]
    voices = [np.resize(voice, int(PIECE_S[1] * SAMPLE_RATE)) for voice in voices]
    names = [f"{kind}-{i}" for kind in NOISES[split][0] for i in range(NOISES[split][1])]
    return [(name, noise(name.split("-")[0], zlib.crc32(name.encode()), voices)) for name in names]


def write_licences(folder: Path) -> None:
    """Write LICENCES.csv, a row a package, from the records.

    A test piece whose very samples are in training as well is removed first.
    """
    records = [json.loads(file.read_text()) for file in sorted((folder / ".made").glob("*.json"))]
    trained, rows = {None}, []  # None: removed by an earlier run
    for record in sorted(records, key=lambda record: record["split"], reverse=True):  # train first
        kept = []
        for piece in record["pieces"]:
            file = folder / piece["file"]
            digest = hashlib.sha256(file.read_bytes()).digest() if file.exists() else None
            if record["split"] == "train":
                trained.add(digest)
            elif digest in trained:
                file.unlink(missing_ok=True)
                continue
            kept.append(piece)
        folders = [Path(piece["source"]).parent for piece in kept]
        hours = sum(piece["seconds"] for piece in kept) / 3600
        lost = record["dropped"] | {"also in train": len(record["pieces"]) - len(kept)}
        row = {name: record[name] for name in ("package", "version", "licences", "split")}
        row |= {"source": os.path.commonpath(folders) if folders else "", "hours": f"{hours:.3f}"}
        row["dropped"] = "; ".join(f"{count} {why}" for why, count in lost.items() if count)
        rows.append(row)
        print(f"{row['split']:6}{row['package']:30}{hours:6.2f} h  dropped: {row['dropped']}")
    for split in ("train", "test"):
        hours = sum(float(row["hours"]) for row in rows if row["split"] == split)
        print(f"{split:6}{'':30}{hours:6.2f} h")
    with (folder / "LICENCES.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Do one step; tools/corpus.sh calls them in order."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[1])
    parser.add_argument("step", choices=("cut", "noise", "licences"))
    parser.add_argument("folder", type=Path, help="the corpus")
    parser.add_argument("package", nargs="*", help="to cut: SPLIT PACKAGE VERSION UNPACKED_FOLDER")
    options = parser.parse_args()
    if options.step == "licences":
        return write_licences(options.folder)
    target_filter = TargetFilter()
    if options.step == "noise":
        for split in NOISES:
            home = options.folder / split / "noise"
            add(home, noises(options.folder, split), target_filter, "1", "made by tools/corpus.py")
        return None
    split, package, version, unpacked = options.package
    text = Path(unpacked, "usr/share/doc", package, "copyright").read_text(errors="replace")
    licence = "; ".join(licences(text)) or "see the package"
    home = options.folder / split / package
    add(home, recordings(Path(unpacked)), target_filter, version, licence)


if __name__ == "__main__":
    try:
        main()
    except (StreamtwlError, OSError) as error:
        sys.exit(f"corpus.py: {error}")
