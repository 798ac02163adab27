"""The Node.js subscriber of the pages, with the real Node, npm's zeromq and a real publisher."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from streamtwl.sinks.publisher import Publisher
from tests.example_messages import event, label

PROGRAM = Path(__file__).parents[1] / "examples" / "subscribe.mjs"
PACKAGES = ("zeromq@6", "@msgpack/msgpack@3")
INSTALL_S = 300


@pytest.fixture(scope="session")
def node_modules(pytestconfig) -> Path:
    """A folder with what the program imports, kept for the next run."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}: apt-get install nodejs npm")
    cache = os.environ.get("STREAMTWL_CACHE") or pytestconfig.cache.mkdir("streamtwl")
    folder = Path(cache) / "node"
    if not (folder / "node_modules" / "zeromq").exists():
        folder.mkdir(parents=True, exist_ok=True)
        installed = subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--prefix", folder, *PACKAGES],
            capture_output=True,
            text=True,
            timeout=INSTALL_S,
        )
        if installed.returncode:
            pytest.skip(f"npm cannot install {PACKAGES}: {installed.stderr.strip()[-200:]}")
    return folder


def test_the_page_on_subscribing_shows_the_program_that_is_tested():
    page = (PROGRAM.parents[1] / "docs" / "subscribing.md").read_text()
    assert PROGRAM.read_text().partition("\n")[2] in page


@pytest.mark.timeout(INSTALL_S + 60)
def test_the_subscriber_of_the_page_receives_what_is_published(node_modules):
    shutil.copy(PROGRAM, node_modules)  # imports are looked for beside the program
    with contextlib.closing(Publisher("tcp://127.0.0.1:*")) as publisher:
        publisher.emit(label(0))
        node = subprocess.Popen(
            ["node", PROGRAM.name, publisher.endpoint],
            cwd=node_modules,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            first = node.stdout.readline()  # as a newcomer: from now on nothing is missed
            assert first == "0 label mic Dog 0.50\n", node.stderr.read()
            for message in (label(1), label(2, name=None), event(0), label(5)):
                publisher.emit(message)
            assert [node.stdout.readline() for _ in range(4)] == [
                "1 label mic Dog 0.50\n",
                "2 label mic - 0.50\n",
                "0 event mic Dog onset\n",
                "5 label mic Dog 0.50\n",
            ]
        finally:
            node.kill()
            node.wait()
        assert "2 of label/mic/ were missed" in node.stderr.read()
