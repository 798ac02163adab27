"""What the backbones say of a sound, patch by patch; of each clip computed once and kept."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from streamtwl import config, folders
from streamtwl.audio.intake import SAMPLE_LIMIT
from streamtwl.audio.mix import Mixer
from streamtwl.audio.resample import Resampler, check_rate
from streamtwl.backbones.bank import Bank, of_silence
from streamtwl.config import Settings
from streamtwl.errors import AudioError
from streamtwl.features.window import Windower
from streamtwl.models import own, registry
from streamtwl.pipeline import hearing
from streamtwl.reasoners import reads
from streamtwl.reasoners.reads import Read
from streamtwl.sounds import recording
from streamtwl.stages import SAMPLE_RATE, Block, End

YAMNET = "yamnet:0.96"
READ = 2  # the version of `read`: what is kept of another one is made anew
WHOLE_S = 1e9  # of a recording: longer than any
HOPS = 32  # scored in one call


@dataclass(frozen=True, slots=True)
class Scored:
    """A clip's patches, of one window."""

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
    """Scores sound with windows of any backbones at a hop, through the live path's own stages.

    A patch is a row: posterior and embedding of each window, one after another.
    """

    def __init__(
        self,
        windows: Sequence[str] = (YAMNET,),
        hop_s: float = 0.48,
        threads: int = 2,
        folder: Path | None = None,
    ) -> None:
        """Get weights that are not here; rows are kept in `folder`, else in the user's cache."""
        changes = {"windows": [*windows], "hop_s": hop_s, "backbone.threads": threads}
        settings = config.override(Settings(), changes)
        for name in filter(own.needs_pull, config.backbones(settings)):
            registry.pull(registry.find(name))
        self._backbones, self._kinds = hearing(settings)
        self.windows = [*windows]
        self.hop_s = hop_s
        self.categories = self._backbones[0].categories  # of the first window's posterior
        self.sha256 = {backbone.name: backbone.sha256 for backbone in self._backbones}
        weights = "/".join([*windows, *self.sha256.values()])
        self.key = f"patches/{READ}/{weights}/{hop_s:g}"
        self.first = Windower(hop_s, self._backbones, self._kinds).needs(0)  # samples, of a patch
        self.columns = reads.columns(of_silence(self._backbones, self._kinds))  # in a row
        self.folder = folder or folders.cache() / "posteriors"
        self.folder.mkdir(parents=True, exist_ok=True)

    def score(self, path: Path, augmentation: Augmentation | None = None) -> Scored:
        """Return what the first window says of a recording."""
        rows = self.score_file(path, augmentation)
        posterior, embedding = (
            rows[:, self.columns[self.windows[0], output]] for output in ("posterior", "embedding")
        )
        return Scored(posterior, embedding)

    def score_file(self, path: Path, augmentation: Augmentation | None = None) -> np.ndarray:
        """Return float32[n, F] rows of a recording, from the cache where they are there.

        Raises AudioError for a recording that cannot be read, or has nothing in it.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise AudioError(f"'{path}' cannot be read: {error.strerror}") from None
        changed = f"{augmentation.name}/{augmentation.seed}" if augmentation else ""
        named = hashlib.sha256(content + f"/{self.key}/{changed}".encode()).hexdigest()
        cached = self.folder / f"{named}.npy"
        if (rows := load(cached)) is not None:
            return rows
        samples = read(path)
        if augmentation is not None:
            seed = [int(named[:8], 16), augmentation.seed]
            samples = augmentation.change(samples, np.random.default_rng(seed))
        rows = self.score_samples(samples)
        keep(rows, cached)
        return rows

    def score_samples(self, samples: np.ndarray) -> np.ndarray:
        """Return float32[n, F] rows of float32[n] samples at 16 kHz."""
        windower = Windower(self.hop_s, self._backbones, self._kinds)
        bank = Bank(self._backbones, self._kinds)
        size = HOPS * round(self.hop_s * SAMPLE_RATE)
        rows: list[np.ndarray] = []
        for at in range(0, len(samples), size):
            block = samples[at : at + size].astype(np.float32, copy=False)
            cut = windower.push([Block(0, at, block, None, 0.0, last=at + size >= len(samples))])
            windows = [window for batch in cut if not isinstance(batch, End) for window in batch]
            rows += [reads.row(patch, [*self.columns]) for patch in bank.score(windows)]
        return np.stack(rows)

    def pick(self, rows: np.ndarray, read: Sequence[Read]) -> np.ndarray:
        """Return float[..., F'], what is read of float[..., F] rows."""
        return np.concatenate([rows[..., self.columns[each]] for each in read], axis=-1)

    def is_posterior(self, read: Sequence[Read]) -> np.ndarray:
        """Return bool[F'], which columns of such a row are scores of a posterior."""
        sizes = [self.columns[each].stop - self.columns[each].start for each in read]
        return np.repeat([output == "posterior" for _, output in read], sizes)


def load(path: Path) -> np.ndarray | None:
    """Return an array that was kept; None where it is not there, or damaged: it is made anew."""
    with contextlib.suppress(OSError, ValueError, EOFError):
        return np.load(path)
    return None


def keep(rows: np.ndarray, path: Path) -> None:
    """Write an array; the file is whole, or not there."""
    partial = path.with_suffix(f".{os.getpid()}.npy")
    np.save(partial, rows)
    partial.rename(path)


def read(path: Path) -> np.ndarray:
    """Return a recording as float32[n], 16 kHz mono; raises AudioError where it is none.

    What libsndfile does not read is read as `label` does: headers may be wrong.
    """
    try:
        frames, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, ValueError, MemoryError):
        samples = recording.read(path, WHOLE_S)
    else:
        with np.errstate(invalid="ignore"):
            if not (np.abs(frames) <= SAMPLE_LIMIT).all():  # False for NaN as well
                raise AudioError(f"'{path}' has numbers in it that are no sound: leave it out")
        check_rate(rate, str(path))
        resampler = Resampler(rate)
        mono = Mixer(str(path)).mix(frames, rate)
        samples = np.concatenate((resampler.push(mono), resampler.flush()))
    if not len(samples):
        raise AudioError(f"'{path}' has no sound in it: leave it out")
    return samples


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
