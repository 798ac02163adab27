"""Nothing is sent anywhere, and nothing written but to our own folders, as strace sees it.

Allowed are, apart from those folders: what was asked for with -o, devices such as /dev/null, and
Python's own __pycache__ beside the sources.
"""

import ast
import ipaddress
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from streamtwl.models import registry
from tests.conftest import COMMAND, PATIENCE_S, REPOSITORY

OURS = (".cache/streamtwl", ".local/state/streamtwl", ".config/streamtwl")
ABOVE_OURS = (".cache", ".local", ".local/state", ".config")  # which may have to be made
WRITES = "open,openat,creat,mkdir,mkdirat,mknod,mknodat,rename,renameat,renameat2,link,linkat,"
WRITES += "symlink,symlinkat,unlink,unlinkat,rmdir,truncate,chmod,fchmodat,chown,fchownat"
RESOLVERS = ("/nscd/", "systemd.resolve", "systemd/resolve", "avahi")
ENDPOINTS = ("--bind", "tcp://127.0.0.1:*", "--replay-bind", "tcp://127.0.0.1:*")


@pytest.fixture
def home(tmp_path, yamnet) -> Path:
    """The home folder of somebody who has YAMNet and nothing else."""
    cache = tmp_path / "home" / ".cache" / "streamtwl"
    cache.mkdir(parents=True)
    for suffix in (".onnx", ".json"):
        shutil.copy(registry.path(registry.find("yamnet")).with_suffix(suffix), cache)
    return tmp_path / "home"


@pytest.fixture
def seen(home, tmp_path):
    """Run a program under strace: seen(command) returns what it did that it must not."""
    if shutil.which("strace") is None:
        pytest.skip("no strace: apt-get install strace")
    if subprocess.run(["strace", "-qq", "-o", os.devnull, "true"]).returncode:
        pytest.skip("strace may not trace here (ptrace is forbidden)")
    (tmp_path / "traces").mkdir()
    (tmp_path / "cwd").mkdir()

    def run(command, allowed=(), env=None) -> list[str]:
        tracing = ["strace", "-ff", "-y", "-qq", "-o", tmp_path / "traces" / "of"]
        tracing += ["-e", f"trace=%network,{WRITES}"]
        ours = ("STREAMTWL_", "XDG_", "ORT_", "HF_", "DISABLE_", "PYTHONPYCACHE")
        own = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        ended = subprocess.run(
            [*tracing, *map(str, command)],
            env=own | {"HOME": str(home)} | (env or {}),
            cwd=tmp_path / "cwd",
            capture_output=True,
            text=True,
            timeout=3 * PATIENCE_S,
        )
        assert ended.returncode == 0, ended.stderr
        allowed = [*(home / folder for folder in OURS), *allowed]
        calls = [
            line
            for trace in (tmp_path / "traces").iterdir()
            for line in trace.read_text(errors="replace").splitlines()
        ]
        assert any(line.startswith("open") for line in calls)
        return [line for line in calls if _is_forbidden(line, home, tmp_path / "cwd", allowed)]

    return run


def _is_forbidden(line: str, home: Path, cwd: Path, allowed: list[Path]) -> bool:
    call, _, arguments = line.partition("(")
    if call in ("bind", "connect", "sendto", "sendmsg", "sendmmsg"):
        return _leaves_this_machine(arguments)
    if call not in WRITES.split(","):
        return False
    if call.startswith("open") and not re.search("O_WRONLY|O_RDWR|O_CREAT|O_TRUNC", arguments):
        return False
    for path in _paths(arguments, cwd):
        if call.startswith("mkdir") and path in [home / folder for folder in ABOVE_OURS]:
            continue
        if path.is_relative_to("/dev") or "__pycache__" in path.parts:
            continue
        if not any(path.is_relative_to(folder) for folder in allowed):
            return True
    return False


def _leaves_this_machine(arguments: str) -> bool:
    if "sa_family=AF_UNIX" in arguments:
        return any(resolver in arguments for resolver in RESOLVERS)
    addresses = re.findall(r'inet_(?:addr|pton)\((?:AF_INET6?, )?"([^"]+)"', arguments)
    is_name_server = re.search(r"sin6?_port=htons\(53\)", arguments)
    return bool(is_name_server) or not all(map(_is_loopback, addresses))


def _is_loopback(address: str) -> bool:
    found = ipaddress.ip_address(address)
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


def _paths(arguments: str, cwd: Path) -> list[Path]:
    """Return the absolute paths in a call: 'AT_FDCWD</cwd>, "name", ...' or '"name", ...'."""
    found = re.findall(r'(?:\w+<([^>]*)>, )?"((?:[^"\\]|\\.)*)"', arguments)
    return [Path(os.path.normpath(Path(folder or cwd) / name)) for folder, name in found]


# --- it can fail ---


@pytest.mark.parametrize(
    "wrong",
    [
        "import socket; socket.socket(type=socket.SOCK_DGRAM).connect(('192.0.2.1', 9))",
        "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('127.0.0.1', 53))",
        "import socket; socket.socket().bind(('0.0.0.0', 0))",
        "import pathlib; pathlib.Path.home().joinpath('.telemetry').touch()",
        "import pathlib; pathlib.Path.home().joinpath('.cache/elsewhere').mkdir()",
        "import os, threading; t = threading.Thread(target=open, args=('here', 'w')); t.start()",
        "import subprocess; subprocess.run(['touch', '../child'])",
    ],
)
def test_what_is_wrong_is_seen(wrong, seen):
    assert seen([sys.executable, "-c", wrong])


@pytest.mark.parametrize(
    "right",
    [
        "import socket; s = socket.create_server(('127.0.0.1', 0));"
        "socket.create_connection(s.getsockname())",
        "import pathlib; f = pathlib.Path.home() / '.local/state/streamtwl'; f.mkdir(parents=True);"
        "(f / 'journal').touch()",
        "open('/etc/passwd').read(); open('/dev/null', 'w')",
    ],
)
def test_what_is_right_is_let_pass(right, seen):
    assert seen([sys.executable, "-c", right]) == []


# --- the programs ---


def test_listen_sends_nothing_and_writes_to_its_own_folders(seen):
    assert seen([*COMMAND, "listen", "--demo", "--fast", "--json", *ENDPOINTS]) == []


def test_listen_sends_nothing_in_its_first_twenty_seconds(seen):
    """In real time: ONNX Runtime's telemetry comes within twelve seconds."""
    assert seen([*COMMAND, "listen", "--demo", *ENDPOINTS]) == []


def test_label_sends_nothing_and_writes_what_was_asked_for(seen, wav, noise, tmp_path):
    output = tmp_path / "labels.csv"
    file = wav("noise.wav", noise)
    assert seen([*COMMAND, "label", file, "-o", output], [output]) == []
    assert output.exists()


def test_listening_to_a_microphone_sends_nothing(seen, virtual_mic, home):
    """The sound system's clients keep a cookie, and JACK's a table in /dev/shm: not ours."""
    command = [*COMMAND, "listen", "--duration", "2", "--quiet", *ENDPOINTS]
    assert seen(command, [home / ".config" / "pulse"], virtual_mic.env) == []


# --- telemetry of what we import ---


@pytest.mark.parametrize("before", [None, "", "0", "1"])
def test_onnxruntime_imported_after_us_keeps_nothing(before, home):
    """It makes its device id and queue of events at once where its telemetry is on."""
    env = {key: os.environ[key] for key in os.environ if not key.startswith(("ORT_", "XDG_"))}
    env |= {"HOME": str(home)} | ({} if before is None else {"ORT_DISABLE_TELEMETRY": before})
    model = home / OURS[0] / "yamnet.onnx"
    program = f"import streamtwl, onnxruntime; onnxruntime.InferenceSession({str(model)!r})"
    before_it = set(home.rglob("*"))
    subprocess.run([sys.executable, "-c", program], env=env, check=True)
    assert set(home.rglob("*")) == before_it


@pytest.mark.parametrize(("before", "warnings"), [(None, 1), ("0", 1), ("1", 0)])
def test_onnxruntime_imported_before_us_is_turned_off_and_said_once(before, warnings):
    program = (
        "import sys, unittest.mock\n"
        "sys.modules['onnxruntime'] = fake = unittest.mock.MagicMock()\n"
        "fake.get_available_providers.return_value = []\n"
        "from streamtwl.models import registry\n"
        "for _ in range(2): registry.open_session('model.onnx', 1)\n"
        "assert fake.method_calls[0] == unittest.mock.call.disable_telemetry_events()\n"
    )
    env = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    env |= {} if before is None else {"ORT_DISABLE_TELEMETRY": before}
    ended = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
    )
    assert ended.stderr.count("import streamtwl first") == warnings


def test_no_program_of_ours_imports_what_phones_home_before_us():
    phoning = {"onnxruntime", "transformers", "huggingface_hub", "accelerate"}
    programs = [p for folder in ("benchmarks", "tools") for p in REPOSITORY.glob(f"{folder}/*.py")]
    assert programs
    for program in programs:
        imported = []
        for statement in ast.parse(program.read_text()).body:
            if isinstance(statement, ast.Import):
                imported += [alias.name.partition(".")[0] for alias in statement.names]
            elif isinstance(statement, ast.ImportFrom):
                imported.append((statement.module or "").partition(".")[0])
        before_us = imported[: imported.index("streamtwl")] if "streamtwl" in imported else imported
        assert not phoning & set(before_us), program


def test_the_hubs_telemetry_is_off():
    """And so is the conversion that transformers has a service of the hub do of what it loads."""
    program = (
        "import os, streamtwl\n"
        "from huggingface_hub import constants\n"
        "assert constants.HF_HUB_DISABLE_TELEMETRY\n"
        "assert os.environ['DISABLE_SAFETENSORS_CONVERSION'] == '1'\n"
    )
    env = os.environ | {"HF_HUB_DISABLE_TELEMETRY": "0"}
    subprocess.run([sys.executable, "-c", program], env=env, check=True)
