"""`streamtwl subscribe`, as a process."""

import contextlib
import signal

import pytest

from streamtwl.messages import decode
from streamtwl.sinks.journal import Journal
from streamtwl.sinks.publisher import Publisher
from tests.conftest import PATIENCE_S
from tests.example_messages import hello, label

ANYWHERE = "tcp://127.0.0.1:*"


@pytest.fixture
def publisher(tmp_path, monkeypatch):
    monkeypatch.setattr("streamtwl.sinks.publisher.COMMIT_S", PATIENCE_S)
    with (
        contextlib.closing(Journal(tmp_path / "journal.sqlite")) as journal,
        contextlib.closing(Publisher(ANYWHERE, journal=journal, replay_bind=ANYWHERE)) as one,
    ):
        yield one


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_with_a_state_it_goes_on_where_it_was(how, publisher, start_cli, tmp_path):
    command = ["subscribe", "--connect", publisher.endpoint, "--kind", "label", "--label", "d?g"]
    command += ["--json", "--state", tmp_path / "state.json"]
    publisher.emit(label(0))
    first = start_cli(*command)
    assert decode(first.stdout.readline()).seq == 0  # as a newcomer
    first.send_signal(how)
    assert first.wait(PATIENCE_S) == (0 if how == signal.SIGINT else -how)
    for message in (label(1), label(2, name="Cat"), label(3)):
        publisher.emit(message)
    publisher.emit(hello(0, replay=publisher.replay))
    second = start_cli(*command)
    seqs = [decode(second.stdout.readline()).seq]
    while seqs[-1] < 3:
        seqs.append(decode(second.stdout.readline()).seq)
    assert seqs in ([1, 3], [0, 1, 3])  # the one at hand may come again


def test_its_output_is_for_people_unless_told_otherwise(publisher, start_cli):
    publisher.emit(label(0))
    printing = start_cli("subscribe", "--connect", publisher.endpoint, "--kind", "label")
    assert b"mic        Dog (0.50)" in printing.stdout.readline()
