"""One session on a link: frames in become orders, answers become frames."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest

from shrk_contract.terms import (
    BODY_BYTES_MAX,
    IDS_MAX,
    IDS_PER_FRAME,
    PART_BYTES_MAX,
    Endpoint,
    Fault,
    ModelOutcome,
    Rejection,
    ResumeMethod,
)
from shrk_contract.v1 import link_pb2, report_pb2
from shrk_node_agent.attempts import AttemptSink, ChoiceEnd, Failed, Finished, Order, Piece
from shrk_node_agent.link.session import (
    ASSEMBLING_MAX,
    CoordinatorBrokeContract,
    Session,
    SessionPort,
)
from shrk_node_agent.state.events import AttemptKey

Frame = link_pb2.CoordinatorFrame


@dataclass
class Desk:
    """Stands for the rest of the agent, and for the coordinator's end of the wire."""

    orders: list[tuple[AttemptKey, Order, AttemptSink]] = field(default_factory=list)
    unknown: list[AttemptSink] = field(default_factory=list)
    cancelled: list[AttemptKey] = field(default_factory=list)
    assigned: list[tuple[object, ...]] = field(default_factory=list)
    sent: list[link_pb2.NodeFrame] = field(default_factory=list)

    async def write(self, frames: list[link_pb2.NodeFrame]) -> None:
        self.sent += frames

    def port(self) -> SessionPort:
        return SessionPort(
            ordered=lambda *order: self.orders.append(order),
            unknown=self.unknown.append,
            cancelled=self.cancelled.append,
            assigned=lambda *words: self.assigned.append(words),
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


def resuming(stream: int, *, method: int = 1, prompt: int = 0, delivered: int = 0, digest: int = 0) -> Frame:
    frame = start(stream)
    frame.start.resume.CopyFrom(
        link_pb2.Resume(
            method=link_pb2.ResumeMethod.ValueType(method),
            prompt_tokens=prompt,
            delivered_tokens=delivered,
            text_digest=digest,
        )
    )
    return frame


def prefix(stream: int, prompt: Sequence[int] = (), delivered: Sequence[int] = ()) -> Frame:
    return Frame(prefix=link_pb2.Prefix(stream=stream, prompt_token_ids=prompt, delivered_token_ids=delivered))


def test_seed_ids_and_the_number_of_a_choice_come_with_the_order(session: Session, desk: Desk) -> None:
    frame = start(7)
    frame.start.seed, frame.start.tell_ids, frame.start.envelope.choice_index = -3, True, 2
    take(session, frame, start(8))
    (_, order, _), (_, plain, _) = desk.orders
    assert (order.seed, order.tell_ids, order.envelope.choice_index) == (-3, True, 2)
    assert (plain.seed, plain.tell_ids, plain.resume) == (None, False, None)


def test_an_order_by_ids_waits_for_all_of_them(session: Session, desk: Desk) -> None:
    take(session, resuming(7, prompt=3, delivered=2, digest=99), prefix(7, [1, 2]), prefix(7, [3], [4]))
    assert desk.orders == []
    take(session, prefix(7, [], [5]))
    resume = desk.orders[0][1].resume
    assert resume is not None
    assert (resume.method, resume.delivered_tokens, resume.text_digest) == (ResumeMethod.BY_IDS, 2, 99)
    assert ([*resume.prompt_ids], [*resume.delivered_ids]) == ([1, 2, 3], [4, 5])


async def test_what_a_resumed_attempt_brings_is_counted_from_what_was_delivered(session: Session, desk: Desk) -> None:
    take(session, resuming(7, method=2, delivered=5))
    _, order, sink = desk.orders[0]
    assert order.resume is not None
    assert order.resume.method is ResumeMethod.REPLAY
    await sink.piece(Piece(2, (), b"a"))
    sink.finish(Finished(()))
    await session.outbox.flushed()
    assert (desk.sent[0].piece.first_index, desk.sent[1].finish.end_index) == (5, 7)


@pytest.mark.parametrize("method", [1, 2])
def test_more_ids_than_announced_break_the_contract(session: Session, method: int) -> None:
    frame = resuming(7, method=method, prompt=1, delivered=1)
    frame.start.body_bytes = 9
    take(session, frame)
    with pytest.raises(CoordinatorBrokeContract):
        take(session, prefix(7, [1, 2]))


@pytest.mark.parametrize(
    "oversized",
    [
        resuming(7, prompt=IDS_MAX, delivered=1),
        resuming(7, method=2, delivered=IDS_MAX + 1),
        resuming(7, method=2, delivered=2**32 - 1),
        start(7, b"", size=BODY_BYTES_MAX + 1),
    ],
    ids=["ids", "a replay", "all that the wire can say", "a body"],
)
async def test_an_order_that_is_too_large_is_rejected_and_the_link_and_its_other_orders_live_on(
    session: Session, desk: Desk, oversized: Frame
) -> None:
    take(session, oversized, prefix(7, [1]), Frame(body=link_pb2.Body(stream=7, data=b"x")), start(8))
    await session.outbox.flushed()
    assert [(f.rejected.stream, f.rejected.reason) for f in desk.sent] == [(7, link_pb2.REJECTION_REASON_UNSUPPORTED)]
    assert session.open_attempts() == [(session.serial, 8)]


def test_an_order_as_large_as_any_may_be_is_taken(session: Session, desk: Desk) -> None:
    take(session, resuming(7, method=2, delivered=IDS_MAX), start(8, b"", size=BODY_BYTES_MAX))
    assert [key for key, _, _ in desk.orders] == [(session.serial, 7)]


def test_the_time_that_is_left_comes_with_the_order(session: Session, desk: Desk) -> None:
    frame = start(7)
    frame.start.deadline_ms = 1_500
    take(session, frame, start(8))
    assert [order.deadline_seconds for _, order, _ in desk.orders] == [1.5, None]


async def test_a_way_of_going_on_of_a_newer_coordinator_is_rejected(session: Session, desk: Desk) -> None:
    take(session, resuming(7, method=99))
    await session.outbox.flushed()
    assert (desk.orders, session.open_attempts()) == ([], [])
    assert desk.sent[0].rejected.reason == link_pb2.REJECTION_REASON_UNSUPPORTED


def test_orders_begun_and_never_sent_whole_are_bounded(session: Session) -> None:
    take(session, *(start(stream, size=9) for stream in range(ASSEMBLING_MAX)))
    with pytest.raises(CoordinatorBrokeContract):
        take(session, start(ASSEMBLING_MAX, size=9))


def test_a_body_longer_than_announced_breaks_the_contract(session: Session) -> None:
    take(session, start(7, b"abc", size=4))
    with pytest.raises(CoordinatorBrokeContract):
        take(session, Frame(body=link_pb2.Body(stream=7, data=b"too long")))
    with pytest.raises(CoordinatorBrokeContract):
        take(session, start(8, b"abc", size=2))


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
    await sink.piece(Piece(2, [1, 2], b"ab"))
    await sink.piece(Piece(1, [3], b"c"))
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
    await desk.orders[0][2].piece(Piece(3, (), b"x" * (2 * PART_BYTES_MAX + 1)))
    await session.outbox.flushed()
    pieces = [f.piece for f in desk.sent]
    assert [len(p.data) for p in pieces] == [PART_BYTES_MAX, PART_BYTES_MAX, 1]
    assert [(p.first_index, p.tokens, p.more) for p in pieces] == [(0, 0, True), (0, 0, True), (0, 3, False)]


async def test_only_the_last_cut_of_a_part_says_what_the_whole_part_amounts_to(session: Session, desk: Desk) -> None:
    take(session, start(7))
    piece = Piece(
        2, [8, 9], b"x" * (PART_BYTES_MAX + 1), text_digest=77, end=ChoiceEnd(1, "length", b"null"), prompt_tokens=9
    )
    await desk.orders[0][2].piece(piece)
    await session.outbox.flushed()
    cut, last = (f.piece for f in desk.sent)
    assert (cut.token_ids, cut.text_digest, cut.HasField("end"), cut.prompt_tokens) == ([], 0, False, 0)
    assert (last.token_ids, last.text_digest, last.prompt_tokens) == ([8, 9], 77, 9)
    assert (last.end.index, last.end.finish_reason, last.end.stop_reason_json) == (1, "length", b"null")


async def test_a_part_of_exactly_the_bound_is_one_piece_and_so_is_one_of_nothing(session: Session, desk: Desk) -> None:
    take(session, start(7))
    await desk.orders[0][2].piece(Piece(1, (), b"x" * PART_BYTES_MAX))
    await desk.orders[0][2].piece(Piece(1, (), b""))
    await session.outbox.flushed()
    assert [(f.piece.first_index, len(f.piece.data), f.piece.more) for f in desk.sent] == [
        (0, PART_BYTES_MAX, False),
        (1, 0, False),
    ]


async def test_a_long_prompt_is_told_in_frames_with_where_each_begins(session: Session, desk: Desk) -> None:
    take(session, start(7))
    ids = list(range(IDS_PER_FRAME + 2))
    desk.orders[0][2].prompt(ids)
    await session.outbox.flushed()
    first, second = (f.prompt for f in desk.sent)
    assert (first.first_index, second.first_index) == (0, IDS_PER_FRAME)
    assert [*first.token_ids, *second.token_ids] == ids


async def test_without_credit_nothing_more_is_sent_until_some_comes(session: Session, desk: Desk) -> None:
    take(session, start(7, credit=10))
    sink = desk.orders[0][2]
    await sink.piece(Piece(1, (), b"x" * 8))
    waiting = asyncio.ensure_future(sink.piece(Piece(1, (), b"y" * 8)))
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


async def test_an_assignment_is_passed_on_and_answered_in_the_coordinators_words(desk: Desk) -> None:
    session = Session(desk.port(), desk.write)
    assign = link_pb2.Assign(leader_term=1, revision=7, models=[link_pb2.AssignedModel(model="m")])
    session.take(link_pb2.CoordinatorBatch(frames=[link_pb2.CoordinatorFrame(assign=assign)]))
    assert desk.assigned == [(1, 7, ("m",))]
    session.assign_result(1, 7, [ModelOutcome("m", False, "it does not fit beside the others")])
    sending = asyncio.ensure_future(session.outbox.run())
    await session.outbox.flushed()
    sending.cancel()
    [frame] = desk.sent
    [outcome] = frame.assign_result.outcomes
    assert (frame.assign_result.revision, outcome.obeyed, outcome.reason) == (
        7,
        False,
        "it does not fit beside the others",
    )


async def test_what_the_node_asks_about_itself_leaves_on_its_link_and_the_answers_come_back(
    session: Session, desk: Desk
) -> None:
    verdict = asyncio.ensure_future(session.questions.verdict(30.0))
    probe = asyncio.ensure_future(session.questions.probe("m", 30.0))
    await asyncio.sleep(0)
    await session.outbox.flushed()
    assert [frame.WhichOneof("frame") for frame in desk.sent] == ["ask_verdict", "probe"]
    result = link_pb2.ProbeResult(probe_id=desk.sent[1].probe.probe_id, passed=True)
    session.take(
        link_pb2.CoordinatorBatch(frames=[Frame(verdict=link_pb2.Verdict(state="busy")), Frame(probe_result=result)])
    )
    assert (await verdict).state == "busy"
    assert (await probe).passed
