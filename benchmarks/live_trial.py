"""The live trial: scenes through `streamtwl listen`, judged by what a ZeroMQ subscriber received.

    tools/corpus.sh CORPUS
    .venv/bin/python benchmarks/live_trial.py --corpus CORPUS --out TRIAL

For each fold of ESC-10, or with --sounds kitchen20 for its one split, every baseline, and the GPT-2
with each training seed, is trained on scenes of the other folds and the corpus's training side,
with all choices made on scenes of a validation split (`timeline_baselines.py`); 20 scenes of 2
minutes at 20, 10 and 5 dB, and an hour of background, from the fold and the corpus's test side, are
played through the product by each of them. Every decision is charged the same lateness. All read
what `streamtwl train` reads (`training.WINDOWS`; without mn04's weights YAMNet's posteriors alone),
and the HMM filter and the smoother YAMNet's posteriors alone as well. The smoothers, which see the
future, are the bounds; they alone do not go through the product. DATED and the GPT-2's first
decisions are also judged with their events dated back (`date`): revisions have to be worth more
than that. The open vocabulary is played on the same scenes and judged through the right names of
the classes: its events of other sounds are not judged. TAUGHT is `streamtwl teach` with five clips
a class of the training folds, where the others are trained on all of them.

TRIAL/results.json, tables.md and plot.png hold the result; what TRIAL holds already is not run
again. About two hours on two cores; --fold and --scenes make it less.
"""

import argparse
import csv
import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pool as pools
import score
import soundfile
import timeline
import timeline_baselines
import torch
import trial
from pool import SPAWN
from quick import QUICK, add_option
from rich.progress import Progress
from score import Played
from timeline import Scene, Sound
from trial_sounds import FOLDS, Sounds

import streamtwl
from streamtwl.errors import SinkError, StreamtwlError
from streamtwl.messages import AnyMessage, Event, Label, Scored
from streamtwl.reasoners import graph, reads
from streamtwl.reasoners.card import Card
from streamtwl.sounds.store import Store
from streamtwl.stages import SAMPLE_RATE
from streamtwl.training import (
    fitting,
    scenes,
    scored_scenes,
    steps,
    trace_model,
    trace_reasoner,
    training_scenes,
)
from streamtwl.training import train as training
from streamtwl.training.fitting import SceneArrays
from streamtwl.training.posteriors import YAMNET, Scorer
from streamtwl.training.recipe import Recipe
from streamtwl.training.targets import Targets

DATA = Path(__file__).parents[2] / "shared" / "data"
COMMAND = "benchmarks/live_trial.py"
SNR_DB = (10,) if QUICK else (20, 10, 5)
SEED = 1
BASELINES = (
    *(
        timeline_baselines.TOP,
        timeline_baselines.AVERAGE,
        fitting.FILTER,
        timeline_baselines.LAGGED,
        timeline_baselines.GRU,
    ),
)
OF_YAMNET = {  # the same on YAMNet's posteriors alone
    method: f"{method}, YAMNet alone" for method in (fitting.FILTER, timeline_baselines.SMOOTHER)
}
SMOOTHERS = (timeline_baselines.SMOOTHER, OF_YAMNET[timeline_baselines.SMOOTHER])
GPT2 = "GPT-2"
EPOCHS = 1 if QUICK else Recipe().epochs
SEEDS = () if QUICK else (2, 3)
GPT2_RECIPES = {
    GPT2: Recipe(seed=SEED, epochs=EPOCHS),
    **{f"{GPT2}, training seed {seed}": Recipe(seed=seed, epochs=EPOCHS) for seed in SEEDS},
}
TAUGHT = "taught by five clips a sound"
TAUGHT_CLIPS = 5  # a class, of the training folds, each of another recording
FALSE_ALARMS = 24  # a day, as `teach` promises them
LIVE = (*BASELINES, OF_YAMNET[fitting.FILTER], *GPT2_RECIPES, TAUGHT)
OPEN = {"open, evidence": ["--reasoner", "evidence", "--labels", "all"]}
DATED = (
    timeline_baselines.AVERAGE,
    fitting.FILTER,
    timeline_baselines.GRU,
    timeline_baselines.SMOOTHER,
)
FIRST_DECISIONS = f"{GPT2}'s first decisions, by the filter's dates"
DATES_S = tuple(round(0.12 * i, 2) for i in range(9))  # beyond the middle of the window
OFF_SHARE = 0.5  # of the shipped pipeline
BACKGROUND = "background"
LATENCY_MS = 5.0  # charged to all: the median of one live source, by benchmarks/latency.py
BACKGROUND_FOLDS = 2  # whose models are run on it


def main() -> None:
    """Train, play, judge, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--corpus", type=Path, required=True, help="made by tools/corpus.sh")
    add("--out", type=Path, required=True, help="folder for models, scenes, messages and results")
    add(
        "--data",
        type=Path,
        default=DATA,
        help="esc10/, kitchen20/ and esc50_audioset.csv (../shared/data)",
    )
    add("--sounds", choices=sorted(FOLDS), default="esc10", help="the data set (esc10)")
    add("--fold", type=int, nargs="+", help="test folds (all; kitchen20 has one, 6: its 6 to 9)")
    add("--scenes", type=int, default=20, help="a fold, each at every SNR (20)")
    add("--minutes", type=float, default=60, help="of background (60)")
    add("--jobs", type=int, default=2, help="processes (2)")
    add_option(parser)
    options = parser.parse_args()
    sounds = Sounds(options.data, options.sounds)
    folds = options.fold or sounds.folds
    options.out.mkdir(parents=True, exist_ok=True)
    train = functools.partial(train_fold, sounds, options.corpus, options.out)
    read = functools.partial(train_trace_model, sounds, options.corpus, options.out)
    render = functools.partial(
        make_scenes, sounds, options.corpus, options.out, options.scenes, options.minutes
    )
    judging = functools.partial(judge, options.out, sounds, folds, options.scenes)
    with Progress() as progress, ProcessPoolExecutor(options.jobs, SPAWN) as pool:

        def run(what: str, work: Callable[..., Any], prepared: Iterable[Any]) -> list[Any]:
            tasks = [functools.partial(work, each) for each in prepared]
            return pools.run(pool, progress, what, tasks)

        run("baselines", train, folds)
        run("GPT-2", read, [(name, fold) for fold in folds for name in GPT2_RECIPES])
        run("teaching", functools.partial(teach, sounds, options.out), folds)
        run("scenes", render, [0, *folds])
        run("playing", functools.partial(keep, options.out, options.scenes), plays(folds))
        judged = run("judging", judging, [*LIVE, *SMOOTHERS, *OPEN])
        run(
            "dating",
            functools.partial(date, sounds, options.corpus, options.out),
            folds,
        )
        dating = functools.partial(judge_dated, options.out, sounds, folds, options.scenes)
        dated = run("judging dates", dating, [*DATED, GPT2])
        matching = functools.partial(match, options.out, sounds, folds, options.scenes)
        matched = run("matching", matching, GPT2_RECIPES)
    results: dict = {
        "methods": {},
        "bounds": [*SMOOTHERS],
        "trainings": [*GPT2_RECIPES],
        "against": {},
        "dated": dict(zip([*DATED, FIRST_DECISIONS], dated, strict=True)),
        "matched": dict(zip(GPT2_RECIPES, matched, strict=True)),
    }
    for method, figures, against in judged:
        results["methods"][method] = figures
        if against is not None:
            results["against"][method] = against
    (options.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    tables = score.markdown(results, fitting.FILTER)
    (options.out / "tables.md").write_text(tables)
    score.plot(results, str(options.out / "plot.png"))
    print(tables)


def train_fold(sounds: Sounds, corpus: Path, out: Path, fold: int) -> None:
    """Train every baseline for a test fold; write the reasoners' files, and all in models.pt."""
    folder = out / f"fold{fold}"
    if (folder / "models.pt").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    prepared, common = prepare(sounds, corpus, fold)
    chosen = timeline_baselines.fit_timeline(prepared.whole, prepared.choose, SEED, lambda _: None)
    of_yamnet = timeline_baselines.fit_timeline(
        yamnet_alone(prepared.whole), yamnet_alone(prepared.choose), SEED, lambda _: None, OF_YAMNET
    )
    chosen |= {OF_YAMNET[method]: one for method, one in of_yamnet.items()}
    for name in (*BASELINES, OF_YAMNET[fitting.FILTER]):
        one = chosen[name]
        alone = {"reads": [(YAMNET, "posterior")]} if name in OF_YAMNET.values() else {}
        card = Card(
            name=slug(name),
            about=f"{name} on {sounds.name}, test fold {fold}",
            kind="recurrent",
            labels=prepared.labels,
            on=one.on,
            off=one.off,
            validation={
                "in_force_f1": one.in_force_f1,
                "false_starts_per_minute": one.false_starts_per_minute,
                **one.setting,
            },
            **common | alone,
        )
        streams = yamnet_alone(prepared.choose) if alone else prepared.choose
        steps.export(one.step, streams.rows.shape[-1], card, folder / f"{slug(name)}.onnx")
    torch.save(chosen, folder / "models.pt")


def prepare(
    sounds: Sounds, corpus: Path, fold: int
) -> tuple[training_scenes.TrainingScenes, dict[str, Any]]:
    """Return the scenes that a fold's models are trained on, and what their cards share."""
    clips, scored_by = sounds.clips, scorer()
    prepared = training_scenes.prepare(
        clips, corpus, fold, [SEED, fold], scored_by, read_of(scored_by), lambda *_: None
    )
    return prepared, {
        "backbone": reads.backbone_of(YAMNET),
        "reads": read_of(scored_by),
        "sha256": scored_by.sha256,
        "hop_s": scored_by.hop_s,
        "data": sounds.name,
        "folds": sorted({clip.fold for clip in clips} - {fold}),
        "command": COMMAND,
        "version": streamtwl.__version__,
    }


@functools.cache
def scorer(windows: tuple[str, ...] | None = None, folder: Path | None = None) -> Scorer:
    """Return this process's scorer, of all windows whose weights are here unless some are named."""
    torch.set_num_threads(1)
    return Scorer(windows or training.best_windows(), threads=1, folder=folder)


def read_of(scored_by: Scorer) -> list[reads.Read]:
    """Return what all read."""
    return reads.of_windows(scored_by.windows)


def yamnet_alone(streams: SceneArrays) -> SceneArrays:
    """Return streams of which YAMNet's posteriors are read and nothing else."""
    columns = scorer().columns[YAMNET, "posterior"]  # the first ones of what is read, too
    rows, is_posterior = streams.rows[..., columns], streams.is_posterior[columns]
    return replace(streams, rows=np.ascontiguousarray(rows), is_posterior=is_posterior)


def train_trace_model(sounds: Sounds, corpus: Path, out: Path, what: tuple[str, int]) -> None:
    """Train one of GPT2_RECIPES for a test fold; write the reasoner's file."""
    name, fold = what
    folder = out / f"fold{fold}"
    file = folder / f"{slug(name)}.onnx"
    if file.exists():
        return
    prepared, common = prepare(sounds, corpus, fold)
    fitted = torch.load(folder / "models.pt", weights_only=False)[fitting.FILTER]
    recipe = replace(GPT2_RECIPES[name], windows=tuple(scorer().windows))
    targets = Targets(prepared.labels, fitted)
    kept = trace_reasoner.train_trace_model(
        prepared, targets, recipe, folder / slug(name), lambda *_: None
    )
    card = trace_reasoner.trace_model_card(kept, targets, recipe, {"name": slug(name), **common})
    trace_model.export(kept.model, recipe.hop_s, card, file)


def teach(sounds: Sounds, out: Path, fold: int) -> None:
    """Teach the classes of a test fold by `streamtwl teach`; the data folder is beside its models.

    Raises SinkError where it fails.
    """
    folder = out / f"fold{fold}" / "taught"
    if (folder / "done").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    rng = np.random.default_rng([SEED, fold])
    clips = [clip for clip in sounds.clips if clip.fold != fold]
    for label in sorted({clip.label for clip in clips}):
        own = {clip.source: clip.path for clip in clips if clip.label == label}
        some = [own[source] for source in rng.permutation(sorted(own))[:TAUGHT_CLIPS]]
        command = [*trial.STREAMTWL, "teach", label, *map(str, some)]
        command += ["--false-alarms", str(FALSE_ALARMS)]
        environment = os.environ | {"STREAMTWL_DATA": str(folder)}
        ran = subprocess.run(command, env=environment, capture_output=True, text=True)
        if ran.returncode:
            raise SinkError(f"streamtwl teach failed: {ran.stderr.strip()}")
    (folder / "done").touch()


def make_scenes(
    sounds: Sounds, corpus: Path, out: Path, count: int, minutes: float, fold: int
) -> None:
    """Write a fold's scenes, or with fold 0 the hour of background, as tools/make_scene.py does."""
    folder = out / "scenes"
    folder.mkdir(exist_ok=True)
    packages = scenes.read_pieces(corpus)
    if not fold:
        if not (folder / "background.flac").exists():
            rng = np.random.default_rng([SEED, 0])
            background = scenes.make_background_scene(rng, packages, 60 * minutes)
            soundfile.write(folder / "background.flac", background, SAMPLE_RATE, subtype="PCM_16")
        return
    parts = scenes.read_parts([c for c in sounds.clips if c.fold == fold])
    for number in range(count):
        rng = np.random.default_rng([SEED, fold, number])
        plan = scenes.plan_scene(rng, parts, packages, scored_scenes.SCENE_S)
        for snr_db in SNR_DB:
            stem = folder / scene_name(fold, number, snr_db)
            if stem.with_suffix(".csv").exists():
                continue
            samples, rows = scenes.make_scene(plan, snr_db)
            soundfile.write(stem.with_suffix(".flac"), samples, SAMPLE_RATE, subtype="PCM_16")
            with stem.with_suffix(".csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, scenes.COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)


def plays(folds: Sequence[int]) -> list[tuple[str, int, int | None]]:
    """Return what is to be played: method, fold, SNR or None for background."""
    scenes = [(method, fold, at) for method in (*LIVE, *OPEN) for fold in folds for at in SNR_DB]
    return [
        *scenes,
        *((method, fold, None) for method in LIVE for fold in folds[:BACKGROUND_FOLDS]),
        *((method, folds[0], None) for method in OPEN),  # not trained: the same in every fold
    ]


def play(out: Path, count: int, what: tuple[str, int, int | None]) -> list[AnyMessage]:
    """Play scenes by a method, unless that was done; return what the subscriber received."""
    method, fold, snr_db = what
    played = BACKGROUND if snr_db is None else f"snr{snr_db}"
    options = OPEN.get(method) or ["--reasoner", str(out / f"fold{fold}" / f"{slug(method)}.onnx")]
    if method == TAUGHT:
        os.environ["STREAMTWL_DATA"] = str(out / f"fold{fold}" / "taught")  # in a pool's process
        options = ["--reasoner", "evidence", "--labels", ",".join(taught(out, fold))]
    names = [BACKGROUND]
    if snr_db is not None:
        names = [scene_name(fold, number, snr_db) for number in range(count)]
    files = [out / "scenes" / f"{name}.flac" for name in names]
    kept = out / f"fold{fold}" / f"{slug(method)}-{played}.msgpack"
    return trial.play(files, options, kept, lambda *_: None)


def taught(out: Path, fold: int) -> list[str]:
    """Return the sounds that `teach` taught."""
    return [sound.name for sound in Store(out / f"fold{fold}" / "taught" / "sounds").sounds()]


def judge(
    out: Path, sounds: Sounds, folds: Sequence[int], count: int, method: str
) -> tuple[str, dict, dict | None]:
    """Return (method, its figures, how it compares with the HMM filter)."""
    scenes_of = functools.partial(received_by, out, sounds, folds=folds, count=count)
    played, background = scenes_of(method)
    against = None
    if method in (*LIVE, *SMOOTHERS) and method != fitting.FILTER:
        against = score.compare(played, scenes_of(fitting.FILTER)[0])
    return method, score.score(played, background), against


def date(sounds: Sounds, corpus: Path, out: Path, fold: int) -> None:
    """Choose by how much each of DATED dates its events back, on the validation scenes."""
    kept = out / f"fold{fold}" / "dates.json"
    if kept.exists():
        return
    scored_by = scorer()
    _, to_choose, _ = scored_scenes.materials(sounds.clips, corpus, fold, SEED)
    made = scored_scenes.make_training_scenes(
        to_choose,
        scored_scenes.VALIDATION_SCENES,
        [SEED, fold, training_scenes.PARTS],
        scored_by,
        lambda *_: None,
    )
    made = [stream.reading(scored_by, read_of(scored_by)) for stream in made]
    labels = sounds.labels
    chosen = torch.load(out / f"fold{fold}" / "models.pt", weights_only=False)
    dates = {}
    for method in DATED:
        one = chosen[method]
        received = [
            decide_offline(each, one, labels, method == timeline_baselines.SMOOTHER)
            for each in made
        ]

        def f1_of(by_s: float, received: list[Scene] = received) -> float:
            dated = [timeline.dated_back(scene, by_s) for scene in received]
            counts = [timeline.agreement(scene, score.DATED_LAG_S) for scene in dated]
            return float(timeline.f1(np.sum(counts, axis=0)))

        dates[method] = max(DATES_S, key=f1_of)
    kept.write_text(json.dumps(dates) + "\n")


def judge_dated(
    out: Path, sounds: Sounds, folds: Sequence[int], count: int, method: str
) -> dict[str, Any]:
    """Return a method's figures with its events dated back; of GPT2 its first decisions."""
    dates = [json.loads((out / f"fold{fold}" / "dates.json").read_text()) for fold in folds]
    by_s = [each[fitting.FILTER if method == GPT2 else method] for each in dates]
    of_fold = dict(zip(folds, by_s, strict=True))
    received = received_by(out, sounds, method, folds, count)[0]
    if method == GPT2:
        received = [replace(each, scene=first_decisions(out, each)) for each in received]
    played = [
        replace(each, scene=timeline.dated_back(each.scene, of_fold[each.fold]))
        for each in received
    ]
    return {
        "by_s": by_s,
        "by_snr": score.dated(played, received_by(out, sounds, GPT2, folds, count)[0]),
    }


def first_decisions(out: Path, played: Played) -> Scene:
    """Return a scene with the events of GPT2's first decisions, without revisions."""
    file = out / f"fold{played.fold}" / f"{slug(GPT2)}.onnx"
    card = graph.read_card(graph.open_session(file, 1), file)
    return timeline.retrack(played.scene, card.on, card.off)


def match(
    out: Path, sounds: Sounds, folds: Sequence[int], count: int, model: str
) -> dict[str, dict]:
    """Return how a model compares with baselines at matched false starts."""
    ours = received_by(out, sounds, model, folds, count)[0]
    return {
        method: score.matched(ours, received_by(out, sounds, method, folds, count)[0])
        for method in (fitting.FILTER, timeline_baselines.GRU)
    }


def received_by(
    out: Path, sounds: Sounds, method: str, folds: Sequence[int], count: int
) -> tuple[list[Played], list[Played]]:
    """Return (scenes, background) with the events of a method."""
    if method in SMOOTHERS:
        return smooth(out, sounds, method, folds, count)
    return played_live(out, sounds, method, folds, count)


def keep(out: Path, count: int, what: tuple[str, int, int | None]) -> None:
    """Play, and leave the messages in their file."""
    play(out, count, what)


def played_live(
    out: Path, sounds: Sounds, method: str, folds: Sequence[int], count: int
) -> tuple[list[Played], list[Played]]:
    """Return (scenes, background) with the events that a method's subscriber received."""
    labels = sounds.labels
    played, background = [], []
    for _, fold, snr_db in (each for each in plays(folds) if each[0] == method):
        messages = trial.at_latency(play(out, count, (method, fold, snr_db)), LATENCY_MS)
        share = OFF_SHARE
        if method in OPEN:
            messages = [closed(message, sounds.right_names) for message in messages]
            messages = [m for m in messages if not isinstance(m, Event) or m.label in labels]
        elif method != TAUGHT:
            file = out / f"fold{fold}" / f"{slug(method)}.onnx"
            card = graph.read_card(graph.open_session(file, 1), file)
            share = card.off / card.on
        numbers: Sequence[int] = range(count) if snr_db is not None else [0]
        for number in numbers:
            name = BACKGROUND if snr_db is None else scene_name(fold, number, snr_db)
            truth, duration_s = read_truth(out / "scenes" / name)
            own = trial.of_source(messages, name)
            scene = timeline.read_messages(name, duration_s, truth, labels, own)
            (background if snr_db is None else played).append(
                Played(fold, number, snr_db or 0, scene, share)
            )
    return played, background


def smooth(
    out: Path, sounds: Sounds, method: str, folds: Sequence[int], count: int
) -> tuple[list[Played], list[Played]]:
    """Return (scenes, background) with a smoother's events, each received at its own moment."""
    scored_by = scorer()
    alone = method in OF_YAMNET.values()
    read: list[reads.Read] = [(YAMNET, "posterior")] if alone else read_of(scored_by)
    played, background = [], []
    for fold in folds:
        chosen = torch.load(out / f"fold{fold}" / "models.pt", weights_only=False)
        one = chosen[method]
        labels = sounds.labels
        names: list[tuple[int, int | None]] = [(n, at) for n in range(count) for at in SNR_DB]
        backgrounds: list[tuple[int, None]] = (
            [(0, None)] if fold in folds[:BACKGROUND_FOLDS] else []
        )
        for number, snr_db in [*names, *backgrounds]:
            name = BACKGROUND if snr_db is None else scene_name(fold, number, snr_db)
            truth, duration_s = read_truth(out / "scenes" / name)
            rows = scored_by.pick(scored_by.score_file(out / "scenes" / f"{name}.flac"), read)
            ends = scored_scenes.positions(len(rows), scored_by.hop_s, duration_s)
            scored = scored_scenes.ScoredScene(name, duration_s, ends, rows, truth)
            scene = decide_offline(scored, one, labels, looks_ahead=True)
            one_played = Played(fold, number, snr_db or 0, scene, one.off / one.on)
            (background if snr_db is None else played).append(one_played)
    order = {at: i for i, at in enumerate(SNR_DB)}
    played.sort(key=lambda each: (each.fold, order[int(each.snr_db)], each.number))
    return played, background


def decide_offline(
    stream: scored_scenes.ScoredScene, chosen: fitting.Chosen, labels: list[str], looks_ahead: bool
) -> Scene:
    """Return a scene with the events of a method that does not go through the product."""
    decide = timeline_baselines.smooth if looks_ahead else steps.scores_of
    [scores] = decide(chosen.step, stream.rows[None], fitting.elapsed(stream.positions)[None])
    best = scores.argmax(axis=1)
    scene = Scene(
        name=stream.name,
        duration_s=stream.duration_s,
        truth=stream.truth,
        events=[],
        positions=stream.positions,
        times_s=stream.positions / SAMPLE_RATE + LATENCY_MS / 1000,
        scores=scores,
        labels=labels,
        named=[
            labels[i] if row[i] >= chosen.on else None for i, row in zip(best, scores, strict=True)
        ],
    )
    return timeline.retrack(scene, chosen.on, chosen.off)


def closed(message: AnyMessage, right: dict[str, frozenset[str]]) -> AnyMessage:
    """Return a message in the ten classes' words; a name that is none of theirs stays as it is."""
    to_class = {name: label for label, names in right.items() for name in names}
    if isinstance(message, Event):
        return msgspec.structs.replace(message, label=to_class.get(message.label, message.label))
    if isinstance(message, Label):
        best: dict[str, float] = {}
        for each in message.top:
            label = to_class.get(each.label)
            if label is not None:
                best[label] = max(each.score, best.get(label, 0.0))
        top = [Scored(label, value) for label, value in best.items()]
        return msgspec.structs.replace(message, label=to_class.get(message.label or ""), top=top)
    return message


def read_truth(stem: Path) -> tuple[list[Sound], float]:
    """Return (what sounds, seconds) of a scene."""
    duration_s = soundfile.info(stem.with_suffix(".flac")).duration
    if stem.name == BACKGROUND:
        return [], duration_s
    with stem.with_suffix(".csv").open(newline="") as file:
        return [
            Sound(row["label"], float(row["onset_s"]), float(row["offset_s"]))
            for row in csv.DictReader(file)
        ], duration_s


def scene_name(fold: int, number: int, snr_db: float) -> str:
    """Return what a scene is called, as a file and on the wire."""
    return f"fold{fold}-{number:02}-snr{snr_db:g}"


def slug(method: str) -> str:
    """Return a method's name as a file's, and as a reasoner's on the wire."""
    return method.lower().replace(", ", "-").replace(" ", "-")


if __name__ == "__main__":
    try:
        main()
    except StreamtwlError as error:
        sys.exit(f"live_trial.py: {error}")
