"""The mock engine: fast enough not to be the bottleneck, and honest about when it emitted what.

Every chunk carries two readings of the system's clock: when its request reached the engine, and when
this chunk left it. All processes of one machine read the same clock, so the load generator knows what everything
between the engine and the caller added, without a second run to compare with.

The model's name chooses the behaviour:

    bench-whole   one answer of about 600 bytes, at once
    bench-burst   CHUNKS chunks as fast as they are taken, BURST in a tick
    bench-paced   CHUNKS chunks; all streams of a node step together, as vLLM's do
    bench-alone   the same, but every stream ticks by itself: the worst case for batching
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from shrk_contract.terms import CREDIT_BYTES
from shrk_node_agent.attempts import AttemptSink, ChoiceEnd, Envelope, Finished, Order, Piece
from shrk_node_agent.state.events import AttemptKey

WHOLE, BURST, PACED, ALONE = "bench-whole", "bench-burst", "bench-paced", "bench-alone"
MODELS = (WHOLE, BURST, PACED, ALONE)

#: Chunks of one streamed answer, and tokens per second and stream of the paced models.
CHUNKS = 64
TOKENS_PER_SECOND = 50
#: Chunks of one unpaced stream that become ready in one tick.
CHUNKS_PER_TICK = 8
#: A chunk is some 220 bytes. Streams of one node share a step, so none of them may ever wait for credit.
CHUNK_BYTES_MAX = 512
assert CHUNKS * CHUNK_BYTES_MAX < CREDIT_BYTES

#: Where a chunk's clock readings begin, and their hexadecimal length: 64 bits of nanoseconds.
STAMPS_AFTER = b'"delta":{"content":"'
STAMP_DIGITS = 16

_USAGE = {"prompt_tokens": 7, "completion_tokens": CHUNKS, "total_tokens": CHUNKS + 7}
_FINISHED = Finished((ChoiceEnd(0, "length"),), _USAGE)
_TEXT = "x" * 320


def _whole(envelope: Envelope) -> bytes:
    return (
        f'{{"id":"{envelope.id}","object":"chat.completion","created":{envelope.created},"model":"{envelope.model}",'
        f'"choices":[{{"index":0,"message":{{"role":"assistant","content":"{_TEXT}"}},"logprobs":null,'
        '"finish_reason":"length","stop_reason":null}],'
        '"usage":{"prompt_tokens":7,"total_tokens":71,"completion_tokens":64}}'
    ).encode()


@dataclass(slots=True)
class _Stream:
    """One streamed answer under way."""

    order: Order
    sink: AttemptSink
    left: int = CHUNKS
    ordered: int = field(default_factory=time.time_ns)
    head: bytes = b""

    def __post_init__(self) -> None:
        envelope = self.order.envelope
        self.head = (
            f'data: {{"id":"{envelope.id}","object":"chat.completion.chunk","created":{envelope.created},'
            f'"model":"{envelope.model}","choices":[{{"index":0,"delta":{{"content":"{self.ordered:016x}'
        ).encode()

    async def emit(self, emitted: int) -> None:
        """One chunk, stamped with the time of its step; after the last one, the end."""
        tail = b'%016x"},"logprobs":null,"finish_reason":null}]}\n\n' % emitted
        await self.sink.piece(Piece(1, (self.left,), self.head + tail))
        self.left -= 1
        if not self.left:
            self.sink.finish(_FINISHED)


class MockEngine:
    """One node's engine. `run` must be running for the paced model."""

    def __init__(self, phase: float) -> None:
        """`phase` (0 to 1) shifts this node's steps against those of others."""
        self._phase = phase
        self._stepping: dict[AttemptKey, _Stream] = {}
        self._tasks: dict[AttemptKey, asyncio.Task[None]] = {}

    def ordered(self, key: AttemptKey, order: Order, sink: AttemptSink) -> None:
        """Take every order on at once."""
        sink.accept()
        if order.model == PACED:
            self._stepping[key] = _Stream(order, sink)
            return
        work = {WHOLE: _answer, BURST: _burst, ALONE: _alone}[order.model]
        task = self._tasks[key] = asyncio.create_task(work(order, sink))
        task.add_done_callback(lambda _: self._tasks.pop(key, None))

    def cancelled(self, key: AttemptKey) -> None:
        """The caller left, or the link is gone."""
        self._stepping.pop(key, None)
        if task := self._tasks.get(key):
            task.cancel()

    async def run(self) -> None:
        """Step for ever: one token for every paced stream, at fixed times that do not drift with the load."""
        period = 1 / TOKENS_PER_SECOND
        due = time.monotonic() + period * self._phase
        while True:
            await asyncio.sleep(due - time.monotonic())
            now = time.time_ns()
            for key, stream in list(self._stepping.items()):
                await stream.emit(now)
                if not stream.left:
                    self._stepping.pop(key, None)
            due += period


async def _answer(order: Order, sink: AttemptSink) -> None:
    await sink.piece(Piece(0, (), _whole(order.envelope)))
    sink.finish(_FINISHED)


async def _burst(order: Order, sink: AttemptSink) -> None:
    stream = _Stream(order, sink)
    while stream.left:
        now = time.time_ns()
        for _ in range(CHUNKS_PER_TICK):
            await stream.emit(now)
        await asyncio.sleep(0)


async def _alone(order: Order, sink: AttemptSink) -> None:
    stream = _Stream(order, sink)
    due = time.monotonic()
    while stream.left:
        due += 1 / TOKENS_PER_SECOND
        await asyncio.sleep(due - time.monotonic())
        await stream.emit(time.time_ns())
