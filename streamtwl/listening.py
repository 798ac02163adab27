"""A listener from its sources to its sinks: opened, watched and closed in order."""

import contextlib
import gc
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamtwl import folders
from streamtwl.config import Settings
from streamtwl.errors import ControlError, UsageError

if TYPE_CHECKING:
    from streamtwl.audio.addresses import SourceOptions
    from streamtwl.services.child import Child
    from streamtwl.services.server import Listener
    from streamtwl.session import Session
    from streamtwl.sinks.publisher import Publisher
    from streamtwl.sinks.screen import Screen

_log = logging.getLogger(__name__)

WATCH_S = 0.2  # for signals and a closed output
STOP_GRACE_S = 3.0  # for what is to be published before the end


@dataclass(frozen=True)
class Options:
    """What it prints, for how long it goes on, and whether it needs keys."""

    as_json: bool
    quiet: bool
    duration_s: float | None
    insecure: bool  # may be open to the network without keys
    control: bool = True  # opens the control socket
    log_level: str = "warning"


def run(wanted: "SourceOptions", settings: Settings, options: Options) -> None:
    """Listen until the sound ends, the time is up, or a signal or a closed output ends it."""
    from streamtwl.audio.addresses import make_sources
    from streamtwl.audio.intake import Intake
    from streamtwl.models import runtime
    from streamtwl.signals import stop_requests

    runtime.give_back_at_once()
    sources = make_sources(wanted)
    with stop_requests() as stop_requested, contextlib.closing(Intake(sources)) as intake:
        for source in sources:
            source.stop_requested = stop_requested
        intake.start()  # a microphone takes a while to open, as do these imports
        for stream in intake.streams:
            if stream.error is not None:
                raise stream.error
        from streamtwl.clips.keeper import RECENT_S, Keeper
        from streamtwl.control.messages import MAX_LAST_S
        from streamtwl.session import Session
        from streamtwl.sinks import choice
        from streamtwl.sinks.screen import Screen

        lossless = not all(source.paced for source in sources)
        with (
            choice.opened(settings, lossless, options.insecure) as (publisher, others),
            _services(settings, options.log_level) as services,
        ):
            view = choice.view(options.quiet, options.as_json, lossless, publisher.endpoint)
            screen = Screen(view)
            sinks = [publisher, *others, screen]
            held_s = max(
                MAX_LAST_S if options.control else 0.0, RECENT_S if settings.clips.folder else 0.0
            )
            session = Session(intake, sources, settings, sinks, options.duration_s, held_s)
            for keeper in (sink for sink in others if isinstance(sink, Keeper)):
                names = [source.name for source in sources]
                take = keeper.attach(names, session.by_window, session.between)
                session.outcomes.subscribe(take)
            if services is not None:
                services.connect(_listener(settings, session, publisher))
            gc.collect()
            gc.freeze()  # what is there by now stays: it need not be looked through again
            runtime.give_back()
            session.start()
            try:
                with _control(session, options.control):
                    _wait_for(session, screen, stop_requested, services)
            finally:
                view.gone = view.gone or session.running()  # take() must not wait
                try:
                    session.close()
                finally:
                    screen.close()
            if screen.problem is not None:
                raise screen.problem


def mind_clips(settings: Settings) -> None:
    """Say that sound is kept, where it is; raises UsageError where it cannot be."""
    clips = settings.clips
    if not clips.folder:
        return
    if not settings.journal.enabled:
        raise UsageError("--clips needs the journal, with whose events clips are deleted")
    from streamtwl.clips.speech import SpeechDetector

    SpeechDetector()
    _log.warning(
        "the sound of each event is KEPT in %s, for %g days, up to %g MB; where somebody speaks "
        "nothing is",
        *(clips.folder, clips.max_age_days, clips.max_mb),
    )


@contextlib.contextmanager
def _control(session: "Session", wanted: bool) -> Iterator[None]:
    """Answer the user's other commands meanwhile; one line says so where that cannot be."""
    if not wanted:
        yield
        return
    from streamtwl.control.server import ControlServer
    from streamtwl.sounds.recording import encode

    def last(seconds: float, source: str) -> tuple[str, bytes]:
        name, samples = session.last(seconds, source)
        return name, encode(samples)

    try:
        server = ControlServer(session.reload, last, session.mel)
    except (ControlError, UsageError) as error:
        _log.warning("no control socket: %s", error)
        yield
        return
    with contextlib.closing(server):
        yield


@contextlib.contextmanager
def _services(settings: Settings, log_level: str) -> Iterator["Child | None"]:
    """Start the services that the settings name, if any, and end them."""
    from streamtwl.services.choice import chosen

    if not any(chosen(settings.services)):
        yield None
        return
    from streamtwl.services.child import Child

    with contextlib.closing(Child(settings.services, log_level)) as child:
        yield child


def _listener(settings: Settings, session: "Session", publisher: "Publisher") -> "Listener":
    """Return what the services have to know to subscribe."""
    from streamtwl.client.stream import REPLAYED
    from streamtwl.endpoints import reachable
    from streamtwl.security import SERVER, keys_folder
    from streamtwl.services.server import Listener

    connect = reachable(publisher.endpoint, "tcp://127.0.0.1:0")
    topics = [f"{kind}/{source}/" for source in session.sources for kind in REPLAYED]
    listener = Listener(connect, session.id, topics, settings.publish.bind)
    if settings.publish.curve:
        keys = folders.expand(settings.publish.keys) if settings.publish.keys else keys_folder()
        listener.server_key, listener.key = (
            str(keys / f"{SERVER}.key"),
            str(keys / f"{SERVER}.key_secret"),
        )
    return listener


def _wait_for(
    session: "Session",
    screen: "Screen",
    stop_requested: Callable[[], int],
    services: "Child | None" = None,
) -> None:
    """Return when the session has ended; stop it on a signal, or where the output is closed."""
    stopped_at = math.inf
    while session.running():
        session.wait(WATCH_S)
        session.watch()
        if services is not None:
            services.watch()
        if (stop_requested() or screen.view.gone) and stopped_at == math.inf:
            session.stop()
            stopped_at = time.monotonic()
        if time.monotonic() > stopped_at + STOP_GRACE_S:
            return  # held back by a reader who does not read
