"""The reasoners that are shipped, on clips that they have not seen."""

import numpy as np
import pytest

from streamtwl.config import Settings, override
from streamtwl.evaluation import datasets, streams
from streamtwl.evaluation.posteriors import Scorer
from streamtwl.models import registry
from streamtwl.ontology import categories
from streamtwl.reasoners import graph
from streamtwl.reasoners.choice import make
from tests.patches import FrontEndOnly, patches

SAMPLES = 16
SHIPPED = sorted(registry.CHECKPOINTS.glob("*.onnx"))


def test_they_are_there_and_small():
    assert [file.stem for file in SHIPPED] == ["esc10-gpt2", "esc10-hmm", "esc10-paper", "open"]
    assert sum(file.stat().st_size for file in SHIPPED) < 12e6


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_its_card_says_where_it_comes_from(file):
    card = graph.read_card(graph.open_session(file, 1), file)
    assert card.name == file.stem
    assert card.folds == [1, 2, 3, 5]
    assert card.command.split(" && ")[-1].startswith("streamtwl train esc10 ")
    assert "--leave-out 4" in card.command
    assert card.validation["false_starts_per_minute"] <= 2
    assert 0 < card.off <= card.on < 1


@pytest.mark.parametrize(
    ("name", "least"), [("esc10-hmm", 0.85), ("esc10-gpt2", 0.85), ("esc10-paper", 0.6)]
)
def test_esc_10_names_clips_of_the_fold_that_was_left_out(esc10, name, least):
    settings = override(Settings(), {"reasoner.file": name, "trace.samples": SAMPLES})
    scorer = Scorer()
    clips = [clip for clip in datasets.load(esc10) if clip.fold == 4]
    yamnet = FrontEndOnly()
    yamnet.categories = categories()
    reasoner = make(settings, [yamnet], [clip.path.name for clip in clips])
    right = 0
    for number, clip in enumerate(clips):
        posteriors = scorer.score(clip.path).posteriors
        ends = streams.positions(len(posteriors), scorer.hop_s, 10.0)
        decisions = [
            reasoner.step(patches([number], [int(end)], posterior[None]))[0]
            for end, posterior in zip(ends, posteriors, strict=True)
        ]
        best = np.mean([decision.scores for decision in decisions], axis=0).argmax()
        right += reasoner.labels[best] == clip.label
    assert right >= least * len(clips), f"{right} of {len(clips)}"
