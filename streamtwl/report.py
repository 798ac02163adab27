"""Outcomes to wire messages, numbered and stamped."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from streamtwl.audio.intake import Stream
from streamtwl.features.window import SILENCE_DBFS
from streamtwl.messages import (
    JOURNALLED,
    AnyMessage,
    Event,
    Hello,
    Label,
    Level,
    Message,
    Patch,
    Scored,
    Status,
    Thought,
    WindowTop,
    topic,
)
from streamtwl.pipeline import Outcome
from streamtwl.stages import SAMPLE_RATE, Decision

LOUD = "Loud"  # the event that needs no label
TOP = 5
DRAWN = 3


class Reporter:
    """Makes the messages of one session: one run, some sources."""

    def __init__(
        self,
        sources: list[str],
        categories: list[str],
        labels: list[str],
        reasoner: str,
        journalled: bool,
        others: Sequence[list[str]] = (),
    ) -> None:
        """`journalled`: whether there is a journal; labels, events and states then say so.

        `others`: the categories of each of the windows after the first.
        """
        self._others = others
        self._journalled = journalled
        self.session = uuid.uuid4().hex[:16]
        self.hops = [0] * len(sources)
        self.late_hops = [0] * len(sources)
        self.loud = False  # whether there are events of that name
        self._sources = sources
        self._categories, self.labels = categories, labels
        self._reasoner = reasoner
        self._last_seq: dict[str, int] = {}
        self._level_dbfs = [SILENCE_DBFS] * len(sources)
        self._ended = [False] * len(sources)
        self._newest: list[tuple[int, float | None]] = [(0, None)] * len(sources)

    def _captured_at(self, outcome: Outcome) -> float | None:
        """Return when an outcome's position was captured; without a patch, by the newest one's."""
        position, captured_at = self._newest[outcome.stream]
        if outcome.captured_at is None and outcome.patch is None and captured_at is not None:
            return captured_at + (outcome.position - position) / SAMPLE_RATE
        return outcome.captured_at

    def outcome(self, outcome: Outcome, due_s: float | None) -> list[AnyMessage]:
        """Return the messages to publish for an outcome.

        `due_s` is how long after a window the next one is due, None where no source is in real
        time; a first decision that comes later is a late hop.
        """
        messages: list[AnyMessage] = []
        captured_at = self._captured_at(outcome)
        if outcome.patch is not None and outcome.decision is not None:
            window = outcome.patch.window
            latency_s = time.monotonic() - window.ready_at
            # Lateness counts from the capture where that is known: `ready_at` is when it was read.
            age_s = latency_s if captured_at is None else time.time() - captured_at
            self._level_dbfs[outcome.stream] = window.level_dbfs
            decision = outcome.decision
            if not decision.refinement:
                self.hops[outcome.stream] += 1
                self.late_hops[outcome.stream] += due_s is not None and age_s > due_s
                messages.append(
                    self._seal(
                        Patch,
                        outcome.stream,
                        outcome.position,
                        captured_at,
                        top=_top(self._categories, outcome.patch.posterior),
                        level_dbfs=window.level_dbfs,
                        drawn=self._trace(outcome.patch.posterior, decision),
                        others=[
                            WindowTop(score.window, _top(names, score.posterior))
                            for names, score in zip(
                                self._others, outcome.patch.scores[1:], strict=True
                            )
                        ],
                    )
                )
            messages.append(
                self._seal(
                    Label,
                    outcome.stream,
                    outcome.position,
                    captured_at,
                    label=decision.label,
                    confidence=_share(decision.confidence),
                    top=_top(
                        self.labels,
                        decision.specific if decision.in_force is None else decision.in_force,
                    ),
                    reasoner=self._reasoner,
                    samples=decision.samples,
                    traces=decision.traces,
                    refinement=decision.refinement,
                    latency_ms=1000 * latency_s,
                    thoughts=[Thought(**asdict(each)) for each in decision.thoughts],
                )
            )
        self._ended[outcome.stream] = outcome.last
        self._newest[outcome.stream] = (outcome.position, captured_at)
        for phase, event in outcome.changes:
            messages.append(
                self._seal(
                    Event,
                    outcome.stream,
                    outcome.position,
                    captured_at,
                    id=f"{self.session}-{self._sources[outcome.stream]}-{event.number}",
                    phase=phase,
                    label=event.label,
                    start=event.start,
                    end=event.end,
                    peak=_share(event.peak),
                    mean=_share(event.mean),
                    retracted=event.retracted,
                )
            )
        return messages

    def levels(self, stream: Stream) -> list[AnyMessage]:
        """Return the messages on what a stream's meter has measured since the last call."""
        messages: list[AnyMessage] = []
        if (meter := stream.meter) is None:
            return messages
        number = stream.number
        while meter.minutes:
            minute = asdict(meter.minutes.popleft())
            position, captured_at = self._at(number, minute.pop("position"))
            figures = {
                name.replace("_db", "_dba") if name != "leq_dbfs" else name: value
                for name, value in minute.items()
            }
            messages.append(
                self._seal(
                    Level, number, position, captured_at, **figures, calibrated=meter.calibrated
                )
            )
        while meter.crossings:
            crossing = meter.crossings.popleft()
            position, captured_at = self._at(number, crossing.end or crossing.start)
            messages.append(
                self._seal(
                    Event,
                    number,
                    position,
                    captured_at,
                    id=f"{self.session}-{self._sources[number]}-loud-{crossing.number}",
                    phase=crossing.phase,
                    label=LOUD,
                    start=crossing.start,
                    end=crossing.end,
                    peak=1.0,
                    mean=1.0,
                )
            )
        return messages

    def _at(self, stream: int, position: int) -> tuple[int, float | None]:
        """Return a position, and its wall clock as the newest outcome dates it."""
        known, captured_at = self._newest[stream]
        if captured_at is not None:
            captured_at += (position - known) / SAMPLE_RATE
        return position, captured_at

    def hello(
        self,
        stream: int,
        settings: dict,
        models: dict[str, str],
        replay: str | None,
        providers: dict[str, str],
    ) -> Hello:
        """Return a source's hello: its labels, settings and models, and what runs these."""
        return self._seal(
            Hello,
            stream,
            *self._newest[stream],
            labels=[*self.labels, LOUD] if self.loud else self.labels,
            settings=settings,
            models=models,
            replay=replay,
            providers=providers,
        )

    def status(self, stream: Stream, stuck: str | None = None, **figures: Any) -> Status:
        """Return a stream's status; `figures` are those that only the session knows.

        `stuck` is why the worker makes no progress, None if it does.
        """
        source, number = stream.source, stream.number
        over = source.state == "ended" and self._ended[number]  # and its tail has been published
        state = "listening" if source.state == "ended" and not over else stream.state
        status = self._seal(
            Status,
            number,
            *self._newest[number],
            state="stalled" if stuck else state,
            level_dbfs=self._level_dbfs[number],
            dropped_samples=stream.dropped_samples,
            bad_samples=stream.bad_samples,
            clipped_samples=stream.clipped_samples,
            overflows=source.overflows,
            reopened=source.reopened,
            clock_jumps=stream.wall_jumps(),
            hops=self.hops[number],
            late_hops=self.late_hops[number],
            capture_delay_ms=stream.capture_delay_ms,
            resampling_delay_ms=stream.resampling_delay_ms,
            level_dba=stream.meter.fast_db if stream.meter else None,
            calibrated=stream.meter.calibrated if stream.meter else False,
            last_seq={},
            error=stuck or (str(stream.error) if stream.error else source.error or stream.silent),
            **figures,
        )
        suffix = f"/{source.name}/"
        status.last_seq = {t: n for t, n in self._last_seq.items() if t.endswith(suffix)}
        return status

    def _trace(self, posterior: np.ndarray, decision: Decision) -> list[Scored]:
        """Return the categories drawn most often for a patch, over all traces.

        For a soft trace, the expectation of many samples: the posterior's own shares.
        """
        if not decision.traces:
            return []
        if decision.drawn is not None:
            categories, counts = np.unique(decision.drawn, return_counts=True)
        else:
            categories, counts = np.arange(len(posterior)), posterior
        most = np.argsort(-counts, kind="stable")[:DRAWN]
        shares = counts / max(counts.sum(), 1e-9)
        return [Scored(self._categories[categories[i]], round(float(shares[i]), 4)) for i in most]

    def _seal(
        self,
        kind: type[Message],
        stream: int,
        position: int,
        captured_at: float | None,
        **body: Any,
    ) -> Any:
        """Make a message of a kind with the next number of its topic, stamped now."""
        named = topic(kind, self._sources[stream])
        seq = self._last_seq[named] = self._last_seq.get(named, -1) + 1
        if issubclass(kind, JOURNALLED):
            body["journalled"] = self._journalled
        return kind(
            source=self._sources[stream],
            session=self.session,
            seq=seq,
            position=position,
            captured_at=captured_at,
            published_at=time.time(),
            **body,
        )


def _share(score: float) -> float:
    """Return a confidence that float32 may have rounded out of [0, 1]."""
    return min(1.0, max(0.0, score))


def _top(names: list[str], scores: np.ndarray) -> list[Scored]:
    """Return the strongest few, strongest first."""
    strongest = np.argsort(-scores, kind="stable")[:TOP]
    return [Scored(names[i], round(float(scores[i]), 4)) for i in strongest]
