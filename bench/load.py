"""The load generator: keep-alive connections that ask again as soon as they have their answer.

Sockets and epoll instead of an HTTP client or an event loop, since it must be several times cheaper than what it
measures. Reads one JSON line from stdin (`Load`), prints one (`Outcome`), and ends.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.caller import Caller, Tally
from bench.engine import CHUNKS, TOKENS_PER_SECOND
from bench.figures import cpu_ticks, percentile, resident_kb

CONNECT_SECONDS_MAX = 10.0
#: What is under way when the time is up must end: a paced stream lasts 1.3 s.
LAST_ANSWERS_SECONDS_MAX = 20.0
#: How late an end of the time may be noticed when nothing arrives.
POLL_SECONDS = 0.05

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Load:
    """What to ask for, and how."""

    port: int
    api_key: str
    model: str
    connections: int
    streaming: bool
    #: Before counting: all streams must be under way, and caches warm.
    warm_seconds: float
    seconds: float
    #: Processes whose CPU time and memory are read at the same moments as the counts.
    watch: Sequence[int]


@dataclass(slots=True)
class Outcome:
    """What was seen between the two moments. Times are in milliseconds; NaN where nothing was measured."""

    seconds: float
    requests: int
    chunks: int
    #: From sending a request to its whole answer, without streaming.
    latency_p50: float
    latency_p99: float
    #: To the first token, less what the engine itself took.
    first_token_p50: float
    first_token_p99: float
    #: By how much the pause between two tokens was longer than at the engine.
    gap_p99: float
    #: By process id, in the order of `watch`, and the generator's own last.
    cpu_seconds: list[float]
    memory_mb: list[float]
    errors: list[str] = field(default_factory=list)


def request_bytes(load: Load) -> bytes:
    """The one request that every connection sends again and again."""
    body = json.dumps(
        {
            "model": load.model,
            "messages": [{"role": "user", "content": "Tell me about sharks, please."}],
            "max_tokens": CHUNKS,
            "stream": load.streaming,
        }
    ).encode()
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b" % (load.api_key.encode(), len(body), body)
    )


class Generator:
    """All connections, and the one loop that serves them."""

    def __init__(self, load: Load) -> None:
        """Connect. Raises OSError."""
        self._load = load
        self.tally = Tally()
        self._epoll = select.epoll()
        self._callers: dict[int, Caller] = {}
        request, address = request_bytes(load), ("127.0.0.1", load.port)
        for _ in range(load.connections):
            connection = socket.create_connection(address, CONNECT_SECONDS_MAX)
            self._callers[connection.fileno()] = Caller(connection, request, load.streaming, self.tally)
            self._epoll.register(connection.fileno(), select.EPOLLIN)
        # Streams begin spread over one stream's length: together they would also all end together.
        spread = CHUNKS / TOKENS_PER_SECOND if load.streaming else 0.0
        now = time.monotonic()
        self._starts = deque(
            (now + spread * number / load.connections, caller) for number, caller in enumerate(self._callers.values())
        )

    def run(self) -> Outcome:
        """Warm up, count for the given time, and let the last answers end."""
        load, tally = self._load, self.tally
        self._serve(load.warm_seconds)
        watch = [*load.watch, os.getpid()]
        cpu, requests, chunks, began = _cpu_seconds(watch), tally.requests, tally.chunks, time.monotonic()
        tally.measuring = True
        self._serve(load.seconds)
        tally.measuring = False
        used = [after - before for after, before in zip(_cpu_seconds(watch), cpu, strict=True)]
        outcome = _outcome(tally, time.monotonic() - began, tally.requests - requests, tally.chunks - chunks)
        outcome.cpu_seconds, outcome.memory_mb = used, _memory_mb(watch)
        tally.stopping = True
        self._serve(LAST_ANSWERS_SECONDS_MAX, until=lambda: all(caller.idle for caller in self._callers.values()))
        if waiting := sum(not caller.idle for caller in self._callers.values()):
            tally.failed(f"{waiting} answers did not end within {LAST_ANSWERS_SECONDS_MAX:g} s")
        if not outcome.requests and not outcome.chunks:
            tally.failed("no answer came while it was measured")
        outcome.errors = tally.errors
        return outcome

    def _serve(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Take in what arrives for so long, or until all is done."""
        callers, poll, starts = self._callers, self._epoll.poll, self._starts
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end and not until():
            while starts and starts[0][0] <= now:
                starts.popleft()[1].ask()
            wait = min(POLL_SECONDS, end - now, starts[0][0] - now if starts else POLL_SECONDS)
            for descriptor, _ in poll(max(0.0, wait)):
                callers[descriptor].readable()


def _outcome(tally: Tally, seconds: float, requests: int, chunks: int) -> Outcome:
    latencies, first, gaps = (sorted(values) for values in (tally.latencies, tally.first_tokens, tally.gaps))
    return Outcome(
        seconds=seconds,
        requests=requests,
        chunks=chunks,
        latency_p50=percentile(latencies, 0.5) / 1e6,
        latency_p99=percentile(latencies, 0.99) / 1e6,
        first_token_p50=percentile(first, 0.5) / 1e6,
        first_token_p99=percentile(first, 0.99) / 1e6,
        gap_p99=percentile(gaps, 0.99) / 1e6,
        cpu_seconds=[],
        memory_mb=[],
    )


def _memory_mb(pids: Sequence[int]) -> list[float]:
    return [resident_kb(Path(f"/proc/{pid}/status").read_text()) / 1024 for pid in pids]


def _cpu_seconds(pids: Sequence[int]) -> list[float]:
    return [cpu_ticks(Path(f"/proc/{pid}/stat").read_text()) / _TICKS_PER_SECOND for pid in pids]


if __name__ == "__main__":
    print(json.dumps(asdict(Generator(Load(**json.loads(sys.stdin.readline()))).run())))
