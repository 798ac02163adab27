"""`streamtwl labels`: the names that --labels takes."""

from typing import Annotated

import typer


def labels(
    every: Annotated[
        bool, typer.Option("--all", help="AudioSet's categories instead of the everyday sounds.")
    ] = False,
) -> None:
    """Print the names that --labels takes: the everyday sounds, and what each is made of."""
    from streamtwl.ontology import categories, everyday

    if every:
        print("\n".join(categories()))
    else:
        for name, members in everyday().items():
            print(f"{name}: {'; '.join(members)}")
