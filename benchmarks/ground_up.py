"""A network that thinks from the ground up beside two that do not: names after 0.5 to 5 s.

    .venv/bin/python benchmarks/ground_up.py

Test clips of ESC-10 and kitchen20, whose sounds `causal` was taught, and of homes, of which most
are others (all of them those of `hearing.py`), cut after each of AFTER_S seconds, are
labelled by each of BACKBONES alone: its scores, corrected for its prior, smoothed and averaged as
`streamtwl label` does. mn04's window is all that there is. `causal` is also tried without memory,
where each patch of 0.16 s is read by itself. Milliseconds are of the processor, for a second of
sound, front end included; the backbones take turns.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import results_folder
import soundfile
import timeline
from hearing_sounds import Clip, clips_of
from quick import QUICK
from rich.progress import track
from threadpoolctl import threadpool_limits

from streamtwl import config
from streamtwl.backbones.causal import Causal
from streamtwl.errors import StreamtwlError
from streamtwl.labelling import label_files
from streamtwl.pipeline import Pipeline, build
from streamtwl.stages import SAMPLE_RATE
from streamtwl.training.posteriors import read

SETS = ("ESC-10, fold 4", "kitchen20, folds 6 to 9", "home")
AFTER_S = (0.5, 1.0, 2.0, 5.0)
BACKBONES = {
    "YAMNet": "yamnet:0.96",
    "mn04": "mn04:10",
    "causal": "causal:0.48",
    "causal, no memory": "causal:0.48",
}


def main() -> None:
    """Cut, label, print and write the table."""
    options = results_folder.parser_of(__doc__).parse_args()
    with threadpool_limits(1):  # as in the product
        found = {
            name: judge(clips_of(name, options.data)[: 4 if QUICK else None])
            for name in results_folder.present(SETS, options.data)
        }
    results_folder.keep(options.out, "ground_up", found, markdown(found))


def judge(clips: Sequence[Clip]) -> dict[str, Any]:
    """Return by backbone and seconds the share of right labels, and milliseconds a second."""
    right: dict[str, dict[str, list[float]]] = {each: {} for each in BACKBONES}
    cpu_s: dict[str, float] = dict.fromkeys(BACKBONES, 0.0)
    heard_s = 0.0
    for after_s in track(AFTER_S, "seconds"):
        with tempfile.TemporaryDirectory() as folder:
            files = [cut(clip, after_s, Path(folder) / f"{i}.wav") for i, clip in enumerate(clips)]
            heard_s += sum(soundfile.info(file).duration for file in files)
            for name in BACKBONES:
                began = time.process_time()
                said = labels(name, files)
                cpu_s[name] += time.process_time() - began
                right[name][f"{after_s:g}"] = [
                    float(label in clip.right) for label, clip in zip(said, clips, strict=True)
                ]
    sources = [clip.source for clip in clips]
    return {
        "clips": len(clips),
        "sources": len(set(sources)),
        "ms": {name: 1000 * each / heard_s for name, each in cpu_s.items()},
        "right": {
            name: {after: interval(each, sources) for after, each in by.items()}
            for name, by in right.items()
        },
    }


def cut(clip: Clip, after_s: float, file: Path) -> Path:
    """Write a clip's first seconds; silence before its sound does not count."""
    samples = read(clip.path)
    loud = np.flatnonzero(np.abs(samples) > 1e-3)
    start = max(0, int(loud[0]) - SAMPLE_RATE // 50) if len(loud) else 0
    soundfile.write(file, samples[start : start + round(after_s * SAMPLE_RATE)], SAMPLE_RATE)
    return file


def labels(name: str, files: Sequence[Path]) -> list[str | None]:
    """Return the strongest label of each file."""
    changes = {"windows": [BACKBONES[name]], "reasoner.weights": {}, "reasoner.floor": 0.0}
    settings = config.override(config.load(config.find("evidence")), changes)
    built: Pipeline = build(settings, [""] * len(files))
    [backbone] = built.bank.backbones
    if isinstance(backbone, Causal):
        backbone.memory = "no memory" not in name
    found = dict(label_files(files, built))
    return [found[i].top[0].label if found[i].top else None for i in range(len(files))]


def interval(right: Sequence[float], sources: Sequence[str]) -> tuple[float, float, float]:
    """Return the share and its 95 % interval, by bootstrap over recordings."""
    stats = np.column_stack((right, np.ones(len(right))))
    one = timeline.bootstrap(stats, lambda sums: sums[..., 0] / sums[..., 1], sources)
    return one.mean, one.low, one.high


def markdown(found: dict[str, Any]) -> str:
    """Return the tables."""
    lines = [
        "# Names after half a second to five",
        "",
        "`benchmarks/ground_up.py`: its head says what is measured. Right labels in % (95 % "
        "intervals, bootstraps over recordings); milliseconds a second of sound.",
    ]
    for name, each in found.items():
        lines += ["", f"## {name}: {each['clips']} clips, {each['sources']} recordings", ""]
        lines.append(f"| backbone | {' | '.join(f'{s:g} s' for s in AFTER_S)} | ms |")
        lines.append("|" + " --- |" * (2 + len(AFTER_S)))
        for backbone, by in each["right"].items():
            cells = ["{:.0%} ({:.0%} to {:.0%})".format(*by[f"{s:g}"]) for s in AFTER_S]
            lines.append(f"| {backbone} | {' | '.join(cells)} | {each['ms'][backbone]:.1f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    try:
        main()
    except (StreamtwlError, OSError) as error:
        sys.exit(f"ground_up.py: {error}")
