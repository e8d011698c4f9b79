"""Many streams over four nodes, one of which is struck every few seconds and comes back: every stream must be whole.

What a fault costs is read off the callers' side: the pause between two pieces of a stream in which another node took
over, less the pause that is normal in it.
"""

from __future__ import annotations

import asyncio
import random
import signal
import statistics
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import aiohttp

from reliability.caller import Answer, Caller
from reliability.faults import kill
from reliability.figures import Gaps
from reliability.judge import NotWhole, Transcript, differences, read_stream
from reliability.network import Network, Node, a_network
from reliability.results import Row
from reliability.shapes import QUESTIONS, Shape, request
from shrk_coordinator.state.journal import Entry

MODEL, NODES = "m", 4
#: As a middling GPU gives them: a stream lasts about two seconds.
TOKENS_PER_SECOND, FIRST_TOKEN_MS = 40, 50
#: An answer of two seconds that is not there by then will never be.
STREAM_SECONDS_MAX = 90.0
#: How long a frozen engine stays so: longer than it takes to carry its streams on, shorter than its agent's patience.
FROZEN_SECONDS = 4.0
#: A killed agent is started again after this, as service managers do; here it starts on the cores of all the others,
#: and what that costs them is no part of the gap.
RESTART_SECONDS = 1.0


class Blow(StrEnum):
    """What happens to a node."""

    KILL = "kill"
    FREEZE = "freeze"


#: What a blow may cost a stream besides reading the prompt again: a loss is told at once, a hang by silence.
GAP_SECONDS_MAX = {Blow.KILL: 0.3, Blow.FREEZE: 3.0}


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of it."""

    blow: Blow
    streams: int
    at_once: int = 16
    #: Between the return of one node and the next blow.
    pause_seconds: float = 2.0


@dataclass(frozen=True, slots=True)
class Stream:
    """What became of one."""

    number: int
    #: Why it failed; empty where it was whole and said what it should.
    problem: str = ""
    #: It was asked of more than one node.
    struck: bool = False
    #: What carrying it on cost; None where it was not carried on after its first piece.
    gap_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """The result of one plan."""

    plan: Plan
    streams: tuple[Stream, ...]
    blows: int


async def run(plan: Plan, seed: int, progress: Callable[[Sequence[Stream]], None]) -> Load:
    """Ask, and strike meanwhile. Raises NotInTime where a struck node does not come back."""
    done: list[Stream] = []
    async with a_network() as network:
        speeds = {"tokens_per_second": TOKENS_PER_SECOND, "first_token_ms": FIRST_TOKEN_MS}
        await asyncio.gather(*(network.add_simulated(f"n{i}", MODEL, **speeds) for i in range(NODES)))
        await network.until_well(MODEL, NODES)
        bodies = [request(Shape.TEXT, MODEL, question, seed) for question in range(QUESTIONS)]
        unbroken = []
        for body in bodies:
            answer = await Caller(network.session, network.chat_url, body).ask()
            unbroken.append(read_stream(answer.body))
        numbers = iter(range(plan.streams))

        async def work() -> None:
            for number in numbers:
                at = number % QUESTIONS
                caller = Caller(network.session, network.chat_url, bodies[at])
                done.append(await _one(network, caller, number, unbroken[at]))
                progress(done)

        blows = _Blows(network, plan, random.Random(seed))
        work_of_all = (blows.run(), _together(work() for _ in range(plan.at_once)))
        tasks = [asyncio.create_task(one) for one in work_of_all]
        try:
            first, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in first:
                task.result()  # The blows end by an error only.
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            blows.thaw()
    return Load(plan, tuple(done), blows.count)


async def _together(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    await asyncio.gather(*work)


async def _one(network: Network, caller: Caller, number: int, unbroken: Transcript) -> Stream:
    try:
        async with asyncio.timeout(STREAM_SECONDS_MAX):
            answer = await caller.ask()
    except (TimeoutError, aiohttp.ClientError) as error:
        return Stream(number, f"{type(error).__name__}: {str(error) or f'not within {STREAM_SECONDS_MAX:g} s'}")
    if answer.status != 200:
        return Stream(number, f"status {answer.status}: {answer.body[:500].decode(errors='replace')}")
    entry = network.entry(answer.request_id)
    assert entry is not None, "the coordinator remembers thousands of requests"
    try:
        problem = differences(read_stream(answer.body), unbroken)
    except NotWhole as error:
        problem = str(error)
    return Stream(number, problem, len(entry.attempts) > 1, gap_of(answer, entry))


def gap_of(answer: Answer, entry: Entry) -> float | None:
    """The longest pause in which another node took over, less the normal one, in seconds; None where none did."""
    pairs = zip(entry.attempts, entry.attempts[1:], strict=False)
    seams = [(lost.ended_at, other.first_piece_at) for lost, other in pairs if other.resume]
    pauses = [
        after - before
        for before, after in zip(answer.pieces, answer.pieces[1:], strict=False)
        if any(begun and ended and before <= begun and after >= ended for ended, begun in seams)
    ]
    return max(pauses) - statistics.median(answer.pauses()) if pauses else None


class _Blows:
    """Strikes one node after another."""

    def __init__(self, network: Network, plan: Plan, dice: random.Random) -> None:
        self._network = network
        self._plan = plan
        self._dice = dice
        self._frozen: tuple[int, ...] = ()
        self.count = 0

    async def run(self) -> None:
        """Until cancelled. Raises NotInTime."""
        while True:
            await asyncio.sleep(self._plan.pause_seconds)
            await self._network.until_well(MODEL, NODES)
            node = self._dice.choice(list(self._network.nodes.values()))
            self.count += 1
            await (self._kill(node) if self._plan.blow is Blow.KILL else self._freeze(node))

    async def _kill(self, node: Node) -> None:
        node.signal(signal.SIGKILL)
        await node.gone()
        await asyncio.sleep(RESTART_SECONDS)
        await node.start()

    async def _freeze(self, node: Node) -> None:
        self._frozen = await node.engine_pids()
        kill(self._frozen, signal.SIGSTOP)
        await asyncio.sleep(FROZEN_SECONDS)
        self.thaw()
        # On a new link it is probed at once, and not only after half a minute.
        node.line.reset()

    def thaw(self) -> None:
        """Let what is frozen go on."""
        kill(self._frozen, signal.SIGCONT)
        self._frozen = ()


_PROMISES = {
    Blow.KILL: ("Streams stay whole while nodes are killed", "kill -9 of the agent"),
    Blow.FREEZE: ("Streams stay whole while engines hang", f"SIGSTOP of the engine for {FROZEN_SECONDS:g} s"),
}


def rows(load: Load) -> tuple[Row, ...]:
    """That streams stay whole, and that the gaps are short."""
    promise, blow = _PROMISES[load.plan.blow]
    streams, gaps = load.streams, [stream.gap_seconds for stream in load.streams if stream.gap_seconds is not None]
    return (
        Row(
            promise=promise,
            tried=f"{load.plan.streams} streams, {load.plan.at_once} at a time, over {NODES} nodes; {blow}, one node "
            "after another, each as soon as the last is back: whole, and equal to the answer without a fault",
            n=len(streams),
            failures=sum(bool(stream.problem) for stream in streams),
            gaps=Gaps.of(gaps),
            seen=f"{load.blows} blows struck {sum(stream.struck for stream in streams)} streams",
        ),
        _within(load.plan.blow, gaps),
    )


def _within(blow: Blow, gaps: Sequence[float]) -> Row:
    """Whether the gaps were as short as promised, but for one in a hundred."""
    limit = GAP_SECONDS_MAX[blow] + FIRST_TOKEN_MS / 1000
    over = sum(gap > limit for gap in gaps)
    return Row(
        promise=f"… and 99 of 100 gaps are within {GAP_SECONDS_MAX[blow] * 1000:,.0f} ms",
        tried=f"the same streams; besides, {FIRST_TOKEN_MS} ms in which a simulated engine reads the prompt again",
        n=len(gaps),
        failures=over if over * 100 > len(gaps) else 0,
        seen=f"{over} of {len(gaps)} were longer",
    )


def failed(streams: Sequence[Stream], seed: int) -> tuple[str, ...]:
    """What went wrong, with the command that tries it again."""
    command = f"python -m reliability --only load --seed {seed}"
    return tuple(f"stream {s.number}: {s.problem}  [{command}]" for s in streams if s.problem)
