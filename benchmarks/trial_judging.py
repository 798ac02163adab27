"""What the live trial plays through the product, and how it judges what was received."""

import csv
import functools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import score
import soundfile
import timeline
import timeline_baselines
import torch
import trial
from score import Played
from timeline import Scene, Sound
from trial_methods import (
    BACKGROUND,
    BACKGROUND_FOLDS,
    GPT2,
    LIVE,
    OF_YAMNET,
    OPEN,
    SEED,
    SMOOTHERS,
    SNR_DB,
    TAUGHT,
    plays,
    scene_name,
    slug,
)
from trial_sounds import Sounds
from trial_training import read_of, scorer

from streamtwl.messages import AnyMessage, Event, Label, Scored
from streamtwl.reasoners import graph, reads
from streamtwl.sounds.store import Store
from streamtwl.stages import SAMPLE_RATE
from streamtwl.training import (
    fitting,
    scored_scenes,
    steps,
    training_scenes,
)
from streamtwl.training.posteriors import YAMNET

DATED = (
    timeline_baselines.AVERAGE,
    fitting.FILTER,
    timeline_baselines.GRU,
    timeline_baselines.SMOOTHER,
)
FIRST_DECISIONS = f"{GPT2}'s first decisions, by the filter's dates"
DATES_S = tuple(round(0.12 * i, 2) for i in range(9))  # beyond the middle of the window
OFF_SHARE = 0.5  # of the shipped pipeline
LATENCY_MS = 5.0  # charged to all: the median of one live source, by benchmarks/latency.py


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


def received_by(
    out: Path, sounds: Sounds, method: str, folds: Sequence[int], count: int
) -> tuple[list[Played], list[Played]]:
    """Return (scenes, background) with the events of a method."""
    if method in SMOOTHERS:
        return smooth(out, sounds, method, folds, count)
    return played_live(out, sounds, method, folds, count)


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


def play(out: Path, count: int, what: tuple[str, int, int | None]) -> list[AnyMessage]:
    """Play scenes by a method, unless that was done; return what the subscriber received."""
    method, fold, snr_db = what
    played = BACKGROUND if snr_db is None else f"snr{snr_db}"
    options = OPEN.get(method) or ["--reasoner", str(out / f"fold{fold}" / f"{slug(method)}.onnx")]
    environment = None
    if method == TAUGHT:
        environment = {"STREAMTWL_DATA": str(out / f"fold{fold}" / "taught")}
        options = ["--reasoner", "evidence", "--labels", ",".join(taught(out, fold))]
    names = [BACKGROUND]
    if snr_db is not None:
        names = [scene_name(fold, number, snr_db) for number in range(count)]
    files = [out / "scenes" / f"{name}.flac" for name in names]
    kept = out / f"fold{fold}" / f"{slug(method)}-{played}.msgpack"
    return trial.play(files, options, kept, lambda *_: None, environment)


def keep(out: Path, count: int, what: tuple[str, int, int | None]) -> None:
    """Play, and leave the messages in their file."""
    play(out, count, what)


def taught(out: Path, fold: int) -> list[str]:
    """Return the sounds that `teach` taught."""
    return [sound.name for sound in Store(out / f"fold{fold}" / "taught" / "sounds").sounds()]


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
