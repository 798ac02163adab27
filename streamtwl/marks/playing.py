"""A clip for the ear, by whatever program plays one here, and for the eye."""

import contextlib
import itertools
import shutil
import subprocess
from pathlib import Path

import numpy as np

from streamtwl.features.spectrum import Spectrum
from streamtwl.stages import SAMPLE_RATE

PLAYERS = (  # that read FLAC
    ("pw-play",),
    ("paplay",),
    ("afplay",),
    ("ffplay", "-nodisp", "-autoexit", "-loglevel", "quiet"),
)
WAIT_S = 2.0  # for one that is stopped
BANDS = (100, 250, 500, 1000, 2000, 4000, 8000)  # Hz, edges
COLUMNS = 60
SHADES = " .:-=+*#%@"
RANGE_DB = 50.0


class Player:
    """Plays one clip at a time, without waiting for its end."""

    def __init__(self, mute: bool = False) -> None:
        self._command = None if mute else next(filter(None, map(_found, PLAYERS)), None)
        self._playing: subprocess.Popen | None = None
        self.problem = ""
        if self._command is None and not mute:
            names = ", ".join(program for program, *_ in PLAYERS)
            self.problem = f"no program here plays a clip ({names}): it is shown only"

    def play(self, clip: Path) -> None:
        """Begin to play, and end what was playing."""
        self.stop()
        if self._command is not None:
            with contextlib.suppress(OSError):  # gone meanwhile
                self._playing = subprocess.Popen(
                    [*self._command, str(clip)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )

    def stop(self) -> None:
        """End what is playing; note where it failed."""
        if self._playing is None:
            return
        if self._playing.poll() is None:
            self._playing.terminate()
            try:
                self._playing.wait(WAIT_S)
            except subprocess.TimeoutExpired:
                self._playing.kill()
                self._playing.wait()
        elif self._playing.returncode and self._command:
            self.problem = f"{self._command[0]} cannot play a clip: they are shown only"
        self._playing = None


def _found(command: tuple[str, ...]) -> list[str] | None:
    program = shutil.which(command[0])
    return None if program is None else [program, *command[1:]]


def picture(samples: np.ndarray) -> list[str]:
    """Return lines of text that show float32[n]: bands of frequency over time, high ones first."""
    power = Spectrum().push(samples)
    if not len(power):
        return []
    columns = np.array_split(power, min(COLUMNS, len(power)))
    means = np.stack([column.mean(axis=0) for column in columns])  # [time, 257]
    edges = np.array(BANDS) / (SAMPLE_RATE / 2) * (means.shape[1] - 1)
    bands = [
        means[:, round(low) : max(round(low) + 1, round(high))].mean(axis=1)
        for low, high in itertools.pairwise(edges)
    ]
    level = 10 * np.log10(np.stack(bands) + 1e-12)
    share = np.clip(1 + (level - level.max()) / RANGE_DB, 0, 1)
    shades = np.round(share * (len(SHADES) - 1)).astype(int)
    seconds = len(samples) / SAMPLE_RATE
    lines = [
        f"{high / 1000:4g} kHz |{''.join(SHADES[i] for i in row)}|"
        for row, high in zip(shades[::-1], BANDS[:0:-1], strict=True)
    ]
    return [*lines, f"{'':10}{seconds:.1f} s"]
