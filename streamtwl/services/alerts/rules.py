"""A file of rules (TOML): read, and refused with line and key where it cannot be."""

import os
import re
import tomllib
from datetime import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from streamtwl.audio.network_address import Address
from streamtwl.errors import ConfigError, UsageError
from streamtwl.history import local
from streamtwl.label_filter import fits
from streamtwl.services.alerts.places import Places

Seconds = Annotated[float, Meta(ge=0, le=30 * 86_400)]
Count = Annotated[int, Meta(ge=1, le=1000)]
HOURS = re.compile(r"([01]\d|2[0-3]):[0-5]\d-(([01]\d|2[0-3]):[0-5]\d|24:00)", re.ASCII)
TEXT = "{label} at {source}, {time}"
SILENCE = "{rule}: silent at {source}, {time}"
HOOK = re.compile(r"https?://")
SECRET = ("apprise", "webhook", "secret", "mqtt")  # keys that may name a variable


class Rule(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """[[rule]]: when to act.

    It looks for sounds of a label that last, are repeated, are confirmed; with `silence_after_s` or
    `silence_s` it acts when there is none. Durations are of sound, not of a clock.
    """

    name: str
    label: str | list[str] = "*"  # one of these; * and ? as in file names, any case
    source: str = "*"
    actions: Annotated[list[str], Meta(min_length=1)]
    confidence: Annotated[float, Meta(ge=0, le=1)] = 0.0  # the event's peak, at least
    lasting_s: Seconds = 0.0  # the event, at least; it acts as soon as that is so
    confirmed: Annotated[int, Meta(ge=0, le=1000)] = 0  # hops in which it was the label in force
    times: Count = 1  # such events ...
    within_s: Seconds = 3600.0  # ... within so long
    hours: str | list[str] = []  # as 22:00-06:00, local time; empty: always
    silence_after_s: Seconds = 0.0  # after such an event, without any of its label
    silence_s: Seconds = 0.0  # without any of its label, whatever was before
    cooldown_s: Seconds = 0.0  # at a source, after it acted
    text: str = ""  # with {label}, {source}, {rule}, {time}, {lasted_s}, {peak}, {count}

    def __post_init__(self) -> None:
        if not self.name or not self.name.isprintable() or len(self.name) > 100:
            raise ValueError("name: it takes up to 100 letters")
        if self.silence_s and self.silence_after_s:
            raise ValueError("silence_s: it is one of silence_s and silence_after_s")
        if self.silence_s and (self.times > 1 or self.lasting_s or self.confirmed):
            raise ValueError(
                "silence_s: times, lasting_s and confirmed are of sounds: use silence_after_s"
            )
        if self.times > 1 and not self.within_s:
            raise ValueError("within_s: it is 0, in which there is never more than one event")
        if not _listed(self.label) or not all(_listed(self.label)):
            raise ValueError("label: it takes a name or a list of names")
        if not all(map(HOURS.fullmatch, _listed(self.hours))):
            raise ValueError("hours: it takes hours as 22:00-06:00")

    @property
    def of_silence(self) -> bool:
        """Whether it acts when there is no sound."""
        return bool(self.silence_s or self.silence_after_s)

    @property
    def labels(self) -> list[str]:
        """The names and patterns of its labels."""
        return list(_listed(self.label))

    def hears(self, label: str) -> bool:
        """Whether a label is one of its own."""
        return fits(label, self.labels)

    def at(self, source: str) -> bool:
        """Whether a source is one of its own."""
        return fnmatchcase(source, self.source)

    def awake(self, at: float) -> bool:
        """Whether Unix seconds are in its hours, in local time."""
        now = local(at).time()
        spans = [tuple(map(_clock, each.split("-"))) for each in _listed(self.hours)]
        return not spans or any(
            begin <= now < end if begin < end else now >= begin or now < end for begin, end in spans
        )


class Action(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """[action.NAME]: one of four things to do. "$NAME" is the value of an environment variable."""

    apprise: str = ""  # an address of https://github.com/caronc/apprise/wiki
    webhook: str = ""  # http(s)://, to which JSON is posted ...
    secret: str = ""  # ... signed with this
    command: list[str] = []  # a program and its arguments, without a shell
    mqtt: str = ""  # mqtt(s)://[user@]host[:port]/TOPIC
    timeout_s: Annotated[float, Meta(gt=0, le=600)] = 20.0

    def __post_init__(self) -> None:
        kinds = [name for name in ("apprise", "webhook", "command", "mqtt") if getattr(self, name)]
        if len(kinds) != 1:
            raise ValueError(f"it takes one of apprise, webhook, command, mqtt, not {len(kinds)}")
        if self.secret and not self.webhook:
            raise ValueError("secret: it is of a webhook")
        if self.command and (not self.command[0] or "\0" in "".join(self.command)):
            raise ValueError("command: it takes a program and its arguments, without \\0")
        if self.webhook and not self.webhook.startswith("$"):
            _check_address(self.webhook)


class Rules(msgspec.Struct):
    """A file of rules."""

    rules: list[Rule]
    actions: dict[str, Action]
    variables: set[str]  # that the file names
    unset: dict[str, str]  # action: its variable that is not set


def load(path: Path, serving: bool = True) -> Rules:
    """Read a file of rules; raises ConfigError that names the line and the key.

    Unless `serving` a variable may be absent: its name stands for it.
    """
    text = _read(path)
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"rules {path} is not TOML: {error}") from None
    place = Places(path, text)
    for name in document:
        if name not in ("rule", "action"):
            raise place.error(name, "it takes [[rule]] and [action.NAME]", "")
    tables, named = document.get("rule", []), document.get("action", {})
    if not isinstance(tables, list) or not tables:
        raise place.error("rule", "it takes [[rule]], once or more", "")
    if not isinstance(named, dict):
        raise place.error("action", "it takes [action.NAME]", "")
    rules = [place.convert(table, Rule, "rule", nth) for nth, table in enumerate(tables)]
    loaded = Rules(rules, {}, set(), {})
    for name, table in named.items():
        if isinstance(table, dict):
            table = _with_values(name, table, place, loaded, serving)
        loaded.actions[name] = place.convert(table, Action, f"action.{name}")
    _check_names(loaded, place)
    return loaded


def _read(path: Path) -> str:
    """Return the file; raises ConfigError."""
    try:
        content = path.read_bytes()
        return content.decode()
    except OSError as error:
        raise ConfigError(f"rules {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"rules {path}, line {line}: it is not UTF-8") from None


def _with_values(
    action: str, table: dict[str, Any], place: Places, loaded: Rules, serving: bool
) -> dict[str, Any]:
    """Return an action's table with the values of the variables that it names."""
    table = dict(table)
    for key in SECRET:
        said = table.get(key)
        if not isinstance(said, str) or not said.startswith("$"):
            continue
        loaded.variables.add(said[1:])
        value = os.environ.get(said[1:], "")
        problem = "" if value else "not set"
        try:
            value.encode()
        except UnicodeEncodeError:
            problem = "not UTF-8"
        if not problem:
            table[key] = value
        elif serving:
            raise place.error(key, f"the variable {said[1:]} is {problem}", f"action.{action}")
        else:
            loaded.unset[action] = said[1:]
    return table


def _check_names(loaded: Rules, place: Places) -> None:
    """Raise ConfigError for an action that is not there or there twice, and for equal names."""
    actions, seen = loaded.actions, set[str]()
    for nth, rule in enumerate(loaded.rules):
        if len(set(rule.actions)) < len(rule.actions):
            raise place.error("actions", "it has the same one twice", "rule", nth)
        for each in rule.actions:
            if each not in actions:
                there = ", ".join(actions) or "none"
                why = f"there is no [action.{each}]: there is {there}"
                raise place.error("actions", why, "rule", nth)
        if rule.name in seen:
            raise place.error("name", f"there are two rules '{rule.name}'", "rule", nth)
        seen.add(rule.name)


def _listed(one: str | list[str]) -> list[str]:
    return [one] if isinstance(one, str) else one


def _check_address(webhook: str) -> None:
    """Raise ValueError where nothing can be posted to it."""
    if not HOOK.match(webhook):
        raise ValueError("webhook: it takes http(s)://")
    try:
        Address(webhook)
    except UsageError as error:
        raise ValueError(f"webhook: {error}") from None


def _clock(said: str) -> time:
    return time.max if said == "24:00" else time.fromisoformat(said)
