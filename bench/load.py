"""The load generator: keep-alive connections that ask again as soon as they have their answer.

Raw protocols instead of an HTTP client, since it must be several times cheaper than what it measures. Every answer
is checked to be whole. Reads one JSON line from stdin (`Load`), prints one (`Outcome`), and ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

import uvloop

from bench.engine import CHUNKS, STAMP_DIGITS, STAMPS_AFTER, TOKENS_PER_SECOND
from bench.figures import cpu_ticks, percentile, resident_kb

CONNECT_SECONDS_MAX = 20.0
#: What is under way when the time is up must end: a paced stream lasts 1.3 s.
LAST_ANSWERS_SECONDS_MAX = 20.0
#: Enough to see what goes wrong.
ERRORS_KEPT_MAX = 5

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_DONE = b"data: [DONE]\n\n"
_BODY_END = b"\r\n0\r\n\r\n"
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
    """What was seen between the two moments. Times are in microseconds."""

    seconds: float = 0.0
    requests: int = 0
    chunks: int = 0
    #: From sending a request to its whole answer, without streaming.
    latency_p50: float = 0.0
    latency_p99: float = 0.0
    #: To the first token, less what the engine itself took.
    first_token_p50: float = 0.0
    first_token_p99: float = 0.0
    #: By how much the pause between two tokens was longer than at the engine.
    gap_p99: float = 0.0
    #: By process id, in the order of `watch`, and the generator's own last.
    cpu_seconds: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class Tally:
    """What all connections count together."""

    def __init__(self) -> None:
        self.measuring = False
        self.requests = 0
        self.chunks = 0
        self.latencies = array("q")
        self.first_tokens = array("q")
        self.gaps = array("q")
        self.errors: list[str] = []
        self.stopping = False

    def failed(self, what: str) -> None:
        """Something was not as it must be."""
        if len(self.errors) < ERRORS_KEPT_MAX:
            self.errors.append(what)


class Caller(asyncio.Protocol):
    """One connection."""

    def __init__(self, request: bytes, streaming: bool, tally: Tally) -> None:
        self.idle = asyncio.Event()
        self.idle.set()
        self._request = request
        self._streaming = streaming
        self._tally = tally
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._sent = 0
        self._in_body = False
        self._done = False
        self._chunks = 0
        self._lag = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected; `ask` begins."""
        # uvloop's transports do not inherit from asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The other side closed: an error while an answer is under way."""
        if not self.idle.is_set():
            self._tally.failed(f"the connection was closed after {self._chunks} chunks")
            self.idle.set()

    def ask(self) -> None:
        """Send the next request, unless the time is up."""
        if self._tally.stopping:
            self.idle.set()
            return
        assert self._transport is not None
        self.idle.clear()
        self._buffer, self._in_body, self._done, self._chunks = b"", False, False, 0
        self._sent = time.monotonic_ns()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """A part of an answer."""
        now = time.monotonic_ns()
        self._buffer = self._buffer + data if self._buffer else data
        if not self._streaming:
            self._whole(now)
        elif self._in_body or self._head():
            self._events(now)

    def _whole(self, now: int) -> None:
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not separator or length is None or len(body) < int(length[1]):
            return
        if not head.startswith(b"HTTP/1.1 200 ") or not body.endswith(b"}}"):
            self._refused()
            return
        tally = self._tally
        tally.requests += 1
        if tally.measuring:
            tally.latencies.append(now - self._sent)
        self.ask()

    def _head(self) -> bool:
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return False
        if not head.startswith(b"HTTP/1.1 200 "):
            self._refused()
            return False
        self._in_body, self._buffer = True, body
        return True

    def _events(self, now: int) -> None:
        # Only whole events: a chunk of HTTP, or a packet, may end anywhere.
        last = self._buffer.rfind(b"\n\n")
        if last >= 0:
            events, self._buffer = self._buffer[: last + 2], self._buffer[last + 2 :]
            self._count(now, events)
            self._done = events.endswith(_DONE)
        if self._done and self._buffer == _BODY_END:
            self._ended()

    def _count(self, now: int, events: bytes) -> None:
        at = events.find(STAMPS_AFTER)
        while at >= 0:
            at += len(STAMPS_AFTER)
            self._chunk(now, events[at : at + 2 * STAMP_DIGITS])
            at = events.find(STAMPS_AFTER, at)

    def _chunk(self, now: int, stamps: bytes) -> None:
        lag = now - int(stamps[STAMP_DIGITS:], 16)
        tally = self._tally
        tally.chunks += 1
        if tally.measuring:
            if self._chunks:
                tally.gaps.append(lag - self._lag)
            else:
                reached_engine = int(stamps[:STAMP_DIGITS], 16)
                tally.first_tokens.append(reached_engine - self._sent + lag)
        self._lag = lag
        self._chunks += 1

    def _ended(self) -> None:
        if self._chunks != CHUNKS:
            self._tally.failed(f"a stream ended after {self._chunks} of {CHUNKS} chunks")
        self._tally.requests += 1
        self.ask()

    def _refused(self) -> None:
        self._tally.failed(self._buffer[:600].decode(errors="replace"))
        self.idle.set()
        assert self._transport is not None
        self._transport.abort()


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


async def generate(load: Load) -> Outcome:
    """Connect, warm up, count for the given time, and let the last answers end."""
    loop = asyncio.get_running_loop()
    tally, request = Tally(), request_bytes(load)
    loop.set_exception_handler(lambda _, context: tally.failed(f"{context['message']}: {context.get('exception')!r}"))
    callers = [Caller(request, load.streaming, tally) for _ in range(load.connections)]
    async with asyncio.timeout(CONNECT_SECONDS_MAX):
        for caller in callers:
            await loop.create_connection(lambda caller=caller: caller, "127.0.0.1", load.port)  # type: ignore[misc]  # a default cannot be inferred
    # Streams begin spread over one stream's length: together they would also all end together.
    spread = CHUNKS / TOKENS_PER_SECOND if load.streaming else 0.0
    for number, caller in enumerate(callers):
        loop.call_later(spread * number / load.connections, caller.ask)
    await asyncio.sleep(load.warm_seconds)
    outcome = await _measure(load, tally)
    tally.stopping = True
    try:
        async with asyncio.timeout(LAST_ANSWERS_SECONDS_MAX):
            await asyncio.gather(*(caller.idle.wait() for caller in callers))
    except TimeoutError:
        waiting = sum(not caller.idle.is_set() for caller in callers)
        tally.failed(f"{waiting} answers did not end within {LAST_ANSWERS_SECONDS_MAX:g} s")
    if not outcome.requests and not outcome.chunks:
        tally.failed("no answer came while it was measured")
    outcome.errors = tally.errors
    return outcome


async def _measure(load: Load, tally: Tally) -> Outcome:
    watch = [*load.watch, os.getpid()]
    cpu, requests, chunks, began = _cpu_seconds(watch), tally.requests, tally.chunks, time.monotonic()
    tally.measuring = True
    await asyncio.sleep(load.seconds)
    tally.measuring = False
    used = [after - before for after, before in zip(_cpu_seconds(watch), cpu, strict=True)]
    outcome = Outcome(
        seconds=time.monotonic() - began,
        requests=tally.requests - requests,
        chunks=tally.chunks - chunks,
        cpu_seconds=used,
        memory_mb=_memory_mb(watch),
    )
    latencies, first, gaps = (sorted(values) for values in (tally.latencies, tally.first_tokens, tally.gaps))
    outcome.latency_p50, outcome.latency_p99 = percentile(latencies, 0.5) / 1000, percentile(latencies, 0.99) / 1000
    outcome.first_token_p50, outcome.first_token_p99 = percentile(first, 0.5) / 1000, percentile(first, 0.99) / 1000
    outcome.gap_p99 = percentile(gaps, 0.99) / 1000
    return outcome


def _memory_mb(pids: Sequence[int]) -> list[float]:
    return [resident_kb(Path(f"/proc/{pid}/status").read_text()) / 1024 for pid in pids]


def _cpu_seconds(pids: Sequence[int]) -> list[float]:
    return [cpu_ticks(Path(f"/proc/{pid}/stat").read_text()) / _TICKS_PER_SECOND for pid in pids]


if __name__ == "__main__":
    print(json.dumps(asdict(uvloop.run(generate(Load(**json.loads(sys.stdin.readline())))))))
