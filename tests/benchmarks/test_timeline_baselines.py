"""What thinking has to beat on timelines: how it is counted, trained and chosen."""

from dataclasses import replace

import numpy as np
import pytest
import timeline_baselines
import torch
from timeline import Sound
from timeline_baselines import (
    AVERAGE,
    GRU,
    LAGGED,
    SMOOTHER,
    TOP,
    Gru,
    MovingAverage,
    WindowTop,
    fit_timeline,
    scores_of,
    smooth,
)

from streamtwl.backbones.yamnet import WINDOW
from streamtwl.config import EventSettings
from streamtwl.events import EventTracker
from streamtwl.reasoners.recurrent import ENDLESS_S
from streamtwl.stages import SAMPLE_RATE
from streamtwl.training import fitting, steps
from streamtwl.training.fitting import (
    FILTER,
    Chosen,
    SceneArrays,
    arrays,
    fit_patch_model,
    in_force,
    onsets,
    pick_best,
)
from streamtwl.training.scored_scenes import ScoredScene, positions

LABELS = ["dog", "saw"]
PATCHES, CATEGORIES = 40, 8
HOP_S = 0.48
DURATION_S = (15_600 + 7680 * (PATCHES - 1)) / SAMPLE_RATE + 0.2
ALL = np.ones(CATEGORIES, bool)  # columns are scores
NAMES = (TOP, AVERAGE, FILTER, LAGGED, SMOOTHER, GRU)


def by_hand(sounding, recently=None, ahead=None, hop_s: float = 1.0) -> SceneArrays:
    """One stream of one label, or more of both: what sounds at each patch, and what follows."""
    sounding = np.array(sounding, bool)
    elapsed_s = np.full(sounding.shape[:2], hop_s, np.float32)
    elapsed_s[:, 0] = ENDLESS_S
    return SceneArrays(
        np.zeros((*sounding.shape[:2], CATEGORIES), np.float32),
        ALL,
        elapsed_s,
        sounding,
        sounding if recently is None else np.array(recently, bool),
        sounding.astype(float) if ahead is None else np.array(ahead, float),
    )


def column(*values):
    """One stream of one label."""
    return np.array(values)[None, :, None]


# In force


def test_in_force_by_hand():
    truth = by_hand(column(0, 1, 1, 1, 0, 0))
    scores = column(0.1, 0.9, 0.9, 0.1, 0.1, 0.1)  # 2 of 3 that sound, 2 of 2 that are predicted
    assert in_force(scores, truth, 0.5, 0.5) == (pytest.approx(2 * 2 / (2 + 3)), 0)


def test_all_or_nothing():
    truth = by_hand(column(0, 1, 1, 0))
    assert in_force(column(0.0, 1, 1, 0), truth, 0.5, 0.5) == (1, 0)
    assert in_force(column(0.0, 0, 0, 0), truth, 0.5, 0.5) == (0, 0)
    assert in_force(column(0.0, 0, 0, 0), by_hand(column(0, 0, 0, 0)), 0.5, 0.5) == (0, 0)


def test_a_belief_lasts_until_its_score_is_under_off():
    truth = by_hand(column(1, 1, 1, 0))
    scores = column(0.6, 0.3, 0.2, 0.1)
    assert in_force(scores, truth, 0.5, 0.5)[0] == pytest.approx(2 * 1 / (1 + 3))
    assert in_force(scores, truth, 0.5, 0.2)[0] == 1  # at `off` it still holds
    assert in_force(scores, truth, 0.5, 0.05)[0] == pytest.approx(2 * 3 / (4 + 3))
    assert in_force(column(0.4, 0.4, 0.4, 0.4), truth, 0.5, 0.2)[0] == 0  # never on
    assert in_force(column(0.5, 0, 0, 0), truth, 0.5, 0.2)[0] > 0  # at `on` it begins


def test_false_starts_a_minute():
    truth = by_hand(column(0, 0, 1, 0, 0, 0), column(0, 0, 1, 1, 0, 0), hop_s=0.5)
    scores = column(1.0, 0.0, 1.0, 0.0, 1.0, 1.0)  # false at 0, right at 2, false at 4
    assert in_force(scores, truth, 0.5, 0.5)[1] == pytest.approx(2 / (6 * 0.5 / 60))
    late = column(0.0, 0.0, 0.0, 1.0, 1.0, 1.0)  # it has just sounded
    assert in_force(late, truth, 0.5, 0.5)[1] == 0
    held = column(0.0, 0.0, 1.0, 1.0, 1.0, 1.0)  # wrong, but it began right
    assert in_force(held, truth, 0.5, 0.5)[1] == 0


def test_what_follows_a_decision_counts_in_parts():
    truth = by_hand(column(0, 1, 1), ahead=column(0.5, 1, 0.25))
    scores = column(1.0, 1.0, 1.0)
    assert in_force(scores, truth, 0.5, 0.5)[0] == pytest.approx(2 * 1.75 / (3 + 1.75))


def test_streams_and_labels_are_pooled_and_do_not_share_beliefs():
    truth = by_hand([[[1, 0], [1, 0]], [[0, 0], [0, 1]]])
    scores = np.array([[[1, 0], [0.3, 0.3]], [[0, 1], [0.3, 0.3]]])  # 0.3 holds, does not begin
    f1, starts = in_force(scores, truth, 0.5, 0.2)
    assert f1 == pytest.approx(2 * 3 / (4 + 3))
    assert starts == pytest.approx(1 / (4 / 60))


def test_beliefs_are_those_of_the_products_events():
    rng = np.random.default_rng(3)
    scores = rng.random((1, 60, 2)).astype(np.float32)
    background = by_hand(np.zeros((1, 60, 2)), hop_s=HOP_S)
    tracker = EventTracker(LABELS, EventSettings(on=0.7, off=0.35), WINDOW // 2)
    onsets = sum(
        phase == "onset"
        for t in range(60)
        for phase, _ in tracker.step(0, 15_600 + 7680 * t, scores[0, t], scores[0, t])
    )
    minutes = 60 * HOP_S / 60
    assert in_force(scores, background, 0.7, 0.35)[1] == pytest.approx(onsets / minutes, rel=1e-5)


# Streams as arrays


def stream(truth: list[Sound], seed: int = 0, noise: float = 0.05) -> ScoredScene:
    """Category 1 fires for a dog, 4 for a saw, while they sound at a window's end."""
    ends = positions(PATCHES, HOP_S, DURATION_S)
    made = ScoredScene(f"{seed}", DURATION_S, ends, np.zeros((0, 0)), truth)
    posteriors = noise * np.random.default_rng(seed).random((PATCHES, CATEGORIES))
    posteriors[:, [1, 4]] += 0.8 * made.sounding(LABELS)
    return replace(made, rows=posteriors.astype(np.float32).clip(0, 1))


def test_arrays_by_hand():
    """Windows end at 0.975, 1.455, 1.935 s ..."""
    truth = [Sound("saw", 1.0, 1.5), Sound("saw", 1.2, 1.3), Sound("dog", 0.0, 1.0)]
    made = arrays([stream(truth), stream([])], LABELS, ALL)
    assert made.rows.shape == (2, PATCHES, CATEGORIES)
    np.testing.assert_allclose(made.elapsed_s[0, :3], [ENDLESS_S, 0.48, 0.48], rtol=1e-5)
    dog, saw = 0, 1
    assert np.flatnonzero(made.sounding[0, :, dog]).tolist() == [0]
    assert np.flatnonzero(made.sounding[0, :, saw]).tolist() == [1]
    assert np.flatnonzero(made.recently[0, :, dog]).tolist() == [0, 1, 2]  # 1.935 - 0.975 < 1
    assert np.flatnonzero(made.recently[0, :, saw]).tolist() == [1, 2, 3]  # up to 2.475
    np.testing.assert_allclose(made.ahead[0, :2, dog], [0.025 / 0.48, 0])
    np.testing.assert_allclose(made.ahead[0, 1, saw], 0.045 / 0.48)
    assert made.ahead.max() <= 1
    assert not made.sounding[1].any()
    assert not made.recently[1].any()
    assert not made.ahead[1].any()


def test_the_last_decision_speaks_up_to_the_end():
    made = arrays([stream([Sound("dog", DURATION_S - 0.1, DURATION_S)])], LABELS, ALL)
    assert np.flatnonzero(made.ahead[0, :, 0]).tolist() == [PATCHES - 1]
    np.testing.assert_allclose(made.ahead[0, -1, 0], 0.5)


def test_streams_are_cut_to_the_shortest():
    short = stream([])
    short = replace(short, positions=short.positions[:7], rows=short.rows[:7])
    assert arrays([stream([]), short], LABELS, ALL).sounding.shape == (2, 7, 2)


def test_seconds_since_the_patch_before():
    found = fitting.elapsed(np.array([15_600, 23_280, 23_280 + SAMPLE_RATE, 40_000]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [ENDLESS_S, 0.48, 1.0, 720 / SAMPLE_RATE], rtol=1e-6)


# Training and choosing


def scenes(count: int, seed: int, noise: float = 0.05, names: list[str] = LABELS) -> SceneArrays:
    """SceneArrays with three sounds each, of 2 to 4 s, now and then at once."""
    made = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        onsets = rng.uniform(0, 15, 3)
        sounds = [
            Sound(LABELS[i], at, at + rng.uniform(2, 4))
            for i, at in zip((0, 1, number % 2), onsets, strict=True)
        ]
        one = stream(sounds, seed=1000 * seed + number, noise=noise)
        renamed = dict(zip(LABELS, names, strict=True))
        made.append(replace(one, truth=[replace(s, label=renamed[s.label]) for s in sounds]))
    return arrays(made, LABELS, ALL)


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Little to choose from, a GRU that is there for its name's sake, and no threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "PENALTIES", (1e-3,))
        patch.setattr(timeline_baselines, "HALF_LIVES_S", (0.1, 0.7))
        short_and_long = [{"duration_s": each, "exponent": 1.0} for each in (0.25, 4.0)]
        patch.setattr(timeline_baselines, "FILTERS", short_and_long)
        patch.setattr(fitting, "FILTERS", short_and_long)
        patch.setattr(fitting, "ONS", (0.1, 0.3, 0.5, 0.7, 0.9))
        patch.setattr(fitting, "OFF_SHARES", (1.0, 0.5))
        patch.setattr(timeline_baselines, "GRUS", ((1, 0.1),))
        patch.setattr(timeline_baselines._fit_gru, "__defaults__", (None, 2))  # epochs
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def right() -> dict[str, Chosen]:
    """Fitted on an easy problem, with a GRU that learns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timeline_baselines, "GRUS", ((8, 0.1),))
        patch.setattr(
            timeline_baselines._fit_gru, "__defaults__", (None, timeline_baselines.EPOCHS)
        )
        patch.setattr(timeline_baselines, "BATCH", 1)
        return fitted(scenes(6, 1), scenes(4, 2))


def fitted(fit_on: SceneArrays, choose_by: SceneArrays, seed: int = 0) -> dict[str, Chosen]:
    return fit_timeline(fit_on, choose_by, seed, lambda _: None)


def test_a_patch_model_learns_which_category_is_whose():
    fit_on, new = scenes(8, 1), scenes(4, 2)
    model = fit_patch_model(fit_on, 1e-3)
    found = np.exp(model(new.rows))
    single = new.sounding.sum(axis=2) <= 1
    expected = np.where(new.sounding.any(axis=2), new.sounding.argmax(axis=2), len(LABELS))
    assert (found.argmax(axis=2) == expected)[single].mean() > 0.98
    both = found[new.sounding.all(axis=2)]
    assert len(both)
    assert (both[:, :2] > 0.2).all()  # where two sound, each is half
    none = (~fit_on.sounding.any(axis=2)).mean()
    np.testing.assert_allclose(np.exp(model.log_prior)[-1], none, rtol=1e-4)
    assert np.exp(model.log_prior).sum() == pytest.approx(1)


def test_a_penalty_keeps_weights_small():
    fit_on = scenes(4, 1)
    models = (fit_patch_model(fit_on, each) for each in (1e-4, 1.0))
    free, tied = (np.linalg.norm(model.weight) for model in models)
    assert tied < free / 3


def test_every_baseline_solves_an_easy_problem(right):
    assert list(right) == list(NAMES)
    new = scenes(6, 3)
    for name, one in right.items():
        assert one.off <= one.on
        assert one.false_starts_per_minute <= fitting.FALSE_STARTS_PER_MINUTE
        scores = (
            smooth(one.step, new.rows, new.elapsed_s)
            if name == SMOOTHER
            else scores_of(one.step, new)
        )
        if name == LAGGED:
            scores = scores[:, :, 0]  # of the newest patch
        f1, starts = in_force(scores, new, one.on, one.off)
        assert f1 > 0.8, name
        if name != GRU:  # which learns more than a little by the validation streams
            assert one.in_force_f1 == pytest.approx(f1, abs=0.1)
        assert starts < 5
    kinds = [type(right[name].step) for name in NAMES]
    filters = [steps.Filter, steps.FixedLag, steps.Filter]
    assert kinds == [WindowTop, MovingAverage, *filters, Gru]


def test_a_setting_is_the_steps_own(right):
    average, hmm, gru = right[AVERAGE], right[FILTER], right[GRU]
    assert average.setting == {"penalty": 1e-3, "half_life_s": average.step.half_life_s}
    assert hmm.setting["duration_s"] == hmm.step.duration_s
    assert gru.setting["hidden"] == gru.step.state_size
    assert 1 <= gru.setting["epochs"] <= timeline_baselines.EPOCHS
    assert not gru.step.training


def test_the_filter_is_the_one_that_training_fits():
    fit_on, choose_by, new = scenes(2, 1), scenes(2, 2), scenes(2, 3)
    trained = fitting.fit_filter(fit_on, choose_by)
    here = fit_timeline(fit_on, choose_by, 0, lambda _: None, [FILTER])[FILTER]
    assert replace(trained, step=here.step) == here
    expected = trained.step.scores(trained.step.patch(new.rows), new.elapsed_s)
    np.testing.assert_allclose(scores_of(here.step, new), expected, atol=1e-5)


def test_progress_names_what_is_trained():
    said = []
    fit_timeline(scenes(2, 1), scenes(2, 2), 0, said.append)
    assert said == ["patch model", *(name for name in NAMES if name != LAGGED)]


def test_the_final_models_know_the_validation_streams_too():
    """Validation streams use another category for a saw: only who saw them can know it."""
    fit_on, choose_by = scenes(6, 1), scenes(6, 2)
    choose_by.rows[:, :, [4, 6]] = choose_by.rows[:, :, [6, 4]]
    [chosen] = [fitted(fit_on, choose_by)[TOP]]
    learnt = chosen.step.patch.weight[LABELS.index("saw")].tolist()
    only_fit = fit_patch_model(fit_on, 1e-3).weight[LABELS.index("saw")].tolist()
    assert learnt[6] > only_fit[6] + 0.5


def test_the_validation_streams_decide(right):
    wrong = fitted(scenes(6, 1), scenes(4, 2, names=LABELS[::-1]))
    for name in NAMES:
        assert wrong[name].in_force_f1 < 0.5 < right[name].in_force_f1, name
    chosen = [[(one.setting, one.on, one.off) for one in each.values()] for each in (right, wrong)]
    assert chosen[0] != chosen[1]


def test_the_validation_streams_choose_the_half_life(right):
    """Where a sound's patches come and go, a longer average is what helps."""
    choose_by = scenes(8, 2)
    flicker = np.random.default_rng(1).random((8, PATCHES, 1)) < 0.4
    silent = choose_by.rows.copy()
    silent[:, :, [1, 4]] = 0.02
    spoilt = replace(choose_by, rows=np.where(flicker, silent, choose_by.rows))
    average = fitted(scenes(6, 1), spoilt)[AVERAGE]
    assert (right[AVERAGE].step.half_life_s, average.step.half_life_s) == (0.1, 0.7)
    assert average.in_force_f1 < right[AVERAGE].in_force_f1 - 0.1


def spurious(streams: SceneArrays, seed: int) -> SceneArrays:
    """The same with a category that also fires, more or less, where its label does not sound."""
    rng = np.random.default_rng(seed)
    rows = streams.rows.copy()
    fires = rng.random(rows.shape[:2]) < 0.15
    louder = 0.1 + 0.8 * rng.random(rows.shape[:2])
    rows[:, :, 1] = np.where(fires, np.maximum(rows[:, :, 1], louder), rows[:, :, 1])
    return replace(streams, rows=rows)


def test_false_starts_are_capped_on_the_validation_streams(monkeypatch):
    fit_on, choose_by = spurious(scenes(6, 1), 1), spurious(scenes(6, 2), 2)
    monkeypatch.setattr(fitting, "FALSE_STARTS_PER_MINUTE", 1e9)
    free = fitted(fit_on, choose_by)
    monkeypatch.setattr(fitting, "FALSE_STARTS_PER_MINUTE", 1.0)
    capped = fitted(fit_on, choose_by)
    for name in (TOP, AVERAGE, FILTER):
        assert free[name].false_starts_per_minute > 1, name
        assert capped[name].false_starts_per_minute <= 1, name
        assert capped[name].in_force_f1 < free[name].in_force_f1, name


def weights(gru: Gru) -> torch.Tensor:
    return torch.cat([each.flatten() for each in gru.parameters()])


def test_onsets_by_hand():
    scores = column(0.6, 0.3, 0.6, 0.1, 0.7, 0.5)  # one that holds, one after it ended
    assert onsets(scores, 0.5, 0.2) == 2
    assert onsets(scores, 0.5, 0.5) == 3
    assert onsets(np.concatenate((scores, scores)), 0.5, 0.5) == 6  # streams by themselves


def test_thresholds_are_quiet_ones_where_there_are_any():
    truth = by_hand(column(0, 1, 1, 1, 0, 0))
    tried = [({}, column(0.1, 0.4, 0.4, 0.9, 0.1, 0.1))]
    _, best = pick_best(tried, truth)
    assert best["on"] <= 0.4
    _, chosen = pick_best(tried, truth, lambda on, off: on > 0.6)
    assert chosen["on"] > 0.6
    assert chosen["in_force_f1"] == pytest.approx(2 * 1 / (1 + 3))
    assert pick_best(tried, truth, lambda on, off: False)[1] == best


def test_a_gru_is_kept_as_it_was_after_its_best_epoch():
    """Where all is silent that sounds, and the other way about, training only makes it worse."""
    fit_on, choose_by = scenes(3, 1), scenes(2, 2)
    turned = replace(choose_by, sounding=~choose_by.sounding)
    kept, epochs = timeline_baselines._fit_gru(fit_on, 4, 0.1, 0, turned, epochs=4)
    once, _ = timeline_baselines._fit_gru(fit_on, 4, 0.1, 0, epochs=1)
    assert epochs == 1
    assert torch.equal(weights(kept), weights(once))
    _, epochs = timeline_baselines._fit_gru(fit_on, 4, 0.1, 0, choose_by, epochs=4)
    assert epochs == 4


def test_the_same_seed_trains_the_same():
    fit_on = scenes(3, 1)
    one, again, other = (
        weights(timeline_baselines._fit_gru(fit_on, 4, 0.1, seed, epochs=2)[0])
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
