"""A backbone's prior, measured on recordings: the mean logit of each of its categories."""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np

from streamtwl import config
from streamtwl.errors import AudioError
from streamtwl.labelling import label_files
from streamtwl.models.priors import Prior
from streamtwl.pipeline import Outcome, build, hearing
from streamtwl.reasoners.fusion import logit
from streamtwl.stages import SAMPLE_RATE

LENGTHS_S = (0.96, 2.0, 3.0, 5.0)  # of windows, where a backbone takes several
FILE_S = 30.0  # of one file, at most


def measure(
    backbone: str,
    groups: Mapping[str, Sequence[Path]],
    minutes: float,
    announce: Callable[[str], None],
) -> Prior:
    """Return the prior on groups of recordings, which count alike however much there is of each.

    At most `minutes` of a group, drawn by the hash of its files' names. `announce` gets a line for
    each file that cannot be read. Raises AudioError for a group without sound, and what `build`
    raises.
    """
    settings = _settings(backbone)
    means, taken = {}, {}
    for name, files in groups.items():
        files = sorted(files, key=lambda file: sha256(file.name.encode()).digest())
        means[name], taken[name] = _mean_logits(settings, files, 60 * minutes, announce)
        if not taken[name]:
            raise AudioError(f"no sound in {name}: name a folder of recordings")
    [made], kinds = hearing(settings)
    mean = np.mean(list(means.values()), axis=0)
    rounded = (round(float(each), 2) for each in mean)
    return Prior(
        backbone=backbone,
        sha256=made.sha256,
        windows_s=[kind.length_s for kind in kinds],
        minutes={name: round(seconds / 60, 1) for name, seconds in taken.items()},
        mean_logits=dict(zip(made.categories, rounded, strict=True)),
    )


def _settings(backbone: str) -> config.Settings:
    """Return a pipeline of the backbone's windows alone."""
    settings = config.override(config.Settings(), {"windows": [backbone], "hop_s": 0.1})
    [made], _ = hearing(settings)
    shortest, longest = made.lengths_s
    lengths_s = [each for each in LENGTHS_S if shortest <= each <= longest]
    windows = [f"{backbone}:{each:g}" for each in lengths_s] if shortest < longest else []
    first_s = lengths_s[0] if windows else shortest
    hop_s = min(config.Settings().hop_s, int(100 * first_s) / 100)
    return config.override(settings, {"windows": windows or [backbone], "hop_s": hop_s})


def _mean_logits(
    settings: config.Settings,
    files: Sequence[Path],
    most_s: float,
    announce: Callable[[str], None],
) -> tuple[np.ndarray, float]:
    """Return float64[C] of so much of the files, and the seconds that they had of sound."""
    pipeline = build(settings, [f"{i}" for i in range(len(files))])
    total = np.zeros(len(pipeline.bank.backbones[0].categories))
    windows = hops = 0

    def take(outcome: Outcome) -> None:
        nonlocal windows, hops
        if outcome.patch is None or outcome.position > FILE_S * SAMPLE_RATE:
            return
        hops += 1
        for score in outcome.patch.scores:
            total[:] += logit(score.posterior)
            windows += 1

    pipeline.subscribe(take)
    enough = most_s / settings.hop_s
    for _, result in label_files(files, pipeline, watch=lambda _open: hops < enough):
        if result.error:
            announce(f"{result.file}: {result.error}")
    return total / max(1, windows), hops * settings.hop_s
