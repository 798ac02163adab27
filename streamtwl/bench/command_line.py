"""`streamtwl bench ...`: what research needs and a user does not, a short function a command."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from streamtwl import folders
from streamtwl.commands import train as product
from streamtwl.commands.options import Corpus, Data, LeaveOut, Offline, PatchHop
from streamtwl.commands.progress import bars
from streamtwl.config import Settings

Weights = StrEnum("Weights", ["all", "embedding"])
Rows = StrEnum("Rows", ["own", "random"])
Trace = StrEnum("Trace", ["soft", "sampled"])

app = typer.Typer(
    name="bench",
    help="Research: pre-training, baselines, and training with every switch (needs the extra "
    "`train`).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def pretrain(
    out: Annotated[
        Path, typer.Option("-o", "--output", help="A folder, which `bench train --body` takes.")
    ] = Path("traces"),
    corpus: Annotated[
        Path | None,
        typer.Option(
            help="Sound that nobody labelled: FOLDER/train/ANY/*.flac, as tools/corpus.sh makes "
            "it. (default: corpus in the cache folder)",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[
        int, typer.Option(help="Each reads about 3.5 times as much as there is.", min=1)
    ] = 8,
    seed: Annotated[int, typer.Option(help="Of the order and the weights.", min=0)] = 0,
    hop: PatchHop = 0.48,
    offline: Offline = False,
) -> None:
    """Train the small GPT-2 to predict traces of unlabelled sound.

    What it makes has learned how sounds go on and change. `bench train --body FOLDER --train
    embedding` then teaches it your labels without changing it. Stopped, the same command goes on.
    """
    with product.extra("pretrain"):
        from streamtwl.bench import pretraining
    corpus = corpus or folders.cache() / "corpus"
    with bars(pretraining.STAGES) as advance:
        nats = pretraining.pretrain(corpus, out, epochs, seed, hop, advance)
    more = "" if hop == Settings().hop_s else f" --hop {hop:g}"
    print(
        f"{out}: {nats['trained']:.2f} nats a token of recordings it has not read (untrained: "
        f"{nats['fresh']:.2f})\nTeach it your sounds: streamtwl bench train FOLDER --body {out} "
        f"--train embedding --trace sampled{more}"
    )


@app.command()
def train(
    data: Data,
    out: Annotated[
        Path, typer.Option("-o", "--output", help="The reasoner's file; its name is its name.")
    ] = Path("reasoner.onnx"),
    corpus: Corpus = None,
    leave_out: LeaveOut = None,
    body: Annotated[
        str,
        typer.Option(
            help="The language model that reads: tiny (a small GPT-2 of our own), a folder of "
            "`bench pretrain`, a Hugging Face directory or id of a causal model, or a .gguf file; "
            "none: the HMM filter alone."
        ),
    ] = "tiny",
    train: Annotated[
        Weights,
        typer.Option(help="What learns: all, or the embedding and read-out, the body frozen."),
    ] = Weights.all,
    trace: Annotated[
        Trace,
        typer.Option(
            help="What is read: samples of each posterior, or soft: what many samples come to."
        ),
    ] = Trace.soft,
    residual: Annotated[
        bool,
        typer.Option(
            help="Stand on a filter (an HMM; with --open the pooled posteriors), or read the trace "
            "alone."
        ),
    ] = True,
    rows: Annotated[
        Rows,
        typer.Option(
            help="Where the new embedding starts: own, from the body's own words for each category "
            "where it has words; or at random."
        ),
    ] = Rows.own,
    open: Annotated[
        bool,
        typer.Option(
            "--open",
            help="Teach the open vocabulary: YAMNet itself is the teacher, your labels correct it.",
        ),
    ] = False,
    names: Annotated[
        Path | None,
        typer.Option(
            help="For --open: a table (CSV, columns category and audioset, names set off by |) of "
            "what your labels are called. (default: as AudioSet or `streamtwl labels` does)",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(help="At most.", min=1)] = 8,
    seed: Annotated[int, typer.Option(help="Of the scenes and the weights.", min=0)] = 0,
    hop: PatchHop = 0.48,
    offline: Offline = False,
) -> None:
    """Train a reasoner as `streamtwl train` does, with every switch.

    The paper's recipe, samples read by a frozen model: `bench pretrain -o traces`, then
    `bench train DATA --body traces --train embedding --trace sampled --no-residual`.
    """
    recipe = {
        "body": body,
        "trained": train.value,
        "soft": trace == Trace.soft,
        "residual": residual,
        "rows": rows.value,
        "open": open,
        "epochs": epochs,
        "seed": seed,
        "hop_s": hop,
    }
    product.run(data, corpus, out, leave_out or [], recipe, names)


@app.command()
def evaluate(
    data: Annotated[
        Path, typer.Argument(help="A data set: ESC-50's layout, or a folder per class.")
    ],
    out: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for results.json, table.md and plots.")
    ] = Path("evaluation"),
    fold: Annotated[
        list[int] | None,
        typer.Option(help="Only this test fold. Repeat it for several. (default: all)"),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(help="So many clips of each class and fold, for a quick look.", min=2),
    ] = None,
    hop: PatchHop = 0.48,
    noise: Annotated[
        bool,
        typer.Option(
            "--noise/--no-noise",
            help="Also test in white noise of 20, 10 and 0 dB SNR, and also train with noisy copies"
            " of the clips. Costs six model passes a clip instead of one, kept for the next run,"
            " and about four times the training.",
        ),
    ] = True,
    offline: Offline = False,
) -> None:
    """Measure the baselines on labelled clips, fold by fold.

    Resumes where it was ended: what the output folder holds already is not run again.
    """
    with product.extra("evaluate"):
        from streamtwl.bench import clips
    with bars(clips.STAGES) as advance:
        results = clips.evaluate(data, out, advance, fold or [], limit, hop, noise)
    print(clips.markdown(results))
