"""What does a reader add to the evidence on sounds that nobody taught it? Scenes, events, minutes.

    tools/corpus.sh CORPUS
    .venv/bin/python benchmarks/untaught.py --corpus CORPUS [--reader FILE ...]

Test clips of ESC-10 and kitchen20 (those of `hearing.py`) sound in scenes of two minutes over the
corpus's test side, at 20, 10 and 5 dB. `default`'s windows score them; the evidence and each reader
decide on the same scores. A sound is found while a label that is right for it is in force; events
of labels are by hysteresis, each label's own, as the tracker's: on, and off at half of it.

Every reasoner is judged as it says at once, and as it says LAGS hops later, at a threshold of its
own: the lowest at which wrong labels begin no more often than so many times a minute, over all
scenes of a set. What is in force and no name of the sound, nor of what it is a kind of, is wrong;
so is a name of what sounds in the background: equal for all, but no false alarm.
"""

import functools
import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import results_folder
import timeline
from hearing_sounds import Clip, clips_of
from rich.progress import track
from trial_methods import SNR_DB
from trial_scenes import read

from streamtwl import config
from streamtwl.config import Settings
from streamtwl.errors import StreamtwlError
from streamtwl.ontology import ancestors, categories
from streamtwl.pipeline import hearing
from streamtwl.reasoners import choice
from streamtwl.stages import SAMPLE_RATE
from streamtwl.training import datasets, scenes, scored_scenes
from streamtwl.training.posteriors import Scorer

SETS = ("ESC-10, fold 4", "kitchen20, folds 6 to 9")
EVIDENCE = "evidence"
LAGS = (0, 1, 2, 4)
STARTS_PER_MINUTE = (1.0, 2.0, 4.0)
ONS = tuple(round(float(1 / (1 + np.exp(-i / 5))), 3) for i in range(-16, 21))
OFF_SHARE = 0.5
LATE_S = 0.3  # after an onset nothing is judged: no window could know
HOP_S = Settings().hop_s


@dataclass(frozen=True, slots=True)
class Truth:
    """What is right and what is not wrong at each hop, and the sounds."""

    right: np.ndarray  # bool[T, L]
    above: np.ndarray  # bool[T, L]: a right label is a kind of it
    sounding: np.ndarray  # bool[T]
    judged: np.ndarray  # bool[T]
    sounds: list[tuple[float, float, np.ndarray]]  # onset and offset in seconds, bool[L]


def main() -> None:
    """Score the scenes, let all reasoners read them, print and write the tables."""
    parser = results_folder.parser_of(__doc__, corpus=True, scenes=True)
    readers = "files, or names that ship (%(default)s)"
    parser.add_argument("--reader", nargs="+", default=["reader"], help=readers)
    options = parser.parse_args()
    results = {
        name: judge(name, options.data, options.corpus, options.scenes, options.reader)
        for name in results_folder.present(SETS, options.data)
    }
    results_folder.keep(options.out, "untaught", results, markdown(results))


def judge(
    name: str, data: Path, corpus: Path, count: int, readers: Sequence[str]
) -> dict[str, Any]:
    """Return the figures of a set: by row (reasoner and lag) and false starts a minute."""
    clips = clips_of(name, data)
    settings = config.load(config.find("default"))
    scorer = Scorer(settings.windows, settings.hop_s)
    made = [*test_scenes(clips, corpus, count, scorer)]
    hops = min(len(scene.rows) for _, _, scene in made)
    rows = np.stack([scene.rows[:hops] for _, _, scene in made])
    names = {clip.path: clip.right for clip in clips}
    stages = hearing(settings)
    judged: dict[str, dict[str, Any]] = {}
    ms: dict[str, float] = {}
    for file in (EVIDENCE, *readers):
        chosen = config.override(settings, {"reasoner.file": file, "labels": "all"})
        streams = [str(i) for i in range(len(rows))]
        reasoner = choice.make(chosen, choice.load(chosen), *stages, streams)
        truths = [truth_of(plan, names, reasoner.labels, hops) for _, plan, _ in made]
        scores, ms[file] = read(reasoner, rows, scorer, scorer.windows)
        for lag in LAGS:
            if lag <= reasoner.lags:
                by_now = settled(scores, lag)
                judged[f"{Path(file).stem}, {lag} later" if lag else Path(file).stem] = {
                    on: [counts(each, of, on) for each, of in zip(by_now, truths, strict=True)]
                    for on in ONS
                }
    minutes = hops * settings.hop_s / 60 * len(rows)
    snrs = np.array([snr_db for snr_db, *_ in made])
    return {
        "scenes": len(made),
        "clips": len(clips),
        "sources": len({clip.source for clip in clips}),
        "ms": ms,
        "rows": {
            row: {f"{most:g}": at(found, judged[EVIDENCE], most, minutes, snrs)
                  for most in STARTS_PER_MINUTE}
            for row, found in judged.items()
        },
    }  # fmt: skip


def test_scenes(clips: Sequence[Clip], corpus: Path, count: int, scorer: Scorer):
    """Yield (SNR, plan, scored scene)."""
    for number, snr_db, plan in plans(clips, corpus, count):
        yield snr_db, plan, scored_scenes.score_scene(str(number), plan, snr_db, scorer)


def plans(clips: Sequence[Clip], corpus: Path, count: int):
    """Yield (number, SNR, plan) of the test scenes."""
    sounding = [datasets.Clip(clip.path, clip.label, clip.source, 0) for clip in clips]
    parts = scenes.read_parts(sounding)
    packages = scenes.read_pieces(corpus, "test")
    for number in track(range(count), "scenes"):
        plan = scenes.plan_scene(
            np.random.default_rng([15, number]), parts, packages, scored_scenes.SCENE_S
        )
        for snr_db in SNR_DB:
            yield number, snr_db, plan


def truth_of(
    plan: scenes.Plan, names: dict[Path, frozenset[str]], labels: Sequence[str], hops: int
) -> Truth:
    """Return the truth at the end of each hop's window."""
    ends = scored_scenes.positions(hops, HOP_S, plan.length / SAMPLE_RATE) / SAMPLE_RATE
    right, above = np.zeros((hops, len(labels)), bool), np.zeros((hops, len(labels)), bool)
    sounding, judged = np.zeros(hops, bool), np.ones(hops, bool)
    sounds = []
    for event in plan.events:
        onset, offset = event.onset / SAMPLE_RATE, event.offset / SAMPLE_RATE
        own, general = columns(names[event.part.file], tuple(labels))
        now = (ends > onset) & (ends <= offset)
        right[now] |= own
        above[now] |= general
        sounding |= now
        judged &= (ends <= onset) | (ends > onset + LATE_S)
        sounds.append((onset, offset, own))
    return Truth(right, above & ~right, sounding, judged, sounds)


@functools.cache
def columns(names: frozenset[str], labels: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return bool[L], which labels are right, and which are what those are kinds of."""
    index = {name: i for i, name in enumerate(categories())}
    general = {categories()[each] for name in names for each in ancestors()[index[name]]}
    return np.isin(labels, [*names]), np.isin(labels, [*general])


def settled(scores: np.ndarray, lag: int) -> np.ndarray:
    """Return float32[n, T, L], each hop as said `lag` hops later, of float32[n, T, 1 + B, L]."""
    said = scores[:, :, 0].copy()
    for t in range(said.shape[1]):
        back = min(lag, said.shape[1] - 1 - t)
        said[:, t] = scores[:, t + back, back]
    return said


def counts(scores: np.ndarray, truth: Truth, on: float) -> tuple[np.ndarray, list[float]]:
    """Return float64[6] and the delays of one scene, of float32[T, L].

    Hops found, wrong labels in force, hops missed; wrong labels that begin; sounds found, sounds.
    """
    force = np.zeros(scores.shape, bool)
    now = np.zeros(scores.shape[1], bool)
    for t, row in enumerate(scores):
        now = (row >= on) | (now & (row >= on * OFF_SHARE))
        force[t] = now
    found = (force & truth.right).any(axis=1)
    wrong = force & ~truth.right & ~truth.above
    begins = wrong & ~np.vstack((np.zeros_like(wrong[:1]), wrong[:-1]))
    ends = scored_scenes.positions(len(scores), HOP_S, 1e9) / SAMPLE_RATE
    delays = []
    for onset, offset, own in truth.sounds:
        at_ = (ends > onset) & (ends <= offset + HOP_S) & force[:, own].any(axis=1)
        if at_.any():
            delays.append(float(ends[at_.argmax()] - onset))
    numbers = (
        (found & truth.sounding & truth.judged).sum(),
        wrong[truth.judged].sum(),
        (~found & truth.sounding & truth.judged).sum(),
        begins.sum(),
        len(delays),
        len(truth.sounds),
    )
    return np.array(numbers, np.float64), delays


def at(
    found: dict[float, list[tuple[np.ndarray, list[float]]]],
    evidence: dict[float, list[tuple[np.ndarray, list[float]]]],
    most: float,
    minutes: float,
    snrs: np.ndarray,
) -> dict[str, Any]:
    """Return the figures at the lowest threshold with at most so many false starts a minute."""
    on, mine = _lowest(found, most, minutes)
    _, theirs = _lowest(evidence, most, minutes)
    groups = [i // len(SNR_DB) for i in range(len(mine))]
    figures: dict[str, Any] = {"on": on}
    for snr_db in (None, *SNR_DB):
        some = [i for i in range(len(mine)) if snr_db in (None, snrs[i])]
        a, b = (np.array([each[i][0] for i in some]) for each in (mine, theirs))
        of = [groups[i] for i in some]
        more = timeline.bootstrap_paired(a, b, f1, of)
        delays = [delay for i in some for delay in mine[i][1]]
        figures["all" if snr_db is None else f"{snr_db} dB"] = {
            "f1": astuple(timeline.bootstrap(a, f1, of)),
            "more": astuple(more),
            "sounds": float(a[:, 4].sum() / a[:, 5].sum()),
            "delay_s": float(np.median(delays)) if delays else None,
        }
    return figures


def f1(stats: np.ndarray) -> np.ndarray:
    """Return 2 TP / (2 TP + FP + FN) of float64[..., 6]."""
    hits, wrong, missed = stats[..., 0], stats[..., 1], stats[..., 2]
    found: np.ndarray = 2 * hits / np.maximum(2 * hits + wrong + missed, 1)
    return found


def _lowest(found: dict[float, list], most: float, minutes: float) -> tuple[float, list]:
    """Return the lowest threshold that is allowed, else the highest, and what it gives."""
    for on in ONS:
        if sum(each[0][3] for each in found[on]) / minutes <= most:
            return on, found[on]
    return ONS[-1], found[ONS[-1]]


def markdown(results: dict[str, Any]) -> str:
    """Return the tables."""
    lines = [
        "# Sounds that nobody taught: a reader beside the evidence",
        "",
        "`benchmarks/untaught.py`: its head says what is judged and how. F1 of what is in force, "
        "and what it is more than the evidence's at the same false starts (95 % intervals, paired, "
        "bootstraps over scenes); sounds that are found at all; median seconds from their onset.",
        "",
    ]
    for name, found in results.items():
        lines += [
            f"## {name}",
            "",
            f"{found['scenes']} scenes; {found['clips']} clips from {found['sources']} recordings. "
            + "Milliseconds a hop: "
            + ", ".join(f"{Path(file).stem} {each:.2f}" for file, each in found["ms"].items())
            + ".",
            "",
            "| reasoner | false starts a minute | on | F1 | more | "
            + " | ".join(f"{snr_db} dB" for snr_db in SNR_DB)
            + " | sounds found | delay |",
            "|" + " --- |" * (7 + len(SNR_DB)),
        ]
        for row, by_starts in found["rows"].items():
            for most, figures in by_starts.items():
                every = figures["all"]
                snrs = [f"{figures[f'{snr_db} dB']['f1'][0]:.3f}" for snr_db in SNR_DB]
                delay = every["delay_s"]
                cells = [
                    row,
                    most,
                    f"{figures['on']:.3f}",
                    "{:.3f} ({:.3f} to {:.3f})".format(*every["f1"]),
                    "{:+.3f} ({:+.3f} to {:+.3f})".format(*every["more"]),
                    *snrs,
                    f"{every['sounds']:.0%}",
                    "" if delay is None else f"{delay:.2f} s",
                ]
                lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main()
    except (StreamtwlError, OSError) as error:
        sys.exit(f"untaught.py: {error}")
