"""Reasoners that were trained before: loaded by path, and read as `listen` reads them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamtwl import config
from streamtwl.backbones import causal
from streamtwl.config import Settings
from streamtwl.errors import UsageError
from streamtwl.models import runtime
from streamtwl.paper.data_sets import DataSet, Split
from streamtwl.paper.plan import Checkpoint
from streamtwl.paper.reasoners import LEAST, Draws, Scores
from streamtwl.pipeline import hearing
from streamtwl.reasoners import choice, graph
from streamtwl.reasoners.card import Card
from streamtwl.reasoners.reads import backbone_of
from streamtwl.stages import SAMPLE_RATE, Decision, Patch, Score, Window
from streamtwl.training.posteriors import Scored, Scorer


def file_of(spec: Checkpoint, split: Split) -> Path:
    """Return the file for a split."""
    return Path(spec.file.replace("{fold}", split.name))


def card_of(file: Path) -> Card:
    """Return a checkpoint's card; raises UsageError where it is none."""
    if not file.is_file():
        raise UsageError(f"{file}: there is no such file")
    return graph.read_card(graph.open_session(file, 1), file)


def refuse_tested(spec: Checkpoint, data: DataSet) -> None:
    """Raise UsageError where a file was trained on a fold that is tested.

    A file of other labels knows nothing of these folds.
    """
    for split in data.splits:
        file = file_of(spec, split)
        if not file.is_file():
            continue
        card = card_of(file)
        seen = sorted({clip.fold for clip in split.test} & set(card.folds))
        if seen and set(card.labels) & set(data.labels):
            numbers = ", ".join(map(str, card.folds))
            raise UsageError(
                f"{file} was trained on the folds {numbers} of {card.data}, and {data.name}'s fold "
                f"{seen[0]} is tested: name other folds as `test`, or with {{fold}} in `file` a "
                "checkpoint for each fold"
            )


def refuse_taught(window: str, data: DataSet) -> None:
    """Raise UsageError where a backbone that was trained here was taught a fold that is tested."""
    if backbone_of(window) != causal.NAME:
        return
    card = causal.card_of(runtime.open_session(causal.FILE, 1))
    seen = {clip.fold for split in data.splits for clip in split.test} & set(card.folds)
    if seen and data.name in card.data.split(", "):
        numbers = ", ".join(map(str, card.folds))
        raise UsageError(
            f"{window} was taught the folds {numbers} of {data.name}, and fold {min(seen)} is "
            "tested: name other folds as `test`, and these as `train`"
        )


def windows_of(card: Card) -> list[str]:
    """Return the windows that a checkpoint reads."""
    return choice.windows(Settings(), card)


def scores(file: Path, data: DataSet, scorer: Scorer) -> Scores:
    """Return a checkpoint as a reasoner of clips whose `posteriors` are whole rows of `scorer`.

    A clip's score is the geometric mean of the last decisions on each of its patches.
    """
    card = card_of(file)
    unknown = sorted(set(data.labels) - set(card.labels))
    if unknown:
        raise UsageError(f"{file} does not know the label {unknown[0]}")
    columns = [card.labels.index(label) for label in data.labels]
    settings = config.override(
        Settings(), {"reasoner.file": str(file), "trace.think": "fixed", "hop_s": scorer.hop_s}
    )
    loaded = choice.load(settings)
    settings = config.with_windows(settings, scorer.windows)

    def of(scored: Sequence[Scored], _clips: Sequence[str], draws: Draws) -> np.ndarray:
        traces = config.override(settings, {"trace.seed": draws.seed})
        reasoner = choice.make(traces, loaded, *hearing(traces), ["clip"])
        found = []
        for each in scored:
            decided = []
            for patch in _patches(each.posteriors, scorer):
                decisions = reasoner.step([patch])
                while not reasoner.settled:
                    decisions = reasoner.refine(np.inf) or decisions
                decided.append(decisions[0])
            reasoner.forget(0)
            newest = _newest(decided)
            found.append(np.exp(np.log(newest[:, columns] + LEAST).mean(axis=0)))
        return np.stack(found)[None]

    return of


def _patches(rows: np.ndarray, scorer: Scorer) -> Sequence[Patch]:
    """Return float32[P, F] rows as the patches of a stream."""
    made = []
    for number, row in enumerate(rows):
        position = scorer.first + round(number * scorer.hop_s * SAMPLE_RATE)
        window = Window(0, position, 0, number == 0, (), 0.0, None, 0.0)
        scores = [
            Score(
                name,
                0.0,
                row[scorer.columns[name, "posterior"]],
                row[scorer.columns[name, "embedding"]],
            )
            for name in scorer.windows
        ]
        made.append(Patch(window, tuple(scores)))
    return made


def _newest(decided: Sequence[Decision]) -> np.ndarray:
    """Return float32[P, L], the last decision on each patch."""
    found = np.stack([each.specific for each in decided])
    for at, each in enumerate(decided):
        if each.earlier is not None:
            for lag, earlier in enumerate(each.earlier[:at], 1):
                found[at - lag] = earlier[1]
    return found
