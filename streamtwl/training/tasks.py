"""What a reader learns to say: a data set's own labels, or the open vocabulary."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from streamtwl.errors import UsageError
from streamtwl.ontology import ancestors, categories, everyday
from streamtwl.training import fitting, reading, steps
from streamtwl.training.fitting import Chosen, Streams
from streamtwl.training.lessons import Lessons
from streamtwl.training.reading import Readings

LAGS = fitting.LAGS  # patches that a reader of a data set's labels thinks over
OPEN_LAGS = 2
TRUE_WEIGHT = 10.0  # of a category that the truth corrects, in the loss
UNHEARD = 0.01  # a sound none of whose names the teacher hears is taught by its first name


class Task(Protocol):
    """Labels, what a reader's residual path makes of them, and what it should say."""

    labels: list[str]
    about: str  # the residual path
    lags: int
    floored: Tensor | None  # bool[L]: see reader.Reader
    grows: bool  # the body: see reader.Reader
    key: str  # two tasks with the same are the same

    def residual(self, parts: Sequence[Streams]) -> steps.Residual:
        """Return the residual path, fitted on these parts."""
        ...

    def readings(self, streams: Streams, residual: steps.Residual | None) -> Readings:
        """Return what a reader is trained on."""
        ...

    def judged(self, scores: np.ndarray) -> np.ndarray:
        """Return float32[n, T, L] scores of the data set's labels."""
        ...

    def events_of_nothing(self, given: Lessons) -> float:
        """Return how many events the lessons' backgrounds alone may lead to."""
        ...


class Closed:
    """A data set's labels, over an HMM filter on a linear model of single patches."""

    lags = LAGS
    floored: Tensor | None = None
    grows = False
    about = f"{fitting.FILTER}, {LAGS} patches back"

    def __init__(self, labels: list[str], fitted: Chosen) -> None:
        self.labels = labels
        self._fitted = fitted
        self.key = f"{fitted.setting}"

    def residual(self, parts: Sequence[Streams]) -> steps.FixedLag:
        """Return the HMM filter, with the setting that the validation split chose for it."""
        return steps.FixedLag(self._filter(parts), LAGS).requires_grad_(False)

    def readings(self, streams: Streams, residual: steps.Residual | None) -> Readings:
        """Return streams with the share of the next hop in which each label sounds."""
        return reading.readings(streams, residual, torch.from_numpy(streams.ahead).float(), LAGS)

    def judged(self, scores: np.ndarray) -> np.ndarray:
        """They are the data set's labels."""
        return scores

    def events_of_nothing(self, given: Lessons) -> float:
        """Return as many as the HMM filter tells, fitted on the scenes to fit, as the reader is."""
        scores = fitting.scores_of(self._filter(given.fit), given.nothing)
        return fitting.onsets(scores, self._fitted.on, self._fitted.off)

    def _filter(self, parts: Sequence[Streams]) -> steps.Filter:
        setting = self._fitted.setting
        patch = fitting.fit_patch_model(fitting.joined(parts), setting["penalty"])
        return steps.Filter(patch, setting["duration_s"], setting["exponent"])


class Open:
    """AudioSet's categories, over the pooled posterior.

    The teacher is the backbone itself, told more: it hears the scene also in less noise, and the
    next two windows, which cover the hop that a decision is for. Where a data set's label has names
    among the categories, the truth corrects the teacher: while it sounds its likeliest name gets 1,
    the others in proportion, and what they are kinds of at least as much; else they get 0. A
    category that no truth corrects is said at least as surely as the evidence says it, where it is
    plain: what a reader has learned of it, it has learned from the same model.
    """

    lags = OPEN_LAGS
    grows = True

    def __init__(
        self, taught: Mapping[str, list[int]], truth: list[str], half_life_s: float
    ) -> None:
        """`taught` gives categories of a data set's labels, `truth` all of these in their order."""
        self.labels = list(categories())
        self._taught = taught
        self._truth = truth
        self._half_life_s = half_life_s
        floored = torch.ones(len(self.labels), dtype=torch.bool)
        for name in self._corrected:
            floored[[name, *sorted(ancestors()[name])]] = False
        self.floored: Tensor | None = floored
        self.key = f"{dict(taught)}, grows"
        self.about = f"posteriors pooled over {half_life_s:g} s, {OPEN_LAGS} patches back"

    def residual(self, parts: Sequence[Streams]) -> steps.Pooled:
        """Return the evidence, which has nothing to fit."""
        return steps.Pooled(len(self.labels), self._half_life_s, OPEN_LAGS)

    def readings(self, streams: Streams, residual: steps.Residual | None) -> Readings:
        """Return streams with what the teacher says of them."""
        weight = torch.ones(len(self.labels))
        weight[sorted(self._corrected)] = TRUE_WEIGHT
        return reading.readings(streams, residual, self._teach(streams), OPEN_LAGS, weight)

    def judged(self, scores: np.ndarray) -> np.ndarray:
        """Return the best score among each label's names."""
        return np.stack(
            [scores[..., self._taught[label]].max(axis=-1) for label in self._taught], -1
        )

    def events_of_nothing(self, given: Lessons) -> float:
        """Return any number: the pipeline's thresholds hold for the open vocabulary."""
        return np.inf

    @property
    def _corrected(self) -> set[int]:
        """The categories that the truth corrects."""
        return {name for names in self._taught.values() for name in names}

    def _teach(self, streams: Streams) -> Tensor:
        """Return float32[n, T, C]."""
        heard = streams.posteriors
        if streams.cleaner is not None:
            heard = torch.maximum(heard, streams.cleaner)
        padded = torch.cat((heard, heard[:, -1:], heard[:, -1:]), dim=1)
        target = (padded[:, 1:-1] + padded[:, 2:]) / 2
        ahead = torch.from_numpy(streams.ahead).float()
        heard, corrected = target.clone(), sorted(self._corrected)
        target[:, :, corrected] = 0
        for label, names in self._taught.items():
            share = ahead[:, :, self._truth.index(label), None]
            said = heard[:, :, names]
            most = said.max(dim=-1, keepdim=True).values
            first = torch.zeros(len(names))
            first[0] = 1.0
            right = share * torch.where(most > UNHEARD, said / most, first)
            target[:, :, names] = torch.maximum(target[:, :, names], right)
        for name in corrected:
            for above in ancestors()[name]:
                target[:, :, above] = torch.maximum(target[:, :, above], target[:, :, name])
        return target


def names_of(labels: Iterable[str], table: Path | None) -> dict[str, list[int]]:
    """Return the categories that each label names: by a table, or by being called the same.

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
                f"'{label}' is none of AudioSet's names: rename its folder (see `streamtwl labels "
                "--all`), or give its names in a table with --names"
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
        raise UsageError(f"--names {table} is no table in UTF-8: {error}") from None
    except KeyError:
        raise UsageError(f"--names {table}: it takes the columns category and audioset") from None
    for label, names in listed.items():
        for name in names:
            if name and name.lower() not in known:
                raise UsageError(f"--names {table}: '{name}', of {label}, is none of AudioSet's")
    return {label: [name for name in names if name] for label, names in listed.items()}
