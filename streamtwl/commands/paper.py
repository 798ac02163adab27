"""`streamtwl paper`: the paper's experiment on your own data."""

import os
from pathlib import Path
from typing import Annotated

import typer

from streamtwl.commands.options import Offline
from streamtwl.commands.train import extra
from streamtwl.errors import SinkError

EXAMPLE = """An experiment; benchmarks/paper.toml in the repository has the settings:

\b
    backbones = ["yamnet:0.96", "mn04:2"]
    reasoners = ["vote", "mean", "log-mean", "linear", "hmm", "counts"]
    samples = [1, 2, 4, 8, 16, 32, 64]     # K
    seeds = [0, 1]
\b
    [\\[data]]
    folder = "ESC-50"      # ESC-50's layout, FSD50K's, or a folder per class
\b
    [\\[gpt2]]
    trunk = "tiny"         # or a directory, a .gguf, openai-community/gpt2
    weights = "frozen"     # only a new embedding and the read-out are trained
\b
    [\\[llm]]
    preset = "gpt-oss-20b"
    endpoint = "http://127.0.0.1:8000/v1"
\b
    streamtwl paper experiment.toml --report report.html
"""


def paper(
    config: Annotated[Path, typer.Argument(help="The experiment (.toml): see below.")],
    out: Annotated[
        Path,
        typer.Option("-o", "--output", help="Folder for results.json, tables.md and curve.png."),
    ] = Path("paper"),
    report: Annotated[
        Path | None,
        typer.Option(
            help="Also write this page (.html): tables, curves, and single clips to look at, in "
            "one file.",
            show_default=False,
        ),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(help="Side by side. (default: one a core)", min=1, show_default=False),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Every step on few clips, to find errors; not for figures."),
    ] = False,
    offline: Offline = False,
) -> None:
    """Run the paper's experiment on your own data (needs the extra `train`).

    Data sets x backbones x reasoners, over K samples of each patch: arXiv 2509.19676, Thinking
    While Listening. Published folds are kept, and a recording is never trained and tested on. What
    cannot be had, as weights, is listed as not run, with the command that would run it. Stopped,
    the same command goes on.
    """
    with extra("paper"):
        import matplotlib  # noqa: F401  the curves come last: it is missed before anything runs

        from streamtwl.commands.progress import bars
        from streamtwl.paper import experiment, runner
        from streamtwl.paper import plan as plans

        plan = plans.load(config)
        if quick:
            plan = plans.quick(plan)
        cores = processes or len(os.sched_getaffinity(0))
        # what runs in other processes moves no bar
        stages = runner.STAGES if cores == 1 else (runner.SCORING, runner.CELLS)
        try:
            with bars(stages) as advance:
                results = experiment.run(plan, str(config), out, advance, cores)
        except OSError as error:
            raise SinkError(
                f"{error.filename or out}: {error.strerror or error}: make room, or choose another "
                "folder with -o"
            ) from None
        if report is not None:
            from streamtwl.paper.report import write

            write(results, report)
    print((out / "tables.md").read_text(), end="")
