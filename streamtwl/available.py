"""The pipeline that can run here: the one that is named or, without its weights, its fallback."""

from collections.abc import Callable
from typing import Any

from streamtwl import config
from streamtwl.config import Settings
from streamtwl.models import own, registry


def settings(
    pipeline: str, changes: dict[str, Any], announce: Callable[[str], None] = lambda _: None
) -> Settings:
    """Return the settings of a pipeline, changed where a change is given (is not None).

    `announce` gets a line where it is the fallback's, with what to do about it. Raises ConfigError.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    chosen = config.load(config.find(pipeline))
    if chosen.fallback:
        fallback = config.load(config.find(chosen.fallback))
        # What the fallback needs too is fetched in any case.
        more = [b for b in config.backbones(chosen) if b not in config.backbones(fallback)]
        if lacking := [name for name in more if not _is_here(name)]:
            announce(
                f"without {' and '.join(lacking)}, whose weights are not here, this is the "
                f"pipeline '{chosen.fallback}': `streamtwl models pull {' '.join(lacking)}` for "
                "better names"
            )
            chosen = fallback
    return config.override(chosen, given)


def _is_here(backbone: str) -> bool:
    """Whether a backbone's weights are at hand, without any network, or are not ours to fetch."""
    return not own.needs_pull(backbone) or registry.is_here(registry.find(backbone))
