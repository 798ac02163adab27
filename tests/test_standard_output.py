"""Standard output that is closed, full or gone: one line and an exit code, for every command."""

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamtwl.sinks.publisher import Publisher
from tests.conftest import COMMAND, PATIENCE_S
from tests.example_messages import event

BIND = ("--bind", "tcp://127.0.0.1:*", "--replay-bind", "tcp://127.0.0.1:*")
LISTEN = ("listen", "--demo", "--fast", *BIND)
PRINTING = [
    ("--version",), ("--help",), ("listen", "--help"), ("labels",), ("labels", "--all"),
    ("schema",), ("models", "list"), ("models", "path"), ("models", "pull"),
    ("label", "tone.wav"), ("label", "--format", "csv", "tone.wav"),
    (*LISTEN, "--json"), LISTEN, ("history",), ("history", "--hourly"), ("keys", "new"),
]  # fmt: skip


@contextlib.contextmanager
def bad_stdout(how: str) -> Iterator[dict]:
    """Give Popen's arguments for a standard output that is closed, full or gone."""
    if how == "closed":
        yield {"preexec_fn": lambda: os.close(1)}
    elif how == "full":
        if not Path("/dev/full").exists():
            pytest.skip("no /dev/full here")
        with open("/dev/full", "w") as full:
            yield {"stdout": full}
    else:
        nobody, pipe = os.pipe()
        os.close(nobody)
        yield {"stdout": pipe}
        os.close(pipe)


def run(arguments, how, folder, **env) -> subprocess.CompletedProcess:
    with bad_stdout(how) as stdout:
        return subprocess.run(
            [*COMMAND, *arguments],
            **stdout,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=os.environ | {"STREAMTWL_CONFIG": str(folder)} | env,
            timeout=PATIENCE_S,
        )


@pytest.fixture
def folder(yamnet, wav, noise, tmp_path, cli) -> Path:
    """A folder with a recording; something is in the journal."""
    return wav("tone.wav", noise).parent


@pytest.fixture(scope="module")
def journal(yamnet, tmp_path_factory) -> dict[str, str]:
    """The environment of a state folder with a journal in which there is something."""
    env = {"STREAMTWL_STATE": str(tmp_path_factory.mktemp("journal"))}
    listen = [*COMMAND, *LISTEN, "--quiet"]
    subprocess.run(listen, env=os.environ | env, check=True, timeout=PATIENCE_S)
    return env


@pytest.mark.parametrize("how", ["closed", "full", "gone"])
@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_what_cannot_be_printed_is_one_line_and_no_success(arguments, how, folder, journal):
    ended = run(arguments, how, folder, **journal)
    assert ended.returncode == 1
    assert "standard output" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr


@pytest.mark.parametrize("how", ["closed", "full", "gone"])
@pytest.mark.parametrize(
    "arguments", [(*LISTEN, "--quiet"), ("label", "-o", "l.csv", "tone.wav")], ids=" ".join
)
def test_who_prints_nothing_needs_no_standard_output(arguments, how, folder, journal):
    ended = run(arguments, how, folder, **journal)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("how", ["closed", "full", "gone"])
def test_subscribe_ends_where_it_cannot_print(how, folder):
    with contextlib.closing(Publisher("tcp://127.0.0.1:*")) as publisher:
        over = threading.Event()

        def publish() -> None:
            seq = 0
            while not over.wait(0.05):
                publisher.emit(event(seq))
                seq += 1

        publishing = threading.Thread(target=publish)
        publishing.start()
        try:
            ended = run(("subscribe", "--connect", publisher.endpoint), how, folder)
        finally:
            over.set()
            publishing.join()
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments", [("schema",), ("labels", "--all"), ("history",)], ids=" ".join
)
def test_a_reader_who_has_had_enough_is_no_error_to_speak_of(arguments, folder, journal):
    """As `| head -1`."""
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env=os.environ | journal,
    )
    process.stdout.read(1)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    process.wait(PATIENCE_S)


@pytest.mark.parametrize("redraws", [0, 2])
def test_a_terminal_that_goes_while_it_listens_ends_it(redraws, yamnet):
    """As a window that is closed or a connection that breaks, and nohup keeps the signal away."""
    ours, terminal = os.openpty()
    listener = subprocess.Popen(
        [*COMMAND, "listen", "--stdin", "--no-journal", *BIND],
        stdin=subprocess.PIPE,  # nothing comes, and it never ends
        stdout=terminal,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(terminal)
    shown = b""
    while shown.count(b"Ctrl-C ends") < redraws:
        shown += os.read(ours, 1000)
    os.close(ours)
    try:
        assert listener.wait(PATIENCE_S) == 1
        assert "standard output" in listener.stderr.read()
    finally:
        listener.kill()
        listener.stdin.close()
        listener.stderr.close()


def test_what_a_program_printed_before_it_calls_us_comes_first():
    program = "from streamtwl.cli import main; print('before'); main()"
    command = [COMMAND[0], "-c", program, "labels"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert ended.stdout.startswith("before\n")


def test_standard_error_that_is_closed_does_not_get_into_the_output(folder):
    ended = subprocess.run(
        [*COMMAND, "label", "absent.wav", "nonsense", "--hop", "7"],
        preexec_fn=lambda: os.close(2),
        stdout=subprocess.PIPE,
        cwd=folder,
        timeout=PATIENCE_S,
    )
    assert (ended.returncode, ended.stdout) == (2, b"")


def test_no_file_gets_the_number_of_a_closed_descriptor(folder, journal):
    """Else what is printed would go into the journal, or to a subscriber."""

    def close_all() -> None:
        for descriptor in range(3):
            os.close(descriptor)

    listen = [*COMMAND, *LISTEN, "--quiet"]
    env = os.environ | journal
    assert subprocess.run(listen, preexec_fn=close_all, env=env, timeout=PATIENCE_S).returncode == 0
