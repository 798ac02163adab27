"""Patches without the sound and the network that they come from."""

from collections.abc import Sequence

import numpy as np

from streamtwl.backbones.yamnet import YamNet
from streamtwl.features.log_mel import yamnet
from streamtwl.features.spectrum import Spectrum
from streamtwl.stages import Patch, Score, Window, WindowKind

KIND = WindowKind("yamnet", 0, 0.96)


class FrontEndOnly(YamNet):
    """YAMNet as far as windows are cut for it: it scores nothing."""

    def __init__(self) -> None:
        self.sha256 = ""
        self.categories, self.parents = (), ()
        self.prior = None


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Return YAMNet's float32[m, 64] log-mel of float32[n] samples."""
    return yamnet(Spectrum().push(samples))


def window(position: int, stream: int = 0, start: int = 0, first: bool = False) -> Window:
    """Return a window without features."""
    return Window(stream, position, start, first, (), -20.0, None, 0.0)


def patches(
    streams: Sequence[int], positions: Sequence[int], posteriors: np.ndarray
) -> list[Patch]:
    """Return a patch a stream with these float32[S, C]."""
    nothing = np.empty(0, np.float32)
    return [
        Patch(window(position, stream), (Score("yamnet", 0.96, posterior, nothing),))
        for stream, position, posterior in zip(streams, positions, posteriors, strict=True)
    ]
