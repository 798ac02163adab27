"""A language model that reads the trace of each event, beside the floor that decides at once.

What `evidence` decides is in force at once. When a label has been on for `after_s`, or has ended
before that, the trace of the last seconds goes to the model in words, on another thread. Its answer
comes seconds later, and becomes what second thoughts have always been: newer beliefs on the last
`lags` patches (`Decision.earlier`). On all patches of the event its label's scores go to the label
that the model chose, as do those of patches to come while the sound lasts. The tracker's own rules
then publish `revised`: the same event with another label, or, where the model says none of the
labels, `retracted`. Whatever the model says of an event that began more than `horizon_s` ago, or in
a stretch of sound that is over, changes nothing. A sound that was there before the first patch of
a stretch is not renamed either, as the tracker has it; it ends there and goes on under its new
name. The answer itself, with what the model thought, is in the next `label` message (`thoughts`).

Recordings that nobody waits for (`--fast`, `label`) wait for the answers: `refine`.
"""

import logging
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np

from streamtwl.config import LlmSettings, Settings, TraceSettings
from streamtwl.errors import UsageError
from streamtwl.file_names import one_line
from streamtwl.reasoners import trace_words
from streamtwl.reasoners.endpoint import Answer, Endpoint
from streamtwl.reasoners.evidence import Evidence
from streamtwl.reasoners.prompts import Preset, Prompt, preset, request_fields
from streamtwl.reasoners.sampling import Sampler
from streamtwl.reasoners.server import address_of, key_for
from streamtwl.reasoners.thinker import Thinker
from streamtwl.reasoners.trace_words import Step
from streamtwl.stages import SAMPLE_RATE, Decision, Patch, Thought

_log = logging.getLogger(__name__)

TEXT = 4000  # characters of a thought that are kept
END_S = 5.0  # for the thread, after its request was cancelled


@dataclass(eq=False, slots=True)
class _Event:
    """A label that is on, or was."""

    label: int
    start: int  # position of the first patch's end
    end: int | None = None  # of the first patch on which it is off
    queried: bool = False
    renamed: bool = False
    now: int | None = None  # where it is renamed: the label instead; None: none

    def covers(self, position: int) -> bool:
        """Whether it is on at the patch that ends at `position`."""
        return self.start <= position and (self.end is None or position < self.end)


@dataclass(frozen=True, slots=True)
class _Past:
    """A patch that can still be revised."""

    position: int
    steps: tuple[Step, ...]  # what it says in words, a step a trace
    scores: np.ndarray  # float32[2, L]: scores and specific, as revised by now


@dataclass(eq=False, slots=True)
class _Stream:
    """The stretch of sound that a stream is in."""

    past: deque[_Past]
    on: np.ndarray  # bool[L]
    events: list[_Event] = field(default_factory=list)  # that reach into `past`


@dataclass(frozen=True, slots=True)
class _Query:
    """What the model is to name."""

    stream: _Stream
    event: _Event
    traces: tuple[tuple[Step, ...], ...]
    start_s: float
    end_s: float
    put_at: float  # monotonic


@dataclass(frozen=True, slots=True)
class _Verdict:
    query: _Query
    label: int | None
    text: str
    at: float  # monotonic


class Judge:
    """Votes of a language model on the label of a sound: each of M traces, some times each."""

    def __init__(self, endpoint: Endpoint, prompt: Prompt, chosen: Preset, votes: int) -> None:
        """`votes`: answers a trace."""
        self._endpoint, self._prompt, self._chosen = endpoint, prompt, chosen
        self._votes = votes

    def answers(
        self, traces: Sequence[Sequence[Step]], start_s: float, end_s: float, seed: int = 0
    ) -> list[tuple[int | None, Answer]]:
        """Return (label, answer) of each vote, M times votes; raises EndpointError."""
        options = self._prompt.options
        found = []
        for number, trace in enumerate(traces):
            if self._chosen.api == "chat":
                prompt: Any = self._prompt.messages(trace, start_s, end_s)
            else:
                prompt = self._prompt.text(trace, start_s, end_s)
            for vote in range(self._votes):
                key = (seed * len(traces) + number) * self._votes + vote
                answer = self._endpoint.choose(prompt, list(options), 2 * key)
                found.append((options[answer.option], answer))
        return found


class Llm:
    """The floor, and a language model's second thoughts on its events."""

    name, sha256 = "llm", ""
    refining_s = sys.float_info.max  # it fits where there is no deadline, and only there

    def __init__(
        self, floor: Evidence, names: Sequence[str], settings: Settings, sources: Sequence[str]
    ) -> None:
        """`names` are the categories that the floor scores.

        Raises UsageError where the settings name no server or do not fit one another.
        """
        chosen, trace = settings.llm, settings.trace
        self.open, self.on, self.off = floor.open, floor.on, floor.off
        self.labels, self.behind = floor.labels, floor.behind
        self.lags = round(trace.horizon_s / settings.hop_s)
        self._floor, self._names = floor, names
        self._settings, self._hop_s = chosen, settings.hop_s
        self._on = self._off = np.full(len(self.labels), np.inf, np.float32)
        self._streams: dict[int, _Stream] = {}
        self._newest: list[tuple[int, Decision]] = []  # stream, the floor's decision
        self.waiting = False  # for the model, as it may where there is no deadline
        self.stop_requested: Callable[[], int] = lambda: 0  # polled meanwhile
        self._sampler = None
        if chosen.trace == "sampled":
            numbers = (trace.samples, trace.traces, trace.temperature, trace.seed)
            self._sampler = Sampler(sources, *numbers)
        elif (trace.samples, trace.traces) != (TraceSettings().samples, TraceSettings().traces):
            _log.warning(
                "nothing is drawn for the language model: for --samples and --traces set trace = "
                '"sampled" under [llm]'
            )
        kind = preset_of(chosen)
        prompt = Prompt(kind, self.labels, True, self._sampler is not None)
        self._endpoint = connect(chosen, kind)
        self._judge = Judge(self._endpoint, prompt, kind, chosen.votes)
        self._thinker: Thinker[_Query, _Verdict] = Thinker(self._think, self._endpoint.close)

    @property
    def settled(self) -> bool:
        """Whether no answer is to be expected soon, or waited for."""
        return self._thinker.idle or bool(self.stop_requested())

    def step(self, patches: list[Patch]) -> list[Decision]:
        """Take one new patch of each of S streams; never waits for the model."""
        scored = [self._floor.score(patch) for patch in patches]
        decisions = [self._floor.decision(scores) for scores in scored]
        self._newest = [
            (patch.window.stream, decision)
            for patch, decision in zip(patches, decisions, strict=True)
        ]
        for patch, scores, decision in zip(patches, scored, decisions, strict=True):
            self._take(patch, scores, decision)
        return self._decide(0)

    def refine(self, deadline: float) -> list[Decision] | None:
        """Wait for the model, where there is no deadline; return the decisions by now."""
        self.waiting = True
        self._thinker.wait(self.stop_requested)
        self.waiting = False
        return self._decide(1)

    def forget(self, stream: int) -> None:
        """Drop a stream's state; answers on its events change nothing any more."""
        self._streams.pop(stream, None)
        self._floor.forget(stream)
        if self._sampler is not None:
            self._sampler.forget(stream)

    def thresholds(self, on: np.ndarray, off: np.ndarray) -> None:
        """Take float32[L]: events of which labels the model is to look at."""
        self._on, self._off = on, off

    def figures(self) -> dict[str, Any]:
        """Return the fields of `Status` that are about the model."""
        return self._thinker.figures()

    def close(self) -> None:
        """End the request in progress and the thread."""
        self._thinker.close()
        self._endpoint.cancel()
        self._thinker.join(END_S)

    # --- on the stream's thread ---

    def _take(self, patch: Patch, scores: np.ndarray, decision: Decision) -> None:
        """Note a patch, and put the newest event that wants a look to the model."""
        at = patch.window
        new = _Stream(deque(maxlen=self.lags + 1), np.zeros(len(self.labels), bool))
        stream = self._streams.setdefault(at.stream, new)
        both = np.stack((decision.scores, decision.specific))
        stream.on = (both[1] >= self._on) | (stream.on & (both[0] >= self._off))
        _follow(stream, at.position)
        for event in stream.events:
            if event.renamed and event.end is None:
                _rename(both, event)
        stream.past.append(_Past(at.position, self._steps(patch, scores), both))
        stream.events = [
            event
            for event in stream.events
            if event.end is None or event.end >= stream.past[0].position
        ]
        for event in stream.events:
            lasted_s = (at.position - event.start) / SAMPLE_RATE
            due = event.end is not None or lasted_s >= self._settings.after_s
            if due and not event.queried:
                event.queried = True
                self._thinker.put(self._query(stream, event))

    def _steps(self, patch: Patch, scores: np.ndarray) -> tuple[Step, ...]:
        """Return a patch in words, M times where it is sampled."""
        if self._sampler is None:
            said = [trace_words.confidences(scores, self._names)]
        else:
            drawn = self._sampler.draw(patch.window.stream, scores)[:, :, 0]
            said = [trace_words.draws(each, self._names) for each in drawn]
        at = patch.window.position
        return tuple(trace_words.step(at, self.behind, self._hop_s, names) for names in said)

    def _query(self, stream: _Stream, event: _Event) -> _Query:
        covered = [past.steps[0] for past in stream.past if event.covers(past.position)]
        traces = tuple(zip(*(past.steps for past in stream.past), strict=True))
        span = covered or [stream.past[0].steps[0]]
        return _Query(stream, event, traces, span[0].start_s, span[-1].end_s, time.monotonic())

    def _decide(self, refinement: int) -> list[Decision]:
        """Return the decisions on the newest patches, after the answers that have come."""
        thoughts: dict[int, list[Thought]] = {}
        for verdict in self._thinker.take():
            number = next((n for n, s in self._streams.items() if s is verdict.query.stream), None)
            if number is not None:
                thoughts.setdefault(number, []).append(self._apply(verdict))
        return [
            self._decision(self._streams[number], decision, refinement, thoughts.get(number, []))
            for number, decision in self._newest
        ]

    def _apply(self, verdict: _Verdict) -> Thought:
        """Rename the event that an answer is about, unless it has that name already."""
        event = verdict.query.event
        if verdict.label != event.label:
            event.renamed, event.now = True, verdict.label
            for past in verdict.query.stream.past:
                if event.covers(past.position):
                    _rename(past.scores, event)
        return Thought(
            label=None if verdict.label is None else self.labels[verdict.label],
            instead_of=self.labels[event.label],
            start=max(0, event.start - self.behind),
            text=verdict.text,
            latency_ms=1000 * (verdict.at - verdict.query.put_at),
        )

    def _decision(
        self, stream: _Stream, floors: Decision, refinement: int, thoughts: list[Thought]
    ) -> Decision:
        past = list(stream.past)[::-1]
        scores, specific = past[0].scores
        best = int(specific.argmax())
        confidence = float(specific[best])
        label = self.labels[best] if confidence >= self._floor.naming.threshold else None
        earlier = np.stack([each.scores for each in past[1:]]) if past[1:] else None
        return replace(
            floors,
            label=label,
            confidence=confidence,
            scores=scores,
            specific=specific,
            refinement=refinement,
            earlier=earlier,
            thoughts=tuple(thoughts),
        )

    # --- on the thinker's thread ---

    def _think(self, query: _Query) -> _Verdict:
        answers = self._judge.answers(query.traces, query.start_s, query.end_s)
        label = majority([label for label, _ in answers])
        text = next(answer.thought for of, answer in answers if of == label)
        return _Verdict(query, label, text[:TEXT], time.monotonic())


def make(floor: Evidence, names: Sequence[str], settings: Settings, sources: Sequence[str]) -> Llm:
    """Make the reasoner; raises UsageError where the settings name no server."""
    if not settings.llm.endpoint:
        raise UsageError(
            "--reasoner llm: name the language model's server with --endpoint URL, as "
            "http://127.0.0.1:8000/v1"
        )
    return Llm(floor, names, settings, sources)


def preset_of(chosen: LlmSettings) -> Preset:
    """Return the preset that the settings name, with what they change of it."""
    own = {"model": chosen.model, "context": chosen.context, "choose": chosen.choose}
    changes = {name: value for name, value in own.items() if value}
    return msgspec.structs.replace(preset(chosen.preset), **changes)


def connect(chosen: LlmSettings, kind: Preset) -> Endpoint:
    """Return the server that the settings name; raises UsageError."""
    address = address_of(chosen.endpoint)
    if not kind.model:
        raise UsageError(
            f"the preset '{chosen.preset}' has no model of its own: name the one that {address} "
            "serves with --model"
        )
    if not kind.model.isprintable():
        raise UsageError(f"--model {one_line(kind.model)}: no model's name has such characters")
    fields = request_fields(kind, chosen.effort)
    key = key_for(address, chosen.key_env)
    return Endpoint(address, kind, fields, chosen.timeout_s, key)


def majority(votes: Sequence[int | None]) -> int | None:
    """Return what most voted for; the first of them in a tie."""
    return Counter(votes).most_common(1)[0][0]


def _follow(stream: _Stream, position: int) -> None:
    """Begin and end events by the labels that are on at a new patch."""
    still = set()
    for event in stream.events:
        if event.end is None:
            if stream.on[event.label]:
                still.add(event.label)
            else:
                event.end = position
    begun = [int(i) for i in np.flatnonzero(stream.on) if i not in still]
    stream.events += [_Event(label, position) for label in begun]


def _rename(scores: np.ndarray, event: _Event) -> None:
    """Give the event's label's float32[2, L] scores to the label that it has now."""
    if event.now is not None:
        scores[:, event.now] = np.maximum(scores[:, event.now], scores[:, event.label])
    scores[:, event.label] = 0
