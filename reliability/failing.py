"""Nodes that answer errors: all three, which must not be asked ever more often; one of three, which nobody may notice.

An error takes such a node a millisecond, so that it is always the idlest of all.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from reliability.engine_socket import EngineSocket
from reliability.network import Network, a_network
from reliability.results import Row
from reliability.traffic import Told, ask, attempts, chat, in_ms, late, node_id, problems, steadily
from shrk_coordinator.state.breaker import OPEN_SECONDS
from shrk_coordinator.state.budget import RETRY_SHARE
from shrk_coordinator.state.journal import AttemptEntry, Outcome

MODEL, NODES, SLOTS = "m", 3, 8
TOKENS_PER_SECOND, FIRST_TOKEN_MS, TOKENS = 40, 50, 5
PER_SECOND = 20.0
#: The promises: what is asked for each request at most …
ATTEMPTS_EACH_MAX = 1 + RETRY_SHARE
#: … how soon a caller hears that nobody can answer …
TOLD_SECONDS_MAX = 0.05
#: … what a node that fails draws at most, once so many requests have shown what it is like …
SHARE_MAX, SHOWN_BY = 0.02, 20
#: … and how long after its breaker may be probed a node that is well again has answered.
PROBED_SECONDS_MAX = 5.0
#: Between two requests while nodes that are well again wait for their probe.
ASK_AGAIN_SECONDS = 0.25

Progress = Callable[[Sequence[Told]], None]


@dataclass(frozen=True, slots=True)
class AllFail:
    """What came of it when every node answered errors."""

    tolds: tuple[Told, ...]
    attempts: int
    #: The requests that were asked once all breakers were open.
    afterwards: tuple[Told, ...]
    #: For each node how long after its errors ended it had answered; None where it did not in time.
    back_seconds: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class OneFails:
    """What came of it when one of the nodes answered errors."""

    tolds: tuple[Told, ...]
    #: Of the requests after the first SHOWN_BY: all attempts, and those at the node that fails.
    attempts: int
    at_failing: int
    #: At that node, of all requests.
    at_failing_in_all: int


@contextlib.asynccontextmanager
async def _three_nodes() -> AsyncIterator[Network]:
    async with a_network() as network:
        speeds = {"tokens_per_second": TOKENS_PER_SECOND, "first_token_ms": FIRST_TOKEN_MS}
        await asyncio.gather(*(network.add_simulated(f"n{i}", MODEL, SLOTS, **speeds) for i in range(NODES)))
        await network.until_well(MODEL, NODES)
        yield network


def _engine(network: Network, name: str) -> EngineSocket:
    engine = network.nodes[name].engine()
    assert engine is not None, "engines that answer errors live on"
    return engine


async def run_all(count: int, seed: int, progress: Progress, *, until_back: bool = True) -> AllFail:
    """Every node answers errors; then they are well again, and nobody tells the coordinator. `until_back`: for as long
    as a breaker is open, until each has been found again."""
    done: list[Told] = []
    body = chat(MODEL, f"Tell me about {seed} things", TOKENS)
    async with _three_nodes() as network:
        engines = [_engine(network, name) for name in network.nodes]
        for engine in engines:
            await engine.arm("error")
        opened_at: list[float] = []

        async def one(number: int) -> Told:
            if not opened_at and _all_open(network):
                opened_at.append(time.monotonic())
            return await ask(network, body, number)

        def take(told: Told) -> None:
            done.append(told)
            progress(done)

        await steadily(one, count, PER_SECOND, take)
        for engine in engines:
            await engine.clear()
        tried = len(attempts(network, done))
        back = await _until_back(network, body) if until_back else ()
        afterwards = tuple(told for told in done if opened_at and told.asked_at >= opened_at[0])
        return AllFail(tuple(done), tried, afterwards, back)


def _all_open(network: Network) -> bool:
    offers = network.coordinator.driver.state.roster.offers(MODEL)
    return all(not offer.standing.breaker.closed for _, offer in offers)


def _longest_open(network: Network) -> float:
    """Monotonic seconds at which the last breaker may be probed."""
    offers = network.coordinator.driver.state.roster.offers(MODEL)
    return max(offer.standing.breaker.open_until for _, offer in offers)


async def _until_back(network: Network, body: dict[str, object]) -> tuple[float | None, ...]:
    """Ask now and then, until each node has answered or has had its time."""
    begun, patience = time.monotonic(), _longest_open(network) + PROBED_SECONDS_MAX
    answered: dict[str, float] = {}
    tolds: list[Told] = []
    while len(answered) < NODES and time.monotonic() < patience:
        tolds.append(await ask(network, body, len(tolds)))
        for attempt in attempts(network, tolds[-1:]):
            if attempt.outcome is Outcome.FINISHED and attempt.ended_at is not None:
                answered.setdefault(attempt.node_id, attempt.ended_at - begun)
        await asyncio.sleep(ASK_AGAIN_SECONDS)
    return tuple(answered.get(node_id(network, node)) for node in network.nodes.values())


async def run_one(count: int, seed: int, progress: Progress) -> OneFails:
    """One of the nodes answers errors all the time."""
    done: list[Told] = []
    body = chat(MODEL, f"Tell me about {seed} things", TOKENS)
    async with _three_nodes() as network:
        failing = network.nodes["n0"]
        await _engine(network, failing.name).arm("error")

        def take(told: Told) -> None:
            done.append(told)
            progress(done)

        await steadily(lambda number: ask(network, body, number), count, PER_SECOND, take)
        its_id = node_id(network, failing)

        def at_failing(tried: Sequence[AttemptEntry]) -> int:
            return sum(attempt.node_id == its_id for attempt in tried)

        later = attempts(network, (told for told in done if told.number >= SHOWN_BY))
        return OneFails(tuple(done), len(later), at_failing(later), at_failing(attempts(network, done)))


def rows(everyone: AllFail, one: OneFails) -> tuple[Row, ...]:
    """What callers and nodes notice."""
    return (*_rows_of_all(everyone), *_rows_of_one(one))


def _rows_of_all(found: AllFail) -> tuple[Row, ...]:
    tried = (
        f"{NODES} nodes, all of which answer HTTP 500 at once; {PER_SECOND:g} requests a second; then the errors end, "
        "and nothing is restarted"
    )
    count, after = len(found.tolds), [told.seconds for told in found.afterwards]
    back = [seconds for seconds in found.back_seconds if seconds is not None]
    return (
        Row(
            promise=f"While all nodes fail, no more than {ATTEMPTS_EACH_MAX:g} attempts are made for each request",
            tried=tried,
            n=count,
            failures=max(0, found.attempts - int(ATTEMPTS_EACH_MAX * count)),
            seen=f"{found.attempts} attempts for {count} requests",
        ),
        Row(
            promise="… callers are told to come again, and when",
            tried=tried,
            n=len(after),
            failures=sum(not _told_when(told) for told in found.afterwards) if after else 1,
            seen=f"of {count} requests {len(after)} came once all breakers were open",
        ),
        Row(
            promise=f"… 99 of 100 of them within {TOLD_SECONDS_MAX * 1000:g} ms",
            tried=tried,
            n=len(after),
            failures=late(after, TOLD_SECONDS_MAX),
            seen=in_ms(after),
        ),
        Row(
            promise="… and nodes that are well again are found so by probes",
            tried=tried,
            n=NODES,
            failures=NODES - len(back),
            seen=f"they had answered {_listed(back)} s after their errors ended; a breaker is open for "
            f"{OPEN_SECONDS:g} s at first",
        ),
    )


def _rows_of_one(found: OneFails) -> tuple[Row, ...]:
    tried = f"one of {NODES} nodes answers HTTP 500 at once, all the time; {PER_SECOND:g} requests a second"
    over = found.at_failing > SHARE_MAX * found.attempts
    return (
        Row(
            promise="While one node of three answers errors, no caller sees one",
            tried=tried,
            n=len(found.tolds),
            failures=sum(not told.whole for told in found.tolds),
            seen=f"that node was asked {found.at_failing_in_all} times in all",
        ),
        Row(
            promise=f"… and after {SHOWN_BY} requests it draws at most {SHARE_MAX * 100:g} % of what is asked",
            tried=tried,
            n=found.attempts,
            failures=found.at_failing if over else 0,
            seen=f"{found.at_failing} of {found.attempts} attempts",
        ),
    )


def _told_when(told: Told) -> bool:
    return told.status == 503 and told.retry_after.isdecimal() and int(told.retry_after) > 0


def _listed(seconds: Sequence[float]) -> str:
    return ", ".join(f"{one:.1f}" for one in sorted(seconds)) or "nothing"


def failed(everyone: AllFail, one: OneFails, seed: int) -> tuple[str, ...]:
    """What went wrong, with the command that tries it again."""
    command = f"python -m reliability --only failing --seed {seed}"
    silent = (told for told in everyone.afterwards if not _told_when(told))
    return (
        *(f"all fail: request {told.number} was told {told.problem or 'an answer'}  [{command}]" for told in silent),
        *problems(one.tolds, "one fails: request", command),
    )
