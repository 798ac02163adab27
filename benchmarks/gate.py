"""What do the longer windows cost and pay, where they are scored at every hop, at some, at none?

    tools/corpus.sh CORPUS
    .venv/bin/python benchmarks/gate.py --corpus CORPUS

The scenes of `untaught.py` go through the product's pipelines: `default` with gates from 0 (always)
on, and `yamnet` (never). F1 of what is in force at the same false starts as there, as said at once
and half a second later; the share of hops at which the longer window was scored; processor time a
hop, front ends and reasoner included. The pipelines take turns, scene by scene.
"""

import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import results_folder
import timeline
import trial_scenes
import untaught
from hearing_sounds import clips_of
from threadpoolctl import threadpool_limits

from streamtwl import config
from streamtwl.errors import StreamtwlError
from streamtwl.pipeline import Outcome, build
from streamtwl.stages import SAMPLE_RATE, Block, Decision
from streamtwl.training import scenes

GATES = (0.0, 0.06, 0.12, 0.18, 0.25, 0.4)
ALWAYS, NEVER = "0", "yamnet"
MOST = 2.0  # false starts a minute
LAGS = (0, 1)


def main() -> None:
    """Play, judge, print and write the tables."""
    options = results_folder.parser_of(__doc__, corpus=True, scenes=True).parse_args()
    with threadpool_limits(1):  # as in the product
        found = {
            name: judge(name, options.data, options.corpus, options.scenes)
            for name in results_folder.present(untaught.SETS, options.data)
        }
    results_folder.keep(options.out, "gate", found, markdown(found))


class Playing:
    """A pipeline, and what it gave in the scenes so far."""

    def __init__(self, name: str, gate: float) -> None:
        settings = config.override(config.load(config.find(name)), {"gate": gate, "labels": "all"})
        self.pipeline = build(settings, [""])
        self.pipeline.subscribe(self._take)
        self._decisions: list[Decision] = []
        self.counts: dict[tuple[int, float], list[np.ndarray]] = defaultdict(list)  # by lag and
        # threshold, float64[6] a scene, as `untaught.counts` gives them
        self.cpu_ms: list[float] = []  # a hop, a scene each
        self.hops = self.held = 0

    def play(self, stream: int, samples: np.ndarray) -> np.ndarray:
        """Hear float32[n] samples; return float32[T, 1 + B, L], what was said hop by hop."""
        self._decisions.clear()
        size = round(self.pipeline.settings.hop_s * SAMPLE_RATE)
        began = time.process_time()
        for at in range(0, len(samples), size):
            last = at + size >= len(samples)
            self.pipeline.push([Block(stream, at, samples[at : at + size], None, 0.0, last=last)])
        cpu_s = time.process_time() - began
        self.cpu_ms.append(1000 * cpu_s / len(self._decisions))
        self.hops += len(self._decisions)
        self.held += self.pipeline.bank.held.get(stream, 0)
        return np.stack([trial_scenes.said(each) for each in self._decisions])

    def count(self, said: np.ndarray, truth: untaught.Truth) -> None:
        """Count what is right and wrong of it."""
        for lag in LAGS:
            by_now = untaught.settled(said[None], min(lag, said.shape[1] - 1))[0]
            for on in untaught.ONS:
                self.counts[lag, on].append(untaught.counts(by_now, truth, on)[0])

    def _take(self, outcome: Outcome) -> None:
        if outcome.decision is not None and outcome.final:
            self._decisions.append(outcome.decision)


def judge(name: str, data: Path, corpus: Path, count: int) -> dict[str, Any]:
    """Return the figures of a set, by gate."""
    playing = {f"{gate:g}": Playing("default", gate) for gate in GATES}
    playing["never"] = Playing(NEVER, 0.0)
    minutes, groups = play_all([*playing.values()], name, data, corpus, count)
    rows = {row: figures(each, playing[ALWAYS], minutes, groups) for row, each in playing.items()}
    return {"scenes": len(groups), "rows": rows}


def play_all(
    playing: Sequence[Playing], name: str, data: Path, corpus: Path, count: int
) -> tuple[float, list[int]]:
    """Play the scenes of a set to all, in turn; return their minutes, and what each is one of."""
    clips = clips_of(name, data)
    names = {clip.path: clip.right for clip in clips}
    minutes, groups = 0.0, []
    for stream, (number, snr_db, plan) in enumerate(untaught.plans(clips, corpus, count)):
        samples = scenes.make_scene(plan, snr_db)[0].astype(np.float32) / 32768
        for each in playing:
            said = each.play(stream, samples)
            labels = each.pipeline.reasoner.labels
            each.count(said, untaught.truth_of(plan, names, labels, len(said)))
        minutes += len(samples) / SAMPLE_RATE / 60
        groups.append(number)
    return minutes, groups


def figures(
    played: Playing, always: Playing, minutes: float, groups: Sequence[int]
) -> dict[str, Any]:
    """Return the figures of a gate."""
    cpu = np.array(played.cpu_ms)
    found: dict[str, Any] = {
        "scored": 1 - played.held / played.hops,
        "ms": float(np.median(cpu)),
        "of_always": [float(q) for q in np.quantile(cpu / always.cpu_ms, (0.5, 0.25, 0.75))],
    }
    for lag in LAGS:
        mine, theirs = (at_most(each, lag, minutes) for each in (played, always))
        found[f"lag {lag}"] = {
            "f1": astuple(timeline.bootstrap(mine, untaught.f1, groups)),
            "more": astuple(timeline.bootstrap_paired(mine, theirs, untaught.f1, groups)),
        }
    return found


def at_most(played: Playing, lag: int, minutes: float) -> np.ndarray:
    """Return float64[n, 6], the counts at the lowest threshold with at most MOST false starts."""
    for on in untaught.ONS:
        counts = np.stack(played.counts[lag, on])
        if counts[:, 3].sum() / minutes <= MOST:
            break
    return counts


def markdown(found: dict[str, Any]) -> str:
    """Return the tables."""
    lines = [
        "# Longer windows: at every hop, at some, at none",
        "",
        "`benchmarks/gate.py`: its head says what is measured. F1 of what is in force at "
        f"{MOST:g} false starts a minute, and what it is more than with a gate of 0, where the "
        "longer window is scored at every hop (95 % intervals, paired, bootstraps over scenes); "
        "processor time a hop, median of the scenes, and as a share of that with a gate of 0 in "
        "the same scene (median, quartiles). `never` is the pipeline `yamnet`.",
    ]
    for name, each in found.items():
        lines += [
            "",
            f"## {name}, {each['scenes']} scenes",
            "",
            "| gate | hops scored | ms a hop | of always | F1, at once | more "
            "| F1, half a second later | more |",
            "|" + " --- |" * 8,
        ]
        for row, of in each["rows"].items():
            cells = [
                row,
                "0 %" if row == "never" else f"{of['scored']:.0%}",
                f"{of['ms']:.2f}",
                "{:.2f} ({:.2f} to {:.2f})".format(*of["of_always"]),
            ]
            for lag in LAGS:
                cells.append(f"{of[f'lag {lag}']['f1'][0]:.3f}")
                cells.append("{:+.3f} ({:+.3f} to {:+.3f})".format(*of[f"lag {lag}"]["more"]))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    try:
        main()
    except (StreamtwlError, OSError) as error:
        sys.exit(f"gate.py: {error}")
