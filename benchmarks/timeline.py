"""What a subscriber believed while a scene played, and how that compares with the truth.

Belief is a set of labels for each moment, and it depends on when it is read. At lag d, label l is
believed of moment t if an event of l is known by t + d which began by t, is not known to have
ended by t, and has not been taken back. That is one span for each event; lag 0 is "in force".
All times are seconds of stream time.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import NamedTuple

import numpy as np

from streamtwl.backbones.yamnet import WINDOW
from streamtwl.bench.compare import RESAMPLES, Interval
from streamtwl.config import EventSettings
from streamtwl.events import EventTracker
from streamtwl.messages import Event, Label
from streamtwl.stages import SAMPLE_RATE
from streamtwl.training.scored_scenes import Sound

WINDOW_S = WINDOW / SAMPLE_RATE

Span = tuple[float, float]  # [start, end) in seconds
Labelled = tuple[str, float, float]  # a label and its span
Metric = Callable[[np.ndarray], np.ndarray]  # float64[..., m] summed statistics to float64[...]


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """One event as a subscriber came to know it."""

    label: str
    start_s: float  # where the program says it began
    end_s: float  # where the program says it ended; inf while it has not said so
    onset_received_s: float  # when the onset message came
    offset_received_s: float  # when the offset message came; inf: never
    withdrawn_s: float = (
        inf  # when it was taken back: from then on it is believed never to have been
    )
    again: bool = False  # the same label, with another beginning or end


@dataclass(frozen=True, slots=True)
class Scene:
    """A scene that was played, what sounded in it, and the events received for it."""

    name: str
    duration_s: float
    truth: list[Sound]
    events: list[ReceivedEvent]
    positions: np.ndarray  # int64[n] 16 kHz samples that each decision speaks up to
    times_s: np.ndarray  # float64[n] when each decision came
    scores: np.ndarray  # float32[n, L] of `labels` at each decision; 0 for one that was not sent
    labels: list[str]
    named: list[str | None]  # the label in force after each decision


class Counts(NamedTuple):
    """Seconds of agreement. As an array, one row of statistics: sum rows, then take `f1`."""

    true_positive_s: float  # label-seconds: several labels may hold at once
    false_positive_s: float
    false_negative_s: float
    right_s: float  # the believed set is the true set
    total_s: float


def read_messages(
    name: str,
    duration_s: float,
    truth: list[Sound],
    labels: list[str],
    messages: Iterable[Label | Event],
) -> Scene:
    """Return the scene with the events of one source's messages, in the order they came.

    A message came at its position plus the latency of the newest label message on that position; no
    such message, as may be at the end of a stream, is no latency. A revision takes the event back
    and adds another one. An event without an onset message counts from its next message on.
    Events are kept whatever their label; scores only of `labels`.
    """
    column = {label: i for i, label in enumerate(labels)}
    latency_s: dict[int, float] = {}  # by position
    decisions: list[tuple[float, Label]] = []
    withdrawn: list[ReceivedEvent] = []
    events: dict[str, ReceivedEvent] = {}  # by event: what is known of it now
    for message in messages:
        if isinstance(message, Label):
            latency_s[message.position] = message.latency_ms / 1000
        at_s = message.position / SAMPLE_RATE + latency_s.get(message.position, 0.0)
        if isinstance(message, Label):
            decisions.append((at_s, message))
            continue
        known, received_now = events.get(message.id), _received(message, at_s)
        if known is not None and message.phase == "offset":
            received_now = replace(known, end_s=received_now.end_s, offset_received_s=at_s)
        elif known is not None:
            withdrawn.append(replace(known, withdrawn_s=at_s))
            received_now = replace(received_now, again=received_now.label == known.label)
        events[message.id] = received_now
    scores = np.zeros((len(decisions), len(labels)), np.float32)
    for row, (_, decision) in zip(scores, decisions, strict=True):
        for scored in decision.top:
            if scored.label in column:
                row[column[scored.label]] = scored.score
    return Scene(
        name=name,
        duration_s=duration_s,
        truth=truth,
        events=sorted(
            [*withdrawn, *events.values()], key=lambda one: (one.onset_received_s, one.start_s)
        ),
        positions=np.array([decision.position for _, decision in decisions], np.int64),
        times_s=np.array([at_s for at_s, _ in decisions], np.float64),
        scores=scores,
        labels=labels,
        named=[decision.label for _, decision in decisions],
    )


def retrack(scene: Scene, on: float, off: float) -> Scene:
    """Return the scene with the events of other thresholds, from its scores."""
    tracker = EventTracker(scene.labels, EventSettings(on=on, off=off), WINDOW // 2)
    end = round(scene.duration_s * SAMPLE_RATE)
    steps = [
        (float(at_s), tracker.step(0, int(position), scores, scores))
        for at_s, position, scores in zip(scene.times_s, scene.positions, scene.scores, strict=True)
    ]
    decided_at_end = len(scene.positions) and scene.positions[-1] == end
    closed_s = float(scene.times_s[-1]) if decided_at_end else end / SAMPLE_RATE
    events: dict[int, ReceivedEvent] = {}
    for at_s, changes in [*steps, (closed_s, tracker.close(0, end))]:
        for phase, event in changes:
            if phase == "onset":
                start_s = event.start / SAMPLE_RATE
                events[event.number] = ReceivedEvent(event.label, start_s, inf, at_s, inf)
            elif event.end is not None:
                known, end_s = events[event.number], event.end / SAMPLE_RATE
                events[event.number] = replace(known, end_s=end_s, offset_received_s=at_s)
    return replace(scene, events=list(events.values()))


def dated_back(scene: Scene, by_s: float) -> Scene:
    """Return the scene with every event said to have begun and ended so much earlier.

    The times of the messages stay, so what is in force stays. Dating a sound's beginning earlier
    costs nothing: revisions have to be worth more.
    """
    events = [
        replace(one, start_s=max(0.0, one.start_s - by_s), end_s=max(0.0, one.end_s - by_s))
        for one in scene.events
    ]
    return replace(scene, events=events)


def agreement(scene: Scene, lag_s: float = 0.0) -> Counts:
    """Compare what was believed at a finite lag with the truth.

    Exact, from interval boundaries, over the moments of [0, duration]. Sounds of one label that
    overlap count once. Labels count whether or not they are among the scene's.
    """
    return _compare(_truth(scene), _believed(scene, lag_s), scene.duration_s)


def agreement_of_label(scene: Scene) -> Counts:
    """Compare the one label in force with the truth; the last one stays in force to the end."""
    until_s = np.append(scene.times_s, inf)[1:]
    spans = zip(scene.named, scene.times_s.tolist(), until_s.tolist(), strict=True)
    believed = [(label, start, end) for label, start, end in spans if label is not None]
    return _compare(_truth(scene), believed, scene.duration_s)


def f1(counts: Counts | np.ndarray) -> np.ndarray:
    """Return float64[...] F1 of float64[..., 3 or more] counts; NaN if nothing is true or
    believed."""
    true_positive, false_positive, false_negative = np.moveaxis(np.asarray(counts)[..., :3], -1, 0)
    with np.errstate(invalid="ignore"):
        return 2 * true_positive / (2 * true_positive + false_positive + false_negative)


def onset_delays(scene: Scene) -> list[float]:
    """Return for each sound how long after its onset its label is in force.

    0: it is already, from whatever earlier event. Inf: not before the sound's offset.
    """
    delays = []
    for sound in scene.truth:
        spans = _in_force(scene, sound.label)
        begins = [max(start, sound.onset_s) for start, end in spans if end > sound.onset_s]
        first = min(begins, default=inf)
        delays.append(first - sound.onset_s if first < sound.offset_s else inf)
    return delays


def offset_delays(scene: Scene) -> list[float]:
    """Return how long after a sound's offset its label is still in force, at most the scene's end.

    Only of sounds whose label is in force up to their offset, and while the belief lasts no other
    sound of that label makes it true.
    """
    delays = []
    for sound in scene.truth:
        for start, end in _in_force(scene, sound.label):
            if not start <= sound.offset_s <= end:
                continue
            until = min(end, scene.duration_s)
            excused = any(
                other.label == sound.label
                and other.onset_s < until
                and other.offset_s > sound.offset_s
                for other in scene.truth
            )
            if not excused:
                delays.append(max(0.0, until - sound.offset_s))
    return delays


def false_starts(scene: Scene, tolerance_s: float = WINDOW_S) -> int:
    """Count onsets, also by revisions to another label, of labels that did not sound.

    A label did if it sounds at any moment from `tolerance_s` before the message, or from where the
    event is said to begin, to the message.
    """
    return sum(
        not any(
            sound.label == event.label
            and sound.onset_s <= event.onset_received_s
            and sound.offset_s >= min(event.start_s, event.onset_received_s - tolerance_s)
            for sound in scene.truth
        )
        for event in scene.events
        if not event.again
    )


def count_events(scene: Scene) -> int:
    """Count events, each once however often it was revised."""
    return sum(not event.again for event in scene.events)


def found(scene: Scene) -> int:
    """Count sounds that an event of their label, not withdrawn, overlaps in the final account."""
    return sum(
        any(
            event.label == sound.label
            and event.withdrawn_s == inf
            and event.start_s < sound.offset_s
            and event.end_s > sound.onset_s
            for event in scene.events
        )
        for sound in scene.truth
    )


def bootstrap(
    stats: np.ndarray, metric: Metric, groups: Sequence[Hashable], seed: int = 0
) -> Interval:
    """Return a metric of float64[n, m] statistics, summed over n scenes, and its interval.

    Scenes of one group are drawn together; `mean` is the metric on all of them.
    """
    low, high = np.percentile(metric(_resampled(stats, groups, seed)), (2.5, 97.5))
    return Interval(float(metric(stats.sum(axis=0))), float(low), float(high))


def bootstrap_paired(
    a: np.ndarray, b: np.ndarray, metric: Metric, groups: Sequence[Hashable], seed: int = 0
) -> Interval:
    """Return A's metric minus B's, of statistics on the same scenes, and its interval."""
    drawn = metric(_resampled(a, groups, seed)) - metric(_resampled(b, groups, seed))
    low, high = np.percentile(drawn, (2.5, 97.5))
    difference = metric(a.sum(axis=0)) - metric(b.sum(axis=0))
    return Interval(float(difference), float(low), float(high))


def merged(spans: Iterable[Span]) -> list[Span]:
    """Return the union of spans, in order; those that touch become one, empty ones vanish."""
    union: list[Span] = []
    for start, end in sorted(spans):
        if end <= start:
            continue
        if union and start <= union[-1][1]:
            union[-1] = (union[-1][0], max(end, union[-1][1]))
        else:
            union.append((start, end))
    return union


def _received(event: Event, at_s: float) -> ReceivedEvent:
    """Return an event as one message alone gives it."""
    ended = event.end is not None
    return ReceivedEvent(
        label=event.label,
        start_s=event.start / SAMPLE_RATE,
        end_s=inf if event.end is None else event.end / SAMPLE_RATE,
        onset_received_s=at_s,
        offset_received_s=at_s if ended else inf,
    )


def _truth(scene: Scene) -> list[Labelled]:
    return [(sound.label, sound.onset_s, sound.offset_s) for sound in scene.truth]


def _believed(scene: Scene, lag_s: float) -> list[Labelled]:
    """Return the moments of which each event is believed; the span may be empty."""
    return [
        (
            event.label,
            max(event.start_s, event.onset_received_s - lag_s),
            min(max(event.end_s, event.offset_received_s - lag_s), event.withdrawn_s - lag_s),
        )
        for event in scene.events
    ]


def _in_force(scene: Scene, label: str) -> list[Span]:
    return merged((start, end) for own, start, end in _believed(scene, 0.0) if own == label)


def _compare(truth: list[Labelled], believed: list[Labelled], duration_s: float) -> Counts:
    spans = truth + believed
    row = {label: i for i, label in enumerate({label for label, _, _ in spans})}
    edges = np.array([span[1:] for span in spans], np.float64).reshape(-1, 2)
    edges = edges.clip(0.0, duration_s)
    cuts = np.unique(np.append(edges, (0.0, duration_s)))
    held = np.zeros((2, len(row), len(cuts) - 1), bool)  # true, believed; label; between two cuts
    for i, (first, stop) in enumerate(np.searchsorted(cuts, edges).tolist()):
        held[int(i >= len(truth)), row[spans[i][0]], first:stop] = True
    true, believed = held
    seconds = np.diff(cuts)
    return Counts(
        true_positive_s=float((true & believed).sum(axis=0) @ seconds),
        false_positive_s=float((believed & ~true).sum(axis=0) @ seconds),
        false_negative_s=float((true & ~believed).sum(axis=0) @ seconds),
        right_s=float((true == believed).all(axis=0) @ seconds),
        total_s=float(duration_s),
    )


def _resampled(stats: np.ndarray, groups: Sequence[Hashable], seed: int) -> np.ndarray:
    """Return float64[RESAMPLES, m] sums over groups drawn with replacement: one seed, one draw."""
    number = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    sums = np.zeros((len(number), stats.shape[1]))
    np.add.at(sums, [number[group] for group in groups], stats)
    shares = np.full(len(number), 1 / len(number))
    times_drawn = np.random.default_rng(seed).multinomial(len(number), shares, size=RESAMPLES)
    return times_drawn @ sums
