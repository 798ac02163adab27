"""A backbone of the user's own: an ONNX file that `streamtwl models add` has checked."""

from typing import TYPE_CHECKING

import numpy as np

from streamtwl import ontology
from streamtwl.features import log_mel
from streamtwl.features.fbank import Fbank
from streamtwl.features.log_mel import LogMel
from streamtwl.features.spectrum import FRAME, FRAME_HOP, Frames
from streamtwl.models import own, priors, runtime
from streamtwl.stages import SAMPLE_RATE, FrontEnd

if TYPE_CHECKING:
    import onnxruntime

    from streamtwl.config import Settings


class Waveform:
    """A waveform's front end: frames of the samples themselves, end to end."""

    def __init__(self, size: int) -> None:
        self._frames = Frames(size, size)

    def push(self, samples: np.ndarray, power: np.ndarray) -> np.ndarray:
        """Take float32[n] samples; return the float32[m, size] frames they complete."""
        return self._frames.push(samples)


class Own:
    """A frozen classifier over a ready session: a `stages.Backbone`.

    Categories with AudioSet's names have their parents in AudioSet.
    """

    def __init__(self, name: str, session: "onnxruntime.InferenceSession", card: own.Card) -> None:
        self.name, self.sha256 = name, card.sha256
        self.categories = tuple(card.labels)
        self.parents = ontology.parents_among(self.categories)
        self.prior = priors.of(name, self.categories, card.sha256, own.path(name))
        self._session, self._card = session, card
        self.provider = runtime.provider(session)
        self.frame, self.frame_hop = FRAME, FRAME_HOP
        shortest, longest = card.frames if card.input == "fbank" else [own.LOG_MEL[0]] * 2
        if card.input == "waveform":
            # a hop (a multiple of 10 ms) and a window are both whole numbers of frames
            self.frame = self.frame_hop = int(np.gcd(card.samples, FRAME_HOP))
            shortest = longest = card.samples // self.frame
        second = SAMPLE_RATE / self.frame_hop  # frames
        self.lengths_s = (shortest / second, longest / second)
        self._outputs = [card.posterior, *filter(None, [card.embedding])]

    def front_end(self) -> FrontEnd:
        """Return a new front end."""
        if self._card.input == "fbank":
            return Fbank(self._card.bands)
        return LogMel(log_mel.yamnet) if self._card.input == "log_mel" else Waveform(self.frame)

    def score(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return posteriors float32[N, C], embeddings [N, D] of float32[N, frames, bands]."""
        if self._card.input == "waveform":
            features = features.reshape(len(features), -1)
        posteriors, *embeddings = own.run(self._session, self._outputs, features)
        return posteriors, embeddings[0] if embeddings else np.empty((len(features), 0), np.float32)


def make(name: str, settings: "Settings") -> Own:
    """Return the backbone of that name; raises ModelError where it is damaged."""
    threads = settings.backbone.threads
    card = own.card(name)
    return Own(name, own.open_session(own.path(name), threads, settings.backbone.provider), card)
