"""Alerts: rules, what they make of messages, actions that fail, restarts."""

import contextlib
import hashlib
import hmac
import http.server
import json
import logging
import sqlite3
import sys
import threading
import time

import msgspec
import pytest

from streamtwl.config import AlertsSettings
from streamtwl.errors import ConfigError, UsageError
from streamtwl.messages import Event, Summary
from streamtwl.services.alerts import make, performer, rules
from streamtwl.services.alerts.engine import REMEMBERED, Engine
from streamtwl.services.alerts.memory import Memory
from streamtwl.services.alerts.rules import Rule
from streamtwl.services.service import Feed
from streamtwl.unrolling import unrolled
from tests.example_messages import event, hello, label, status
from tests.services.conftest import free_port, wait_until

NOON = 1_764_331_200.0  # a Friday in November
RATE = 16_000


class Sound:
    """Messages of a listener, by seconds of sound."""

    def __init__(self, session: str = "s", at: float = NOON) -> None:
        self.session, self.at, self._seq = session, at, 0

    def event(self, phase: str, start: float, now: float, name: str = "Dog", n: int = 1, **more):
        self._seq += 1
        end = None if phase == "onset" or phase == "revised" else round(now * RATE)
        fields = {"phase": phase, "label": name, "id": f"{self.session}-{n}", "end": end}
        fields |= {"start": round(start * RATE), **self._now(now)} | more
        return msgspec.structs.replace(event(self._seq, self.session), **fields)

    def label(self, now: float, name: str | None = "Dog"):
        return msgspec.structs.replace(label(0, self.session, name=name), **self._now(now))

    def status(self, now: float, state: str = "listening"):
        return msgspec.structs.replace(status(0, self.session), state=state, **self._now(now))

    def _now(self, now: float):
        wall = self.at + now
        return {"position": round(now * RATE), "captured_at": wall, "published_at": wall}


def rule(**fields) -> Rule:
    return msgspec.convert({"name": "r", "actions": ["a"]} | fields, Rule)


def fired(engine: Engine, *messages) -> list[str]:
    return [firing.event or "-" for message in messages for firing in engine.take(message)]


def test_an_event_of_the_label_fires_once():
    sound, engine = Sound(), Engine([rule(label=["Dog*", "Cat"])])
    onset, bark = sound.event("onset", 1, 2), sound.event("revised", 1, 3)
    assert fired(engine, onset, bark, sound.event("offset", 1, 4), bark) == ["s-1"]
    assert fired(engine, sound.event("onset", 5, 6, "Siren", 2)) == []
    assert fired(engine, sound.event("onset", 7, 8, "cat", 3)) == ["s-3"]


def test_an_event_that_outlasts_many_others_fires_once():
    sound, engine = Sound(), Engine([rule(label="*")])
    fired(engine, sound.event("onset", 0, 1, "Loud", n=0))
    for number in range(1, 3 * REMEMBERED):
        fired(engine, sound.event("offset", number, number + 0.5, n=number))
        assert fired(engine, sound.event("revised", 0, number + 0.6, "Loud", n=0)) == []
    [track] = engine.memory.tracks.values()
    assert len(track.done) <= REMEMBERED + 2


def test_an_event_that_is_revised_to_the_label_fires():
    sound, engine = Sound(), Engine([rule(label="Doorbell")])
    assert fired(engine, sound.event("onset", 1, 2, "Dog")) == []
    assert fired(engine, sound.event("revised", 1, 3, "Doorbell")) == ["s-1"]


def test_lasting_fires_as_soon_as_it_has():
    sound, engine = Sound(), Engine([rule(label="Dog", lasting_s=3)])
    assert fired(engine, sound.event("onset", 0, 1), sound.label(3.9)) == []  # found after 1 s
    assert fired(engine, sound.label(4.1), sound.label(4.6)) == ["s-1"]
    short = (sound.event("onset", 10, 11, n=2), sound.event("offset", 10, 12, n=2))
    assert fired(engine, *short, sound.label(20)) == []


def test_so_often_within():
    sound, engine = Sound(), Engine([rule(times=3, within_s=10)])

    def bark(at: float, n: int):
        return sound.event("onset", at, at, n=n), sound.event("offset", at, at + 0.5, n=n)

    assert fired(engine, *bark(0, 1), *bark(6, 2), *bark(12, 3)) == []
    assert fired(engine, *bark(15, 4)) == ["s-4"]
    assert fired(engine, *bark(16, 5)) == []  # a new count


def test_confirmed_counts_hops_with_the_label_in_force():
    sound, engine = Sound(), Engine([rule(confirmed=2)])
    onset = sound.event("onset", 0, 1)
    assert fired(engine, onset, sound.label(1), sound.label(1.5, None)) == []
    assert fired(engine, sound.label(2)) == ["s-1"]


def test_confirmed_and_silence_count_what_a_summary_stands_for():
    sound = Sound()
    hops = Summary(1, round(2.5 * RATE), NOON + 2.5, 4, 0.5, 0.5, ["Dog"], [[0, 500]] * 4)
    labels = msgspec.structs.replace(sound.label(4.0), seq=4, summary=hops)
    states = msgspec.structs.replace(
        sound.status(124.0), seq=121, summary=Summary(1, 5 * RATE, NOON + 5, 120)
    )
    engine = Engine(
        [rule(label="Dog", confirmed=4), rule(name="quiet", label="Dog", silence_s=100.0)]
    )
    said = [
        sound.status(0),
        sound.event("onset", 1, 2),
        labels,
        sound.event("offset", 1, 4),
        states,
    ]
    found = [fired(engine, *unrolled(each)) for each in said]
    assert [each for each in found if each] == [["s-1"], ["-"]]
    assert found[2] == ["s-1"]


def test_a_late_event_is_confirmed_by_its_length():
    sound, engine = Sound(), Engine([rule(confirmed=4)])
    short = sound.event("offset", 0, 1), sound.event("offset", 0, 1.5)
    assert [each for message in short for each in engine.take(message, late=True)] == []
    assert len(engine.take(sound.event("offset", 5, 8, n=2), late=True)) == 1


def test_what_a_late_event_is_confirmed_by_follows_the_listeners_hop():
    sound, engine = Sound(), Engine([rule(confirmed=4)])
    engine.take(msgspec.structs.replace(hello(0), settings={"hop_s": 0.96}))
    assert engine.take(sound.event("offset", 0, 3), late=True) == []
    assert len(engine.take(sound.event("offset", 5, 9, n=2), late=True)) == 1


def test_events_that_are_late_keep_their_distance():
    """What comes from the journal in one go did not happen in one go."""
    sound, engine = Sound(), Engine([rule(times=2, within_s=10), rule(name="q", cooldown_s=100)])
    assert fired(engine, sound.status(1000)) == []
    late = [sound.event("onset", at, at + 1, n=at) for at in (100, 150, 300)]
    got = [(each.rule, each.event) for message in late for each in engine.take(message, late=True)]
    assert got == [("q", "s-100"), ("q", "s-300")]


def test_late_events_of_an_old_session_among_states_of_the_new_one():
    """A service that was away: the backlog comes while the next session is under way."""
    rules_ = [
        rule(times=2, within_s=10),
        rule(name="q", cooldown_s=100),
        rule(name="s", silence_s=50),
    ]
    old, new = Sound("a"), Sound("b", NOON + 5000)
    engine = Engine(rules_)
    assert fired(engine, old.status(1), new.status(1)) == []
    late = [old.event("onset", at, at + 1, n=at) for at in (100, 150, 300, 305)]
    got = []
    for number, message in enumerate(late):
        got += [(each.rule, each.event) for each in engine.take(message, late=True)]
        got += [(each.rule, each.event) for each in engine.take(new.status(2 + number))]
    assert got == [("q", "a-100"), ("q", "a-300"), ("r", "a-305")]
    # none of them lasts: the silence of the new session counts
    assert fired(engine, *map(new.status, range(6, 60))) == ["-"]


def test_a_clock_set_back_between_sessions_mutes_nothing():
    engine = Engine([rule(cooldown_s=100)])
    assert fired(engine, Sound("a").event("onset", 0, 1)) == ["a-1"]
    assert fired(engine, Sound("b", NOON - 1e8).event("onset", 0, 1)) == ["b-1"]


def test_confidence_cooldown_and_source():
    sound = Sound()
    engine = Engine([rule(confidence=0.7, cooldown_s=60, source="mi?")])
    assert fired(engine, sound.event("onset", 0, 1, peak=0.6)) == []
    assert fired(engine, sound.event("revised", 0, 2, peak=0.8)) == ["s-1"]
    assert fired(engine, sound.event("onset", 30, 31, n=2, peak=0.9)) == []
    assert fired(engine, sound.event("onset", 90, 91, n=3, peak=0.9)) == ["s-3"]
    other = sound.event("onset", 0, 1, n=4, peak=0.9, source="garden")
    assert fired(engine, other) == []


@pytest.mark.parametrize(
    ("hours", "at", "wanted"),
    [("22:00-06:00", "23:30", True), ("22:00-06:00", "05:59", True),
     ("22:00-06:00", "06:00", False), ("08:00-24:00", "23:59", True),
     (["07:00-08:00", "12:00-13:00"], "12:30", True)],
)  # fmt: skip
def test_hours_are_local(hours, at, wanted):
    hour, minute = map(int, at.split(":"))
    midnight = time.mktime((2026, 11, 28, hour, minute, 0, 0, 0, -1))
    assert rule(hours=hours).awake(midnight) == wanted


def test_the_washing_machine_has_finished():
    sound = Sound()
    engine = Engine([rule(label="Washing*", lasting_s=60, silence_after_s=120)])
    states = [sound.status(at) for at in range(0, 300)]
    assert fired(engine, *states) == []  # nothing was there before
    onset = sound.event("onset", 300, 301, "Washing machine")
    offset = sound.event("offset", 300, 400, "Washing machine")
    running = [sound.status(at) for at in range(301, 400)]
    silence = [sound.status(at) for at in range(400, 700)]
    fired_at = [
        message.position / RATE
        for message in [onset, sound.label(370, None), *running, offset, *silence]
        if engine.take(message)
    ]
    assert len(fired_at) == 1
    assert fired_at[0] == pytest.approx(520, abs=2)


def test_no_sound_from_the_pump_for_an_hour():
    sound, engine = Sound(), Engine([rule(label="Pump", silence_s=3600)])
    assert fired(engine, *map(sound.status, range(0, 3590, 10))) == []
    assert fired(engine, *map(sound.status, range(3600, 9000, 10))) == ["-"]  # once
    on, off = sound.event("onset", 9000, 9001, "Pump"), sound.event("offset", 9000, 9010, "Pump")
    assert fired(engine, on, off, *map(sound.status, range(9010, 12000, 10))) == []
    assert fired(engine, *map(sound.status, range(12000, 13000, 10))) == ["-"]


def test_a_microphone_that_is_away_is_no_silence():
    sound, engine = Sound(), Engine([rule(label="Pump", silence_s=100)])
    lost = [sound.status(at, "lost") for at in range(0, 500)]
    muted = [sound.status(at, "silent") for at in range(500, 900)]
    assert fired(engine, *lost, *muted, sound.status(901), sound.status(1500)) == []


def test_a_clock_that_leaps_moves_no_duration():
    sound, engine = Sound(), Engine([rule(times=2, within_s=10), rule(name="q", silence_s=50)])
    first = sound.event("onset", 0, 1), sound.event("offset", 0, 1.5)
    assert fired(engine, *first, sound.status(2)) == []
    sound.at += 86_400 * 365  # the wall clock leaps ahead by a year
    assert fired(engine, sound.status(3), sound.event("onset", 4, 5, n=2)) == ["s-2"]
    sound.at -= 86_400 * 700  # and back
    assert fired(engine, sound.event("offset", 4, 6, n=2), sound.status(7)) == []
    assert fired(engine, *map(sound.status, range(8, 70))) == ["-"]


def test_what_is_counted_outlives_a_restart_and_a_new_session():
    rule_ = rule(times=2, within_s=60)
    first = Engine([rule_])
    sound = Sound()
    assert fired(first, sound.event("onset", 0, 1), sound.event("offset", 0, 2)) == []
    kept = msgspec.json.decode(msgspec.json.encode(first.memory), type=Memory)
    second = Engine([rule_], kept)
    assert fired(second, sound.event("onset", 0, 1)) == []  # the same again
    later = Sound("t", NOON + 30)
    assert fired(second, later.event("onset", 0, 1)) == ["t-1"]


def test_a_text_puts_in_what_it_names_and_nothing_else():
    sound, engine = Sound(), Engine([rule(text="{label} {0.__class__} {nope} }{ 100 %")])
    [firing] = engine.take(sound.event("onset", 0, 1, "{source}"))
    assert firing.text == "{source} {0.__class__} {nope} }{ 100 %"


RULES = """\
[[rule]]
name = "first"
actions = ["a"]

[[rule]]
name = "second"
label = "Dog"
{}
actions = ["a"]

[action.a]
{}
"""


@pytest.mark.parametrize(
    ("line", "action", "said"),
    [
        ("lastings = 3", "", r"line 8: \[rule\]: lastings: there is no such key; it takes name, "),
        ("lasting_s = 'x'", "", r"line 8: \[rule\]: lasting_s: Expected `float`, got `str`"),
        ("times = 0", "", r"line 8: \[rule\]: times: Expected `int` >= 1"),
        ("hours = '25:00-26:00'", "", r"line 8: \[rule\]: hours: it takes hours as 22:00-06:00"),
        ("silence_s = 1\nlasting_s = 1", "", r"line 8: \[rule\]: silence_s: times, lasting_s"),
        ("lasting_s = ", "", r"is not TOML: Invalid value \(at line 8"),
        ("", "", r"line 11: \[action.a\]: it takes one of apprise, webhook, command, mqtt, not 0"),
        ("", "webhook = 'ftp://x'", r"line 12: \[action.a\]: webhook: it takes http"),
        ("", "webhook = 'http://'", r"line 12: \[action.a\]: webhook: http: it takes an address"),
        ("", "webhook = 'http://h:99999/'", r"line 12: \[action.a\]: webhook: .*not an address"),
        ("", 'command = ["a\\u0000b"]', r"line 12: \[action.a\]: command: .*without \\0"),
        ("", "command = ['']", r"line 12: \[action.a\]: command: it takes a program"),
        ("times = 2\nwithin_s = 0", "", r"line 9: \[rule\]: within_s: it is 0"),
        ("", "apprise = '$NOT_SET_HERE'", "line 12: .*the variable NOT_SET_HERE is not set"),
        ("", "command = ['x']\n[[rules]]", "line 13: rules: it takes "),
        ("", "command = ['x']\n[[rule]]\nname='3'\nactions=['b']", r"line 15: .*no \[action.b\]"),
        ("", "command = ['x']\n[[rule]]\nname='first'\nactions=['a']", "line 14: .*two rules"),
        ("", "command = ['x']\n[[rule]]\nname='3'", r"line 13: \[rule\]: actions: it is missing"),
    ],
)  # fmt: skip
def test_a_rule_that_does_not_parse_names_line_and_key(tmp_path, line, action, said):
    path = tmp_path / "rules.toml"
    path.write_text(RULES.format(line, action))
    with pytest.raises(ConfigError, match=said):
        rules.load(path)


class Hook(http.server.BaseHTTPRequestHandler):
    """Keeps what is posted; answers as its server is told to."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        code = self.server.codes.pop(0) if self.server.codes else 200
        if code == 0:
            self.server.hang.wait(60)
            return
        self.server.got.append((dict(self.headers), body, code))
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments) -> None:
        pass


@pytest.fixture
def hook():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), Hook)
    server.got, server.codes, server.hang = [], [], threading.Event()
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.hang.set()
    server.shutdown()
    server.server_close()


def test_a_label_that_the_listener_never_names_is_said(listener, running, alerts, caplog):
    running([alerts('[action.run]\ncommand = ["true"]\n', "run")], listener.feed)
    listener.emit(hello(10_000, listener.session, listener.publisher.replay, labels=("Bark",)))
    wait_until(lambda: "rule 'dog': no sound is called 'Dog'" in caplog.text)


@pytest.fixture
def alerts(tmp_path, monkeypatch):
    """Make the service of a rule for dogs, with the actions given as TOML."""
    pytest.importorskip("httpx2")
    monkeypatch.setattr(performer, "BACK_OFF_S", (0.02,))

    def make_one(actions: str, *names: str):
        path = tmp_path / "rules.toml"
        path.write_text(
            f'[[rule]]\nname = "dog"\nactions = {list(names)}\nlabel = "Dog"\n{actions}'
        )
        return make(AlertsSettings(rules=str(path)))

    return make_one


def webhook(hook, more: str = "") -> str:
    return f'[action.hook]\nwebhook = "http://127.0.0.1:{hook.server_port}/x?key=k"\n{more}\n'


def test_a_webhook_is_signed_and_tried_again(listener, running, hook, alerts, monkeypatch):
    monkeypatch.setenv("HOOK_SECRET", "s3cret")
    hook.codes[:] = [500, 429]
    running([alerts(webhook(hook, 'secret = "$HOOK_SECRET"'), "hook")], listener.feed)
    sent = listener.sounds("Dog")
    wait_until(lambda: any(code == 200 for *_, code in hook.got))
    headers, body, _ = hook.got[-1]
    assert [code for *_, code in hook.got] == [500, 429, 200]
    signed = headers["X-Streamtwl-Timestamp"].encode() + b"." + body
    expected = hmac.new(b"s3cret", signed, hashlib.sha256).hexdigest()
    assert headers["X-Streamtwl-Signature"] == f"sha256={expected}"
    assert len({headers["X-Streamtwl-Id"] for headers, *_ in hook.got}) == 1
    firing = json.loads(body)
    assert (firing["rule"], firing["label"], firing["event"]) == ("dog", "Dog", sent.id)


def test_a_webhook_that_hangs_holds_no_other_action_up(
    listener, running, hook, alerts, tmp_path, caplog
):
    hook.codes[:] = [0, 0]
    script = f"import os; open(r'{tmp_path}/done', 'a').write(os.environ['STREAMTWL_LABEL'])"
    command = json.dumps([sys.executable, "-c", script])
    one = alerts(
        webhook(hook, "timeout_s = 0.3") + f"[action.run]\ncommand = {command}", "hook", "run"
    )
    with caplog.at_level(logging.WARNING):
        running([one], listener.feed)
        listener.sounds("Dog")
        wait_until(lambda: (tmp_path / "done").exists() and hook.got)
        wait_until(lambda: one.figures()["sent"] == 2)
    assert (tmp_path / "done").read_text() == "Dog"
    figures = dict(one.figures())
    assert figures.pop("failed") >= 2  # a slow machine may be late with an answer, too
    assert figures == {
        "fired": 1, "sent": 2, "given_up": 0, "lost": 0, "waiting": 0, "dropped": 0
    }  # fmt: skip
    said = [record.getMessage() for record in caplog.records]
    assert said == ["action 'hook' failed: no answer within 0.3 s"]  # once


def test_a_command_gets_a_hostile_label_as_it_is(listener, running, alerts, tmp_path):
    script = f"import os; open(r'{tmp_path}/label', 'w').write(os.environ['STREAMTWL_LABEL'])"
    command = json.dumps([sys.executable, "-c", script])
    one = alerts(f"[action.run]\ncommand = {command}", "run")
    one._rules[0].label = "*"
    running([one], listener.feed)
    listener.sounds(f"$(touch {tmp_path}/pwned); `id` \0 'x")
    wait_until(lambda: one.figures()["sent"] == 1)
    assert (tmp_path / "label").read_text() == f"$(touch {tmp_path}/pwned); `id`  'x"
    assert not (tmp_path / "pwned").exists()


def test_a_refusal_is_given_up_and_no_secret_is_said(listener, running, hook, alerts, caplog):
    hook.codes[:] = [403]
    one = alerts(webhook(hook), "hook")
    with caplog.at_level(logging.WARNING):
        running([one], listener.feed)
        listener.sounds("Dog")
        wait_until(lambda: one.figures()["given_up"])
        listener.sounds("Dog", number=2)
        wait_until(lambda: one.figures()["sent"] == 1)
    assert "key=k" not in caplog.text
    assert "403" in caplog.text


def test_apprise_sends_the_text_and_writes_nothing(
    listener, running, hook, alerts, tmp_path, monkeypatch
):
    pytest.importorskip("apprise")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NOTE", f"json://127.0.0.1:{hook.server_port}/")
    running([alerts('[action.note]\napprise = "$NOTE"\n', "note")], listener.feed)
    listener.sounds("Dog")
    wait_until(lambda: hook.got)
    assert "Dog at mic" in json.loads(hook.got[0][1])["message"]
    assert not (tmp_path / "home").exists()


def test_an_apprise_address_that_cannot_be_is_refused_without_its_secret(alerts):
    pytest.importorskip("apprise")
    with pytest.raises(
        UsageError, match=r"\[action.note\]: apprise takes no such address"
    ) as error:
        alerts('[action.note]\napprise = "nonsense://secret"\n', "note")
    assert "secret" not in str(error.value)


@pytest.mark.slow
def test_an_alert_over_mqtt(listener, running, mosquitto, alerts):
    paho = pytest.importorskip("paho.mqtt.client")
    broker, got = mosquitto(), []
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.on_message = lambda _client, _user, message: got.append(json.loads(message.payload))
    client.connect("127.0.0.1", broker.port)
    client.subscribe("house/alerts", 1)
    client.loop_start()
    one = alerts(f'[action.bus]\nmqtt = "mqtt://127.0.0.1:{broker.port}/house/alerts"\n', "bus")
    running([one], listener.feed)
    listener.sounds("Dog")
    wait_until(lambda: got)
    client.loop_stop()
    assert got[0]["label"] == "Dog"
    for topic in ("", "#", "a/+"):
        with pytest.raises(UsageError, match=r"\[action.bus\]: mqtt: the topic"):
            alerts(f'[action.bus]\nmqtt = "mqtt://127.0.0.1/{topic}"\n', "bus")


def test_tries_are_bounded(listener, running, alerts, monkeypatch):
    monkeypatch.setattr(performer, "TRIES", 3)
    one = alerts('[action.run]\ncommand = ["false"]\n', "run")
    running([one], listener.feed)
    listener.sounds("Dog")
    wait_until(lambda: one.figures()["given_up"] == 1)
    assert (one.figures()["failed"], one.figures()["waiting"]) == (3, 0)


def test_a_restart_loses_nothing_and_repeats_nothing(listener, running, hook, alerts):
    hook.codes[:] = [503] * 10_000
    first = alerts(webhook(hook), "hook")
    serving = running([first], listener.feed)
    for number in range(5):
        listener.sounds("Dog", number=number)
    wait_until(lambda: first.figures()["waiting"] == 5 and hook.got)
    serving.close()
    for number in range(5, 10):
        listener.sounds("Dog", number=number)
    hook.codes.clear()
    second = alerts(webhook(hook), "hook")
    running([second], listener.feed)
    wait_until(lambda: second.figures()["sent"] == 10)
    taken = [json.loads(body)["event"] for _, body, code in hook.got if code == 200]
    assert taken == [f"s-{number}" for number in range(10)]


def positions(folder):
    """Return where the service of the listener `ears` goes on when it is started again."""
    path = folder / "state" / "services" / "alerts-ears.sqlite"
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as file:
        return file.execute("SELECT session, seq FROM positions").fetchall()


def test_what_sounds_first_while_no_service_is_there_comes_afterwards(
    listener, running, hook, alerts, tmp_path
):
    one = alerts(webhook(hook), "hook")
    feed = Feed(listener.publisher.endpoint, name="ears")
    serving = running([one], feed)
    wait_until(lambda: positions(tmp_path) == [("s", -1)])  # at once: it might be killed now
    serving.close()
    listener.sounds("Dog")
    another = alerts(webhook(hook), "hook")
    running([another], feed)
    wait_until(lambda: another.figures()["sent"] == 1)


def test_what_sounded_in_sessions_without_a_service_comes_afterwards(
    listening, running, hook, alerts, tmp_path
):
    with listening("first") as listener:
        listener.emit(hello(0, "first"))
        one = alerts(webhook(hook), "hook")
        serving = running([one], Feed(listener.publisher.endpoint, name="ears"))
        wait_until(lambda: positions(tmp_path))
        listener.sounds("Dog", number=0)
        wait_until(lambda: one.figures()["sent"] == 1)
        serving.close()
        listener.sounds("Dog", number=1)
    with listening("second") as listener:
        listener.emit(hello(0, "second"))
        listener.sounds("Dog", number=0)
    with listening("third") as listener:
        listener.emit(hello(0, "third"))
        listener.sounds("Dog", number=0)
        another = alerts(webhook(hook), "hook")
        running([another], Feed(listener.publisher.endpoint, name="ears"))
        wait_until(lambda: another.figures()["sent"] == 3)
    taken = [json.loads(body)["event"] for _, body, _ in hook.got]
    assert taken == ["first-0", "first-1", "second-0", "third-0"]


def test_what_waits_for_an_action_that_is_no_more_is_said_and_not_kept(
    listener, running, hook, alerts, caplog
):
    hook.codes[:] = [503] * 10_000
    first = alerts(webhook(hook), "hook")
    serving = running([first], listener.feed)
    listener.sounds("Dog")
    wait_until(lambda: first.figures()["waiting"] == 1)
    serving.close()
    second = alerts('[action.run]\ncommand = ["true"]\n', "run")
    running([second], listener.feed)
    wait_until(lambda: "1 that waited are of actions that no rule has now" in caplog.text)
    assert second.figures()["waiting"] == 0


def test_what_would_have_fired_comes_from_the_journal(cli, listener, tmp_path):
    for number, name in enumerate(["Dog", "Cat", "Dog"]):
        onset: Event = listener.sounds(name, number=number)
        assert onset.label == name
    (tmp_path / "rules.toml").write_text(
        '[[rule]]\nname = "dog"\nlabel = "dog"\nactions = ["a"]\n[action.a]\ncommand = ["x"]\n'
    )
    journal = ("--journal", tmp_path / "journal.sqlite")
    wait_until(lambda: "Cat" in cli("history", *journal).stdout)
    result = cli("alerts", "test", "--since", "1h", tmp_path / "rules.toml", *journal)
    assert result.returncode == 0, result.stderr
    assert [line.split(",")[0] for line in result.stdout.splitlines()] == ["dog: Dog at mic"] * 2
    (tmp_path / "rules.toml").write_text("[[rule]]\nnam = 1\n")
    result = cli("alerts", "test", tmp_path / "rules.toml", *journal)
    assert result.returncode == 2
    assert "line 2: [rule]: nam: there is no such key" in result.stderr
