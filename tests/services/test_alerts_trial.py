"""Alerts: `alerts test` says of a journal what `serve` did on the same messages as they came."""

import contextlib
import itertools
import random

import msgspec
import pytest

from streamtwl import history
from streamtwl.messages import Event, Label, Scored, Status, encode
from streamtwl.services.alerts.engine import Engine
from streamtwl.services.alerts.trial import in_order
from streamtwl.sinks.journal import Journal
from streamtwl.sinks.repeats import Repeats, entry
from tests.conftest import PATIENCE_S
from tests.example_messages import event, label
from tests.services.alerts import NOON, RATE, Sound, rule
from tests.services.conftest import wait_until

HOP_S, SEEN_S = 0.48, 1.28  # SEEN_S: from a sound to the decision that finds it, or its end
LASTS_S = 600
RULES = [
    rule(name="each"),
    rule(name="loud", label="Dog", confidence=0.7),
    rule(name="long", lasting_s=4),
    rule(name="sure", confirmed=4),
    rule(name="often", label="Dog", times=3, within_s=60),
    rule(name="calm", cooldown_s=100),
    rule(name="silent", label="Dog", silence_s=40),
    rule(name="over", label="Pump", lasting_s=6, silence_after_s=30),
    rule(name="pause", silence_s=5),
    rule(name="ended", label="Dog", silence_after_s=4),
]


def published(session: str, at: float) -> list[Event | Label | Status]:
    """Return what a listener publishes of ten minutes, in its order: sounds, one after another."""
    chance, sound = random.Random(session), Sound(session, at)
    found, begins, n = [], 3.0, 0
    while begins < LASTS_S - 80:
        name, lasts = chance.choice(["Dog", "Pump"]), chance.choice([0.5, 2, 4, 5, 12])
        ends, n = begins + lasts, n + 1
        seen, gone = (HOP_S * round((each + SEEN_S) / HOP_S) for each in (begins, ends))
        peak = chance.choice([0.5, 0.9])
        of = {"name": name, "n": n, "peak": peak}
        found.append((seen + 0.11, sound.event("onset", begins, seen, **of)))
        offset = sound.event("offset", begins, gone, **of)
        end = round(ends * RATE)
        found.append((gone + 0.11, msgspec.structs.replace(offset, end=end)))
        if chance.random() < 0.3:  # it turns out later to have ended before, or to be none
            none = chance.random() < 0.5
            end = round(begins * RATE) if none else end - round(HOP_S * RATE / 2)
            last = sound.event("revised", begins, gone + HOP_S, **of, retracted=none)
            found.append((gone + HOP_S + 0.11, msgspec.structs.replace(last, end=end)))
        found += [
            (now + 0.1, sound.label(now, name))
            for now in hops(seen, gone)  # up to the one that finds its end
        ]
        begins = gone + chance.choice([2, 6, 12, 45])
    named = {message.position for _, message in found if isinstance(message, Label)}
    quiet = [now for now in hops(HOP_S, LASTS_S) if round(now * RATE) not in named]
    found += [(now + 0.1, sound.label(now, None)) for now in quiet]
    found += [(now + 0.05, sound.status(now)) for now in range(LASTS_S)]
    seqs = dict.fromkeys((Event, Label, Status), 0)
    messages = []
    for when, message in sorted(found, key=lambda each: each[0]):
        seqs[type(message)] += 1
        top = {"top": [Scored(message.label or "Cat", 0.5)]} if isinstance(message, Label) else {}
        fields = {"seq": seqs[type(message)], "published_at": at + when}
        messages.append(msgspec.structs.replace(message, **fields, **top))
    return messages


def hops(begin: float, end: float):
    return [HOP_S * k for k in range(round(begin / HOP_S), round(end / HOP_S))]


@pytest.fixture(scope="module")
def messages():
    return [*published("first", NOON), *published("second", NOON + 2 * LASTS_S)]


@pytest.fixture(scope="module")
def journal(messages, tmp_path_factory):
    """Write a journal as a publisher does, with summaries of what repeats."""
    path = tmp_path_factory.mktemp("journal") / "journal.sqlite"
    with contextlib.closing(Journal(path)) as one:
        for _, of_session in itertools.groupby(messages, lambda message: message.session):
            now = [NOON]
            repeats = Repeats(clock=lambda now=now: now[0])
            for message in of_session:
                now[0] = message.published_at
                payload = encode(message)
                rows = (
                    repeats.hold(message, payload)
                    if repeats.is_repeat(message)
                    else [*repeats.before(message), entry(message, payload)]
                )
                assert one.commit(rows + repeats.due(), PATIENCE_S)
            assert one.commit(repeats.due(all_of_it=True), PATIENCE_S)
    return path


def acted(messages, rules) -> list[tuple]:
    """Return what rules make of messages in this order."""
    engine = Engine(rules)
    firings = [firing for message in messages for firing in engine.take(message)]
    return sorted(
        (each.rule, round(each.at), each.event or "", each.label or "", each.count)
        for each in firings
    )


def as_they_come(messages, events_late_s: float):
    """Return messages in the order of two subscriptions, of which one is ahead."""

    def key(message):
        return message.published_at + (events_late_s if isinstance(message, Event) else 0.0)

    return sorted(messages, key=key)


@pytest.mark.parametrize("events_late_s", [0.0, -0.3, 0.7])
def test_a_trial_agrees_with_what_was_done(messages, journal, events_late_s):
    read = [*history.messages(journal, history.Wanted("*"))]
    assert len(read) < len(messages) / 3  # most are in summaries
    # until its onset is read, a sound is none: a short silence may be over by then
    rules = [each for each in RULES if each.name != "pause" or events_late_s <= 0]
    tried = acted(in_order(read), rules)
    assert {rule_ for rule_, *_ in tried} == {each.name for each in rules}
    assert tried == acted(as_they_come(messages, events_late_s), rules)


def test_messages_of_a_journal_come_in_their_order(messages, journal):
    read = history.messages(journal, history.Wanted("*"))
    moments = [each.published_at for each in in_order(read)]
    assert len(moments) == len(messages)
    assert moments == sorted(moments)


def test_a_clock_set_back_holds_no_message_back():
    ahead = [msgspec.structs.replace(event(n), published_at=NOON + n) for n in range(3)]
    after = [msgspec.structs.replace(event(n), published_at=NOON - 3600 + n) for n in range(3, 300)]
    ordered = in_order(itertools.chain(ahead, after))
    assert [next(ordered).seq for _ in range(5)] == [0, 1, 2, 3, 4]
    assert len([*ordered]) == 295
    assert [*in_order([label(0)])]


def test_what_would_have_fired_comes_from_the_journal(cli, listener, tmp_path):
    for number, name in enumerate(["Dog", "Cat", "Dog"]):
        onset: Event = listener.sounds(name, number=number)
        assert onset.label == name
    (tmp_path / "rules.toml").write_text(
        '[[rule]]\nname = "dog"\nlabel = "dog"\nactions = ["a"]\n[action.a]\ncommand = ["true"]\n'
    )
    journal = ("--journal", tmp_path / "journal.sqlite")
    wait_until(lambda: "Cat" in cli("history", *journal).stdout)
    result = cli("alerts", "test", "--since", "1h", tmp_path / "rules.toml", *journal)
    assert result.returncode == 0, result.stderr
    said = [line.split("  ", 1)[1].split(",")[0] for line in result.stdout.splitlines()]
    assert said == ["mic        dog: Dog at mic"] * 2
    assert result.stderr == ""
    (tmp_path / "rules.toml").write_text("[[rule]]\nnam = 1\n")
    result = cli("alerts", "test", tmp_path / "rules.toml", *journal)
    assert result.returncode == 2
    assert "line 2: [rule]: nam: there is no such key" in result.stderr


def test_a_trial_says_what_serve_would_refuse_and_needs_no_variables(cli, listener, tmp_path):
    listener.sounds("Dog")
    path, journal = tmp_path / "rules.toml", ("--journal", tmp_path / "journal.sqlite")
    path.write_text("""
[[rule]]
name = "a dog"
label = ["Dgo", "Dog"]
confidence = 1.0
actions = ["phone", "run"]
[action.phone]
apprise = "$NOT_SET_HERE"
[action.run]
command = ["/no/such/program"]
""")
    wait_until(lambda: "Dog" in cli("history", *journal).stdout)
    result = cli("alerts", "test", "--since", "1h", path, *journal)
    assert (result.returncode, result.stdout) == (0, "")
    assert "[action.phone]: the variable NOT_SET_HERE is not set: not checked" in result.stderr
    assert "[action.run]: command: there is no program '/no/such/program'" in result.stderr
    assert "rule 'a dog': no sound is called 'Dgo' (did you mean: Dog" in result.stderr
    assert "no rule would have acted: 1 events since" in result.stderr
    result = cli("serve", "--alerts", path)
    assert result.returncode == 2
    assert "line 8: [action.phone]: apprise: the variable NOT_SET_HERE is not set" in result.stderr
