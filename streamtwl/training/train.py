"""`streamtwl train`: from labelled clips to a reasoner's file."""

from collections.abc import Callable, Sequence
from pathlib import Path

import streamtwl
from streamtwl import config
from streamtwl.audio.asked import SOURCE_NAME
from streamtwl.config import Settings
from streamtwl.errors import UsageError
from streamtwl.evaluation import baselines, datasets, streams
from streamtwl.evaluation.posteriors import Scorer
from streamtwl.ontology import categories
from streamtwl.reasoners.card import Card
from streamtwl.training import steps

FITTING, CHOOSING = "scenes to fit", "scenes to choose by"
STAGES = (FITTING, CHOOSING, "models")
Progress = Callable[[str, int, int], None]  # (what, done, of)


def train(
    folder: Path,
    corpus: Path,
    out: Path,
    leave_out: Sequence[int],
    seed: int,
    hop_s: float,
    progress: Progress,
) -> Card:
    """Train the HMM filter on scenes of a data set's clips; write its file, return its card.

    `corpus` holds the backgrounds, in which none of the sounds is heard. Folds left out are not
    looked at. Raises UsageError for a data set or a name that does not fit.
    """
    if out.suffix != ".onnx" or not SOURCE_NAME.fullmatch(out.stem):
        raise UsageError(f"-o {out}: it takes a name of a-z, 0-9, _ and - that ends in .onnx")
    clips = [clip for clip in datasets.load(folder) if clip.fold not in leave_out]
    if not clips:
        raise UsageError(f"--leave-out leaves no clip of {folder}")
    config.override(Settings(), {"hop_s": hop_s})  # refuses a hop that `listen` would refuse
    labels = sorted({clip.label for clip in clips})
    fit, choose, _ = streams.materials(clips, corpus, None, seed)
    scorer = Scorer(hop_s=hop_s)

    def scenes_of(material: streams.Material, what: str, count: int) -> baselines.Streams:
        made = streams.training_streams(
            material,
            count,
            [seed, STAGES.index(what)],
            scorer,
            lambda done, total: progress(what, done, total),
        )
        return baselines.arrays(made, labels)

    fit_on = scenes_of(fit, FITTING, streams.TRAINING_SCENES)
    sounding = fit_on.sounding.any(axis=1).any(axis=0)
    if not sounding.all():
        raise UsageError(
            f"{labels[int(sounding.argmin())]} never sounds in the training scenes: its clips have "
            "to be loud enough, "
            f"shorter than {streams.SCENE_S:g} s, and of more than one recording"
        )
    choose_by = scenes_of(choose, CHOOSING, streams.VALIDATION_SCENES)
    fitted: list[str] = []

    def count_fitted(what: str) -> None:
        progress(STAGES[2], len(fitted), 2)
        fitted.append(what)

    chosen = baselines.fit_timeline(fit_on, choose_by, seed, count_fitted, [baselines.FILTER])
    progress(STAGES[2], 2, 2)
    one = chosen[baselines.FILTER]
    name = folder.resolve().name
    left_out = "".join(f" --leave-out {fold}" for fold in leave_out)
    card = Card(
        name=out.stem,
        about=f"{baselines.FILTER} over a linear model of single patches",
        kind="recurrent",
        backbone="yamnet",
        hop_s=hop_s,
        labels=labels,
        on=one.on,
        off=one.off,
        data=name,
        folds=sorted({clip.fold for clip in clips}),
        command=(
            f"streamtwl train {name} --corpus CORPUS -o {out.name}{left_out} --seed {seed}"
            f" --hop {hop_s:g}"
        ),
        version=streamtwl.__version__,
        validation={
            "in_force_f1": round(one.in_force_f1, 4),
            "false_starts_per_minute": round(one.false_starts_per_minute, 3),
            **one.setting,
        },
    )
    steps.export(one.step, len(categories()), card, out)
    return card
