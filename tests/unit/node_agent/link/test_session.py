"""One session on a link: frames in become orders, answers become frames."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from shrk_contract.terms import BODY_BYTES_MAX, PART_BYTES_MAX, Endpoint, Fault, Rejection
from shrk_contract.v1 import link_pb2, report_pb2
from shrk_node_agent.attempts import AttemptSink, ChoiceEnd, Failed, Finished, Order
from shrk_node_agent.link.session import CoordinatorBrokeContract, Session, SessionPort
from shrk_node_agent.state.events import AttemptKey

Frame = link_pb2.CoordinatorFrame


@dataclass
class Desk:
    """Stands for the rest of the agent, and for the coordinator's end of the wire."""

    orders: list[tuple[AttemptKey, Order, AttemptSink]] = field(default_factory=list)
    unknown: list[AttemptSink] = field(default_factory=list)
    cancelled: list[AttemptKey] = field(default_factory=list)
    sent: list[link_pb2.NodeFrame] = field(default_factory=list)

    async def write(self, frames: list[link_pb2.NodeFrame]) -> None:
        self.sent += frames

    def port(self) -> SessionPort:
        return SessionPort(
            ordered=lambda *order: self.orders.append(order),
            unknown=self.unknown.append,
            cancelled=self.cancelled.append,
        )


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
async def session(desk: Desk) -> AsyncIterator[Session]:
    session = Session(desk.port(), desk.write)
    writer = asyncio.create_task(session.outbox.run())
    yield session
    writer.cancel()
    await asyncio.gather(writer, return_exceptions=True)


def start(
    stream: int, body: bytes = b"{}", *, size: int | None = None, endpoint: int = 1, credit: int = 1 << 18
) -> Frame:
    return Frame(
        start=link_pb2.Start(
            stream=stream,
            endpoint=report_pb2.Endpoint.ValueType(endpoint),
            model="m",
            streaming=True,
            envelope=link_pb2.Envelope(id="id", created=1, model="m", tool_call_prefix="call_"),
            body_bytes=len(body) if size is None else size,
            body=body,
            credit_bytes=credit,
        )
    )


def take(session: Session, *frames: Frame) -> None:
    session.take(link_pb2.CoordinatorBatch(frames=frames))


def test_a_start_becomes_an_order(session: Session, desk: Desk) -> None:
    take(session, start(7, b'{"a":1}'))
    [(key, order, _)] = desk.orders
    assert key == (session.serial, 7)
    assert (order.endpoint, order.model, order.body) == (Endpoint.CHAT_COMPLETIONS, "m", b'{"a":1}')


def test_a_body_in_parts_is_one_order_once_it_is_whole(session: Session, desk: Desk) -> None:
    take(session, start(7, b"abc", size=9), Frame(body=link_pb2.Body(stream=7, data=b"def")))
    assert desk.orders == []
    take(session, Frame(body=link_pb2.Body(stream=7, data=b"ghi")))
    assert desk.orders[0][1].body == b"abcdefghi"


def test_a_body_longer_than_announced_or_allowed_breaks_the_contract(session: Session) -> None:
    take(session, start(7, b"abc", size=4))
    with pytest.raises(CoordinatorBrokeContract):
        take(session, Frame(body=link_pb2.Body(stream=7, data=b"too long")))
    with pytest.raises(CoordinatorBrokeContract):
        take(session, start(8, b"", size=BODY_BYTES_MAX + 1))


def test_frames_and_endpoints_of_a_newer_minor_version_are_survived(session: Session, desk: Desk) -> None:
    take(session, Frame(), start(7, endpoint=99))
    assert len(desk.unknown) == 1
    assert desk.orders == []


def test_a_cancel_ends_the_attempt_and_silences_it(session: Session, desk: Desk) -> None:
    take(session, start(7), Frame(cancel=link_pb2.Cancel(stream=7)))
    assert desk.cancelled == [(session.serial, 7)]
    desk.orders[0][2].fail(Failed(Fault.ENGINE, "late words"))
    assert session.open_attempts() == []
    assert desk.sent == []


async def test_an_answer_becomes_pieces_in_sequence_and_a_finish_at_its_last_token(
    session: Session, desk: Desk
) -> None:
    take(session, start(7))
    sink = desk.orders[0][2]
    sink.accept()
    await sink.piece(2, [1, 2], b"ab")
    await sink.piece(1, [3], b"c")
    sink.finish(Finished((ChoiceEnd(0, "stop", b"null"),), {"prompt_tokens": 5, "completion_tokens": 3}))
    await session.outbox.flushed()
    accepted, first, second, finish = desk.sent
    assert accepted.accepted.stream == 7
    assert [(p.sequence, p.first_index, p.tokens, p.data) for p in (first.piece, second.piece)] == [
        (0, 0, 2, b"ab"),
        (1, 2, 1, b"c"),
    ]
    assert (finish.finish.end_index, finish.finish.completion_tokens) == (3, 3)
    assert session.open_attempts() == []


async def test_a_large_part_travels_in_pieces_that_no_request_can_block_the_link_with(
    session: Session, desk: Desk
) -> None:
    take(session, start(7))
    await desk.orders[0][2].piece(3, (), b"x" * (2 * PART_BYTES_MAX + 1))
    await session.outbox.flushed()
    pieces = [f.piece for f in desk.sent]
    assert [len(p.data) for p in pieces] == [PART_BYTES_MAX, PART_BYTES_MAX, 1]
    assert [(p.first_index, p.tokens) for p in pieces] == [(0, 3), (3, 0), (3, 0)]


async def test_without_credit_nothing_more_is_sent_until_some_comes(session: Session, desk: Desk) -> None:
    take(session, start(7, credit=10))
    sink = desk.orders[0][2]
    await sink.piece(1, (), b"x" * 8)
    waiting = asyncio.ensure_future(sink.piece(1, (), b"y" * 8))
    await session.outbox.flushed()
    assert not waiting.done()
    take(session, Frame(credit=link_pb2.Credit(stream=7, bytes=8)))
    await waiting
    await session.outbox.flushed()
    assert [f.piece.data for f in desk.sent] == [b"x" * 8, b"y" * 8]


async def test_a_rejection_and_a_failure_say_whose_matter_it_is(session: Session, desk: Desk) -> None:
    take(session, start(1), start(2))
    desk.orders[0][2].reject(Rejection.BUSY, "full")
    desk.orders[1][2].fail(Failed(Fault.CALLER, "too long", 400, "context_length_exceeded"))
    await session.outbox.flushed()
    assert desk.sent[0].rejected.reason == link_pb2.REJECTION_REASON_BUSY
    assert desk.sent[1].failure.fault == link_pb2.FAULT_CALLER
    assert desk.sent[1].failure.http_status == 400
