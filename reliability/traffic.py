"""Callers at a steady rate or in turns: what each was told, and when, held against what it asked for."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from reliability.caller import Answer, Caller
from reliability.figures import percentile
from reliability.judge import NotWhole, read_stream
from reliability.network import Network, Node
from shrk_coordinator.state.journal import AttemptEntry

#: Answers here take seconds at most, and whoever waits for a node is told after ten: what is not there by then never
#: will be.
ANSWER_SECONDS_MAX = 60.0
#: Of what a caller was told, as much as a line of failures holds.
SHOWN_LENGTH_MAX = 300


@dataclass(frozen=True, slots=True)
class Told:
    """What became of one request. Times are monotonic seconds."""

    number: int
    asked_at: float
    ended_at: float
    #: 0: the connection broke.
    status: int = 0
    request_id: str = ""
    #: Why it was no whole answer, in words; empty where it was one.
    problem: str = ""
    #: Of the error, where it is one.
    code: str = ""
    retry_after: str = ""
    #: When its first token was here.
    first_at: float | None = None

    @property
    def whole(self) -> bool:
        """All of the answer came, and nothing else."""
        return not self.problem

    @property
    def refused(self) -> bool:
        """Told to come again later."""
        return self.status in (429, 503)

    @property
    def seconds(self) -> float:
        """Until all was told."""
        return self.ended_at - self.asked_at

    @property
    def first_seconds(self) -> float | None:
        """Until the first token, where there was one."""
        return None if self.first_at is None else self.first_at - self.asked_at


Ask = Callable[[int], Awaitable[Told]]


def chat(model: str, text: str, tokens: int) -> dict[str, Any]:
    """A streamed chat whose answer has exactly so many tokens."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "ignore_eos": True,
        "max_tokens": tokens,
    }


async def ask(network: Network, body: dict[str, Any], number: int) -> Told:
    """Ask once."""
    asked_at = time.monotonic()
    try:
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            answer = await Caller(network.session, network.chat_url, body).ask()
    except (TimeoutError, aiohttp.ClientError) as error:
        problem = f"{type(error).__name__}: {str(error) or f'not within {ANSWER_SECONDS_MAX:g} s'}"
        return Told(number, asked_at, time.monotonic(), problem=problem)
    return told(answer, body, number, asked_at, time.monotonic())


def told(answer: Answer, body: dict[str, Any], number: int, asked_at: float, ended_at: float) -> Told:
    """What an answer to `body` amounts to."""
    return Told(
        number,
        asked_at,
        ended_at,
        answer.status,
        answer.request_id,
        _problem(answer, body["max_tokens"]),
        _code(answer),
        answer.retry_after,
        answer.pieces[0] if answer.pieces else None,
    )


def _problem(answer: Answer, tokens: int) -> str:
    if answer.status != 200:
        return f"status {answer.status}: {answer.body[:SHOWN_LENGTH_MAX].decode(errors='replace')}"
    try:
        usage = read_stream(answer.body).usage
    except NotWhole as error:
        return str(error)
    counted = usage["completion_tokens"]
    return "" if counted == tokens else f"{counted} tokens instead of {tokens}"


def _code(answer: Answer) -> str:
    if answer.status == 200:
        return ""
    try:
        return str(json.loads(answer.body)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return ""  # Not in our words; the problem shows it as it came.


async def steadily(one: Ask, count: int, per_second: float, done: Callable[[Told], None]) -> None:
    """Ask so many times, at even intervals, whatever becomes of those before; return when all have been told."""

    async def and_tell(number: int) -> None:
        done(await one(number))

    begun = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            await asyncio.sleep(max(0.0, begun + number / per_second - time.monotonic()))
            group.create_task(and_tell(number))


async def in_turns(one: Ask, callers: int, seconds: float, done: Callable[[Told], None]) -> None:
    """So many callers, each of whom asks again as soon as it was told, for so long."""
    until = time.monotonic() + seconds
    numbers = iter(range(1_000_000_000))

    async def caller() -> None:
        while time.monotonic() < until:
            done(await one(next(numbers)))

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())


# --- what it came to --------------------------------------------------------------------------------------


def attempts(network: Network, tolds: Iterable[Told]) -> list[AttemptEntry]:
    """Every time a node was asked for these requests, by the coordinator's own account."""
    entries = [network.entry(one.request_id) for one in tolds if one.request_id]
    return [attempt for entry in entries if entry is not None for attempt in entry.attempts]


def node_id(network: Network, node: Node) -> str:
    """By which the coordinator's account names a node."""
    nodes = network.coordinator.driver.state.roster.nodes.values()
    return next(one.node_id for one in nodes if one.owner == node.name)


def p99(seconds: Iterable[float]) -> float:
    """What 99 of 100 do not exceed; at least one is needed."""
    return percentile(sorted(seconds), 0.99)


def late(seconds: Sequence[float], limit: float) -> int:
    """How many took longer than `limit`, where those are more than one, and more than one in a hundred; else 0."""
    over = sum(one > limit for one in seconds)
    return over if over > max(1, len(seconds) // 100) else 0


def in_ms(seconds: Sequence[float]) -> str:
    """Half of them and nearly all, in words."""
    if not seconds:
        return "none"
    ascending = sorted(seconds)
    half, nearly_all = (1000 * percentile(ascending, share) for share in (0.5, 0.99))
    return f"{half:,.0f} ms (p50), {nearly_all:,.0f} ms (p99), n = {len(ascending):,}"


def problems(tolds: Iterable[Told], what: str, command: str) -> tuple[str, ...]:
    """Each that was not whole, with its request and the command that tries it again."""
    bad = (one for one in tolds if not one.whole)
    return tuple(f"{what} {one.number} ({one.request_id}): {one.problem}  [{command}]" for one in bad)
