"""The scenes that a reasoner is trained on: a data set's clips over the backgrounds of a corpus."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamtwl.errors import UsageError
from streamtwl.reasoners.reads import Read
from streamtwl.training import fitting, scored_scenes
from streamtwl.training.datasets import Clip
from streamtwl.training.fitting import SceneArrays
from streamtwl.training.posteriors import Scorer
from streamtwl.training.scored_scenes import ScoredScene

FITTING, CHOOSING, BACKGROUND = "scenes to fit", "scenes to choose by", "background scenes"
QUIET = 5  # background scenes in each part of those to fit
PARTS = 3  # of the scenes to fit, whose sounds share no source recording
Progress = Callable[[str, int, int], None]  # (what, done, of)


@dataclass(frozen=True, slots=True)
class TrainingScenes:
    """Scenes to fit, in parts whose sounds share no source recording, and scenes to choose by."""

    fit: list[SceneArrays]
    choose: SceneArrays
    background: SceneArrays  # to choose by: backgrounds alone
    quiet: list[SceneArrays]  # the same to fit, for each part
    labels: list[str]

    @property
    def whole(self) -> SceneArrays:
        """All scenes to fit."""
        return fitting.joined(self.fit)

    @property
    def parts(self) -> list[SceneArrays]:
        """The scenes to fit with their background scenes, in parts."""
        return [fitting.joined(pair) for pair in zip(self.fit, self.quiet, strict=True)]


def prepare(
    clips: Sequence[Clip],
    corpus: Path,
    test_fold: int | None,
    seed: Sequence[int],
    scorer: Scorer,
    read: Sequence[Read],
    progress: Progress,
) -> TrainingScenes:
    """Make the scenes and score them, to `read` these outputs of their windows.

    Raises UsageError for clips that make none.
    """
    labels = sorted({clip.label for clip in clips})
    to_fit, to_choose, _ = scored_scenes.materials(clips, corpus, test_fold, seed[0])
    fit: list[SceneArrays] = []
    quiet: list[SceneArrays] = []

    def arrays(streams: Sequence[ScoredScene]) -> SceneArrays:
        picked = [stream.reading(scorer, read) for stream in streams]
        return fitting.arrays(picked, labels, scorer.is_posterior(read))

    def count(done: int, of: int) -> None:
        progress(FITTING, len(fit) * of + done, PARTS * of)

    for number, part in enumerate(scored_scenes.by_source(to_fit, PARTS, seed[0])):
        made = scored_scenes.make_training_scenes(
            part,
            scored_scenes.TRAINING_SCENES,
            [*seed, number],
            scorer,
            count,
            crop=True,
        )
        fit.append(arrays(made))
        rng_seed = [*seed, PARTS + 2 + number]
        made = scored_scenes.make_background_scenes(part, QUIET, rng_seed, scorer, lambda *_: None)
        quiet.append(arrays(made))
    made = scored_scenes.make_training_scenes(
        to_choose,
        scored_scenes.VALIDATION_SCENES,
        [*seed, PARTS],
        scorer,
        lambda done, total: progress(CHOOSING, done, total),
    )
    background = scored_scenes.make_background_scenes(
        to_choose,
        scored_scenes.BACKGROUND_SCENES,
        [*seed, PARTS + 1],
        scorer,
        lambda done, total: progress(BACKGROUND, done, total),
    )
    prepared = TrainingScenes(fit, arrays(made), arrays(background), quiet, labels)
    sounding = prepared.whole.sounding.any(axis=1).any(axis=0)
    if not sounding.all():
        raise UsageError(
            f"{labels[int(sounding.argmin())]} never sounds in the training scenes: its clips have "
            f"to be loud enough, shorter than {scored_scenes.SCENE_S:g} s, and from more than one "
            "recording"
        )
    return prepared
