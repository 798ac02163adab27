"""YAMNet in ONNX Runtime: windows of log-mel in, posteriors over AudioSet's categories out."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from streamtwl.errors import ModelError
from streamtwl.features.window import Window

if TYPE_CHECKING:
    import onnxruntime


@dataclass(frozen=True, slots=True)
class Patch:
    """What the backbone made of one window."""

    window: Window
    posterior: np.ndarray  # float32[C], each category's sigmoid score in [0, 1]


class YamNet:
    """Frozen YAMNet over a ready session; one call scores a batch of windows of any streams."""

    def __init__(self, session: "onnxruntime.InferenceSession") -> None:
        inputs = {tensor.name: tensor.shape[1:] for tensor in session.get_inputs()}
        if inputs != {"log_mel": [96, 64]}:
            raise ModelError(
                f"this ONNX file takes {inputs}, YAMNet takes log_mel [N, 96, 64]: "
                "get it again with `streamtwl models pull yamnet`"
            )
        self._session = session

    def score(self, windows: list[Window]) -> list[Patch]:
        """Return one patch a window, in the same order."""
        posteriors = self.posteriors(np.stack([window.log_mel for window in windows]))
        return [Patch(*pair) for pair in zip(windows, posteriors, strict=True)]

    def posteriors(self, log_mel: np.ndarray) -> np.ndarray:
        """Return float32[N, 521] posteriors in [0, 1] of log_mel float32[N, 96, 64]."""
        return self._session.run(["posterior"], {"log_mel": log_mel})[0]
