"""The graph: the one place where the stages are joined.

    blocks -> windows -> patches -> decisions, one or more a patch -> changes of events -> outcomes

It runs synchronously on the thread that pushes the blocks: nothing is queued between stages.
"""

import itertools
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any, cast

import msgspec
import numpy as np

from streamtwl import config, plugins
from streamtwl.backbones import causal, efficientat, own, yamnet
from streamtwl.backbones.bank import Bank
from streamtwl.config import EventSettings, Settings, override, with_windows
from streamtwl.errors import ConfigError
from streamtwl.events import EventTracker
from streamtwl.features.window import Windower, frames_in, samples_in
from streamtwl.marks.corrections import Corrections, of_user
from streamtwl.models import own as own_models
from streamtwl.ontology import check_names
from streamtwl.reasoners import choice
from streamtwl.reasoners.corrected import Corrected
from streamtwl.reasoners.gate import Gate
from streamtwl.reasoners.taught import Taught
from streamtwl.sounding import Change
from streamtwl.sounds.heads import OFF, ON, Heads
from streamtwl.sounds.teaching import Teacher, sounds_of_user
from streamtwl.stages import (
    SAMPLE_RATE,
    Backbone,
    BackboneFactory,
    Block,
    Decision,
    End,
    Patch,
    Reasoner,
    Window,
    WindowKind,
)

_log = logging.getLogger(__name__)

BACKBONES: dict[str, BackboneFactory] = {
    "yamnet": yamnet.make,
    **dict.fromkeys(efficientat.NAMES, efficientat.make),
    causal.NAME: causal.make,
}


def _nothing() -> None:
    """Do what a reasoner without a thread of its own does at the end."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one patch, or of the end of a stretch of sound."""

    stream: int
    position: int
    captured_at: float | None
    patch: Patch | None  # None where sound broke off
    decision: Decision | None
    changes: list[Change]
    final: bool = True  # False: the decision is being refined, another one follows
    last: bool = False  # the stream is over


class Pipeline:
    """Blocks of several streams in, outcomes out."""

    def __init__(
        self,
        settings: Settings,
        backbones: Sequence[Backbone],
        kinds: Sequence[WindowKind],
        reasoner: Reasoner,
        paced: bool,
        teacher: Teacher | None = None,
        ahead: int = 1,
        threads: int = 1,
    ) -> None:
        """Where the sound is `paced`, refinement ends before the next window is due.

        `ahead`: so many windows, of any hops and streams, are scored in one go; 1: each hop's.
        More `threads` score while this one reads on and decides.
        """
        self.settings = settings
        self.kinds = kinds
        self.windower = Windower(settings.hop_s, backbones, kinds)
        self._gate = Gate(settings, backbones, kinds) if settings.gate else None
        self.bank = Bank(backbones, kinds, self._gate)
        self.reasoner = reasoner
        self._without_taught = reasoner
        self.teacher = teacher or Teacher(backbones, kinds)
        self.events = tracker(reasoner, settings.events)
        self._budget_s = settings.trace.budget * settings.hop_s if paced else math.inf
        self._takers: list[Callable[[Outcome], None]] = []
        # A gate decides hop by hop what is scored
        self._ahead = 1 if settings.gate else ahead
        self._cuts: list[list[Window]] = []  # that wait to be scored together
        self._scorers = None if threads == 1 or settings.gate else ThreadPoolExecutor(threads)
        self._threads = threads
        self._scoring: deque[tuple[list[list[Window]], Future[list[Patch]]]] = deque()

    def subscribe(self, take: Callable[[Outcome], None]) -> Callable[[], None]:
        """Call `take` with each outcome, on the thread that pushes, until what is returned is."""
        self._takers.append(take)
        return lambda: self._takers.remove(take)

    def push(self, blocks: list[Block]) -> None:
        """Take blocks, at most one per stream, and run all stages on them.

        Raises what a stage or a subscriber to the outcomes raises.
        """
        for cut in self.windower.push(blocks):
            if isinstance(cut, End):
                self._flush()
                self._give([self._end(cut)])
                continue
            self._cuts.append(cut)
            if sum(map(len, self._cuts)) >= self._ahead:
                self._score()

    def push_scored(self, scored: list[Patch] | End) -> None:
        """Take patches of a hop, at most one per stream, that were scored elsewhere, or an end."""
        if isinstance(scored, End):
            self._give([self._end(scored)])
        else:
            self._give(self._think(scored))

    def _score(self) -> None:
        """Score the windows that wait in one go, and decide on them hop by hop."""
        cuts, self._cuts = self._cuts, []
        windows = [window for cut in cuts for window in cut]
        if self._scorers is None:
            self._decide(cuts, self.bank.score(windows, self._deadline(windows)))
            return
        self._scoring.append((cuts, self._scorers.submit(self.bank.score, windows)))
        while len(self._scoring) > self._threads:
            self._decide_on_oldest()

    def _flush(self) -> None:
        """Score and decide on all that waits."""
        if self._cuts:
            self._score()
        while self._scoring:
            self._decide_on_oldest()

    def _decide_on_oldest(self) -> None:
        cuts, scored = self._scoring.popleft()
        self._decide(cuts, scored.result())

    def _decide(self, cuts: list[list[Window]], scored: list[Patch]) -> None:
        patches = iter(scored)
        for cut in cuts:
            self._give(self._think([*itertools.islice(patches, len(cut))]))

    def _give(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            for take in self._takers:
                take(outcome)

    def close(self) -> None:
        """End what the reasoner has begun, a request that nobody waits for any more."""
        if self._scorers is not None:
            self._scorers.shutdown(wait=False, cancel_futures=True)
        getattr(self.reasoner, "close", _nothing)()

    def learn(self, heads: Heads | None, corrections: Corrections | None = None) -> list[Outcome]:
        """Have these taught sounds, or none, beside the reasoner's own labels; not during `push`.

        `corrections` lower the labels that the user marked wrong.
        All windows are then scored at every hop. Returns the ends of the events of those before.
        """
        own = self._without_taught
        self.reasoner = own if heads is None else cast(Reasoner, Taught(own, heads))
        if corrections is not None:
            self.reasoner = cast(Reasoner, Corrected(self.reasoner, corrections))
        self.bank.gate = self._gate if heads is None else None
        events = with_rules(self.settings.events, heads)
        ended = self.events.replace_labels(len(own.labels), self.reasoner.labels, events)
        return [
            Outcome(stream, position, None, None, None, changes)
            for stream, position, changes in ended
        ]

    def pause(self, stream: int, position: int) -> Outcome:
        """End what is open in a stream whose source does not answer; not during `push`.

        Sound that comes once it answers continues without a gap, as in a file, but its events
        begin anew.
        """
        return Outcome(stream, position, None, None, None, self.events.pause(stream, position))

    def _deadline(self, windows: Iterable[Window]) -> float:
        """Return the monotonic seconds at which decisions on windows have to be there."""
        return min(window.ready_at for window in windows) + self._budget_s

    def _think(self, patches: list[Patch]) -> Iterator[Outcome]:
        """Decide, and refine the decision while that may change something and there is time."""
        deadline = self._deadline(patch.window for patch in patches)
        reasoner = self.reasoner
        decisions = reasoner.step(patches)
        while not reasoner.settled and time.monotonic() + reasoner.refining_s < deadline:
            for patch, decision in zip(patches, decisions, strict=True):
                yield self._outcome(patch, decision, [], final=False)
            decisions = reasoner.refine(deadline) or decisions
        for patch, decision in zip(patches, decisions, strict=True):
            at, scores = patch.window, (decision.scores, decision.specific, decision.earlier)
            changes = self.events.step(at.stream, at.position, *scores, at.start)
            yield self._outcome(patch, decision, changes)

    def _outcome(
        self, patch: Patch, decision: Decision, changes: list[Change], final: bool = True
    ) -> Outcome:
        at = patch.window
        return Outcome(at.stream, at.position, at.captured_at, patch, decision, changes, final)

    def _end(self, end: End) -> Outcome:
        """End what is open; the reasoner begins anew, as a gap follows."""
        over = self.events.close if end.last else self.events.pause
        changes = over(end.stream, end.position)
        self.bank.forget(end.stream)
        self.reasoner.forget(end.stream)
        return Outcome(
            end.stream, end.position, end.captured_at, None, None, changes, last=end.last
        )


def tracker(reasoner: Reasoner, settings: EventSettings) -> EventTracker:
    """Return the tracker that makes events of a reasoner's decisions."""
    # Without revisions, an event that begins with the last window still needs a length.
    behind = max(reasoner.behind, 0 if reasoner.lags else 1)
    return EventTracker(reasoner.labels, settings, behind, reasoner.lags)


def build(
    settings: Settings,
    sources: Sequence[str],
    paced: bool = False,
    ahead: int = 1,
    threads: int = 1,
) -> Pipeline:
    """Make the stages that the settings name; the model's file has to exist.

    `sources` names the streams, by number; `ahead` and `threads`: see `Pipeline`. Raises
    ConfigError or UsageError where the settings name a label or a stage that does not exist.
    """
    loaded = choice.load(settings)
    if loaded is not None:
        settings = with_windows(settings, choice.windows(settings, loaded.card))
    backbones, kinds = hearing(settings)
    settings, only = with_taught_labels(settings)
    teacher = Teacher(backbones, kinds, only=only)
    heads = teacher.heads_of_user() if settings.sounds.enabled else None
    reasoner = choice.make(settings, loaded, backbones, kinds, sources)
    settings = override(settings, _events(settings, reasoner))
    events = settings.events
    try:
        rules = [events.rule(label) for label in reasoner.labels]
    except ValueError as error:  # rules that fit alone and not together
        raise ConfigError(f"events.{error}") from None
    reasoner.thresholds(
        np.array([rule.on for rule in rules]), np.array([rule.off for rule in rules])
    )
    for where, names in (
        ("[events.label]", events.label),
        ("events.include", events.include),
        ("events.exclude", events.exclude),
        ("[events.audioset.label]", events.audioset.label),
        ("events.audioset.exclude", events.audioset.exclude),
    ):
        check_names(names, where, [*reasoner.labels, *(heads.labels if heads else [])])
    pipeline = Pipeline(settings, backbones, kinds, reasoner, paced, teacher, ahead, threads)
    pipeline.learn(heads, of_user(teacher) if settings.sounds.enabled else None)
    return pipeline


def with_rules(events: EventSettings, heads: Heads | None) -> EventSettings:
    """Return the settings with the taught sounds' own thresholds, which those of the user override.

    A sound is wanted, whatever is included, unless it is excluded by its name.
    """
    if heads is None:
        return events
    rules = {name: {"on": ON, "off": OFF} for name in heads.labels}
    include = [*events.include, *heads.labels] if events.include else []
    names = [name.lower() for name in heads.labels]
    exclude = [  # they are for AudioSet's labels of these names, whose place the sounds take
        pattern
        for pattern in events.audioset.exclude
        if not any(fnmatch(name, pattern.lower()) for name in names)
    ]
    audioset = msgspec.structs.replace(events.audioset, exclude=exclude)
    return msgspec.structs.replace(
        events, label=rules | events.label, include=include, audioset=audioset
    )


def with_taught_labels(settings: Settings) -> tuple[Settings, list[str]]:
    """Return the settings without those labels that are taught sounds, and these.

    They are named in a list with others, or alone: then no other label is wanted. Where a list
    names none, all taught sounds are listened for beside it.
    """
    if settings.labels in ("all", "everyday") or not settings.sounds.enabled:
        return settings, []
    listed = [name.strip() for name in settings.labels.split(",")]
    taught = {sound.name.casefold(): sound.name for sound in sounds_of_user()}
    named = [taught[name.casefold()] for name in listed if name.casefold() in taught]
    if not named:
        return settings, []
    others = ", ".join(name for name in listed if name.casefold() not in taught)
    changes: dict[str, Any] = {"labels": others or "all"}
    if not others:
        changes["events.include"] = named
    return override(settings, changes), named


def hearing(settings: Settings) -> tuple[list[Backbone], list[WindowKind]]:
    """Return the backbones that the settings' windows name, and the windows.

    Raises ConfigError for a length that a backbone does not take, UsageError for an unknown one.
    """
    names, known = config.backbones(settings), BACKBONES
    if not {*names} <= {*BACKBONES, *plugins.names("backbones")}:
        known = BACKBONES | dict.fromkeys(own_models.names(), own.make)
    backbones = [plugins.load("backbones", name, known)(name, settings) for name in names]
    kinds = []
    for written in settings.windows:
        name, _, length = written.partition(":")
        shortest, longest = backbones[names.index(name)].lengths_s
        length_s = float(length) if length else shortest
        if not shortest <= length_s <= longest:
            takes = f"{shortest:g}" if shortest == longest else f"{shortest:g} to {longest:g}"
            raise ConfigError(f"windows: {written}: {name} scores windows of {takes} s")
        kinds.append(WindowKind(written, names.index(name), length_s))
    _check_kinds(kinds, backbones, settings.hop_s)
    return backbones, kinds


def _check_kinds(kinds: list[WindowKind], backbones: list[Backbone], hop_s: float) -> None:
    """Raise ConfigError where two kinds are the same, or hops would leave sound between windows."""
    there: dict[tuple[int, int], str] = {}
    for kind in kinds:
        of = kind.backbone, frames_in(backbones[kind.backbone], kind.length_s)
        if of in there:
            raise ConfigError(f"windows: {there[of]} and {kind.name} are the same: leave one out")
        there[of] = kind.name
    first = kinds[0]
    if samples_in(backbones[first.backbone], first.length_s) < hop_s * SAMPLE_RATE:
        raise ConfigError(
            f"hop_s is {hop_s:g} s, but {first.name}, the first of the windows, has only "
            f"{first.length_s:g} s: set a shorter hop"
        )


def _events(settings: Settings, reasoner: Reasoner) -> dict[str, Any]:
    """Return the changes that make the event settings fit the reasoner; what the user set wins."""
    events = settings.events
    changes: dict[str, Any] = {} if reasoner.open else {"events.audioset": {}}
    changes["events.on"] = reasoner.on if events.on is None else events.on
    changes["events.off"] = reasoner.off if events.off is None else events.off
    return changes
