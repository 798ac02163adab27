"""YAMNet in ONNX Runtime: windows of log-mel in, posteriors over AudioSet's categories out."""

from typing import TYPE_CHECKING

import numpy as np

from streamtwl.errors import ModelError
from streamtwl.features import log_mel
from streamtwl.features.log_mel import LogMel
from streamtwl.features.spectrum import FRAME, FRAME_HOP
from streamtwl.models import priors, registry, runtime
from streamtwl.ontology import categories, parents

if TYPE_CHECKING:
    import onnxruntime

    from streamtwl.config import Settings

OUTPUTS = ["posterior", "embedding"]
WINDOW_FRAMES = 96
WINDOW = (WINDOW_FRAMES - 1) * FRAME_HOP + FRAME  # 15,600 samples, 0.975 s


class YamNet:
    """Frozen YAMNet over a ready session: a `stages.Backbone`."""

    name = "yamnet"
    lengths_s = (0.96, 0.96)
    frame, frame_hop = FRAME, FRAME_HOP

    def __init__(self, session: "onnxruntime.InferenceSession", sha256: str = "") -> None:
        inputs = {tensor.name: tensor.shape[1:] for tensor in session.get_inputs()}
        if inputs != {"log_mel": [96, 64]}:
            raise ModelError(
                f"this ONNX file takes {inputs}, YAMNet takes log_mel [N, 96, 64]: "
                "get it again with `streamtwl models pull yamnet`"
            )
        self._session = session
        self.provider = runtime.provider(session)
        self.sha256 = sha256
        self.categories, self.parents = categories(), parents()
        file = registry.path(registry.find(self.name))
        self.prior = priors.of(self.name, self.categories, sha256, file, self.name)

    def front_end(self) -> LogMel:
        """Return a new front end."""
        return LogMel(log_mel.yamnet)

    def score(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return posteriors float32[N, 521], embeddings [N, 1024] of log_mel float32[N, 96, 64]."""
        posteriors, embeddings = self._session.run(OUTPUTS, {"log_mel": features})
        return posteriors, embeddings

    def posteriors(self, log_mel: np.ndarray) -> np.ndarray:
        """Return float32[N, 521] posteriors in [0, 1] of log_mel float32[N, 96, 64]."""
        return self._session.run(["posterior"], {"log_mel": log_mel})[0]


def make(name: str, settings: "Settings") -> YamNet:
    """Return the backbone over the model's file, which has to be there."""
    model = registry.find(name)
    session = registry.session(model, settings.backbone.threads, settings.backbone.provider)
    return YamNet(session, registry.checksum(model) or "")
