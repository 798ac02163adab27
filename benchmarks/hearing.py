"""How well do the pipelines that ship name sounds, and at what price? All tables of "hear better".

    .venv/bin/python benchmarks/hearing.py --corpus CORPUS [--home] [--kept FOLDER]

Clips go through the product's graph, a pipeline a row; rows share model calls, nothing else. Four
things are measured: names over the whole vocabulary, ten labels that somebody watches, sound that
a telephone or a camera made worse, and whether confidences are what they say. ESC-10's fold 4 and
kitchen20's folds 6 to 9 chose nothing. `home` is not even looked at without --home: run it once,
when everything is decided. Rows whose weights are not here, and sets that are not in --data, are
left out. Results are kept in --kept and not computed again: take a new folder after any change.
"""

import argparse
import functools
import hashlib
import itertools
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hearing_tables
import numpy as np
from hearing_sounds import (
    DISTORTIONS,
    FOLDERS,
    HOURS_PARTS,
    REPOSITORY,
    SNRS_DB,
    STRETCH_S,
    Clip,
    clips_of,
    in_condition,
    part_of_hours,
)
from quick import add_option
from rich.progress import track
from threadpoolctl import threadpool_limits

from streamtwl import config
from streamtwl.config import Settings
from streamtwl.errors import StreamtwlError
from streamtwl.labelling import TOP, WIDTH, Strength
from streamtwl.models import registry
from streamtwl.ontology import ancestors, categories, vocabulary
from streamtwl.pipeline import Outcome, build
from streamtwl.sounding import Sounding
from streamtwl.stages import SAMPLE_RATE, Backbone, Block, Decision

WATCHED = (
    "Smoke detector, smoke alarm, Baby cry, infant cry, Glass, Siren, Dog, Doorbell, Knock, "
    "Gunshot, gunfire, Screaming, Cough"
)
SOUNDING_DB = 30.0  # a hop sounds that is no farther below the clip's loudest
PLAIN = "YAMNet without prior"
# A row each: the pipeline that ships, and what is changed in it
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    PLAIN: (
        "yamnet",
        {
            "reasoner.prior": 0.0,
            "reasoner.scale": 1.0,
            "reasoner.shift": 0.0,
            "reasoner.half_life_s": 0.7,
            "reasoner.on": 0.4,
            "reasoner.off": 0.2,
        },
    ),
    "`yamnet`": ("yamnet", {}),
    "`light`": ("light", {}),
    "`default`": ("default", {}),
    "`evidence`": ("evidence", {}),
    "`evidence` without prior": ("evidence", {"reasoner.prior": 0.0}),
    **{
        f"YAMNet and mn04:{length}": (
            "evidence",
            {
                "windows": ["yamnet:0.96", f"mn04:{length}"],
                "reasoner.weights": {"yamnet:0.96": 0.4, f"mn04:{length}": 0.6},
            },
        )
        for length in (2, 5)
    },
}
SHIPPED = ("`yamnet`", "`light`", "`default`", "`evidence`")
UNCALIBRATED = ", not calibrated"
RAW = {"reasoner.scale": 1.0, "reasoner.shift": 0.0}


def main() -> None:
    """Run what is not kept yet, print and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, shared = parser.add_argument, REPOSITORY.parent / "shared" / "data"
    add("--data", type=Path, default=shared, help="the data (../shared/data)")
    add("--corpus", type=Path, help="made by tools/corpus.sh: voices, for babble and the hours")
    add("--home", action="store_true", help="the set on which nothing may be chosen, too")
    add("--kept", type=Path, help="where results are kept (a new folder)")
    add("--out", type=Path, default=REPOSITORY / "benchmarks" / "results", help="(%(default)s)")
    add("--processes", type=int, default=2, help="(%(default)s)")
    add_option(parser)
    options = parser.parse_args()
    kept = options.kept or Path(tempfile.mkdtemp(prefix="hearing-"))
    kept.mkdir(parents=True, exist_ok=True)
    print(f"results are kept in {kept}")
    sets = [
        name
        for name, folder in FOLDERS.items()
        if (options.data / folder).is_dir() and (options.home or name != "home")
    ]
    jobs = [*jobs_of(sets)]
    waiting = [job for job in jobs if not (kept / file_of(job)).exists()]
    spawn = multiprocessing.get_context("spawn")  # ONNX Runtime's threads survive no fork
    # One thread each: BLAS would wait in loops for its own
    with ProcessPoolExecutor(options.processes, spawn, threadpool_limits, (1,)) as pool:
        running = [pool.submit(run, job, options.data, options.corpus, kept) for job in waiting]
        for done in track(as_completed(running), "hearing", len(running)):
            done.result()
    results = {job: json.loads((kept / file_of(job)).read_text()) for job in jobs}
    options.out.mkdir(parents=True, exist_ok=True)
    about = {name: about_set(clips_of(name, options.data)) for name in sets}
    summary = hearing_tables.summary(results, about, PLAIN, [*rows_here()], SHIPPED, UNCALIBRATED)
    (options.out / "hearing.json").write_text(json.dumps(summary, indent=1) + "\n")
    hearing_tables.plot(summary["calibration"], options.out / "reliability.png")
    text = hearing_tables.markdown(summary)
    (options.out / "hearing.md").write_text(text)
    print(text)


def jobs_of(sets: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield what is to be run, each with a result of its own: (kind, ...)."""
    for name in sets:
        for condition in SNRS_DB:
            yield "clips", name, condition
            yield "watched", name, condition
        if name != "home":
            for distortion in DISTORTIONS:
                yield "distorted", name, distortion
    for part in range(HOURS_PARTS):
        yield "hours", str(part)


def file_of(job: tuple[str, ...]) -> str:
    """Return the name of a job's file."""
    return f"{job[0]}-{hashlib.sha256(' '.join(job).encode()).hexdigest()[:12]}.json"


def about_set(clips: Sequence[Clip]) -> dict[str, int]:
    """Return the size of a set."""
    return {
        "clips": len(clips),
        "sources": len({clip.source for clip in clips}),
        "classes": len({clip.label for clip in clips}),
    }


# --- one job ---


def run(job: tuple[str, ...], data: Path, corpus: Path | None, kept: Path) -> None:
    """Write the result of a job, by row."""
    result: dict[str, Any] = {}
    match job:
        case "hours", part:
            sounds = iter([part_of_hours(int(part), data, corpus)])
            [by_row] = listen(rows(WATCHED), sounds)
            result = {name: taken.published() for name, taken in by_row.items()}
        case kind, name, condition:
            clips = clips_of(name, data)
            if kind == "watched" and condition != "clean":  # clean, the others tell false events
                clips = [clip for clip in clips if clip.right & watched()]
            chosen = rows(WATCHED if kind == "watched" else "all")
            if kind == "distorted":
                chosen = {row: chosen[row] for row in (PLAIN, *SHIPPED) if row in chosen}
            sounds = (in_condition(clip, condition, corpus) for clip in clips)
            for clip, by_row in zip(clips, listen(chosen, sounds), strict=True):
                for row, taken in by_row.items():
                    right = clip.right & watched() if kind == "watched" else clip.right
                    judged = {"source": clip.source, "there": bool(right)} | taken.judged(right)
                    result.setdefault(row, []).append(judged)
    partial = (kept / file_of(job)).with_suffix(".partial")
    partial.write_text(json.dumps(result))
    partial.rename(kept / file_of(job))


@dataclass(slots=True)
class Taken:
    """What a pipeline gave for one stream."""

    labels: list[str]
    strength: Strength
    decisions: list[tuple[Decision, float]] = field(default_factory=list)  # and the hop's dBFS
    events: dict[int, Sounding] = field(default_factory=dict)  # by number, as last published

    def add(self, outcome: Outcome) -> None:
        """Take an outcome, as `streamtwl label` does."""
        self.events |= {event.number: event for _, event in outcome.changes}
        if outcome.decision is not None and outcome.patch is not None and outcome.final:
            window = outcome.patch.window
            self.strength.add(outcome.decision, window.first)
            self.decisions.append((outcome.decision, window.level_dbfs))

    def published(self) -> list[str]:
        """Return the labels of all events that were not retracted."""
        return [event.label for event in self.events.values() if not event.retracted]

    def judged(self, right: frozenset[str]) -> dict[str, Any]:
        """Return what is right and what is not; an ancestor of a right name is no wrong event."""
        named = any(decision.label is not None for decision, _ in self.decisions)
        top = [self.labels[i] for i in np.argsort(-self.strength.mean(), kind="stable")[:TOP]]
        loudest = max((dbfs for _, dbfs in self.decisions), default=0.0)
        sounding = [each for each, dbfs in self.decisions if dbfs >= loudest - SOUNDING_DB]
        in_force = [(each.label, each.confidence) for each in sounding]
        events, fitting = self.published(), right | above(right)
        return {
            "right": named and top[0] in right,
            "among_five": named and bool(right & {*top}),
            "event": bool(right & {*events}),
            "wrong_events": sum(label not in fitting for label in events),
            "changes": sum(a != b for (a, _), (b, _) in itertools.pairwise(in_force)),
            "confidences": [
                [round(confidence, 4), label in right]
                for label, confidence in in_force
                if label is not None
            ],
        }


class Row:
    """A pipeline whose backbones share their scores with those of other rows."""

    def __init__(self, settings: Settings, backbones: dict[str, "Remembering"]) -> None:
        self._pipeline = build(settings, [str(i) for i in range(WIDTH)])
        bank = self._pipeline.bank
        bank.backbones = [backbones.setdefault(b.name, Remembering(b)) for b in bank.backbones]
        self._pipeline.subscribe(lambda outcome: self.taken[outcome.stream].add(outcome))
        self.taken: list[Taken] = []  # a stream each

    def begin(self, streams: int) -> None:
        """Take so many new streams."""
        labels = self._pipeline.reasoner.labels
        self.taken = [Taken(labels, Strength(len(labels))) for _ in range(streams)]

    def push(self, blocks: list[Block]) -> None:
        """Run the graph."""
        self._pipeline.push(blocks)


class Remembering:
    """A backbone that scores the same features once."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._known: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def score(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what the backbone returns."""
        keys = [hashlib.blake2b(each, digest_size=16).digest() for each in features]
        new = {key: i for i, key in enumerate(keys) if key not in self._known}
        if new:
            scores = zip(*self._backbone.score(features[[*new.values()]]), strict=True)
            self._known |= zip(new, scores, strict=True)
        posteriors, embeddings = zip(*(self._known[key] for key in keys), strict=True)
        return np.stack(posteriors), np.stack(embeddings)

    def forget(self) -> None:
        """Free the memory."""
        self._known.clear()


_backbones: dict[str, Remembering] = {}  # of this process


@functools.cache
def rows(labels: str) -> dict[str, Row]:
    """Return the rows that can run here; those without calibration for the whole vocabulary."""
    return {
        name: Row(config.override(settings, {"labels": labels}), _backbones)
        for name, settings in rows_here().items()
        if labels == "all" or not name.endswith(UNCALIBRATED)
    }


def rows_here() -> dict[str, Settings]:
    """Return the settings of the rows whose weights are here; of those that ship, RAW too."""
    found = {}
    for name, (pipeline, changes) in ROWS.items():
        settings = config.override(config.load(config.find(pipeline)), changes)
        if all(registry.is_here(registry.find(b)) for b in config.backbones(settings)):
            found[name] = settings
            if name in SHIPPED and not settings.reasoner.file:  # a reader calibrates itself
                found[name + UNCALIBRATED] = config.override(settings, RAW)
    return found


def listen(chosen: dict[str, Row], sounds: Iterator[np.ndarray]) -> Iterator[dict[str, Taken]]:
    """Yield what each row gave for each of float32[n] sounds, 16 kHz."""
    while batch := [*itertools.islice(sounds, WIDTH)]:
        for row in chosen.values():
            row.begin(len(batch))
        step = STRETCH_S * SAMPLE_RATE
        for start in range(0, max(map(len, batch)), step):
            blocks = [
                Block(i, start, sound[start : start + step], None, 0.0, start + step >= len(sound))
                for i, sound in enumerate(batch)
                if start < len(sound)
            ]
            for row in chosen.values():
                row.push(blocks)
            for backbone in _backbones.values():
                backbone.forget()
        for i in range(len(batch)):
            yield {name: row.taken[i] for name, row in chosen.items()}


@functools.cache
def watched() -> frozenset[str]:
    """Return the labels that are watched for."""
    return frozenset(vocabulary(WATCHED).labels)


def above(names: frozenset[str]) -> frozenset[str]:
    """Return the ancestors of AudioSet's names."""
    index = {name: i for i, name in enumerate(categories())}
    return frozenset(categories()[each] for name in names for each in ancestors()[index[name]])


if __name__ == "__main__":
    try:
        main()
    except (StreamtwlError, OSError) as error:
        sys.exit(f"hearing.py: {error}")
