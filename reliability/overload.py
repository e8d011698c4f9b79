"""Ten times as many callers as there is room for: the room is used, the rest are told so at once, nothing piles up.

Callers and coordinator share one process here, so that its memory and its delays count the callers' own as well.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from reliability.network import a_network
from reliability.results import Row
from reliability.traffic import Told, ask, chat, in_ms, in_turns, late, p99, steadily
from shrk_coordinator.state.waiting import WAIT_SECONDS_MAX

#: Few slots and short answers: a capacity that can be exceeded tenfold by one process.
MODEL, NODES, SLOTS = "m", 3, 2
TOKENS_PER_SECOND, FIRST_TOKEN_MS, TOKENS = 40, 50, 10
#: As many as are answered at once: just so many that nobody waits.
CALLERS = NODES * SLOTS
TIMES = 10
#: The promises: whole answers, compared with the peak; how soon a caller is refused; and when all is as before.
GOODPUT_MIN, TOLD_SECONDS_MAX, NORMAL_SECONDS_MAX = 0.9, 0.05, 5.0
#: What the journal keeps of ten thousand requests, and a connection with both its ends for each that waits.
MEMORY_BYTES_MAX = 64 * 1024 * 1024
#: A first token is as fast as before within this: one takes its time from a machine that does other things as well.
NORMAL_RATIO = 1.5
#: Requests before and after by which that is told, and how often they come.
LOOKS, LOOK_SECONDS = 40, 0.25
#: Between two looks at the memory.
MEMORY_LOOK_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of it."""

    peak_seconds: float
    overload_seconds: float
    #: Requests before and after, one at a time.
    looks: int = LOOKS


@dataclass(frozen=True, slots=True)
class Memory:
    """Of the process, in bytes."""

    before: int
    peak: int
    after: int


@dataclass(frozen=True, slots=True)
class Overload:
    """What came of it."""

    plan: Plan
    #: Whole answers per second, just below capacity and while ten times as much was asked.
    peak: float
    goodput: float
    #: Who asked during the overload.
    tolds: tuple[Told, ...]
    #: One at a time, before it and after it.
    before: tuple[Told, ...]
    after: tuple[Told, ...]
    #: When the overload ended. Monotonic seconds.
    ended_at: float
    memory: Memory


async def run(plan: Plan, seed: int, progress: Callable[[Sequence[Told], int], None]) -> Overload:
    """Measure the peak, overload, and see how soon it is over."""
    body = chat(MODEL, f"Tell me about {seed} things", TOKENS)
    async with a_network() as network:
        speeds = {"tokens_per_second": TOKENS_PER_SECOND, "first_token_ms": FIRST_TOKEN_MS}
        await asyncio.gather(*(network.add_simulated(f"n{i}", MODEL, SLOTS, **speeds) for i in range(NODES)))
        await network.until_well(MODEL, NODES)

        async def one(number: int) -> Told:
            return await ask(network, body, number)

        before: list[Told] = []
        await steadily(one, plan.looks, 1 / LOOK_SECONDS, before.append)
        at_peak: list[Told] = []
        begun = time.monotonic()
        await in_turns(one, CALLERS, plan.peak_seconds, at_peak.append)
        peak = _goodput(at_peak, begun, plan.peak_seconds)

        done: list[Told] = []

        def take(told: Told) -> None:
            done.append(told)
            progress(done, count(plan, peak))

        async with _Watch() as watch, asyncio.TaskGroup() as group:
            begun = time.monotonic()
            asking = group.create_task(steadily(one, count(plan, peak), TIMES * peak, take))
            # Whoever asked last may still wait when it is over.
            await asyncio.wait([asking], timeout=plan.overload_seconds)
            ended_at = time.monotonic()
            after: list[Told] = []
            await steadily(one, plan.looks, 1 / LOOK_SECONDS, after.append)
            await asking
            return Overload(
                plan=plan,
                peak=peak,
                goodput=_goodput(done, begun, plan.overload_seconds),
                tolds=tuple(done),
                before=tuple(before),
                after=tuple(after),
                ended_at=ended_at,
                memory=watch.memory(),
            )


def count(plan: Plan, peak: float) -> int:
    """Requests of an overload."""
    return int(TIMES * peak * plan.overload_seconds)


def _goodput(tolds: Sequence[Told], begun: float, seconds: float) -> float:
    return sum(told.whole and told.ended_at <= begun + seconds for told in tolds) / seconds


class _Watch:
    """Looks at this process's memory now and then."""

    def __init__(self) -> None:
        self._before = self._peak = resident_bytes()
        self._looking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> _Watch:
        self._looking = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._looking is not None, "it was entered"
        self._looking.cancel()
        await asyncio.gather(self._looking, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            self._peak = max(self._peak, resident_bytes())
            await asyncio.sleep(MEMORY_LOOK_SECONDS)

    def memory(self) -> Memory:
        """Before, at most, and now."""
        now = resident_bytes()
        return Memory(self._before, max(self._peak, now), now)


def resident_bytes() -> int:
    """Memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def rows(found: Overload) -> tuple[Row, ...]:
    """What callers, nodes and the machine notice."""
    tried = (
        f"{NODES} nodes with {SLOTS} slots each; after {CALLERS} callers at a time have shown the peak, {TIMES} times "
        f"as many requests a second come for {found.plan.overload_seconds:g} s"
    )
    return (
        _row_of_goodput(found, tried),
        *_rows_of_refused(found, tried),
        _row_of_others(found, tried),
        _row_of_memory(found, tried),
        _row_of_afterwards(found, tried),
    )


def _row_of_goodput(found: Overload, tried: str) -> Row:
    whole = round(found.goodput * found.plan.overload_seconds)
    least = GOODPUT_MIN * found.peak * found.plan.overload_seconds
    return Row(
        promise=f"In an overload at least {GOODPUT_MIN * 100:g} % of the peak are answered whole",
        tried=tried,
        n=whole,
        failures=max(0, round(least) - whole),
        seen=f"{found.goodput:.1f} whole answers a second instead of {found.peak:.1f}; "
        f"{len(found.tolds) / found.plan.overload_seconds:,.0f} requests a second came",
    )


def _rows_of_refused(found: Overload, tried: str) -> tuple[Row, ...]:
    refused = [told for told in found.tolds if told.refused]
    at_once = [told.seconds for told in refused if not has_waited(told)]
    waited = len(refused) - len(at_once)
    return (
        Row(
            promise="… the others are told when to come again",
            tried=tried,
            n=len(refused),
            failures=sum(not told.retry_after.isdecimal() for told in refused),
            seen=f"{len(at_once):,} were refused at once, {waited:,} after they had waited {WAIT_SECONDS_MAX:g} s",
        ),
        Row(
            promise=f"… 99 of 100 of those refused at once within {TOLD_SECONDS_MAX * 1000:g} ms",
            tried=tried,
            n=len(at_once),
            failures=late(at_once, TOLD_SECONDS_MAX),
            seen=in_ms(at_once),
        ),
    )


def has_waited(told: Told) -> bool:
    """Whether a refused caller was one of those that waited for a node; the others should hear at once."""
    return told.seconds > WAIT_SECONDS_MAX - 1


def _row_of_others(found: Overload, tried: str) -> Row:
    served = [told.first_seconds for told in found.tolds if told.whole and told.first_seconds is not None]
    return Row(
        promise="… and nobody is told anything else",
        tried=tried,
        n=len(found.tolds),
        failures=sum(not told.whole and not told.refused for told in found.tolds),
        seen=f"first tokens of those that were served: {in_ms(served)}",
    )


def _row_of_memory(found: Overload, tried: str) -> Row:
    memory = found.memory
    before, peak, after = (size / 2**20 for size in (memory.before, memory.peak, memory.after))
    return Row(
        promise=f"… memory grows by less than {MEMORY_BYTES_MAX // 2**20} MiB",
        tried=tried,
        n=1,
        failures=int(memory.peak - memory.before > MEMORY_BYTES_MAX),
        seen=f"{before:.0f} MiB before, {peak:.0f} MiB at most, {after:.0f} MiB after it, callers included",
    )


def _row_of_afterwards(found: Overload, tried: str) -> Row:
    usual = [told.first_seconds for told in found.before if told.first_seconds is not None]
    limit = NORMAL_RATIO * p99(usual) if usual else 0.0
    back = back_seconds(found, limit)
    later = [told for told in found.after if told.asked_at >= found.ended_at + NORMAL_SECONDS_MAX]
    return Row(
        promise=f"… and {NORMAL_SECONDS_MAX:g} s after it all is as before",
        tried=tried,
        n=len(later),
        failures=sum(not _is_quick(told, limit) for told in later),
        seen=f"first tokens before: {in_ms(usual)}; "
        + ("not as quick again" if back is None else f"as quick again {back:.1f} s after it"),
    )


def back_seconds(found: Overload, limit: float) -> float | None:
    """How long after the overload first tokens came within `limit` again, and went on so; None where they did not."""
    slow = [told.asked_at for told in found.after if not _is_quick(told, limit)]
    quick = [told.asked_at for told in found.after if not slow or told.asked_at > max(slow)]
    return min(quick) - found.ended_at if quick else None


def _is_quick(told: Told, limit: float) -> bool:
    return told.whole and told.first_seconds is not None and told.first_seconds <= limit


def failed(found: Overload, seed: int) -> tuple[str, ...]:
    """What went wrong, with the command that tries it again."""
    command = f"python -m reliability --only overload --seed {seed}"
    odd = (told for told in found.tolds if not told.whole and not told.refused)
    return tuple(f"request {told.number} ({told.request_id}): {told.problem}  [{command}]" for told in odd)
