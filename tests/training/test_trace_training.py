"""Readers of traces: what they learn, and that a stopped training goes on as if it had not been."""

import numpy as np
import pytest
import torch

from streamtwl.reasoners.sampling import confidence_bin
from streamtwl.training import schedule, trace_training, trunks
from streamtwl.training.trace_model import TraceModel, draw
from streamtwl.training.trace_training import TraceExamples

CATEGORIES = 6
ECHO = 1  # patches after which the label sounds


def echoes(seed: int, streams: int = 16, patches: int = 64) -> TraceExamples:
    """Scenes in which the label sounds a patch after category 2."""
    rng = np.random.default_rng(seed)
    symbols = rng.integers(0, CATEGORIES, (streams, patches))
    posteriors = np.full((streams, patches, CATEGORIES), 1e-4, np.float32)
    np.put_along_axis(posteriors, symbols[..., None], 0.9, axis=2)
    target = np.zeros((streams, patches, 2, 1), np.float32)
    target[:, ECHO:, 0, 0] = symbols[:, :-ECHO] == 2
    target[:, 1:, 1] = target[:, :-1, 0]
    return TraceExamples(torch.from_numpy(posteriors), None, torch.from_numpy(target))


def made(soft: bool = False, frozen: bool = False, seed: int = 0) -> TraceModel:
    trunk = trunks.load("tiny", seed)
    if frozen:
        trunk.requires_grad_(False)
    return TraceModel(trunk, CATEGORIES, 1, 1, soft)


def fit(model: TraceModel, folder, epochs: int, of_epochs: int | None = None) -> None:
    trace_training.fit(
        model, echoes(0), 0, epochs, folder / "state.pt", lambda *_: None, of_epochs=of_epochs
    )


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(trace_training, "TOKENS", 512)
    monkeypatch.setattr(trace_training, "SAMPLES", (1, 2))
    monkeypatch.setattr(schedule, "WARM_UP", 5)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two that wait for each other on a busy machine take for ever
    yield
    torch.set_num_threads(threads)


def test_a_reader_learns_what_only_the_past_tells(tmp_path):
    model = made(soft=True)
    fit(model, tmp_path, 16)
    new = echoes(1)
    scores = trace_training.predict(model, new, 2, 0)[:, ECHO + 1 :]
    truth = new.target[:, ECHO + 1 :].numpy() > 0.5
    assert scores[truth].mean() > 2 * scores[~truth].mean()  # a patch by itself tells nothing


def test_a_frozen_body_stays_as_it_was(tmp_path):
    model = made(frozen=True)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    fit(model, tmp_path, 1)
    changed = {
        name.split(".")[0]
        for name, each in model.state_dict().items()
        if not torch.equal(each, before[name])
    }
    assert changed == {"symbols", "bins", "read"}


def test_a_stopped_training_goes_on_as_if_it_had_not_been(tmp_path):
    (tmp_path / "whole").mkdir()
    whole, parts = made(), made()
    torch.manual_seed(5)
    fit(whole, tmp_path / "whole", 2)
    torch.manual_seed(5)
    fit(parts, tmp_path, 1, of_epochs=2)
    torch.manual_seed(6)  # another process
    again = made(seed=9)
    fit(again, tmp_path, 2)
    for name, each in whole.state_dict().items():
        assert torch.equal(each, again.state_dict()[name]), name


def test_an_epoch_that_was_stopped_while_it_was_checked_is_checked_again(tmp_path):
    def stop(epoch):
        raise KeyboardInterrupt

    def train(check):
        trace_training.fit(made(), echoes(0), 0, 2, tmp_path / "state.pt", lambda *_: None, check)

    with pytest.raises(KeyboardInterrupt):
        train(stop)
    checked = []
    train(checked.append)
    assert checked == [1, 2]


def test_the_same_seed_gives_the_same_reader(tmp_path):
    one, other = made(), made()
    for number, model in enumerate((one, other)):
        torch.manual_seed(0)
        (tmp_path / str(number)).mkdir()
        fit(model, tmp_path / str(number), 1)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_more_traces_agree_more():
    model = made().eval()
    for weights in model.trunk.parameters():
        if weights.ndim == 2:
            torch.nn.init.normal_(weights, std=0.15)  # else the samples hardly matter
    torch.nn.init.normal_(model.read.weight, std=0.1)
    torch.nn.init.normal_(model.symbols.weight, std=1.0)
    data = echoes(2)
    spread = []
    for traces in (1, 8):
        runs = [trace_training.predict(model, data, 1, seed, traces) for seed in range(4)]
        spread.append(np.std(runs, axis=0).mean())
    assert spread[1] < 0.7 * spread[0]


def test_samples_are_drawn_in_proportion_and_end_in_a_boundary():
    posterior = torch.tensor([[0.6, 0.2, 0.0, 0.001, 0.199, 0.0]])
    tokens = draw(posterior, 20_000, torch.Generator().manual_seed(0))
    assert tokens.shape == (1, 20_001, 2)
    shares = np.bincount(tokens[0, :-1, 0].numpy(), minlength=CATEGORIES) / 20_000
    np.testing.assert_allclose(shares, posterior[0], atol=0.01)
    scores = posterior[0].numpy()[tokens[0, :-1, 0].numpy()]
    np.testing.assert_array_equal(tokens[0, :-1, 1].numpy(), confidence_bin(scores))
    assert tokens[0, -1].tolist() == [CATEGORIES, int(confidence_bin(1.0))]


def test_the_soft_trace_is_what_many_samples_come_to():
    posterior = torch.tensor([[0.5, 0.25, 0.1, 0.05, 0.01, 0.002]])
    model = made(soft=True)
    torch.nn.init.normal_(model.bins.weight, std=1.0)
    torch.nn.init.normal_(model.symbols.weight, std=1.0)
    boundary = draw(posterior, 0, torch.Generator())
    soft = model.embed(boundary, posterior, None)[0, -1]
    tokens = draw(posterior, 200_000, torch.Generator().manual_seed(0))
    model.soft = False
    sampled = model.embed(tokens, posterior, None)[0]
    expected = sampled[:-1].mean(dim=0) + sampled[-1]
    torch.testing.assert_close(soft, expected, atol=0.02, rtol=0)
