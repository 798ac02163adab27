"""Make the bank of general sound that taught sounds are told from: streamtwl/sounds/bank.

    tools/corpus.sh CORPUS
    tools/sound_bank.py CORPUS ../shared/data/kitchen20

Training parts only: the corpus's train side (the same number of windows of each package),
kitchen20's folds 1, 2, 3 and 5, and synthetic rooms (noise, hum, silence). A few windows of each
recording, which are chosen by the hash of their names. Needs the weights of YAMNet and mn04.
"""

import argparse
import csv
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np

from streamtwl import config
from streamtwl.pipeline import hearing
from streamtwl.sounds import augment, space
from streamtwl.sounds.embedding import Embedder
from streamtwl.sounds.recording import read
from streamtwl.stages import SAMPLE_RATE

FOLDS = {"1", "2", "3", "5"}
DIRECTIONS = {"yamnet:0.96": 128}
A_RECORDING = 4  # windows, at most
PIECE_S = 6.0  # of a recording, from a random place
OF = {"corpus": 2000, "kitchen20": 560, "rooms": 440}  # windows


def main() -> None:
    """Choose, embed, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path)
    parser.add_argument("kitchen20", type=Path)
    options = parser.parse_args()
    settings = config.override(config.Settings(), {"windows": ["yamnet:0.96", "mn04:3"]})
    backbones, kinds = hearing(settings)
    embedder = Embedder(backbones, kinds)
    packages = sorted(folder.name for folder in (options.corpus / "train").iterdir())
    of_package = OF["corpus"] // len(packages)
    parts = [
        *(("corpus", pieces(files(options.corpus / "train" / name)), of_package)
          for name in packages),
        ("kitchen20", pieces(kitchen(options.kitchen20)), OF["kitchen20"]),
        ("rooms", rooms(), OF["rooms"]),
    ]  # fmt: skip
    groups: list[int] = []
    recordings = dict.fromkeys(OF, 0)
    found: dict[str, list[np.ndarray]] = {name: [] for name in embedder.windows}
    for group, sounds, most in parts:
        taken = 0
        for number, samples in enumerate(sounds):
            if taken >= most:
                break
            _, embeddings = embedder.embed(samples)
            rng = np.random.default_rng(number)
            there = len(embeddings[embedder.windows[0]])
            chosen = rng.permutation(there)[: min(A_RECORDING, most - taken)]
            for name, rows in embeddings.items():
                found[name].append(rows[chosen])
            groups += [list(OF).index(group)] * len(chosen)
            taken += len(chosen)
            recordings[group] += 1
        print(group, taken, flush=True)
    arrays = space.fit({name: np.concatenate(rows) for name, rows in found.items()}, DIRECTIONS)
    arrays["groups"] = np.array(groups, np.uint8)
    weights = {kind.name: backbones[kind.backbone].sha256 for kind in kinds}
    counts = {name: groups.count(i) for i, name in enumerate(OF)}
    card = space.Card(weights, counts, recordings, packages)
    space.FOLDER.mkdir(exist_ok=True)
    np.savez_compressed(space.FOLDER / "bank.npz", **arrays)
    card_file = space.FOLDER / "bank.json"
    card_file.write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=1) + b"\n")
    print(counts, (space.FOLDER / "bank.npz").stat().st_size, "bytes")


def files(folder: Path) -> list[Path]:
    """Return the recordings of a folder in the order of their names' hashes."""
    return sorted(folder.glob("*"), key=lambda file: sha256(file.name.encode()).digest())


def kitchen(folder: Path) -> list[Path]:
    """Return the clips of kitchen20's training folds."""
    [table] = (folder / "meta").glob("*.csv")
    with table.open(newline="") as opened:
        training = {row["filename"] for row in csv.DictReader(opened) if row["fold"] in FOLDS}
    return [file for file in files(folder / "audio") if file.name in training]


def pieces(recordings: list[Path]) -> Iterator[np.ndarray]:
    """Yield a piece of each recording, float32[n]."""
    for number, file in enumerate(recordings):
        samples = read(file)
        size = round(PIECE_S * SAMPLE_RATE)
        start = np.random.default_rng(number).integers(max(1, len(samples) - size))
        yield samples[start : start + size]


def rooms() -> Iterator[np.ndarray]:
    """Yield rooms in which nothing sounds: noise of any colour and level, hum, silence."""
    rng = np.random.default_rng(20)
    t = np.arange(round(PIECE_S * SAMPLE_RATE)) / SAMPLE_RATE
    while True:
        mix = augment.noise(len(t), rng) * 10 ** (rng.uniform(-80, -25) / 20)
        if rng.random() < 0.3:
            hum = rng.choice([50.0, 60.0, 100.0, 120.0])
            for harmonic in range(1, 6):
                mix += 10 ** (rng.uniform(-80, -40) / 20) * np.sin(2 * np.pi * harmonic * hum * t)
        yield np.clip(mix, -1, 1).astype(np.float32)


if __name__ == "__main__":
    main()
