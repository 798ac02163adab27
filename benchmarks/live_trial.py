"""The live trial: scenes through `streamtwl listen`, judged by what a ZeroMQ subscriber received.

    tools/corpus.sh CORPUS
    .venv/bin/python benchmarks/live_trial.py --corpus CORPUS --out TRIAL

For each fold of ESC-10, or with --sounds kitchen20 for its one split, every baseline, and the GPT-2
with each training seed, is trained on scenes of the other folds and the corpus's training side,
with all choices made on scenes of a validation split (`timeline_baselines.py`); 20 scenes of 2
minutes at 20, 10 and 5 dB, and an hour of background, from the fold and the corpus's test side, are
played through the product by each of them. Every decision is charged the same lateness. All read
what `streamtwl train` reads (`training.WINDOWS`; without mn04's weights YAMNet's posteriors alone),
and the HMM filter and the smoother YAMNet's posteriors alone as well. The smoothers, which see the
future, are the bounds; they alone do not go through the product. DATED and the GPT-2's first
decisions are also judged with their events dated back (`date`): revisions have to be worth more
than that. The open vocabulary is played on the same scenes and judged through the right names of
the classes: its events of other sounds are not judged. TAUGHT is `streamtwl teach` with five clips
a class of the training folds, where the others are trained on all of them.

TRIAL/results.json, tables.md and plot.png hold the result; what TRIAL holds already is not run
again. About two hours on two cores; --fold and --scenes make it less.
"""

import argparse
import functools
import json
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pool as pools
import score
from pool import SPAWN
from quick import add_option
from rich.progress import Progress
from trial_judging import (
    DATED,
    FIRST_DECISIONS,
    date,
    judge,
    judge_dated,
    keep,
    match,
)
from trial_methods import (
    DATA,
    GPT2,
    GPT2_RECIPES,
    LIVE,
    OPEN,
    SMOOTHERS,
    plays,
)
from trial_sounds import FOLDS, Sounds
from trial_training import (
    make_scenes,
    teach,
    train_fold,
    train_trace_model,
)

from streamtwl.errors import StreamtwlError
from streamtwl.training import (
    fitting,
)


def main() -> None:
    """Train, play, judge, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--corpus", type=Path, required=True, help="made by tools/corpus.sh")
    add("--out", type=Path, required=True, help="folder for models, scenes, messages and results")
    add(
        "--data",
        type=Path,
        default=DATA,
        help="esc10/, kitchen20/ and esc50_audioset.csv (../shared/data)",
    )
    add("--sounds", choices=sorted(FOLDS), default="esc10", help="the data set (esc10)")
    add("--fold", type=int, nargs="+", help="test folds (all; kitchen20 has one, 6: its 6 to 9)")
    add("--scenes", type=int, default=20, help="a fold, each at every SNR (20)")
    add("--minutes", type=float, default=60, help="of background (60)")
    add("--jobs", type=int, default=2, help="processes (2)")
    add_option(parser)
    options = parser.parse_args()
    sounds = Sounds(options.data, options.sounds)
    folds = options.fold or sounds.folds
    options.out.mkdir(parents=True, exist_ok=True)
    train = functools.partial(train_fold, sounds, options.corpus, options.out)
    read = functools.partial(train_trace_model, sounds, options.corpus, options.out)
    render = functools.partial(
        make_scenes, sounds, options.corpus, options.out, options.scenes, options.minutes
    )
    judging = functools.partial(judge, options.out, sounds, folds, options.scenes)
    with Progress() as progress, ProcessPoolExecutor(options.jobs, SPAWN) as pool:

        def run(what: str, work: Callable[..., Any], prepared: Iterable[Any]) -> list[Any]:
            tasks = [functools.partial(work, each) for each in prepared]
            return pools.run(pool, progress, what, tasks)

        run("baselines", train, folds)
        run("GPT-2", read, [(name, fold) for fold in folds for name in GPT2_RECIPES])
        run("teaching", functools.partial(teach, sounds, options.out), folds)
        run("scenes", render, [0, *folds])
        run("playing", functools.partial(keep, options.out, options.scenes), plays(folds))
        judged = run("judging", judging, [*LIVE, *SMOOTHERS, *OPEN])
        run(
            "dating",
            functools.partial(date, sounds, options.corpus, options.out),
            folds,
        )
        dating = functools.partial(judge_dated, options.out, sounds, folds, options.scenes)
        dated = run("judging dates", dating, [*DATED, GPT2])
        matching = functools.partial(match, options.out, sounds, folds, options.scenes)
        matched = run("matching", matching, GPT2_RECIPES)
    results: dict = {
        "methods": {},
        "bounds": [*SMOOTHERS],
        "trainings": [*GPT2_RECIPES],
        "against": {},
        "dated": dict(zip([*DATED, FIRST_DECISIONS], dated, strict=True)),
        "matched": dict(zip(GPT2_RECIPES, matched, strict=True)),
    }
    for method, figures, against in judged:
        results["methods"][method] = figures
        if against is not None:
            results["against"][method] = against
    (options.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    tables = score.markdown(results, fitting.FILTER)
    (options.out / "tables.md").write_text(tables)
    score.plot(results, str(options.out / "plot.png"))
    print(tables)


if __name__ == "__main__":
    try:
        main()
    except StreamtwlError as error:
        sys.exit(f"live_trial.py: {error}")
