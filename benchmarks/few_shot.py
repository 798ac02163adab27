"""How well does a sound do that was taught from N recordings? Through the product's own path.

    tools/corpus.sh CORPUS
    .venv/bin/python benchmarks/few_shot.py --corpus CORPUS

kitchen20: taught from folds 1, 2, 3 and 5, tested on folds 6 to 9 without clips of a recording that
is in a training fold, and without kitchen20's own windows in the bank. ESC-10: taught from the
other folds. What is taught is scored as `teach` does (variants, windows, heads), clips as `label`
does: each hop's confidences, and their mean over the clip. Beside it, on whole clips: nearest mean
and a linear model on each embedding (the latter on YAMNet's is the recipe of MediaPipe Model Maker,
which trains a small head on it).

False alarms: of kitchen20's sounds on `../shared/data/ambience` and the corpus's test side, neither
of which is in the bank. Promised is what a head was calibrated for, measured its events; recall is
the share of test clips of which some hop is at the threshold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import results_folder
from quick import QUICK
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from streamtwl import available
from streamtwl.pipeline import hearing
from streamtwl.sounds import heads, space
from streamtwl.sounds.embedding import HOP_S
from streamtwl.sounds.heads import OFF, ON, Taught
from streamtwl.sounds.recording import read, trim
from streamtwl.sounds.teaching import Teacher
from streamtwl.training import datasets
from streamtwl.training.datasets import Clip

REPOSITORY = Path(__file__).parents[1]
COUNTS = (1, 2) if QUICK else (1, 2, 5, 10)
TRAINING = (1, 2, 3, 5)
RATES = (1.0, 24.0, 240.0)  # false alarms a day
AN_HOUR = 24.0
ESC10_FOLDS = (4,) if QUICK else (1, 4)
FILE_S = 30.0


@dataclass(frozen=True)
class Scored:
    """A clip: its hops' embeddings as they come live, by window."""

    clip: Clip
    embeddings: dict[str, np.ndarray]


def main() -> None:
    """Teach, test, print and write the tables."""
    parser = results_folder.parser_of(__doc__, corpus=True)
    add = parser.add_argument
    add("--pipeline", default="default", help="whose windows are used (%(default)s)")
    add("--minutes", type=float, default=0.1 if QUICK else 4.0, help="a package (%(default)s)")
    options = parser.parse_args()
    stages = hearing(available.settings(options.pipeline, {}, print))
    results: dict[str, Any] = {}
    if (options.data / "kitchen20").is_dir():
        teacher = Teacher(*stages, leave_out=["kitchen20"])
        training, test = kitchen20(options.data / "kitchen20")
        outside = quiet(options.data / "ambience", options.corpus, teacher, options.minutes)
        results["kitchen20"] = curve([(training, test)], teacher, outside)
    if (options.data / "esc10").is_dir():
        clips = datasets.load(options.data / "esc10")
        splits = [datasets.split(clips, fold) for fold in ESC10_FOLDS]
        results["ESC-10"] = curve(splits, Teacher(*stages), {})
    name = "few_shot" if options.pipeline == "default" else f"few_shot-{options.pipeline}"
    results_folder.keep(options.out, name, results, markdown(results))


def kitchen20(folder: Path) -> tuple[list[Clip], list[Clip]]:
    """Return the training and the test clips; none is cut from a recording of the other side."""
    clips = datasets.load(folder)
    training = [clip for clip in clips if clip.fold in TRAINING]
    known = {clip.source for clip in training}
    return training, [c for c in clips if c.fold not in TRAINING and c.source not in known]


def quiet(
    ambience: Path, corpus: Path, teacher: Teacher, minutes: float
) -> dict[str, list[dict[str, np.ndarray]]]:
    """Return the embeddings of audio in which nothing that is taught sounds, by where it is from.

    The bank has none of it.
    """
    groups = {"ambience": [sorted(ambience.glob("audio/*"))]}
    groups["corpus"] = [
        sorted(folder.glob("*"), key=lambda file: sha256(file.name.encode()).digest())
        for folder in sorted((corpus / "test").iterdir())
    ]
    found: dict[str, list[dict[str, np.ndarray]]] = {}
    for name, folders in groups.items():
        for files in folders:
            taken_s = 0.0
            for file in files:
                if taken_s > 60 * minutes and name == "corpus":
                    break
                samples = read(file, FILE_S if name == "corpus" else 600.0)
                taken_s += len(samples) / 16_000
                found.setdefault(name, []).append(teacher.embedder.embed(samples)[1])
    return found


def curve(
    splits: Sequence[tuple[list[Clip], list[Clip]]],
    teacher: Teacher,
    outside: dict[str, list[dict[str, np.ndarray]]],
) -> dict[str, Any]:
    """Return the figures of a data set by the number of recordings a sound is taught from."""
    tested: dict[Path, Scored] = {}
    figures: dict[str, Any] = {}
    for count in COUNTS:
        rows = []
        for training, test in splits:
            for clip in test:
                if clip.path not in tested:
                    embeddings = teacher.embedder.embed(read(clip.path))[1]
                    tested[clip.path] = Scored(clip, embeddings)
            chosen = choose(training, count)
            sources = {c.source for clips in chosen.values() for c in clips}
            scored = [tested[clip.path] for clip in test if clip.source not in sources]
            rows.append(one(chosen, scored, teacher, outside))
            print(count, rows[-1]["accuracy"], flush=True)
        mean = {
            name: {key: float(np.mean([row[name][key] for row in rows])) for key in rows[0][name]}
            for name in rows[0]
        }
        figures[f"{count}"] = mean
    return figures


def choose(training: Sequence[Clip], count: int) -> dict[str, list[Clip]]:
    """Return clips of each sound, of as many recordings as there are, those of fewer included."""
    chosen: dict[str, list[Clip]] = {}
    ordered = sorted(training, key=lambda clip: sha256(clip.path.name.encode()).digest())
    for label in sorted({clip.label for clip in training}):
        mine = [clip for clip in ordered if clip.label == label]
        first = {clip.source: clip for clip in reversed(mine)}
        distinct = [clip for clip in mine if first[clip.source] is clip]
        others = [clip for clip in mine if first[clip.source] is not clip]
        chosen[label] = [*distinct, *others][:count]
    return chosen


def one(
    chosen: dict[str, list[Clip]],
    test: Sequence[Scored],
    teacher: Teacher,
    outside: dict[str, list[dict[str, np.ndarray]]],
) -> dict[str, dict[str, float]]:
    """Return the figures of one teaching."""
    labels = list(chosen)
    recordings = {
        label: [teacher.features(trim(read(clip.path))) for clip in clips]
        for label, clips in chosen.items()
    }
    right = np.array([labels.index(each.clip.label) for each in test])
    taught = {rate: [Taught(x, recordings[x], rate) for x in labels] for rate in RATES}
    at = {rate: heads.fit(teacher.space, of) for rate, of in taught.items()}
    accuracy = {"taught": _share(at[1.0], test, right)}
    accuracy |= simple(chosen, test, right, teacher, labels)
    counts = {
        "sounds": len(labels),
        "recordings": len({c.source for clips in chosen.values() for c in clips}),
        "clips": len(test),
        "test recordings": len({each.clip.source for each in test}),
    }
    figures = {"accuracy": accuracy, "of": {k: float(v) for k, v in counts.items()}}
    if outside:
        figures |= alarms(at, test, right, outside)
    return figures


def _share(of: heads.Heads, test: Sequence[Scored], right: np.ndarray) -> float:
    means = np.stack([of.confidences(each.embeddings).mean(axis=0) for each in test])
    return float((means.argmax(axis=1) == right).mean())


def simple(
    chosen: dict[str, list[Clip]],
    test: Sequence[Scored],
    right: np.ndarray,
    teacher: Teacher,
    labels: Sequence[str],
) -> dict[str, float]:
    """Return the accuracy of nearest mean and a linear model on whole clips' mean embeddings."""
    own = {
        label: [teacher.embedder.embed(read(clip.path))[1] for clip in clips]
        for label, clips in chosen.items()
    }
    found = {}
    for window in teacher.windows:
        rows = np.stack([each[window].mean(axis=0) for x in labels for each in own[x]])
        y = np.repeat(np.arange(len(labels)), [len(own[x]) for x in labels])
        asked = np.stack([each.embeddings[window].mean(axis=0) for each in test])
        means = space.unit(np.stack([rows[y == i].mean(axis=0) for i in range(len(labels))]))
        nearest = (space.unit(asked) @ means.T).argmax(axis=1)
        found[f"nearest mean, {window}"] = float((nearest == right).mean())
        linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
        found[f"linear, {window}"] = float((linear.fit(rows, y).predict(asked) == right).mean())
    return found


def alarms(
    at: dict[float, heads.Heads],
    test: Sequence[Scored],
    right: np.ndarray,
    outside: dict[str, list[dict[str, np.ndarray]]],
) -> dict[str, dict[str, float]]:
    """Return false alarms a day by what was promised, and what of the test clips is found."""
    measured: dict[str, float] = {}
    recall: dict[str, float] = {}
    for rate, of in at.items():
        for name, recordings in outside.items():
            events, hops = 0, 0
            for embeddings in recordings:
                confidences = of.confidences(embeddings)
                events += sum(_events(column) for column in confidences.T)
                hops += confidences.size
            measured[f"{rate:g}, {name}"] = events / (hops * HOP_S / 86_400)
            measured[f"hours of {name}"] = hops * HOP_S / 3600 / len(of.labels)
        peaks = np.stack([of.confidences(each.embeddings).max(axis=0) for each in test])
        found = peaks >= ON
        recall[f"promised {rate:g} a day"] = float(found[np.arange(len(test)), right].mean())
    recall["measured 1 an hour"] = _at_one_an_hour(at[AN_HOUR], test, right, outside)
    return {"false alarms a day": measured, "recall": recall}


def _at_one_an_hour(
    of: heads.Heads,
    test: Sequence[Scored],
    right: np.ndarray,
    outside: dict[str, list[dict[str, np.ndarray]]],
) -> float:
    """Return the recall at thresholds that let one alarm an hour pass, each sound's own."""
    every = [x for recordings in outside.values() for x in recordings]
    odds = [of.log_odds(of.space.features(each)) for each in every]
    hours = sum(map(len, odds)) * HOP_S / 3600
    peaks = np.stack([of.log_odds(of.space.features(x.embeddings)).max(axis=0) for x in test])
    found = []
    for i in range(len(of.labels)):
        column = np.sort(np.concatenate([each[:, i] for each in odds]))[::-1]
        for threshold in column[::-1][-round(60 * max(1, hours)) :]:
            passed = sum(_events(each[:, i], threshold, threshold - 1.0) for each in odds)
            if passed <= hours:
                break
        found += (peaks[right == i, i] >= threshold).tolist()
    return float(np.mean(found))


def _events(confidences: np.ndarray, on: float = ON, off: float = OFF) -> int:
    """Return how often a label begins, by hysteresis."""
    count, is_on = 0, False
    for each in confidences:
        if not is_on and each >= on:
            count, is_on = count + 1, True
        elif is_on and each < off:
            is_on = False
    return count


def markdown(results: dict[str, Any]) -> str:
    """Return a table for each data set and group of figures."""
    lines: list[str] = []
    for name, by_count in results.items():
        for group in next(iter(by_count.values())):
            lines += [f"**{name}: {group}**", "", "| recordings a sound | " + " | ".join(by_count)]
            lines[-1] += " |"
            lines.append("| --- |" + " --- |" * len(by_count))
            for key in next(iter(by_count.values()))[group]:
                values = [of[group][key] for of in by_count.values()]
                shown = [_shown(group, value) for value in values]
                lines.append(f"| {key} | " + " | ".join(shown) + " |")
            lines.append("")
    return "\n".join(lines)


def _shown(group: str, value: float) -> str:
    return f"{100 * value:.1f} %" if group in ("accuracy", "recall") else f"{value:.1f}"


if __name__ == "__main__":
    main()
