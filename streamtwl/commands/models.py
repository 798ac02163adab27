"""`streamtwl models ...`: the weights, which are no part of the package."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from streamtwl.commands.options import Offline
from streamtwl.config import Settings
from streamtwl.errors import ModelError

app = typer.Typer(
    help="The model weights: what there is, get them, where they are.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(help="A model of `streamtwl models list`.")]


@app.command("list")
def list_models() -> None:
    """List the models and whether they are here."""
    from streamtwl.models import registry

    table = Table("name", "what", "here")
    for model in registry.MODELS.values():
        here = "yes" if registry.checksum(model) else "no, `streamtwl models pull` gets it"
        table.add_row(model.name, model.about, here)
    Console().print(table)


@app.command("pull")
def pull_model(name: Name = "yamnet", offline: Offline = False) -> None:
    """Get a model's weights, unless they are here and whole."""
    print(pull(name))


@app.command("path")
def model_path(name: Name = "yamnet") -> None:
    """Print where a model's file is; exits with 1 if it is not there."""
    from streamtwl.models import registry

    model = registry.find(name)
    if registry.checksum(model) is None:
        raise ModelError(f"{name} is not here yet: run `streamtwl models pull {name}`")
    print(registry.path(model))


def pull_backbone(settings: Settings) -> None:
    """Get the backbone's file; the backbone of another package brings its own."""
    from streamtwl import config, plugins

    for name in config.backbones(settings):
        if name not in plugins.names("backbones"):
            pull(name)


def pull(name: str) -> Path:
    """Return a model's file, fetched with a progress bar if it is not here.

    Raises UsageError for a name that no model has, ModelError where it cannot be had.
    """
    from streamtwl.models import registry

    model = registry.find(name)
    if registry.checksum(model) is not None:
        return registry.path(model)
    from streamtwl.commands.progress import download

    with download() as progress:
        bar = progress.add_task(name, total=model.carrier.size)

        def advance(done: int, _total: int) -> None:
            progress.update(bar, completed=done)

        def announce(line: str) -> None:
            progress.console.print(
                f"streamtwl: {line}", markup=False, highlight=False, soft_wrap=True
            )

        return registry.pull(model, advance, announce)
