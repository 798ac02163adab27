"""What other thresholds would have done: the decisions of a day, as the journal has them.

A decision in the journal names its five strongest labels, so a label that was not among them counts
as 0; a summary's are rounded to thousandths, and 0 below 0.02. Minimum durations and cool-downs are
left out, and so are revisions.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
import numpy as np

from streamtwl.errors import UNDECODABLE
from streamtwl.messages import Scored, Summary
from streamtwl.stages import SAMPLE_RATE
from streamtwl.unrolling import top

GAP_S = 20.0  # without a decision, after which an event would have ended
SHOWN = 8  # newest events
MOST = 400  # labels that are listed


class _Decision(msgspec.Struct):
    """The fields of a Label that matter here."""

    session: str
    source: str
    position: int
    published_at: float
    top: list[Scored]
    captured_at: float | None = None
    summary: Summary | None = None

    def hops(self) -> Iterator[tuple[int, float, list[Scored]]]:
        """Yield position, Unix seconds and `top` of each hop that it stands for."""
        at = self.captured_at if self.captured_at is not None else self.published_at
        if self.summary is None or not self.summary.hops:
            yield self.position, at, self.top
            return
        first, hops = self.summary.first_position, self.summary.hops
        step = (self.position - first) / max(1, len(hops) - 1)
        for i, hop in enumerate(hops):
            position = round(self.position - (len(hops) - 1 - i) * step)
            before_s = (self.position - position) / SAMPLE_RATE
            yield position, at - before_s, top(self.summary.labels, hop)


_as_msgpack = msgspec.msgpack.Decoder(_Decision)
_as_json = msgspec.json.Decoder(_Decision)


class Hops:
    """The scores of each label, hop by hop."""

    def __init__(self, payloads: Iterable[bytes], newest: Iterable[Mapping[str, Any]] = ()) -> None:
        """`payloads` come in the order of their streams; `newest` are decisions of live ones."""
        found: dict[str, list[tuple[int, float]]] = defaultdict(list)
        streams: dict[tuple[str, str], int] = {}
        at: list[tuple[int, int, float]] = []  # stream, position, Unix seconds
        until: dict[int, int] = {}  # stream: position of its last in the journal
        for payload in payloads:
            try:
                hop = (_as_json if payload[:1] == b"{" else _as_msgpack).decode(payload)
            except UNDECODABLE:  # of a version to come, or damaged
                continue
            stream = streams.setdefault((hop.session, hop.source), len(streams))
            for position, when, strongest in hop.hops():
                for each in strongest:
                    found[each.label].append((len(at), each.score))
                at.append((stream, position, when))
            until[stream] = hop.position
        for one in newest:
            stream = streams.setdefault((one["session"], one["source"]), len(streams))
            if one["position"] > until.get(stream, -1):
                for each in one["top"]:
                    found[each.label].append((len(at), each.score))
                at.append((stream, one["position"], one["at"]))
        hops = np.array(at, np.float64).reshape(-1, 3)
        order = np.lexsort((hops[:, 1], hops[:, 0]))
        rank = np.argsort(order)
        self._stream, self._position, self._at = hops[order].T
        self._sources = [source for _, source in streams]
        self._found = {label: np.array(scores) for label, scores in found.items()}
        for scores in self._found.values():
            scores[:, 0] = rank[scores[:, 0].astype(int)]

    def labels(self) -> list[str]:
        """Return the labels that were among the five, those with the highest score first."""
        highest = {label: scores[:, 1].max() for label, scores in self._found.items()}
        return sorted(highest, key=lambda label: -highest[label])[:MOST]

    def events(self, label: str, on: float, off: float) -> dict[str, Any]:
        """Return the number, the seconds and the newest of a label's events at these thresholds."""
        found = self._found.get(label, np.empty((0, 2)))
        scores = np.zeros(len(self._at))
        scores[found[:, 0].astype(int)] = found[:, 1]
        events: list[dict[str, Any]] = []
        breaks = np.ones(len(scores), bool)
        if len(scores):
            gaps = np.diff(self._position) > GAP_S * SAMPLE_RATE
            breaks[1:] = gaps | (np.diff(self._stream) != 0)
        open_at: int | None = None
        for i in np.flatnonzero((scores > 0) | breaks | (np.roll(scores, 1) > 0)).tolist():
            if open_at is not None and (breaks[i] or scores[i] < off):
                events.append(self._event(open_at, i - 1 if breaks[i] else i, scores))
                open_at = None
            if open_at is None and scores[i] >= on and scores[i] > 0:
                open_at = i
        if open_at is not None:
            events.append(self._event(open_at, len(scores) - 1, scores))
        newest = sorted(events, key=lambda event: -event["began_at"])
        return {
            "label": label,
            "hops": len(scores),
            "events": len(events),
            "seconds": round(sum(event["seconds"] for event in events), 1),
            "newest": newest[:SHOWN],
            "highest": round(float(scores.max(initial=0.0)), 3),
        }

    def _event(self, first: int, last: int, scores: np.ndarray) -> dict[str, Any]:
        seconds = (self._position[last] - self._position[first]) / SAMPLE_RATE
        return {
            "source": self._sources[int(self._stream[first])],
            "began_at": round(float(self._at[first]), 2),
            "seconds": round(float(seconds), 2),
            "peak": round(float(scores[first : last + 1].max()), 3),
        }
