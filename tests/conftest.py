"""What several tests share: data, YAMNet, noise, a virtual microphone, the command line."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import soundfile

from streamtwl.audio.resample import Resampler
from streamtwl.backbones.yamnet import YamNet
from streamtwl.models import registry
from streamtwl.stages import SAMPLE_RATE

REPOSITORY = Path(__file__).parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"
SHARED_MODELS = REPOSITORY.parent / "shared" / "models"
if SHARED_MODELS.exists():  # mn04's weights: without them the default pipeline is its fallback
    os.environ.setdefault("STREAMTWL_MODELS", str(SHARED_MODELS))
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where pytest is a background
# job, and then what tests start would ignore it, too
COMMAND = [sys.executable, str(Path(sys.executable).with_name("streamtwl"))]
PATIENCE_S = 600  # whatever takes longer has hung, on a slow machine too

# What docs/testing.md calls slow as a whole; single tests elsewhere are marked.
TRAINING = (  # imports the extra `train`
    "backbones/test_causal.py",
    "bench/",
    "benchmarks/",
    "models/test_ast_onnx.py",
    "models/test_checkpoints.py",
    "paper/test_experiment.py",
    "paper/test_gpt2.py",
    "paper/test_report.py",
    "reasoners/test_gpt2.py",
    "tools/",
    "training/",
)
PROCESSES = (  # waits for real ones
    "archives/test_job.py",
    "archives/test_ray.py",
    "e2e/",
    "faults/",
    "models/test_download.py",
    "models/test_store.py",
    "models/test_wheel.py",
    "test_container.py",
    "test_node.py",
    "test_packaging.py",
    "test_privacy.py",
)
ALONE = ("e2e/", "faults/", "test_privacy.py")  # of them: the slow tests of sound in real time
collect_ignore = [] if importlib.util.find_spec("torch") else [*TRAINING]


def pytest_collection_modifyitems(items) -> None:
    for item in items:
        path = item.path.relative_to(Path(__file__).parent).as_posix()
        if path.startswith(TRAINING + PROCESSES):
            item.add_marker(pytest.mark.slow)
        if path.startswith(ALONE):
            item.add_marker(pytest.mark.alone)


hypothesis.settings.register_profile(  # on a slow machine too
    "streamtwl",
    deadline=None,
    max_examples=50,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("streamtwl")


@pytest.fixture(scope="session", autouse=True)
def state_folder(tmp_path_factory) -> Path:
    """Where the journals of these tests are: not in the user's own folders."""
    folder = tmp_path_factory.mktemp("state")
    os.environ["STREAMTWL_STATE"] = str(folder)
    os.environ["STREAMTWL_DATA"] = str(tmp_path_factory.mktemp("data"))  # nothing is taught
    os.environ.pop("PYTHONUNBUFFERED", None)  # few users have it, and it hides what blocks
    return folder


@dataclass(frozen=True)
class Clip:
    """One recording of ESC-10."""

    name: str
    target: int  # ESC-50's number of the class
    samples: np.ndarray  # float32[n], 16 kHz mono


def _present(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"{path} is absent; $STREAMTWL_TEST_DATA names the folder that esc10/ is in")
    return path


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder with esc10/ and the CSV files: ../shared/data, or $STREAMTWL_TEST_DATA."""
    return _present(Path(os.environ.get("STREAMTWL_TEST_DATA") or SHARED_DATA))


@pytest.fixture(scope="session")
def esc10(data) -> Path:
    """ESC-10, in ESC-50's layout."""
    return _present(data / "esc10")


def mn04_file() -> Path:
    """The release's mn04: in a folder of $STREAMTWL_MODELS, or in ../shared/models."""
    folders = [*filter(None, os.environ.get("STREAMTWL_MODELS", "").split(os.pathsep))]
    name = "mn04_as_mAP_432.pt"
    places = [Path(each) / name for each in (*folders, SHARED_DATA.parent / "models")]
    there = [place for place in places if place.is_file()]
    if not there:
        pytest.skip(f"{name} is absent; $STREAMTWL_MODELS names the folder that it is in")
    return there[0]


@pytest.fixture(scope="session")
def tflite(data) -> Path:
    """Google's YAMNet for LiteRT, front end included."""
    return _present(data.parent / "models" / "yamnet.tflite")


@pytest.fixture(scope="session")
def clips(esc10) -> list[Clip]:
    """ESC-10's clips at 16 kHz."""
    return [_clip(file) for file in sorted((esc10 / "audio").glob("*.ogg"))]


@pytest.fixture(scope="session")
def real_audio(esc10) -> np.ndarray:
    """Five seconds of a dog, 16 kHz."""
    return _clip(sorted((esc10 / "audio").glob("*-0.ogg"))[0]).samples


@pytest.fixture(scope="session")
def yamnet() -> YamNet:
    """YAMNet as the pipeline runs it, got and built first where it is absent."""
    model = registry.find("yamnet")
    registry.pull(model)
    return YamNet(registry.session(model, threads=1))


@pytest.fixture(scope="session")
def mn04(yamnet: YamNet) -> None:
    """Its file beside YAMNet's, built where it is absent."""
    registry.pull(registry.find("mn04"), source=str(mn04_file()))


@pytest.fixture
def noise() -> np.ndarray:
    """Two seconds of white noise at -20 dBFS, float32[32000]."""
    return (0.1 * np.random.default_rng(7).standard_normal(32_000)).astype(np.float32)


@pytest.fixture
def wav(tmp_path):
    """Make WAV files: wav(name, samples, rate=16000) returns the path."""

    def write(name: str, samples: np.ndarray, rate: int = SAMPLE_RATE, **kwargs) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate, **kwargs)
        return path

    return write


@pytest.fixture
def cli():
    """Run the command line in a process of its own: cli("label", "a.wav", env={...})."""

    def run(*arguments, env=None, **kwargs) -> subprocess.CompletedProcess:
        wide = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
        return subprocess.run(
            [*COMMAND, *map(str, arguments)],
            env=os.environ | wide | (env or {}),
            capture_output=True,
            timeout=PATIENCE_S,
            **({"text": True} if not isinstance(kwargs.get("input"), bytes) else {}) | kwargs,
        )

    return run


@pytest.fixture
def start_cli():
    """Start the command line; start_cli("listen", ...) returns the Popen, ended with the test."""
    started = []

    def start(*arguments, prelude: str = "", **kwargs) -> subprocess.Popen:
        command = [sys.executable, "-c", f"{prelude}\nfrom streamtwl.cli import main; main()"]
        command = command if prelude else COMMAND
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen([*command, *map(str, arguments)], **(pipes | kwargs))
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue  # what was unsent when it ended


class VirtualMic:
    """A PulseAudio null sink whose monitor is the default input."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.env: dict[str, str] = {}
        self.plug_in()

    def plug_in(self) -> None:
        """Start the server."""
        script = REPOSITORY / "tools" / "virtual_mic.sh"
        exports = subprocess.run(
            [script, "start", self._folder], capture_output=True, text=True, check=True
        ).stdout
        for assignment in exports.replace("export ", "").split():
            name, _, value = assignment.partition("=")
            self.env[name] = value

    def unplug(self) -> None:
        """End the server."""
        os.kill(int((self._folder / "pid").read_text()), signal.SIGTERM)

    def unload(self) -> None:
        """Take the device away and leave the server."""
        self._pactl("unload-module", "module-null-sink")

    def load(self) -> None:
        """Put the device back."""
        self._pactl("load-module", "module-null-sink", "sink_name=streamtwl", "rate=48000")

    def play(self, sound: Path) -> subprocess.Popen:
        return subprocess.Popen(["paplay", sound], env=os.environ | self.env)

    def _pactl(self, *arguments: str) -> None:
        subprocess.run(["pactl", *arguments], env=os.environ | self.env, check=True)


@pytest.fixture(scope="session")
def virtual_mic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualMic]:
    for program in ("pulseaudio", "pactl", "paplay"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}: apt-get install pulseaudio pulseaudio-utils")
    # A Unix socket's path is short, so not under pytest's own folder.
    mic = VirtualMic(Path(f"/tmp/streamtwl-e2e-{os.getpid()}"))
    yield mic
    mic.unplug()


def _clip(file: Path) -> Clip:
    frames, rate = soundfile.read(file, dtype="float32", always_2d=True)
    resampler = Resampler(rate)
    samples = np.concatenate((resampler.push(frames.mean(axis=1)), resampler.flush()))
    return Clip(file.name, int(file.stem.rsplit("-", 1)[1]), samples)
