"""Which sinks `streamtwl listen` has: the publisher, those of other packages, the terminal."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from streamtwl import folders, plugins
from streamtwl.clips.keeper import ClipSettings, Keeper
from streamtwl.config import Settings
from streamtwl.errors import UsageError
from streamtwl.security import ServerKeys, keys_folder
from streamtwl.sinks.journal import DAY_S, MB, Journal
from streamtwl.sinks.journal_file import default_path
from streamtwl.sinks.lines import Lines, Nothing
from streamtwl.sinks.live_view import LiveView, LogAbove
from streamtwl.sinks.publisher import Publisher
from streamtwl.sinks.screen import View
from streamtwl.stages import Sink


@contextlib.contextmanager
def opened(
    settings: Settings, lossless: bool, insecure: bool
) -> Iterator[tuple[Publisher, list[Sink]]]:
    """Open the publisher with its journal, and the sinks that the settings name; close them.

    `lossless`: wait for slow subscribers instead of dropping; `insecure`: endpoints open to the
    network need no keys. Raises SinkError, UsageError.
    """
    with contextlib.ExitStack() as stack:
        journal = _journal(settings)
        if journal is not None:
            stack.callback(journal.close)
        publish = settings.publish
        publisher = Publisher(
            publish.bind,
            publish.encoding,
            lossless,
            journal,
            publish.replay,
            _keys(settings),
            insecure,
        )
        stack.callback(publisher.close)
        others: list[Sink] = []
        if journal is not None:
            others.append(_keeper(settings, journal.path, lossless))
            stack.callback(others[-1].close)
        for name, table in settings.sinks.items():
            others.append(plugins.load("sinks", name, {})(table))
            stack.callback(others[-1].close)
        yield publisher, others


def view(quiet: bool, as_json: bool, lossless: bool, endpoint: str) -> View:
    """Return what shows the messages: nothing, lines, or the live view in a terminal."""
    if quiet:
        return Nothing()
    if as_json or not sys.stdout.isatty():
        return Lines(as_json, lossless)
    live = LiveView(endpoint)
    logging.getLogger().handlers[:] = [LogAbove(live)]
    return live


def _journal(settings: Settings) -> Journal | None:
    journal = settings.journal
    if not journal.enabled:
        return None
    if journal.path:
        path = folders.expand(journal.path)
        _require_folder(path.parent, f"the journal {path}")
    else:
        path = default_path()
    return Journal(path, journal.max_age_days, journal.max_mb)


def _keeper(settings: Settings, journal: Path, lossless: bool) -> Keeper:
    clips = settings.clips
    if not clips.folder:
        return Keeper(journal, None, lossless)
    folder = folders.expand(clips.folder).absolute()
    _require_folder(folder.parent, f"the clips {folder}")
    wanted = ClipSettings(folder, clips.max_age_days * DAY_S, clips.max_mb * MB)
    return Keeper(journal, wanted, lossless)


def _require_folder(folder: Path, for_what: str) -> None:
    """Raise UsageError where there is no such folder.

    One that was named is not made: it may be on a disk that is not mounted, and what was to be
    kept there would fill the one below it.
    """
    try:
        os.stat(folder)
    except FileNotFoundError:
        raise UsageError(
            f"{for_what}: there is no folder {folder}: make it with `mkdir -p`, or mount its disk"
        ) from None
    except OSError:  # it is there, and what may not be written is said by what writes it
        pass


def _keys(settings: Settings) -> ServerKeys | None:
    publish = settings.publish
    if not publish.curve:
        return None
    return ServerKeys.load(folders.expand(publish.keys) if publish.keys else keys_folder())
