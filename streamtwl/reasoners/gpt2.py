"""A GPT-2, or another causal language model, that reads the growing trace and decides again.

The graph of a reasoner's file takes one patch of R rows, each a trace of T new tokens after up to P
read before:

    tokens int64[R, T, 2]: category (C: the boundary), confidence bin; the boundary is the last
    posterior float32[R, F]: the row that the card's `reads` make of the patch (`reads.py`); it
        begins with the posterior of C categories that the samples are drawn from
    state float32[R, D], elapsed_s float32[R, 1]: the residual path's
    attention_mask bool[R, P + T], position_ids int64[R, T]
    past_key_values.0.key, past_key_values.0.value, ...: float32[R, H, P, E], two a layer
        -> scores float32[R, 1 + B, L] in [0, 1]: of this patch, and of the B before it by now
           new_state float32[R, D], present.0.key, present.0.value, ...: float32[R, H, T, E]

A row is full after `capacity` patches. The context slides without a pause: halfway through a row's
life a second one begins beside it and reads the same patches; when the first is full, the second
has read its newest half, and takes over. So the prefix is read patch by patch as it comes, and no
step takes more than two rows per trace. Rows of different traces are full at different moments. A
trace that missed patches, because the others were sure, reads them when it is needed; if there are
too many, it begins again from the newest half. Where sound broke off every trace begins anew.
"""

import itertools
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from streamtwl.config import TraceSettings
from streamtwl.errors import UsageError
from streamtwl.reasoners import graph, reads
from streamtwl.reasoners.graph import Graph
from streamtwl.reasoners.naming import OwnLabels, decide
from streamtwl.reasoners.sampling import Sampler, confidence_bin
from streamtwl.stages import SAMPLE_RATE, Decision, Patch

ENDLESS_S = 1e9
INPUTS = ["tokens", "posterior", "state", "elapsed_s", "attention_mask", "position_ids"]
OUTPUTS = ["scores", "new_state"]
PAST, PRESENT = "past_key_values", "present"  # and one of cache_names
GROUP = 4  # traces that advance together
SETTLED = 2.0  # standard errors between a label's mean score and a threshold
FORGET = 0.9  # of the longest time that a read took, with each read


@dataclass(slots=True)
class _Row:
    """One reading of a trace, from some patch on."""

    cache: list[np.ndarray]  # float32[H, capacity x T, E], each layer's key and value
    full_at: int  # patches
    age: int = 0  # patches read


@dataclass(slots=True)
class _Trace:
    """A trace's rows: the current one decides; halfway through its life a successor begins."""

    current: _Row
    successor: _Row | None = None
    missed: int = 0  # patches before the newest that it has not read yet


@dataclass(slots=True)
class _Input:
    """One patch of one stream, as every trace reads it."""

    tokens: np.ndarray  # int64[M, T, 2]
    row: np.ndarray  # float32[F]
    state: np.ndarray  # float32[D] of the residual path, before the patch
    elapsed_s: np.ndarray  # float32[1]


@dataclass(slots=True)
class _StreamTraces:
    state: np.ndarray  # float32[D], the residual path's
    traces: list[_Trace]
    recent: deque[_Input]  # half a life of patches
    position: int | None = None


@dataclass(slots=True)
class _Step:
    """The newest patch of each of S streams, while its decision is being refined."""

    streams: list[_StreamTraces]
    drawn: list[np.ndarray] | None  # S x int[M, K]: the categories that were drawn for it
    scores: list[list[np.ndarray]] = field(default_factory=list)  # S x traces: float32[1 + B, L]
    advanced: int = 0  # traces that have advanced
    refinement: int = 0


class Gpt2:
    """Steps the graph of a reasoner's file: M traces a stream, a cache a trace."""

    behind = 0  # it was trained on what sounds at the end of a window

    def __init__(
        self,
        loaded: Graph,
        settings: TraceSettings,
        hop_s: float,
        sources: Sequence[str] = (),
    ) -> None:
        """Take a reasoner's file; raises UsageError where its graph or its trace does not fit.

        `sources` names the streams, by number; the names key their samples.
        """
        graph.check(loaded, INPUTS, OUTPUTS)
        self._session, self.card, self.sha256 = loaded.session, loaded.card, loaded.sha256
        read = self.card.trace
        if read is None:
            raise UsageError(
                f"--reasoner {loaded.path}: its card does not say how it reads a trace"
            )
        self.name, self.open = self.card.name, False
        self.on, self.off = self.card.on, self.card.off
        self.labels = self.card.labels
        self._naming = OwnLabels(self.labels, self.card.on)
        self.lags = loaded.shapes["scores"][1] - 1
        self.width = loaded.shapes["posterior"][1]  # F
        self.categories = read.categories or self.width  # C
        self._state_size = loaded.shapes["state"][1]
        self._layers = sum(name.startswith(f"{PAST}.") for name in loaded.shapes) // 2
        _, heads, _, width = loaded.shapes[f"{PAST}.0.key"]
        self._soft = read.soft
        self._samples = 0 if read.soft else settings.samples
        self._traces = 1 if read.soft else settings.traces
        self._group = self._traces if settings.think == "fixed" else GROUP
        if settings.think == "off":
            self._traces = 1
        self._sampler = Sampler(
            sources, self._samples, self._traces, settings.temperature, settings.seed
        )
        n_tokens = self._samples + 1
        self.capacity = min(read.context // n_tokens, round(settings.horizon_s / hop_s))
        if self.capacity < 2:
            raise UsageError(
                f"--samples {self._samples}: {read.context} tokens, which is all that "
                f"{self.card.name} takes, or horizon_s is not room for two patches"
            )
        self._cache_shape = (heads, self.capacity * n_tokens, width)
        self._past = cache_names(PAST, self._layers)
        self._outputs = [*OUTPUTS, *cache_names(PRESENT, self._layers)]
        self._begins = np.full(len(self.labels), self.on)
        self._streams: dict[int, _StreamTraces] = {}
        self._patch: _Step | None = None
        self._read_s = 0.0  # that a read takes, as lately measured

    def step(self, patches: list[Patch]) -> list[Decision]:
        """Take one new patch of each of S streams; the first group of traces decides."""
        streams = [patch.window.stream for patch in patches]
        rows = np.stack([reads.row(patch, self.card.reads) for patch in patches])
        samples = np.empty((len(patches), self._traces, 0, 2), np.int16)
        if self._samples:
            drawn = zip(streams, rows[:, : self.categories], strict=True)
            samples = np.stack([self._sampler.draw(*each) for each in drawn])
        positions = [patch.window.position for patch in patches]
        return self.read(streams, positions, samples, rows)

    def read(
        self,
        streams: list[int],
        positions: list[int],
        samples: np.ndarray,
        rows: np.ndarray,
    ) -> list[Decision]:
        """Read one new patch of each of S streams: int16[S, M, K, 2], float32[S, F].

        The first group of traces advances, and decides.
        """
        self._retire()
        known = []
        tokens = self._tokens(samples, rows[:, : self.categories])
        for i, (number, position) in enumerate(zip(streams, positions, strict=True)):
            stream = self._stream(number)
            before, stream.position = stream.position, position
            elapsed_s = ENDLESS_S if before is None else (position - before) / SAMPLE_RATE
            since = np.array([elapsed_s], np.float32)
            stream.recent.append(_Input(tokens[i], rows[i], stream.state, since))
            known.append(stream)
        drawn = list(samples[..., 0]) if self._samples else None
        self._patch = _Step(known, drawn, [[] for _ in known])
        return self._advance(self._patch)

    def refine(self, deadline: float) -> list[Decision] | None:
        """Let the next group of traces read the patch; None when settled, or it is too late."""
        patch = self._patch
        if patch is None or self.settled or time.monotonic() + self.refining_s >= deadline:
            return None
        patch.refinement += 1
        return self._advance(patch)

    @property
    def refining_s(self) -> float:
        """Seconds that the next group will take: of this patch, and of those that it missed."""
        patch = self._patch
        if patch is None:
            return 0.0
        missed = [
            max(stream.traces[m].missed for m in self._next(patch)) for stream in patch.streams
        ]
        return (1 + sum(missed)) * self._read_s

    @property
    def settled(self) -> bool:
        """Whether all traces have read the newest patches, or the decision is clear."""
        patch = self._patch
        return patch is None or patch.advanced >= self._traces or self._is_clear(patch)

    def forget(self, stream: int) -> None:
        """Drop the state of a stream whose sound broke off."""
        self._streams.pop(stream, None)
        self._sampler.forget(stream)

    def thresholds(self, on: np.ndarray, off: np.ndarray) -> None:
        """Take float32[L] where an event of each label begins: scores near it are refined."""
        self._begins = on

    def _stream(self, number: int) -> _StreamTraces:
        """Return a stream, its traces at their beginning where it is new."""
        stream = self._streams.get(number)
        if stream is None:
            state = np.zeros(self._state_size, np.float32)
            traces = [_Trace(self._row(self._life(m))) for m in range(self._traces)]
            stream = _StreamTraces(state, traces, deque(maxlen=self.capacity // 2))
            self._streams[number] = stream
        return stream

    def _life(self, trace: int) -> int:
        """Return the patches of a trace's first row: over half a context, another for each."""
        half = self.capacity // 2
        return self.capacity - half + max(1, round((trace + 1) / self._traces * half))

    def _row(self, full_at: int) -> _Row:
        cache = [np.zeros(self._cache_shape, np.float32) for _ in range(2 * self._layers)]
        return _Row(cache, full_at)

    def _retire(self) -> None:
        """Count the patches that traces missed; one that missed more than are kept begins anew."""
        patch = self._patch
        if patch is None:
            return
        for stream in patch.streams:
            for m, trace in enumerate(stream.traces[patch.advanced :], patch.advanced):
                trace.missed += 1
                most = min(len(stream.recent), self.capacity // 2 - 1)  # kept beside the next one
                if trace.missed > most:
                    trace.missed = most
                    if trace.current.age:
                        trace.current, trace.successor = self._row(self._life(m)), None

    def _tokens(self, samples: np.ndarray, posteriors: np.ndarray) -> np.ndarray:
        """Return int64[S, M, T, 2]: the samples, and the boundary with the total score's bin."""
        totals = confidence_bin(posteriors.sum(axis=1))
        boundary = np.stack((np.full_like(totals, self.categories), totals), axis=-1)
        boundary = np.broadcast_to(boundary[:, None, None], (len(totals), self._traces, 1, 2))
        drawn = samples[:, : self._traces, : self._samples]
        return np.concatenate((drawn, boundary), axis=2).astype(np.int64)

    def _next(self, patch: _Step) -> range:
        """Return the traces of the group that is next."""
        last = self._traces - 1
        return range(min(patch.advanced, last), min(patch.advanced + self._group, self._traces))

    def _advance(self, patch: _Step) -> list[Decision]:
        """Let one group of traces read the patch; decide by all that have."""
        group = self._next(patch)
        for stream in patch.streams:
            for ago in range(max(stream.traces[m].missed for m in group), 0, -1):
                late = [m for m in group if stream.traces[m].missed >= ago]
                self._read([stream], late, [stream.recent[-1 - ago]])
            for m in group:
                stream.traces[m].missed = 0
        read = self._read(patch.streams, group, [stream.recent[-1] for stream in patch.streams])
        for s, m, row, scores, state in read:
            stream = patch.streams[s]
            stream.state = state
            if row is stream.traces[m].current:
                patch.scores[s].append(scores)
        patch.advanced = group.stop
        return [self._decide(patch, s) for s in range(len(patch.streams))]

    def _renew(self, trace: _Trace) -> None:
        """Begin a successor, or let it take over, when due."""
        current, half = trace.current, self.capacity // 2
        if current.age >= current.full_at:
            assert trace.successor is not None  # it began half a life ago
            current = trace.current = trace.successor
            trace.successor = None
        if trace.successor is None and current.age >= current.full_at - half:
            trace.successor = self._row(self.capacity)

    def _read(
        self, streams: list[_StreamTraces], traces: Iterable[int], inputs: list[_Input]
    ) -> list[tuple[int, int, _Row, np.ndarray, np.ndarray]]:
        """Let traces of S streams read a patch each, in one call.

        Returns (stream's index, trace, row, its scores, the residual path's state) of R rows.
        """
        began = time.monotonic()
        rows: list[tuple[int, int, _Row]] = []
        for (s, stream), m in itertools.product(enumerate(streams), traces):
            trace = stream.traces[m]
            self._renew(trace)
            rows += [(s, m, row) for row in (trace.current, trace.successor) if row is not None]
        n_tokens = self._samples + 1
        of_rows = [inputs[s] for s, _, _ in rows]
        lengths = np.array([row.age * n_tokens for _, _, row in rows])
        n_past = int(lengths.max())
        present = np.arange(n_past) < lengths[:, None]
        feeds = {
            "tokens": np.stack([inputs[s].tokens[m] for s, m, _ in rows]),
            "posterior": np.stack([each.row for each in of_rows]),
            "state": np.stack([each.state for each in of_rows]),
            "elapsed_s": np.stack([each.elapsed_s for each in of_rows]),
            "attention_mask": np.concatenate((present, np.ones((len(rows), n_tokens), bool)), 1),
            "position_ids": lengths[:, None] + np.arange(n_tokens),
        }
        for i, name in enumerate(self._past):
            feeds[name] = np.stack([row.cache[i][:, :n_past] for _, _, row in rows])
        scores, states, *new = self._session.run(self._outputs, feeds)
        for i, (_, _, row) in enumerate(rows):
            for cached, added in zip(row.cache, new, strict=True):
                cached[:, row.age * n_tokens : (row.age + 1) * n_tokens] = added[i]
            row.age += 1
        self._read_s = max(FORGET * self._read_s, time.monotonic() - began)
        return [(*row, scores[i], states[i]) for i, row in enumerate(rows)]

    def _decide(self, patch: _Step, s: int) -> Decision:
        scores = np.mean(patch.scores[s], axis=0)
        rows = [t.current for t in patch.streams[s].traces[: patch.advanced]]
        return replace(
            decide(self._naming, scores[0], scores[1:]),
            samples=self._samples * sum(row.age for row in rows),
            drawn=None if patch.drawn is None else patch.drawn[s].ravel(),
            traces=len(patch.scores[s]),
            refinement=patch.refinement,
        )

    def _is_clear(self, patch: _Step) -> bool:
        """Whether no label is likely to be named, or to begin, whatever the other traces say."""
        named = np.full(len(self.labels), self._naming.threshold)
        for scores in patch.scores:
            now = np.stack([self._naming.label(each[0]) for each in scores])  # traces, 2, labels
            error = now.std(axis=0, ddof=1) / np.sqrt(len(now)) if len(now) > 1 else np.inf
            near = np.abs(now.mean(axis=0) - np.stack((self._begins, named))) < SETTLED * error
            if near.any():
                return False
        return True


def cache_names(of: str, layers: int) -> list[str]:
    """Return what the keys and values of each layer are called in a graph, as optimum does."""
    return [f"{of}.{layer}.{part}" for layer in range(layers) for part in ("key", "value")]
