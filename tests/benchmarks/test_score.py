"""The live trial's tables, on methods whose figures can be computed by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import score
import timeline
from score import Played, at_starts, compare, false_events_at_recall, sweep
from timeline import Scene, Sound

HOP_S = 0.5
LABELS = ["dog", "saw"]
TRUTH = [Sound("dog", 10.0, 14.0), Sound("saw", 30.0, 34.0)]  # 8 of 60 seconds
DURATION_S = 60.0
TIMES_S = np.arange(1, 121) * HOP_S


def scene(scores: np.ndarray, truth=TRUTH, name: str = "scene", placed: bool = False) -> Scene:
    """A scene of a minute with these scores, tracked at 0.5.

    Events begin and end when it is published, or, `placed`, in the middle of the window before.
    """
    untracked = Scene(
        name=name,
        duration_s=DURATION_S,
        truth=list(truth),
        events=[],
        positions=np.round(16_000 * TIMES_S).astype(np.int64),
        times_s=TIMES_S,
        scores=scores.astype(np.float32),
        labels=LABELS,
        named=[LABELS[row.argmax()] if row.max() >= 0.5 else None for row in scores],
    )
    tracked = timeline.retrack(untracked, 0.5, 0.25)
    if placed:
        return tracked
    at_once = [
        replace(e, start_s=e.onset_received_s, end_s=e.offset_received_s) for e in tracked.events
    ]
    return replace(tracked, events=at_once)


def scores_of(*sounds: Sound, value: float = 1.0) -> np.ndarray:
    """1 from the onset to the offset, at decisions."""
    scores = np.zeros((len(TIMES_S), len(LABELS)))
    for sound in sounds:
        inside = slice(*np.searchsorted(TIMES_S, (sound.onset_s, sound.offset_s)))
        scores[inside, LABELS.index(sound.label)] = value
    return scores


def played(*scenes: Scene, snr_db: float = 20.0) -> list[Played]:
    return [Played(1, number, snr_db, each, 0.5) for number, each in enumerate(scenes)]


PERFECT = scores_of(*TRUTH)
EMPTY = np.zeros_like(PERFECT)
SPURIOUS = scores_of(Sound("dog", 5.0, 6.0), Sound("dog", 7.0, 8.0), Sound("saw", 50.0, 52.0))


def method(scores: np.ndarray, background: np.ndarray) -> dict:
    """Two scenes at each of two SNRs, and two minutes of background."""
    return score.score(
        [
            *played(scene(scores), scene(scores), snr_db=5),
            *played(scene(scores), scene(scores), snr_db=20),
        ],
        played(*[scene(background, [])] * 2, snr_db=0),
    )


@pytest.fixture(scope="module")
def methods() -> dict[str, dict]:
    return {
        "perfect": method(PERFECT, EMPTY),
        "empty": method(EMPTY, EMPTY),
        "hasty": method(np.maximum(PERFECT, SPURIOUS), SPURIOUS),
    }


def test_events_dated_back_are_right_at_a_lag_and_the_same_in_force():
    """Of a method that is a second late, and says that sounds began when it publishes them."""
    late = scene(np.roll(PERFECT, 2, axis=0))
    back = timeline.dated_back(late, 1.0)
    assert timeline.agreement(back, 0.0) == timeline.agreement(late, 0.0)
    assert timeline.f1(timeline.agreement(late, 1.0)) == pytest.approx(0.75)
    assert timeline.f1(timeline.agreement(back, 1.0)) == 1
    found = score.dated(played(late), played(back))["20"]
    assert found["f1"]["mean"] == pytest.approx(0.75)
    assert found["gpt2"]["mean"] == pytest.approx(0.25)


def test_methods_are_matched_where_each_has_few_false_starts():
    """One is as sure of three false starts a minute as 0.6, the other of what is right as 0.8."""
    hasty = scene(np.maximum(PERFECT, 0.6 * SPURIOUS))
    faint = scene(0.8 * PERFECT)
    chosen = score.at_threshold(played(hasty))
    assert [timeline.false_starts(each.scene) for each in chosen] == [0]
    found = score.matched(played(hasty), played(faint))
    assert list(found) == ["20", "all"]
    assert found["all"]["mean"] == pytest.approx(0)
    against_empty = score.matched(played(hasty), played(scene(EMPTY)))
    assert against_empty["all"]["mean"] > 0.9
    everything = scene(np.tile([[1.0, 1.0], [0.0, 0.0]], (len(TIMES_S) // 2, 1)))
    assert score.matched(played(hasty), played(everything)) == {}


# score


def test_a_perfect_method(methods):
    figures = methods["perfect"]
    assert list(figures["by_snr"]) == ["20", "5"]
    at = figures["by_snr"]["20"]
    for lag in at["lags"].values():
        assert lag["f1"] == {"mean": 1, "low": 1, "high": 1}
        assert lag["right"] == {"mean": 1, "low": 1, "high": 1}
    assert at["label_f1"]["mean"] == 1
    assert at["false_starts_per_minute"]["mean"] == 0
    assert (at["sounds"], at["minutes"], at["named"]) == (4, 2, 1)
    assert at["onset_s"] == [0, 0]
    assert at["offset_s"] == [0, 0]
    assert at["segment_f1_micro"] == 1
    assert figures["false_events_per_hour"] == 0


def test_an_empty_method(methods):
    figures = methods["empty"]
    at = figures["by_snr"]["5"]
    for lag in at["lags"].values():
        assert lag["f1"]["mean"] == 0
        assert lag["right"]["mean"] == pytest.approx(52 / 60)
    assert at["named"] == 0
    assert all(math.isnan(each) for each in [*at["onset_s"], *at["offset_s"]])
    assert at["segment_f1_micro"] == 0
    assert figures["false_events_per_hour"] == 0
    assert {each["recall"] for each in figures["swept"]} == {0}


def test_a_hasty_method(methods):
    """Besides what is right it publishes three events a minute, 4 s in all."""
    figures = methods["hasty"]
    at = figures["by_snr"]["20"]
    assert at["false_starts_per_minute"]["mean"] == 3
    assert at["lags"]["0"]["f1"]["mean"] == pytest.approx(2 * 8 / (2 * 8 + 4))
    assert at["lags"]["0"]["right"]["mean"] == pytest.approx(56 / 60)
    assert figures["false_events_per_hour"] == pytest.approx(3 * 60)


def test_a_late_method_loses_at_lag_0_only():
    late = [Sound(each.label, each.onset_s + 1, each.offset_s + 1) for each in TRUTH]
    untracked = scene(scores_of(*late), placed=True)
    at = score.score(played(untracked), played(scene(EMPTY, [])))["by_snr"]["20"]
    assert at["lags"]["0"]["f1"]["mean"] == pytest.approx(0.75)  # 3 of 4 s each, 1 s too long
    assert at["onset_s"] == pytest.approx([1, 1])
    assert at["offset_s"] == pytest.approx([1, 1])
    means = [lag["f1"]["mean"] for lag in at["lags"].values()]
    assert means[1:] == pytest.approx([means[1]] * 3)  # half a second later all is known
    assert means[1] > 0.85


def test_a_scene_is_drawn_with_its_likes(methods):
    """An interval is over scenes: with a good and a bad one it goes from the one to the other."""
    at = score.score(played(scene(PERFECT), scene(EMPTY)), played(scene(EMPTY, [])))["by_snr"]["20"]
    f1 = at["lags"]["0"]["f1"]
    assert f1["mean"] == pytest.approx(2 * 8 / (2 * 8 + 8))
    assert (f1["low"], f1["high"]) == (0, 1)


# compare


def test_a_method_against_another():
    perfect, empty = played(scene(PERFECT), scene(PERFECT)), played(scene(EMPTY), scene(EMPTY))
    [(level, result)] = compare(perfect, empty).items()
    assert level == "20"
    assert list(result["f1"]) == ["0", "0.5", "1", "2"]
    assert all(each == {"mean": 1, "low": 1, "high": 1} for each in result["f1"].values())
    assert (result["named_only_a"], result["named_only_b"]) == (4, 0)
    [result] = compare(empty, perfect).values()
    assert result["f1"]["0"]["mean"] == -1
    assert (result["named_only_a"], result["named_only_b"]) == (0, 4)
    [result] = compare(perfect, perfect).values()
    assert result["f1"]["1"] == {"mean": 0, "low": 0, "high": 0}
    assert (result["named_only_a"], result["named_only_b"]) == (0, 0)


def test_levels_are_compared_apart_and_the_loudest_first():
    a = [*played(scene(EMPTY), snr_db=5), *played(scene(PERFECT), snr_db=20)]
    b = [*played(scene(EMPTY), snr_db=5), *played(scene(EMPTY), snr_db=20)]
    result = compare(a, b)
    assert list(result) == ["20", "5"]
    assert result["20"]["named_only_a"] == 2
    assert result["5"]["named_only_a"] == 0


def test_other_scenes_are_not_compared():
    with pytest.raises(AssertionError):
        compare(played(scene(PERFECT)), played(scene(PERFECT, name="another")))


# sweep


def test_a_threshold_over_the_scores_publishes_nothing():
    """Right at 0.6, wrong at 0.3: events change at these thresholds."""
    scores = np.maximum(0.6 * PERFECT, 0.3 * SPURIOUS)
    swept = sweep(played(scene(scores)), played(scene(0.3 * SPURIOUS, [])))
    assert [each.on for each in swept] == list(score.ONS)
    by_on = {each.on: each for each in swept}
    low, middle, high = by_on[0.25], by_on[0.5], by_on[0.65]
    assert (low.recall, low.starts_per_minute, low.false_events_per_hour) == (1, 3, 180)
    assert low.f1 == pytest.approx(0.8)
    assert (middle.recall, middle.starts_per_minute, middle.false_events_per_hour) == (1, 0, 0)
    assert middle.f1 == pytest.approx(1)
    assert (high.f1, high.recall, high.starts_per_minute, high.false_events_per_hour) == (
        0,
        0,
        0,
        0,
    )


def test_off_moves_with_on():
    """A dip to 0.3 ends an event that began at 0.9, but not at 0.5 with a share of a half."""
    scores = scores_of(Sound("dog", 10, 12), Sound("dog", 13, 15)) + 0.3 * scores_of(
        Sound("dog", 12, 13)
    )
    truth = [Sound("dog", 10, 15)]
    by_on = {
        each.on: each for each in sweep(played(scene(scores, truth)), played(scene(EMPTY, [])))
    }
    assert by_on[0.5].f1 == pytest.approx(1)
    assert by_on[0.9].f1 == pytest.approx(2 * 4 / (2 * 4 + 1), abs=0.05)


# At a number of false starts, at a recall


def at(starts: float, f1: float, on: float = 0.5) -> dict:
    return {"on": on, "starts_per_minute": starts, "f1": f1}


def test_f1_at_false_starts_is_between_its_neighbours():
    swept = [at(4, 0.9, 0.1), at(1, 0.6, 0.5), at(0, 0.2, 0.9)]
    assert at_starts(swept, 2) == pytest.approx(0.7)
    assert at_starts(swept, 1) == pytest.approx(0.6)
    assert at_starts(swept[::-1], 2) == pytest.approx(0.7)
    assert at_starts(swept, 10) is None  # it never has as many


def test_f1_at_false_starts_is_not_that_of_telling_everything_all_the_time():
    """At the lowest threshold one event lasts for ever, so there are few starts again."""
    swept = [at(2, 0.1, 0.05), at(8, 0.5, 0.3), at(2.5, 0.8, 0.5), at(1.5, 0.7, 0.7)]
    assert at_starts(swept, 2) == pytest.approx(0.75)


def test_f1_where_there_are_never_false_starts():
    swept = [at(0, 0.9, 0.1), at(0, 0.8, 0.5), at(0, 0.0, 0.9)]
    assert at_starts(swept, 2) is None  # no threshold was in the way


def swept_at(on: float, recall: float, per_hour: float) -> dict:
    return {"on": on, "recall": recall, "false_events_per_hour": per_hour}


def test_false_events_at_a_recall():
    swept = [swept_at(0.1, 1, 500), swept_at(0.5, 0.9, 30), swept_at(0.9, 0.89, 0)]
    assert false_events_at_recall(swept) == 30
    assert false_events_at_recall(swept, 0.95) == 500
    assert false_events_at_recall(swept[2:]) is None
    assert false_events_at_recall([]) is None


def test_false_events_at_a_recall_is_that_of_the_highest_threshold():
    """At the lowest threshold one event lasts for an hour: that is no virtue."""
    swept = [swept_at(0.05, 1, 10), swept_at(0.3, 0.97, 900), swept_at(0.5, 0.92, 300)]
    assert false_events_at_recall(swept) == 300


# Tables and plot


@pytest.fixture(scope="module")
def results(methods) -> dict:
    pair = played(scene(PERFECT), scene(PERFECT), snr_db=20) + played(scene(PERFECT), snr_db=5)
    none = played(scene(EMPTY), scene(EMPTY), snr_db=20) + played(scene(EMPTY), snr_db=5)
    return {"methods": methods, "bounds": ["perfect"], "against": {"perfect": compare(pair, none)}}


def test_tables_are_whole_and_right(results):
    text = score.markdown(results, "empty")
    tables = [block.strip().splitlines() for block in text.split("###")[1:]]
    assert len(tables) == 5
    for lines in tables:
        rows = [line for line in lines if line.startswith("|")]
        assert len({line.count("|") for line in rows}) == 1, lines[0]
        first = [row.split("|")[1].strip() for row in rows]
        assert first == ["method", "---", "perfect", "empty", "hasty"]
    in_force, delays, lags, _, background = (
        [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line[0] == "|"]
        for lines in ([each for each in lines if each] for lines in tables)
    )
    assert in_force[2] == [
        "perfect", "1.000 (1.000 to 1.000)", "0.0", "1.000 (1.000 to 1.000)", "0.0", "not reached",
        "+1.000 (+1.000 to +1.000), +1.000 (+1.000 to +1.000)",
    ]  # fmt: skip
    assert in_force[3][1:5:2] == ["0.000 (0.000 to 0.000)"] * 2
    assert in_force[4][2] == "3.0"
    assert in_force[3][-1] == ""
    assert delays[2][1] == "100 %, 0.00, 0.00, 0.00, 0.00"
    assert delays[3][1].startswith("0 %, nan")
    assert lags[2][1] == "1.000, 1.000, 1.000, 1.000; 100, 100, 100, 100 %"
    assert background[2] == ["perfect", "0.0", "0", "100 %"]
    assert background[3] == ["empty", "0.0", "not reached", "0 %"]
    assert background[4] == ["hasty", "180.0", "180", "100 %"]


def test_trainings_are_listed_apart(results):
    methods = {"one": results["methods"]["perfect"], "two": results["methods"]["empty"]}
    perfect = results["against"]["perfect"]
    half, less = ({"mean": mean, "low": mean, "high": mean} for mean in (0.5, 0.4))
    none = {level: {"f1": {"0": half, "1": less}} for level in perfect}
    results_of = {"methods": methods, "trainings": ["one", "two"], "against": {"one": perfect}}
    results_of["against"]["two"] = none
    text = score.markdown({**results_of, "bounds": []}, "empty")
    assert "### 2 trainings of one" in text
    assert "| 20 dB, lag 0 s, against empty | 1.000, 0.500 | 0.750 | 0.354 |" in text
    assert "| 5 dB, lag 1 s, against empty | 1.000, 0.400 | 0.700 | 0.424 |" in text
    assert "trainings of" not in score.markdown({**results_of, "trainings": ["one"]}, "empty")


def test_a_plot_is_drawn(results, tmp_path):
    path = tmp_path / "plot.png"
    score.plot(results, str(path))
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    from matplotlib import image

    pixels = image.imread(path)
    assert pixels.shape[1] > pixels.shape[0] > 100
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 50  # lines, not a blank
