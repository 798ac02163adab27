"""A GPT-2 that reads how each category's scores come and go: the same weights for all categories.

At each hop the categories that score highest are candidates. A candidate is a row with a key-value
cache of its own, all rows of all streams are read in one batch, and each gives one probability for
now and for each of the hops before. All other categories keep what the evidence says. Events are of
the newest hop, and revised; the label in force is by the mean over it and the hops that can still
be revised, so that it changes no more often than the sound. The graph of a reasoner's file takes T
new hops of R rows after up to P read before:

    features float32[R, T, F]: `own` of the category and `around`, see `candidates.py`
    recent float32[R, T, K, V]: the first V of `own`, now and in the K - 1 hops before
    attention_mask bool[R, P + T], position_ids int64[R, T]
    past_key_values.0.key, past_key_values.0.value, ...: float32[R, H, P, E], two a layer
        -> scores float32[R, T, 1 + B] in [0, 1]: of this hop, and of the B before it by now
           present.0.key, present.0.value, ...: float32[R, H, T, E]

A row that is new, or full, begins with the newest hops, as many as half a context.
"""

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

import numpy as np

from streamtwl.errors import UsageError
from streamtwl.reasoners.candidates import Candidates, Hop
from streamtwl.reasoners.fusion import Fusion, sigmoid
from streamtwl.reasoners.gpt2 import PAST, PRESENT, cache_names
from streamtwl.reasoners.graph import Graph
from streamtwl.reasoners.naming import OpenLabels, decide
from streamtwl.reasoners.smoothing import Smoother
from streamtwl.stages import SAMPLE_RATE, Decision, Patch

INPUTS = ["features", "recent", "attention_mask", "position_ids"]
OUTPUTS = ["scores"]


@dataclass(slots=True)
class _Stream:
    """What is kept of a stream: N rows, one a candidate."""

    hops: deque[Hop]  # newest last
    beliefs: deque[np.ndarray]  # float32[C] of the hops before, newest first
    rows: np.ndarray  # int[N], the candidates' categories
    ages: np.ndarray  # int[N], the hops that a row has read
    cache: list[np.ndarray]  # float32[N, H, context, E], each layer's keys and values


class Reader:
    """Steps the graph of a reader's file: a row a candidate, a cache a row."""

    settled = True  # one look at a patch is all there is to it
    refining_s = 0.0

    def __init__(
        self,
        loaded: Graph,
        open_labels: OpenLabels,
        fusion: Fusion,
        kinds: Sequence[Set[int]],
        wanted: np.ndarray,
    ) -> None:
        """Take a reader's file; raises UsageError where it is another's.

        `kinds` are the indices of each category's descendants; only `wanted`, bool[C], are read.
        """
        self._session, self.card, self.sha256 = loaded.session, loaded.card, loaded.sha256
        if self.card.reader is None or not {*INPUTS, *OUTPUTS} <= loaded.shapes.keys():
            raise UsageError(f"--reasoner {loaded.path}: its graph or its card is no reader's")
        self.name, self.open = self.card.name, True
        self.on, self.off = self.card.on, self.card.off
        self.labels = open_labels.labels
        self._naming = open_labels
        self._reads = self.card.reader
        self.behind = round(self._reads.behind_s * SAMPLE_RATE)
        self.lags = loaded.shapes["scores"][-1] - 1
        _, _, self._recent, self._lined = loaded.shapes["recent"]  # K, V
        self._smoother = Smoother(fusion, self._reads.half_life_s)
        self._candidates = Candidates(
            fusion, self._reads.windows, kinds, wanted, self._reads.candidates
        )
        layers = sum(name.startswith(f"{PAST}.") for name in loaded.shapes) // 2
        _, heads, _, width = loaded.shapes[f"{PAST}.0.key"]
        self._cache_shape = heads, self._reads.context, width
        self._past, self._outputs = cache_names(PAST, layers), cache_names(PRESENT, layers)
        self._nothing = np.zeros(len(wanted), np.float32)
        self._streams: dict[int, _Stream] = {}

    def step(self, patches: list[Patch]) -> list[Decision]:
        """Take one new patch of each of S streams."""
        streams = [self._take(patch) for patch in patches]
        scores = [np.empty((len(stream.rows), 1 + self.lags), np.float32) for stream in streams]
        groups: dict[int, list[tuple[int, np.ndarray]]] = defaultdict(list)  # by T
        for s, stream in enumerate(streams):
            new = stream.ages == 0
            for hops, which in ((1, ~new), (min(self._half, len(stream.hops)), new)):
                if which.any():
                    groups[hops].append((s, np.flatnonzero(which)))
        for hops, rows in groups.items():
            read = self._read([(streams[s], which) for s, which in rows], hops)
            for (s, which), found in zip(rows, read, strict=True):
                scores[s][which] = found
        return [self._decide(*each) for each in zip(streams, scores, strict=True)]

    def forget(self, stream: int) -> None:
        """Drop the state of a stream whose sound broke off."""
        self._streams.pop(stream, None)
        self._smoother.forget(stream)

    def thresholds(self, on: np.ndarray, off: np.ndarray) -> None:
        """Do nothing: decisions do not depend on them."""

    def refine(self, deadline: float) -> None:
        """Return None: there is nothing to refine."""
        return None

    @property
    def _half(self) -> int:
        return self._reads.context // 2

    def _take(self, patch: Patch) -> _Stream:
        """Return the stream of a patch, its newest hop, and rows for the candidates of that."""
        stream = self._streams.get(patch.window.stream)
        if stream is None:
            stream = self._streams[patch.window.stream] = self._new()
        stream.hops.append(self._candidates.hop(*self._smoother.push(patch)))
        rows = self._candidates.pick(stream.hops[-1])
        if not len(stream.rows):
            stream.rows = rows
            return stream
        same = stream.rows[:, None] == rows
        stays = same.any(axis=1)
        stream.rows[~stays] = rows[~same.any(axis=0)]
        stream.ages[~stays | (stream.ages == self._reads.context)] = 0  # begins with the newest
        return stream

    def _new(self) -> _Stream:
        count, before = self._candidates.count, [self._nothing.copy() for _ in range(self.lags)]
        return _Stream(
            deque(maxlen=self._half + self._recent - 1),
            deque(before, maxlen=self.lags),
            np.zeros(0, np.intp),
            np.zeros(count, np.intp),
            [np.zeros((count, *self._cache_shape), np.float32) for _ in self._past],
        )

    def _read(
        self, groups: Sequence[tuple[_Stream, np.ndarray]], hops: int
    ) -> Iterator[np.ndarray]:
        """Let some rows of each stream read their newest T hops.

        Yields float32[R, 1 + B] for each stream: the scores of the last hop.
        """
        inputs = [self._inputs(stream, stream.rows[which], hops) for stream, which in groups]
        ages = np.concatenate([stream.ages[which] for stream, which in groups])
        past = int(ages.max())
        there = np.arange(past) < ages[:, None]
        feeds = {
            "features": np.concatenate([features for features, _ in inputs]),
            "recent": np.concatenate([recent for _, recent in inputs]),
            "attention_mask": np.concatenate((there, np.ones((len(ages), hops), bool)), axis=1),
            "position_ids": ages[:, None] + np.arange(hops),
        }
        for i, name in enumerate(self._past):
            feeds[name] = np.concatenate(
                [stream.cache[i][which, :, :past] for stream, which in groups]
            )
        scores, *new = self._session.run([*OUTPUTS, *self._outputs], feeds)
        at = 0
        for stream, which in groups:
            of_stream = slice(at, at + len(which))
            positions = stream.ages[which, None] + np.arange(hops)
            for cached, added in zip(stream.cache, new, strict=True):
                # Indices on both sides of a slice: their dimensions come first, [R, T, H, E]
                cached[which[:, None], :, positions] = added[of_stream].swapaxes(1, 2)
            stream.ages[which] += hops
            at = of_stream.stop
            yield scores[of_stream, -1]

    def _inputs(
        self, stream: _Stream, rows: np.ndarray, hops: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return float32[R, T, F] and float32[R, T, K, V] of some categories' newest T hops."""
        newest = [*stream.hops][-hops - self._recent + 1 :]
        own = np.stack([hop.own[rows] for hop in newest], axis=1)
        around = np.stack([hop.around for hop in newest[-hops:]])
        around = np.broadcast_to(around, (len(rows), *around.shape))
        features = np.concatenate((own[:, -hops:], around), axis=2)
        return features, recent(own[:, :, : self._lined], hops, self._recent)

    def _decide(self, stream: _Stream, scores: np.ndarray) -> Decision:
        """Return the decision; float32[R, 1 + B] are the candidates' scores."""
        now = sigmoid(self._reads.scale * stream.hops[-1].joined + self._reads.shift)
        now[stream.rows] = scores[:, 0]
        for lag, belief in enumerate(stream.beliefs, 1):
            belief[stream.rows] = scores[:, lag]
        beliefs = np.stack([now, *stream.beliefs])
        in_force = beliefs[: len(stream.hops)].mean(axis=0)
        stream.beliefs.appendleft(now)
        return decide(self._naming, now, beliefs[1:], in_force)


def recent(values: np.ndarray, hops: int, count: int) -> np.ndarray:
    """Return float32[R, T, K, V]: of each of the last T hops, and of the K - 1 before it.

    Takes float32[R, n, V] of up to T + K - 1 hops; what was before the first was like the first.
    """
    padding = hops + count - 1 - values.shape[1]
    padded = np.concatenate((np.repeat(values[:, :1], padding, axis=1), values), axis=1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, count, axis=1)  # [R, T, V, K]
    return np.ascontiguousarray(windows[..., ::-1].swapaxes(2, 3))
