"""What the backbone says of each clip, computed once and kept by the clip's content."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from streamtwl import folders
from streamtwl.audio.resample import Resampler
from streamtwl.backbones.yamnet import YamNet
from streamtwl.errors import AudioError
from streamtwl.features.window import Windower
from streamtwl.models import registry
from streamtwl.stages import Block, End, WindowKind

BATCH = 64  # windows a model call


@dataclass(frozen=True, slots=True)
class Scored:
    """A clip's patches."""

    posteriors: np.ndarray  # float32[n, C], in [0, 1]
    embeddings: np.ndarray  # float32[n, D]


Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # samples to samples, 16 kHz


@dataclass(frozen=True, slots=True)
class Augmentation:
    """A change of a clip's samples, reproducible: its name and seed are part of the cache's key."""

    name: str
    change: Change
    seed: int = 0


class Scorer:
    """Scores clips with a model at a hop, through the live path's own front end."""

    def __init__(self, model: str = "yamnet", hop_s: float = 0.48, threads: int = 2) -> None:
        found = registry.find(model)
        registry.pull(found)
        self._backbone = YamNet(registry.session(found, threads))
        self.key = f"{registry.checksum(found)}/{hop_s:g}"
        self.hop_s = hop_s
        self.folder = folders.cache() / "posteriors"
        self.folder.mkdir(parents=True, exist_ok=True)

    def score(self, path: Path, augmentation: Augmentation | None = None) -> Scored:
        """Return the patches of a recording, from the cache where they are there."""
        content = path.read_bytes()
        changed = f"{augmentation.name}/{augmentation.seed}" if augmentation else ""
        named = hashlib.sha256(content + f"/{self.key}/{changed}".encode()).hexdigest()
        cached = self.folder / f"{named}.npz"
        if cached.exists():
            with np.load(cached) as arrays:
                return Scored(arrays["posteriors"], arrays["embeddings"])
        samples = read(path)
        if augmentation is not None:
            seed = [int(named[:8], 16), augmentation.seed]
            samples = augmentation.change(samples, np.random.default_rng(seed))
        scored = self.score_samples(samples)
        partial = cached.with_suffix(".partial.npz")
        np.savez(partial, posteriors=scored.posteriors, embeddings=scored.embeddings)
        partial.rename(cached)  # whole, or not there
        return scored

    def score_samples(self, samples: np.ndarray) -> Scored:
        """Return the patches of float32[n] samples at 16 kHz."""
        block = Block(0, 0, samples.astype(np.float32, copy=False), None, 0.0, last=True)
        cut = Windower(self.hop_s, [self._backbone], [WindowKind("yamnet", 0, 0.96)]).push([block])
        windows = [window for batch in cut if not isinstance(batch, End) for window in batch]
        log_mel = np.stack([window.features[0] for window in windows])
        batches = [
            self._backbone.score(log_mel[i : i + BATCH]) for i in range(0, len(log_mel), BATCH)
        ]
        posteriors, embeddings = zip(*batches, strict=True)
        return Scored(np.concatenate(posteriors), np.concatenate(embeddings))


def read(path: Path) -> np.ndarray:
    """Return a recording as float32[n], 16 kHz mono; raises AudioError where it is none."""
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"'{path}' is not audio: {error.error_string}") from None
    resampler = Resampler(rate)
    return np.concatenate((resampler.push(samples.mean(axis=1)), resampler.flush()))


def white_noise(snr_db: float) -> Change:
    """Return a change that adds white noise, that many dB under the clip's own level."""

    def add(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        level = np.sqrt(np.mean(samples**2))
        noise = rng.standard_normal(len(samples)) * level * 10 ** (-snr_db / 20)
        return (samples + noise).astype(np.float32)

    return add


def white_noise_between(low_db: float, high_db: float) -> Change:
    """Return a change that adds white noise at an SNR drawn uniformly from that range."""

    def add(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return white_noise(rng.uniform(low_db, high_db))(samples, rng)

    return add


def prefixes(scored: Sequence[Scored], patches: int) -> list[Scored]:
    """Return the first so many patches of each clip."""
    return [Scored(each.posteriors[:patches], each.embeddings[:patches]) for each in scored]
