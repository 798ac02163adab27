"""GPT-2 as the paper has it: what is trained, what is read, and what cannot be had."""

import copy
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from streamtwl.errors import UsageError
from streamtwl.paper import gpt2
from streamtwl.paper.plan import Gpt2
from streamtwl.paper.reasoners import Draws, Task
from streamtwl.training import trunks
from streamtwl.training.datasets import Clip
from streamtwl.training.posteriors import Scored

C = 12  # categories


@pytest.fixture(autouse=True)
def read_little(monkeypatch):
    """One epoch of traces before the small trunk is frozen, for speed."""
    monkeypatch.setattr(gpt2, "PRETRAINING", 1)


def task(n: int = 24, patches: int = 3, several: bool = False) -> Task:
    """Clips of a, b (and of both, or neither, where several), which categories 0 and 1 say."""
    rng = np.random.default_rng(1)
    truth = np.array([[i % 2 == 0, (i // 2 if several else i + 1) % 2 == 0] for i in range(n)])
    scored = []
    for row in truth:
        posteriors = 0.03 * rng.random((patches, C)).astype(np.float32)
        posteriors[:, :2] += 0.7 * row
        scored.append(Scored(posteriors, np.zeros((patches, 1), np.float32)))
    clips = [Clip(Path(f"{i}.wav"), "a", f"{i}", 1) for i in range(n)]
    names = [f"c{i}" for i in range(C)]
    return Task(["a", "b"], several, clips, scored, truth, names, 0.48, 0)


def fitted(spec: Gpt2, made: Task, tmp_path, soft: bool = False, samples=(1, 4)):
    return gpt2.fit(
        spec, soft, made, samples, tmp_path / "state", tmp_path / "read.pt", lambda *_: None
    )


def small(tmp_path) -> str:
    """A GPT-2 of 48 positions, as a directory."""
    torch.manual_seed(5)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 48, "vocab_size": 50}
    config = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)
    transformers.GPT2Model(config).save_pretrained(tmp_path / "small")
    return str(tmp_path / "small")


@pytest.mark.parametrize("weights", ["frozen", "random", "trained"])
@pytest.mark.parametrize("soft", [False, True])
def test_it_learns_what_the_samples_say(weights, soft, tmp_path):
    made = task()
    scores = fitted(Gpt2(weights=weights, epochs=40), made, tmp_path, soft)
    names = [clip.path.name for clip in made.clips]
    found = scores(made.scored, names, Draws(4, 1 if soft else 2))
    assert found.shape == ((1 if soft else 2), 24, 2)
    np.testing.assert_allclose(found.sum(axis=2), 1, atol=1e-4)
    assert (found.mean(axis=0).argmax(axis=1) == made.truth.argmax(axis=1)).mean() > 0.9


def test_labels_that_sound_at_once_have_probabilities_of_their_own(tmp_path):
    made = task(32, several=True)
    scores = fitted(Gpt2(weights="trained", epochs=60), made, tmp_path, soft=True)
    found = scores(made.scored, [c.path.name for c in made.clips], Draws())[0]
    for label in (0, 1):
        there = made.truth[:, label]
        assert found[there, label].mean() > found[~there, label].mean() + 0.3
    assert found.sum(axis=1).max() > 1.2


@pytest.mark.parametrize(
    ("weights", "trains", "as_published"),
    [("frozen", False, True), ("random", False, False), ("trained", True, True)],
)
def test_of_a_trunk_only_what_is_to_be_trained_is(weights, trains, as_published, tmp_path):
    where = small(tmp_path)
    published = trunks.load(where, 0).model.h[0].attn.c_attn.weight
    spec = Gpt2(trunk=where, weights=weights, epochs=2)
    begun = gpt2.load_trunk(spec, task(), tmp_path / "read.pt", lambda *_: None)
    weight = begun.model.h[0].attn.c_attn.weight
    assert torch.equal(weight, published) is as_published
    before = copy.deepcopy(weight)
    model = fitted(spec, task(), tmp_path).args[0]
    after = model.trunk.model.h[0].attn.c_attn.weight
    assert torch.equal(before, after) is not trains
    assert model.symbols.weight.requires_grad


def test_a_clip_longer_than_the_trunk_reads_is_read_in_parts(tmp_path):
    made = task(8, patches=30)
    scores = fitted(Gpt2(trunk=small(tmp_path), epochs=1), made, tmp_path)  # 48 positions
    clip, names = made.scored[:1], ["0.wav"]
    whole = scores(clip, names, Draws(3))[0, 0]
    model = scores.args[0]
    tokens = gpt2.tokens_of(clip[0], "0.wav", Draws(3), 3)
    assert tokens.shape == (1, 30, 4, 2)
    assert (tokens[0, :, 3, 0] == C).all()  # the boundary
    logs = []
    for part in np.array_split(np.arange(30), 3):  # 12 patches of 4 tokens fit
        rows = torch.from_numpy(clip[0].posteriors[part])[None]
        with torch.no_grad():
            logits = model.read_stream(torch.from_numpy(tokens[:, part]), rows, None)[0, -1, 0]
        logs.append(logits.log_softmax(dim=-1).numpy())
    np.testing.assert_allclose(whole, np.exp(np.mean(logs, axis=0)), rtol=1e-4)
    assert scores(clip, names, Draws(3, 2)).shape == (2, 1, 2)


def test_clips_of_other_lengths_do_not_change_a_score(tmp_path):
    made = task(8)
    long = task(8, patches=5)
    scores = fitted(Gpt2(epochs=1, weights="random"), made, tmp_path)
    alone = scores(made.scored[:1], ["0.wav"], Draws(4))
    among = scores([*long.scored, made.scored[0]], [*map(str, range(8)), "0.wav"], Draws(4))
    np.testing.assert_allclose(among[:, -1:], alone, atol=1e-5)


def test_a_stopped_training_goes_on_and_comes_to_the_same(tmp_path):
    made = task()
    spec = Gpt2(weights="trained", epochs=4)
    (tmp_path / "whole").mkdir()
    whole = fitted(spec, made, tmp_path / "whole")

    def stop(done: int, of: int) -> None:
        if done > of // 2:
            raise KeyboardInterrupt

    (tmp_path / "cut").mkdir()
    arguments = [(1, 4), tmp_path / "cut" / "state", tmp_path / "cut" / "read.pt"]
    with pytest.raises(KeyboardInterrupt):
        gpt2.fit(spec, False, made, *arguments, stop)
    assert (tmp_path / "cut" / "state").exists()
    resumed = fitted(spec, made, tmp_path / "cut")
    names = [clip.path.name for clip in made.clips]
    np.testing.assert_allclose(
        resumed(made.scored, names, Draws(4)), whole(made.scored, names, Draws(4)), atol=1e-5
    )


def test_the_hub_is_tried_once_for_all_rows(tmp_path, monkeypatch):
    tried = []

    def refused(address, timeout):
        tried.append((address, timeout))
        raise OSError("unreachable")

    monkeypatch.delenv("STREAMTWL_OFFLINE", raising=False)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.setattr(gpt2.urllib.request, "urlopen", refused)
    gpt2.hub_answers.cache_clear()
    gpt2.load_trunk(Gpt2(trunk=small(tmp_path)), task(), tmp_path / "read.pt", lambda *_: None)
    assert tried == []  # what is here needs no hub
    for _ in range(2):
        with pytest.raises(UsageError, match="openai-community/gpt2: not available"):
            fitted(Gpt2(trunk="openai-community/gpt2"), task(), tmp_path)
    gpt2.hub_answers.cache_clear()
    assert tried == [("https://huggingface.co", 5)]


def test_cells_that_run_side_by_side_let_the_trunk_read_one_after_the_other(tmp_path, monkeypatch):
    inside: list[int] = []
    most: list[int] = []

    def run(*_arguments) -> None:
        inside.append(1)
        time.sleep(0.2)
        most.append(len(inside))
        inside.pop()

    monkeypatch.setattr(gpt2.schedule, "run", run)

    def load() -> None:
        gpt2.load_trunk(Gpt2(), task(), tmp_path / "trunk.pt", lambda *_: None)

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]


def test_more_samples_than_the_trunk_reads_are_said(tmp_path):
    with pytest.raises(UsageError, match=r"it reads \d+ tokens, .* K = 4096"):
        fitted(Gpt2(epochs=1), task(8), tmp_path, samples=[1, 4096])
