"""What the live trial compares, and what of each is played."""

from collections.abc import Sequence
from pathlib import Path

import timeline_baselines
from quick import QUICK

from streamtwl.training import (
    fitting,
)
from streamtwl.training.recipe import Recipe

DATA = Path(__file__).parents[2] / "shared" / "data"
SNR_DB = (10,) if QUICK else (20, 10, 5)
SEED = 1
BASELINES = (
    *(
        timeline_baselines.TOP,
        timeline_baselines.AVERAGE,
        fitting.FILTER,
        timeline_baselines.LAGGED,
        timeline_baselines.GRU,
    ),
)
OF_YAMNET = {  # the same on YAMNet's posteriors alone
    method: f"{method}, YAMNet alone" for method in (fitting.FILTER, timeline_baselines.SMOOTHER)
}
SMOOTHERS = (timeline_baselines.SMOOTHER, OF_YAMNET[timeline_baselines.SMOOTHER])
GPT2 = "GPT-2"
EPOCHS = 1 if QUICK else Recipe().epochs
SEEDS = () if QUICK else (2, 3)
GPT2_RECIPES = {
    GPT2: Recipe(seed=SEED, epochs=EPOCHS),
    **{f"{GPT2}, training seed {seed}": Recipe(seed=seed, epochs=EPOCHS) for seed in SEEDS},
}
TAUGHT = "taught by five clips a sound"
LIVE = (*BASELINES, OF_YAMNET[fitting.FILTER], *GPT2_RECIPES, TAUGHT)
OPEN = {"open, evidence": ["--reasoner", "evidence", "--labels", "all"]}
BACKGROUND = "background"
BACKGROUND_FOLDS = 2  # whose models are run on it


def plays(folds: Sequence[int]) -> list[tuple[str, int, int | None]]:
    """Return what is to be played: method, fold, SNR or None for background."""
    scenes = [(method, fold, at) for method in (*LIVE, *OPEN) for fold in folds for at in SNR_DB]
    return [
        *scenes,
        *((method, fold, None) for method in LIVE for fold in folds[:BACKGROUND_FOLDS]),
        *((method, folds[0], None) for method in OPEN),  # not trained: the same in every fold
    ]


def scene_name(fold: int, number: int, snr_db: float) -> str:
    """Return what a scene is called, as a file and on the wire."""
    return f"fold{fold}-{number:02}-snr{snr_db:g}"


def slug(method: str) -> str:
    """Return a method's name as a file's, and as a reasoner's on the wire."""
    return method.lower().replace(", ", "-").replace(" ", "-")
