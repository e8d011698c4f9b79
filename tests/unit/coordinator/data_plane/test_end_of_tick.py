"""Work done together at the end of a tick."""

from __future__ import annotations

import asyncio

from shrk_coordinator.data_plane.end_of_tick import EndOfTick


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_work_is_done_in_order_and_not_before_the_end_of_the_tick() -> None:
    done: list[int] = []
    ticks = EndOfTick()
    ticks.add(lambda: done.append(1))
    ticks.add(lambda: done.append(2))
    assert done == []
    await turns(1)
    assert done == [1, 2]


async def test_work_added_by_work_has_its_turn_in_the_next_tick() -> None:
    done: list[int] = []
    ticks = EndOfTick()
    ticks.add(lambda: ticks.add(lambda: done.append(1)))
    await turns(1)
    assert done == []
    await turns(1)
    assert done == [1]


async def test_a_surprise_in_one_piece_of_work_does_not_take_the_others_along() -> None:
    done: list[int] = []
    said: list[BaseException | None] = []

    def surprise() -> None:
        raise ValueError("surprise")

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: said.append(context.get("exception")))
    try:
        ticks = EndOfTick()
        for work in (lambda: done.append(1), surprise, lambda: done.append(2)):
            ticks.add(work)
        await turns(3)
    finally:
        loop.set_exception_handler(None)
    assert done == [1, 2]
    assert [str(error) for error in said] == ["surprise"]
