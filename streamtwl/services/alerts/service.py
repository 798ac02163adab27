"""Rules on a listener's messages: each firing into the outbox once, each action by itself."""

import asyncio
import contextlib
import logging
import time

import msgspec

from streamtwl import folders
from streamtwl.client import Subscription
from streamtwl.config import AlertsSettings
from streamtwl.label_filter import unknown_names
from streamtwl.messages import Hello
from streamtwl.services.alerts import actions, rules
from streamtwl.services.alerts.actions import ActionError, Perform
from streamtwl.services.alerts.engine import Engine, Firing, Memory
from streamtwl.services.outbox import Entry, Outbox, after
from streamtwl.services.service import Feed, Figures, Lateness, Positions
from streamtwl.unrolling import unrolled

_log = logging.getLogger(__name__)

BACK_OFF_S = (
    5.0,
    15.0,
    60.0,
    300.0,
    900.0,
    3600.0,
)  # after each failure; the last one from then on
TRIES = 12  # of an action on a firing: over six hours
SAVE_S = 10.0  # from one writing of the position to the next, where nothing applies


class AlertsService:
    """Reads, decides, and sends; a firing waits in the outbox until its action has succeeded."""

    name = "alerts"

    def __init__(self, settings: AlertsSettings) -> None:
        """Raises ConfigError, UsageError, ModuleNotFoundError where an extra is missing."""
        loaded = rules.load(folders.expand(settings.rules))
        self._rules = loaded.rules
        used = {name for rule in loaded.rules for name in rule.actions}
        self._actions = {name: action for name, action in loaded.actions.items() if name in used}
        self._perform: dict[str, Perform] = {
            name: actions.make(name, action) for name, action in self._actions.items()
        }
        self._outbox: Outbox | None = None
        self._lateness = Lateness()
        self._wake = {name: asyncio.Event() for name in self._actions}
        self._counts = {"fired": 0, "sent": 0, "failed": 0, "given_up": 0, "lost": 0}

    def figures(self) -> Figures:
        """Return what fired, what was sent, failed and was given up, what waits and was lost."""
        outbox = self._outbox
        return {
            **self._counts,
            "waiting": outbox.waiting if outbox else 0,
            "dropped": outbox.dropped if outbox else 0,
        }

    async def run(self, feed: Feed) -> None:
        """Read and act until cancelled."""
        with contextlib.closing(Outbox(self.name, feed)) as outbox:
            self._outbox = outbox
            if gone := outbox.keep(self._actions):
                _log.warning("alerts: %d that waited are of actions that no rule has now", gone)
            try:
                async with asyncio.TaskGroup() as tasks:
                    self._read(feed, outbox, tasks)
                    for name in self._actions:
                        tasks.create_task(self._act(name, outbox))
            except ExceptionGroup as group:
                raise group.exceptions[0] from None
            finally:
                self._outbox = None

    def _read(self, feed: Feed, outbox: Outbox, tasks: asyncio.TaskGroup) -> None:
        """Read events from where we were, and what goes on beside them, live."""
        engine = Engine(self._rules, outbox.state(Memory))
        events = feed.open(["event"], outbox.positions, from_start=True)
        hops = any(rule.lasting_s or rule.confirmed for rule in self._rules)
        live = feed.open(["hello", "label", "status"] if hops else ["hello", "status"])
        tasks.create_task(self._read_events(events, engine, outbox))
        tasks.create_task(self._read_live(live, events, engine, outbox))

    async def _read_events(self, events: Subscription, engine: Engine, outbox: Outbox) -> None:
        async with events:
            async for message in events:
                late = self._lateness.is_late(message.published_at)
                self._put(engine.take(message, late), after(events, message), engine, outbox)
                self._counts["lost"] = events.lost.total()

    async def _read_live(
        self, live: Subscription, events: Subscription, engine: Engine, outbox: Outbox
    ) -> None:
        saved_at, opened, met = time.monotonic(), 0, ""
        async with live:
            async for message in live:
                if not isinstance(message, Hello):  # which may be of the session's beginning
                    self._lateness.take(message)
                elif met != message.session:
                    met = message.session
                    self._meet(message)
                fired = [one for each in unrolled(message) for one in engine.take(each)]
                fresh = events.opened > opened  # else one killed now would begin anew
                if fired or fresh or time.monotonic() > saved_at + SAVE_S:
                    saved_at, opened = time.monotonic(), events.opened
                    self._put(fired, events.positions, engine, outbox)

    def _meet(self, hello: Hello) -> None:
        """Say which of the rules' labels the listener never names."""
        for rule in self._rules:
            for problem in unknown_names(rule.labels, hello.labels):
                _log.warning("alerts: rule '%s': %s", rule.name, problem)

    def _put(
        self, fired: list[Firing], positions: Positions, engine: Engine, outbox: Outbox
    ) -> None:
        """Put what fired into the outbox, with the position and the state that led to it."""
        actions_of = {rule.name: rule.actions for rule in self._rules}
        entries = [
            (name, msgspec.json.encode(each)) for each in fired for name in actions_of[each.rule]
        ]
        outbox.save(positions, engine.memory, entries)
        self._counts["fired"] += len(fired)
        for name, _ in entries:
            self._wake[name].set()

    async def _act(self, name: str, outbox: Outbox) -> None:
        """Perform an action on all firings that wait for it, in their order."""
        said = ""
        while True:
            entry = outbox.first(name)
            if entry is None:
                self._wake[name].clear()
                await self._wake[name].wait()
                continue
            # a clock that leaps back does not keep it waiting for long
            wait_s = min(entry.due - time.time(), BACK_OFF_S[-1])
            if wait_s > 0 and entry.tries:
                await asyncio.sleep(min(wait_s, BACK_OFF_S[min(entry.tries, len(BACK_OFF_S)) - 1]))
            why = await self._try(name, entry)
            if why is None:
                outbox.done(entry)
                self._counts["sent"] += 1
                said = ""
                continue
            self._failed(name, entry, outbox, why)
            if said != str(why):
                _log.warning("action '%s' failed: %s", name, why)
            said = str(why)

    async def _try(self, name: str, entry: Entry) -> ActionError | None:
        """Perform an action once; return why it failed."""
        timeout_s = self._actions[name].timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await self._perform[name](entry.payload)
        except ActionError as error:
            return error
        except TimeoutError:
            return ActionError(f"no answer within {timeout_s:g} s")
        return None

    def _failed(self, name: str, entry: Entry, outbox: Outbox, why: ActionError) -> None:
        self._counts["failed"] += 1
        if why.passing and entry.tries + 1 < TRIES:
            outbox.failed(entry, BACK_OFF_S[min(entry.tries, len(BACK_OFF_S) - 1)])
            return
        outbox.done(entry)
        self._counts["given_up"] += 1
        rule = msgspec.json.decode(entry.payload)["rule"]
        _log.warning("action '%s' on rule '%s' is given up: %s", name, rule, why)
