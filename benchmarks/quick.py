"""`--quick`: every step of a benchmark on very little data, to find errors; figures mean nothing.

The processes that a script spawns have its arguments too, and do as little.
"""

import argparse
import sys

from streamtwl.training import scored_scenes

QUICK = "--quick" in sys.argv

if QUICK:
    scored_scenes.SCENE_S = 40.0
    scored_scenes.TRAINING_SCENES = scored_scenes.VALIDATION_SCENES = 4
    scored_scenes.BACKGROUND_SCENES = 1


def add_option(parser: argparse.ArgumentParser) -> None:
    """Let a script accept --quick, which was read above."""
    parser.add_argument("--quick", action="store_true", help="try every step on very little data")
