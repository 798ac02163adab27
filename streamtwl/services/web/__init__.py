"""The page: what sounds now and what sounded, in a browser. See docs/web.md.

    messages -> Hub (live.py) -> server-sent events -> a page (assets/)
    the journal -> Past (past.py) -> api.py -> its other views, as operations.py describes

Everything passes through access.py: who may see it, how often, with which headers.
"""

from streamtwl.config import WebSettings
from streamtwl.services.web.page import Web


def make(settings: WebSettings) -> Web:
    """Return the service; raises UsageError for settings that it cannot have."""
    return Web(settings)
