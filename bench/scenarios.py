"""What is measured, and what the figures are called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.engine import ALONE, BURST, CHUNKS, PACED, TOKENS_PER_SECOND, WHOLE
from bench.figures import frames_per_message
from bench.load import Load, Outcome
from bench.network import Target, generate, metrics

#: Streams of the paced scenarios: the load that the peers were measured with.
STREAMS = 256
CONCURRENT = 64
#: All paced streams have begun by then, and the first of them have begun again.
_PACED_WARM_SECONDS = 1.2 * CHUNKS / TOKENS_PER_SECOND

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of load, and how to read its outcome."""

    name: str
    model: str
    connections: int
    warm_seconds: float
    #: Counted time in a full run, and in a quick one.
    seconds: float
    quick_seconds: float
    read: Callable[[Outcome], Figures]

    def run(self, target: Target, quick: bool) -> Figures:
        """Measure once. Raises BenchFailed."""
        load = Load(
            port=target.port,
            api_key=target.api_key,
            model=self.model,
            connections=self.connections,
            streaming=self.model != WHOLE,
            warm_seconds=self.warm_seconds,
            seconds=self.quick_seconds if quick else self.seconds,
            watch=[target.pid, *([target.nodes_pid] if target.nodes_pid else [])],
        )
        before = metrics(target) if target.admin_key else {}
        outcome = generate(load)
        read = self.read(outcome)
        if before:
            read["frames_per_message"] = frames_per_message(before, metrics(target))
        read["memory_mb"] = outcome.memory_mb[0]
        read["cores_gateway"] = outcome.cpu_seconds[0] / outcome.seconds
        read["cores_generator"] = outcome.cpu_seconds[-1] / outcome.seconds
        if target.nodes_pid:
            read["cores_nodes"] = outcome.cpu_seconds[1] / outcome.seconds
        return {f"{self.name}.{name}": value for name, value in read.items()}


def _requests(outcome: Outcome) -> Figures:
    return {
        "requests_per_second": outcome.requests / outcome.seconds,
        "cpu_seconds_per_1k_requests": outcome.cpu_seconds[0] / outcome.requests * 1e3,
    }


def _latency(outcome: Outcome) -> Figures:
    return {"p50_ms": outcome.latency_p50, "p99_ms": outcome.latency_p99}


def _chunks(outcome: Outcome) -> Figures:
    return {
        "chunks_per_second": outcome.chunks / outcome.seconds,
        "cpu_seconds_per_1m_chunks": outcome.cpu_seconds[0] / outcome.chunks * 1e6,
    }


def _paced(outcome: Outcome) -> Figures:
    return _chunks(outcome) | {
        "delivered_share": outcome.chunks / outcome.seconds / (STREAMS * TOKENS_PER_SECOND),
        "first_token_added_p50_ms": outcome.first_token_p50,
        "first_token_added_p99_ms": outcome.first_token_p99,
        "gap_added_p99_ms": outcome.gap_p99,
    }


REQUESTS = Scenario("requests", WHOLE, CONCURRENT, 1.0, 5.0, 2.0, _requests)
LATENCY = Scenario("latency", WHOLE, 1, 0.3, 3.0, 1.5, _latency)
PACED_STREAMS = Scenario("paced", PACED, STREAMS, _PACED_WARM_SECONDS, 8.0, 4.0, _paced)
BURST_STREAMS = Scenario("burst", BURST, CONCURRENT, 1.0, 4.0, 1.5, _chunks)
ALONE_STREAMS = Scenario("alone", ALONE, STREAMS, _PACED_WARM_SECONDS, 8.0, 4.0, _paced)

USUAL = (REQUESTS, LATENCY, PACED_STREAMS, BURST_STREAMS)
