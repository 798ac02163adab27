"""`streamtwl train`: a reasoner for your own sounds."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from streamtwl.commands.bench import moved
from streamtwl.commands.options import Corpus, Data, LeaveOut, Offline, PatchHop, ReadWindows
from streamtwl.errors import UsageError

BENCH_SWITCHES = {  # of `train` once, of `bench train` now
    *("--train", "--trace", "--residual", "--no-residual", "--rows"),
}


class Command(TyperCommand):
    """`train`, which hands switches that have moved over to `bench train`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse arguments as typer does, unless one of them is `bench train`'s."""
        switches = [each.partition("=")[0] for each in args]
        for switch in switches:
            if switch in BENCH_SWITCHES:
                ctx.exit(moved(f"train {switch}", ["train", *args]))
        return super().parse_args(ctx, args)


def train(
    data: Data,
    out: Annotated[
        Path, typer.Option("-o", "--output", help="The reasoner's file; its name is its name.")
    ] = Path("reasoner.onnx"),
    corpus: Corpus = None,
    leave_out: LeaveOut = None,
    windows: ReadWindows = None,
    trunk: Annotated[
        str,
        typer.Option(
            "--body",
            help="The language model: tiny (a small GPT-2), or none: the hidden Markov model alone,"
            " for which the extra `fit` is enough. Others: `streamtwl bench train --help`.",
        ),
    ] = "tiny",
    epochs: Annotated[int, typer.Option(help="At most.", min=1)] = 8,
    seed: Annotated[int, typer.Option(help="Of the scenes and the weights.", min=0)] = 0,
    hop: PatchHop = 0.48,
    offline: Offline = False,
) -> None:
    """Train a reasoner on your own labelled clips (needs the extra `train`, or `fit`).

    The clips are put over backgrounds into scenes. A hidden Markov model learns what sounds when,
    and a language model reads the stream and corrects it; where that is worse on clips kept apart,
    by which epochs and thresholds are chosen too, the hidden Markov model is kept alone. `listen
    --reasoner FILE` then uses it. Stopped, the same command goes on.

    `streamtwl bench train` has the switches of research: other models, other traces.
    """
    recipe = {"trunk": trunk, "epochs": epochs, "seed": seed, "hop_s": hop}
    run(data, corpus, out, leave_out or [], recipe, windows)


def run(
    data: Path,
    corpus: Path | None,
    out: Path,
    leave_out: Sequence[int],
    recipe: dict[str, Any],
    windows: str | None,
) -> None:
    """Train a reasoner on a data set and say how it did on the validation split.

    `recipe` are fields of `training.recipe.Recipe`, `windows` those to read, separated by commas;
    None: the best whose weights are here. Raises UsageError where the extra is not there, and for
    data that cannot be trained on.
    """
    from streamtwl import folders
    from streamtwl.commands.progress import bars

    alone = recipe["trunk"] == "none"
    enough = "" if alone else "; without a language model (--body none) '.[cpu,fit]' is enough"
    with extra("train", "fit" if alone else "train", enough):
        from streamtwl.training import train as training

        wanted = training.Recipe(**recipe, windows=training.windows(windows))
        corpus = corpus or folders.cache() / "corpus"
        with bars(training.STAGES) as advance:
            card = training.train(data, corpus, out, leave_out, wanted, advance)
    figures = card.validation
    print(
        f"{out}: {len(card.labels)} labels; on validation scenes in-force F1 "
        f"{figures['in_force_f1']:.3f} at {figures['false_starts_per_minute']:.1f} false starts "
        f"a minute\nListen with it: streamtwl listen --reasoner {out}"
    )


@contextlib.contextmanager
def extra(command: str, needed: str = "train", more: str = "") -> Iterator[None]:
    """Raise UsageError that says what to install, and `more`, where something is not there."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{command} needs {error.name}: in a clone, .venv/bin/pip install -e "
            f"'.[cpu,{needed}]'{more}"
        ) from None
