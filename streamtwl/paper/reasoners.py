"""Reasoners that are arithmetic or linear models: from a clip's patches to a score of each label.

Those that read samples are given K and M; the others decide once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from streamtwl.bench.label_names import names_of, read_table
from streamtwl.errors import UsageError
from streamtwl.ontology import categories
from streamtwl.paper import linear_models
from streamtwl.paper.data_sets import validation_split
from streamtwl.reasoners.sampling import Sampler
from streamtwl.training import linear
from streamtwl.training.datasets import Clip
from streamtwl.training.hmm import Filter
from streamtwl.training.posteriors import Scored

LEAST = 1e-6  # under a probability's logarithm
PENALTIES = (1e-3, 1e-2, 1e-1)  # of the linear model of one patch
DURATIONS_S, EXPONENTS = (2.0, 10.0, 60.0), (0.1, 0.3, 1.0)  # of the HMM


@dataclass(frozen=True, slots=True)
class Draws:
    """K and M, and the seed of the draws."""

    samples: int = 0  # 0: nothing is drawn
    traces: int = 1
    seed: int = 0


# (patches of n clips, their names, draws) to float[M, n, L]
Scores = Callable[[Sequence[Scored], Sequence[str], Draws], np.ndarray]


@dataclass(frozen=True, slots=True)
class Task:
    """What a reasoner is fitted on: n clips with their patches; C categories, L labels."""

    labels: list[str]
    several: bool
    clips: list[Clip]
    scored: list[Scored]
    truth: np.ndarray  # bool[n, L]
    categories: Sequence[str]
    hop_s: float
    seed: int
    names: dict[str, list[int]] = field(default_factory=dict)  # of a label, among the categories

    def halves(self) -> np.ndarray:
        """Return bool[n]: whether a clip is one to fit on, or one to choose by."""
        to_fit, _ = validation_split(self.clips, self.seed, self.several)
        paths = {clip.path for clip in to_fit}
        return np.array([clip.path in paths for clip in self.clips])


def fit(kind: str, task: Task, samples: Sequence[int] = ()) -> Scores:
    """Return a reasoner by its name in the plan; raises UsageError where it cannot be.

    One that reads samples can be scored with these K.
    """
    if kind.startswith("names-"):
        return _by_names(task, POOLS[kind.removeprefix("names-")])
    if kind in POOLS:
        return _pooled(_patch_model(task), POOLS[kind])
    if kind == "hmm":
        return _hmm(task)
    if kind == "counts":
        return _counts(task, samples)
    return _linear(task, linear_models.FEATURES[kind])


def draw(scored: Scored, clip: str, draws: Draws) -> np.ndarray:
    """Return int16[P, M, K, 2] samples of a clip's patches, the same whatever else is drawn."""
    sampler = Sampler([clip], draws.samples, draws.traces, 1.0, draws.seed)
    return np.stack([sampler.draw(0, posterior) for posterior in scored.posteriors])


def check_names(table: str) -> None:
    """Raise UsageError where a data set's table of names is none."""
    if table:
        try:
            read_table(Path(table), {name.lower() for name in categories()})
        except UsageError as error:
            raise UsageError(str(error).replace("--names ", "names: ")) from None


def columns_of(labels: Sequence[str], table: str, among: Sequence[str]) -> dict[str, list[int]]:
    """Return where each label's names of AudioSet stand among a backbone's categories."""
    index = {name: i for i, name in enumerate(among)}
    found = {}
    for label in labels:
        try:
            names = names_of([label], Path(table) if table else None)[label]
        except UsageError:
            continue  # a label without a name
        there = [index[categories()[i]] for i in names if categories()[i] in index]
        if there:
            found[label] = there
    return found


def _vote(p: np.ndarray) -> np.ndarray:
    voting = p[p.max(axis=1) > 0]  # a patch that scores nothing, as silence, has no vote
    votes = np.bincount(voting.argmax(axis=1), minlength=p.shape[1]) / len(p)
    return votes + 1e-3 * p.mean(axis=0)  # a tie goes to the higher mean


def _mean(p: np.ndarray) -> np.ndarray:
    return p.mean(axis=0)


def _log_mean(p: np.ndarray) -> np.ndarray:
    return np.exp(np.log(p + LEAST).mean(axis=0))


POOLS = {"vote": _vote, "mean": _mean, "log-mean": _log_mean}  # float[P, L] to float[L]
Pool = Callable[[np.ndarray], np.ndarray]


def _by_names(task: Task, pool: Pool) -> Scores:
    """Each label has the score of the highest of its names; one without a name is never chosen."""
    if not task.names:
        raise UsageError(
            "no label has a name of AudioSet: map them in a table (CSV, columns category and "
            "audioset) and name it as `names`"
        )
    there = [task.names.get(label, []) for label in task.labels]

    def by_label(posteriors: np.ndarray) -> np.ndarray:
        found = np.zeros((len(posteriors), len(there)))
        for i, columns in enumerate(there):
            if columns:
                found[:, i] = posteriors[:, columns].max(axis=1)
        return found

    return _pooled(by_label, pool)


def _pooled(by_patch: Callable[[np.ndarray], np.ndarray], pool: Pool) -> Scores:
    def scores(scored: Sequence[Scored], _clips: Sequence[str], _draws: Draws) -> np.ndarray:
        return np.stack([pool(by_patch(each.posteriors)) for each in scored])[None]

    return scores


def _problem(task: Task, chosen: np.ndarray) -> linear.Problem:
    some = [i for i in range(len(task.scored)) if chosen[i]]
    rows = np.concatenate([task.scored[i].posteriors for i in some])
    repeats = [len(task.scored[i].posteriors) for i in some]
    truth = np.repeat(task.truth[some], repeats, axis=0)
    return linear.Problem(rows, np.ones(rows.shape[1], bool), truth)


def _patch_model(task: Task) -> Callable[[np.ndarray], np.ndarray]:
    """Return the read-out of one patch: float[P, C] posteriors to float[P, L] probabilities."""
    model = _best_patch_model(task)[0]
    return lambda posteriors: np.exp(model(posteriors)[..., :-1])


def _best_patch_model(task: Task) -> tuple[linear.PatchModel, linear.PatchModel, np.ndarray]:
    """Return the model of all clips, that of the clips to fit on, and which these are.

    The penalty is the one under which the others' labels are likeliest, patch by patch.
    """
    fitted = task.halves()
    others = [i for i in range(len(fitted)) if not fitted[i]]
    problem = _problem(task, fitted)

    def likelihood(penalty: float) -> float:
        model = problem.fit(penalty)
        by_clip = [(model(task.scored[i].posteriors)[:, :-1] * task.truth[i]).sum() for i in others]
        return float(np.sum(by_clip))

    penalty = max(PENALTIES, key=likelihood)
    everything = _problem(task, np.ones(len(fitted), bool)).fit(penalty)
    return everything, problem.fit(penalty), fitted


def _hmm(task: Task) -> Scores:
    """The HMM filter over the same read-out: the mean of its beliefs over the clip."""
    model, fitted_model, fitted = _best_patch_model(task)
    others = [i for i in range(len(fitted)) if not fitted[i]]

    def with_model(patch: linear.PatchModel, duration_s: float, exponent: float) -> Scores:
        forward = Filter(patch, duration_s, exponent)

        def of(each: Scored) -> np.ndarray:
            logs = patch(each.posteriors)[None]
            elapsed_s = np.full(logs.shape[:2], task.hop_s, np.float32)
            return forward.scores(logs, elapsed_s)[0].mean(axis=0)

        return lambda scored, _clips, _draws: np.stack([of(each) for each in scored])[None]

    def likelihood(setting: tuple[float, float]) -> float:
        scores = with_model(fitted_model, *setting)([task.scored[i] for i in others], [], Draws())
        return float((np.log(scores[0] + LEAST) * task.truth[others]).sum())

    settings = [(duration, exponent) for duration in DURATIONS_S for exponent in EXPONENTS]
    return with_model(model, *max(settings, key=likelihood))


def _linear(task: Task, features: linear_models.Features) -> Scores:
    x = np.stack([features.of(each) for each in task.scored])
    model = linear_models.fit(x, task.clips, task.truth, task.several, features.scaled, task.seed)

    def scores(scored: Sequence[Scored], _clips: Sequence[str], _draws: Draws) -> np.ndarray:
        x = np.stack([features.of(each) for each in scored])
        return linear_models.probabilities(model, x, len(task.labels))[None]

    return scores


def _counts(task: Task, samples: Sequence[int]) -> Scores:
    """A logistic regression on how often each category was drawn, of its own for each K."""
    models: dict[int, linear_models.Pipeline] = {}
    n_categories = len(task.categories)

    def features(scored: Sequence[Scored], clips: Sequence[str], draws: Draws) -> np.ndarray:
        each = [draw(one, clip, draws)[..., 0] for one, clip in zip(scored, clips, strict=True)]
        return np.stack(
            [
                [linear_models.root_of_counts(one[:, m], n_categories) for one in each]
                for m in range(draws.traces)
            ]
        )

    numbered = [f"{number}" for number in range(len(task.scored))]  # copies of a clip differ
    for k in samples:
        own = Draws(k, 1, task.seed + 1_000_000)  # draws of their own for training
        x = features(task.scored, numbered, own)[0]
        models[k] = linear_models.fit(x, task.clips, task.truth, task.several, False, task.seed)

    def scores(scored: Sequence[Scored], clips: Sequence[str], draws: Draws) -> np.ndarray:
        drawn = features(scored, clips, draws)
        model, n_labels = models[draws.samples], len(task.labels)
        return np.stack([linear_models.probabilities(model, x, n_labels) for x in drawn])

    return scores
