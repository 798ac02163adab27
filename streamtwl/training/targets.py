"""What a trace model is trained to predict: a data set's own labels, or the open vocabulary."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from streamtwl.errors import UsageError
from streamtwl.ontology import ancestors, categories, everyday
from streamtwl.training import fitting, hmm, steps, trace_training
from streamtwl.training.fitting import Chosen, SceneArrays
from streamtwl.training.trace_training import TraceExamples
from streamtwl.training.training_scenes import TrainingScenes

LAGS = fitting.LAGS  # earlier patches that a trace model of a data set's labels revises
OPEN_LAGS = 2
TRUE_WEIGHT = 10.0  # of a category that the truth corrects, in the loss
UNDETECTED = 0.01  # where the teacher scores no name of a sound above this, its first name gets 1


class Targets(Protocol):
    """A trace model's labels, its residual path, and its training targets."""

    labels: list[str]
    about: str  # the residual path
    lags: int
    floored: Tensor | None  # bool[L]: see trace_model.TraceModel
    grows: bool  # the trunk: see trace_model.TraceModel
    key: str  # equal for equal targets

    def residual(self, parts: Sequence[SceneArrays]) -> steps.Residual:
        """Return the residual path, fitted on these parts."""
        ...

    def examples(self, streams: SceneArrays, residual: steps.Residual | None) -> TraceExamples:
        """Return what a trace model is trained on."""
        ...

    def label_scores(self, scores: np.ndarray) -> np.ndarray:
        """Return float32[n, T, L] scores of the data set's labels."""
        ...

    def background_events_allowed(self, prepared: TrainingScenes) -> float:
        """Return how many events the background scenes may cause."""
        ...


class ClosedTargets:
    """A data set's labels, over an HMM filter on a linear model of single patches."""

    lags = LAGS
    floored: Tensor | None = None
    grows = False
    about = f"{fitting.FILTER}, {LAGS} patches back"

    def __init__(self, labels: list[str], fitted: Chosen) -> None:
        self.labels = labels
        self._fitted = fitted
        self.key = f"{fitted.setting}"

    def residual(self, parts: Sequence[SceneArrays]) -> steps.FixedLag:
        """Return the HMM filter, with the setting that the validation split chose for it."""
        return steps.FixedLag(steps.filter_of(self._filter(parts)), LAGS)

    def examples(self, streams: SceneArrays, residual: steps.Residual | None) -> TraceExamples:
        """Return streams with the share of the next hop in which each label sounds."""
        return trace_training.examples(
            streams, residual, torch.from_numpy(streams.ahead).float(), LAGS
        )

    def label_scores(self, scores: np.ndarray) -> np.ndarray:
        """Return the scores as they are."""
        return scores

    def background_events_allowed(self, prepared: TrainingScenes) -> float:
        """Return as many as the HMM filter causes, fitted on the same scenes."""
        filter, background = self._filter(prepared.fit), prepared.background
        scores = filter.scores(filter.patch(background.rows), background.elapsed_s)
        return fitting.onsets(scores, self._fitted.on, self._fitted.off)

    def _filter(self, parts: Sequence[SceneArrays]) -> hmm.Filter:
        setting = self._fitted.setting
        patch = fitting.fit_patch_model(fitting.joined(parts), setting["penalty"])
        return hmm.Filter(patch, setting["duration_s"], setting["exponent"])


class OpenTargets:
    """AudioSet's categories, over the pooled posterior.

    The teacher is the backbone itself with more to go by: it also scores the scene in less noise,
    and the next two windows, which cover the hop that a decision is for. Where a data set's label
    has names among the categories, the truth corrects the teacher: while it sounds, its most likely
    name gets 1, its other names in proportion, and their ancestors at least as much; otherwise they
    get 0. The probability of a category that no truth corrects never falls below the evidence where
    the evidence is clear: all that a trace model knows about it comes from the same backbone.
    """

    lags = OPEN_LAGS
    grows = True

    def __init__(
        self, corrected: Mapping[str, list[int]], truth: list[str], half_life_s: float
    ) -> None:
        """`corrected` maps labels of a data set to categories, `truth` is all labels in order."""
        self.labels = list(categories())
        self._categories_of = corrected
        self._truth = truth
        self._half_life_s = half_life_s
        floored = torch.ones(len(self.labels), dtype=torch.bool)
        for name in self._corrected:
            floored[[name, *sorted(ancestors()[name])]] = False
        self.floored: Tensor | None = floored
        self.key = f"{dict(corrected)}, grows"
        self.about = f"posteriors pooled over {half_life_s:g} s, {OPEN_LAGS} patches back"

    def residual(self, parts: Sequence[SceneArrays]) -> steps.Pooled:
        """Return the evidence, which has nothing to fit."""
        return steps.Pooled(len(self.labels), self._half_life_s, OPEN_LAGS)

    def examples(self, streams: SceneArrays, residual: steps.Residual | None) -> TraceExamples:
        """Return streams with the teacher's scores as targets."""
        weight = torch.ones(len(self.labels))
        weight[sorted(self._corrected)] = TRUE_WEIGHT
        return trace_training.examples(streams, residual, self._teach(streams), OPEN_LAGS, weight)

    def label_scores(self, scores: np.ndarray) -> np.ndarray:
        """Return the best score among each label's names."""
        return np.stack(
            [scores[..., self._categories_of[label]].max(axis=-1) for label in self._categories_of],
            -1,
        )

    def background_events_allowed(self, prepared: TrainingScenes) -> float:
        """Return no limit: the pipeline's thresholds hold for the open vocabulary."""
        return np.inf

    @property
    def _corrected(self) -> set[int]:
        """The categories that the truth corrects."""
        return {name for names in self._categories_of.values() for name in names}

    def _teach(self, streams: SceneArrays) -> Tensor:
        """Return float32[n, T, C]."""
        scores = torch.from_numpy(streams.rows).float()
        if streams.cleaner is not None:
            scores = torch.maximum(scores, torch.from_numpy(streams.cleaner))
        padded = torch.cat((scores, scores[:, -1:], scores[:, -1:]), dim=1)
        target = (padded[:, 1:-1] + padded[:, 2:]) / 2
        ahead = torch.from_numpy(streams.ahead).float()
        teacher, corrected = target.clone(), sorted(self._corrected)
        target[:, :, corrected] = 0
        for label, names in self._categories_of.items():
            share = ahead[:, :, self._truth.index(label), None]
            scored = teacher[:, :, names]
            most = scored.max(dim=-1, keepdim=True).values
            first = torch.zeros(len(names))
            first[0] = 1.0
            right = share * torch.where(most > UNDETECTED, scored / most, first)
            target[:, :, names] = torch.maximum(target[:, :, names], right)
        for name in corrected:
            for above in ancestors()[name]:
                target[:, :, above] = torch.maximum(target[:, :, above], target[:, :, name])
        return target


def names_of(labels: Iterable[str], table: Path | None) -> dict[str, list[int]]:
    """Return the categories that each label names: from a table, or by having the same name.

    The table has the columns category and audioset, names set off by |, as esc50_audioset.csv. A
    label may be an everyday sound's name. Raises UsageError for a label that has none.
    """
    index = {name.lower(): i for i, name in enumerate(categories())}
    known = {name: [name] for name in categories()} | dict(everyday())
    listed = {name.lower(): list(names) for name, names in known.items()}
    if table is not None:
        listed |= _read(table, set(index))
    found = {}
    for label in labels:
        names = listed.get(label.lower()) or listed.get(label.lower().replace("_", " ")) or []
        if not names:
            raise UsageError(
                f"'{label}' is not a name of AudioSet: rename its folder (see `streamtwl labels "
                "--all`), or map it to names in a table with --names"
            )
        found[label] = [index[name.lower()] for name in names]
    return found


def _read(table: Path, known: set[str]) -> dict[str, list[str]]:
    listed: dict[str, list[str]] = {}
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            for row in rows:
                names = (row["audioset"] or "").split("|")
                if not row["category"]:
                    raise UsageError(f"--names {table}: line {rows.line_num} has no category")
                listed[row["category"].lower()] = [name.strip() for name in names]
    except OSError as error:
        raise UsageError(f"--names {table}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"--names {table} is not a CSV table in UTF-8: {error}") from None
    except KeyError:
        raise UsageError(f"--names {table}: it needs the columns category and audioset") from None
    for label, names in listed.items():
        for name in names:
            if name and name.lower() not in known:
                raise UsageError(
                    f"--names {table}: '{name}', of {label}, is not a name of AudioSet: see "
                    "`streamtwl labels --all`"
                )
    return {label: [name for name in names if name] for label, names in listed.items()}
