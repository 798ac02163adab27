"""The client library: `from streamtwl import subscribe`."""

from streamtwl.client.subscription import Subscription, subscribe

__all__ = ["Subscription", "subscribe"]
