"""A query of death is sent again and again: it costs two engines at most, and nobody else an answer."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reliability.network import Network, a_network
from reliability.results import Row
from reliability.traffic import Told, ask, attempts, chat, problems
from reliability.waiting import until
from shrk_coordinator.state.lives import EngineLife
from shrk_coordinator.state.suspects import NODES_MAX
from shrk_node_agent.engine.simulated.faults import QUERY_OF_DEATH

MODEL, NODES, SLOTS = "m", 3, 8
TOKENS_PER_SECOND, FIRST_TOKEN_MS, TOKENS = 40, 50, 20
#: Others who ask at the same time, each again as soon as it was told.
OTHERS = 4
#: The query is not sent faster than this, so that the others' answers run beside all of it.
PAUSE_SECONDS = 0.1
#: Between two looks for engines that were started anew.
ARM_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Poisoned:
    """What came of it."""

    #: The query, in the order in which it was sent.
    queries: tuple[Told, ...]
    others: tuple[Told, ...]
    #: Why engines ended, in their agents' words.
    ends: tuple[str, ...]
    #: Why attempts at the query ended, in the coordinator's words.
    codes: tuple[str, ...]


async def run(sends: int, seed: int, progress: Callable[[Sequence[Told]], None]) -> Poisoned:
    """Send the query so many times, one after another, while others ask for other things."""
    queries: list[Told] = []
    others: list[Told] = []
    async with a_network() as network, asyncio.TaskGroup() as group:
        speeds = {"tokens_per_second": TOKENS_PER_SECOND, "first_token_ms": FIRST_TOKEN_MS}
        await asyncio.gather(*(network.add_simulated(f"n{i}", MODEL, SLOTS, **speeds) for i in range(NODES)))
        await network.until_well(MODEL, NODES)
        armed: dict[str, EngineLife] = {}
        arming = group.create_task(_keep_armed(network, armed))
        await until(lambda: len(armed) == NODES, "all engines are armed")
        over = asyncio.Event()
        asking = [group.create_task(_other(network, seed, caller, over, others)) for caller in range(OTHERS)]
        body = chat(MODEL, f"This is a {QUERY_OF_DEATH}", TOKENS)
        for number in range(sends):
            queries.append(await ask(network, body, number))
            progress(queries)
            await asyncio.sleep(PAUSE_SECONDS)
        over.set()
        await asyncio.gather(*asking)
        await network.until_well(MODEL, NODES)
        codes = tuple(attempt.code for attempt in attempts(network, queries))
        arming.cancel()
        ends = tuple(why for node in network.nodes.values() for why in engine_ends(node.log()))
        return Poisoned(tuple(queries), tuple(others), ends, codes)


async def _keep_armed(network: Network, armed: dict[str, EngineLife]) -> None:
    """Until cancelled: an engine that was started anew must die of the query as the last one did."""
    while True:
        for name, life in network.serving(MODEL).items():
            engine = network.nodes[name].engine()
            if armed.get(name) != life and engine is not None and await engine.arm("query-of-death"):
                armed[name] = life
        await asyncio.sleep(ARM_SECONDS)


async def _other(network: Network, seed: int, caller: int, over: asyncio.Event, done: list[Told]) -> None:
    body = chat(MODEL, f"Tell me about {seed + caller} other things", TOKENS)
    while not over.is_set():
        done.append(await ask(network, body, len(done)))


def engine_ends(log: str) -> list[str]:
    """Why engines ended, from an agent's log in JSON lines."""
    told = (json.loads(line) for line in log.splitlines() if line.startswith("{"))
    return [f"{line['why']}" for line in told if line.get("event") == "engine ended"]


def rows(found: Poisoned) -> tuple[Row, ...]:
    """What it costs."""
    tried = (
        f"a request at which any engine dies by SIGSEGV is sent {len(found.queries)} times, one after another, to "
        f"{NODES} nodes, while {OTHERS} other callers ask for other things all the time"
    )
    later = found.queries[NODES_MAX:]
    return (
        Row(
            promise=f"A query of death costs at most {NODES_MAX} engines",
            tried=tried,
            n=len(found.queries),
            failures=max(0, len(found.ends) - NODES_MAX),
            seen=f"{len(found.ends)} engines ended ({_counted(found.ends)}); the attempts at it ended as "
            f"{_counted(found.codes)}",
        ),
        Row(
            promise="… whoever sends it again is told so",
            tried=tried,
            n=len(later),
            failures=sum(not is_told(told) for told in later),
            seen=f"{sum(map(is_told, found.queries))} of {len(found.queries)} were told 422 request_poisoned",
        ),
        Row(
            promise="… and whatever else is asked meanwhile is answered whole",
            tried=tried,
            n=len(found.others),
            failures=sum(not told.whole for told in found.others),
        ),
    )


def _counted(words: Sequence[str]) -> str:
    return ", ".join(f"{count} × {word}" for word, count in sorted(Counter(words).items())) or "none"


def is_told(told: Told) -> bool:
    """Whether the caller heard that this request is the one that crashes engines."""
    return told.status == 422 and told.code == "request_poisoned"


def failed(found: Poisoned, seed: int) -> tuple[str, ...]:
    """What went wrong, with the command that tries it again."""
    command = f"python -m reliability --only poison --seed {seed}"
    unheard = (told for told in found.queries[NODES_MAX:] if not is_told(told))
    return (
        *(f"query {told.number} ({told.request_id}): {told.problem or 'answered'}  [{command}]" for told in unheard),
        *problems(found.others, "another request", command),
    )
