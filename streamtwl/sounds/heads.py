"""What says whether a window is of a taught sound: linear, in closed form, with a threshold.

The direction of each sound is that of linear discriminant analysis: its mean less the bank's, by
the inverse of a covariance that all sounds share (half of the bank's, half of the taught sounds'
windows around their own means; R. A. Fisher, "The Use of Multiple Measurements in Taxonomic
Problems", 1936), with a ridge, as there may be one recording only.

The threshold is where general sound is expected to pass it `false_alarms_a_day` times: the upper
end of the bank's scores is taken for exponential (peaks over threshold: J. Pickands, "Statistical
Inference Using Extreme Order Statistics", 1975), of the same spread for all sounds, and that of the
user's own background too, where there is one; the higher of both counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from streamtwl.sounds.space import Space
from streamtwl.stages import Patch

RIDGE = 1.0  # of a covariance whose mean variance is 1; chosen on kitchen20's training folds
TAIL = 0.02  # of the bank's scores, and the share above which some may be of the same sound
BACKGROUND_TAIL = 0.05
FEWEST_BACKGROUND = 200  # windows
DAY_S = 86_400.0
LOOK_S = 1.5  # windows that are nearer to each other say the same
LOOKS = 5  # recordings that are left out in turn
FOUND = 0.1
LIKE = 25  # percentile of a sound's own scores: general sound above it is of the same kind
ON, OFF = 0.5, 0.2  # an event's; at ON a sound is as rare in general sound as the user wants


@dataclass(frozen=True)
class Taught:
    """One sound, as the heads learn it."""

    name: str
    recordings: Sequence[np.ndarray]  # float32[n, F] of each, the windows that it is known by
    false_alarms_a_day: float


@dataclass(frozen=True)
class Head:
    """How one sound is told from all else: `weights` x + `offset` is its score."""

    weights: np.ndarray  # float32[F], of length 1
    offset: float
    threshold: float
    spread: float  # in which general sound's scores become rarer by a factor of e
    left_out: int  # windows of the bank that look like the same sound


class Heads:
    """Confidences of all taught sounds; state: none."""

    def __init__(self, space: Space, labels: Sequence[str], heads: Sequence[Head]) -> None:
        self.space, self.labels, self.heads = space, list(labels), list(heads)
        self._weights = np.stack([head.weights for head in heads], axis=1)  # float32[F, T]
        self._offsets = np.array([head.offset for head in heads], np.float32)
        self._thresholds = np.array([head.threshold for head in heads], np.float32)
        self._spreads = np.array([head.spread for head in heads], np.float32)

    def score(self, patch: Patch) -> np.ndarray:
        """Return float32[T] confidences in [0, 1] of a hop."""
        return self.confidences({score.window: score.embedding[None] for score in patch.scores})[0]

    def confidences(self, embeddings: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return float32[n, T] of n windows; `ON` is at each sound's threshold.

        e times as much where general sound is e times as rare, in odds. Of sounds that are alike
        the likelier one counts: where another is ahead, a sound's confidence falls.
        """
        odds = self.log_odds(self.space.features(embeddings))
        behind = np.exp((odds - odds.max(axis=1, keepdims=True)) / 2)
        confidences = 1 / (1 + np.exp(-np.clip(odds, -50, 50)))
        return (confidences * behind).astype(np.float32)

    def log_odds(self, features: np.ndarray) -> np.ndarray:
        """Return float32[n, T] of float32[n, F]: 0 at the threshold, 1 where e times as rare."""
        scores = features @ self._weights + self._offsets
        return (scores - self._thresholds) / self._spreads


def fit(space: Space, sounds: Sequence[Taught], background: np.ndarray | None = None) -> Heads:
    """Learn sounds, one or more, each with a recording or more.

    `background` is float32[n, F] of the user's own.
    """
    negatives = space.points
    if background is not None and len(background):
        negatives = np.concatenate((negatives, background))
    origin = space.points.mean(axis=0)
    means = np.stack([_mean(sound.recordings) for sound in sounds])
    rows = [np.concatenate(sound.recordings) for sound in sounds]
    around = [each - mean for each, mean in zip(rows, means, strict=True)]
    shared = _covariance(negatives - origin) + _covariance_alike(around)
    shared *= len(shared) / np.trace(shared)
    shared[np.diag_indices_from(shared)] += RIDGE
    directions = np.linalg.solve(shared, (means - origin).T.astype(np.float64))
    directions /= np.linalg.norm(directions, axis=0)
    weights = directions.astype(np.float32)
    offsets = -(origin @ weights)
    of_bank = space.points @ weights + offsets
    own = [each @ weights[:, i] + offsets[i] for i, each in enumerate(rows)]
    tails = [_tail_of_bank(of_bank[:, i], each) for i, each in enumerate(own)]
    spread = float(np.mean([spread for _, spread, _ in tails]))
    heads = []
    for i, (sound, (start, _, left_out)) in enumerate(zip(sounds, tails, strict=True)):
        rate = sound.false_alarms_a_day
        threshold = _passed(start, spread, TAIL, rate)
        if background is not None and len(background) >= FEWEST_BACKGROUND:
            at_home = _tail(background @ weights[:, i] + offsets[i], BACKGROUND_TAIL)
            threshold = max(threshold, _passed(*at_home, BACKGROUND_TAIL, rate))
        heads.append(Head(weights[:, i], float(offsets[i]), threshold, spread, left_out))
    return Heads(space, [sound.name for sound in sounds], heads)


def found_again(
    space: Space,
    sounds: Sequence[Taught],
    name: str,
    rates: Sequence[float],
    background: np.ndarray | None = None,
) -> tuple[dict[float, int], int]:
    """Return how many of a sound's recordings are recognised when it is learnt from the others.

    By false alarms a day; and of how many, at most LOOKS, 0 for a sound with one recording.
    Recognised is what has FOUND of its windows, those of its noisy variants included, at the
    threshold.
    """
    [mine] = [sound for sound in sounds if sound.name == name]
    others = [sound for sound in sounds if sound.name != name]
    looked = range(min(LOOKS, len(mine.recordings))) if len(mine.recordings) > 1 else range(0)
    found = dict.fromkeys(rates, 0)
    for left_out in looked:
        rest = [each for i, each in enumerate(mine.recordings) if i != left_out]
        learnt = [Taught(name, rest, rate) for rate in rates]
        odds = fit(space, [*others, *learnt], background).log_odds(mine.recordings[left_out])
        for rate, column in zip(rates, odds[:, len(others) :].T, strict=True):
            found[rate] += bool((column >= 0).mean() >= FOUND)
    return found, len(looked)


def _tail_of_bank(scores: np.ndarray, own: np.ndarray) -> tuple[float, float, int]:
    """Return `_tail` of the bank's float32[N] scores, and how many of these were left out.

    What scores as the sound's `own` recordings do may be of the same kind, and does not count.
    """
    most = int(TAIL * len(scores))
    alike = np.argsort(-scores)[:most]
    alike = alike[scores[alike] >= np.percentile(own, LIKE)]
    return *_tail(np.delete(scores, alike), TAIL), len(alike)


def _passed(start: float, spread: float, share: float, rate: float) -> float:
    """Return the score that is passed `rate` times a day, where `share` of it is beyond `start`."""
    return start + spread * max(0.0, float(np.log(share * DAY_S / LOOK_S / rate)))


def _tail(scores: np.ndarray, share: float) -> tuple[float, float]:
    """Return where the upper `share` of the scores begins, and its mean excess.

    By the median, which a few windows with the same sound in them hardly move.
    """
    highest = np.sort(scores)[::-1][: max(2, round(share * len(scores)))]
    excess = float(np.median(highest - highest[-1])) / float(np.log(2))
    return float(highest[-1]), max(1e-3, excess)


def _mean(recordings: Sequence[np.ndarray]) -> np.ndarray:
    """Return float32[F], each recording counting alike."""
    return np.mean([each.mean(axis=0) for each in recordings], axis=0)


def _covariance(rows: np.ndarray) -> np.ndarray:
    """Return float64[F, F] with a mean variance of 1."""
    found = (rows.T @ rows).astype(np.float64)
    return found * len(found) / max(float(np.trace(found)), 1e-9)


def _covariance_alike(groups: Sequence[np.ndarray]) -> np.ndarray:
    """Return the same of rows around their own means, each group counting alike."""
    found = np.mean([(each.T @ each / len(each)).astype(np.float64) for each in groups], axis=0)
    return found * len(found) / max(float(np.trace(found)), 1e-9)
