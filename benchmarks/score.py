"""The live trial's tables: what each method's subscribers believed, against the truth."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import sound_events
import timeline
from timeline import Scene

LAGS_S = (0.0, 0.5, 1.0, 2.0)
DATED_LAG_S = 1.0
ONS = tuple(round(0.05 * i, 2) for i in range(1, 20))
FINE_ONS = tuple(round(0.01 * i, 2) for i in range(1, 100))
RECALL = 0.9
STARTS_PER_MINUTE = 2.0  # at which methods are compared


@dataclass(frozen=True, slots=True)
class Played:
    """One scene with the events of one method."""

    fold: int
    number: int
    snr_db: float
    scene: Scene
    off_share: float  # of the threshold for on: the one for off


@dataclass(frozen=True, slots=True)
class Swept:
    """A method at one threshold, the same for all folds."""

    on: float
    f1: float  # in force
    starts_per_minute: float
    recall: float
    false_events_per_hour: float  # events where there is nothing


def score(played: Sequence[Played], background: Sequence[Played]) -> dict:
    """Return every figure of one method: by SNR, and over its thresholds."""
    levels = sorted({each.snr_db for each in played}, reverse=True)
    hours = sum(each.scene.duration_s for each in background) / 3600
    return {
        "by_snr": {
            f"{level:g}": _at(level, [p for p in played if p.snr_db == level]) for level in levels
        },
        "false_events_per_hour": sum(timeline.count_events(each.scene) for each in background)
        / hours,
        "swept": [asdict(each) for each in sweep(played, background)],
    }


def dated(played: Sequence[Played], gpt2: Sequence[Played]) -> dict:
    """Return a method's F1 at DATED_LAG_S, by SNR, and how a gpt2 compares with it there."""
    result = {}
    for level in sorted({each.snr_db for each in played}, reverse=True):
        ours, theirs = ([each for each in side if each.snr_db == level] for side in (played, gpt2))
        assert [each.scene.name for each in ours] == [each.scene.name for each in theirs]
        groups = [(each.fold, each.number) for each in ours]
        a, b = (_agreements(side, DATED_LAG_S) for side in (theirs, ours))
        result[f"{level:g}"] = {
            "f1": asdict(timeline.bootstrap(b, timeline.f1, groups)),
            "gpt2": asdict(timeline.bootstrap_paired(a, b, timeline.f1, groups)),
        }
    return result


def matched(a: Sequence[Played], b: Sequence[Played]) -> dict:
    """Return A's in-force F1 against B's, by SNR and in "all", at matched false starts.

    Each has the lowest threshold with no more than STARTS_PER_MINUTE in all scenes together; empty
    where one of them has none.
    """
    a, b = at_threshold(a), at_threshold(b)
    if not a or not b:
        return {}
    assert [each.scene.name for each in a] == [each.scene.name for each in b]
    result = {}
    levels = sorted({each.snr_db for each in a}, reverse=True)
    for name, wanted in [*((f"{level:g}", {level}) for level in levels), ("all", {*levels})]:
        ours, theirs = ([each for each in side if each.snr_db in wanted] for side in (a, b))
        groups = [(each.fold, each.number) for each in ours]
        of_a, of_b = (_agreements(side, 0.0) for side in (ours, theirs))
        result[name] = asdict(timeline.bootstrap_paired(of_a, of_b, timeline.f1, groups))
    return result


def at_threshold(played: Sequence[Played]) -> list[Played]:
    """Return scenes tracked again with the lowest of FINE_ONS with few enough starts, or none.

    From the highest down to the first with too many: one event that never ends has few, too.
    """
    minutes = sum(each.scene.duration_s for each in played) / 60
    chosen: list[Played] = []
    for on in sorted(FINE_ONS, reverse=True):
        scenes = [replace(each, scene=_retracked(each, on)) for each in played]
        if sum(timeline.false_starts(each.scene) for each in scenes) > STARTS_PER_MINUTE * minutes:
            break
        chosen = scenes
    return chosen


def compare(a: Sequence[Played], b: Sequence[Played]) -> dict:
    """Return A against B on the same scenes, by SNR: in-force F1 at lags, and sounds named."""
    result = {}
    for level in sorted({each.snr_db for each in a}, reverse=True):
        of_a = [each for each in a if each.snr_db == level]
        of_b = [each for each in b if each.snr_db == level]
        assert [each.scene.name for each in of_a] == [each.scene.name for each in of_b]
        groups = [(each.fold, each.number) for each in of_a]
        named = [
            np.isfinite(np.concatenate([timeline.onset_delays(each.scene) for each in side]))
            for side in (of_a, of_b)
        ]
        result[f"{level:g}"] = {
            "f1": {
                f"{lag_s:g}": asdict(
                    timeline.bootstrap_paired(
                        _agreements(of_a, lag_s), _agreements(of_b, lag_s), timeline.f1, groups
                    )
                )
                for lag_s in LAGS_S
            },
            "named_only_a": int(np.count_nonzero(named[0] & ~named[1])),
            "named_only_b": int(np.count_nonzero(named[1] & ~named[0])),
        }
    return result


def sweep(played: Sequence[Played], background: Sequence[Played]) -> list[Swept]:
    """Return a method at every threshold, tracked again from the scores that were sent."""
    minutes = sum(each.scene.duration_s for each in played) / 60
    hours = sum(each.scene.duration_s for each in background) / 3600
    sounds = sum(len(each.scene.truth) for each in played)
    swept = []
    for on in ONS:
        scenes = [_retracked(each, on) for each in played]
        counts = np.array([timeline.agreement(scene) for scene in scenes]).sum(axis=0)
        swept.append(
            Swept(
                on,
                float(timeline.f1(counts)),
                sum(map(timeline.false_starts, scenes)) / minutes,
                sum(map(timeline.found, scenes)) / sounds,
                sum(len(_retracked(each, on).events) for each in background) / hours,
            )
        )
    return swept


def at_starts(swept: Sequence[dict], starts_per_minute: float = STARTS_PER_MINUTE) -> float | None:
    """Return the in-force F1 at so many false starts a minute, interpolated between thresholds.

    None where no threshold leads to so many, or every one leads to more.
    """
    before: dict | None = None
    for each in sorted(swept, key=lambda each: each["on"], reverse=True):
        if each["starts_per_minute"] > starts_per_minute:
            if before is None:
                return None
            starts = [before["starts_per_minute"], each["starts_per_minute"]]
            return float(np.interp(starts_per_minute, starts, [before["f1"], each["f1"]]))
        before = each
    return None


def false_events_at_recall(swept: Sequence[dict], recall: float = RECALL) -> float | None:
    """Return events per hour of background at the highest threshold with that recall, if any."""
    enough = [each for each in swept if each["recall"] >= recall]
    return max(enough, key=lambda each: each["on"])["false_events_per_hour"] if enough else None


def markdown(results: dict, reference: str) -> str:
    """Return the tables of every method's figures."""
    return "\n".join(
        [
            *_in_force_table(results, reference),
            *_trainings_table(results, reference),
            *_matched_table(results),
            *_delay_table(results),
            *_lag_table(results),
            *_dated_table(results),
            *_standard_table(results),
            *_background_table(results),
        ]
    )


def plot(results: dict, path: str) -> None:
    """Draw in-force F1 over false events in an hour of background, a line a method."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained", sharey=True)
    for method, figures in results["methods"].items():
        swept = figures["swept"]
        dashed = "--" if method in results["bounds"] else "-"
        for axis, over in zip(axes, ("false_events_per_hour", "starts_per_minute"), strict=True):
            x, y = [each[over] for each in swept], [each["f1"] for each in swept]
            axis.plot(x, y, dashed, marker=".", label=method)
    axes[0].set(xlabel="events in an hour of background", ylabel="in-force F1", xscale="symlog")
    axes[1].set(xlabel="false starts a minute, in the scenes", xlim=(0, 12))
    for axis in axes:
        axis.grid(alpha=0.3)
    axes[1].legend(fontsize="small")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _at(level: float, played: Sequence[Played]) -> dict:
    scenes = [each.scene for each in played]
    groups = [(each.fold, each.number) for each in played]
    minutes = sum(scene.duration_s for scene in scenes) / 60
    starts = np.array([(timeline.false_starts(s), s.duration_s / 60) for s in scenes])
    onsets = np.concatenate([timeline.onset_delays(scene) for scene in scenes])
    offsets = np.concatenate([timeline.offset_delays(scene) for scene in scenes])
    onsets_named = onsets[np.isfinite(onsets)]
    by_label = np.array([timeline.agreement_of_label(scene) for scene in scenes])
    lags = {}
    for lag_s in LAGS_S:
        counts = _agreements(played, lag_s)
        lags[f"{lag_s:g}"] = {
            "f1": asdict(timeline.bootstrap(counts, timeline.f1, groups)),
            "right": asdict(timeline.bootstrap(counts, _right, groups)),
        }
    return {
        "lags": lags,
        "label_f1": asdict(timeline.bootstrap(by_label, timeline.f1, groups)),
        "false_starts_per_minute": asdict(timeline.bootstrap(starts, _ratio, groups)),
        "sounds": len(onsets),
        "minutes": minutes,
        "named": float(np.isfinite(onsets).mean()),
        "onset_s": _median_and_p90(onsets_named),
        "offset_s": _median_and_p90(offsets),
        **sound_events.sed_eval_metrics(scenes),
        **sound_events.psds(scenes),
    }


def _in_force_table(results: dict, reference: str) -> list[str]:
    levels = _levels(results)
    lines = [
        "### In force: F1 of what a subscriber believes at each moment",
        "",
        "95 % intervals are bootstraps over scenes. At 2/min: the threshold moved until there are "
        "two false starts a minute in the test scenes, all SNRs together.",
        "",
        "| method | "
        + " | ".join(f"{level} dB | false starts a minute" for level in levels)
        + f" | F1 at 2/min | against {reference}: "
        + ", ".join(f"{level} dB" for level in levels)
        + " |",
        "|" + " --- |" * (2 * len(levels) + 3),
    ]
    for method, figures in results["methods"].items():
        cells = []
        for level in levels:
            at = figures["by_snr"][level]
            cells.append(_interval(at["lags"]["0"]["f1"]))
            cells.append(f"{at['false_starts_per_minute']['mean']:.1f}")
        f1 = at_starts(figures["swept"])
        cells.append("not reached" if f1 is None else f"{f1:.3f}")
        against = results["against"].get(method)
        cells.append(
            ", ".join(_interval(against[level]["f1"]["0"], "+") for level in levels)
            if against
            else ""
        )
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _trainings_table(results: dict, reference: str) -> list[str]:
    """Return how far the trainings of one recipe are apart."""
    names = results.get("trainings", [])
    if len(names) < 2:
        return []
    rows: dict[str, list[float | None]] = {}
    for level in _levels(results):
        for lag in ("0", "1"):
            title = f"{level} dB, lag {lag} s, against {reference}"
            rows[title] = [results["against"][name][level]["f1"][lag]["mean"] for name in names]
    rows["F1 at 2/min"] = [at_starts(results["methods"][name]["swept"]) for name in names]
    rows["events in the hour of background"] = [
        results["methods"][name]["false_events_per_hour"] for name in names
    ]
    lines = [
        f"### {len(names)} trainings of {names[0]}, that differ in their seeds",
        "",
        "| figure | each | mean | standard deviation |",
        "| --- | --- | --- | --- |",
    ]
    for title, values in rows.items():
        reached = [value for value in values if value is not None]
        if len(reached) < len(values):
            continue
        digits = 1 if "events" in title else 3
        each = ", ".join(f"{value:.{digits}f}" for value in reached)
        mean, deviation = np.mean(reached), np.std(reached, ddof=1)
        lines.append(f"| {title} | {each} | {mean:.{digits}f} | {deviation:.{digits}f} |")
    return [*lines, ""]


def _matched_table(results: dict) -> list[str]:
    """Return how GPT-2 compares with each baseline at equally many false starts."""
    found = results.get("matched", {})
    if not found:
        return []
    columns = [*_levels(results), "all"]
    lines = [
        f"### In-force F1 at {STARTS_PER_MINUTE:g} false starts a minute, against baselines",
        "",
        "Paired, each at its own threshold, chosen on these scenes.",
        "",
        "| model | against | "
        + " | ".join(f"{name} dB" if name != "all" else name for name in columns)
        + " |",
        "|" + " --- |" * (len(columns) + 2),
    ]
    for model, against in found.items():
        for method, each in against.items():
            said = [_interval(each[name], "+") if each else "not reached" for name in columns]
            cells = " | ".join(said)
            lines.append(f"| {model} | {method} | {cells} |")
    return [*lines, ""]


def _dated_table(results: dict) -> list[str]:
    """Return what is left of the gain of revisions where methods without them date events back."""
    found = results.get("dated", {})
    if not found:
        return []
    levels = _levels(results)
    lines = [
        f"### At lag {DATED_LAG_S:g} s, events dated back by what is best on validation scenes",
        "",
        "A method without revisions may still date a sound's beginning earlier. F1, and how much "
        f"higher that of {results['trainings'][0]} (its own dates) is.",
        "",
        "| method | dated back by, each fold | "
        + " | ".join(f"{level} dB | {results['trainings'][0]} more" for level in levels)
        + " |",
        "|" + " --- |" * (2 * len(levels) + 2),
    ]
    for method, each in found.items():
        by_s = ", ".join(f"{shift:g}" for shift in each["by_s"])
        cells = [
            cell
            for level in levels
            for cell in (
                _interval(each["by_snr"][level]["f1"]),
                _interval(each["by_snr"][level]["gpt2"], "+"),
            )
        ]
        lines.append(f"| {method} | {by_s} s | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _delay_table(results: dict) -> list[str]:
    levels = _levels(results)
    lines = [
        "### How soon: seconds from onset to the right label, from offset to its end",
        "",
        "| method | "
        + " | ".join(
            f"{level} dB: named, onset median, p90, offset median, p90" for level in levels
        )
        + " |",
        "|" + " --- |" * (len(levels) + 1),
    ]
    for method, figures in results["methods"].items():
        cells = []
        for level in levels:
            at = figures["by_snr"][level]
            seconds = [*at["onset_s"], *at["offset_s"]]
            cells.append(", ".join([f"{100 * at['named']:.0f} %", *(f"{s:.2f}" for s in seconds)]))
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _lag_table(results: dict) -> list[str]:
    levels = _levels(results)
    lines = [
        "### At lag: what is said of a moment 0, 0.5, 1, 2 s later (F1; share of time all right)",
        "",
        "| method | " + " | ".join(f"{level} dB" for level in levels) + " |",
        "|" + " --- |" * (len(levels) + 1),
    ]
    for method, figures in results["methods"].items():
        cells = []
        for level in levels:
            lags = figures["by_snr"][level]["lags"].values()
            f1 = ", ".join(f"{lag['f1']['mean']:.3f}" for lag in lags)
            right = ", ".join(f"{100 * lag['right']['mean']:.0f}" for lag in lags)
            cells.append(f"{f1}; {right} %")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _standard_table(results: dict) -> list[str]:
    levels = _levels(results)
    lines = [
        "### The field's metrics: segment F1 (1 s), event F1 (0.5 s collar), PSDS 1, PSDS 2; "
        "F1 of the one label in force",
        "",
        "| method | " + " | ".join(f"{level} dB" for level in levels) + " |",
        "|" + " --- |" * (len(levels) + 1),
    ]
    names = ("segment_f1_micro", "event_f1_micro", "psds1", "psds2")
    for method, figures in results["methods"].items():
        cells = []
        for level in levels:
            at = figures["by_snr"][level]
            values = ", ".join(f"{at[name]:.3f}" for name in names)
            cells.append(f"{values}; {at['label_f1']['mean']:.3f}")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _background_table(results: dict) -> list[str]:
    lines = [
        f"### In the hour of background: events an hour, and at {100 * RECALL:.0f} % recall",
        "",
        "| method | as set | at 90 % recall | highest recall |",
        "| --- | --- | --- | --- |",
    ]
    for method, figures in results["methods"].items():
        at_recall = false_events_at_recall(figures["swept"])
        said = "not reached" if at_recall is None else f"{at_recall:.0f}"
        most = max(each["recall"] for each in figures["swept"])
        lines.append(
            f"| {method} | {figures['false_events_per_hour']:.1f} | {said} | {100 * most:.0f} % |"
        )
    return [*lines, ""]


def _levels(results: dict) -> list[str]:
    return list(next(iter(results["methods"].values()))["by_snr"])


def _interval(interval: dict, sign: str = "") -> str:
    low, high = interval["low"], interval["high"]
    return f"{interval['mean']:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def _agreements(played: Sequence[Played], lag_s: float) -> np.ndarray:
    return np.array([timeline.agreement(each.scene, lag_s) for each in played])


def _retracked(played: Played, on: float) -> Scene:
    return timeline.retrack(played.scene, on, played.off_share * on)


def _right(counts: np.ndarray) -> np.ndarray:
    return counts[..., 3] / counts[..., 4]


def _ratio(stats: np.ndarray) -> np.ndarray:
    return stats[..., 0] / stats[..., 1]


def _median_and_p90(seconds: np.ndarray) -> list[float]:
    if not len(seconds):
        return [float("nan")] * 2
    return [float(value) for value in np.percentile(seconds, (50, 90))]
