"""Links without a socket: what a peer that does not read, or sends what it may not, leads to."""

from __future__ import annotations

import asyncio

import pytest

from shrk_contract.batching import WAITING_BYTES_MAX
from shrk_contract.v1 import link_pb2, refusal_pb2
from shrk_coordinator.control_plane.links import HEARD_SECONDS, ContractBroken, Link, Links
from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.events import Event


class Side:
    """The coordinator around one link."""

    def __init__(self) -> None:
        self.posted: list[Event] = []
        self.refused: list[Link] = []
        self.now = 0.0
        self.links = Links(boot_id=b"boot", replicas=[])
        self.link = Link(
            self.links.new_id(), "node", "serial", [], self.posted.append, lambda: self.now, self._write, self._refused
        )
        self.links.add(self.link)

    async def _write(self, frames: list[link_pb2.CoordinatorFrame]) -> None:
        await asyncio.get_running_loop().create_future()

    def _refused(self, link: Link) -> None:
        self.refused.append(link)


@pytest.fixture
def side() -> Side:
    return Side()


def a_start(size: int) -> link_pb2.CoordinatorFrame:
    return link_pb2.CoordinatorFrame(start=link_pb2.Start(stream=1, body=b"x" * size))


async def test_a_node_that_does_not_read_loses_its_link_and_the_server_hears_of_it(side: Side) -> None:
    frame = a_start(8 * 1024 * 1024)
    started = [side.links.start(side.link.id, stream, [frame], None) for stream in range(10)]  # type: ignore[arg-type]  # no sink is asked for
    assert frame.ByteSize() * 10 > WAITING_BYTES_MAX
    assert started[0] is True
    assert started[-1] is False
    assert side.refused == [side.link]
    assert side.link.refusal is not None
    assert side.link.refusal.code == refusal_pb2.REFUSAL_CODE_CONTRACT_BROKEN


def test_a_node_that_was_not_heard_is_told_so_and_not_that_it_broke_the_contract(side: Side) -> None:
    side.links.close(do.CloseLink(side.link.id, do.Silent()))
    refusal = side.link.refusal
    assert refusal is not None
    assert refusal.code == refusal_pb2.REFUSAL_CODE_NODE_SILENT
    assert "15 s" in refusal.message
    assert "dials again by itself" in refusal.remedy
    # What agents go by that do not know the code: they come back soon.
    assert not refusal.permanent
    assert refusal.retry_after_ms == 0


def test_whatever_a_node_sends_it_was_heard_at_most_once_a_second(side: Side) -> None:
    batch = link_pb2.NodeBatch(frames=[link_pb2.NodeFrame(piece=link_pb2.Piece(stream=7, data=b"x"))])
    for now in (0.1, 0.5, HEARD_SECONDS + 0.1, HEARD_SECONDS + 0.2):
        side.now = now
        side.link.take(batch)
    assert side.posted == [seen.NodeHeard(HEARD_SECONDS + 0.1, "node", side.link.id)]


def test_a_batch_may_be_large_but_not_without_bound(side: Side) -> None:
    with pytest.raises(ContractBroken, match="frames"):
        side.link.take(link_pb2.NodeBatch(frames=[link_pb2.NodeFrame()] * 20_000))


@pytest.mark.parametrize("reason", ["", "abort"])
def test_an_answer_ends_for_a_reason_and_not_by_being_given_up(side: Side, reason: str) -> None:
    end = link_pb2.ChoiceEnd(finish_reason=reason)
    for frame in (
        link_pb2.NodeFrame(piece=link_pb2.Piece(stream=1, tokens=1, end=end)),
        link_pb2.NodeFrame(finish=link_pb2.Finish(stream=1, choices=[end])),
    ):
        side.link.sinks[1] = _Deaf()
        with pytest.raises(ContractBroken, match="without a reason"):
            side.link.take(link_pb2.NodeBatch(frames=[frame]))


class _Deaf:
    """An attempt that must hear nothing."""

    def prompt(self, prompt: link_pb2.Prompt) -> None:
        raise AssertionError("it heard a prompt")

    def piece(self, piece: link_pb2.Piece, size: int, part: bytes) -> None:
        raise AssertionError("it heard a piece")

    def finish(self, finish: link_pb2.Finish) -> None:
        raise AssertionError("it heard a finish")


def test_words_about_streams_that_are_not_the_nodes_own_change_nothing(side: Side) -> None:
    for frame in (
        link_pb2.NodeFrame(accepted=link_pb2.Accepted(stream=9)),
        link_pb2.NodeFrame(rejected=link_pb2.Rejected(stream=9)),
        link_pb2.NodeFrame(failure=link_pb2.Failure(stream=9)),
        link_pb2.NodeFrame(finish=link_pb2.Finish(stream=9)),
    ):
        side.link.take(link_pb2.NodeBatch(frames=[frame]))
    assert side.posted == []
