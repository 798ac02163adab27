"""Alerts: actions, those that fail, restarts."""

import asyncio
import contextlib
import hashlib
import hmac
import http.server
import importlib.util
import json
import logging
import socket
import sqlite3
import sys
import threading
from types import SimpleNamespace

import pytest

from streamtwl.config import AlertsSettings
from streamtwl.errors import UsageError
from streamtwl.services.alerts import actions, make, performer, rules, service
from streamtwl.services.alerts.actions import ActionError
from streamtwl.services.outbox import Outbox
from streamtwl.services.service import Feed
from tests.conftest import PATIENCE_S
from tests.example_messages import hello, status
from tests.services.conftest import free_port, wait_until


class Hook(http.server.BaseHTTPRequestHandler):
    """Keeps what is posted; answers as its server is told to."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.endless:
            self.answer_for_ever()
            return
        code = self.server.codes.pop(0) if self.server.codes else 200
        if code == 0:
            self.server.hang.wait(60)
            return
        self.server.got.append((dict(self.headers), body, code))
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.send_header("Set-Cookie", "tracked=1")
        self.end_headers()

    def answer_for_ever(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.server.begun.set()
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(b" " * 1_000_000)
        self.server.broken_off.set()

    def log_message(self, *_arguments) -> None:
        pass


@pytest.fixture
def hook():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), Hook)
    server.got, server.codes, server.hang, server.endless = [], [], threading.Event(), False
    server.begun, server.broken_off = threading.Event(), threading.Event()
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
        listener.emit(hello(0, "first", listener.publisher.replay))
        one = alerts(webhook(hook), "hook")
        serving = running([one], Feed(listener.publisher.endpoint, name="ears"))
        wait_until(lambda: positions(tmp_path))
        listener.sounds("Dog", number=0)
        wait_until(lambda: one.figures()["sent"] == 1)
        serving.close()
        listener.sounds("Dog", number=1)
    with listening("second") as listener:
        listener.emit(hello(0, "second", listener.publisher.replay))
        listener.sounds("Dog", number=0)
    with listening("third") as listener:
        listener.emit(hello(0, "third", listener.publisher.replay))
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


def test_an_apprise_address_that_is_two_is_refused(alerts):
    pytest.importorskip("apprise")
    with pytest.raises(UsageError, match=r"\[action.note\]: apprise: these are 2 addresses"):
        alerts('[action.note]\napprise = "json://h, json://k"\n', "note")


FIRING = json.dumps({"text": "x", "id": "1", "label": "Dog"}).encode()


def give_up_when(begun: threading.Event, perform: actions.Perform) -> None:
    """Perform an action, and cancel it when it has begun, as a timeout does."""

    async def run() -> None:
        task = asyncio.create_task(perform(FIRING))
        assert await asyncio.to_thread(begun.wait, PATIENCE_S)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(run())


def test_apprise_is_ended_with_its_time(hook):
    pytest.importorskip("apprise")
    hook.endless = True
    action = rules.Action(apprise=f"json://127.0.0.1:{hook.server_port}/")
    give_up_when(hook.begun, actions.make("note", action))
    assert hook.broken_off.wait(PATIENCE_S)


def test_apprise_has_little_memory(hook):
    """An endless answer ends it, long before its time is over."""
    pytest.importorskip("apprise")
    hook.endless = True
    action = rules.Action(apprise=f"json://127.0.0.1:{hook.server_port}/")
    with pytest.raises(ActionError, match="did not take"):
        asyncio.run(actions.make("note", action)(FIRING))
    assert hook.broken_off.wait(PATIENCE_S)


def test_a_command_that_is_ended_takes_along_what_it_started():
    began = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        child = f"import socket; socket.create_connection({server.getsockname()!r}).recv(1)"
        script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
        accepted = []

        def accept() -> None:
            accepted.append(server.accept()[0])
            began.set()

        threading.Thread(target=accept, daemon=True).start()
        action = rules.Action(command=[sys.executable, "-c", script])
        give_up_when(began, actions.make("run", action))
        with accepted[0] as connection:
            connection.settimeout(PATIENCE_S)
            assert connection.recv(1) == b""  # it is gone


def test_a_command_does_not_get_the_secrets_of_others(
    listener, running, hook, alerts, tmp_path, monkeypatch
):
    secret = ("HOOK_SECRET", "STREAMTWL_TOKEN", "STREAMTWL_WEB_PASSWORD", "STREAMTWL_X_KEY")
    for name in (*secret, "OTHER"):
        monkeypatch.setenv(name, "s3cret")
    script = f"import json, os; json.dump(dict(os.environ), open(r'{tmp_path}/got', 'w'))"
    command = json.dumps([sys.executable, "-c", script])
    run = f"[action.run]\ncommand = {command}\n"
    one = alerts(run + webhook(hook, 'secret = "$HOOK_SECRET"'), "run")
    running([one], listener.feed)
    listener.sounds("Dog")
    wait_until(lambda: one.figures()["sent"] == 1)
    got = json.loads((tmp_path / "got").read_text())
    assert (got["OTHER"], got["STREAMTWL_LABEL"]) == ("s3cret", "Dog")
    assert not set(got) & set(secret)


@pytest.mark.parametrize(
    ("name", "value"),
    [("ALL_PROXY", "socks5://u:s3cret@127.0.0.1:1"), ("HTTPS_PROXY", "foo://u:s3cret@x")],
)
def test_a_proxy_that_cannot_be_is_refused(hook, alerts, monkeypatch, name, value):
    if name == "ALL_PROXY" and importlib.util.find_spec("socksio"):
        pytest.skip("here it can be")
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=r"\[action.hook\]: a proxy that the env") as error:
        alerts(webhook(hook), "hook")
    assert "s3cret" not in str(error.value)


def test_libraries_log_no_address_and_no_cookie_is_kept(
    listener, running, hook, alerts, caplog, monkeypatch
):
    with caplog.at_level(logging.DEBUG):
        one = alerts(webhook(hook), "hook")
        running([one], listener.feed)
        for number in range(2):
            listener.sounds("Dog", number=number)
        wait_until(lambda: one.figures()["sent"] == 2)
        with pytest.raises(UsageError):
            alerts('[action.note]\napprise = "tgram://key=k/nonsense nonsense://key=k"\n', "note")
    assert "key=k" not in caplog.text
    assert not any("Cookie" in headers for headers, *_ in hook.got)


def test_a_state_waits_for_the_events_before_it(monkeypatch):
    """They come by another subscription, which may be behind."""
    monkeypatch.setattr(service, "BESIDE_S", PATIENCE_S)

    events = SimpleNamespace(positions={("s", "event/mic/"): 3})

    async def run() -> None:
        waiting = asyncio.create_task(service._have_come(events, status(0, event=4)))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        events.positions["s", "event/mic/"] = 4
        async with asyncio.timeout(PATIENCE_S):
            await waiting
        monkeypatch.setattr(service, "BESIDE_S", 0.0)
        await service._have_come(events, status(1, event=5))  # which is lost, say

    asyncio.run(run())


def test_events_that_lead_to_nothing_do_not_write_all_that_is_known(
    listener, running, alerts, monkeypatch
):
    one, saved, save = alerts('[action.run]\ncommand = ["true"]\n', "run"), [], Outbox.save
    monkeypatch.setattr(service, "SAVE_S", PATIENCE_S)
    monkeypatch.setattr(Outbox, "save", lambda *of: (saved.append(of), save(*of)))
    running([one], listener.feed)
    for number in range(20):
        listener.sounds("Cat", number=number)
    listener.sounds("Dog", number=20)
    wait_until(lambda: one.figures()["sent"] == 1)
    assert len(saved) <= 4  # as it meets the listener, and for what fired
