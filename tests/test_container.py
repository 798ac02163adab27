"""The container: packaging/Dockerfile is built on a bare Debian, and its entry point listens."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from streamtwl.stages import SAMPLE_RATE
from tests.conftest import PATIENCE_S, REPOSITORY
from tests.network_servers import web_server

BASE = "python:3.11-slim"  # stood in for by Debian's own Python: no registry is needed
PACKAGES = "python3,python3-pip,python-is-python3,ca-certificates"
CERTIFICATES = Path(os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"))
INSIDE = "/etc/ssl/certs/ca-certificates.crt"


class Buildah:
    """Images and containers in a folder of their own, without a daemon."""

    def __init__(self, folder: Path) -> None:
        self._command = ["buildah", "--root", folder / "root", "--runroot", folder / "run"]

    def __call__(self, *arguments: object) -> str:
        ended = subprocess.run(
            [*self._command, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert ended.returncode == 0, (ended.stdout + ended.stderr)[-4000:]
        return ended.stdout.strip()

    def start(self, container: str, command: list[str]) -> subprocess.Popen:
        """Start a command in a container; it sees this machine's network."""
        run = ("run", "--isolation", "chroot", container, "--", *command)
        return subprocess.Popen([*self._command, *run], stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def buildah(tmp_path_factory) -> Iterator[Buildah]:
    """Buildah, with a stand-in for the image that the Dockerfile builds on."""
    for program in ("buildah", "mmdebstrap"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}: apt-get install buildah mmdebstrap")
    if os.getuid():
        pytest.skip("a container is built here as root only")
    folder = tmp_path_factory.mktemp("container")
    run = Buildah(folder)
    tree = folder / "debian.tar"
    subprocess.run(
        ["mmdebstrap", "--variant=apt", f"--include={PACKAGES}", "bookworm", tree],
        check=True,
        capture_output=True,
        timeout=PATIENCE_S,
    )
    bare = run("from", "scratch")
    run("add", bare, tree, "/")
    managed = "/usr/lib/python3.11/EXTERNALLY-MANAGED"  # which Docker's own Python is not
    run("run", "--isolation", "chroot", bare, "--", "rm", managed)
    run("commit", "--rm", bare, f"docker.io/library/{BASE}")
    tree.unlink()
    yield run
    run("rm", "--all")
    run("rmi", "--all", "--force")
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def container(buildah) -> str:
    """A container of the image."""
    assert f"\nFROM {BASE}\n" in (REPOSITORY / "packaging" / "Dockerfile").read_text()
    reach_the_index = ["--volume", f"{CERTIFICATES}:{INSIDE}:ro", "--env", f"PIP_CERT={INSIDE}"]
    if index := os.environ.get("PIP_INDEX_URL"):
        reach_the_index += ["--env", f"PIP_INDEX_URL={index}"]
    options = ["--isolation", "chroot", "--pull-never", "--format", "docker", *reach_the_index]
    file = REPOSITORY / "packaging" / "Dockerfile"
    buildah("build", *options, "--file", file, "--tag", "streamtwl", REPOSITORY)
    return buildah("from", "--pull-never", "localhost/streamtwl")


@pytest.fixture(scope="module")
def config(buildah, container) -> dict:
    """What the image says about itself."""
    return json.loads(buildah("inspect", container))["Docker"]["config"]


def test_a_radio_is_listened_to_and_a_subscriber_and_the_health_check_see_it(
    buildah, container, config, wav
):
    tone = 0.1 * np.sin(2 * np.pi * 440 * np.arange(120 * SAMPLE_RATE) / SAMPLE_RATE)
    with web_server() as web:
        web.pages["/radio.wav"] = wav("radio.wav", tone).read_bytes()
        address = f"http://127.0.0.1:{web.port}/radio.wav"
        listening = buildah.start(container, [*config["Entrypoint"], address])
        command = ["streamtwl", "subscribe", "--kind", "label", "--json"]
        subscribed = buildah.start(container, command)
        try:
            label = json.loads(subscribed.stdout.readline())
            assert label["label"]
            assert label["source"]
            how, *check = config["Healthcheck"]["Test"]
            assert how == "CMD-SHELL"
            assert buildah.start(container, ["sh", "-c", *check]).wait(PATIENCE_S) == 0
        finally:
            for each in (subscribed, listening):
                each.terminate()
                each.wait(PATIENCE_S)
    assert buildah.start(container, ["sh", "-c", *check]).wait(PATIENCE_S) != 0


def test_it_is_not_root_and_writes_to_its_volume_alone(buildah, container, config):
    assert config["User"] == "streamtwl"
    (state,) = config["Volumes"]
    said = "id -un; id -Gn; for f in $0 / /src $STREAMTWL_CACHE; do test -w $f && echo $f; done"
    running = buildah.start(container, ["sh", "-c", said, state])
    written = running.communicate(timeout=PATIENCE_S)[0].splitlines()
    assert written == ["streamtwl", "streamtwl audio", state]
