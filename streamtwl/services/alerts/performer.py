"""An action on the firings that wait for it: again where it fails, given up in the end."""

import asyncio
import contextlib
import logging
import time
from collections import deque

import msgspec

from streamtwl.services.alerts.actions import ActionError, Perform
from streamtwl.services.outbox import Entry, Outbox

_log = logging.getLogger(__name__)

BACK_OFF_S = (5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)  # after each failure; the last from then on
TRIES = 12  # of an action on a firing: over six hours
SAID = 20  # failures remembered: they are other people's words
END_S = 1.5  # that one under way has when all ends: less than FLUSH_S of the server


class Performer:
    """Performs an action on one firing at a time: the oldest that is due.

    One that failed lets later ones pass until it is due again.
    """

    def __init__(
        self, name: str, perform: Perform, timeout_s: float, counts: dict[str, int]
    ) -> None:
        """`counts` has `sent`, `failed` and `given_up`."""
        self._name, self._perform, self._timeout_s = name, perform, timeout_s
        self._counts = counts
        self._said: deque[str] = deque(maxlen=SAID)  # of failures, since it succeeded
        self.wake = asyncio.Event()  # where there is one more

    async def run(self, outbox: Outbox) -> None:
        """Perform it until cancelled; what is under way then has END_S."""
        while True:
            entry = outbox.next_due(self._name)
            wait_s = None if entry is None else _wait_s(entry)
            if entry is not None and not wait_s:
                await self._perform_on(entry, outbox)
                continue
            self.wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self.wake.wait()

    async def _perform_on(self, entry: Entry, outbox: Outbox) -> None:
        trying = asyncio.create_task(self._try(entry))
        try:
            why = await asyncio.shield(trying)
        except asyncio.CancelledError:
            done, _ = await asyncio.wait([trying], timeout=END_S)
            if done:
                self._note(entry, outbox, trying.result())
            else:
                trying.cancel()
                await asyncio.wait([trying])
            raise
        self._note(entry, outbox, why)

    async def _try(self, entry: Entry) -> ActionError | None:
        """Perform it once; return why it failed."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._perform(entry.payload)
        except ActionError as error:
            return error
        except TimeoutError:
            return ActionError(f"no answer within {self._timeout_s:g} s")
        except Exception as error:  # whose text may have a secret in it
            _log.debug("action '%s'", self._name, exc_info=True)
            return ActionError(type(error).__name__)
        return None

    def _note(self, entry: Entry, outbox: Outbox, why: ActionError | None) -> None:
        if why is None:
            outbox.done(entry)
            self._counts["sent"] += 1
            self._said.clear()
            return
        self._counts["failed"] += 1
        if why.passing and entry.tries + 1 < TRIES:
            outbox.failed(entry, _back_off_s(entry.tries + 1))
            self._say(f"failed: {why}")
            return
        outbox.done(entry)
        self._counts["given_up"] += 1
        rule = msgspec.json.decode(entry.payload)["rule"]
        self._say(f"on rule '{rule}' is given up: {why}")

    def _say(self, what: str) -> None:
        if what not in self._said:
            self._said.append(what)
            _log.warning("action '%s' %s", self._name, what)


def _back_off_s(failures: int) -> float:
    return BACK_OFF_S[min(failures, len(BACK_OFF_S)) - 1]


def _wait_s(entry: Entry) -> float:
    """Return how long to wait for it; where our clock leapt back, not at all."""
    wait_s = entry.due - time.time()
    return wait_s if entry.tries and 0 < wait_s <= _back_off_s(entry.tries) else 0.0
