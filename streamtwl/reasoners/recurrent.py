"""A trained reasoner that reads patches: an ONNX graph that takes one step, with a state.

    posterior float32[S, F], state float32[S, D], elapsed_s float32[S, 1]
        -> scores float32[S, L] in [0, 1], new_state float32[S, D]

`posterior` is the row that the card's `reads` make of a patch: see `reasoners/reads.py`. (Its name
is from files that read a posterior and nothing else.)
Scores may be float32[S, 1 + B, L]: of this patch, and of the B patches before it by now.
A stream's first step has a state of zeros and an endless `elapsed_s`; after a gap in the stream it
is longer than a hop, and the graph itself has to forget.
"""

import numpy as np

from streamtwl.reasoners import graph, reads
from streamtwl.reasoners.graph import Graph
from streamtwl.reasoners.naming import OwnLabels, decide
from streamtwl.stages import SAMPLE_RATE, Decision, Patch

ENDLESS_S = 1e9
INPUTS = ["posterior", "state", "elapsed_s"]
OUTPUTS = ["scores", "new_state"]


class Recurrent:
    """Steps the graph of a reasoner's file, a state a stream."""

    settled = True  # one look at a patch is all there is to it
    refining_s = 0.0
    behind = 0  # it was trained on what sounds at the end of a window

    def __init__(self, loaded: Graph) -> None:
        """Take a reasoner's file; raises UsageError where its graph is another's."""
        graph.check(loaded, INPUTS, OUTPUTS)
        self._session, self.card, self.sha256 = loaded.session, loaded.card, loaded.sha256
        self.name, self.open = self.card.name, False
        self.on, self.off = self.card.on, self.card.off
        self.width = loaded.shapes["posterior"][1]  # F
        size = loaded.shapes["scores"]
        self.lags = size[1] - 1 if len(size) == 3 else 0
        self.labels = self.card.labels
        self._naming = OwnLabels(self.labels, self.card.on)
        self._zeros = np.zeros(loaded.shapes["state"][1], np.float32)
        self._past: dict[int, tuple[int, np.ndarray]] = {}  # stream: (position, float32[D])

    def step(self, patches: list[Patch]) -> list[Decision]:
        """Take one new patch of each of S streams."""
        streams = [patch.window.stream for patch in patches]
        positions = [patch.window.position for patch in patches]
        states, elapsed_s = [], []
        for stream, position in zip(streams, positions, strict=True):
            before, state = self._past.get(stream, (None, self._zeros))
            states.append(state)
            elapsed_s.append(ENDLESS_S if before is None else (position - before) / SAMPLE_RATE)
        given = {
            "posterior": np.stack([reads.row(patch, self.card.reads) for patch in patches]),
            "state": np.stack(states),
            "elapsed_s": np.array(elapsed_s, np.float32)[:, None],
        }
        scores, states = self._session.run(OUTPUTS, given)
        self._past |= zip(streams, zip(positions, states, strict=True), strict=True)
        return [self._decide(row) for row in scores]

    def forget(self, stream: int) -> None:
        """Drop the state of a stream whose sound broke off."""
        self._past.pop(stream, None)

    def thresholds(self, on: np.ndarray, off: np.ndarray) -> None:
        """Do nothing: decisions do not depend on them."""

    def refine(self, deadline: float) -> None:
        """Return None: there is nothing to refine."""
        return None

    def _decide(self, given: np.ndarray) -> Decision:
        scores, earlier = (given[0], given[1:]) if self.lags else (given, None)
        return decide(self._naming, scores, earlier)
