"""The GPT-2 reasoner, live: what it costs, what it remembers, what it refuses."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Gemma3TextConfig, Gemma3TextModel

from streamtwl.config import TraceSettings
from streamtwl.errors import UsageError
from streamtwl.ontology import categories
from streamtwl.reasoners import graph
from streamtwl.reasoners.card import Card, TraceCard
from streamtwl.reasoners.gpt2 import ENDLESS_S, Gpt2
from streamtwl.reasoners.naming import OwnLabels, decide
from streamtwl.reasoners.sampling import confidence_bin
from streamtwl.stages import Patch, Score
from streamtwl.training import steps, trace_model, trunks
from tests.fitted import random_patch_model
from tests.patches import window

HOP = 7680
LABELS = ["dog", "rain", "siren"]
LAGS = 2
WIDTH = len(categories())


@dataclass(frozen=True)
class Made:
    """A reasoner's file, and the module that it was made of."""

    file: Path
    module: trace_model.TraceModel


def make(
    folder: Path,
    soft: bool,
    residual: bool,
    trunk: str = "tiny",
    lags: int = LAGS,
    embedding: int = 0,
) -> Made:
    """Write a file whose weights are random, and large enough to matter."""
    torch.manual_seed(7)
    path = None
    if residual:
        patch = steps.PatchModel(random_patch_model(WIDTH, len(LABELS), 7, embedding, std=0.1))
        path = steps.FixedLag(steps.Filter(patch, 0.3, 0.7), lags)
    module = trace_model.TraceModel(
        trunks.load(trunk, 3),
        WIDTH,
        len(LABELS),
        lags,
        soft,
        path,
    ).eval()
    for weights in module.trunk.parameters():
        if weights.ndim == 2:
            torch.nn.init.normal_(weights, std=0.15)  # else the past hardly matters
    # what is read of embeddings as they are would else be so large that rounding shows
    torch.nn.init.normal_(module.read.weight, std=0.3)
    torch.nn.init.normal_(module.symbols.weight, std=0.5)
    card = Card(
        name="toy",
        about="random",
        kind="gpt2",
        backbone="yamnet",
        hop_s=0.48,
        labels=LABELS,
        on=0.5,
        off=0.3,
        data="none",
        folds=[],
        command="pytest",
        version="0",
        trace=TraceCard(
            body="tiny",
            trained="all",
            soft=soft,
            samples=(0, 0) if soft else (1, 16),
            temperature=1.0,
            context=512,
            residual="HMM filter" if residual else "",
            categories=WIDTH if embedding else 0,
        ),
        reads=[("a:1", "posterior"), ("b:2", "embedding")] if embedding else [],
    )
    file = folder / f"toy-{soft}-{residual}.onnx"
    trace_model.export(module, 0.48, card, file)
    return Made(file, module)


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("gpt2"), soft=False, residual=True)


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Heads that share a key, and layers that see the last 8 patches beside one that sees all."""
    folder = tmp_path_factory.mktemp("gemma")
    config = Gemma3TextConfig(
        hidden_size=48,
        num_hidden_layers=3,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        sliding_window=40,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=16,
        intermediate_size=64,
        vocab_size=8,
    )
    Gemma3TextModel(config).save_pretrained(folder)
    return make(folder, soft=False, residual=False, trunk=str(folder))


@pytest.fixture(scope="module")
def soft(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("gpt2"), soft=True, residual=False)


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """As `streamtwl train` makes it: the soft trace, beside the residual path."""
    return make(tmp_path_factory.mktemp("gpt2"), soft=True, residual=True)


def sounds(patches: int, seed: int, samples: int = 4, traces: int = 1) -> tuple:
    """Return posteriors float32[n, C] and samples int16[n, M, K, 2]."""
    rng = np.random.default_rng(seed)
    posteriors = rng.random((patches, WIDTH), np.float32) ** 8
    drawn = rng.integers(0, WIDTH, (patches, traces, samples))
    bins = confidence_bin(np.take_along_axis(posteriors[:, None], drawn, axis=2))
    return posteriors, np.stack((drawn, bins), axis=-1).astype(np.int16)


def scratch(
    made: Made, posteriors: np.ndarray, drawn: np.ndarray, first: int, last: int
) -> np.ndarray:
    """Return float32[n, 1 + LAGS, L] of one reading of patches [first, last), in torch, at once."""
    module = made.module
    boundary = np.stack(
        (np.full(len(posteriors), WIDTH), confidence_bin(posteriors[:, :WIDTH].sum(axis=1))), -1
    )[:, None]
    tokens = boundary if module.soft else np.concatenate((drawn[:, 0], boundary), axis=1)
    inputs = torch.from_numpy(posteriors)
    believed = None
    with torch.no_grad():
        if module.residual is not None:
            state = torch.zeros(1, module.residual.state_size)
            beliefs = []
            for t in range(len(posteriors)):
                elapsed_s = torch.full((1, 1), 0.48 if t else ENDLESS_S)
                now, state = module.residual(inputs[t, None], state, elapsed_s)
                beliefs.append(now)
            believed = trace_model.log_odds(torch.stack(beliefs, dim=1))[:, first:last]
        read = torch.from_numpy(tokens.astype(np.int64))[None, first:last]
        logits = module.read_stream(read, inputs[None, first:last], believed)
    return torch.sigmoid(logits)[0].numpy()


def all_of(decision) -> np.ndarray:
    return np.concatenate((decision.scores[None], decision.earlier[:, 0]))


@pytest.mark.parametrize("kind", ["sampled", "soft", "gemma", "beside"])
def test_step_by_step_is_as_from_scratch_over_200_patches(kind, request):
    made = request.getfixturevalue(kind)
    ages = {0: 0, 1: 17, 2: 63}  # stream: the patch of the batch at which it begins
    settings = TraceSettings(samples=4, horizon_s=12)
    reasoner = Gpt2(graph.load(made.file), settings, 0.48)
    inputs = {stream: sounds(200, stream) for stream in ages}
    decided: dict[int, list[np.ndarray]] = {stream: [] for stream in ages}
    for t in range(263):
        there = [s for s, begins in ages.items() if begins <= t < begins + 200]
        at = [t - ages[s] for s in there]
        decisions = reasoner.read(
            there,
            [15600 + HOP * i for i in at],
            np.stack([inputs[s][1][i] for s, i in zip(there, at, strict=True)]),
            np.stack([inputs[s][0][i] for s, i in zip(there, at, strict=True)]),
        )
        for stream, decision in zip(there, decisions, strict=True):
            decided[stream].append(all_of(decision))
    for stream in ages:
        first, full_at, worst, rebases = 0, reasoner.capacity, 0.0, 0
        while first < 200:
            last = min(200, first + full_at)
            known = 0 if first == 0 else reasoner.capacity // 2
            expected = scratch(made, *inputs[stream], first, last)[known:]
            found = np.stack(decided[stream][first + known : last])
            assert np.isfinite(found).all()
            worst = max(worst, float(np.abs(found - expected).max()))
            first, rebases = last - reasoner.capacity // 2, rebases + 1
            if last == 200:
                break
        assert rebases > 10
        assert worst < 1e-4


@pytest.mark.parametrize("soft", [True, False])
def test_it_reads_what_its_card_names_and_samples_the_posterior(soft, tmp_path):
    made = make(tmp_path, soft, residual=True, embedding=5)
    reasoner = Gpt2(graph.load(made.file), TraceSettings(samples=4), 0.48, sources=["mic"])
    posteriors, _ = sounds(6, 0)
    embeddings = np.random.default_rng(1).normal(size=(6, 5)).astype(np.float32)
    nothing = np.empty(0, np.float32)
    decided, drawn = [], []
    for t, (posterior, embedding) in enumerate(zip(posteriors, embeddings, strict=True)):
        scores = Score("a:1", 1.0, posterior, nothing), Score("b:2", 2.0, nothing, embedding)
        [decision] = reasoner.step([Patch(window(15600 + HOP * t), scores)])
        decided.append(all_of(decision))
        if not soft:
            categories_of = decision.drawn
            assert (categories_of < WIDTH).all()
            bins = confidence_bin(posterior[categories_of])
            drawn.append(np.stack((categories_of, bins), axis=-1)[None])
    rows = np.hstack((posteriors, embeddings))
    expected = scratch(made, rows, np.array(drawn), 0, 6)
    np.testing.assert_allclose(decided, expected, atol=1e-4)
    assert np.abs(scratch(made, rows * 0.9, np.array(drawn), 0, 6) - expected).max() > 1e-3


def test_scores_depend_on_earlier_patches(sampled):
    posteriors, drawn = sounds(12, 0)
    other = sounds(12, 1)
    reasoner = Gpt2(graph.load(sampled.file), TraceSettings(samples=4), 0.48)
    decided = []
    for past in (drawn, other[1]):
        for t in range(12):
            tokens = drawn if t == 11 else past
            at = [15600 + HOP * t]
            decision = reasoner.read([0], at, tokens[t, None], posteriors[t, None])[0]
        decided.append(decision.scores)
        reasoner.forget(0)
    assert np.abs(decided[0] - decided[1]).max() > 1e-3


def test_what_is_kept_of_a_stream_stops_growing(sampled):
    reasoner = Gpt2(
        graph.load(sampled.file), TraceSettings(samples=4, traces=3, think="fixed"), 0.48
    )
    posteriors, drawn = sounds(300, 0, traces=3)
    rows, lengths = [], []
    for t in range(300):
        reasoner.read([0], [15600 + HOP * t], drawn[t, None], posteriors[t, None])
        traces = reasoner._streams[0].traces
        held = [row for trace in traces for row in (trace.current, trace.successor) if row]
        rows.append(len(held))
        lengths.append(max(row.age for row in held))
        assert {part.shape[1] for row in held for part in row.cache} == {reasoner.capacity * 5}
    assert max(rows) <= 6
    assert max(lengths) == reasoner.capacity


def test_traces_are_rebased_at_different_moments(sampled):
    settings = TraceSettings(samples=4, traces=4, think="fixed", horizon_s=10)
    reasoner = Gpt2(graph.load(sampled.file), settings, 0.48)
    posteriors, drawn = sounds(100, 0, traces=4)
    moments: dict[int, list[int]] = {m: [] for m in range(4)}
    current_rows: list = [None] * 4
    for t in range(100):
        reasoner.read([0], [15600 + HOP * t], drawn[t, None], posteriors[t, None])
        for m, trace in enumerate(reasoner._streams[0].traces):
            if current_rows[m] is not None and trace.current is not current_rows[m]:
                moments[m].append(t)
            current_rows[m] = trace.current
    assert all(len(each) > 5 for each in moments.values())
    assert not set.intersection(*(set(each) for each in moments.values()))


def test_the_decision_is_the_mean_over_traces(sampled):
    posteriors, drawn = sounds(5, 0, traces=3)
    together = Gpt2(
        graph.load(sampled.file), TraceSettings(samples=4, traces=3, think="fixed"), 0.48
    )
    alone = [Gpt2(graph.load(sampled.file), TraceSettings(samples=4), 0.48) for _ in range(3)]
    for t in range(5):
        at = [0], [15600 + HOP * t]
        mean = together.read(*at, drawn[t, None], posteriors[t, None])[0]
        each = [
            one.read(*at, drawn[t, None, m : m + 1], posteriors[t, None])[0]
            for m, one in enumerate(alone)
        ]
    assert mean.traces == 3
    assert mean.samples == sum(one.samples for one in each) == 3 * 5 * 4
    np.testing.assert_allclose(all_of(mean), np.mean([all_of(one) for one in each], 0), atol=1e-5)


def test_refining_to_the_end_is_as_thinking_at_once(sampled, monkeypatch):
    monkeypatch.setattr("streamtwl.reasoners.gpt2.SETTLED", np.inf)
    posteriors, drawn = sounds(40, 0, traces=10)
    anytime = Gpt2(
        graph.load(sampled.file), TraceSettings(samples=4, traces=10, think="anytime"), 0.48
    )
    fixed = Gpt2(graph.load(sampled.file), TraceSettings(samples=4, traces=10, think="fixed"), 0.48)
    for t in range(40):
        at = [0], [15600 + HOP * t], drawn[t, None], posteriors[t, None]
        decisions = [anytime.read(*at)[0]]
        while not anytime.settled:
            decisions.append(anytime.refine(np.inf)[0])
        assert [one.traces for one in decisions] == [4, 8, 10]
        assert [one.refinement for one in decisions] == [0, 1, 2]
        whole = fixed.read(*at)[0]
        np.testing.assert_allclose(all_of(decisions[-1]), all_of(whole), atol=1e-5)


@pytest.mark.parametrize("missed", [range(5, 6), range(3, 39)])
def test_traces_that_missed_patches_read_them_when_they_are_needed(sampled, monkeypatch, missed):
    monkeypatch.setattr("streamtwl.reasoners.gpt2.SETTLED", np.inf)
    reasoner = Gpt2(
        graph.load(sampled.file), TraceSettings(samples=4, traces=8, horizon_s=10), 0.48
    )
    posteriors, drawn = sounds(40, 0, traces=8)
    half, after = reasoner.capacity // 2, missed.stop
    for t in range(after + 1):
        [decision] = reasoner.read([0], [15600 + HOP * t], drawn[t, None], posteriors[t, None])
        assert reasoner.refine(-np.inf) is None  # too late
        if t not in missed:
            [decision] = reasoner.refine(np.inf)
            assert decision.traces == 8
    expected = []
    for m, trace in enumerate(reasoner._streams[0].traces):
        age = trace.current.age
        if m >= 4:
            assert age == (half if len(missed) > half else after + 1)
        own = posteriors, drawn[:, m : m + 1]
        expected.append(scratch(sampled, *own, after + 1 - age, after + 1)[-1])
    np.testing.assert_allclose(all_of(decision), np.mean(expected, axis=0), atol=1e-5)
    for t in range(after + 1, after + 1 + reasoner.capacity):  # they go on as if they knew it all
        reasoner.read([0], [15600 + HOP * t], drawn[t % 40, None], posteriors[t % 40, None])
        reasoner.refine(np.inf)
        ages = [trace.current.age for trace in reasoner._streams[0].traces]
        assert min(ages) >= min(half, t + 1)


def test_a_slow_read_does_not_end_thinking_on_for_good(sampled, monkeypatch):
    monkeypatch.setattr("streamtwl.reasoners.gpt2.SETTLED", np.inf)
    reasoner = Gpt2(graph.load(sampled.file), TraceSettings(samples=4, traces=8), 0.48)
    posteriors, drawn = sounds(40, 0, traces=8)
    thought = []
    for t in range(40):
        reasoner.read([0], [15600 + HOP * t], drawn[t, None], posteriors[t, None])
        if t == 1:
            reasoner._read_s = 100.0  # seconds: the machine was asleep
        assert reasoner.refining_s >= reasoner._read_s
        thought.append(reasoner._read_s)
        reasoner.refine(-np.inf)
    assert thought[1] == 100.0
    assert thought[-1] < 100 * 0.9**30
    assert reasoner._streams[0].traces[7].missed  # what it has to read first
    assert reasoner.refining_s > 2 * reasoner._read_s


@pytest.mark.parametrize("kind", ["gemma", "soft"])  # without a residual path, which has its own
def test_where_sound_broke_off_a_trace_begins_anew(kind, request):
    file = request.getfixturevalue(kind).file
    reasoner, other = (Gpt2(graph.load(file), TraceSettings(samples=4), 0.48) for _ in range(2))
    posteriors, drawn = sounds(10, 0)
    for t in range(9):
        reasoner.read([0], [15600 + HOP * t], drawn[t, None], posteriors[t, None])
    last = drawn[9, None], posteriors[9, None]
    reasoner.forget(0)
    [fresh] = other.read([0], [15600], *last)
    [after] = reasoner.read([0], [15600 + HOP * 8 + 16_000 * 3600], *last)
    np.testing.assert_allclose(all_of(after), all_of(fresh), atol=1e-6)
    assert after.samples == fresh.samples
    [second] = reasoner.read([0], [15600 + HOP * 9 + 16_000 * 3600], *last)
    assert np.abs(all_of(second) - all_of(fresh)).max() > 1e-3  # it remembers again


OUT_OF_REACH = 1.5  # of any score


def test_what_is_plain_is_not_thought_over(sampled):
    reasoner = Gpt2(graph.load(sampled.file), TraceSettings(samples=4, traces=8), 0.48)
    reasoner._begins[:] = OUT_OF_REACH
    posteriors, drawn = sounds(1, 0, traces=8)
    reasoner._naming = OwnLabels(LABELS, OUT_OF_REACH)
    reasoner.read([0], [15600], drawn, posteriors)
    assert reasoner.settled
    assert reasoner.refine(np.inf) is None


@pytest.mark.parametrize("near", ["label", "event"])
def test_what_may_yet_be_named_or_begin_is_thought_over(sampled, near):
    posteriors, drawn = sounds(1, 0, traces=8)
    settings = TraceSettings(samples=4, traces=8)
    [first] = Gpt2(graph.load(sampled.file), settings, 0.48).read([0], [15600], drawn, posteriors)
    score = float(first.scores[0])
    reasoner = Gpt2(graph.load(sampled.file), settings, 0.48)
    reasoner._naming = OwnLabels(LABELS, score if near == "label" else OUT_OF_REACH)
    reasoner._begins[:] = OUT_OF_REACH
    if near == "event":
        reasoner._begins[0] = score  # of one label
    reasoner.read([0], [15600], drawn, posteriors)
    assert not reasoner.settled


def test_a_reader_that_has_no_second_thoughts(tmp_path):
    made = make(tmp_path, soft=True, residual=False, lags=0)
    reasoner = Gpt2(graph.load(made.file), TraceSettings(), 0.48)
    posteriors, drawn = sounds(3, 0)
    for t in range(3):
        [decision] = reasoner.read([0], [15600 + HOP * t], drawn[t, None], posteriors[t, None])
        assert decision.scores.shape == (len(LABELS),)
        assert decision.earlier is None


@pytest.mark.parametrize("earlier", [None, np.zeros((0, 3), np.float32)])
def test_a_decision_without_patches_before_it_says_nothing_of_them(earlier):
    decision = decide(OwnLabels(LABELS, 0.5), np.array([0.1, 0.7, 0.2], np.float32), earlier)
    assert (decision.label, decision.earlier) == ("rain", None)


def test_off_thinks_with_one_trace(sampled):
    reasoner = Gpt2(graph.load(sampled.file), TraceSettings(samples=4, traces=8, think="off"), 0.48)
    posteriors, drawn = sounds(1, 0, traces=8)
    assert reasoner.read([0], [15600], drawn, posteriors)[0].traces == 1
    assert reasoner.settled


def test_samples_that_leave_no_room_are_refused(sampled):
    with pytest.raises(UsageError, match="512 tokens, which is all that toy takes"):
        Gpt2(graph.load(sampled.file), TraceSettings(samples=256), 0.48)
