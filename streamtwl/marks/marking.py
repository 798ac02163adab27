"""Marking events: the functions of `streamtwl review` and of all else that shows events."""

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streamtwl import history
from streamtwl.clips import moments
from streamtwl.clips.moments import EVENT_ID, Moment
from streamtwl.errors import MessageError, SoundsError, UsageError
from streamtwl.history import Wanted
from streamtwl.marks.store import Mark, Marks, Verdict
from streamtwl.messages import Event, decode
from streamtwl.ontology import categories, everyday
from streamtwl.sinks import journal_file
from streamtwl.sounds import recording
from streamtwl.sounds.store import Store, check_name
from streamtwl.stages import SAMPLE_RATE

_OF_TOPIC = """
SELECT payload FROM messages JOIN streams ON streams.id = stream
WHERE session = ? AND topic = ? ORDER BY seq
"""


@dataclass(frozen=True)
class Precision:
    """How often a label was right, of the events that are marked."""

    label: str
    right: int
    marked: int


def find(journal: Path, event: str) -> Event:
    """Return the newest message on an event; raises UsageError, JournalError."""
    if not EVENT_ID.fullmatch(event):
        raise UsageError(f"'{event}' is no id of an event: `streamtwl history --ids` shows them")
    session, rest = event.split("-", 1)
    source = rest.rpartition("-")[0]
    found = None
    with contextlib.closing(journal_file.reader(journal)) as connection:
        try:
            rows = connection.execute(_OF_TOPIC, (session, f"event/{source}/")).fetchall()
        except sqlite3.Error as error:
            raise journal_file.unreadable(journal, error) from None
    for (payload,) in rows:
        with contextlib.suppress(MessageError):
            message = decode(payload)
            if isinstance(message, Event) and message.id == event:
                found = message
    if found is None or found.void:
        raise UsageError(f"the journal has no event {event} (any more): `streamtwl history --ids`")
    return found


def moment(journal: Path, event: str) -> Moment:
    """Return what is kept of an event: its clip, if there is one, and embeddings."""
    return moments.find(journal, event)


def unmarked(journal: Path, wanted: Wanted, marks: Marks) -> list[Event]:
    """Return the events that have no mark, the newest first; raises JournalError."""
    done = {mark.event for mark in marks.all()}
    events = [event for event in history.events(journal, wanted) if event.id not in done]
    return sorted(events, key=history.began_at, reverse=True)


def mark(
    journal: Path,
    event: Event,
    verdict: Verdict,
    was: str = "",
    marks: Marks | None = None,
    store: Store | None = None,
) -> Mark:
    """Mark an event as right or wrong, or as wrong and what it `was`; return the mark.

    A sound that it was is taught by the event's clip, where there is one, unless it is one of
    AudioSet's labels which nobody taught: one recording would take the place of all that the
    backbones know of it. Listeners take it in by a reload. Raises UsageError, SoundsError,
    AudioError.
    """
    marks, store = marks or Marks(), store or Store()
    if was and verdict != "wrong":
        raise UsageError(f"an event that was {was!r} is marked as wrong")
    if was:
        check_name(was)
        if was.casefold() == event.label.casefold():
            raise UsageError(f"{event.label} is what it was called: mark it as right")
    kept = moment(journal, event.id)
    before = marks.find(event.id)
    own = before.recording if before else ""
    same = before is not None and before.was.casefold() == was.casefold()
    file = own if same else ""
    if was and not file and kept.clip and is_taught(store, was):
        file = _teach(store, kept, was, own)  # it may fail: then the mark that there was stays
    if before is not None:
        marks.remove(event.id)
        if not same:
            _forget(before, store)
    made = Mark(
        event.id,
        verdict,
        event.label,
        was,
        event.source,
        history.began_at(event),
        file,
        kept.embeddings,
    )
    marks.put(made)
    return made


def is_taught(store: Store, name: str) -> bool:
    """Whether a clip may teach this sound: it is taught already, or no label that there is."""
    taught = {sound.name.casefold() for sound in store.sounds()}
    labels = {label.casefold() for label in (*categories(), *everyday())}
    return name.casefold() in taught or name.casefold() not in labels


def unmark(event: str, marks: Marks | None = None, store: Store | None = None) -> Mark:
    """Take a mark back, and the recording that it became; return it. Raises SoundsError."""
    marks, store = marks or Marks(), store or Store()
    removed = marks.remove(event)
    _forget(removed, store)
    return removed


def _forget(mark: Mark, store: Store) -> None:
    """Remove the recording that a mark's clip became."""
    if mark.recording:
        with contextlib.suppress(SoundsError):  # the sound was removed meanwhile
            store.remove_recording(mark.was, mark.recording)


def said(mark: Mark) -> str:
    """Return in words what became of a mark."""
    if mark.verdict == "right":
        return "right"
    words = f"wrong: {mark.label} is not believed where it sounds like this"
    if not mark.embeddings:
        words = "wrong: it counts, but nothing was kept that could be learnt from"
    if mark.recording:
        words += f"; {mark.was} has learnt this clip"
    elif mark.was and not is_taught(Store(), mark.was):
        words += (
            f'; {mark.was} is a label already: `streamtwl teach "{mark.was}" --from-event '
            f"{mark.event}` would put what you teach in its place"
        )
    elif mark.was:
        words += f"; there is no clip that {mark.was} could learn"
    return words


def clip(journal: Path, event: str) -> Path:
    """Return an event's clip; raises UsageError where there is none."""
    named = find(journal, event)
    kept = moment(journal, named.id)
    if kept.clip is None:
        raise UsageError(
            f"there is no clip of event {event}: `listen --clips FOLDER` keeps them, unless "
            "somebody speaks in them, for as long as its limits say"
        )
    return kept.clip


def precisions(marks: list[Mark]) -> Iterator[Precision]:
    """Yield how often each label was right, those with the most marks first."""
    by_label: dict[str, list[bool]] = {}
    for each in marks:
        by_label.setdefault(each.label, []).append(each.verdict == "right")
    for label, right in sorted(by_label.items(), key=lambda item: (-len(item[1]), item[0])):
        yield Precision(label, sum(right), len(right))


def sound(clip: Path) -> np.ndarray:
    """Return what sounds in a clip, float32[n]; raises AudioError, UsageError for silence."""
    try:
        flac = clip.read_bytes()
    except OSError as error:
        raise UsageError(f"{clip} cannot be read: {error.strerror}") from None
    samples = recording.trim(recording.decode(flac, str(clip)))
    if len(samples) < recording.SHORTEST_S * SAMPLE_RATE:
        raise UsageError(f"{clip}: there is no sound in it")
    return samples


def _teach(store: Store, kept: Moment, name: str, own: str) -> str:
    """Add an event's clip to a sound; return the name of the recording, if it is new.

    `own` is that of the mark before, which is taken back.
    """
    assert kept.clip is not None
    known = {example.file for each in store.sounds() for example in each.examples} - {own}
    taught = store.add(name, [(f"event {kept.event}", sound(kept.clip))])
    new = taught.examples[-1].file
    return "" if new in known else new
