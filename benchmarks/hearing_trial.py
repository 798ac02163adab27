"""The live trial, offline, on more than YAMNet's posterior: is a second backbone worth its time?

    tools/corpus.sh CORPUS
    .venv/bin/python benchmarks/hearing_trial.py --corpus CORPUS --out TRIAL

For each fold of ESC-10, on the scenes of `live_trial.py` (training, validation and test): all
WINDOWS are scored as in the live path; on each of VARIANTS a linear read-out of single patches is
fitted, and on its scores the moving average, the HMM filter and the HMM smoother of
`timeline_baselines.py`, with penalties, settings and thresholds chosen on validation scenes. Events
are judged in force, by a middle of the window and a latency as in `live_trial.py`, and all are
compared with YAMNET's HMM filter of this run. The hour of background is read by the models of all
folds: events in it as set, and at the recall that YAMNET's HMM filter has as set.

PIPELINES read the test scenes, too: how often does the label in force change, from a sound's onset
to its offset, the first naming included, while nothing else sounds?

TRIAL keeps scored patches and fitted models: what is there is not computed again. The tables and
figures go to --results, as .json and .md. About an hour for all folds on two cores; --fold and
--scenes make it less. Needs the weights of mn04 (`streamtwl models list`).
"""

import argparse
import functools
import hashlib
import itertools
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pool as pools
import score
import timeline
import timeline_baselines
import torch
import trial_training
from pool import SPAWN
from quick import add_option
from rich.progress import Progress
from score import Played
from timeline_baselines import SMOOTHER
from trial_judging import LATENCY_MS, decide_offline
from trial_methods import DATA, SEED, SNR_DB, scene_name, slug
from trial_sounds import Sounds

from streamtwl import config
from streamtwl.errors import StreamtwlError
from streamtwl.pipeline import hearing
from streamtwl.reasoners import choice, reads
from streamtwl.reasoners.reads import Read
from streamtwl.stages import SAMPLE_RATE, Patch, Score, Window
from streamtwl.training import datasets, fitting, scenes, scored_scenes, training_scenes
from streamtwl.training import train as training
from streamtwl.training.fitting import FILTER, SceneArrays
from streamtwl.training.posteriors import Scorer, keep
from streamtwl.training.scored_scenes import ScoredScene

WINDOWS = training.WINDOWS  # of training and validation scenes
TEST_WINDOWS = (*WINDOWS, "mn04:3")  # the shipped pipelines read the last one
YAMNET = "YAMNet's posterior"
VARIANTS: dict[str, list[Read]] = {
    YAMNET: [("yamnet:0.96", "posterior")],
    "both backbones": reads.of_windows(WINDOWS),  # what `streamtwl train` reads
}
METHODS = (timeline_baselines.AVERAGE, FILTER, SMOOTHER)
PIPELINES = ("default", "evidence", "yamnet")
PARTS = training_scenes.PARTS


class Judged(TypedDict):
    """What one variant gave in one fold; a file of the trial."""

    played: dict[str, list[Played]]  # by method
    background: dict[str, Played]
    swept: list[tuple[float, int, int]]  # the HMM filter's threshold, sounds found, events where
    # there is background alone
    settings: dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class Trial:
    """What is on trial, and where things are."""

    data: Path
    corpus: Path
    out: Path
    scenes: int  # a fold, each at every SNR
    minutes: float  # of background

    def training_scenes(self, fold: int, part: int) -> list[ScoredScene]:
        """Return the scenes of one of PARTS to fit, or with PARTS those to choose by, scored.

        The same as `training_scenes.prepare` makes for `live_trial.py`.
        """
        clips = datasets.load(self.data / "esc10")
        to_fit, material, _ = scored_scenes.materials(clips, self.corpus, fold, SEED)
        if part < PARTS:
            material = scored_scenes.by_source(to_fit, PARTS, SEED)[part]
        return scored_scenes.make_training_scenes(
            material,
            scored_scenes.TRAINING_SCENES if part < PARTS else scored_scenes.VALIDATION_SCENES,
            [SEED, fold, part],
            scorer(WINDOWS, self.out),
            lambda *_: None,
            crop=part < PARTS,
        )

    def test_scenes(self, fold: int) -> list[tuple[int, int, ScoredScene]]:
        """Return (number, SNR, scene) of the test scenes that `live_trial.py` makes, scored."""
        parts = scenes.read_parts([c for c in datasets.load(self.data / "esc10") if c.fold == fold])
        packages = scenes.read_pieces(self.corpus)
        made = []
        for number in range(self.scenes):
            rng = np.random.default_rng([SEED, fold, number])
            plan = scenes.plan_scene(rng, parts, packages, scored_scenes.SCENE_S)
            for snr_db in SNR_DB:
                name = scene_name(fold, number, snr_db)
                scored = scored_scenes.score_scene(
                    name, plan, snr_db, scorer(TEST_WINDOWS, self.out)
                )
                made.append((number, snr_db, scored))
        return made

    def background(self) -> ScoredScene:
        """Return the background that `live_trial.py` plays, scored."""
        seconds, with_all = 60 * self.minutes, scorer(TEST_WINDOWS, self.out)
        packages = scenes.read_pieces(self.corpus)
        versions = [(f, f.stat().st_size, f.stat().st_mtime_ns) for p in packages for f in p]
        key = hashlib.sha256(f"{versions}/{seconds}/{SEED}/{with_all.key}".encode()).hexdigest()
        kept = with_all.folder / f"background-{key}.npy"
        if not kept.exists():
            rng = np.random.default_rng([SEED, 0])
            samples = scenes.make_background_scene(rng, packages, seconds)
            keep(with_all.score_samples(samples / np.float32(32768)).astype(np.float16), kept)
        rows = np.load(kept)
        ends = scored_scenes.positions(len(rows), with_all.hop_s, seconds)
        return ScoredScene("background", seconds, ends, rows, [])


def main() -> None:
    """Score, fit, judge, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--corpus", type=Path, required=True, help="made by tools/corpus.sh")
    add("--out", type=Path, required=True, help="folder for patches and models (4 GB)")
    add("--data", type=Path, default=DATA, help="esc10/ and esc50_audioset.csv (../shared/data)")
    add("--fold", type=int, nargs="+", default=[1, 2, 3, 4, 5], help="test folds (all)")
    add("--scenes", type=int, default=20, help="a fold, each at every SNR (20)")
    add("--minutes", type=float, default=60, help="of background (60)")
    add("--jobs", type=int, default=2, help="processes (2)")
    add("--results", type=Path, help="hearing_trial.json and .md go to this folder, too")
    add_option(parser)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    trial = Trial(options.data, options.corpus, options.out, options.scenes, options.minutes)
    with Progress() as progress, ProcessPoolExecutor(options.jobs, SPAWN) as pool:
        tasks = [functools.partial(*task) for task in tasks_of(trial, options.fold)]
        pools.run(pool, progress, "scoring and fitting", tasks)
    results = figures(trial, options.fold)
    tables = markdown(results)
    if options.results:
        written = json.dumps(results, indent=1) + "\n"
        (options.results / "hearing_trial.json").write_text(written)
        (options.results / "hearing_trial.md").write_text(tables)
    print(tables)


def tasks_of(trial: Trial, folds: Sequence[int]) -> list[tuple[Any, ...]]:
    """Return functions with their arguments: a fold is fitted while the next one is scored."""
    scoring, fitted = [], []
    for fold in folds:
        parts = [(score_training, trial, fold, part) for part in range(PARTS + 1)]
        scoring.append([*parts, (score_test, trial, fold)])
        changed = [(count_changes, trial, fold, pipeline) for pipeline in PIPELINES]
        fitted.append([*((fit, trial, fold, variant) for variant in reversed(VARIANTS)), *changed])
    ahead = itertools.zip_longest(scoring, [[], *fitted], fillvalue=[])
    return [task for pair in ahead for tasks in pair for task in tasks]


def scorer(windows: tuple[str, ...], out: Path) -> Scorer:
    """Return this process's scorer."""
    return trial_training.scorer(windows, out / "patches")


def score_training(trial: Trial, fold: int, part: int) -> None:
    """Fill the cache."""
    trial.training_scenes(fold, part)


def score_test(trial: Trial, fold: int) -> None:
    """Fill the cache."""
    trial.test_scenes(fold)
    trial.background()


def fit(trial: Trial, fold: int, variant: str) -> None:
    """Fit a variant's methods for a test fold, judge them on its scenes, keep what comes of it."""
    kept = trial.out / f"fold{fold}-{slug(variant)}.pt"
    if kept.exists():
        return
    scored_by, labels = scorer(TEST_WINDOWS, trial.out), Sounds(trial.data, "esc10").labels
    wanted = VARIANTS[variant]  # whose columns are the same with fewer windows

    def read(part: int) -> SceneArrays:
        made = [each.reading(scored_by, wanted) for each in trial.training_scenes(fold, part)]
        return fitting.arrays(made, labels, scored_by.is_posterior(wanted))

    to_fit = fitting.joined([read(part) for part in range(PARTS)])
    chosen = timeline_baselines.fit_timeline(
        to_fit, read(PARTS), SEED, lambda _: None, names=METHODS
    )
    del to_fit

    def play(method: str, number: int, snr_db: int, scored: ScoredScene) -> Played:
        one = chosen[method]
        scene = decide_offline(
            scored.reading(scored_by, wanted), one, labels, method == timeline_baselines.SMOOTHER
        )
        return Played(fold, number, snr_db, scene, one.off / one.on)

    with torch.no_grad():
        tests, background = trial.test_scenes(fold), trial.background()
        played = {method: [play(method, *each) for each in tests] for method in METHODS}
        of_background = {method: play(method, 0, 0, background) for method in METHODS}
    judged: Judged = {
        "played": played,
        "background": of_background,
        "swept": sweep(played[FILTER], of_background[FILTER]),
        "settings": {
            method: {"on": one.on, "off": one.off, "validation_f1": one.in_force_f1, **one.setting}
            for method, one in chosen.items()
        },
    }
    torch.save(judged, kept)


def sweep(played: Sequence[Played], background: Played) -> list[tuple[float, int, int]]:
    """Return (threshold, sounds found, events in the background) at all thresholds."""

    def again(each: Played, on: float) -> timeline.Scene:
        return timeline.retrack(each.scene, on, each.off_share * on)

    return [
        (
            on,
            sum(timeline.found(again(each, on)) for each in played),
            timeline.count_events(again(background, on)),
        )
        for on in score.ONS
    ]


def count_changes(trial: Trial, fold: int, pipeline: str) -> None:
    """Count changes of the label in force of a shipped pipeline, for each sound that is alone."""
    kept = trial.out / f"fold{fold}-{pipeline}.json"
    if kept.exists():
        return
    settings = config.load(config.find(pipeline))
    columns = scorer(TEST_WINDOWS, trial.out).columns
    backbones, kinds = hearing(settings)
    right = Sounds(trial.data, "esc10").right_names
    tests = trial.test_scenes(fold)
    names = [scored.name for _, _, scored in tests]
    reasoner = choice.make(settings, choice.load(settings), backbones, kinds, names)
    found: dict[str, list] = {f"{at}": [] for at in SNR_DB}
    for stream, (_, snr_db, scored) in enumerate(tests):
        named: list[str | None] = []
        for position, row in zip(scored.positions, scored.rows, strict=True):
            window = Window(stream, int(position), 0, not named, (), 0.0, None, 0.0)
            none = np.empty(0, np.float32)
            read = tuple(
                Score(
                    kind.name,
                    kind.length_s,
                    row[columns[kind.name, "posterior"]].astype(np.float32),
                    none,
                )
                for kind in kinds
            )
            named.append(reasoner.step([Patch(window, read)])[0].label)
        found[f"{snr_db}"] += [
            changes(named, scored, sound, right[sound.label])
            for sound in scored.truth
            if is_alone(sound, scored.truth)
        ]
    kept.write_text(json.dumps(found) + "\n")


def is_alone(sound: scored_scenes.Sound, truth: Sequence[scored_scenes.Sound]) -> bool:
    """Whether no other sound overlaps."""
    return not any(
        each is not sound and each.onset_s < sound.offset_s and each.offset_s > sound.onset_s
        for each in truth
    )


def changes(
    named: Sequence[str | None],
    scored: ScoredScene,
    sound: scored_scenes.Sound,
    right: frozenset[str],
) -> dict[str, int]:
    """Return changes of the label in force while a sound sounds.

    "name": any; "rightness": between names that are right for the sound, that are not, and none;
    "named": whether a right name is in force at some moment of it.
    """
    at_s = scored.positions / SAMPLE_RATE + LATENCY_MS / 1000
    inside = np.flatnonzero((at_s > sound.onset_s) & (at_s <= sound.offset_s))
    pairs = [(named[i - 1] if i else None, named[i]) for i in inside]

    def kind(name: str | None) -> str | None:
        return None if name is None else "right" if name in right else "wrong"

    return {
        "name": sum(before != after for before, after in pairs),
        "rightness": sum(kind(before) != kind(after) for before, after in pairs),
        "named": int(any("right" in (kind(before), kind(after)) for before, after in pairs)),
    }


def figures(trial: Trial, folds: Sequence[int]) -> dict[str, Any]:
    """Return all figures of these folds."""
    judged = {
        variant: [
            torch.load(trial.out / f"fold{fold}-{slug(variant)}.pt", weights_only=False)
            for fold in folds
        ]
        for variant in VARIANTS
    }
    to_beat = played_of(judged[YAMNET], FILTER)
    sounds = sum(len(each.scene.truth) for each in to_beat)
    recall = sum(timeline.found(each.scene) for each in to_beat) / sounds
    return {
        "folds": [*folds],
        "scenes": trial.scenes,
        "background_minutes": trial.minutes,
        "recall": recall,
        "variants": {
            variant: {
                "methods": {
                    method: in_force(played_of(of_folds, method), to_beat) for method in METHODS
                },
                "background": in_background(of_folds, trial.minutes / 60, recall * sounds),
                "settings": [each["settings"] for each in of_folds],
            }
            for variant, of_folds in judged.items()
        },
        "changes": {pipeline: changes_of(trial, folds, pipeline) for pipeline in PIPELINES},
    }


def played_of(judged: Sequence[Judged], method: str) -> list[Played]:
    """Return all folds' scenes by a method."""
    return [played for each in judged for played in each["played"][method]]


def in_force(played: Sequence[Played], to_beat: Sequence[Played]) -> dict[str, dict[str, Any]]:
    """Return by SNR the in-force F1, what it has more than `to_beat`, false starts a minute."""
    found = {}
    for snr_db in SNR_DB:
        ours, theirs = ([p for p in side if p.snr_db == snr_db] for side in (played, to_beat))
        groups = [(each.fold, each.number) for each in ours]
        a, b = (
            np.array([timeline.agreement(each.scene) for each in side]) for side in (ours, theirs)
        )
        starts = sum(timeline.false_starts(each.scene) for each in ours)
        found[f"{snr_db}"] = {
            "f1": asdict(timeline.bootstrap(a, timeline.f1, groups)),
            "more": asdict(timeline.bootstrap_paired(a, b, timeline.f1, groups)),
            "false_starts_per_minute": starts / sum(each.scene.duration_s for each in ours) * 60,
        }
    return found


def in_background(judged: Sequence[Judged], hours: float, enough: float) -> dict[str, Any]:
    """Return events an hour of background, the mean of the folds' models.

    "as_set"; "at_recall": at the highest threshold, one for all folds, that finds `enough` sounds.
    """
    per = len(judged) * hours
    at_recall = None
    for swept in sorted(zip(*(one["swept"] for one in judged), strict=True), reverse=True):
        on, _, _ = swept[0]
        if sum(found for _, found, _ in swept) >= enough:
            at_recall = {"on": on, "events": sum(events for _, _, events in swept) / per}
            break
    played = [each["background"] for each in judged]
    as_set = {
        method: sum(timeline.count_events(each[method].scene) for each in played) / per
        for method in METHODS
    }
    found = sum(timeline.found(each.scene) for each in played_of(judged, FILTER))
    return {"as_set": as_set, "found": found, "at_recall": at_recall}


def changes_of(trial: Trial, folds: Sequence[int], pipeline: str) -> dict[str, Any]:
    """Return by SNR how often the label in force changes while one sound sounds."""
    files = [trial.out / f"fold{fold}-{pipeline}.json" for fold in folds]
    by_fold = [json.loads(file.read_text()) for file in files]
    found = {}
    for snr_db in by_fold[0]:
        sounds = [sound for of_fold in by_fold for sound in of_fold[snr_db]]
        found[snr_db] = {"sounds": len(sounds)} | {
            what: {
                "median": float(np.median([sound[what] for sound in sounds])),
                "mean": float(np.mean([sound[what] for sound in sounds])),
                "at_most_once": float(np.mean([sound[what] <= 1 for sound in sounds])),
            }
            for what in ("name", "rightness", "named")
        }
    return found


def markdown(results: dict[str, Any]) -> str:
    """Return the tables."""
    at = [f"{snr_db}" for snr_db in SNR_DB]
    lines = [
        "# More than YAMNet's posterior: the live trial, offline",
        "",
        f"ESC-10, test folds {', '.join(map(str, results['folds']))}, {results['scenes']} scenes "
        f"each at every SNR, {results['background_minutes']:g} minutes of background read by each "
        "fold's models: `benchmarks/hearing_trial.py --corpus CORPUS --out TRIAL`. Intervals "
        "(95 %) are bootstraps over scenes; differences are paired, from YAMNet's HMM filter.",
        "",
        "## In-force F1",
        "",
        "| reads | method | " + " | ".join(f"{snr_db} dB | more" for snr_db in at) + " |",
        "| --- | --- |" + " --- | --- |" * len(at),
    ]
    for variant, found in results["variants"].items():
        for method, by_snr in found["methods"].items():
            cells = [
                f"{interval(by_snr[s]['f1'])} | {interval(by_snr[s]['more'], '+')}" for s in at
            ]
            lines.append(f"| {variant} | {method} | {' | '.join(cells)} |")
    lines += [
        "",
        "## Events in an hour of background",
        "",
        f"HMM filter; at a recall of {results['recall']:.1%}, which the one on YAMNet's posterior "
        "has as set: at one threshold for all folds.",
        "",
        "| reads | as set | at that recall | false starts a minute of scene: "
        + ", ".join(f"{snr_db} dB" for snr_db in at)
        + " |",
        "| --- | --- | --- | --- |",
    ]
    for variant, found in results["variants"].items():
        background, by_snr = found["background"], found["methods"][FILTER]
        at_recall = background["at_recall"]
        starts = ", ".join(f"{by_snr[s]['false_starts_per_minute']:.1f}" for s in at)
        events = f"{at_recall['events']:.1f}" if at_recall else "not reached"
        lines.append(f"| {variant} | {background['as_set'][FILTER]:.1f} | {events} | {starts} |")
    lines += [
        "",
        "## Changes of the label in force while one sound sounds",
        "",
        "The shipped pipelines with all of AudioSet's names, over sounds that no other overlaps, "
        "from onset to offset, the first naming included: any change of the name; changes between "
        "names that are right, names that are not, and none; sounds with a right name in force at "
        "some moment.",
        "",
        "| pipeline | SNR | sounds | changes of the name: median, mean, at most one | of "
        "rightness: median, mean, at most one | named |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for pipeline, by_snr in results["changes"].items():
        for snr_db, found in by_snr.items():
            name, rightness = (
                f"{each['median']:g}, {each['mean']:.2f}, {each['at_most_once']:.0%}"
                for each in (found["name"], found["rightness"])
            )
            lines.append(
                f"| {pipeline} | {snr_db} dB | {found['sounds']} | {name} | {rightness} | "
                f"{found['named']['mean']:.0%} |"
            )
    return "\n".join(lines) + "\n"


def interval(of: dict[str, float], sign: str = "") -> str:
    """Return a figure and its interval."""
    mean, low, high = (f"{of[key]:{sign}.3f}" for key in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


if __name__ == "__main__":
    try:
        main()
    except StreamtwlError as error:
        sys.exit(f"hearing_trial.py: {error}")
