"""When the first window is enough."""

import itertools

import numpy as np
import pytest

from streamtwl.config import Settings, override
from streamtwl.pipeline import build, hearing
from streamtwl.reasoners.fusion import logit, sigmoid
from streamtwl.reasoners.gate import Gate
from streamtwl.stages import Block, Score


@pytest.fixture(scope="module")
def heard(yamnet):
    return hearing(Settings())


@pytest.fixture
def opens(heard):
    """Whether the gate opens where a category alone scores this much, corrected for its prior."""
    backbones, kinds = heard
    [backbone] = backbones

    def of(category: str, score: float, **changes) -> bool:
        settings = override(Settings(), {"gate": 0.2, **changes})
        index = backbone.categories.index(category)
        prior = backbone.prior - backbone.prior.mean()
        posterior = np.full(len(backbone.categories), 1e-6, np.float32)
        posterior[index] = sigmoid(
            logit(np.float32(score)) + settings.reasoner.prior * prior[index]
        )
        return Gate(settings, backbones, kinds)(
            Score(kinds[0].name, 0.96, posterior, np.empty(0, np.float32))
        )

    return of


@pytest.mark.parametrize("category", ["Dog", "Speech", "Smoke detector, smoke alarm"])
def test_it_opens_at_a_categorys_corrected_score(category, opens):
    assert opens(category, 0.22)
    assert not opens(category, 0.18)


def test_silence_and_what_is_excluded_do_not_open_it(opens):
    assert not opens("Silence", 0.9)
    assert opens("Noise", 0.9)
    assert not opens("Noise", 0.9, **{"events.audioset.exclude": ["Noise"]})
    assert not opens("Dog", 0.9, **{"events.exclude": ["D*"]})


def test_what_alone_is_wanted_does_not_close_it_for_others(opens):
    """A backbone that hears a sound as another one still hears that there is something."""
    assert opens("Dog", 0.9, **{"events.include": ["Cat"]})


def of_noise(gate: float) -> list[bool]:
    """Whether the second window's score is new, hop by hop, in ten seconds of faint noise."""
    settings = override(Settings(), {"windows": ["yamnet:0.96", "mn04:1"], "gate": gate})
    pipeline = build(settings, ["a"])
    scores: list[np.ndarray] = []
    pipeline.subscribe(lambda at: at.patch and scores.append(at.patch.scores[1].posterior))
    noise = np.random.default_rng(1).normal(0, 1e-3, 160_000).astype(np.float32)
    pipeline.push([Block(0, 0, noise, None, 0.0, last=True)])
    return [True, *(a is not b for a, b in itertools.pairwise(scores))]


@pytest.mark.usefixtures("yamnet", "mn04")
def test_a_pipelines_gate_holds_what_its_windows_gave():
    assert all(of_noise(0.0))
    assert np.mean(of_noise(0.99)) == pytest.approx(1 / 3, abs=0.05)
