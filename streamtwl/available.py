"""The pipeline that can run here: the one that is named or, without its weights, its fallback."""

from collections.abc import Callable
from typing import Any

from streamtwl import config
from streamtwl.config import Settings
from streamtwl.models import own, registry
from streamtwl.models.wheel import is_offline


def settings(
    pipeline: str, changes: dict[str, Any], announce: Callable[[str], None] = lambda _: None
) -> Settings:
    """Return the settings of a pipeline, changed where a change is given (is not None).

    `announce` gets a line where it is the fallback's, with what to do about it. Raises ConfigError.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    chosen = config.load(config.find(pipeline))
    if chosen.fallback:
        named, fallback = chosen.fallback, config.load(config.find(chosen.fallback))
        needed = config.backbones(fallback)  # and fetched in any case
        better = [name for name in config.backbones(chosen) if name not in needed]
        if lacking := [name for name in better if not _is_here(name)]:
            chosen = fallback
            if all(map(_is_here, needed)) or not is_offline():  # otherwise an error follows
                announce(
                    f"without {' and '.join(lacking)}, whose weights are not here, the pipeline is "
                    f"'{named}': `streamtwl models pull {' '.join(lacking)}` for better "
                    "names"
                )
    return config.override(chosen, given)


def _is_here(backbone: str) -> bool:
    """Whether a backbone's weights are at hand, without any network, or are not ours to fetch."""
    return not own.needs_pull(backbone) or registry.is_here(registry.find(backbone))
