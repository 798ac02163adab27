"""EfficientAT in ONNX Runtime: windows of log-mel of any length in, AudioSet's categories out."""

from typing import TYPE_CHECKING

import numpy as np

from streamtwl.errors import ModelError
from streamtwl.features import log_mel
from streamtwl.features.log_mel import EFFICIENTAT_BANDS, LogMel
from streamtwl.features.spectrum import FRAME, FRAME_HOP
from streamtwl.models import priors, registry, runtime
from streamtwl.ontology import audioset_527, parents_among

if TYPE_CHECKING:
    import onnxruntime

    from streamtwl.config import Settings

OUTPUTS = ["posterior", "embedding"]
NAMES = ("mn04", "mn10", "mn20", "mn40")


class EfficientAt:
    """One of EfficientAT's networks over a ready session: a `stages.Backbone`."""

    lengths_s = (0.32, 10.0)  # five halvings of 32 frames; AudioSet's clips have 10 s
    frame, frame_hop = FRAME, FRAME_HOP

    def __init__(
        self, name: str, session: "onnxruntime.InferenceSession", sha256: str = ""
    ) -> None:
        inputs = {tensor.name: tensor.shape[2:] for tensor in session.get_inputs()}
        if inputs != {"log_mel": [EFFICIENTAT_BANDS]}:
            raise ModelError(
                f"this ONNX file takes {inputs}, {name} takes log_mel [N, frames, 128]: "
                f"get it again with `streamtwl models pull {name}`"
            )
        self.name, self.sha256 = name, sha256
        self._session = session
        self.provider = runtime.provider(session)
        self.categories = audioset_527()
        self.parents = parents_among(self.categories)
        file = registry.path(registry.find(name))
        self.prior = priors.of(name, self.categories, sha256, file, "mn04")  # the same training

    def front_end(self) -> LogMel:
        """Return a new front end."""
        return LogMel(log_mel.efficientat)

    def score(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return posteriors float32[N, 527], embeddings [N, D] of log_mel float32[N, T, 128]."""
        posteriors, embeddings = self._session.run(OUTPUTS, {"log_mel": features})
        return posteriors, embeddings


def make(name: str, settings: "Settings") -> EfficientAt:
    """Return the backbone over the model's file, which has to be there."""
    model = registry.find(name)
    session = registry.session(model, settings.backbone.threads, settings.backbone.provider)
    return EfficientAt(name, session, registry.checksum(model) or "")
