"""A caller leaves in the middle of an answer: the engine must stop generating it, streamed or not."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from reliability.caller import Caller
from reliability.engine_socket import EngineSocket
from reliability.figures import Gaps
from reliability.network import Network, a_network
from reliability.results import Row
from reliability.shapes import POSITIONS
from reliability.waiting import until
from shrk_coordinator.state.request import Attempt

MODEL, NODES = "m", 2
TOKENS_PER_SECOND = 200
#: More than any engine here generates before it is told to stop.
ENDLESS_TOKENS = 20_000
#: The promise: an engine is idle this long after its caller has left.
IDLE_SECONDS_MAX = 0.5
#: An engine that still generates by then was never told.
PATIENCE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Left:
    """One caller that left."""

    streamed: bool
    #: Tokens that the engine had generated, at least.
    position: int
    #: From then to the moment when the engine runs nothing; None where it went on.
    idle_seconds: float | None

    @property
    def in_time(self) -> bool:
        """Whether the promise was kept."""
        return self.idle_seconds is not None and self.idle_seconds <= IDLE_SECONDS_MAX


async def run(count: int, seed: int, progress: Callable[[Sequence[Left]], None]) -> list[Left]:
    """Leave so many times, one after another."""
    dice = random.Random(seed)
    done: list[Left] = []
    async with a_network() as network:
        speed = {"tokens_per_second": TOKENS_PER_SECOND}
        await asyncio.gather(*(network.add_simulated(f"n{number}", MODEL, **speed) for number in range(NODES)))
        await network.until_well(MODEL, NODES)
        for number in range(count):
            done.append(await _leave(network, streamed=number % 2 == 0, position=dice.randrange(POSITIONS)))
            progress(done)
    return done


async def _leave(network: Network, *, streamed: bool, position: int) -> Left:
    before = {name: (await _engine(network, name).figures()).generated for name in network.nodes}
    body: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "go on"}], "stream": streamed}
    body |= {"ignore_eos": True, "max_tokens": ENDLESS_TOKENS}
    asking = asyncio.create_task(Caller(network.session, network.chat_url, body).ask())
    try:
        attempts: list[Attempt] = []

        def accepted() -> bool:
            attempt = network.attempt(MODEL)
            attempts.extend([attempt] if attempt else [])
            return bool(attempts)

        await until(accepted, "a node has accepted the request", every=0.002)
        node = network.node_of(attempts[-1])
        engine = _engine(network, node.name)
        await engine.until_generated(before[node.name] + position)
    finally:
        left_at = time.monotonic()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    stopped = await engine.until_idle(PATIENCE_SECONDS)
    return Left(streamed, position, time.monotonic() - left_at if stopped else None)


def _engine(network: Network, name: str) -> EngineSocket:
    engine = network.nodes[name].engine()
    assert engine is not None, "engines are not struck here"
    return engine


def rows(lefts: Sequence[Left]) -> tuple[Row, ...]:
    """One."""
    times = Gaps.of([left.idle_seconds for left in lefts if left.idle_seconds is not None])
    return (
        Row(
            promise=f"A caller that leaves stops the engine within {IDLE_SECONDS_MAX * 1000:g} ms",
            tried="the connection is closed after a random number of tokens, every other one of an answer that is "
            "not streamed; the time is from then until the engine runs nothing",
            n=len(lefts),
            failures=sum(not left.in_time for left in lefts),
            seen=f"idle after {times.p50_ms:.0f} ms (p50) and {times.p99_ms:.0f} ms (p99)" if times else "",
        ),
    )


def failed(lefts: Sequence[Left], seed: int) -> tuple[str, ...]:
    """What went wrong, with the command that tries it again."""
    command = f"python -m reliability --only cancel --seed {seed}"
    return tuple(f"{left}: the engine went on for too long  [{command}]" for left in lefts if not left.in_time)
