"""All models by name, streamtwl's and the user's: what they are, and whether they are intact."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from streamtwl.errors import ModelError, UsageError
from streamtwl.models import catalogue, own, registry


@dataclass(frozen=True, slots=True)
class Row:
    """A model in `streamtwl models list`."""

    name: str
    about: str
    licence: str
    size: str
    here: str
    source: str


def rows() -> list[Row]:
    """Return one row for each model."""
    shipped = [_shipped(model) for model in registry.MODELS.values()]
    added = own.names()
    absent = [
        Row(name, "backbone that a command makes", "", "", "no", command)
        for name, command in catalogue.EXPORTED.items()
        if name not in added
    ]
    return shipped + absent + [_own(name) for name in added]


def path(name: str) -> Path:
    """Return where a model's file is; raises ModelError if it is absent, UsageError if unknown."""
    if name in own.names():
        own.card(name)
        return own.path(name)
    model = _find(name)
    if registry.checksum(model) is None:
        raise ModelError(f"{name} is not here yet: run `streamtwl models pull {name}`")
    return registry.path(model)


def verify(name: str | None) -> Iterator[tuple[bool, str]]:
    """Yield for each model here, or the named one, whether it is intact, and a line about it.

    Raises ModelError where there is none, UsageError for an unknown name.
    """
    shipped = [model for model in registry.MODELS.values() if registry.path(model).exists()]
    names = [*(model.name for model in shipped), *own.names()]
    if name is not None and name not in names:
        _find(name)
        raise ModelError(f"{name} is not here yet: run `streamtwl models pull {name}`")
    if not names:
        raise ModelError("no model is here yet: run `streamtwl models pull`")
    for each in names if name is None else [name]:
        yield _verify(each)


def _verify(name: str) -> tuple[bool, str]:
    if name in registry.MODELS:
        found = registry.checksum(registry.MODELS[name])
        problem = f"damaged or out of date: `streamtwl models pull {name}` builds it again"
    else:
        try:
            found, problem = own.card(name).sha256, ""
        except ModelError as error:
            found, problem = None, str(error)
    return found is not None, f"{name}: {f'whole, SHA-256 {found}' if found else problem}"


def _find(name: str) -> registry.Model:
    if name in catalogue.EXPORTED:
        catalogue.find(name)  # which says how it is made
    if name not in registry.MODELS:
        there = ", ".join([*registry.MODELS, *own.names()])
        raise UsageError(f"no model is called '{name}': there is {there}")
    return registry.MODELS[name]


def _shipped(model: registry.Model) -> Row:
    file, carrier = registry.path(model), model.carrier
    about = "" if carrier.sha256 else "about "
    size, source = f"{about}{carrier.size / 1e6:.1f} MB", carrier.origin
    here = "no"
    if file.exists():
        here = "yes" if registry.checksum(model) else "damaged"
    if here == "yes":
        size = f"{file.stat().st_size / 1e6:.1f} MB"
        source = json.loads(file.with_suffix(".json").read_text()).get("source", source)
    return Row(model.name, model.about, model.licence, size, here, source)


def _own(name: str) -> Row:
    size = f"{own.path(name).stat().st_size / 1e6:.1f} MB"
    try:
        card = own.card(name)
    except ModelError:
        return Row(name, "", "", size, "damaged", "")
    takes = {
        "log_mel": "log-mel",
        "waveform": f"{card.samples} samples",
        "fbank": f"Kaldi's filter bank, {card.frames[0]} to {card.frames[1]} frames",
    }[card.input]
    return Row(
        name,
        f"backbone of yours: {takes}, {len(card.labels)} categories",
        "",
        size,
        "yes",
        card.origin,
    )
