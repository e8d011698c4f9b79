"""The chaos proxy as a whole: transparent without faults, bounded, and clear about what it refuses."""

from __future__ import annotations

import asyncio
import random

import pytest

from shrk_cli.chaos.faults import FaultRefused, LineFaults
from shrk_cli.chaos.proxy import ChaosProxy
from support.loopback import DOWN, UP, HastyClock, Loopback, Peer, listening, loopback, turns


async def exchange(sender: Peer, receiver: Peer, sizes: list[int], dice: random.Random) -> None:
    """Send parts of these sizes, and compare all that arrives."""
    parts = [dice.randbytes(size) for size in sizes]

    async def send() -> None:
        for part in parts:
            await sender.send(part)
        sender.finish()

    _, got = await asyncio.gather(send(), receiver.rest())
    assert got == (b"".join(parts), "fin")


async def test_without_faults_the_same_bytes_arrive_both_ways_on_all_connections() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    async with loopback() as ends:
        pairs = [await ends.pair() for _ in range(4)]
        work = []
        for dialler, target in pairs:
            for sender, receiver in ((dialler, target), (target, dialler)):
                sizes = [int(10 ** dice.uniform(0, 6)) for _ in range(12)]
                work.append(exchange(sender, receiver, sizes, random.Random(dice.random())))
        await asyncio.gather(*work)
        await ends.proxy.until(lambda: ends.proxy.open_connections == 0)
        assert ends.proxy.counts.accepted == 4
        assert ends.proxy.counts.reset == 0
        assert all(ends.proxy.line(way).held_bytes == ends.proxy.line(way).dropped_bytes == 0 for way in (UP, DOWN))


async def test_refusing_resets_new_connections_and_leaves_the_old() -> None:
    async with loopback() as ends:
        dialler, target = await ends.pair()
        ends.proxy.refuse()
        late = await ends.dial()
        assert await late.rest() == (b"", "rst")
        assert ends.proxy.counts.refused == 1
        assert ends.nobody_dialled()
        await dialler.send(b"goes on")
        assert await target.receive(7) == b"goes on"
        ends.proxy.heal()
        dialler, target = await ends.pair()
        await dialler.send(b"and again")
        assert await target.receive(9) == b"and again"


async def test_beyond_the_bound_connections_are_reset() -> None:
    async with loopback(connections_max=2) as ends:
        first, _ = await ends.pair()
        await ends.pair()
        late = await ends.dial()
        assert await late.rest() == (b"", "rst")
        assert ends.proxy.counts.refused == 1
        first.reset()
        await ends.proxy.until(lambda: ends.proxy.open_connections == 1)
        await ends.pair()


async def test_a_connection_that_both_peers_have_left_makes_room_in_a_half_open_line() -> None:
    async with loopback(connections_max=1) as ends:
        dialler, target = await ends.pair()
        ends.proxy.black_hole(DOWN)
        dialler.close()
        assert await target.rest() == (b"", "fin")
        target.close()
        await turns()
        assert ends.proxy.open_connections == 1
        late, its_target = await ends.pair()
        await late.send(b"room")
        assert await its_target.receive(4) == b"room"
        assert ends.proxy.counts.refused == 0


@pytest.mark.parametrize(
    "changes",
    [{"delay_ms": -1}, {"delay_ms": 5, "jitter_ms": "much"}, {"rate_bytes_per_second": 0}, {"flow": "sideways"}],
)
async def test_a_setting_that_cannot_be_is_refused_by_name_and_changes_nothing(changes: dict[str, object]) -> None:
    async with loopback(dice=random.Random(1)) as ends:
        with pytest.raises(FaultRefused) as refused:
            ends.proxy.set(**changes)
        assert refused.value.field == list(changes)[-1]
        assert all(ends.proxy.line(way).faults == LineFaults() for way in (UP, DOWN))


async def test_jitter_without_dice_is_refused() -> None:
    async with loopback() as ends:
        with pytest.raises(FaultRefused, match="dice"):
            ends.proxy.set(UP, jitter_ms=5)
        assert ends.proxy.line(UP).faults == LineFaults()


async def test_settings_that_are_not_named_stay() -> None:
    async with loopback(dice=random.Random(1)) as ends:
        ends.proxy.set(delay_ms=30, jitter_ms=10)
        ends.proxy.set(UP, delay_ms=40)
        ends.proxy.black_hole(UP)
        assert ends.proxy.line(UP).faults == LineFaults().changed(
            {"delay_ms": 40, "jitter_ms": 10, "flow": "black-hole"}
        )
        assert ends.proxy.line(DOWN).faults == LineFaults(delay_ms=30, jitter_ms=10)
        ends.proxy.heal()
        assert ends.proxy.line(UP).faults == ends.proxy.line(DOWN).faults == LineFaults()


async def test_the_end_of_the_proxy_resets_what_it_carries_and_gives_its_port_back() -> None:
    with listening() as listener:
        async with ChaosProxy.open(to=listener.getsockname()) as proxy:
            ends = Loopback(proxy, listener)
            dialler, target = await ends.pair()
            port = proxy.port
        assert await dialler.rest() == (b"", "rst")
        assert await target.rest() == (b"", "rst")
        async with ChaosProxy.open(to=listener.getsockname(), listen=("127.0.0.1", port)) as again:
            assert again.port == port
        ends.close()


async def test_a_bug_in_the_proxy_is_not_swallowed() -> None:
    class BrokenClock(HastyClock):
        async def sleep_until(self, moment: float) -> None:
            raise ZeroDivisionError

    async def use() -> None:
        async with loopback(clock=BrokenClock()) as ends:
            dialler, _ = await ends.pair()
            ends.proxy.set(UP, rate_bytes_per_second=100)
            await dialler.send(b"?")
            await asyncio.wait([ends.proxy.failed])

    with pytest.raises(ZeroDivisionError):
        await use()
