"""The backbone that listens patch by patch, with weights that nobody trained."""

import numpy as np
import pytest
import torch

from streamtwl.backbones import causal
from streamtwl.config import Settings, override
from streamtwl.errors import ModelError
from streamtwl.features.spectrum import Spectrum
from streamtwl.models import runtime
from streamtwl.models.checkpoint import BackboneCard
from streamtwl.ontology import categories
from streamtwl.pipeline import build
from streamtwl.stages import Block
from streamtwl.training import causal_model
from streamtwl.training.causal_model import HEADS, LAYERS, MEMORY, PATCH, WIDTH, CausalModel

SOUND = np.random.default_rng(1).normal(0, 0.1, 16_000 * 14).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    return CausalModel(len(categories())).eval()


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("causal") / "causal.onnx"
    card = BackboneCard(
        name="causal", about="", labels=[*categories()], data="", folds=[], teachers={},
        held_out_loss=0.0, command="", version="",
    )  # fmt: skip
    causal_model.export(model, card, path)
    return path


def backbone(file, memory: bool = True) -> causal.Causal:
    return causal.Causal(runtime.open_session(file, 1), memory=memory)


def said(front_end, samples: np.ndarray, size: int) -> np.ndarray:
    """Return what the network says of samples that come in blocks of a size."""
    spectrum = Spectrum()
    blocks = [samples[at : at + size] for at in range(0, len(samples), size)]
    return np.concatenate([front_end.push(block, spectrum.push(block)) for block in blocks])


@pytest.mark.parametrize("size", [160, 2_560, 7_000, len(SOUND)])
def test_it_says_the_same_whatever_the_blocks_beyond_its_memory_too(size, file, model):
    frames = causal_model.silence_before(Spectrum().push(SOUND))
    with torch.no_grad():
        posterior, embedding, _ = model(
            torch.from_numpy(frames)[None], causal_model.nothing_before(1)
        )
    found = said(backbone(file).front_end(), SOUND, size)
    assert len(found) == len(SOUND) // (PATCH * 160) - 1 or len(found) > MEMORY
    expected = torch.cat((posterior, embedding), dim=-1)[0].numpy()
    np.testing.assert_allclose(found, expected, atol=0.01)  # weights are stored in half precision


def test_its_memory_ends(file):
    once = np.tile(SOUND, 4)
    other = once.copy()
    other[: 16_000 * 3] *= 0.1
    ours, theirs = (said(backbone(file).front_end(), each, 7_680) for each in (once, other))
    differs = (ours != theirs).any(axis=1)
    assert differs[: int(10 / 0.16)].all()
    reach = int(3 / 0.16) + 2 + LAYERS * MEMORY  # a layer's memory is of what others remembered
    assert len(differs) > reach + 50
    assert not differs[reach:].any()


def test_without_memory_a_patch_is_read_by_itself(file):
    whole = said(backbone(file, memory=False).front_end(), SOUND, 7_680)
    late = said(backbone(file, memory=False).front_end(), SOUND[16 * 160 * 10 :], 7_680)
    np.testing.assert_allclose(whole[12:], late[2 : 2 + len(whole) - 12], atol=1e-4)


def test_a_window_is_the_mean_of_what_was_said_in_it(file):
    listened = backbone(file)
    frames = np.random.default_rng(2).random((2, 5, len(categories()) + WIDTH), np.float32)
    posteriors, embeddings = listened.score(frames)
    np.testing.assert_allclose(posteriors, frames[..., : len(categories())].mean(axis=1))
    np.testing.assert_array_equal(embeddings, frames[:, -1, len(categories()) :])


def test_a_pipeline_of_it_decides_at_every_hop_and_begins_anew_after_a_gap(file, monkeypatch):
    monkeypatch.setattr(causal, "FILE", file)
    pipeline = build(override(Settings(), {"windows": ["causal:0.48"]}), ["a"])
    posteriors = []
    pipeline.subscribe(lambda at: at.patch and posteriors.append(at.patch.posterior))
    five = SOUND[: 5 * 16_000]
    pipeline.push([Block(0, 0, five, None, 0.0, breaks_off=True)])
    once = len(posteriors)
    pipeline.push([Block(0, 200_000, five, None, 0.0, breaks_off=True)])
    assert once == 10
    np.testing.assert_allclose(posteriors[:once], posteriors[once:], atol=1e-6)


def test_the_cache_of_a_stream_is_as_large_as_its_memory(file):
    front_end = backbone(file).front_end()
    said(front_end, SOUND, 7_680)
    sizes = {each.shape for each in front_end._past.values()}
    assert sizes == {(1, HEADS, MEMORY, WIDTH // HEADS)}


def test_a_file_without_a_card_is_refused(file, tmp_path):
    import onnx

    bare = onnx.load(file)
    del bare.metadata_props[:]
    onnx.save(bare, tmp_path / "bare.onnx")
    with pytest.raises(ModelError, match="no card"):
        backbone(tmp_path / "bare.onnx")
