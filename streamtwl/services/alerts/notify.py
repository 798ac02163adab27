"""A notification by apprise, as a program of its own: JSON with url, title and text on its stdin.

apprise waits in threads, and reads an answer to its end, however long it is: a process can be
killed, and its memory limited. It imports nothing else of streamtwl, so as to start quickly.
"""

import json
import resource
import sys
from typing import Any

MEMORY_BYTES = 256_000_000


def opened(url: str) -> Any:
    """Return apprise with the services of an address; it writes nothing to the disk."""
    import apprise

    asset = apprise.AppriseAsset(storage_mode=apprise.PersistentStoreMode.MEMORY)
    services = apprise.Apprise(asset=asset)
    services.add(url)
    return services


def main() -> None:
    """Exit with 0 where the service took it, else with 1."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    firing = json.load(sys.stdin)
    sys.exit(not opened(firing["url"]).notify(body=firing["text"], title=firing["title"]))


if __name__ == "__main__":
    main()
