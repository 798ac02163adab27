"""`streamtwl evaluate`: whole clips and their beginnings, every baseline, every fold."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from streamtwl.errors import UsageError
from streamtwl.evaluation import baselines, compare, datasets
from streamtwl.evaluation.baselines import BASELINES, Baseline
from streamtwl.evaluation.datasets import Clip
from streamtwl.evaluation.posteriors import Scored, Scorer, prefixes

PREFIXES = (1, 2, 3, 5, 9)  # patches heard
WHOLE = "whole clip"
REFERENCE = "LR, root of mean posterior"  # what the others are compared with
VOTE = "majority vote, LR on patches"
SEEDS = (0, 1, 2, 3, 4)  # of the draws

STAGES = ("scoring clips", "folds")
Progress = Callable[[str, int, int], None]  # (what, done, of)


def evaluate(
    folder: Path,
    out: Path,
    progress: Progress,
    folds: Sequence[int] = (),
    limit: int | None = None,
    hop_s: float = 0.48,
) -> dict:
    """Run every baseline on every fold; write results.json, table.md and plot.png into `out`.

    A fold that `out` holds already is not run again. `limit` takes so many clips of each class and
    fold, for a quick look. Returns what results.json holds.
    """
    clips = _limited(datasets.load(folder), limit)
    wanted = sorted(set(folds) or {clip.fold for clip in clips})
    unknown = set(wanted) - {clip.fold for clip in clips}
    if unknown:
        raise UsageError(f"no fold {sorted(unknown)[0]} in {folder}")
    out.mkdir(parents=True, exist_ok=True)
    scorer = Scorer(hop_s=hop_s)
    scored = {}
    for done, clip in enumerate(clips, 1):
        scored[clip.path] = scorer.score(clip.path)
        progress(STAGES[0], done, len(clips))
    asked = _digest(clips, hop_s, [baseline.name for baseline in BASELINES])
    by_clip: dict[str, dict[str, dict[str, float]]] = {}  # method, heard, clip: share right
    for done, fold in enumerate(wanted, 1):
        kept = out / f"fold-{fold}-{asked}.json"
        if not kept.exists():
            partial = kept.with_suffix(".partial")
            partial.write_text(json.dumps(run_fold(clips, scored, fold)))
            partial.rename(kept)
        for method, heard in json.loads(kept.read_text()).items():
            for name, right in heard.items():
                by_clip.setdefault(method, {}).setdefault(name, {}).update(right)
        progress(STAGES[1], done, len(wanted))
    results = summarise(by_clip, {str(clip.path): clip.source for clip in clips})
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    (out / "table.md").write_text(markdown(results))
    plot(results, out / "plot.png")
    return results


def run_fold(
    clips: Sequence[Clip], scored: dict[Path, Scored], fold: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Return, for each method and how much was heard, each test clip's share of right answers."""
    training, test = datasets.split(clips, fold)
    results: dict[str, dict[str, dict[str, float]]] = {}
    for baseline in BASELINES:
        heard = results[baseline.name] = {}
        patches = [scored[clip.path] for clip in test]
        model, _ = baselines.fit(baseline, training, [scored[c.path] for c in training], fold)
        for name, part in [(WHOLE, patches)] + [(str(n), prefixes(patches, n)) for n in PREFIXES]:
            heard[name] = _right(model, baseline, test, part)
        if baseline.name == REFERENCE:
            votes = [baselines.majority_vote(model, baseline, each, 0) for each in patches]
            right = (vote == clip.label for vote, clip in zip(votes, test, strict=True))
            results[VOTE] = {
                WHOLE: {str(c.path): float(r) for c, r in zip(test, right, strict=True)}
            }
    return results


def summarise(by_clip: dict[str, dict[str, dict[str, float]]], source: dict[str, str]) -> dict:
    """Return accuracy and its interval, and the comparison with the reference, of each method."""
    results: dict = {"reference": REFERENCE, "methods": {}}
    for method, heard in by_clip.items():
        rows = results["methods"][method] = {}
        for name, right in heard.items():
            paths = sorted(right)
            values = np.array([right[path] for path in paths])
            sources = [source[path] for path in paths]
            rows[name] = {"accuracy": asdict(compare.mean_interval(values, sources))}
            reference = by_clip[REFERENCE].get(name)
            if reference is not None and method != REFERENCE:
                other = np.array([reference[path] for path in paths])
                rows[name]["against_reference"] = asdict(compare.paired(values, other, sources))
    return results


def markdown(results: dict) -> str:
    """Return the table: accuracy in per cent, and the difference from the reference."""
    heard = [WHOLE, *map(str, PREFIXES)]
    lines = [
        f"| method | {WHOLE} | against {results['reference']}: difference, only it, only ref. | "
        + " | ".join(f"{n} patches" for n in heard[1:])
        + " |",
        "|" + " --- |" * (len(heard) + 2),
    ]
    for method, rows in results["methods"].items():
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
        cells += [_percent(rows[n]["accuracy"]) if n in rows else "" for n in heard[1:]]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(results: dict, path: Path) -> None:
    """Draw accuracy over the patches heard."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for method, rows in results["methods"].items():
        if all(str(n) in rows for n in PREFIXES):
            means = [100 * rows[str(n)]["accuracy"]["mean"] for n in PREFIXES]
            axes.plot(PREFIXES, means, marker="o", label=method)
    axes.set(xlabel="patches heard", ylabel="accuracy, %", xticks=PREFIXES)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _right(
    model: baselines.Pipeline, baseline: Baseline, clips: Sequence[Clip], scored: Sequence[Scored]
) -> dict[str, float]:
    seeds = SEEDS if baseline.sampled else SEEDS[:1]
    truth = np.array([clip.label for clip in clips])
    right = [model.predict(baselines.features(baseline, scored, seed)) == truth for seed in seeds]
    return {str(c.path): float(r) for c, r in zip(clips, np.mean(right, axis=0), strict=True)}


def _digest(*asked: object) -> str:
    return hashlib.sha256(repr(asked).encode()).hexdigest()[:12]


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
