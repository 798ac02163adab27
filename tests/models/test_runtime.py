"""What networks run on, against a stand-in for an ONNX Runtime with CUDA; no GPU is needed."""

import sys
import types

import pytest

from streamtwl.errors import ModelError
from streamtwl.models import runtime


class Session:
    def __init__(self, path, options, providers) -> None:
        self.wanted = providers

    def get_providers(self):
        return self.wanted if self.starts else self.wanted[-1:]  # as ONNX Runtime falls back


@pytest.fixture
def fake(monkeypatch):
    """An ONNX Runtime with CUDA, which starts unless `Session.starts` is set to False."""
    made = types.ModuleType("onnxruntime")
    made.disable_telemetry_events = lambda: None
    made.SessionOptions = lambda: types.SimpleNamespace(add_session_config_entry=lambda *_: None)
    made.available = [runtime.CUDA, runtime.CPU]
    made.get_available_providers = lambda: made.available
    made.InferenceSession = Session
    monkeypatch.setattr(Session, "starts", True, raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", made)
    monkeypatch.setattr(runtime, "_fell_back", False)
    return made


@pytest.mark.parametrize(
    ("provider", "wanted"),
    [
        ("auto", [runtime.CUDA, runtime.CPU]),
        ("cuda", [runtime.CUDA, runtime.CPU]),
        ("cpu", [runtime.CPU]),
    ],
)
def test_where_there_is_cuda(provider, wanted, fake, caplog):
    assert runtime.open_session("model.onnx", 1, provider).wanted == wanted
    assert caplog.messages == []


def test_where_there_is_none_auto_is_quiet_and_cuda_an_error(fake, caplog):
    fake.available = ["AzureExecutionProvider", runtime.CPU]
    assert runtime.open_session("model.onnx", 1).wanted == [runtime.CPU]
    assert caplog.messages == []
    with pytest.raises(ModelError, match=r"--provider cuda.*streamtwl\[gpu\]"):
        runtime.open_session("model.onnx", 1, "cuda")


@pytest.mark.parametrize(
    ("wanted", "starts", "provider"),
    [("auto", True, runtime.CUDA), ("auto", False, runtime.CPU), ("cpu", True, runtime.CPU)],
)
def test_the_provider_is_the_one_that_did_start(wanted, starts, provider, fake, monkeypatch):
    monkeypatch.setattr(Session, "starts", starts)
    assert runtime.provider(runtime.open_session("model.onnx", 1, wanted)) == provider


def test_a_silent_fallback_is_said_once(fake, monkeypatch, caplog):
    monkeypatch.setattr(Session, "starts", False)
    for _ in range(3):
        runtime.open_session("model.onnx", 1)
    [said] = caplog.messages
    assert "could not start CUDA" in said
    with pytest.raises(ModelError, match=r"--provider cuda.*could not start CUDA"):
        runtime.open_session("model.onnx", 1, "cuda")


@pytest.mark.parametrize("command", ["listen --demo --fast", "label a.wav"])
def test_the_command_line_says_that_cuda_is_missing(command, cli, wav, noise, yamnet):
    import onnxruntime

    if runtime.CUDA in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    file = str(wav("a.wav", noise))
    more = ["--bind", "tcp://127.0.0.1:*", "--no-journal"] if "listen" in command else []
    ended = cli(*command.replace("a.wav", file).split(), "--provider", "cuda", *more)
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert "streamtwl[gpu]" in ended.stderr
