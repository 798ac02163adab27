"""The reader that ships, on scores that a test makes."""

import msgspec
import numpy as np
import onnx
import pytest

from streamtwl import config
from streamtwl.errors import UsageError
from streamtwl.ontology import categories
from streamtwl.pipeline import hearing
from streamtwl.reasoners import choice, graph
from streamtwl.reasoners.card import CARD
from streamtwl.reasoners.reader import Reader, recent
from streamtwl.stages import Patch, Score, Window

NOTHING = np.zeros(0, np.float32)
HOP = 7680
CONTEXT = 32


@pytest.fixture(scope="module")
def stages(mn04):
    settings = config.load(config.find("gpt2"))
    return settings, *hearing(settings)


@pytest.fixture
def make(stages):
    settings, backbones, kinds = stages

    def make_reader(labels: str = "Dog, Siren, Rain") -> Reader:
        chosen = config.override(settings, {"labels": labels})
        names = [f"s{i}" for i in range(3)]
        made = choice.make(chosen, choice.load(chosen), backbones, kinds, names)
        assert isinstance(made, Reader)
        return made

    return make_reader


@pytest.fixture
def hops(stages):
    """Patches of one stream at each hop, of random scores that go on for a while."""
    _, backbones, kinds = stages

    def make_patches(count: int, stream: int = 0, seed: int = 0) -> list[Patch]:
        rng = np.random.default_rng(seed)
        drawn = {
            kind.name: rng.normal(-4, 2, (1, len(backbones[kind.backbone].categories)))
            + np.cumsum(rng.normal(0, 0.5, (count, len(backbones[kind.backbone].categories))), 0)
            for kind in kinds
        }
        made = []
        for t in range(count):
            scores = tuple(
                Score(
                    kind.name,
                    kind.length_s,
                    (1 / (1 + np.exp(-drawn[kind.name][t]))).astype(np.float32),
                    NOTHING,
                )
                for kind in kinds
            )
            window = Window(stream, 15_600 + t * HOP, 0, t == 0, (), -30.0, None, 0.0)
            made.append(Patch(window, scores))
        return made

    return make_patches


@pytest.mark.parametrize(
    ("field", "value"),
    [("candidates", -1), ("context", 1), ("half_life_s", 0.0), ("windows", []),
     ("windows", ["mn04:99"])],
)  # fmt: skip
def test_a_card_of_damaged_values_is_refused(field, value, stages, tmp_path):
    settings, backbones, kinds = stages
    model = onnx.load(choice.file(settings))
    [card] = [each for each in model.metadata_props if each.key == CARD]
    changed = msgspec.json.decode(card.value)
    changed["reader"][field] = value
    card.value = msgspec.json.encode(changed).decode()
    onnx.save(model, tmp_path / "r.onnx")
    chosen = config.override(settings, {"reasoner.file": str(tmp_path / "r.onnx")})
    with pytest.raises(UsageError, match=r"r\.onnx: its card"):
        choice.make(chosen, choice.load(chosen), backbones, kinds, ["s"])


def test_weights_that_are_no_numbers_are_refused(stages, tmp_path):
    settings, *_ = stages
    model = onnx.load(choice.file(settings))
    largest = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    largest.raw_data = np.full(len(largest.raw_data) // 4, np.nan, np.float32).tobytes()
    onnx.save(model, tmp_path / "r.onnx")
    with pytest.raises(UsageError, match=r"r\.onnx: it gives numbers that are none"):
        graph.load(tmp_path / "r.onnx")


def read_at_once(reader: Reader, stream: int, hops: int) -> np.ndarray:
    """Return float32[R, 1 + B] of a stream's rows, its newest hops read anew in one call."""
    state = reader._streams[stream]
    features, recent_ = reader._inputs(state, state.rows, hops)
    rows = len(state.rows)
    empty = np.zeros((rows, reader._cache_shape[0], 0, reader._cache_shape[2]), np.float32)
    feeds = {
        "features": features,
        "recent": recent_,
        "attention_mask": np.ones((rows, hops), bool),
        "position_ids": np.tile(np.arange(hops), (rows, 1)),
        **dict.fromkeys(reader._past, empty),
    }
    return reader._session.run(["scores"], feeds)[0][:, -1]


def test_a_cache_gives_what_reading_all_at_once_gives(make, hops):
    reader = make()
    for t, patch in enumerate(hops(14)):
        [decision] = reader.step([patch])
        expected = read_at_once(reader, 0, t + 1)
        rows = reader._streams[0].rows
        now = reader._streams[0].beliefs[0][rows]
        assert now == pytest.approx(expected[:, 0], abs=1e-4)
        assert decision.scores.shape == (3,)
        assert decision.earlier.shape == (reader.lags, 2, 3)


def test_a_full_row_begins_again_with_the_newest_half(make, hops):
    reader = make()
    for patch in hops(CONTEXT + 1):
        reader.step([patch])
    stream = reader._streams[0]
    assert set(stream.ages.tolist()) == {CONTEXT // 2}
    now = stream.beliefs[0][stream.rows]
    assert now == pytest.approx(read_at_once(reader, 0, CONTEXT // 2)[:, 0], abs=1e-4)


def test_a_new_candidate_is_read_from_where_the_hops_begin(make, hops):
    reader = make("all")
    before: set[int] = set()
    came = 0
    for t, patch in enumerate(hops(12)):
        reader.step([patch])
        stream = reader._streams[0]
        expected = read_at_once(reader, 0, t + 1)[:, 0]
        new = np.array([row not in before for row in stream.rows])
        came += int(new.sum()) if t else 0
        assert stream.beliefs[0][stream.rows][new] == pytest.approx(expected[new], abs=1e-4)
        assert len(stream.rows) == 16
        before = {*stream.rows.tolist()}
    assert came


def test_streams_do_not_change_each_other(make, hops):
    alone, together = make("all"), make("all")
    streams = [hops(20, stream, seed=stream) for stream in range(3)]
    for t in range(20):
        there = [stream[t] for s, stream in enumerate(streams) if t >= 5 * s]  # they begin later
        decisions = together.step(there)
        [expected] = alone.step([streams[0][t]])
        assert decisions[0].scores == pytest.approx(expected.scores, abs=1e-4)
        assert decisions[0].earlier == pytest.approx(expected.earlier, abs=1e-4)


def test_the_label_in_force_is_the_strongest_of_what_can_still_be_revised(make, hops):
    reader = make("all")
    naming, changes, of_newest = reader._naming, [], []
    for t, patch in enumerate(hops(40, seed=3)):
        [decision] = reader.step([patch])
        said = [decision.scores, *decision.earlier[:t, 0]]
        mean = np.mean(said, axis=0)
        mean = naming.vocabulary.most_specific(mean, naming.specific_ratio) * naming.wanted
        assert decision.confidence == pytest.approx(mean.max(), abs=1e-5)
        assert decision.label in (None, reader.labels[mean.argmax()])
        assert decision.in_force == pytest.approx(mean, abs=1e-5)
        changes.append(decision.in_force.argmax())
        of_newest.append(decision.specific.argmax())
    assert 0 < np.count_nonzero(np.diff(changes)) < np.count_nonzero(np.diff(of_newest))


def test_what_broke_off_is_forgotten(make, hops):
    reader = make()
    for patch in hops(9, seed=1):
        reader.step([patch])
    reader.forget(0)
    new = make()
    for patch in hops(5, seed=2):
        assert reader.step([patch])[0].scores.tolist() == new.step([patch])[0].scores.tolist()


def test_hops_before_are_revised_and_what_is_no_candidate_keeps_the_evidence(make, hops, stages):
    settings, backbones, kinds = stages
    reads = make().card.reader
    plain = config.override(
        settings,
        {
            "reasoner.file": "",
            "labels": "all",
            "reasoner.scale": reads.scale,
            "reasoner.shift": reads.shift,
        },
    )
    evidence = choice.make(plain, None, backbones, kinds, ["s0"])
    reader = make("all")
    revised = 0
    index = {name: i for i, name in enumerate(reader.labels)}
    first: list[np.ndarray] = []
    for patch in hops(10):
        [decision], [floor] = reader.step([patch]), evidence.step([patch])
        rows = {index[categories()[row]] for row in reader._streams[0].rows}
        others = [i for i in range(len(reader.labels)) if i not in rows]
        assert decision.scores[others] == pytest.approx(floor.scores[others], abs=1e-6)
        if first:
            revised += int((np.abs(decision.earlier[0, 0] - first[-1]) > 1e-3).sum())
        first.append(decision.scores)
    assert revised


def test_recent_goes_back_from_each_hop():
    values = np.arange(4, dtype=np.float32).reshape(1, 4, 1)
    assert recent(values, 2, 3)[0, :, :, 0].tolist() == [[2, 1, 0], [3, 2, 1]]
    assert recent(values[:, :2], 2, 3)[0, :, :, 0].tolist() == [[0, 0, 0], [1, 0, 0]]


def test_another_file_is_no_reader(make, stages):
    settings, *_ = stages
    reader = make()
    other = graph.load(choice.file(config.override(settings, {"reasoner.file": "esc10-gpt2"})))
    with pytest.raises(UsageError, match=r"esc10-gpt2\.onnx: its graph or its card is no reader's"):
        Reader(other, reader._naming, None, [], np.zeros(0, bool))
