"""One node of three becomes ten times slower: callers must hardly notice, and second tries must stay few and short.

The same load runs over the same nodes while all are well, and then while one is slow. After that the slowness moves
from node to node, for hedges are rare by design, and what becomes of their losers is to be counted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from reliability.engine_socket import EngineSocket
from reliability.network import Network, Node, a_network
from reliability.results import Row
from reliability.traffic import Told, ask, attempts, chat, in_ms, late, node_id, p99, problems, steadily
from shrk_coordinator.state.budget import HEDGE_SHARE
from shrk_coordinator.state.events import RequestId
from shrk_coordinator.state.journal import AttemptEntry, Outcome
from shrk_coordinator.state.request import Phase

MODEL, NODES, SLOTS = "m", 3, 8
#: Engines whose step is short beside their first token: how full a batch is must not look like slowness.
TOKENS_PER_SECOND, FIRST_TOKEN_MS, TOKENS = 100, 100, 20
#: Far below what two nodes answer in a second, so that what is measured is not a queue.
PER_SECOND = 10.0
SLOWER = 10
#: Requests by which it is known how long a first token usually takes: they count for hedges only.
WARMING = 40
#: With each move of the slowness as many requests come as save up for one hedge and a little more.
MOVE_REQUESTS = 25
#: The promises: first tokens compared with healthy nodes, hedges among all requests, and the end of a hedge's loser.
RATIO_MAX, HEDGES_MAX, IDLE_SECONDS_MAX = 1.5, HEDGE_SHARE, 0.2
#: The coordinator may hedge once before any requests have saved up for it.
HEDGES_FIRST = 1
#: A loser that still runs by then was never told.
PATIENCE_SECONDS = 5.0
#: Between two looks at an engine whose loser is to end.
LOOK_SECONDS = 0.005
#: So many looks in a row must show no more than others' answers: one of those may have ended just now, and its end not
#: have been told yet.
LOOKS = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of it."""

    #: While all nodes are well, and again while one is slow.
    requests: int
    #: How often the slowness moves to another node.
    moves: int


def count(plan: Plan) -> int:
    """Requests of all of it."""
    return WARMING + 2 * plan.requests + plan.moves * MOVE_REQUESTS


@dataclass(frozen=True, slots=True)
class Slowed:
    """What came of it."""

    healthy: tuple[Told, ...]
    slow: tuple[Told, ...]
    moving: tuple[Told, ...]
    #: All requests, those that warmed up included, and the hedges among them.
    requests: int
    hedges: int
    #: Of the requests while one was slow: attempts in all, and at the slow node.
    attempts: int
    at_slow: int
    #: For each loser, from the moment another node spoke to the end of it in its engine; None where it went on.
    losers: tuple[float | None, ...] = ()


class _Losers:
    """Sees second tries end, and looks into the engines of those that lost."""

    def __init__(self, network: Network, group: asyncio.TaskGroup) -> None:
        self._network = network
        self._state = network.coordinator.driver.state
        self._group = group
        self._under_way: set[RequestId] = set()
        #: By request and number of the attempt.
        self._watches: dict[tuple[RequestId, int], asyncio.Task[float | None]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._look()
            await asyncio.sleep(LOOK_SECONDS)

    def _look(self) -> None:
        # A race may be over between two looks; a request is not.
        self._under_way |= self._state.attempts.requests.keys()
        for request_id in list(self._under_way):
            entry = self._state.journal.find(request_id)
            assert entry is not None, "the coordinator remembers thousands of requests"
            for one in entry.attempts:
                if one.outcome is Outcome.OUTRUN and (request_id, one.number) not in self._watches:
                    watch = self._group.create_task(self._until_ended(one))
                    self._watches[request_id, one.number] = watch
            if entry.ended_at is not None:
                self._under_way.discard(request_id)

    async def _until_ended(self, loser: AttemptEntry) -> float | None:
        assert loser.ended_at is not None, "it lost"
        engine = _engine(self._network, self._network.nodes[self._state.roster.nodes[loser.node_id].owner])
        since: list[float] = []
        while time.monotonic() < loser.ended_at + PATIENCE_SECONDS:
            figures = await engine.figures()
            since = [*since, time.monotonic()] if figures.running + figures.waiting <= self._others(loser) else []
            if len(since) == LOOKS:
                return since[0] - loser.ended_at
            await asyncio.sleep(LOOK_SECONDS)
        return None

    def _others(self, loser: AttemptEntry) -> int:
        """What the loser's engine has to run for others; what is on its way there makes the loser look alive."""
        attempts = self._state.attempts.by_stream.values()
        return sum(one.node_id == loser.node_id and one.phase is not Phase.ASKED for one in attempts)

    async def settled(self) -> tuple[float | None, ...]:
        """How long each took to end."""
        return tuple(await asyncio.gather(*self._watches.values()))


def _engine(network: Network, node: Node) -> EngineSocket:
    engine = node.engine()
    assert engine is not None, "a slow engine lives on"
    return engine


async def run(plan: Plan, seed: int, progress: Callable[[Sequence[Told]], None]) -> Slowed:
    """Load healthy nodes, then the same with one slow, then move the slowness."""
    async with a_network() as network, asyncio.TaskGroup() as group:
        speeds = {"tokens_per_second": TOKENS_PER_SECOND, "first_token_ms": FIRST_TOKEN_MS}
        await asyncio.gather(*(network.add_simulated(f"n{i}", MODEL, SLOTS, **speeds) for i in range(NODES)))
        await network.until_well(MODEL, NODES)
        losers = _Losers(network, group)
        looking = group.create_task(losers.run())
        found = await _load_all(plan, _Load(network, seed, progress))
        settled = await losers.settled()
        looking.cancel()
        return replace(found, losers=settled)


class _Load:
    """Requests at the pace of all, one load after another."""

    def __init__(self, network: Network, seed: int, progress: Callable[[Sequence[Told]], None]) -> None:
        self.network = network
        self.done: list[Told] = []
        self._body = chat(MODEL, f"Tell me about {seed} things", TOKENS)
        self._progress = progress

    async def ask(self, count: int) -> tuple[Told, ...]:
        """So many."""
        before = len(self.done)
        await steadily(lambda number: ask(self.network, self._body, before + number), count, PER_SECOND, self._take)
        return tuple(self.done[before:])

    def _take(self, told: Told) -> None:
        self.done.append(told)
        self._progress(self.done)


async def _load_all(plan: Plan, load: _Load) -> Slowed:
    network, nodes = load.network, list(load.network.nodes.values())
    await load.ask(WARMING)
    healthy = await load.ask(plan.requests)
    await _engine(network, nodes[0]).arm("slow", factor=SLOWER)
    slow = await load.ask(plan.requests)
    asked = attempts(network, slow)
    moving: list[Told] = []
    for move in range(plan.moves):
        await _engine(network, nodes[move % NODES]).clear()
        await _engine(network, nodes[(move + 1) % NODES]).arm("slow", factor=SLOWER)
        moving += await load.ask(MOVE_REQUESTS)
    slow_id = node_id(network, nodes[0])
    return Slowed(
        healthy=healthy,
        slow=slow,
        moving=tuple(moving),
        requests=len(load.done),
        hedges=hedges(network),
        attempts=len(asked),
        at_slow=sum(attempt.node_id == slow_id for attempt in asked),
    )


def hedges(network: Network) -> int:
    """Second tries so far, as the coordinator's own metrics tell them."""
    found = network.coordinator.metrics.registry.get_sample_value("shrk_attempts_total", {"kind": "hedge"})
    return int(found or 0)


def rows(found: Slowed) -> tuple[Row, ...]:
    """What callers, nodes and engines notice."""
    tried = (
        f"{PER_SECOND:g} streams a second over {NODES} nodes, first all well, then one {SLOWER} times slower (first "
        "token and pace), then the slowness moves from node to node"
    )
    return (_whole(found, tried), _ratio(found, tried), _hedges(found, tried), _losers(found, tried))


def _whole(found: Slowed, tried: str) -> Row:
    tolds = (*found.healthy, *found.slow, *found.moving)
    return Row(
        promise="While a node is slow, every answer is whole",
        tried=tried,
        n=len(tolds),
        failures=sum(not told.whole for told in tolds),
        seen=f"while one was slow, it got {found.at_slow} of {found.attempts} attempts",
    )


def _ratio(found: Slowed, tried: str) -> Row:
    healthy, slow = first_tokens(found.healthy), first_tokens(found.slow)
    limit = RATIO_MAX * p99(healthy) if healthy else 0.0
    return Row(
        promise=f"… 99 of 100 first tokens come within {RATIO_MAX:g} times what they take on healthy nodes",
        tried=tried,
        n=len(slow),
        failures=late(slow, limit),
        seen=f"healthy: {in_ms(healthy)}; one slow: {in_ms(slow)}; {sum(one > limit for one in slow)} took longer",
    )


def _hedges(found: Slowed, tried: str) -> Row:
    most = int(HEDGES_MAX * found.requests) + HEDGES_FIRST
    return Row(
        promise=f"… a second node is asked for at most {HEDGES_MAX * 100:g} % of requests, and one",
        tried=tried,
        n=found.requests,
        failures=max(0, found.hedges - most),
        seen=f"{found.hedges} hedges for {found.requests} requests",
    )


def _losers(found: Slowed, tried: str) -> Row:
    ended = [seconds for seconds in found.losers if seconds is not None]
    return Row(
        promise=f"… and whichever of the two loses has ended {IDLE_SECONDS_MAX * 1000:g} ms after the other spoke",
        tried=tried,
        n=len(found.losers),
        failures=sum(seconds is None or seconds > IDLE_SECONDS_MAX for seconds in found.losers),
        seen=in_ms(ended),
    )


def first_tokens(tolds: Sequence[Told]) -> list[float]:
    """Seconds until each request's first token."""
    return [told.first_seconds for told in tolds if told.first_seconds is not None]


def failed(found: Slowed, seed: int) -> tuple[str, ...]:
    """What went wrong, with the command that tries it again."""
    command = f"python -m reliability --only slow --seed {seed}"
    lasting = [seconds for seconds in found.losers if seconds is None or seconds > IDLE_SECONDS_MAX]
    return (
        *problems((*found.healthy, *found.slow, *found.moving), "stream", command),
        *(f"a hedge's loser ended after {seconds} s  [{command}]" for seconds in lasting),
    )
