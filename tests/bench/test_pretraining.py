"""A pre-trained trunk: it learns to predict the next token, and a trace model can use it."""

import json

import numpy as np
import pytest
import soundfile
import torch

from streamtwl.bench import pretraining
from streamtwl.errors import ConfigError, UsageError
from streamtwl.ontology import categories
from streamtwl.reasoners.sampling import N_BINS
from streamtwl.training import schedule, trace_training, trunks
from streamtwl.training.trace_model import TraceModel

RATE = 16_000

pytestmark = pytest.mark.usefixtures("yamnet")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Tones and noise, long enough for both sides."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    (folder / "train" / "a").mkdir(parents=True)
    for i in range(24):
        seconds = np.arange(8 * RATE) / RATE
        sound = 0.2 * np.sin(2 * np.pi * 440 * seconds) if i % 2 else rng.normal(0, 0.1, 8 * RATE)
        soundfile.write(folder / "train" / "a" / f"{i}.flac", sound, RATE)
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(trace_training, "TOKENS", 256)
    monkeypatch.setattr(schedule, "WARM_UP", 5)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_it_predicts_unseen_recordings_and_is_a_trunk_with_an_initial_embedding(corpus, tmp_path):
    out, reported = tmp_path / "traces", {}
    nats = pretraining.pretrain(
        corpus, out, 2, 0, 0.48, lambda what, done, of: reported.update({what: (done, of)})
    )
    assert nats["trained"] < 0.7 * nats["fresh"]
    assert all(done == of for done, of in reported.values())
    assert json.loads((out / trunks.PRETRAINING).read_text())["nats_a_token"] == nats
    assert [path.name for path in tmp_path.iterdir()] == ["traces"]  # nothing else is left
    command = "streamtwl bench pretrain --corpus CORPUS -o traces --epochs 2 --seed 0 --hop 0.48"
    assert trunks.made_by(str(out)) == command
    assert trunks.made_by("tiny") == ""
    trunk = trunks.load(str(out), 0)
    assert trunk.initial_embedding is not None
    assert trunk.initial_embedding.shape == (len(categories()) + 1 + N_BINS, trunk.width)
    model = TraceModel(trunk, len(categories()), 3, 0)
    embedded = torch.cat((model.symbols.weight, model.bins.weight))
    assert torch.equal(embedded, trunk.initial_embedding)


def test_stopped_it_goes_on_where_it_was(corpus, tmp_path):
    def stop(what, done, of):
        if what == pretraining.TRAINING and done > 0.7 * of:
            raise KeyboardInterrupt

    whole = pretraining.pretrain(corpus, tmp_path / "whole", 2, 0, 0.48, lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        pretraining.pretrain(corpus, tmp_path / "new" / "traces", 2, 0, 0.48, stop)
    seen = []
    again = pretraining.pretrain(
        *(corpus, tmp_path / "new" / "traces", 2, 0, 0.48),
        lambda what, done, of: seen.append(done / of) if what == pretraining.TRAINING else None,
    )
    assert min(seen) > 0.5
    assert again == whole


@pytest.mark.parametrize("there", ["file", "folder"])
def test_what_is_there_and_no_body_is_not_written_over(corpus, tmp_path, there):
    out = tmp_path / "mine"
    mine = out if there == "file" else out / "mine.txt"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("x")
    with pytest.raises(UsageError, match="mine: it exists"):
        pretraining.pretrain(corpus, out, 1, 0, 0.48, lambda *_: pytest.fail("began"))


def test_a_hop_that_listen_would_refuse_is_refused(corpus, tmp_path):
    with pytest.raises(ConfigError, match="hop_s"):
        pretraining.pretrain(corpus, tmp_path / "out", 1, 0, 0.125, lambda *_: pytest.fail("began"))


def test_a_corpus_that_is_too_short_is_refused(corpus, tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    short = tmp_path / "train" / "a" / "0.flac"
    short.write_bytes((corpus / "train" / "a" / "0.flac").read_bytes())
    with pytest.raises(UsageError, match="patches"):
        pretraining.pretrain(tmp_path, tmp_path / "out", 1, 0, 0.48, lambda *_: None)
