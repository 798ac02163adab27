"""Calibration of the reasoners of `checkpoints/` in scenes.

    .venv/bin/python benchmarks/live_trial.py --corpus CORPUS --out TRIAL
    .venv/bin/python benchmarks/calibration.py --trial TRIAL --out OUT

Everything goes through the product's own reasoners, patch by patch, from the posteriors of its
front end and backbone, in the scenes of the trial's fold 4, which none of them was trained on.
OUT/calibration.json holds the result. How often they are right on clips: `streamtwl paper`, with
`[[checkpoint]]` and `file = "TRIAL/fold{fold}/..."`.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from quick import add_option
from trial_scenes import TrialScenes, expected_calibration_error, read, reasoner_of, settings

from streamtwl.errors import StreamtwlError
from streamtwl.training import train as training
from streamtwl.training.posteriors import Scorer

CHECKPOINTS = {"esc10-gpt2": {}, "esc10-hmm": {}, "esc10-paper": {"samples": 16}}


def main() -> None:
    """Read, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--trial", type=Path, required=True, help="what live_trial.py wrote")
    add("--out", type=Path, required=True, help="folder for the results")
    add_option(parser)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    scorer = Scorer(training.best_windows())
    errors = calibration(TrialScenes(options.trial, scorer))
    (options.out / "calibration.json").write_text(json.dumps(errors, indent=2) + "\n")
    for name, error in errors.items():
        print(f"{name}: {error:.4f}")


def calibration(test_scenes: TrialScenes) -> dict[str, float]:
    """Return the expected calibration error of the checkpoints, over all labels and patches.

    The outcome is the share of the next hop in which the label sounds.
    """
    ahead = test_scenes.streams([]).ahead
    errors = {}
    for name, trace in CHECKPOINTS.items():
        chosen = settings(name, **trace)
        reasoner = reasoner_of(chosen, len(test_scenes.rows))
        decided, _ = read(reasoner, test_scenes.rows, test_scenes.scorer)
        errors[name] = expected_calibration_error(decided[:, :, 0], ahead)
    return errors


if __name__ == "__main__":
    try:
        main()
    except StreamtwlError as error:
        sys.exit(f"calibration.py: {error}")
