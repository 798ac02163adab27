"""Stages from other packages, found through entry points.

A package names a factory (see the end of `stages.py`) in its metadata, as

    [project.entry-points."streamtwl.backbones"]
    birds = "my_package:make_backbone"

and the name can then be used like one of streamtwl's own. The groups are `streamtwl.sources`, where
the name is the scheme of an address, `streamtwl.backbones`, `streamtwl.reasoners` and
`streamtwl.sinks`.
"""

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, Literal

from streamtwl.errors import UsageError

Kind = Literal["sources", "backbones", "reasoners", "sinks"]


def names(kind: Kind) -> list[str]:
    """Return the names that other packages add."""
    return sorted(entry_points(group=f"streamtwl.{kind}").names)


def load(kind: Kind, name: str, own: Mapping[str, Any]) -> Any:
    """Return the factory of that name: one of `own`, or one that another package adds.

    Raises UsageError where there is none, or where its package cannot be imported.
    """
    if name in own:
        return own[name]
    found = entry_points(group=f"streamtwl.{kind}", name=name)
    if not found:
        known = ", ".join([*own, *names(kind)])
        raise UsageError(f"no {kind[:-1]} is called '{name}': there is {known}")
    [entry, *_] = found
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"{kind[:-1]} '{name}' of {entry.value} cannot be loaded: {error}"
        ) from None
