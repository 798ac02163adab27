"""`av.open` for reading, as PyAV's versions want it."""

from typing import Any

import av
from av.container import InputContainer

# From 19 on PyAV takes tags (titles, station names) that are not UTF-8 without being asked to, and
# has no such argument; before that they would be an error.
_TAGS: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
)


def open_input(file: Any, **options: Any) -> InputContainer:
    """Open what is to be demuxed: a path, an address, or an object with `read`.

    `options` are those of `av.open`, and what it raises is raised.
    """
    container: InputContainer = av.open(file, "r", **options, **_TAGS)
    return container
