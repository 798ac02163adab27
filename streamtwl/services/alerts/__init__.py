"""Rules on events, and what is done where one applies: extra `alerts`.

messages -> Engine -> firings -> outbox -> actions
"""

from streamtwl.config import AlertsSettings
from streamtwl.services.service import Service


def make(settings: AlertsSettings) -> Service:
    """Return the service; raises ConfigError for rules that cannot be, UsageError."""
    from streamtwl.services.alerts.service import AlertsService

    return AlertsService(settings)
