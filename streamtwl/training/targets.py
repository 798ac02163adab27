"""What a trace model is trained to predict: when a data set's labels sound."""

from collections.abc import Sequence

import torch

from streamtwl.training import fitting, hmm, steps, trace_training
from streamtwl.training.fitting import Chosen, SceneArrays
from streamtwl.training.trace_training import TraceExamples
from streamtwl.training.training_scenes import TrainingScenes


class Targets:
    """A trace model's labels, its residual path, and its training targets.

    The residual path is an HMM filter on a linear model of single patches, which looks back.
    """

    lags = fitting.LAGS  # earlier patches that a trace model revises
    about = f"{fitting.FILTER}, {lags} patches back"  # the residual path

    def __init__(self, labels: list[str], fitted: Chosen) -> None:
        self.labels = labels
        self._fitted = fitted
        self.key = f"{fitted.setting}"  # equal for equal targets

    def residual(self, parts: Sequence[SceneArrays]) -> steps.FixedLag:
        """Return the HMM filter, with the setting that the validation split chose for it."""
        return steps.FixedLag(steps.filter_of(self._filter(parts)), self.lags)

    def examples(self, streams: SceneArrays, residual: steps.FixedLag | None) -> TraceExamples:
        """Return streams with the share of the next hop in which each label sounds."""
        return trace_training.examples(
            streams, residual, torch.from_numpy(streams.ahead).float(), self.lags
        )

    def background_events_allowed(self, prepared: TrainingScenes) -> float:
        """Return how many events the background scenes may cause.

        As many as the HMM filter causes, fitted on the same scenes.
        """
        filter, background = self._filter(prepared.fit), prepared.background
        scores = filter.scores(filter.patch(background.rows), background.elapsed_s)
        return fitting.onsets(scores, self._fitted.on, self._fitted.off)

    def _filter(self, parts: Sequence[SceneArrays]) -> hmm.Filter:
        setting = self._fitted.setting
        patch = fitting.fit_patch_model(fitting.joined(parts), setting["penalty"])
        return hmm.Filter(patch, setting["duration_s"], setting["exponent"])
