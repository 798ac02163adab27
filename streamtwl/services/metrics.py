"""Figures for Prometheus, under /metrics: extra `metrics`.

Counters begin where the listener's session begins, as Prometheus expects of a program that was
started again: `rate()` and `increase()` know that.
"""

import contextlib
import errno
import time
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streamtwl.config import MetricsSettings
from streamtwl.endpoints import can_be_host
from streamtwl.errors import SinkError, UsageError
from streamtwl.messages import AnyMessage, Event, Hello, Label, Status
from streamtwl.services.roll import Roll
from streamtwl.services.service import Feed, Figures

DELAYS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
LABELS = 2000  # names of sources that have a counter of their own; others are "other"
FROM_ZERO = 1000  # of them, that have it before they sound: `increase()` sees no first event else
GONE_S = 15.0  # without a status, which comes each second: the source counts as down
COUNTERS = {  # name: help; of the newest status, in the listener's session
    "dropped_samples": "16 kHz samples missing on the timeline",
    "dropped_windows": "Hops without a decision, as samples were missing",
    "bad_samples": "NaN, infinite or absurd, replaced by zero",
    "clipped_samples": "Samples at full scale",
    "late_hops": "Decisions that came after the next window was due",
    "hops": "Windows decided",
    "overflows": "PortAudio's own",
    "reopened": "Times the device was lost and opened again",
    "clock_jumps": "Of the wall clock, by more than a second",
    "dropped_messages": "Messages sent to no one",
    "stalled_subscribers": "Times that a subscriber's queue was full",
    "journal_errors": "Messages that went out without being in the journal",
}
GAUGES = {  # name: field of the newest status, factor, help
    "level_dbfs": ("level_dbfs", 1.0, "RMS of the newest hop, dB full scale"),
    "level_dba": ("level_dba", 1.0, "A-weighted, fast; absolute where it is calibrated"),
    "queued": ("queued", 1.0, "Messages that wait for the publisher"),
    "real_time_factor": ("real_time_factor", 1.0, "Seconds of work per second of sound"),
    "memory_bytes": ("memory_mb", 1e6, "Resident"),
    "capture_delay_seconds": ("capture_delay_ms", 1e-3, "Sound card to resampler"),
}
SERVICE_GAUGES = {  # name of a service's figure: help; all others are counted
    "waiting": "What a service has yet to send",
    "connected": "1 while a service has someone to send to",
    "pages": "Pages that are open",
}


def address(said: str, key: str) -> tuple[str, int]:
    """Return host and port of "[HOST:]PORT"; raises UsageError that names the option."""
    host, _, port = said.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    digits = port.isascii() and port.isdigit()
    if not (digits and len(port) <= 5 and 0 < int(port) < 65536 and can_be_host(host)):
        raise UsageError(f"{key} {said!r}: it takes [HOST:]PORT, as 127.0.0.1:9765")
    return host, int(port)


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
        self._roll = Roll()
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
            other = f": choose another, as --metrics {self._port + 1}"
            raise SinkError(
                f"cannot listen at {self._host}:{self._port}: {error.strerror}"
                f"{other if error.errno == errno.EADDRINUSE else ''}"
            ) from None
        try:
            kinds = ["event", "hello", "label", "status"]
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
        if not isinstance(message, Hello):  # which may be of the session's beginning
            self._arrival.labels(kind).observe(max(0.0, time.time() - message.published_at))
        if isinstance(message, Event) and message.phase == "onset":
            known = (message.source, message.label)
            if known not in self._labels and len(self._labels) >= LABELS:
                known = (message.source, "other")
            self._labels.add(known)
            self._events.labels(*known).inc()
        elif isinstance(message, Hello):
            begun = self._labels | {(message.source, label) for label in message.labels}
            if len(begun) <= FROM_ZERO:
                self._labels = begun
                for label in message.labels:
                    self._events.labels(message.source, label)
        elif isinstance(message, Label):
            self._delay.labels(message.source).observe(max(0.0, message.latency_ms / 1000))
        elif isinstance(message, Status):
            self._newest[message.source] = (message, time.monotonic())
            self._roll.take(message.source, message.session)
            for source in self._roll.gone():
                self._forget(source)

    def _forget(self, source: str) -> None:
        del self._newest[source]
        gone = {known for known in self._labels if known[0] == source}
        self._labels -= gone
        for known in gone:
            self._events.remove(*known)
        with contextlib.suppress(KeyError):  # it had no label
            self._delay.remove(source)

    def now(self) -> Iterator[Metric]:
        """Yield what the newest statuses say, and what the services count."""
        newest = list(self._newest.items())
        up = GaugeMetricFamily("streamtwl_up", "1 while a source listens", labels=["source"])
        silent = GaugeMetricFamily(
            "streamtwl_silent", "1 while a source listens, to nothing but zeros", labels=["source"]
        )
        for source, (status, at) in newest:
            fresh = time.monotonic() < at + GONE_S
            up.add_metric([source], float(fresh and status.state in ("listening", "silent")))
            silent.add_metric([source], float(fresh and status.state == "silent"))
        yield from (up, silent)
        for name, text in COUNTERS.items():
            counter = CounterMetricFamily(f"streamtwl_{name}", text, labels=["source"])
            for source, (status, _) in newest:
                counter.add_metric([source], getattr(status, name))
            yield counter
        for name, (field, factor, text) in GAUGES.items():
            gauge = GaugeMetricFamily(f"streamtwl_{name}", text, labels=["source"])
            for source, (status, _) in newest:
                if (value := getattr(status, field)) is not None:
                    gauge.add_metric([source], factor * value)
            yield gauge
        yield from self._services()

    def _services(self) -> Iterator[Metric]:
        counted = CounterMetricFamily(
            "streamtwl_service", "What a service counts", labels=["service", "figure"]
        )
        gauges = {
            figure: GaugeMetricFamily(f"streamtwl_service_{figure}", text, labels=["service"])
            for figure, text in SERVICE_GAUGES.items()
        }
        for name, figures in (self._feed.figures() if self._feed else {}).items():
            for figure, value in figures.items():
                if figure in gauges:
                    gauges[figure].add_metric([name], float(value))
                else:
                    counted.add_metric([name, figure], float(value))
        yield from (counted, *gauges.values())


class _Newest(Collector):
    def __init__(self, service: MetricsService) -> None:
        self._service = service

    def collect(self) -> Iterable[Metric]:
        """Return what there is now."""
        return self._service.now()
