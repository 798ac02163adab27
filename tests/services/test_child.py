"""The services beside a listener: started with it, again where they fail, ended with it."""

import logging
import re
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

from streamtwl.config import ServicesSettings
from streamtwl.errors import StreamtwlError, UsageError
from streamtwl.services import child as child_module
from streamtwl.services.child import Child
from streamtwl.services.server import Listener
from tests.services.conftest import free_port, wait_until

LISTENER = Listener("tcp://127.0.0.1:1", "s", [])
DIES = "import sys; input(); print('ready', flush=True); input(); sys.exit('no more')"
LIVES = "import sys; input(); print('ready', flush=True); sys.stdin.read()"
NEVER_ENDS = "import time; input(); print('ready', flush=True); time.sleep(1000)"
REFUSES = "import sys; input(); print('streamtwl: no such broker', file=sys.stderr); sys.exit({})"


@pytest.fixture
def child(monkeypatch):
    """Make a child that runs some Python."""
    made = []

    def make(program: str) -> Child:
        monkeypatch.setattr(child_module, "COMMAND", [sys.executable, "-c", program])
        monkeypatch.setattr(child_module, "BACK_OFF_S", (0.01,))
        made.append(Child(ServicesSettings(), "warning"))
        return made[-1]

    yield make
    for one in made:
        one._process.kill()
        one.close()


def test_a_child_that_dies_is_started_again_and_said_once(child, caplog):
    one = child(DIES)
    with caplog.at_level(logging.WARNING):
        one.connect(LISTENER)
        pids = set()

        def started_often() -> bool:
            one.watch()
            pids.add(one._process.pid)
            return len(pids) > 3

        wait_until(started_often)
    said = [record.getMessage() for record in caplog.records if "again" in record.getMessage()]
    assert said == ["the services ended and are started again: no more"]


def test_a_child_that_cannot_be_started_again_is_tried_later(child, monkeypatch):
    one, tried = child(DIES), []
    one.connect(LISTENER)

    def no_memory(*_of, **_more) -> None:
        tried.append(1)
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(child_module.subprocess, "Popen", no_memory)

    def tried_twice() -> bool:
        one.watch()
        return len(tried) > 1

    wait_until(tried_twice)


def test_a_child_ends_with_its_input(child):
    one = child(LIVES)
    one.connect(LISTENER)
    one.watch()
    one.close()
    assert one._process.returncode == 0


def test_a_child_that_does_not_end_is_killed(child, monkeypatch, caplog):
    monkeypatch.setattr(child_module, "END_S", 0.1)
    one = child(NEVER_ENDS)
    one.connect(LISTENER)
    one.close()
    assert one._process.returncode == -signal.SIGKILL
    assert "they are killed" in caplog.text


@pytest.mark.parametrize(("code", "kind"), [(2, UsageError), (1, StreamtwlError)])
def test_what_a_child_refuses_the_listener_refuses(child, code, kind):
    with pytest.raises(kind, match=r"^no such broker$"):
        child(REFUSES.format(code)).connect(LISTENER)


def test_a_package_that_is_absent_is_named_with_its_extra(cli, monkeypatch, tmp_path):
    (tmp_path / "prometheus_client.py").write_text("raise ModuleNotFoundError(name=__name__)\n")
    result = cli("serve", "--metrics", env={"PYTHONPATH": f"{tmp_path}:{':'.join(sys.path)}"})
    assert result.returncode == 2
    assert "--metrics needs the package prometheus_client: pip install 'streamtwl[metrics]'" in (
        result.stderr
    )


def test_nothing_to_serve_is_refused(cli):
    result = cli("serve")
    assert result.returncode == 2
    assert "nothing to serve: use --mqtt, --web, --alerts or --metrics" in result.stderr


@pytest.mark.slow
def test_a_wrong_setting_is_refused_before_listening(cli, tmp_path):
    rules = tmp_path / "rules.toml"
    rules.write_text("[[rule]]\nname = 1\n")
    result = cli("listen", "--demo", "--fast", "--quiet", "--alerts", rules)
    assert result.returncode == 2
    assert "line 2: [rule]: name: Expected `str`, got `int`" in result.stderr


def run(start_cli, tmp_path, port, *more):
    keys = ("--bind", "tcp://127.0.0.1:*", "--replay-bind", "tcp://127.0.0.1:*", "--quiet")
    journal = ("--journal", tmp_path / "journal.sqlite", "--pipeline", "yamnet", "--no-control")
    return start_cli("listen", "--demo", *keys, *journal, "--metrics", port, *more)


def events(port: int) -> float:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            found = re.findall(r"^streamtwl_events_total\{.*\} (.*)$", answer.read().decode(), re.M)
            return sum(map(float, found))
    except OSError:
        return 0.0


@pytest.mark.slow
def test_the_services_of_a_guarded_listener_subscribe_with_its_own_key(
    cli, start_cli, tmp_path, monkeypatch
):
    monkeypatch.setenv("STREAMTWL_CONFIG", str(tmp_path / "config"))
    assert cli("keys", "new").returncode == 0
    port = free_port()
    process = run(start_cli, tmp_path, port, "--curve")
    wait_until(lambda: events(port) >= 1)
    process.send_signal(signal.SIGINT)
    process.wait(60)


@pytest.mark.slow
def test_the_listener_goes_on_where_its_services_are_killed(start_cli, tmp_path):
    port = free_port()
    process = run(start_cli, tmp_path, port)
    wait_until(lambda: events(port) >= 1)
    listed = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(process.pid)], capture_output=True, text=True
    ).stdout
    [pid] = [line.split()[0] for line in listed.splitlines() if "serve --child" in line]
    subprocess.run(["kill", "-KILL", pid], check=True)
    wait_until(lambda: events(port) == 0)
    wait_until(lambda: events(port) >= 1)  # again, and from the session's start
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0
    assert errors.decode().count("the services ended and are started again") == 1


@pytest.mark.slow
def test_services_that_lose_their_listener_end(start_cli, tmp_path):
    port = free_port()
    process = run(start_cli, tmp_path, port)
    wait_until(lambda: events(port) >= 1)
    process.kill()
    until = time.monotonic() + 60
    while events(port):
        assert time.monotonic() < until
        time.sleep(0.1)
