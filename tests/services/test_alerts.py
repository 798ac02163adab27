"""Alerts: files of rules, actions that fail, restarts."""

import contextlib
import hashlib
import hmac
import http.server
import json
import logging
import sqlite3
import sys
import threading

import pytest

from streamtwl.config import AlertsSettings
from streamtwl.errors import ConfigError, UsageError
from streamtwl.messages import Event
from streamtwl.services.alerts import make, performer, rules
from streamtwl.services.service import Feed
from tests.example_messages import hello
from tests.services.conftest import free_port, wait_until

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
