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
from streamtwl.messages import Event, Hello, Status, topic
from streamtwl.services.alerts import actions, rules
from streamtwl.services.alerts.engine import Engine, Firing
from streamtwl.services.alerts.memory import Memory
from streamtwl.services.alerts.performer import Performer
from streamtwl.services.outbox import Outbox, after
from streamtwl.services.service import Feed, Figures, Lateness, Positions
from streamtwl.unrolling import unrolled

_log = logging.getLogger(__name__)

BESIDE_S = 0.5  # for events that come beside a state: less than from one state to the next
LOOK_S = 0.01
SAVE_S = 10.0  # from one writing of position and state to the next, where nothing applies


class AlertsService:
    """Reads, decides, and sends; a firing waits in the outbox until its action has succeeded."""

    name = "alerts"

    def __init__(self, settings: AlertsSettings) -> None:
        """Raises ConfigError, UsageError, ModuleNotFoundError where an extra is missing."""
        loaded = rules.load(folders.expand(settings.rules))
        self._rules = loaded.rules
        self._outbox: Outbox | None = None
        self._lateness = Lateness()
        self._saved = 0.0, 0  # monotonic, and how many topics were followed then
        self._counts = {"fired": 0, "sent": 0, "failed": 0, "given_up": 0, "lost": 0}
        used = {name for rule in loaded.rules for name in rule.actions}
        self._performers = {
            name: Performer(
                name,
                actions.make(name, action, loaded.variables),
                action.timeout_s,
                self._counts,
            )
            for name, action in loaded.actions.items()
            if name in used
        }

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
            if gone := outbox.keep(self._performers):
                _log.warning("alerts: %d that waited are of actions that no rule has now", gone)
            try:
                async with asyncio.TaskGroup() as tasks:
                    self._read(feed, outbox, tasks)
                    for performer in self._performers.values():
                        tasks.create_task(performer.run(outbox))
            except ExceptionGroup as group:
                raise group.exceptions[0] from None
            finally:
                self._outbox = None

    def _read(self, feed: Feed, outbox: Outbox, tasks: asyncio.TaskGroup) -> None:
        """Read events from where we were, and what goes on beside them, live."""
        self._saved = 0.0, 0
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
                fired = engine.take(message, late)
                self._save(fired, events, after(events, message), engine, outbox)
                self._counts["lost"] = events.lost.total()

    async def _read_live(
        self, live: Subscription, events: Subscription, engine: Engine, outbox: Outbox
    ) -> None:
        met = ""
        async with live:
            async for message in live:
                if not isinstance(message, Hello):  # which may be of the session's beginning
                    self._lateness.take(message)
                elif met != message.session:
                    met = message.session
                    self._meet(message)
                if isinstance(message, Status) and any(rule.of_silence for rule in self._rules):
                    await _have_come(events, message)
                fired = [one for each in unrolled(message) for one in engine.take(each)]
                self._save(fired, events, events.positions, engine, outbox)

    def _meet(self, hello: Hello) -> None:
        """Say which of the rules' labels the listener never names."""
        for rule in self._rules:
            for problem in unknown_names(rule.labels, hello.labels):
                _log.warning("alerts: rule '%s': %s", rule.name, problem)

    def _save(
        self,
        fired: list[Firing],
        events: Subscription,
        positions: Positions,
        engine: Engine,
        outbox: Outbox,
    ) -> None:
        """Put what fired into the outbox, with the position and the state that led to it.

        Where nothing did they are written now and then: what comes once more leads to the same.
        """
        saved_at, opened = self._saved
        fresh = events.opened > opened  # else one killed now would begin anew
        if not (fired or fresh or time.monotonic() > saved_at + SAVE_S):
            return
        self._saved = time.monotonic(), events.opened
        actions_of = {rule.name: rule.actions for rule in self._rules}
        entries = [
            (name, msgspec.json.encode(each)) for each in fired for name in actions_of[each.rule]
        ]
        outbox.save(positions, engine.memory, entries)
        self._counts["fired"] += len(fired)
        for name, _ in entries:
            self._performers[name].wake.set()


async def _have_come(events: Subscription, status: Status) -> None:
    """Wait a moment for the events that were published before a state, which else means silence."""
    named = topic(Event, status.source)
    newest, until = status.last_seq.get(named, -1), time.monotonic() + BESIDE_S
    while events.positions.get((status.session, named), -1) < newest:
        if time.monotonic() > until:
            return
        await asyncio.sleep(LOOK_S)
