"""The user's word on an event, and its clip: the functions of `streamtwl review`, for the page."""

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

from streamtwl.clips import moments
from streamtwl.control import client
from streamtwl.errors import ControlError, JournalError, UsageError
from streamtwl.marks import marking
from streamtwl.marks.store import Marks, Verdict
from streamtwl.services.web.past import NoHistoryError, Past

NOT_TRUSTED = "a clip is sound: open the link that streamtwl printed at its start, or log in"
NO_CLIP = "no clip was kept: somebody spoke, the limit was reached, or --clips is off"


class Marking:
    """Marks events of the listener on this machine; reads and writes on threads of its own.

    Raises UsageError for what cannot be, JournalError, SoundsError, AudioError.
    """

    def __init__(self, past: Past, here: bool) -> None:
        """`here`: the listener is on this machine."""
        self._past, self._here = past, here
        self._changing = asyncio.Lock()

    async def of(self, event: str, trusted: bool) -> dict[str, Any] | None:
        """Return an event's mark, and whether it has a clip for one who is `trusted` to hear it;
        None where it cannot be marked."""
        return await asyncio.to_thread(self._of, event, trusted) if self._here else None

    async def beside(self, events: list[dict[str, Any]], trusted: bool) -> list[dict[str, Any]]:
        """Return events with the verdict on each and whether it has a clip to play."""
        return await asyncio.to_thread(self._beside, events, trusted) if self._here else events

    async def mark(self, event: str, verdict: Verdict, was: str) -> dict[str, Any]:
        """Mark an event; return what became of it, in words, and whether a listener knows."""
        return await self._change(self._mark, event, verdict, was)

    async def undo(self, event: str) -> dict[str, Any]:
        """Take an event's mark back."""
        return await self._change(self._undo, event)

    async def clip(self, event: str, trusted: bool) -> tuple[Path, os.stat_result]:
        """Return where an event's clip is, FLAC; raises NoHistoryError where none is to play."""
        if not (self._here and trusted):
            raise NoHistoryError(NOT_TRUSTED)
        try:
            path = await asyncio.to_thread(marking.clip, self._past.path, event)
            return path, await asyncio.to_thread(path.stat)
        except (UsageError, OSError) as error:
            raise NoHistoryError(str(error)) from None

    async def _change(self, work: Any, *of: str) -> dict[str, Any]:
        if not self._here:
            raise NoHistoryError("events are marked on the listener's own machine")
        async with self._changing:
            said = await asyncio.to_thread(work, *of)
            return {"said": said, "problem": await asyncio.to_thread(_reload)}

    def _of(self, event: str, trusted: bool) -> dict[str, Any] | None:
        try:
            kept = marking.moment(self._past.path, marking.find(self._past.path, event).id)
        except UsageError:  # of the level, which is no label
            return None
        mark = Marks().find(event)
        clip = kept.clip is not None and trusted
        return {
            "clip": clip,
            "no_clip": None if clip else NO_CLIP if trusted else NOT_TRUSTED,
            "mark": mark and {"verdict": mark.verdict, "was": mark.was, "said": marking.said(mark)},
        }

    def _beside(self, events: list[dict[str, Any]], trusted: bool) -> list[dict[str, Any]]:
        verdicts, clips = Marks().verdicts(), set[str]()
        if trusted:
            with contextlib.suppress(JournalError):  # a list is there without them, too
                clips = moments.with_clips(self._past.path, [each["id"] for each in events])
        return [
            each | {"mark": verdicts.get(each["id"]), "clip": each["id"] in clips}
            for each in events
        ]

    def _mark(self, event: str, verdict: Verdict, was: str) -> str:
        path = self._past.path
        return marking.said(marking.mark(path, marking.find(path, event), verdict, was))

    def _undo(self, event: str) -> str:
        if Marks().find(event) is None:
            raise NoHistoryError(f"event {event} is not marked")
        marking.unmark(event)
        return ""


def _reload() -> str:
    """Have running listeners take it in; return why they did not, "" where they did."""
    try:
        _, problems = client.reload()
    except (ControlError, UsageError) as error:
        problems = [str(error)]
    return "; ".join(problems)
