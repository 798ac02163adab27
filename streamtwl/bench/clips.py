"""`streamtwl bench evaluate`: whole clips, their beginnings, noise; every baseline and fold."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from streamtwl.bench import clip_baselines, compare
from streamtwl.bench.clip_baselines import BASELINES, SAMPLES, Baseline
from streamtwl.errors import UsageError
from streamtwl.training import datasets
from streamtwl.training.datasets import Clip
from streamtwl.training.posteriors import (
    Augmentation,
    Scored,
    Scorer,
    prefixes,
    white_noise,
    white_noise_between,
)

PREFIXES = (1, 2, 3, 5, 9)  # patches
WHOLE = "whole clip"
NOISY = {
    f"{snr} dB": Augmentation(f"white noise {snr} dB", white_noise(snr)) for snr in (20, 10, 0)
}
CLEAN, WITH_NOISE = "clean", "with noise"  # kinds of training
COPIES = tuple(  # of each training clip, beside the clip; the test's noise has the seed 0
    Augmentation("white noise 0 to 25 dB", white_noise_between(0, 25), seed) for seed in (1, 2)
)
REFERENCE = "LR, root of mean posterior"  # what the others are compared with
VOTE = "majority vote, LR on patches"
COUNTS = {samples: f"LR, counts of {samples} samples" for samples in SAMPLES}
LOG_OF_MEAN, EMBEDDING = "LR, log of mean posterior", "LR, mean embedding"
SHOWN = (REFERENCE, LOG_OF_MEAN, EMBEDDING, *COUNTS.values())  # in the plot over the noise
SEEDS = (0, 1, 2, 3, 4)  # of the draws

STAGES = ("scoring clips", "folds")
Progress = Callable[[str, int, int], None]  # (what, done, of)
Scores = dict[Augmentation | None, dict[Path, Scored]]  # None: the clip as it is
Right = dict[str, dict[str, dict[str, float]]]  # method, condition, clip: share of right answers


def evaluate(
    folder: Path,
    out: Path,
    progress: Progress,
    folds: Sequence[int] = (),
    limit: int | None = None,
    hop_s: float = 0.48,
    noise: bool = True,
) -> dict:
    """Run every baseline on every fold; write results.json, table.md and the plots into `out`.

    A fold that `out` already holds, of the same files, is not run again. `limit` is the number of
    clips to use of each class and fold, for a quick look. Without `noise`, no noise is added to
    test or training clips. Returns the content of results.json.
    """
    clips = _limited(datasets.load(folder), limit)
    wanted = sorted(set(folds) or {clip.fold for clip in clips})
    unknown = set(wanted) - {clip.fold for clip in clips}
    if unknown:
        raise UsageError(f"no fold {sorted(unknown)[0]} in {folder}")
    out.mkdir(parents=True, exist_ok=True)
    scored = _score(clips, wanted, Scorer(hop_s=hop_s), noise, progress)
    key = _digest(
        clips,
        [(found.st_size, found.st_mtime_ns) for found in (clip.path.stat() for clip in clips)],
        hop_s,
        [baseline.name for baseline in BASELINES],
        [(each.name, each.seed) for each in (*NOISY.values(), *COPIES) if noise],
    )
    by_clip: dict[str, Right] = {}  # by the kind of training
    for done, fold in enumerate(wanted, 1):
        kept = out / f"fold-{fold}-{key}.json"
        if not kept.exists():
            partial = kept.with_suffix(".partial")
            partial.write_text(json.dumps(run_fold(clips, scored, fold, noise)))
            partial.rename(kept)
        for trained, methods in json.loads(kept.read_text()).items():
            of_training = by_clip.setdefault(trained, {})
            for method, conditions in methods.items():
                for name, right in conditions.items():
                    of_training.setdefault(method, {}).setdefault(name, {}).update(right)
        progress(STAGES[1], done, len(wanted))
    source = {str(clip.path): clip.source for clip in clips}
    trained = {kind: summarise(right, source) for kind, right in by_clip.items()}
    results = {"reference": REFERENCE, "trained": trained}
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    (out / "table.md").write_text(markdown(results))
    plot(results, out / "plot.png")
    if noise:
        plot_noise(results, out / "noise.png")
        plot_samples(results, out / "samples.png")
    return results


def run_fold(
    clips: Sequence[Clip], scored: Scores, fold: int, noise: bool = True
) -> dict[str, Right]:
    """Return, for each kind of training, each test clip's share of right answers."""
    training, test = datasets.split(clips, fold)
    whole = [scored[None][clip.path] for clip in test]
    conditions = {WHOLE: whole} | {str(n): prefixes(whole, n) for n in PREFIXES}
    kinds: dict[str, tuple[Augmentation | None, ...]] = {CLEAN: (None,)}
    if noise:
        kinds[WITH_NOISE] = (None, *COPIES)
        conditions |= {
            name: [scored[change][clip.path] for clip in test] for name, change in NOISY.items()
        }
    return {
        kind: _run_training(
            training * len(copies),
            [scored[copy][clip.path] for copy in copies for clip in training],
            test,
            conditions,
            fold,
        )
        for kind, copies in kinds.items()
    }


def summarise(by_clip: Right, source: dict[str, str]) -> dict:
    """Return accuracy and its interval, and the comparison with the reference, of each method."""
    methods: dict[str, dict[str, dict]] = {}
    for method, conditions in by_clip.items():
        rows = methods[method] = {}
        for name, right in conditions.items():
            paths = sorted(right)
            values = np.array([right[path] for path in paths])
            sources = [source[path] for path in paths]
            rows[name] = {"accuracy": asdict(compare.mean_interval(values, sources))}
            reference = by_clip[REFERENCE].get(name)
            if reference is not None and method != REFERENCE:
                other = np.array([reference[path] for path in paths])
                rows[name]["against_reference"] = asdict(compare.paired(values, other, sources))
    return methods


def markdown(results: dict) -> str:
    """Return the tables: accuracy in per cent, and the difference from the reference; noise."""
    trained = results["trained"]
    table = _table(trained[CLEAN])
    if WITH_NOISE not in trained:
        return table
    noise_table = _noise_table(trained)
    return f"Trained on clean clips:\n\n{table}\nWhole clips in white noise:\n\n{noise_table}"


def _table(methods: dict) -> str:
    conditions = [WHOLE, *map(str, PREFIXES)]
    lines = [
        f"| method | {WHOLE} | against {REFERENCE}: difference, only it, only ref. | "
        + " | ".join(f"{n} patches" for n in conditions[1:])
        + " |",
        "|" + " --- |" * (len(conditions) + 2),
    ]
    for method, rows in methods.items():
        accuracy = rows[WHOLE]["accuracy"]
        cells = [f"{_percent(accuracy)} ({_bounds(accuracy)})"]
        if against := rows[WHOLE].get("against_reference"):
            difference = against["difference"]
            cells.append(
                f"{_percent(difference, '+')} ({_bounds(difference)}), "
                f"{against['only_a']:.1f}, {against['only_b']:.1f}"
            )
        else:
            cells.append("")
        cells += [_percent(rows[n]["accuracy"]) if n in rows else "" for n in conditions[1:]]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _noise_table(trained: dict) -> str:
    conditions = {"clean": WHOLE} | {name: name for name in NOISY}
    columns = [(kind, name) for kind in (CLEAN, WITH_NOISE) for name in conditions]
    titles = [f"trained {kind}: {name}" for kind, name in columns]
    lines = [f"| method | {' | '.join(titles)} |", "|" + " --- |" * (len(columns) + 1)]
    for method in trained[CLEAN]:
        cells = [trained[kind][method][conditions[name]]["accuracy"] for kind, name in columns]
        cells = [f"{_percent(each)} ({_bounds(each)})" for each in cells]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot(results: dict, path: Path) -> None:
    """Draw accuracy over the number of patches, trained on clean clips."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for method, rows in results["trained"][CLEAN].items():
        if all(str(n) in rows for n in PREFIXES):
            means = [100 * rows[str(n)]["accuracy"]["mean"] for n in PREFIXES]
            axes.plot(PREFIXES, means, marker="o", label=method)
    axes.set(xlabel="patches", ylabel="accuracy, %", xticks=PREFIXES)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def plot_noise(results: dict, path: Path) -> None:
    """Draw accuracy over the SNR of whole clips, for both kinds of training."""
    pyplot = _pyplot()
    conditions = {"clean": WHOLE} | {name: name for name in NOISY}
    shades = pyplot.get_cmap("Oranges")(np.linspace(0.35, 0.95, len(COUNTS)))
    colours = dict(zip(COUNTS.values(), shades, strict=True))
    colours |= {REFERENCE: "black", LOG_OF_MEAN: "tab:blue", EMBEDDING: "tab:green"}
    figure, both = pyplot.subplots(1, 2, figsize=(11, 5), sharey=True, layout="constrained")
    for axes, (kind, methods) in zip(both, results["trained"].items(), strict=True):
        for method in SHOWN:
            means = [
                100 * methods[method][name]["accuracy"]["mean"] for name in conditions.values()
            ]
            axes.plot(
                list(conditions),
                means,
                "--" if method in COUNTS.values() else "-",
                marker="o",
                markersize=4,
                c=colours[method],
                label=method,
            )
        axes.set(title=f"trained {kind}", xlabel="white noise, SNR")
        axes.grid(alpha=0.3)
    both[0].set_ylabel("accuracy, %")
    figure.legend(*both[0].get_legend_handles_labels(), loc="outside right center")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def plot_samples(results: dict, path: Path) -> None:
    """Draw accuracy over the samples drawn, beside what many samples come to."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for kind, name, colour, aside in (
        (CLEAN, WHOLE, "tab:blue", 0.98),  # so that the intervals do not cover each other
        (WITH_NOISE, "10 dB", "tab:red", 1.02),
    ):
        methods = results["trained"][kind]
        shown = f"{'clean' if name == WHOLE else name}, trained {kind}"
        drawn = [methods[method][name]["accuracy"] for method in COUNTS.values()]
        means = np.array([100 * each["mean"] for each in drawn])
        bounds = [[100 * each[bound] for each in drawn] for bound in ("low", "high")]
        errors = np.abs(np.array(bounds) - means)
        label = f"{shown}: K samples"
        x = aside * np.array(list(COUNTS))
        axes.errorbar(x, means, errors, marker="o", capsize=3, c=colour, label=label)
        limit = 100 * methods[REFERENCE][name]["accuracy"]["mean"]
        axes.axhline(limit, ls="--", c=colour, label=f"{shown}: full posterior (root of mean)")
    axes.set_xscale("log", base=2)
    axes.set(xlabel="samples K a patch", ylabel="accuracy, %")
    axes.set_xticks(list(COUNTS), [str(samples) for samples in COUNTS])
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="lower right")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _score(
    clips: Sequence[Clip], folds: Sequence[int], scorer: Scorer, noise: bool, progress: Progress
) -> Scores:
    """Score what the folds need: every clip as it is, test clips in noise, training copies."""
    jobs: list[tuple[Clip, Augmentation | None]] = [(clip, None) for clip in clips]
    if noise:
        tested = [clip for clip in clips if clip.fold in folds]
        trained = [clip for clip in clips if set(folds) - {clip.fold}]
        jobs += [(clip, change) for change in NOISY.values() for clip in tested]
        jobs += [(clip, change) for change in COPIES for clip in trained]
    scored: Scores = {}
    for done, (clip, change) in enumerate(jobs, 1):
        scored.setdefault(change, {})[clip.path] = scorer.score(clip.path, change)
        progress(STAGES[0], done, len(jobs))
    return scored


def _run_training(
    training: Sequence[Clip],
    scored: Sequence[Scored],
    test: Sequence[Clip],
    conditions: dict[str, list[Scored]],
    seed: int,
) -> Right:
    """Train every baseline on `scored`, a row for each of `training`; test in all `conditions`."""
    results: Right = {}
    for baseline in BASELINES:
        model, _ = clip_baselines.fit(baseline, training, scored, seed)
        results[baseline.name] = {
            name: _right(model, baseline, test, part) for name, part in conditions.items()
        }
        if baseline.name == REFERENCE:
            results[VOTE] = {
                name: _votes_right(model, baseline, test, conditions[name])
                for name in (WHOLE, *NOISY)
                if name in conditions
            }
    return results


def _right(
    model: clip_baselines.Pipeline,
    baseline: Baseline,
    clips: Sequence[Clip],
    scored: Sequence[Scored],
) -> dict[str, float]:
    seeds = SEEDS if baseline.sampled else SEEDS[:1]
    truth = np.array([clip.label for clip in clips])
    right = [
        model.predict(clip_baselines.features(baseline, scored, seed)) == truth for seed in seeds
    ]
    return {str(c.path): float(r) for c, r in zip(clips, np.mean(right, axis=0), strict=True)}


def _votes_right(
    model: clip_baselines.Pipeline,
    baseline: Baseline,
    clips: Sequence[Clip],
    scored: Sequence[Scored],
) -> dict[str, float]:
    votes = [clip_baselines.majority_vote(model, baseline, each, 0) for each in scored]
    return {str(c.path): float(v == c.label) for c, v in zip(clips, votes, strict=True)}


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def _limited(clips: list[Clip], limit: int | None) -> list[Clip]:
    if limit is None:
        return clips
    taken: dict[tuple[str, int], int] = {}
    kept = []
    for clip in clips:
        key = (clip.label, clip.fold)
        taken[key] = taken.get(key, 0) + 1
        if taken[key] <= limit:
            kept.append(clip)
    return kept


def _percent(interval: dict, sign: str = "") -> str:
    return f"{100 * interval['mean']:{sign}.1f}"


def _bounds(interval: dict) -> str:
    return f"{100 * interval['low']:.1f} to {100 * interval['high']:.1f}"
