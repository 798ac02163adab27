"""All backbones of a pipeline: windows in, patches out, each backbone called once a length."""

from collections.abc import Sequence

import numpy as np

from streamtwl.stages import Backbone, Patch, Score, Window


class Bank:
    """Scores a batch of windows of any streams with every backbone."""

    def __init__(self, backbones: Sequence[Backbone]) -> None:
        self.backbones = backbones

    def score(self, windows: list[Window]) -> list[Patch]:
        """Return one patch a window, in the same order."""
        scores: list[list[Score]] = [[] for _ in windows]
        for b, backbone in enumerate(self.backbones):
            for n, length_s in enumerate(backbone.lengths_s):
                having = [i for i, window in enumerate(windows) if n < len(window.features[b])]
                if having:
                    features = np.stack([windows[i].features[b][n] for i in having])
                    for i, *gave in zip(having, *backbone.score(features), strict=True):
                        scores[i].append(Score(backbone.name, length_s, *gave))
        return [Patch(w, tuple(s)) for w, s in zip(windows, scores, strict=True)]
