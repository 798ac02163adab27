"""What is a reader's GPT-2 worth? Readers without one, with a random one and with a trained one.

    tools/corpus.sh CORPUS
    .venv/bin/python benchmarks/reader_apart.py --corpus CORPUS --kept FOLDER

All are trained on the same scenes, as the reader that ships (`streamtwl bench reader --body`), with
several seeds, which are of the weights and of the order of the scenes; so the scenes are made once.
They are judged as in `untaught.py`, on sounds that none was taught. Trained readers are kept in
--kept and not trained again. About an hour on two cores.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import results_folder
import untaught
from quick import QUICK
from rich.progress import Progress

from streamtwl.errors import StreamtwlError
from streamtwl.training import reader

BODIES = (reader.NONE, reader.RANDOM, reader.TRAINED)
LAGS = (0, 1, 2)
SCENES, EPOCHS = (2, 1) if QUICK else (reader.SCENES, reader.Recipe().epochs)


def main() -> None:
    """Train what is not kept, judge, print and write the table."""
    parser = results_folder.parser_of(__doc__, corpus=True, scenes=True)
    add = parser.add_argument
    add("--kept", type=Path, required=True, help="where the trained readers are")
    add("--seeds", type=int, default=1 if QUICK else 3, help="of each (%(default)s)")
    options = parser.parse_args()
    options.kept.mkdir(parents=True, exist_ok=True)
    files = trained(options.corpus, options.kept, options.seeds)
    found = {
        name: table(
            untaught.judge(name, options.data, options.corpus, options.scenes, [*map(str, files)]),
            options.seeds,
        )
        for name in results_folder.present(untaught.SETS, options.data)
    }
    results_folder.keep(options.out, "reader_apart", found, markdown(found))


def trained(corpus: Path, kept: Path, seeds: int) -> list[Path]:
    """Train the readers that are not kept; return the files of all."""
    recipes = {
        kept / f"{body}-{seed}.onnx": reader.Recipe(
            scenes=SCENES, epochs=EPOCHS, seed=seed, body=body
        )
        for body in BODIES
        for seed in range(seeds)
    }
    waiting = {file: recipe for file, recipe in recipes.items() if not file.exists()}
    with Progress() as progress:
        bars = {stage: progress.add_task(stage) for stage in reader.STAGES}

        def advance(stage: str, done: int, of: int) -> None:
            progress.update(bars[stage], completed=done, total=of)

        if waiting:
            prepared = reader.prepare(corpus, [], [], next(iter(waiting.values())), advance)
        for file, recipe in waiting.items():
            reader.train_on(prepared, file, recipe, advance)
    return [*recipes]


def table(judged: dict[str, Any], seeds: int) -> dict[str, Any]:
    """Return the F1 of each body, lag and number of false starts: all seeds', and their gain."""
    rows: dict[str, Any] = {}
    for body in (untaught.EVIDENCE, *BODIES):
        names = [body] if body == untaught.EVIDENCE else [f"{body}-{s}" for s in range(seeds)]
        for lag in LAGS:
            ends = f", {lag} later" if lag else ""
            of_all = judged["rows"]
            of_seeds = [of_all[name + ends] for name in names if name + ends in of_all]
            for most in of_seeds[0] if of_seeds else ():
                all_snrs = [figures[most]["all"] for figures in of_seeds]
                rows.setdefault(body + ends, {})[most] = {
                    "f1": [each["f1"][0] for each in all_snrs],
                    "more": [each["more"] for each in all_snrs],
                    "sounds": [each["sounds"] for each in all_snrs],
                }
    return {"scenes": judged["scenes"], "rows": rows}


def markdown(found: dict[str, Any]) -> str:
    """Return the tables."""
    lines = [
        "# A reader taken apart",
        "",
        "`benchmarks/reader_apart.py`: its head says what was trained and how it is judged. F1 of "
        "what is in force at the same false starts: the mean of the seeds, and each; what each is "
        "more than the evidence, with its 95 % interval (bootstrap over scenes).",
    ]
    for name, each in found.items():
        lines += [
            "",
            f"## {name}, {each['scenes']} scenes",
            "",
            "| GPT-2 | false starts a minute | F1 | of each seed | more than the evidence "
            "| sounds found |",
            "|" + " --- |" * 6,
        ]
        for body, by_starts in each["rows"].items():
            for most, figures in by_starts.items():
                mores = [
                    f"{m:+.3f} ({low:+.3f} to {high:+.3f})" for m, low, high in figures["more"]
                ]
                cells = [
                    body,
                    most,
                    f"{np.mean(figures['f1']):.3f}",
                    _each(figures["f1"]),
                    "; ".join(mores),
                    f"{np.mean(figures['sounds']):.0%}",
                ]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _each(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


if __name__ == "__main__":
    try:
        main()
    except (StreamtwlError, OSError) as error:
        sys.exit(f"reader_apart.py: {error}")
