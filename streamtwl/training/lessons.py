"""What a reasoner of a data set's labels learns from: scenes of its clips over a corpus."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamtwl.errors import UsageError
from streamtwl.training import fitting, streams
from streamtwl.training.datasets import Clip
from streamtwl.training.fitting import Streams
from streamtwl.training.posteriors import Scorer

FITTING, CHOOSING, NOTHING = "scenes to fit", "scenes to choose by", "scenes of nothing"
QUIET = 5  # scenes of nothing in each part of those to fit
PARTS = 3  # of the scenes to fit, whose sounds share no source recording
Progress = Callable[[str, int, int], None]  # (what, done, of)


@dataclass(frozen=True, slots=True)
class Lessons:
    """Scenes to fit, in parts whose sounds share no source recording, and scenes to choose by."""

    fit: list[Streams]
    choose: Streams
    nothing: Streams  # to choose by: backgrounds alone
    quiet: list[Streams]  # the same to fit, for each part; empty for the open vocabulary
    labels: list[str]

    @property
    def whole(self) -> Streams:
        """All scenes to fit."""
        return fitting.joined(self.fit)

    @property
    def parts(self) -> list[Streams]:
        """The scenes to fit with those of nothing, in parts."""
        if not self.quiet:
            return self.fit
        return [fitting.joined(pair) for pair in zip(self.fit, self.quiet, strict=True)]


def prepare(
    clips: Sequence[Clip],
    corpus: Path,
    test_fold: int | None,
    seed: Sequence[int],
    scorer: Scorer,
    progress: Progress,
    cleaner: bool = False,
) -> Lessons:
    """Make the scenes and score them; raises UsageError for clips that make none.

    With `cleaner` they are also scored in less noise: see `streams.training_streams`.
    """
    labels = sorted({clip.label for clip in clips})
    to_fit, to_choose, _ = streams.materials(clips, corpus, test_fold, seed[0])
    fit: list[Streams] = []
    quiet: list[Streams] = []

    def count(done: int, of: int) -> None:
        progress(FITTING, len(fit) * of + done, PARTS * of)

    for number, part in enumerate(streams.by_source(to_fit, PARTS, seed[0])):
        made = streams.training_streams(
            part,
            streams.TRAINING_SCENES,
            [*seed, number],
            scorer,
            count,
            crop=True,
            cleaner=cleaner,
        )
        fit.append(fitting.arrays(made, labels))
        if not cleaner:
            rng_seed = [*seed, PARTS + 2 + number]
            made = streams.nothing_streams(part, QUIET, rng_seed, scorer, lambda *_: None)
            quiet.append(fitting.arrays(made, labels))
    made = streams.training_streams(
        to_choose,
        streams.VALIDATION_SCENES,
        [*seed, PARTS],
        scorer,
        lambda done, total: progress(CHOOSING, done, total),
        cleaner=cleaner,
    )
    nothing = streams.nothing_streams(
        to_choose,
        streams.NOTHING_SCENES,
        [*seed, PARTS + 1],
        scorer,
        lambda done, total: progress(NOTHING, done, total),
    )
    lessons = Lessons(
        fit, fitting.arrays(made, labels), fitting.arrays(nothing, labels), quiet, labels
    )
    sounding = lessons.whole.sounding.any(axis=1).any(axis=0)
    if not sounding.all():
        raise UsageError(
            f"{labels[int(sounding.argmin())]} never sounds in the training scenes: its clips have "
            "to be loud enough, "
            f"shorter than {streams.SCENE_S:g} s, and of more than one recording"
        )
    return lessons
