"""`streamtwl keys ...`: CURVE keys, for publishing beyond this machine."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from streamtwl.errors import UsageError

app = typer.Typer(
    help="Keys for publishing to other machines: encrypted, to those who are allowed.",
    no_args_is_help=True,
)


@app.command()
def new(
    name: Annotated[
        str | None,
        typer.Argument(help="With --client: what to call it. (default: client)"),
    ] = None,
    client: Annotated[
        bool, typer.Option("--client", help="For subscribing, not for publishing.")
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Where. (default: keys in the user's config folder, or in $STREAMTWL_CONFIG)",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make a pair of CURVE keys: a .key file to hand over, a .key_secret file to keep."""
    from streamtwl import folders, security

    if name and not client:
        raise UsageError(f"'{name}': a name is for --client, a publisher's key is called server")
    folder = folders.expand(folder) if folder else security.keys_folder()
    print(
        security.make_keys(folder, name or (security.CLIENT if client else security.SERVER)),
        flush=True,
    )
    print(
        f"copy it into the publisher's keys/{security.CLIENTS}/"
        if client
        else f"copy it to the subscribers, and their .key files into {folder / security.CLIENTS}",
        file=sys.stderr,
    )
