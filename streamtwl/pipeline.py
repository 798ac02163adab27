"""The graph: the one place where the stages are joined.

    blocks -> windows -> patches -> drawn -> decided, once or more -> outcomes

It runs synchronously on the thread that pushes the blocks: nothing is queued between stages.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from reactivex import Observable, Subject
from reactivex import operators as ops

from streamtwl.audio.block import Block
from streamtwl.backbones.yamnet import YamNet
from streamtwl.config import (
    EventSettings,
    LabelEventSettings,
    Settings,
    TraceSettings,
    override,
)
from streamtwl.errors import ConfigError, UsageError
from streamtwl.events import Change, EventTracker
from streamtwl.features.window import Windower
from streamtwl.models import registry
from streamtwl.ontology import categories, check_names, vocabulary
from streamtwl.reasoners import graph
from streamtwl.reasoners.card import Card, TraceCard
from streamtwl.reasoners.decision import Decision, Reasoner
from streamtwl.reasoners.evidence import Evidence
from streamtwl.reasoners.gpt2 import Gpt2
from streamtwl.reasoners.naming import OpenLabels
from streamtwl.reasoners.recurrent import Recurrent
from streamtwl.revisions import RevisingTracker
from streamtwl.trace import Drawn, Tracer

_log = logging.getLogger(__name__)

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one patch, or the end of a stretch of sound or of its stream, led to."""

    stream: int
    position: int
    captured_at: float | None
    drawn: Drawn | None  # None at an end
    decision: Decision | None
    changes: list[Change]
    final: bool = True  # False: the patch is being thought about, another decision comes
    last: bool = False  # the stream is over


@dataclass(frozen=True, slots=True)
class Decided:
    """A patch and the newest decision on it."""

    drawn: Drawn
    decision: Decision
    final: bool


class Pipeline:
    """Blocks of several streams in, outcomes out."""

    def __init__(
        self,
        settings: Settings,
        sources: list[str],
        backbone: YamNet,
        reasoner: Reasoner,
        paced: bool,
    ) -> None:
        """`sources` names the streams, by number; the names key their samples.

        Where the sound is `paced`, thinking on ends before the next window is due.
        """
        self.settings = settings
        self.windower = Windower(settings.hop_s)
        self.reasoner = reasoner
        self.tracer = Tracer(sources, settings.trace, settings.hop_s)
        self.events = _tracker(reasoner, settings.events)
        self._budget_s = settings.trace.budget * settings.hop_s if paced else math.inf
        self._blocks: Subject[list[Block]] = Subject()
        self._ends: Subject[Block] = Subject()
        self._outcomes: Observable[Outcome] = self._blocks.pipe(
            _each(self.windower.push),
            ops.map(backbone.score),
            ops.map(self.tracer.draw),
            _each(self._think),
            ops.map(self._track),
            _each(iter),
            ops.merge(self._ends.pipe(ops.map(self._end))),
        )

    def subscribe(self, take: Callable[[Outcome], None]) -> None:
        """Call `take` with each outcome; an error in any stage is raised by `push`."""
        self._outcomes.subscribe(take, on_error=_raise)

    def push(self, blocks: list[Block]) -> None:
        """Take blocks, at most one a stream, and run all that follows from them."""
        self._blocks.on_next(blocks)
        for block in blocks:
            if block.last or block.breaks_off:
                self._ends.on_next(block)

    def pause(self, stream: int, position: int) -> Outcome:
        """End what is open in a stream whose source does not answer; only while nothing is pushed.

        What it gives once it answers joins on, as in a file, but its events begin anew.
        """
        changes = self.events.pause(stream, position)
        return Outcome(stream, position, None, None, None, changes)

    def _think(self, drawn: list[Drawn]) -> Iterator[list[Decided]]:
        """Decide, and decide again while that may change something and there is time."""
        windows = [one.patch.window for one in drawn]
        deadline = min(window.ready_at for window in windows) + self._budget_s
        decisions = self.reasoner.step(
            [window.stream for window in windows],
            [window.position for window in windows],
            np.stack([one.draws.samples for one in drawn]),
            np.stack([one.patch.posterior for one in drawn]),
        )
        reasoner = self.reasoner
        while not reasoner.settled and time.monotonic() + reasoner.refining_s < deadline:
            yield [Decided(*pair, False) for pair in zip(drawn, decisions, strict=True)]
            decisions = reasoner.refine(deadline) or decisions
        yield [Decided(*pair, True) for pair in zip(drawn, decisions, strict=True)]

    def _track(self, decided: list[Decided]) -> list[Outcome]:
        outcomes = []
        for one in decided:
            window, decision = one.drawn.patch.window, one.decision
            stream, position = window.stream, window.position
            changes: list[Change] = []
            if one.final:
                scores = decision.scores, decision.specific, decision.earlier
                changes = self.events.step(stream, position, *scores, window.stretch)
            outcomes.append(
                Outcome(
                    *(stream, position, window.captured_at, one.drawn, decision, changes),
                    final=one.final,
                )
            )
        return outcomes

    def _end(self, block: Block) -> Outcome:
        """End what is open; the reasoner begins anew, as what follows does not join on."""
        stream, position = block.stream, block.position + len(block.samples)
        end = self.events.close if block.last else self.events.pause
        changes = end(stream, position)
        self.reasoner.forget(stream)
        if block.last:
            self.tracer.forget(stream)
        return Outcome(*(stream, position, block.captured_at, None, None, changes), last=block.last)


def build(settings: Settings, sources: list[str], paced: bool = False) -> Pipeline:
    """Make the stages that the settings ask for; the model's file has to be there.

    Raises ConfigError or UsageError where the settings name a label that does not exist.
    """
    reasoner = make_reasoner(settings)
    settings = override(settings, _events(settings.events, reasoner))
    events = settings.events
    try:
        begins = np.array([events.rule(label).on for label in reasoner.labels])
    except ValueError as error:  # rules that fit alone and not together
        raise ConfigError(f"events.{error}") from None
    if isinstance(reasoner, Gpt2):
        reasoner.on = begins
    check_names(events.label, "[events.label]", reasoner.labels)
    check_names(events.include, "events.include", reasoner.labels)
    check_names(events.exclude, "events.exclude", reasoner.labels)
    check_names(events.audioset.label, "[events.audioset.label]", reasoner.labels)
    check_names(events.audioset.exclude, "events.audioset.exclude", reasoner.labels)
    session = registry.session(registry.find(settings.backbone.model), settings.backbone.threads)
    return Pipeline(settings, sources, YamNet(session), reasoner, paced)


def _events(asked: EventSettings, reasoner: Reasoner) -> dict[str, Any]:
    """Return the changes that make the event settings fit the reasoner; what is asked for wins."""
    changes: dict[str, Any] = {}
    brought: Card | LabelEventSettings = LabelEventSettings()
    if isinstance(reasoner, Recurrent | Gpt2) and not reasoner.card.open:
        brought = reasoner.card
        changes["events.audioset"] = {}
    changes["events.on"] = brought.on if asked.on is None else asked.on
    changes["events.off"] = brought.off if asked.off is None else asked.off
    return changes


def make_reasoner(settings: Settings) -> Reasoner:
    """Make the reasoner; one from a file has to fit the rest of the pipeline."""
    asked = settings.reasoner
    if not asked.file or asked.file == Evidence.kind:
        return Evidence(_open_labels(settings), asked.half_life_s)
    file = registry.find_reasoner(asked.file)
    reasoner: Recurrent | Gpt2
    if graph.kind(file) == "gpt2":
        reasoner = Gpt2(file, settings.trace, settings.hop_s, _open_labels(settings))
    else:
        reasoner = Recurrent(file)
    card = reasoner.card
    if settings.labels != "all" and not card.open:
        raise UsageError(
            f"--labels {settings.labels}: the reasoner {card.name} has labels of its own "
            f"({', '.join(card.labels[:3])}, ...); leave --labels out"
        )
    if card.backbone != settings.backbone.model:
        raise UsageError(
            f"--reasoner {asked.file} reads {card.backbone}, not {settings.backbone.model}: "
            "set backbone.model in the pipeline"
        )
    if reasoner.width != len(categories()):
        raise UsageError(
            f"--reasoner {asked.file}: its posterior has {reasoner.width} categories, not "
            f"{card.backbone}'s {len(categories())}"
        )
    if abs(card.hop_s - settings.hop_s) > 1e-6:
        _log.warning(
            "reasoner %s was trained at a hop of %g s, not %g s",
            card.name,
            card.hop_s,
            settings.hop_s,
        )
    if isinstance(reasoner, Gpt2) and card.trace is not None:
        _warn_of_trace(card.name, card.trace, settings.trace)
    return reasoner


def _warn_of_trace(name: str, read: TraceCard, asked: TraceSettings) -> None:
    """Warn of what the reasoner was not trained on, or has no use for."""
    usual = TraceSettings()
    if read.soft and (asked.samples, asked.traces) != (usual.samples, usual.traces):
        _log.warning("reasoner %s draws no samples: --samples and --traces change nothing", name)
    elif not read.soft and not read.samples[0] <= asked.samples <= read.samples[1]:
        _log.warning("reasoner %s was trained at K = %d to %d", name, *read.samples)
    if not read.soft and asked.temperature != read.temperature:
        _log.warning("reasoner %s was trained at a temperature of %g", name, read.temperature)


def _open_labels(settings: Settings) -> OpenLabels:
    asked = settings.reasoner
    return OpenLabels(vocabulary(settings.labels), asked.specific_ratio, asked.floor)


def _tracker(reasoner: Reasoner, settings: EventSettings) -> EventTracker | RevisingTracker:
    if isinstance(reasoner, Gpt2 | Recurrent) and reasoner.lags:
        return RevisingTracker(reasoner.labels, settings, reasoner.lags)
    return EventTracker(reasoner.labels, settings)


def _each(
    stage: Callable[[In], Iterable[Out]],
) -> Callable[[Observable[In]], Observable[Out]]:
    """Make an operator of a stage that gives several results: it emits them one by one, at once.

    Not `flat_map(from_iterable(...))`: that one takes what is raised after it for its own error,
    tells those who have stopped listening because of it, and so it is lost.
    """

    def operator(source: Observable[In]) -> Observable[Out]:
        def subscribe(observer, scheduler=None):
            def on_next(given: In) -> None:
                for each in stage(given):
                    observer.on_next(each)

            return source.subscribe(on_next, observer.on_error, observer.on_completed)

        return Observable(subscribe)

    return operator


def _raise(error: Exception) -> None:
    raise error
