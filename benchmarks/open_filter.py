"""Open vocabulary, no training: does an HMM filter beat pooling with forgetting?

    .venv/bin/python benchmarks/live_trial.py --corpus CORPUS --out TRIAL
    .venv/bin/python benchmarks/open_filter.py --corpus CORPUS --trial TRIAL

Both smooth YAMNet's own 521 scores and are judged on the trial's scenes through esc50_audioset.csv,
after the ontology rule; a class scores as its best name. Pooling is the shipped `evidence`. The
filter is a hidden Markov model a category, absent or sounding, drawn anew from the prior at the
rate 1 / duration_s. For each fold both are chosen, threshold included, on training scenes of the
other folds (best in-force F1 with at most one false start a minute); nothing is learned. The
smoothing is done here, on the posteriors that the product's front end and model give.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import timeline
from live_trial import DATA, SEED, SNR_DB, read_truth, right_names, scene_name
from quick import QUICK, add_option
from rich.progress import track
from timeline import Scene, Sound

from streamtwl.errors import StreamtwlError
from streamtwl.ontology import vocabulary
from streamtwl.stages import SAMPLE_RATE
from streamtwl.training import datasets, scored_scenes
from streamtwl.training.posteriors import YAMNET, Scorer

HALF_LIVES_S = (0.2, 0.3, 0.5, 0.7)
DURATIONS_S = (0.25, 0.5, 1.0)
PRIORS = (0.02, 0.1)
EXPONENTS = (0.4, 0.7, 1.0)
ONS = (0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4)
OFF_SHARE = 0.5
SPECIFIC_RATIO = 0.2
STARTS_PER_MINUTE = 1.0
CHOOSE_BY = 2 if QUICK else 40  # training scenes
POOLING, FILTER = "pooling", "HMM filter"


def main() -> None:
    """Choose, judge, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True, help="made by tools/corpus.sh")
    parser.add_argument("--trial", type=Path, required=True, help="what live_trial.py wrote")
    parser.add_argument("--data", type=Path, default=DATA, help="the data (../shared/data)")
    parser.add_argument("--fold", type=int, nargs="+", default=[1, 2, 3, 4, 5], help="(all)")
    parser.add_argument("--scenes", type=int, default=20, help="a fold and SNR, as played (20)")
    add_option(parser)
    options = parser.parse_args()
    right = right_names(options.data)
    clips = datasets.load(options.data / "esc10")
    scorer = Scorer()
    received: dict[str, list[Scene]] = {POOLING: [], FILTER: []}
    groups, chosen = [], []
    for fold in track(options.fold, "folds"):
        fit, _, _ = scored_scenes.materials(clips, options.corpus, fold)
        made = scored_scenes.make_training_scenes(
            fit, CHOOSE_BY, [SEED, fold, 0], scorer, lambda *_: None
        )
        training = [each.reading(scorer, [(YAMNET, "posterior")]) for each in made]
        test = []
        for number, snr_db in itertools.product(range(options.scenes), SNR_DB):
            name = scene_name(fold, number, snr_db)
            truth, duration_s = read_truth(options.trial / "scenes" / name)
            scored = scorer.score(options.trial / "scenes" / f"{name}.flac")
            ends = scored_scenes.positions(len(scored.posteriors), scorer.hop_s, duration_s)
            test.append(scored_scenes.ScoredScene(name, duration_s, ends, scored.posteriors, truth))
            groups.append((fold, number))
        for method, settings in ((POOLING, pools()), (FILTER, filters())):
            setting, on = choose(training, right, list(settings))
            chosen.append({"fold": fold, "method": method, **setting, "on": on})
            received[method] += [scene_of(each, right, setting, on) for each in test]
    counts = {
        method: np.array([timeline.agreement(scene) for scene in scenes])
        for method, scenes in received.items()
    }
    result: dict = {"chosen": chosen}
    for method, scenes in received.items():
        minutes = sum(scene.duration_s for scene in scenes) / 60
        f1 = timeline.bootstrap(counts[method], timeline.f1, groups)
        starts = sum(map(timeline.false_starts, scenes)) / minutes
        result[method] = {"f1": f1.mean, "false_starts_per_minute": starts}
        print(
            f"{method}: in-force F1 {f1.mean:.3f} ({f1.low:.3f} to {f1.high:.3f}), "
            f"{starts:.2f} false starts a minute"
        )
    more = timeline.bootstrap_paired(counts[FILTER], counts[POOLING], timeline.f1, groups)
    result["difference"] = [more.mean, more.low, more.high]
    print(f"{FILTER} minus {POOLING}: {more.mean:+.3f} ({more.low:+.3f} to {more.high:+.3f})")
    for each in chosen:
        print(each)
    (options.trial / "open_filter.json").write_text(json.dumps(result, indent=2) + "\n")


def pools() -> Iterator[dict[str, float]]:
    """Yield the settings of pooling that are tried."""
    for half_life_s in HALF_LIVES_S:
        yield {"half_life_s": half_life_s}


def filters() -> Iterator[dict[str, float]]:
    """Yield the settings of the filter that are tried."""
    for duration_s, prior, exponent in itertools.product(DURATIONS_S, PRIORS, EXPONENTS):
        yield {"duration_s": duration_s, "prior": prior, "exponent": exponent}


def choose(
    training: list[scored_scenes.ScoredScene],
    right: dict[str, frozenset[str]],
    settings: list[dict[str, float]],
) -> tuple[dict[str, float], float]:
    """Return the (setting, threshold) with the best F1 among those with few false starts."""
    minutes = sum(each.duration_s for each in training) / 60
    best: tuple[bool, float, dict[str, float], float] = (False, -1e9, {}, 0.0)
    for setting in settings:
        quiet = [scene_of(each, right, setting, 2.0) for each in training]
        for on in ONS:
            scenes = [timeline.retrack(scene, on, OFF_SHARE * on) for scene in quiet]
            starts = sum(map(timeline.false_starts, scenes)) / minutes
            counts = np.array([timeline.agreement(scene) for scene in scenes]).sum(axis=0)
            few = starts <= STARTS_PER_MINUTE
            best = max(
                best,
                (few, float(timeline.f1(counts)) if few else -starts, setting, on),
                key=lambda each: each[:2],
            )
    return best[2], best[3]


def scene_of(
    stream: scored_scenes.ScoredScene,
    right: dict[str, frozenset[str]],
    setting: dict[str, float],
    on: float,
) -> Scene:
    """Return what would be received of a stream; with a threshold over 1, its scores alone."""
    names, labels = vocabulary("all"), sorted(right)
    columns = [[names.labels.index(n) for n in right[c] if n in names.labels] for c in labels]
    smoothed = pooled if "half_life_s" in setting else filtered
    scores = np.zeros((len(stream.positions), len(labels)), np.float32)
    for row, posterior in zip(
        scores, smoothed(stream.rows.astype(np.float32), stream.positions, **setting), strict=True
    ):
        specific = names.most_specific(names.scores(posterior), SPECIFIC_RATIO)
        row[:] = [specific[column].max(initial=0) for column in columns]
    truth: list[Sound] = stream.truth
    scene = Scene(
        name=stream.name,
        duration_s=stream.duration_s,
        truth=truth,
        events=[],
        positions=stream.positions,
        times_s=stream.positions / SAMPLE_RATE,
        scores=scores,
        labels=labels,
        named=[None] * len(scores),
    )
    return scene if on > 1 else timeline.retrack(scene, on, OFF_SHARE * on)


def pooled(posteriors: np.ndarray, ends: np.ndarray, half_life_s: float) -> Iterator[np.ndarray]:
    """Yield float32[C] after each patch, as `reasoners/evidence.py` pools them."""
    mean = posteriors[0]
    elapsed_s = np.diff(ends, prepend=0) / SAMPLE_RATE
    for posterior, gone_s in zip(posteriors, elapsed_s, strict=True):
        kept = np.float32(0.5 ** (gone_s / half_life_s))
        mean = kept * mean + (1 - kept) * posterior
        yield mean


def filtered(
    posteriors: np.ndarray, ends: np.ndarray, duration_s: float, prior: float, exponent: float
) -> Iterator[np.ndarray]:
    """Yield float32[C] after each patch: the probability that each category sounds."""
    belief = np.full(posteriors.shape[1], prior, np.float32)
    weighted_odds = exponent * (log_odds(posteriors) - log_odds(np.float32(prior)))
    for odds, elapsed_s in zip(weighted_odds, np.diff(ends, prepend=0) / SAMPLE_RATE, strict=True):
        predicted = prior + np.float32(np.exp(-elapsed_s / duration_s)) * (belief - prior)
        belief = 1 / (1 + np.exp(-(log_odds(predicted) + odds)))
        yield belief


def log_odds(probability: np.ndarray | np.float32) -> np.ndarray:
    """Return log(p / (1 - p)), p kept off 0 and 1."""
    clipped = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.log(clipped / (1 - clipped))


if __name__ == "__main__":
    try:
        main()
    except StreamtwlError as error:
        sys.exit(f"open_filter.py: {error}")
