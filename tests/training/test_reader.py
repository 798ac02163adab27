"""Training of a reader, on half a minute: that it learns, resumes, and what its file says."""

import numpy as np
import pytest
import soundfile
import torch

from streamtwl import config
from streamtwl.errors import UsageError
from streamtwl.reasoners import graph
from streamtwl.reasoners.fusion import logit
from streamtwl.training import reader, reader_scenes
from streamtwl.training.posteriors import Scorer
from streamtwl.training.reader import Recipe
from streamtwl.training.reader_model import CONTEXT, LAGS
from streamtwl.training.reader_scenes import Hearing

YAMNET = config.override(config.load(config.find("yamnet")), {})


@pytest.fixture(scope="module")
def rows(yamnet):
    """Rows of half a minute of noise with tones in it, and of the tones alone."""
    rng = np.random.default_rng(1)
    time = np.arange(30 * 16_000) / 16_000
    tones = 0.2 * np.sin(2 * np.pi * 900 * time) * (np.sin(2 * np.pi * time / 7) > 0)
    scorer = Scorer(YAMNET.windows)
    noisy = tones + 0.1 * rng.standard_normal(len(time))
    scored = [scorer.score_samples(each.astype(np.float32)) for each in (noisy, tones)]
    return scorer, *scored


@pytest.fixture(scope="module")
def heard(rows):
    scorer, noisy, clean = rows
    return Hearing(YAMNET).heard(noisy, clean, scorer)


def test_what_is_taught_is_later_and_in_less_noise(heard, rows):
    scorer, noisy, _ = rows
    assert heard.own.shape[:2] == heard.candidate.shape == heard.taught.shape
    assert heard.own.shape[2] == 7
    assert heard.around.shape == (len(noisy), 5)
    assert heard.candidate.sum(axis=1).tolist() == [16] * len(noisy)
    same = Hearing(YAMNET).heard(noisy, noisy, scorer)
    less = logit(heard.taught.astype(float)) - logit(same.taught.astype(float))
    lowest = -YAMNET.reasoner.scale * reader_scenes.NOISIER  # the noise itself stays
    assert less.min() >= lowest - 0.02
    assert less.max() > 1


def test_untrained_it_says_what_the_evidence_says(heard):
    model = reader.new_model([heard], YAMNET.reasoner, seed=0).eval()
    features, recent, *_ = reader_scenes.stretch(heard, 0, CONTEXT)
    n, hops = features.shape[:2]
    mask, positions = torch.ones(n, hops, dtype=torch.bool), torch.arange(hops).expand(n, -1)
    with torch.no_grad():
        logits, _ = model.logits(features, recent, mask, positions, model.trunk.empty_cache(n))
    joined = recent[:, :, 0, 0]
    expected = YAMNET.reasoner.scale * joined + YAMNET.reasoner.shift
    torch.testing.assert_close(logits[..., 0], expected)
    torch.testing.assert_close(logits[:, LAGS:, LAGS], expected[:, :-LAGS])


def test_it_learns_and_a_stopped_training_resumes(heard, tmp_path):
    def trained(epochs: int, state: str, halt: int | None = None) -> list[torch.Tensor]:
        model = reader.new_model([heard], YAMNET.reasoner, seed=0)
        done = []

        def progress(now: int, _: int) -> None:
            done.append(now)
            if halt is not None and now > halt:
                raise KeyboardInterrupt

        reader.fit(model, [heard], 0, epochs, tmp_path / state, progress)
        return [each.detach() for each in model.parameters()]

    whole = trained(6, "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(6, "stopped", halt=6)
    resumed = trained(6, "stopped")
    for one, other in zip(whole, resumed, strict=True):
        torch.testing.assert_close(one, other)
    fresh = reader.new_model([heard], YAMNET.reasoner, seed=0)
    assert any(not torch.equal(a, b) for a, b in zip(whole, fresh.parameters(), strict=True))


@pytest.mark.parametrize(
    ("body", "changes"),
    [
        (reader.TRAINED, {"line", "shift", "embed", "trunk", "read"}),
        (reader.RANDOM, {"line", "shift", "embed", "read"}),
        (reader.NONE, {"line", "shift"}),
    ],
)
def test_only_what_the_body_says_is_trained(body, changes, heard, tmp_path):
    model = reader.new_model([heard], YAMNET.reasoner, seed=1, body=body)
    before = {name: each.clone() for name, each in model.named_parameters()}
    reader.fit(model, [heard], 1, 1, tmp_path / "state", lambda *_: None)
    moved = {
        name.partition(".")[0]
        for name, each in model.named_parameters()
        if not torch.equal(each, before[name])
    }
    assert moved == changes


@pytest.fixture
def corpus(tmp_path):
    rng = np.random.default_rng(0)
    for package in ("one", "two", "noise"):
        folder = tmp_path / "corpus" / "train" / package
        folder.mkdir(parents=True)
        for number in range(4):
            sound = 0.1 * rng.standard_normal(16_000 * (1 + number))
            soundfile.write(folder / f"{number}.flac", sound, 16_000)
    return tmp_path / "corpus"


def test_its_file_gives_what_the_model_gives(corpus, yamnet, tmp_path):
    said = []
    out = tmp_path / "mine.onnx"
    card = reader.train(
        corpus, [], [], out, Recipe("yamnet", scenes=1, epochs=1), lambda *each: said.append(each)
    )
    assert {what for what, *_ in said} == set(reader.STAGES)
    assert [file.name for file in tmp_path.glob("mine*")] == ["mine.onnx"]
    loaded = graph.load(out)
    assert loaded.card == card
    assert card.command == (
        "streamtwl bench reader --corpus CORPUS -o mine.onnx --pipeline yamnet --scenes 1 "
        "--epochs 1 --seed 0"
    )
    assert card.reader.windows == ["yamnet:0.96"]


def test_voices_and_noise_are_backgrounds_only(corpus):
    packages = [sorted(folder.glob("*")) for folder in sorted((corpus / "train").glob("*"))]
    assert {clip.label for clip in reader_scenes.sounds(packages)} == {"one", "two"}


@pytest.mark.parametrize("name", ["mine", "Mine.onnx", "my reader.onnx"])
def test_a_file_that_could_not_be_named_is_refused_before_any_work(name, tmp_path):
    with pytest.raises(UsageError, match=r"-o .*: use a name of a-z"):
        reader.train(tmp_path, [], [], tmp_path / name, Recipe(), lambda *_: None)
