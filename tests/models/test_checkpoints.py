"""The reasoners of the wheel and of the benchmarks, on clips that they have not seen."""

import json

import numpy as np
import pytest

from streamtwl.config import Settings, override
from streamtwl.errors import UsageError
from streamtwl.models import registry
from streamtwl.ontology import categories
from streamtwl.reasoners import graph
from streamtwl.reasoners.choice import load, make
from streamtwl.reasoners.sampling import confidence_bin
from streamtwl.training import datasets, scored_scenes
from streamtwl.training.posteriors import Scorer
from tests.patches import KIND, FrontEndOnly, patches

SAMPLES = 16
SHIPPED = sorted(registry.CHECKPOINTS.glob("*.onnx"))
RESEARCH = sorted(registry.RESEARCH.glob("*.onnx"))


def test_they_are_there_and_small():
    assert [file.stem for file in SHIPPED] == ["reader"]
    assert [file.stem for file in RESEARCH] == ["esc10-gpt2", "esc10-hmm", "esc10-paper"]
    assert sum(file.stat().st_size for file in SHIPPED) < 1e6


def test_the_readers_card_says_that_no_label_was_used():
    file = registry.CHECKPOINTS / "reader.onnx"
    card = graph.read_card(graph.open_session(file, 1), file)
    assert (card.name, card.kind, card.data, card.folds) == ("reader", "reader", "corpus", [])
    assert card.command.startswith("streamtwl bench reader --corpus CORPUS -o reader.onnx")
    assert card.reads == [("yamnet:0.96", "posterior"), ("mn04:3", "posterior")]


@pytest.mark.parametrize("file", RESEARCH, ids=lambda file: file.stem)
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
    file = str(registry.RESEARCH / f"{name}.onnx")
    settings = override(Settings(), {"reasoner.file": file, "trace.samples": SAMPLES})
    scorer = Scorer()
    clips = [clip for clip in datasets.load(esc10) if clip.fold == 4]
    yamnet = FrontEndOnly()
    yamnet.categories = categories()
    reasoner = make(settings, load(settings), [yamnet], [KIND], [clip.path.name for clip in clips])
    right = 0
    for number, clip in enumerate(clips):
        posteriors = scorer.score(clip.path).posteriors
        ends = scored_scenes.positions(len(posteriors), scorer.hop_s, 10.0)
        decisions = [
            reasoner.step(patches([number], [int(end)], posterior[None]))[0]
            for end, posterior in zip(ends, posteriors, strict=True)
        ]
        best = np.mean([decision.scores for decision in decisions], axis=0).argmax()
        right += reasoner.labels[best] == clip.label
    assert right >= least * len(clips), f"{right} of {len(clips)}"


@pytest.mark.parametrize(
    ("file", "options"),
    [(file, ["--traces", "2"] if file.stem == "esc10-paper" else []) for file in RESEARCH],
    ids=lambda given: getattr(given, "stem", ""),
)
def test_listen_runs_it_from_its_file(cli, esc10, file, options):
    rooster = esc10 / "audio" / "4-164021-A-1.ogg"
    ended = cli(
        *("listen", "--file", rooster, "--fast", "--json", "--no-journal"),
        *("--bind", "tcp://127.0.0.1:*", "--replay-bind", "", "--reasoner", file, *options),
    )
    assert ended.returncode == 0, ended.stderr
    messages = [json.loads(line) for line in ended.stdout.splitlines()]
    assert file.stem in next(each for each in messages if each["kind"] == "hello")["models"]
    onsets = [each for each in messages if each["kind"] == "event" and each["phase"] == "onset"]
    assert "rooster" in {event["label"] for event in onsets}


def test_in_a_checkout_those_of_the_benchmarks_are_found_by_name():
    assert registry.find_reasoner("esc10-hmm") == registry.RESEARCH / "esc10-hmm.onnx"


def test_from_a_wheel_the_error_names_what_there_is(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "RESEARCH", tmp_path)
    with pytest.raises(
        UsageError, match=r"'esc10-hmm': there is evidence, llm, reader, or an \.onnx file"
    ):
        registry.find_reasoner("esc10-hmm")


def drawn(posterior: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return int16[1, 1, SAMPLES, 2], for those who read samples."""
    categories = rng.choice(len(posterior), SAMPLES, p=posterior / posterior.sum(dtype=float))
    pairs = np.stack((categories, confidence_bin(posterior[categories])), axis=-1)
    return pairs.astype(np.int16)[None, None]
