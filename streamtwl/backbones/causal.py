"""The network that was trained here: a posterior at every patch, from the spectrum so far.

Its network is its front end: keys and values of the last ten seconds are kept per stream, and each
patch of 0.16 s is seen once. A window only says over how much of what it said its posterior is the
mean, so longer windows cost nothing.
"""

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from streamtwl.errors import UNDECODABLE, ModelError
from streamtwl.features import log_mel
from streamtwl.features.spectrum import FRAME, FRAME_HOP
from streamtwl.models import priors, registry, runtime
from streamtwl.models.checkpoint import CARD, BackboneCard
from streamtwl.ontology import parents_among

if TYPE_CHECKING:
    import onnxruntime

    from streamtwl.config import Settings

NAME = "causal"
FILE = registry.WEIGHTS / f"{NAME}.onnx"
PATCH = 16  # frames of the spectrum
PAST, PRESENT = "past_key_values", "present"


class Listening:
    """The network on one stretch of sound: a `stages.FrontEnd` whose frames are what it says."""

    def __init__(self, session: "onnxruntime.InferenceSession", memory: bool) -> None:
        """Without `memory` each patch is read as if nothing had been before it."""
        self._session, self._memory = session, memory
        caches = {each.name: each.shape for each in session.get_inputs() if PAST in each.name}
        self._nothing = {
            name: np.zeros((1, h, 0, e), np.float32) for name, (_, h, _, e) in caches.items()
        }
        self._outputs = ["posterior", "embedding", *(n.replace(PAST, PRESENT) for n in caches)]
        self._past = self._nothing
        bands = log_mel.YAMNET_BANDS
        silence = np.log(log_mel.YAMNET_OFFSET)
        self._frames = np.full((PATCH, bands), silence, np.float32)  # seen, and those of the next
        self._width = sum(each.shape[-1] for each in session.get_outputs()[:2])

    def push(self, samples: np.ndarray, power: np.ndarray) -> np.ndarray:
        """Return float32[m, C + D], posterior and embedding of each patch that is complete."""
        self._frames = np.concatenate((self._frames, log_mel.yamnet(power)))
        said = [np.empty((0, self._width), np.float32)]
        while new := len(self._frames) // PATCH - 1:
            patches = new if self._memory else 1
            feeds = {"log_mel": self._frames[None, : PATCH * (1 + patches)], **self._past}
            posterior, embedding, *present = self._session.run(self._outputs, feeds)
            if self._memory:
                self._past = dict(zip(self._past, present, strict=True))
            said.append(np.concatenate((posterior[0], embedding[0]), axis=1))
            self._frames = self._frames[PATCH * patches :]
        return np.concatenate(said)


class Causal:
    """The trained network over a ready session: a `stages.Backbone`."""

    name = NAME
    lengths_s = (0.16, 10.0)
    frame, frame_hop = (PATCH - 1) * FRAME_HOP + FRAME, PATCH * FRAME_HOP

    def __init__(
        self, session: "onnxruntime.InferenceSession", sha256: str = "", memory: bool = True
    ) -> None:
        self._session, self.memory, self.sha256 = session, memory, sha256
        self.provider = runtime.provider(session)
        self.card = card_of(session)
        self.categories = tuple(self.card.labels)
        self.parents = parents_among(self.categories)
        self.prior = priors.of(
            NAME,
            self.categories,
            sha256,
            FILE,
            NAME if (priors.FOLDER / f"{NAME}.json").exists() else "",
        )

    def front_end(self) -> Listening:
        """Return the network at the beginning of a stretch."""
        return Listening(self._session, self.memory)

    def score(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return posteriors float32[N, C], the mean of the window's, and the newest embedding."""
        said, embedding = np.split(features, [len(self.categories)], axis=-1)
        return said.mean(axis=1), embedding[:, -1]


def card_of(session: "onnxruntime.InferenceSession") -> BackboneCard:
    """Return the card in the network's file; raises ModelError where it has none."""
    kept = session.get_modelmeta().custom_metadata_map.get(CARD, "")
    try:
        return msgspec.json.decode(kept, type=BackboneCard)
    except UNDECODABLE as error:
        raise ModelError(f"{FILE} has no card of a backbone ({error})") from None


def make(name: str, settings: "Settings") -> Causal:
    """Return the backbone over the file that ships."""
    session = runtime.open_session(FILE, settings.backbone.threads, settings.backbone.provider)
    return Causal(session, registry.sha256(FILE))
