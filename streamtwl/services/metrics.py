"""Figures for Prometheus, under /metrics: extra `metrics`.

Counters begin where the listener's session begins, as Prometheus expects of a program that was
started again: `rate()` and `increase()` know that.
"""

import time
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from streamtwl.config import MetricsSettings
from streamtwl.errors import SinkError, UsageError
from streamtwl.messages import AnyMessage, Event, Label, Status
from streamtwl.services.service import Feed, Figures

DELAYS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
LABELS = 1000  # names that have a counter of their own; others are "other"
GONE_S = 15.0  # without a status, which comes each second: the source counts as down
STATES = {  # name: help; of the newest status
    "level_dbfs": "RMS of the newest hop, dB full scale",
    "dropped_samples": "16 kHz samples missing on the timeline, in this session",
    "dropped_windows": "Hops without a decision, as samples were missing",
    "late_hops": "Decisions that came after the next window was due",
    "hops": "Windows decided",
    "clipped_samples": "Samples at full scale",
    "overflows": "PortAudio's own",
    "reopened": "Times the device was lost and opened again",
    "clock_jumps": "Of the wall clock, by more than a second",
    "queued": "Messages that wait for the publisher",
    "dropped_messages": "Messages sent to no one",
    "stalled_subscribers": "Times that a subscriber's queue was full",
    "real_time_factor": "Seconds of work per second of sound",
    "memory_mb": "Resident, 10^6 bytes",
    "journal_errors": "Messages that went out without being in the journal",
}


def address(said: str, key: str) -> tuple[str, int]:
    """Return host and port of "[HOST:]PORT"; raises UsageError that names the option."""
    host, _, port = said.rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise UsageError(f"{key} {said!r}: it takes [HOST:]PORT, as 127.0.0.1:9765")
    return host.strip("[]") or "127.0.0.1", int(port)


def make(settings: MetricsSettings) -> "MetricsService":
    """Return the service; raises UsageError."""
    return MetricsService(settings)


class MetricsService:
    """Counts a listener's messages, and answers Prometheus in a thread of its own."""

    name = "metrics"

    def __init__(self, settings: MetricsSettings) -> None:
        """Raises UsageError."""
        self._host, self._port = address(settings.address, "--metrics")
        self._registry = CollectorRegistry()
        namespace, registry = "streamtwl", self._registry
        self._events = Counter(
            "events",
            "Sounds that began",
            ["source", "label"],
            namespace=namespace,
            registry=registry,
        )
        self._delay = Histogram(
            "label_latency_seconds",
            "From a window's last sample to its label's publication",
            ["source"],
            buckets=DELAYS_S,
            namespace=namespace,
            registry=registry,
        )
        self._arrival = Histogram(
            "arrival_delay_seconds",
            "From a message's publication to its arrival here",
            ["kind"],
            buckets=DELAYS_S,
            namespace=namespace,
            registry=registry,
        )
        self._newest: dict[str, tuple[Status, float]] = {}  # source: and monotonic seconds
        self._labels: set[tuple[str, str]] = set()
        self._lost = 0
        self._feed: Feed | None = None
        self._registry.register(_Newest(self))

    def figures(self) -> Figures:
        """Return how many messages never came."""
        return {"lost": self._lost}

    async def run(self, feed: Feed) -> None:
        """Answer and count until cancelled; raises SinkError where the port is in use."""
        self._feed = feed
        try:
            server, thread = start_http_server(self._port, self._host, self._registry)
        except OSError as error:
            raise SinkError(
                f"cannot listen at {self._host}:{self._port}: {error.strerror}"
            ) from None
        try:
            kinds = ["event", "label", "status"]
            async with feed.open(kinds, from_start=True) as messages:
                async for message in messages:
                    self._take(message)
                    self._lost = messages.lost.total()
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _take(self, message: AnyMessage) -> None:
        kind = type(message).__name__.lower()
        self._arrival.labels(kind).observe(max(0.0, time.time() - message.published_at))
        if isinstance(message, Event) and message.phase == "onset":
            known = (message.source, message.label)
            if known not in self._labels and len(self._labels) >= LABELS:
                known = (message.source, "other")
            self._labels.add(known)
            self._events.labels(*known).inc()
        elif isinstance(message, Label):
            self._delay.labels(message.source).observe(max(0.0, message.latency_ms / 1000))
        elif isinstance(message, Status):
            self._newest[message.source] = (message, time.monotonic())

    def gauges(self) -> Iterator[GaugeMetricFamily]:
        """Yield what the newest statuses say, and what the services count."""
        newest = list(self._newest.items())
        up = GaugeMetricFamily("streamtwl_up", "1 while a source listens", labels=["source"])
        for source, (status, at) in newest:
            fresh = time.monotonic() < at + GONE_S
            up.add_metric([source], float(fresh and status.state == "listening"))
        yield up
        for name, text in STATES.items():
            gauge = GaugeMetricFamily(f"streamtwl_{name}", text, labels=["source"])
            for source, (status, _) in newest:
                gauge.add_metric([source], getattr(status, name))
            yield gauge
        capture = GaugeMetricFamily(
            "streamtwl_capture_delay_seconds", "Sound card to resampler", labels=["source"]
        )
        for source, (status, _) in newest:
            if status.capture_delay_ms is not None:
                capture.add_metric([source], status.capture_delay_ms / 1000)
        yield capture
        service = GaugeMetricFamily(
            "streamtwl_service", "What a service counts", labels=["service", "figure"]
        )
        for name, figures in (self._feed.figures() if self._feed else {}).items():
            for figure, value in figures.items():
                service.add_metric([name, figure], float(value))
        yield service


class _Newest(Collector):
    def __init__(self, service: MetricsService) -> None:
        self._service = service

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return what there is now."""
        return self._service.gauges()
