"""Prometheus metrics. Labels are closed lists: no key, caller or request ever becomes one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from shrk_contract.terms import ResumeMethod
from shrk_coordinator.state.continuation import LOSSES

_GAP_BUCKETS = (0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0)
_LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_FIRST_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class _Gauges(Collector):
    """One labelled gauge."""

    def __init__(self, name: str, help_text: str, label: str, read: Callable[[], Mapping[str, float]]) -> None:
        self._name, self._help, self._label = name, help_text, label
        self._read = read

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Its name, without reading it."""
        yield GaugeMetricFamily(self._name, self._help, labels=(self._label,))

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """What it is now."""
        family = GaugeMetricFamily(self._name, self._help, labels=(self._label,))
        for value, figure in self._read().items():
            family.add_metric((value,), figure)
        yield family


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

        self._lag = Histogram(
            "shrk_loop_lag_seconds",
            "How late the event loop's ticks were: what everything else waits for as well.",
            buckets=_LAG_BUCKETS,
            registry=self.registry,
        )
        self._attempts = Counter(
            "shrk_attempts_total",
            "Attempts begun: first ones, others from the beginning, hedges, and continuations of what was delivered.",
            ("kind",),
            registry=self.registry,
        )
        self._continuations = Counter(
            "shrk_continuations_total",
            "Answers that went on from another node, by method and by what ended the attempt before.",
            ("method", "reason"),
            registry=self.registry,
        )
        self._gap = Histogram(
            "shrk_continuation_gap_seconds",
            "From the last piece of one node to the first of the next, in answers that were continued.",
            ("method",),
            buckets=_GAP_BUCKETS,
            registry=self.registry,
        )

    def ticked(self, lag_seconds: float) -> None:
        """A tick came, and so late."""
        self._lag.observe(lag_seconds)

    def attempted(self, number: int, resume: ResumeMethod | None, *, rival: bool = False) -> None:
        """An attempt begins; `number` counts those of its request from 1, `rival` runs beside another."""
        kind = "continuation" if resume is not None else "hedge" if rival else "again" if number > 1 else "first"
        self._attempts.labels(kind).inc()

    def continued(self, method: ResumeMethod, reason: str, gap: float) -> None:
        """A continued answer goes on, `gap` seconds after its last piece."""
        # A node's own words never become a label.
        self._continuations.labels(method, reason if reason in LOSSES else "failed").inc()
        self._gap.labels(method).observe(gap)

    def gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """A figure that is read when the metrics are."""
        Gauge(name, help_text, registry=self.registry).set_function(read)

    def gauges(self, name: str, help_text: str, label: str, read: Callable[[], Mapping[str, float]]) -> None:
        """A figure for each value of a label, all read when the metrics are. The values are bounded by `read`."""
        self.registry.register(_Gauges(name, help_text, label, read))

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)
