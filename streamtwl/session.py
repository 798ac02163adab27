"""One run: a worker thread that reads, decides and publishes until the end."""

import logging
import math
import threading
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import psutil
from reactivex import Subject

from streamtwl import pace
from streamtwl.audio.intake import Intake
from streamtwl.audio.level import LevelMeter
from streamtwl.audio.network_address import Address
from streamtwl.audio.recent import Recent
from streamtwl.config import LevelSettings, Settings
from streamtwl.control import mel
from streamtwl.control.mel import Mel
from streamtwl.errors import ConfigError, ControlError, DeviceError
from streamtwl.marks.corrections import Corrections, of_user
from streamtwl.messages import AnyMessage
from streamtwl.pipeline import Outcome, build
from streamtwl.report import Reporter
from streamtwl.sounds.heads import Heads
from streamtwl.stages import SAMPLE_RATE, Block, Patch, Sink, Source

_log = logging.getLogger(__name__)

STATUS_S = 1.0
HELLO_S = 60.0
MEMORY_S = 30.0  # measuring it goes through all processes
STUCK_S = 5.0  # without a sign of life from the worker; two hops where they are longer


UNKNOWN: dict[str, Any] = {  # figures of `Status` that no sink knows
    "queued": 0,
    "dropped_messages": 0,
    "stalled_subscribers": 0,
    "replay": None,
    "journal_errors": 0,
    "journal": None,
}


class Session:
    """Joins the sources, the pipeline and the sinks, and reports its own state.

    `patches`, `outcomes` (decisions, changes of events) and `messages` are ReactiveX Observables:
    filter, buffer, join them. They emit on the worker's thread, so a subscriber must not block in
    real time, and an exception in it ends the session. All complete when the session ends.
    """

    def __init__(
        self,
        intake: Intake,
        sources: Sequence[Source],
        settings: Settings,
        sinks: Sequence[Sink],
        duration_s: float | None = None,
        recent_s: float = 0.0,
    ) -> None:
        """Take an intake that has started, all of its sources, the settings and the sinks.

        `recent_s`: so much of the newest sound is held in memory, for `last` and `between`.
        """
        names = [source.name for source in sources]
        self._intake = intake
        self._names = names
        self._streams = list(intake.streams)
        paced = all(source.paced for source in sources)
        self._pipeline = build(settings, names, paced)
        self._settings = self._pipeline.settings
        backbones, reasoner = self._pipeline.bank.backbones, self._pipeline.reasoner
        self._reporter = Reporter(
            names,
            list(backbones[0].categories),
            reasoner.labels,
            reasoner.name,
            any(sink.journals for sink in sinks),
            [[*backbones[kind.backbone].categories] for kind in self._pipeline.kinds[1:]],
        )
        self._measure(settings.level)
        self._models = {each.name: each.sha256 for each in backbones}
        runs_on = {each.name: getattr(each, "provider", "") for each in backbones}
        self._providers = {name: provider for name, provider in runs_on.items() if provider}
        if reasoner.sha256:
            self._models[reasoner.name] = reasoner.sha256
        self.by_window = {kind.name: backbones[kind.backbone] for kind in self._pipeline.bank.kinds}
        self._sinks = sinks
        self.patches: Subject[Patch] = Subject()
        self.outcomes: Subject[Outcome] = Subject()
        self.messages: Subject[AnyMessage] = Subject()
        self._due_s = settings.hop_s if all(source.clocked for source in sources) else None
        if self._due_s is not None and (
            problem := pace.problem(self._pipeline.bank, self._settings, len(sources))
        ):
            _log.warning(problem)
        self._stuck_s = max(STUCK_S, 2 * self._settings.hop_s)
        self._last_position = None if duration_s is None else round(duration_s * SAMPLE_RATE)
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._worker = threading.Thread(target=self._run, name="worker", daemon=True)
        self._recent = {name: Recent(recent_s) for name in names} if recent_s else {}
        self._taught: list[
            tuple[Heads | None, Corrections | None]
        ] = []  # the newest, until the worker takes them over
        self._outbox: list[AnyMessage] = []  # for the sinks
        self._reporting = threading.Lock()  # the reporter, the publisher's queue and the sink
        self._working = threading.Lock()  # the pipeline
        self._alive_at = math.inf  # monotonic, of the worker's last sign of life
        self._watched_at = 0.0
        self._stuck: str | None = None  # why there is none
        self._process = psutil.Process()
        self._status_at = self._hello_at = self._memory_at = -math.inf
        self._memory_mb = 0.0
        self._work_s = 0.0  # since the last status
        self._sound_s = 0.0  # since the last status
        self._real_time_factor = 0.0

    @property
    def id(self) -> str:
        """`session` of its messages."""
        return self._reporter.session

    @property
    def sources(self) -> list[str]:
        """The names of its sources."""
        return self._names

    def _measure(self, level: LevelSettings) -> None:
        """Give each stream a meter; raises ConfigError for a threshold that nothing can reach."""
        self._reporter.loud = level.enabled and level.loud_dba is not None
        named = [name for name in level.calibration_db if name != "*"]
        if unknown := [name for name in named if name not in self._names]:
            _log.warning(
                "level.calibration_db: no source here is called %s: there is %s",
                ", ".join(map(repr, unknown)),
                ", ".join(self._names),
            )
        for stream in self._streams if level.enabled else []:
            name = stream.source.name
            offset_db = level.offset_db(name)
            if level.loud_dba is not None and level.loud_dba >= 0 and offset_db is None:
                raise ConfigError(
                    f"level.loud_dba is {level.loud_dba:g}, but '{name}' is not calibrated, so its "
                    "level is dB full scale, below 0: set level.calibration_db, or one below 0"
                )
            stream.meter = LevelMeter(offset_db, level.loud_dba)

    def start(self) -> None:
        """Start the worker."""
        self._worker.start()

    def stop(self) -> None:
        """Request the end: sound received so far is still processed and published."""
        self._stop.set()
        self._intake.wake()
        self._pipeline.close()

    def wait(self, seconds: float) -> None:
        """Return when the worker has ended, or after so long."""
        self._worker.join(seconds)

    def running(self) -> bool:
        """Whether the worker is still running."""
        return self._worker.is_alive()

    def watch(self) -> None:
        """Report in the worker's place when it is stuck, in a file that does not answer, say."""
        now = time.monotonic()
        if now > self._watched_at + self._stuck_s / 2:  # the process was held up, not the worker
            self._alive_at = now
        self._watched_at = now
        if now < self._alive_at + self._stuck_s or not self._reporting.acquire(blocking=False):
            return
        try:
            reading = self._intake.reading
            if not reading and getattr(self._pipeline.reasoner, "waiting", False):
                self._report(now)
                self._deliver()
                return
            what = f"'{reading.source.name}' does not answer" if reading else "the model is stuck"
            if not self._stuck:
                _log.warning("stalled: %s", what)
            self._stuck = f"{what}, for over {self._stuck_s:g} s"
            if reading and self._working.acquire(blocking=False):
                try:
                    self._pause()
                finally:
                    self._working.release()
            self._report(now)
            self._deliver()
        finally:
            self._reporting.release()

    def reload(self) -> list[str]:
        """Take in what the user taught and marked, at the next hop; return the sounds' names.

        From any thread but the worker's. Raises SoundsError.
        """
        if not self._settings.sounds.enabled:
            return []
        heads = self._pipeline.teacher.heads_of_user()
        self._taught = [(heads, of_user(self._pipeline.teacher))]
        return [] if heads is None else heads.labels

    def last(self, seconds: float, source: str = "") -> tuple[str, np.ndarray]:
        """Return a source's name and its newest sound, float32[n]; from any thread.

        Raises ControlError for an unknown source, or where nothing was received.
        """
        name = source or next(iter(self._recent), "")
        if name not in self._recent:
            there = ", ".join(self._recent) or "none"
            raise ControlError(f"no source is called '{source}': there is {there}")
        samples = self._recent[name].last(seconds)
        if not len(samples):
            raise ControlError(f"'{name}' has given no sound yet: try again")
        return name, samples

    def between(self, source: str, start: int, stop: int) -> np.ndarray:
        """Return float32[n], what is still held of a source's positions [start, stop)."""
        return self._recent[source].between(start, stop)

    def mel(self, source: str, since: int, most: int, session: str = "") -> Mel:
        """Return a source's log-mel frames that begin at position `since`, the newest `most`.

        From any thread. Raises ControlError for an unknown source, or another session ("": any).
        """
        if session not in ("", self.id):
            raise ControlError(f"the session here is {self.id}, not '{session}'")
        if source not in self._recent:
            there = ", ".join(self._recent) or "none"
            raise ControlError(f"no source is called '{source}': there is {there}")
        return mel.frames(*self._recent[source].since(since, mel.samples_in(most)), since)

    def _learn(self) -> None:
        """Take over what was taught, and publish the new labels."""
        if not self._taught:
            return
        heads, corrections = self._taught.pop()
        with self._working:
            outcomes = self._pipeline.learn(heads, corrections)
        for outcome in outcomes:
            if outcome.changes:
                self._emit(outcome)
        with self._reporting:
            self._reporter.labels = self._pipeline.reasoner.labels
            self._hello_at = -math.inf

    def _pause(self) -> None:
        """End what is open: no source is listened to while one of them does not answer."""
        for stream in self._streams:
            outcome = self._pipeline.pause(stream.number, stream.position)
            if outcome.changes:
                for message in self._reporter.outcome(outcome, self._due_s):
                    self._send(message)

    def close(self) -> None:
        """Wait for the worker; raises its error or, once all is published, that of a source."""
        self.stop()
        self._worker.join()
        if self._failure is not None:
            raise self._failure
        for stream in self._streams:
            if stream.error is not None:
                raise stream.error

    def _run(self) -> None:
        try:
            self._pipeline.subscribe(self._emit)
            self._check_in()
            for blocks in self._intake.ticks(self._pipeline.windower.needs):
                self._learn()
                began = time.monotonic()
                for block in blocks:
                    if recent := self._recent.get(self._names[block.stream]):
                        recent.push(block)
                try:
                    with self._working:
                        self._pipeline.push(blocks)
                finally:  # what came before an error too
                    with self._reporting:
                        self._deliver()
                self._account(blocks, time.monotonic() - began)
                self._stop_if_due()
                self._check_in()
            self._check_in()
            with self._reporting:
                self._report(math.inf)
                self._deliver()
            for subject in (self.patches, self.outcomes, self.messages):
                subject.on_completed()
        except BaseException as error:  # handed to the main thread by `close`
            self._failure = error

    def _check_in(self) -> None:
        """Note that the worker is alive, and report."""
        with self._reporting:
            self._alive_at, self._stuck = time.monotonic(), None
            self._report(self._alive_at)
            for stream in self._streams:
                for message in self._reporter.levels(stream):
                    self._send(message)
            self._deliver()

    def _emit(self, outcome: Outcome) -> None:
        with self._reporting:
            self._alive_at = time.monotonic()
            if outcome.patch is not None and not getattr(outcome.decision, "refinement", 0):
                self.patches.on_next(outcome.patch)
            self.outcomes.on_next(outcome)
            for message in self._reporter.outcome(outcome, self._due_s):
                self._send(message)
            if self._due_s is not None:  # else at the end of the blocks, which may be many hops
                self._deliver()

    def _send(self, message: AnyMessage) -> None:
        """Have a message delivered with those of the same hop: each delivery wakes threads."""
        self._outbox.append(message)

    def _deliver(self) -> None:
        outbox, self._outbox = self._outbox, []
        for sink in self._sinks if outbox else ():
            sink.emit_all(outbox)
        for message in outbox:
            self.messages.on_next(message)

    def _account(self, blocks: list[Block], work_s: float) -> None:
        self._work_s += work_s
        self._sound_s += max((len(block.samples) for block in blocks), default=0) / SAMPLE_RATE

    def _stop_if_due(self) -> None:
        """Stop on request, when the time is up, or when a microphone was never there."""
        if self._intake.stopping:
            return
        absent = any(isinstance(stream.error, DeviceError) for stream in self._streams)
        position = min((stream.position for stream in self._streams if not stream.ended), default=0)
        over = self._last_position is not None and position >= self._last_position
        if absent or over or self._stop.is_set():
            self._intake.stop()

    def _report(self, now: float) -> None:
        """Publish hello and status, where they are due."""
        if self._hello_at + HELLO_S <= now < math.inf:
            self._hello_at = now
            settings = msgspec.to_builtins(self._settings)
            settings["sinks"] = {name: {} for name in self._settings.sinks}  # they may hold secrets
            settings["services"] = {}  # so may these
            if endpoint := self._settings.llm.endpoint:
                settings["llm"]["endpoint"] = str(Address(endpoint))  # and so may its path
            for stream in self._streams:
                replay = self._figures()["replay"]
                about = (settings, self._models, replay, self._providers)
                self._send(self._reporter.hello(stream.number, *about))
        if now >= self._status_at + STATUS_S:
            self._status_at = now
            if self._sound_s:
                self._real_time_factor = self._work_s / self._sound_s
            self._work_s = self._sound_s = 0.0
            if now >= self._memory_at + MEMORY_S:
                self._memory_at, self._memory_mb = now, self._measure_memory_mb()
            for stream in self._streams:
                self._send(
                    self._reporter.status(
                        stream,
                        self._stuck,
                        dropped_windows=self._pipeline.windower.dropped.get(stream.number, 0),
                        held_windows=self._pipeline.bank.held.get(stream.number, 0),
                        real_time_factor=self._real_time_factor,
                        memory_mb=self._memory_mb,
                        **self._figures(),
                    )
                )

    def _figures(self) -> dict[str, Any]:
        """Return the sinks' own figures."""
        figures = dict(UNKNOWN)
        for sink in self._sinks:
            figures |= sink.figures()
        figures |= getattr(self._pipeline.reasoner, "figures", dict)()
        return figures

    def _measure_memory_mb(self) -> float:
        resident = self._process.memory_info().rss
        for child in self._process.children():
            try:
                resident += child.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return resident / 1e6
