"""Prometheus metrics. Labels are closed lists: no key, caller or request ever becomes one."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_FIRST_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """All metrics of one coordinator, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "shrk_requests_total",
            "Callers' requests, by endpoint and status.",
            ("endpoint", "status"),
            registry=self.registry,
        )
        self.first_byte = Histogram(
            "shrk_first_byte_seconds",
            "From a request's arrival to the first byte of its answer.",
            ("endpoint",),
            buckets=_FIRST_TOKEN_BUCKETS,
            registry=self.registry,
        )
        self.callers_left = Counter(
            "shrk_callers_left_total",
            "Callers that closed their connection before the end.",
            registry=self.registry,
        )

    def gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """A figure that is read when the metrics are."""
        Gauge(name, help_text, registry=self.registry).set_function(read)

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)
