"""The batching writer."""

from __future__ import annotations

import asyncio

import pytest

from shrk_contract.batching import WAITING_BYTES_MAX, Outbox, PeerNotReading
from shrk_contract.terms import BATCH_BYTES_MAX


class Wire:
    """Takes batches, one at a time, as slowly as told."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()
        self.open.set()

    async def write(self, batch: list[int]) -> None:
        await self.open.wait()
        self.batches.append(batch)


async def sent_through(wire: Wire, *rounds: list[tuple[int, int]]) -> Outbox[int]:
    outbox: Outbox[int] = Outbox(wire.write)
    writer = asyncio.create_task(outbox.run())
    for frames in rounds:
        for frame, size in frames:
            outbox.send(frame, size)
        if wire.open.is_set():
            await outbox.flushed()
        else:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    wire.open.set()
    await outbox.flushed()
    writer.cancel()
    await asyncio.gather(writer, return_exceptions=True)
    return outbox


async def test_frames_of_one_tick_leave_in_one_message() -> None:
    wire = Wire()
    outbox = await sent_through(wire, [(1, 0), (2, 0), (3, 0)], [(4, 0)])
    assert wire.batches == [[1, 2, 3], [4]]
    assert (outbox.frames, outbox.messages) == (4, 2)


async def test_while_one_message_is_written_the_next_batch_gathers() -> None:
    wire = Wire()
    wire.open.clear()
    await sent_through(wire, [(1, 0)], [(2, 0)], [(3, 0)])
    assert wire.batches == [[1], [2, 3]]


async def test_a_batch_has_a_bound_and_frames_keep_their_order() -> None:
    wire = Wire()
    await sent_through(wire, [(n, BATCH_BYTES_MAX // 2) for n in range(5)])
    assert [f for batch in wire.batches for f in batch] == [0, 1, 2, 3, 4]
    assert all(len(batch) <= 2 for batch in wire.batches)


async def test_what_is_being_written_still_counts_until_the_transport_has_it() -> None:
    wire = Wire()
    wire.open.clear()
    outbox: Outbox[int] = Outbox(wire.write)
    writer = asyncio.create_task(outbox.run())
    outbox.send(1, WAITING_BYTES_MAX - 1000)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with pytest.raises(PeerNotReading):
        outbox.send(2, 2000)
    wire.open.set()
    await outbox.flushed()
    outbox.send(2, 2000)
    writer.cancel()
    await asyncio.gather(writer, return_exceptions=True)


async def test_a_peer_that_does_not_read_is_given_up_at_the_bound() -> None:
    outbox: Outbox[int] = Outbox(Wire().write)
    outbox.send(1, WAITING_BYTES_MAX - 1000)
    with pytest.raises(PeerNotReading):
        outbox.send(2, 2000)


async def test_a_patient_frame_leaves_with_the_next_frame_in_one_message() -> None:
    wire = Wire()
    outbox: Outbox[int] = Outbox(wire.write)
    writer = asyncio.create_task(outbox.run())
    outbox.send(1, patient=True)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert wire.batches == []
    outbox.send(2)
    await outbox.flushed()
    writer.cancel()
    assert wire.batches == [[1, 2]]


async def test_a_patient_frame_leaves_by_itself_when_no_other_comes() -> None:
    wire = Wire()
    outbox: Outbox[int] = Outbox(wire.write)
    writer = asyncio.create_task(outbox.run())
    outbox.send(1, patient=True)
    await outbox.flushed()
    writer.cancel()
    assert wire.batches == [[1]]


async def test_a_beat_with_nothing_to_say_is_an_empty_batch_and_with_something_none_of_its_own() -> None:
    wire = Wire()
    outbox: Outbox[int] = Outbox(wire.write)
    writer = asyncio.create_task(outbox.run())
    outbox.beat()
    outbox.beat()
    for _ in range(3):
        await asyncio.sleep(0)
    assert wire.batches == [[]]
    outbox.send(1)
    outbox.beat()
    await outbox.flushed()
    for _ in range(3):
        await asyncio.sleep(0)
    writer.cancel()
    assert wire.batches == [[], [1]]
