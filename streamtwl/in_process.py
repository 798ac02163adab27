"""Listening and classifying inside your own program: nothing is published or stored."""

import contextlib
import logging
import queue
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from streamtwl import available, config
from streamtwl.audio.addresses import SourceOptions, make_sources
from streamtwl.audio.intake import Intake
from streamtwl.config import Settings
from streamtwl.errors import AudioError
from streamtwl.labelling import label_files
from streamtwl.messages import AnyMessage
from streamtwl.models import own, registry
from streamtwl.pipeline import build
from streamtwl.results import Labelled
from streamtwl.session import Session
from streamtwl.stages import Sink

_log = logging.getLogger(__name__)

QUEUE = 1000  # messages that the program may lag behind
LOOK_S = 0.05  # between two looks at whether the session goes on


def listen(
    *addresses: str,
    kinds: Sequence[str] = ("event",),
    labels: str | None = None,
    reasoner: str | None = None,
    pipeline: str = config.DEFAULT_PIPELINE,
    fast: bool = False,
) -> Iterator[AnyMessage]:
    """Yield messages (`streamtwl.messages`) of these kinds while sources are listened to.

    `addresses` are as on the command line: "mic:", "mic:USB", "street.flac", "rtsp://...", none for
    the default microphone; `labels`, `reasoner` and `pipeline` as its options. Files play at the
    pace of real time unless `fast`. A program that is too slow for live sound loses messages, which
    `status` counts (`dropped_messages`); recordings lose none. Ends with the sound; close the
    iterator to end it earlier. Raises AudioError where a source fails,
    UsageError, ConfigError, ModelError.
    """
    settings = _settings(pipeline, labels, reasoner)
    sources = make_sources(SourceOptions(list(addresses), fast=fast))
    with contextlib.closing(Intake(sources)) as intake:
        intake.start()
        for stream in intake.streams:
            if stream.error is not None:
                raise stream.error
        taken = _Taken(kinds, lossless=not all(source.paced for source in sources))
        session = Session(intake, sources, settings, [taken])
        session.start()
        try:
            while session.running() or not taken.waiting.empty():
                session.watch()
                with contextlib.suppress(queue.Empty):
                    yield taken.waiting.get(timeout=LOOK_S)
        finally:
            taken.over = True
            session.close()


def classify(
    file: str | Path,
    labels: str | None = None,
    reasoner: str | None = None,
    pipeline: str = config.DEFAULT_PIPELINE,
) -> Labelled:
    """Return what sounds in a recording: its label, the five most likely, its events with times.

    Raises AudioError where it cannot be decoded, UsageError, ConfigError, ModelError.
    """
    settings = _settings(pipeline, labels, reasoner)
    with contextlib.closing(build(settings, ["file"])) as built:
        [(_, result)] = label_files([Path(file)], built)
    if result.error is not None:
        raise AudioError(result.error)
    return result


def _settings(pipeline: str, labels: str | None, reasoner: str | None) -> Settings:
    changes = {"labels": labels, "reasoner.file": reasoner}
    settings = available.settings(pipeline, changes, _log.warning)
    for name in config.backbones(settings):
        if own.needs_pull(name):
            registry.pull(registry.find(name))
    return settings


class _Taken(Sink):
    """Messages on their way to the program that iterates over them."""

    def __init__(self, kinds: Sequence[str], lossless: bool) -> None:
        self.waiting: queue.Queue[AnyMessage] = queue.Queue(QUEUE)
        self.over = False  # the program has stopped iterating
        self._kinds, self._lossless = kinds, lossless
        self._dropped = 0

    def emit(self, message: AnyMessage) -> None:
        if message.topic.partition("/")[0] not in self._kinds:
            return
        while not self.over:
            try:
                self.waiting.put(message, self._lossless, LOOK_S)
                return
            except queue.Full:
                if not self._lossless:
                    self._dropped += 1
                    return

    def figures(self) -> dict[str, Any]:
        return {"queued": self.waiting.qsize(), "dropped_messages": self._dropped}
