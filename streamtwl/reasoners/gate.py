"""Which hops are worth the longer windows: those at which the first window hears something.

A cascade (P. Viola and M. Jones, "Rapid Object Detection using a Boosted Cascade of Simple
Features", CVPR 2001): a cheap classifier rejects most of what is nothing, and only what passes it
is looked at by a dearer one.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from streamtwl.config import Settings
from streamtwl.reasoners.fusion import Fusion
from streamtwl.stages import Backbone, Score, WindowKind


class Gate:
    """Opens where the first window scores some category at `least` or more.

    Scores are corrected for the prior; silence, and what is excluded from events, do not count.
    """

    def __init__(
        self, settings: Settings, backbones: Sequence[Backbone], kinds: Sequence[WindowKind]
    ) -> None:
        """Take a pipeline's settings, with `gate` above 0."""
        names = backbones[kinds[0].backbone].categories
        self._fusion = Fusion(kinds[:1], backbones, names, settings.reasoner.prior, {})
        all_but_excluded = msgspec.structs.replace(settings.events, include=[])
        self._counts = np.array(
            [name != "Silence" and all_but_excluded.wants(name) for name in names]
        )
        self._least = settings.gate

    def __call__(self, first: Score) -> bool:
        """Whether this score of the first window opens the gate."""
        scores = self._fusion.corrected(first)
        return bool(scores.max(initial=0.0, where=self._counts) >= self._least)
