"""The field's standard metrics of sound event detection, by the libraries that define them.

They judge the final account, or the scores, as if all had come at once; when it was published is
`timeline`'s matter. Sounds of one label that overlap or touch count as one, as no detector with
one output for each label can tell them apart.
"""

from collections.abc import Sequence

import numpy as np
import sed_eval
from sed_scores_eval.base_modules.scores import create_score_dataframe
from sed_scores_eval.intersection_based import psds as psds_of_scores
from timeline import WINDOW_S, Scene, merged

from streamtwl.stages import SAMPLE_RATE

SEGMENT_S = 1.0
COLLAR_S = 0.5
COLLAR_SHARE = 0.5  # of the sound's length, for the offset

# DCASE 2021 to 2023, targets 4. Scenario 1 asks for exact times, 2 for no confusion between labels.
SCENARIOS: dict[str, dict[str, float]] = {
    "psds1": {"dtc_threshold": 0.7, "gtc_threshold": 0.7},
    "psds2": {"dtc_threshold": 0.1, "gtc_threshold": 0.1, "cttc_threshold": 0.3, "alpha_ct": 0.5},
}
ALPHA_ST = 1.0
MOST_FALSE_PER_HOUR = 100.0  # e_max


def sed_eval_metrics(scenes: Sequence[Scene]) -> dict[str, float]:
    """Return F1 and error rates of the final account (sed_eval; Mesaros et al., 2016).

    Segments last 1 s. An event is right if its onset lies within 0.5 s of a sound's, and its offset
    within 0.5 s or half the sound's length, whichever is more. `micro` pools all labels, those that
    never sound included; `macro` is the mean over labels that do sound, 0 for one that is never
    published. Published events are cut at the scene's end; those withdrawn, or not of the scenes'
    labels, are left out. Raises ValueError where the scenes' labels differ or nothing sounds.
    """
    labels = _labels(scenes)
    _sounding(scenes, labels)
    segments = sed_eval.sound_event.SegmentBasedMetrics(labels, time_resolution=SEGMENT_S)
    events = sed_eval.sound_event.EventBasedMetrics(
        labels, t_collar=COLLAR_S, percentage_of_length=COLLAR_SHARE
    )
    # A label never published has no precision: without this it would be left out of the macro F1.
    segments.empty_system_output_handling = events.empty_system_output_handling = "zero_score"
    for scene in scenes:
        truth, published = _event_list(_truth(scene, labels)), _event_list(_received(scene, labels))
        segments.evaluate(truth, published, evaluated_length_seconds=scene.duration_s)
        events.evaluate(truth, published)
    by_segment, by_event = segments.results_overall_metrics(), events.results_overall_metrics()
    segment_means = segments.results_class_wise_average_metrics()
    event_means = events.results_class_wise_average_metrics()
    return {
        "segment_f1_micro": float(by_segment["f_measure"]["f_measure"]),
        "segment_f1_macro": float(segment_means["f_measure"]["f_measure"]),
        "segment_error_rate": float(by_segment["error_rate"]["error_rate"]),
        "event_f1_micro": float(by_event["f_measure"]["f_measure"]),
        "event_f1_macro": float(event_means["f_measure"]["f_measure"]),
        "event_error_rate": float(by_event["error_rate"]["error_rate"]),
    }


def psds(scenes: Sequence[Scene]) -> dict[str, float]:
    """Return the polyphonic sound detection scores in both scenarios of DCASE.

    Bilen et al., 2020, over all thresholds as Ebbers et al., 2022. A decision's scores speak for
    the hop around the middle of its window, the first one's from 0 and the last one's to the end;
    a gap is shared by its neighbours. Of two decisions on one position the later one speaks.
    Labels that never sound in these scenes take no part: the score is not defined for them.
    The lowest threshold lies below 0, so that a scene is one event of each label: where a label
    sounds for a tenth of a scene, scenario 2 takes even that for a find.
    Raises ValueError where the scenes' labels differ or nothing sounds.
    """
    labels = _sounding(scenes, _labels(scenes))
    names = [str(i) for i in range(len(scenes))]
    # sed_scores_eval 0.0.4 fails on the read-only arrays that pandas 3 gives (its pull request 17);
    # those of another precision it copies.
    single = dict.fromkeys(labels, np.float32)
    scores = {
        name: create_score_dataframe(*_frames(scene, labels), labels).astype(single)
        for name, scene in zip(names, scenes, strict=True)
    }
    truth = {
        name: [(onset, offset, label) for label, onset, offset in _truth(scene, labels)]
        for name, scene in zip(names, scenes, strict=True)
    }
    durations = {name: scene.duration_s for name, scene in zip(names, scenes, strict=True)}
    scored = {}
    for scenario, settings in SCENARIOS.items():
        if len(labels) == 1:  # no other label to confuse it with, which the library cannot do
            settings = {name: settings[name] for name in ("dtc_threshold", "gtc_threshold")}
        scored[scenario], *_ = psds_of_scores(
            scores,
            truth,
            durations,
            **settings,
            alpha_st=ALPHA_ST,
            max_efpr=MOST_FALSE_PER_HOUR,
            num_jobs=1,
        )
    return {scenario: float(score) for scenario, score in scored.items()}


def _labels(scenes: Sequence[Scene]) -> list[str]:
    labels = scenes[0].labels if scenes else []
    if any(scene.labels != labels for scene in scenes):
        raise ValueError("the scenes' labels differ: score them with one vocabulary")
    return labels


def _sounding(scenes: Sequence[Scene], labels: list[str]) -> list[str]:
    """Return the labels that sound in any of the scenes."""
    sounding = {label for scene in scenes for label, _, _ in _truth(scene, labels)}
    if not sounding:
        raise ValueError("no sound of the labels in any scene: there is nothing to score")
    return [label for label in labels if label in sounding]


def _truth(scene: Scene, labels: list[str]) -> list[tuple[str, float, float]]:
    return [
        (label, onset, offset)
        for label in labels
        for onset, offset in merged(
            (sound.onset_s, sound.offset_s) for sound in scene.truth if sound.label == label
        )
    ]


def _received(scene: Scene, labels: list[str]) -> list[tuple[str, float, float]]:
    return [
        (event.label, event.start_s, min(event.end_s, scene.duration_s))
        for event in scene.events
        if event.label in labels
        and event.withdrawn_s == float("inf")
        and event.start_s < scene.duration_s
    ]


def _event_list(spans: list[tuple[str, float, float]]) -> list[dict[str, str | float]]:
    return [
        {"event_label": label, "onset": onset, "offset": offset} for label, onset, offset in spans
    ]


def _frames(scene: Scene, labels: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return float32[n, L] scores and the float64[n + 1] boundaries of what they speak for."""
    if not len(scene.positions):
        return np.zeros((1, len(labels)), np.float32), np.array([0.0, scene.duration_s])
    final = np.append(np.diff(scene.positions) > 0, True)
    middles = scene.positions[final] / SAMPLE_RATE - WINDOW_S / 2
    between = (middles[:-1] + middles[1:]) / 2
    columns = [scene.labels.index(label) for label in labels]
    return scene.scores[final][:, columns], np.concatenate(([0.0], between, [scene.duration_s]))
