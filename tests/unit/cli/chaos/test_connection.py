"""How connections through the proxy begin and end, over real sockets, with faults and without."""

from __future__ import annotations

import pytest

from shrk_cli.chaos.proxy import ChaosProxy
from support.loopback import DOWN, UP, Loopback, listening, loopback, turns


async def test_a_fin_one_way_leaves_the_other_way_open() -> None:
    async with loopback() as ends:
        dialler, target = await ends.pair()
        await dialler.send(b"question")
        dialler.finish()
        assert await target.rest() == (b"question", "fin")
        await target.send(b"answer")
        target.finish()
        assert await dialler.rest() == (b"answer", "fin")


@pytest.mark.parametrize("first", [0, 1], ids=["dialler", "target"])
async def test_a_reset_by_one_peer_reaches_the_other(first: int) -> None:
    async with loopback() as ends:
        peers = await ends.pair()
        peers[first].reset()
        assert await peers[1 - first].rest() == (b"", "rst")
        assert ends.proxy.counts.reset == 0, "no fault did it"


async def test_who_sends_to_a_peer_that_has_gone_is_reset() -> None:
    async with loopback() as ends:
        dialler, target = await ends.pair()
        target.close()
        assert await dialler.rest() == (b"", "fin")
        await dialler.send(b"is anybody there?")  # to which the target's machine says no
        await turns()
        await dialler.send(b"hello?")
        await ends.proxy.until(lambda: ends.proxy.open_connections == 0)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await dialler.send(b"oh")


async def test_not_even_that_reset_comes_out_of_a_black_hole() -> None:
    async with loopback() as ends:
        dialler, target = await ends.pair()
        ends.proxy.black_hole(DOWN)
        target.close()
        await dialler.send(b"is anybody there?")
        await ends.proxy.until(lambda: ends.proxy.line(UP).passed_bytes == 17)
        await turns()
        await dialler.send(b"hello?")
        await ends.dropped(UP, 6)
        await turns()
        assert ends.proxy.open_connections == 1
        ends.proxy.heal()
        assert await dialler.rest() == (b"", "rst")


async def test_a_target_that_does_not_listen_resets_the_dialler() -> None:
    with listening() as listener:
        nobody = listener.getsockname()
    async with ChaosProxy.open(to=nobody) as proxy:
        ends = Loopback(proxy, listener)
        dialler = await ends.dial()
        assert await dialler.rest() == (b"", "rst")
        assert proxy.counts.unreached == 1
        ends.close()


async def test_a_reset_is_seen_by_both_peers() -> None:
    async with loopback() as ends:
        pairs = [await ends.pair() for _ in range(2)]
        ends.proxy.reset()
        assert [await peer.rest() for pair in pairs for peer in pair] == [(b"", "rst")] * 4
        assert ends.proxy.counts.reset == 2
        dialler, target = await ends.pair()
        await dialler.send(b"as before")
        assert await target.receive(9) == b"as before"


async def test_a_close_is_a_fin_for_both_and_nothing_follows() -> None:
    async with loopback() as ends:
        dialler, target = await ends.pair()
        await dialler.send(b"first")
        assert await target.receive(5) == b"first"
        ends.proxy.close_connections()
        assert await target.rest() == (b"", "fin")
        assert await dialler.rest() == (b"", "fin")
        await dialler.send(b"too late")
        await ends.dropped(UP, 8)
        dialler.close()
        target.close()
        await ends.proxy.until(lambda: ends.proxy.open_connections == 0)


async def test_a_close_one_way_leaves_the_other_way_open() -> None:
    async with loopback() as ends:
        dialler, target = await ends.pair()
        ends.proxy.close_connections(UP)
        assert await target.rest() == (b"", "fin")
        await target.send(b"still here")
        assert await dialler.receive(10) == b"still here"


async def test_a_black_hole_delivers_nothing_and_healing_resets_who_lost_something() -> None:
    async with loopback() as ends:
        unlucky, its_target = await ends.pair()
        quiet, its_other = await ends.pair()
        ends.proxy.black_hole()
        await unlucky.send(b"lost")
        await ends.dropped(UP, 4)
        await its_target.send(b"as well")
        await ends.dropped(DOWN, 7)
        assert ends.proxy.open_connections == 2
        assert ends.proxy.line(UP).passed_bytes == ends.proxy.line(DOWN).passed_bytes == 0
        ends.proxy.heal()
        assert await unlucky.rest() == (b"", "rst")
        assert await its_target.rest() == (b"", "rst")
        await quiet.send(b"nothing was lost here")
        assert await its_other.receive(21) == b"nothing was lost here"
        assert ends.proxy.counts.reset == 1


async def test_a_black_hole_accepts_connections_of_which_the_target_never_hears() -> None:
    async with loopback() as ends:
        ends.proxy.black_hole()
        dialler, gone = await ends.dial(), await ends.dial()
        await dialler.send(b"hello?")
        await ends.dropped(UP, 6)
        gone.close()
        await ends.proxy.until(lambda: ends.proxy.counts.accepted == 2 and ends.proxy.open_connections == 1)
        ends.proxy.heal()
        assert await dialler.rest() == (b"", "rst")
        assert ends.nobody_dialled()


async def test_peers_do_not_learn_of_each_others_end_through_a_black_hole() -> None:
    async with loopback() as ends:
        dialler, target = await ends.pair()
        other, its_target = await ends.pair()
        ends.proxy.black_hole(UP)
        dialler.finish()
        other.reset()
        await target.send(b"I think you are there")
        assert await dialler.receive(21) == b"I think you are there"
        await turns()
        assert ends.proxy.open_connections == 2
        ends.proxy.heal()
        assert await target.rest() == (b"", "rst")
        assert await its_target.rest() == (b"", "rst")


async def test_a_close_ends_also_what_a_black_hole_kept() -> None:
    async with loopback() as ends:
        dialler, target = await ends.pair()
        ends.proxy.black_hole()
        await dialler.send(b"lost")
        await ends.dropped(UP, 4)
        ends.proxy.close_connections()
        for peer in (dialler, target):
            assert await peer.rest() == (b"", "fin")
            peer.close()
        await ends.proxy.until(lambda: ends.proxy.open_connections == 0)


async def test_half_open_passes_one_way_and_swallows_the_other() -> None:
    async with loopback() as ends:
        dialler, target = await ends.pair()
        ends.proxy.black_hole(DOWN)
        await dialler.send(b"can you hear me?")
        assert await target.receive(16) == b"can you hear me?"
        await target.send(b"yes")
        await ends.dropped(DOWN, 3)
        late, its_target = await ends.pair()
        await late.send(b"and me?")
        assert await its_target.receive(7) == b"and me?"
        ends.proxy.heal()
        assert await dialler.rest() == (b"", "rst")
        await its_target.send(b"yes")
        assert await late.receive(3) == b"yes"


async def test_a_connection_made_during_a_freeze_reaches_the_target_after_it() -> None:
    async with loopback() as ends:
        ends.proxy.freeze(UP)
        dialler = await ends.dial()
        await dialler.send(b"patience")
        await ends.proxy.until(lambda: ends.proxy.counts.accepted == 1)
        await turns()
        assert ends.nobody_dialled()
        ends.proxy.heal()
        target = await ends.accept()
        assert await target.receive(8) == b"patience"
