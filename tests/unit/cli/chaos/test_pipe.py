"""Bytes under way, over real sockets: held, cut off, frozen and swallowed to the byte."""

from __future__ import annotations

import asyncio
import random

import pytest

from shrk_cli.chaos.faults import CHUNK_BYTES_MAX
from shrk_cli.chaos.pipe import HELD_BYTES_MAX, HELD_CHUNKS_MAX
from support.loopback import DOWN, UP, HastyClock, loopback, turns

#: More than the proxy holds and the kernel's buffers take together.
MUCH = 24 * 1024 * 1024


async def test_a_target_that_does_not_read_holds_up_its_sender_and_not_the_proxys_memory() -> None:
    async with loopback() as ends:
        dialler, target = await ends.pair()
        sent = random.Random(1).randbytes(MUCH)
        sending = asyncio.create_task(dialler.send(sent))
        await ends.proxy.until(lambda: ends.proxy.line(UP).held_bytes >= HELD_BYTES_MAX)
        await turns()
        assert ends.proxy.line(UP).held_bytes <= HELD_BYTES_MAX + CHUNK_BYTES_MAX
        assert not sending.done()
        assert await target.receive(MUCH) == sent
        await sending


async def test_many_small_chunks_are_bounded_by_their_number() -> None:
    async with loopback(clock=HastyClock()) as ends:
        dialler, target = await ends.pair()
        ends.proxy.set(UP, rate_bytes_per_second=100)  # two bytes a step
        ends.proxy.freeze(UP)
        sent = random.Random(1).randbytes(4 * HELD_CHUNKS_MAX)
        await dialler.send(sent)
        await ends.proxy.until(lambda: ends.proxy.line(UP).held_bytes >= 2 * HELD_CHUNKS_MAX)
        await turns()
        assert ends.proxy.line(UP).held_bytes <= 2 * (HELD_CHUNKS_MAX + 2)
        ends.proxy.heal()
        assert await target.receive(len(sent)) == sent


@pytest.mark.parametrize("size", [1, 999, 1000, 1001, 300_000])
async def test_a_reset_after_some_bytes_lets_exactly_those_through(size: int) -> None:
    async with loopback() as ends:
        dialler, target = await ends.pair()
        await dialler.send(b"before")
        assert await target.receive(6) == b"before"
        sent = random.Random(size).randbytes(size)
        ends.proxy.reset_after(1000, UP)
        await dialler.send(sent)
        if size < 1000:
            assert await target.receive(size) == sent
            await dialler.send(bytes(1000 - size))
            assert await target.rest() == (bytes(1000 - size), "rst")
        else:
            assert await target.rest() == (sent[:1000], "rst")
        assert (await dialler.rest())[1] == "rst"
        dialler, target = await ends.pair()
        await dialler.send(bytes(5000))
        assert await target.receive(5000) == bytes(5000), "one that came later is not meant"


async def test_a_reset_after_no_bytes_comes_at_once() -> None:
    async with loopback() as ends:
        dialler, target = await ends.pair()
        ends.proxy.reset_after(0, UP)
        assert await dialler.rest() == (b"", "rst")
        assert await target.rest() == (b"", "rst")


async def test_healing_takes_back_a_reset_that_was_to_come() -> None:
    async with loopback() as ends:
        dialler, target = await ends.pair()
        ends.proxy.reset_after(10)
        ends.proxy.heal()
        await dialler.send(bytes(100))
        assert await target.receive(100) == bytes(100)


async def test_what_comes_before_a_cut_arrives_also_at_a_peer_that_was_not_reading() -> None:
    async with loopback() as ends:
        ends.narrow()
        dialler, target = await ends.pair()
        ends.proxy.set(UP, truncate_after_bytes=100_000)
        sent = random.Random(9).randbytes(100_001)
        await dialler.send(sent)
        await turns()
        assert await target.rest() == (sent[:100_000], "rst")


async def test_truncation_cuts_every_connection_at_the_same_byte() -> None:
    async with loopback() as ends:
        early, its_target = await ends.pair()
        await its_target.send(bytes(700))
        assert await early.receive(700) == bytes(700)
        ends.proxy.set(DOWN, truncate_after_bytes=500)
        await its_target.send(b"one too many")
        assert await early.rest() == (b"", "rst")
        for _ in range(2):
            dialler, target = await ends.pair()
            await dialler.send(bytes(2000))
            assert await target.receive(2000) == bytes(2000)
            sent = random.Random(3).randbytes(800)
            await target.send(sent)
            assert await dialler.rest() == (sent[:500], "rst")
        assert ends.proxy.counts.reset == 3
        assert ends.proxy.line(DOWN).dropped_bytes == 12 + 2 * 300


async def test_a_black_hole_opens_in_the_middle_of_a_chunk() -> None:
    async with loopback() as ends:
        dialler, target = await ends.pair()
        sent = random.Random(5).randbytes(MUCH)
        sending = asyncio.create_task(dialler.send(sent))
        await ends.proxy.until(lambda: ends.proxy.line(UP).held_bytes >= HELD_BYTES_MAX)
        ends.proxy.black_hole(UP)
        passed = ends.proxy.line(UP).passed_bytes
        got = await target.receive(passed)
        await sending
        await ends.dropped(UP, MUCH - passed)
        assert got == sent[:passed]
        ends.proxy.heal()
        assert await target.rest() == (b"", "rst")


async def test_a_freeze_holds_everything_and_then_delivers_it_in_order() -> None:
    async with loopback() as ends:
        dialler, target = await ends.pair()
        ends.proxy.freeze()
        sent = random.Random(7).randbytes(100_000)
        await dialler.send(sent)
        dialler.finish()
        await target.send(b"held")
        await ends.held(UP, len(sent))
        await ends.held(DOWN, 4)
        await turns()
        assert ends.proxy.line(UP).passed_bytes == ends.proxy.line(DOWN).passed_bytes == 0
        ends.proxy.heal()
        assert await target.rest() == (sent, "fin")
        assert await dialler.receive(4) == b"held"
        assert ends.proxy.counts.reset == 0


async def test_a_freeze_takes_hold_in_the_middle_of_a_chunk() -> None:
    async with loopback() as ends:
        dialler, target = await ends.pair()
        sent = random.Random(6).randbytes(MUCH)
        sending = asyncio.create_task(dialler.send(sent))
        await ends.proxy.until(lambda: ends.proxy.line(UP).held_bytes >= HELD_BYTES_MAX)
        ends.proxy.freeze(UP)
        passed = ends.proxy.line(UP).passed_bytes
        got = await target.receive(passed)
        await turns()
        assert ends.proxy.line(UP).passed_bytes == passed
        ends.proxy.heal()
        assert got + await target.receive(MUCH - passed) == sent
        await sending


@pytest.mark.parametrize("end", ["fin", "rst"])
async def test_a_freeze_holds_also_the_end_of_a_stream(end: str) -> None:
    async with loopback() as ends:
        dialler, target = await ends.pair()
        await dialler.send(b"?")
        assert await target.receive(1) == b"?"
        ends.proxy.freeze(UP)
        if end == "fin":
            dialler.finish()
        else:
            dialler.reset()
        await turns()
        await target.send(b"not yet")
        await ends.proxy.until(lambda: ends.proxy.line(DOWN).held_bytes == 0)
        assert target.hears_nothing()
        ends.proxy.heal()
        assert await target.rest() == (b"", end)


async def test_a_frozen_line_that_becomes_a_black_hole_swallows_what_it_held() -> None:
    async with loopback() as ends:
        dialler, target = await ends.pair()
        ends.proxy.freeze(UP)
        await dialler.send(b"held, then lost")
        await ends.held(UP, 15)
        ends.proxy.black_hole(UP)
        await ends.dropped(UP, 15)
        ends.proxy.freeze(UP)
        assert await target.rest() == (b"", "rst"), "also without heal() no stream goes on after a gap"
