"""Delay, jitter and rate over real sockets, by clocks that the tests turn."""

from __future__ import annotations

import asyncio
import random
from itertools import cycle

import pytest

from support.loopback import DOWN, UP, HandClock, HastyClock, loopback, turns


class ScriptedDice:
    """Throws what it was told, again and again."""

    def __init__(self, *throws: float) -> None:
        self._throws = cycle(throws)

    def random(self) -> float:
        return next(self._throws)


async def test_delayed_bytes_arrive_when_their_time_has_come() -> None:
    clock = HandClock()
    async with loopback(clock=clock) as ends:
        dialler, target = await ends.pair()
        ends.proxy.set(UP, delay_ms=50)
        await dialler.send(b"late")
        assert await clock.next_alarm() == pytest.approx(0.05)
        await target.send(b"at once")
        assert await dialler.receive(7) == b"at once", "the other direction has no delay"
        clock.turn(0.04)
        await turns()
        assert ends.proxy.line(UP).passed_bytes == 0
        clock.turn(0.01)
        assert await target.receive(4) == b"late"


async def test_jitter_changes_when_bytes_arrive_and_never_their_order() -> None:
    clock = HandClock()
    async with loopback(clock=clock, dice=ScriptedDice(0.9, 0.1)) as ends:
        dialler, target = await ends.pair()
        ends.proxy.set(UP, delay_ms=50, jitter_ms=100)
        await dialler.send(b"first")
        await ends.held(UP, 5)
        assert await clock.next_alarm() == pytest.approx(0.14)
        await dialler.send(b"second")
        await ends.held(UP, 11)
        clock.turn(0.06)  # the second alone would be due now
        await turns()
        assert ends.proxy.line(UP).passed_bytes == 0
        clock.turn(0.08)
        assert await target.receive(11) == b"firstsecond"


async def test_the_same_seed_draws_the_same_jitter() -> None:
    alarms = []
    for _ in range(2):
        clock = HandClock()
        async with loopback(clock=clock, dice=random.Random(42)) as ends:
            ends.proxy.set(UP, jitter_ms=1000)
            dialler, _target = await ends.pair()
            await dialler.send(b"?")
            alarms.append(await clock.next_alarm())
    assert alarms[0] == alarms[1] == pytest.approx(random.Random(42).random())


async def test_healing_a_delay_keeps_what_is_under_way_in_front() -> None:
    clock = HandClock()
    async with loopback(clock=clock) as ends:
        dialler, target = await ends.pair()
        ends.proxy.set(delay_ms=300)
        await dialler.send(b"first")
        await ends.held(UP, 5)
        ends.proxy.heal()
        await dialler.send(b"second")
        await ends.held(UP, 11)
        await turns()
        assert ends.proxy.line(UP).passed_bytes == 0
        clock.turn(0.3)
        assert await target.receive(11) == b"firstsecond"
        await dialler.send(b"third")
        assert await target.receive(5) == b"third"


@pytest.mark.parametrize("connections", [1, 3])
async def test_half_the_rate_takes_twice_the_time_however_many_connections_share_it(connections: int) -> None:
    async def seconds(rate: int) -> float:
        clock = HastyClock()
        async with loopback(clock=clock) as ends:
            pairs = [await ends.pair() for _ in range(connections)]
            ends.proxy.set(DOWN, rate_bytes_per_second=rate)
            began = clock.now()
            await asyncio.gather(
                *(target.send(bytes(60_000 // connections)) for _, target in pairs),
                *(dialler.receive(60_000 // connections) for dialler, _ in pairs),
            )
            return clock.now() - began

    assert await seconds(20_000) == pytest.approx(3.0)
    assert await seconds(10_000) == pytest.approx(6.0)


async def test_a_slow_line_trickles_instead_of_coming_by_the_chunk() -> None:
    clock = HandClock()
    async with loopback(clock=clock) as ends:
        dialler, target = await ends.pair()
        ends.proxy.set(UP, rate_bytes_per_second=1000)
        await dialler.send(bytes(1000))
        assert await clock.next_alarm() <= 0.02
        await turns()
        assert ends.proxy.line(UP).held_bytes <= 20, "it reads no further ahead than it sends"
        clock.turn(0.02)
        assert await target.receive(20) == bytes(20)


async def test_a_new_rate_does_not_wait_for_what_was_reserved_at_the_old() -> None:
    clock = HandClock()
    async with loopback(clock=clock) as ends:
        slow, _ = await ends.pair()
        ends.proxy.set(UP, rate_bytes_per_second=100)
        for _ in range(3):
            await slow.send(bytes(100))
        await clock.next_alarm()
        ends.proxy.set(UP, rate_bytes_per_second=1_000_000)
        dialler, target = await ends.pair()
        await dialler.send(b"quick")
        await ends.held(UP, 2 + 5)
        await turns()
        clock.turn(0.001)
        assert await target.receive(5) == b"quick"
