"""`streamtwl bench ...`: commands for research, a short function for each."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from streamtwl import folders
from streamtwl.commands import train as product
from streamtwl.commands.listen import Endpoint, Model, Preset
from streamtwl.commands.models import pull_backbone
from streamtwl.commands.options import (
    Corpus,
    Data,
    LeaveOut,
    Offline,
    PatchHop,
    Pipeline,
    ReadWindows,
    pipeline_settings,
)
from streamtwl.commands.progress import bars
from streamtwl.config import Settings

Weights = StrEnum("Weights", ["all", "embedding"])
Rows = StrEnum("Rows", ["own", "random"])
Trace = StrEnum("Trace", ["soft", "sampled"])
Body = StrEnum("Body", ["trained", "random", "none"])

app = typer.Typer(
    name="bench",
    help="Research: pre-training, language models, and training with every switch (needs the extra "
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
            help="Unlabelled sound: FOLDER/train/ANY/*.flac, as tools/corpus.sh makes it. "
            "(default: corpus in the cache folder)",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[
        int, typer.Option(help="Each goes through the corpus about 3.5 times.", min=1)
    ] = 8,
    seed: Annotated[int, typer.Option(help="Of the order and the weights.", min=0)] = 0,
    hop: PatchHop = 0.48,
    offline: Offline = False,
) -> None:
    """Train the small GPT-2 to predict traces of unlabelled sound.

    The result has learned how sounds go on and change. `bench train --body FOLDER --train
    embedding` then trains a reasoner for your labels on top of it, without changing it. The same
    command resumes a training that was stopped.
    """
    with product.extra("pretrain"):
        from streamtwl.bench import pretraining
    corpus = corpus or folders.cache() / "corpus"
    with bars(pretraining.STAGES) as advance:
        nats = pretraining.pretrain(corpus, out, epochs, seed, hop, advance)
    more = "" if hop == Settings().hop_s else f" --hop {hop:g}"
    print(
        f"{out}: {nats['trained']:.2f} nats per token on recordings left out of training "
        f"(untrained: {nats['fresh']:.2f})\nTrain it on your sounds: streamtwl bench train FOLDER "
        f"--body {out} --train embedding --trace sampled{more}"
    )


@app.command()
def reader(
    out: Annotated[
        Path, typer.Option("-o", "--output", help="The reader's file, which gives it its name.")
    ] = Path("reader.onnx"),
    corpus: Corpus = None,
    pipeline: Annotated[
        str, typer.Option(help="Whose windows, prior and weights it is for.")
    ] = "default",
    sounds: Annotated[
        list[Path] | None,
        typer.Option(help="A data set whose clips sound in the scenes; its labels are not used."),
    ] = None,
    fold: Annotated[list[int] | None, typer.Option(help="Of the data sets: only these.")] = None,
    scenes: Annotated[int, typer.Option(help="Of two minutes.", min=1)] = 200,
    epochs: Annotated[int, typer.Option(help="Each is two stretches of every scene.", min=1)] = 6,
    body: Annotated[
        Body,
        typer.Option(
            help="The GPT-2: trained, left as random, or none beside the linear path, to see what "
            "it is worth."
        ),
    ] = Body.trained,
    seed: Annotated[int, typer.Option(help="Of the order and the weights.", min=0)] = 0,
    offline: Offline = False,
) -> None:
    """Train the reader: a small GPT-2 that reads any category's scores as they come and go.

    It needs no labels: what it learns to say is what the evidence says a little later, and in less
    noise. The same command resumes a training that was stopped.
    """
    with product.extra("reader"):
        from streamtwl.training import reader as training
    recipe = training.Recipe(pipeline, scenes, epochs, seed, body)
    with bars(training.STAGES) as advance:
        training.train(
            corpus or folders.cache() / "corpus",
            sounds or [],
            fold or [],
            out,
            recipe,
            advance,
        )
    print(f"{out}: listen with it: streamtwl listen --reasoner {out}")


@app.command()
def causal(
    sounds: Annotated[list[Path], typer.Option(help="A data set whose clips sound in the scenes.")],
    names: Annotated[
        list[Path],
        typer.Option(
            help="A table with the columns category and audioset: which of AudioSet's names "
            "(separated by |) are right for a class of the data sets."
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--output", help="The backbone's file.")] = Path(
        "causal.onnx"
    ),
    corpus: Corpus = None,
    fold: Annotated[list[int] | None, typer.Option(help="Of the data sets: only these.")] = None,
    scenes: Annotated[int, typer.Option(help="Of two minutes.", min=17)] = 320,
    epochs: Annotated[int, typer.Option(help="Over all scenes, twice.", min=1)] = 12,
    seed: Annotated[int, typer.Option(help="Of the order and the weights.", min=0)] = 0,
    offline: Offline = False,
) -> None:
    """Train the backbone `causal`: a network that says at each 0.16 s what it hears.

    YAMNet and mn04 teach it, and the truth where a clip has a label. The same command resumes a
    training that was stopped.
    """
    with product.extra("causal"):
        from streamtwl.training import causal as training
    with bars(training.STAGES) as advance:
        card = training.train(
            corpus or folders.cache() / "corpus",
            sounds,
            fold or [],
            training.right_names(names),
            out,
            training.Recipe(scenes, epochs, seed),
            advance,
        )
    print(f"{out}: cross-entropy {card.held_out_loss} on scenes that were left out")


@app.command()
def train(
    data: Data,
    out: Annotated[
        Path, typer.Option("-o", "--output", help="The reasoner's file, which gives it its name.")
    ] = Path("reasoner.onnx"),
    corpus: Corpus = None,
    leave_out: LeaveOut = None,
    windows: ReadWindows = None,
    trunk: Annotated[
        str,
        typer.Option(
            "--body",
            help="The language model (trunk): tiny (a small GPT-2 of our own), a folder of "
            "`bench pretrain`, a Hugging Face directory or id of a causal model, or a .gguf file; "
            "none: the HMM filter alone.",
        ),
    ] = "tiny",
    train: Annotated[
        Weights,
        typer.Option(help="What is trained: all, or only embedding and read-out, trunk frozen."),
    ] = Weights.all,
    trace: Annotated[
        Trace,
        typer.Option(help="The trunk's input: sampled posteriors, or soft: their expectation."),
    ] = Trace.soft,
    residual: Annotated[
        bool,
        typer.Option(help="Correct an HMM filter, or use the trace alone."),
    ] = True,
    rows: Annotated[
        Rows,
        typer.Option(
            help="The new embedding's initial value: own, from the trunk's words for each category "
            "if it has any; or random."
        ),
    ] = Rows.own,
    epochs: Annotated[int, typer.Option(help="At most.", min=1)] = 8,
    seed: Annotated[int, typer.Option(help="Of the scenes and the weights.", min=0)] = 0,
    hop: PatchHop = 0.48,
    offline: Offline = False,
) -> None:
    """Train a reasoner as `streamtwl train` does, with every switch.

    The paper's recipe, a frozen model that reads samples: `bench pretrain -o traces`, then
    `bench train DATA --body traces --train embedding --trace sampled --no-residual`.
    """
    recipe = {
        "trunk": trunk,
        "trained": train.value,
        "soft": trace == Trace.soft,
        "residual": residual,
        "rows": rows.value,
        "epochs": epochs,
        "seed": seed,
        "hop_s": hop,
    }
    product.run(data, corpus, out, leave_out or [], recipe, windows)


@app.command()
def llm(
    data: Annotated[
        Path, typer.Argument(help="A data set: ESC-50's layout, or a folder per class.")
    ],
    endpoint: Endpoint = None,
    preset: Preset = None,
    model: Model = None,
    effort: Annotated[
        str | None,
        typer.Option(
            help="How long the model thinks, as its preset has it: low, medium, high; off.",
            show_default=False,
        ),
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option(
            help="A table (CSV, columns category and audioset, names set off by |) of what the "
            "labels are called in AudioSet. (default: they have its names)",
            show_default=False,
        ),
    ] = None,
    fold: Annotated[
        list[int] | None,
        typer.Option(help="Only this fold. Repeat it for several. (default: all)"),
    ] = None,
    samples: Annotated[
        list[int] | None,
        typer.Option(
            help="K, names drawn from each patch; 0: all confidences. Repeat it for several.",
            min=0,
            max=4096,
        ),
    ] = None,
    traces: Annotated[int, typer.Option(help="M, traces drawn.", min=1, max=256)] = 1,
    votes: Annotated[int, typer.Option(help="Answers a trace.", min=1, max=64)] = 1,
    seeds: Annotated[int, typer.Option(help="Draws of all that is drawn.", min=1)] = 1,
    out: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for the answers and table.md.")
    ] = Path("llm"),
    pipeline: Pipeline = "llm",
    offline: Offline = False,
) -> None:
    """Have a language model name labelled clips by their traces, beside vote and floor.

    The extras `train` and `llm` are needed. The same command resumes where it was stopped: every
    answer is kept in the output folder.
    """
    with product.extra("llm"):
        from streamtwl.bench import llm as bench
    changes = {
        "llm.endpoint": endpoint,
        "llm.preset": preset,
        "llm.model": model,
        "llm.effort": effort,
        "llm.votes": votes,
        "trace.traces": traces,
    }
    settings = pipeline_settings(pipeline, changes)
    pull_backbone(settings)
    with bars(bench.STAGES) as advance:
        ks = list(dict.fromkeys(samples or [0]))
        print(bench.evaluate(data, names, out, settings, fold or [], ks, seeds, advance))
