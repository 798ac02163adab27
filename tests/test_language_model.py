"""A whole session with a language model on loopback: events, states, what is published of it."""

import contextlib
import math
import os
import signal
import threading
import time
from pathlib import Path

import pytest

import streamtwl
from streamtwl import config
from streamtwl.audio.addresses import SourceOptions, make_sources
from streamtwl.audio.demo import scene
from streamtwl.audio.intake import Intake
from streamtwl.messages import Event, Hello, Label, Status
from streamtwl.session import Session
from tests.conftest import PATIENCE_S
from tests.language_model_server import hangs, language_model, names, sends

pytestmark = pytest.mark.usefixtures("yamnet")

PIPELINE = """
base = "yamnet"
labels = "everyday"
[reasoner]
file = "llm"
[llm]
endpoint = "{url}/a-secret-path"
preset = "chat"
model = "m"
timeout_s = 600.0
"""


@pytest.fixture
def pipeline(tmp_path):
    """Write a pipeline file for a server; pipeline(url) returns its path."""

    def write(url: str) -> str:
        file = tmp_path / "mine.toml"
        file.write_text(PIPELINE.format(url=url))
        return str(file)

    return write


@pytest.fixture
def demo(wav):
    """The demo as a recording."""
    return wav("demo.wav", scene())


def received(pipeline: str, fast: bool = True) -> list:
    kinds = ("hello", "label", "event", "status")
    return list(streamtwl.listen("demo:", kinds=kinds, pipeline=pipeline, fast=fast))


def of(kind: type, messages: list) -> list:
    return [each for each in messages if isinstance(each, kind)]


def test_a_recording_waits_for_the_model_which_names_its_events_again(pipeline):
    with language_model(names("Frog", reasoning="Croak.")) as server:
        messages = received(pipeline(server.url))
    events = of(Event, messages)
    renamed = {each.id for each in events if each.phase == "revised" and each.label == "Frog"}
    assert renamed
    assert {each.id for each in events if each.phase == "onset" and each.label != "Frog"} & renamed
    thoughts = [thought for label in of(Label, messages) for thought in label.thoughts]
    assert {(each.label, each.text) for each in thoughts} == {("Frog", "Croak.")}
    status = of(Status, messages)[-1]
    assert status.thoughts == len(thoughts) == len(server.requests)
    assert (status.failed_thoughts, status.thoughts_error) == (0, None)
    assert len({each.position for each in of(Label, messages)}) == status.hops


def test_nothing_of_the_address_but_its_host_is_published(pipeline):
    with language_model(sends("{}", 500)) as server:
        messages = received(pipeline(server.url))
    hello = of(Hello, messages)[0]
    assert hello.settings["llm"]["endpoint"] == f"http://127.0.0.1:{server.port}"
    status = of(Status, messages)[-1]
    assert status.failed_thoughts > 0
    assert "HTTP 500" in status.thoughts_error
    assert "a-secret-path" not in str(messages)


def test_a_recording_that_waits_for_the_model_is_not_stalled(pipeline, caplog):
    settings = config.load(Path(pipeline("http://127.0.0.1:1")))
    sources = make_sources(SourceOptions(["demo:"], fast=True))
    messages = []
    with contextlib.closing(Intake(sources)) as intake:
        intake.start()
        session = Session(intake, sources, settings, [])
        session.messages.subscribe(messages.append)
        for waiting in (True, False):
            session._pipeline.reasoner.waiting = waiting
            session._alive_at, session._watched_at = -math.inf, time.monotonic()
            session._status_at = -math.inf
            session.watch()
            stalled = of(Status, messages)[-1].state == "stalled"
            assert stalled != waiting
        session.stop()
    assert caplog.text.count("stuck") == 1


def test_only_words_leave(pipeline):
    with language_model(names("Frog")) as server:
        received(pipeline(server.url))
    for sent in server.requests:
        assert set(sent) == {
            "model", "messages", "max_tokens", "seed", "temperature", "top_p", "response_format",
        }  # fmt: skip
        assert all(set(each) == {"role", "content"} for each in sent["messages"])


@pytest.mark.slow
def test_a_model_that_hangs_delays_neither_the_stream_nor_its_end(pipeline):
    with language_model(hangs()) as server:
        messages = received(pipeline(server.url), fast=False)
        assert len(server.requests) == 1
    status = of(Status, messages)[-1]
    assert status.state == "ended"
    assert status.thoughts == 0
    assert status.dropped_thoughts > 0
    assert "onset" in {each.phase for each in of(Event, messages)}


def test_a_recording_that_is_classified_leaves_no_thread(pipeline, demo):
    with language_model(names("Frog")) as server:
        result = streamtwl.classify(demo, pipeline=pipeline(server.url))
    assert "Frog" in {event.label for event in result.events}
    assert "thinker" not in {thread.name for thread in threading.enumerate()}


def test_control_c_ends_a_batch_while_a_request_hangs(start_cli, pipeline, demo, tmp_path):
    with language_model(hangs()) as server:
        options = "--pipeline", pipeline(server.url), "-o", tmp_path / "out.csv"
        running = start_cli("label", demo, *options)
        assert server.received.wait(PATIENCE_S)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 130
    assert b"0 of 1 files have a result" in said
    assert b"Traceback" not in said


def test_control_c_ends_it_while_a_name_is_looked_up(start_cli):
    """The lookup hangs for good, and with it whatever waits for it."""
    prelude = """
import socket, sys, threading
others = socket.getaddrinfo
def lookup(host, *arguments, **named):
    if "models.example" not in str(host):
        return others(host, *arguments, **named)
    print("looks it up", file=sys.stderr, flush=True)
    threading.Event().wait()
socket.getaddrinfo = lookup
"""
    options = "--fast --pipeline yamnet --labels everyday --no-journal --bind tcp://127.0.0.1:*"
    model = "--reasoner llm --preset chat --model m --endpoint http://models.example/v1"
    running = start_cli(*["listen", "--demo", *options.split(), *model.split()], prelude=prelude)
    assert b"looks it up" in running.stderr.readline()
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=PATIENCE_S)
    assert (running.returncode, said) == (0, b"")


def test_without_the_extra_it_says_what_to_install(cli, tmp_path):
    (tmp_path / "openai.py").write_text("raise ModuleNotFoundError('no', name='openai')")
    root = Path(__file__).parents[1]
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(root)])}
    ended = cli("listen", "--demo", "--reasoner", "llm", "--endpoint", "http://x", env=env)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1), ended.stderr
    assert "streamtwl[cpu,llm]" in ended.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--reasoner", "llm"], "--endpoint URL"),
        (["--reasoner", "llm", "--endpoint", "gpu"], "http://127.0.0.1:8000/v1"),
        (["--reasoner", "llm", "--endpoint", "http://gpu", "--preset", "gpt-9"], "gpt-oss-20b"),
        (["--pipeline", "llm", "--preset", "base"], "--model"),
    ],
)
def test_what_is_wrong_is_one_line(cli, options, words):
    ended = cli("listen", "--demo", "--no-journal", "--bind", "tcp://127.0.0.1:*", *options)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1), ended.stderr
    assert words in ended.stderr
