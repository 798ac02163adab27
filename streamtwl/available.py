"""The pipeline that can run here: the one that is named or, without its weights, its fallback.

A fallback may have one of its own.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from streamtwl import config
from streamtwl.config import Settings
from streamtwl.errors import ConfigError, ModelError
from streamtwl.models import catalogue, own, registry
from streamtwl.models.wheel import is_offline


def settings(
    pipeline: str, changes: dict[str, Any], announce: Callable[[str], None] = lambda _: None
) -> Settings:
    """Return the settings of a pipeline, changed where a change is given (is not None).

    With a reasoner's file, the windows are those that it reads. `announce` gets a line where the
    settings are the fallback's, with what to do about it. Raises ConfigError, UsageError for a
    file that is no reasoner, ModelError where weights that it needs are not here.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    chosen, passed, lines = config.load(config.find(pipeline)), [pipeline], []
    while True:
        changed = config.override(chosen, given)
        windows = _windows_of_file(changed)
        if windows is not None:
            changed = config.with_windows(changed, windows)
        named = chosen.fallback
        if not named or (windows is not None and given.get("reasoner.file")):
            break  # a file that was named is not replaced
        fallback = config.load(config.find(named))
        lacking = absent(config.backbones(changed), config.backbones(fallback))
        if not lacking:
            break
        if named in passed:
            raise ConfigError(f"pipeline {pipeline}: its fallback '{named}' falls back to itself")
        passed.append(named)
        chosen = _with_language_model(fallback, chosen)
        lines.append(
            f"without {' and '.join(lacking)}, whose weights are not here, the pipeline is "
            f"'{named}': {' and '.join(map(_how_to_get, lacking))} for better names"
        )
    if all(map(_is_here, config.backbones(chosen))) or not is_offline():  # or an error follows
        for line in lines:
            announce(line)
    if windows is not None:
        check(config.backbones(changed), f"the reasoner {changed.reasoner.file} reads")
    return changed


def _with_language_model(fallback: Settings, chosen: Settings) -> Settings:
    """Return the fallback with the language model of the pipeline, if it has one."""
    if chosen.reasoner.file != "llm":
        return fallback
    kept = {"labels": chosen.labels, "reasoner.file": "llm"}
    return config.override(fallback, kept | {"llm": msgspec.to_builtins(chosen.llm)})


def check(backbones: Iterable[str], who: str) -> None:
    """Raise ModelError where weights are not here that are fetched only when the user says so."""
    if lacking := absent(backbones):
        raise ModelError(
            f"{who} {' and '.join(lacking)}, whose weights are not here: run "
            f"{' and '.join(map(_how_to_get, lacking))}"
        )


def absent(backbones: Iterable[str], fetched: Sequence[str] = ("yamnet",)) -> list[str]:
    """Return those whose weights are not here, without those that are fetched in any case."""
    names = dict.fromkeys(backbones)
    return [name for name in names if name not in fetched and not _is_here(name)]


def _windows_of_file(settings: Settings) -> list[str] | None:
    """Return the windows that the reasoner's file reads; None where it has no file."""
    if settings.reasoner.file in ("", "evidence"):
        return None
    from streamtwl.reasoners import choice, graph  # of which the others need nothing

    path = choice.file(settings)
    if path is None:
        return None
    card = graph.read_card(graph.open_session(path, 1, settings.backbone.provider), path)
    return choice.windows(settings, card)


def _is_here(backbone: str) -> bool:
    """Whether a backbone's weights are at hand, without any network, or are not ours to fetch."""
    if not own.needs_pull(backbone):
        return True
    return backbone not in catalogue.EXPORTED and registry.is_here(registry.find(backbone))


def _how_to_get(backbone: str) -> str:
    return f"`{catalogue.EXPORTED.get(backbone, f'streamtwl models pull {backbone}')}`"
