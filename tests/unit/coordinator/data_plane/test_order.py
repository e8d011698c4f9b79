"""What starts an attempt: the order, and the ids to go on from."""

from __future__ import annotations

from array import array

import pytest

from shrk_contract.terms import CREDIT_BYTES, IDS_MAX, IDS_PER_FRAME, PART_BYTES_MAX, Endpoint, ResumeMethod
from shrk_contract.v1 import link_pb2
from shrk_coordinator.data_plane.dialects import DIALECTS
from shrk_coordinator.data_plane.dialects.dialect import Envelope
from shrk_coordinator.data_plane.order import Call, Delivered, Frame, frames_of
from shrk_coordinator.state import effects as do


def a_call(**fields: object) -> Call:
    defaults: dict[str, object] = {
        "request_id": b"\x01" * 16,
        "dialect": DIALECTS[Endpoint.CHAT_COMPLETIONS],
        "envelope": Envelope("the-id", 1234, "m"),
        "body": b"{}",
        "streaming": True,
        "include_usage": False,
        "seed": 77,
    }
    return Call(**(defaults | fields))  # type: ignore[arg-type]  # as the test names them


def frames(call: Call, resume: ResumeMethod | None, delivered: Delivered | None = None) -> list[Frame]:
    effect = do.StartAttempt(call.request_id, 2, 9, "node", 1, resume)
    return frames_of(call, effect, delivered or Delivered(), 3, 55, 60.5)


def prompt(first_index: int, *ids: int) -> link_pb2.Prompt:
    return link_pb2.Prompt(first_index=first_index, token_ids=ids)


def piece(tokens: int, *ids: int) -> link_pb2.Piece:
    return link_pb2.Piece(tokens=tokens, token_ids=ids)


# --- what was delivered -----------------------------------------------------------------------------------


def test_a_prompts_ids_are_taken_in_order_and_nothing_else() -> None:
    delivered = Delivered()
    assert delivered.take_prompt(prompt(0, 1, 2))
    assert not delivered.take_prompt(prompt(0, 1, 2))
    assert not delivered.take_prompt(prompt(3, 4))
    assert delivered.take_prompt(prompt(2, 3))
    assert delivered.prompt.tolist() == [1, 2, 3]


def test_no_prompt_is_longer_than_any_context() -> None:
    delivered = Delivered(prompt=array("I", range(IDS_MAX - 1)))
    assert not delivered.take_prompt(prompt(IDS_MAX - 1, 1, 2))
    assert delivered.take_prompt(prompt(IDS_MAX - 1, 1))


def test_ids_are_known_while_every_token_comes_with_one() -> None:
    delivered = Delivered()
    delivered.take_prompt(prompt(0, 1))
    assert delivered.take(piece(0))
    assert delivered.take(piece(2, 5, 6))
    assert (delivered.ids_known, delivered.ids.tolist()) == (True, [5, 6])


@pytest.mark.parametrize("next_piece", [piece(1), piece(2, 7), piece(1, 7, 8), piece(0, 7)])
def test_one_token_without_its_id_makes_all_unknown_which_is_told_once(next_piece: link_pb2.Piece) -> None:
    delivered = Delivered()
    delivered.take_prompt(prompt(0, 1))
    delivered.take(piece(1, 5))
    assert not delivered.take(next_piece)
    assert not delivered.ids_known
    assert delivered.take(piece(1))
    assert delivered.take(piece(1, 9))
    assert not delivered.ids_known


def test_ids_that_no_context_holds_are_not_gone_on_from() -> None:
    delivered = Delivered(prompt=array("I", range(IDS_MAX - 1)))
    assert delivered.take(piece(1, 5))
    assert not delivered.take(piece(1, 6))
    assert not delivered.ids_known


def test_ids_that_were_let_go_are_gone_and_so_are_those_to_come() -> None:
    delivered = Delivered()
    delivered.take_prompt(prompt(0, 1, 2))
    delivered.take(piece(1, 5))
    assert delivered.kept == 3
    delivered.forget_ids()
    assert delivered.take_prompt(prompt(2, 3))
    assert delivered.take(piece(1, 6))
    assert (delivered.kept, delivered.ids_known) == (0, False)


def test_without_the_prompts_ids_those_of_the_answer_are_of_no_use() -> None:
    delivered = Delivered()
    assert not delivered.take(piece(1, 5))
    assert not delivered.ids_known


def test_the_largest_token_id_that_the_wire_carries_is_kept() -> None:
    delivered = Delivered()
    delivered.take_prompt(prompt(0, 2**32 - 1))
    assert delivered.take(piece(1, 2**32 - 1))
    assert delivered.ids.tolist() == [2**32 - 1]


# --- the frames ------------------------------------------------------------------------------------------------


def test_a_first_attempt_names_no_resume() -> None:
    [frame] = frames(a_call(), None)
    start = frame.start
    assert (start.stream, start.attempt, start.seed) == (9, 2, 77)
    assert not start.HasField("resume")
    assert (start.credit_bytes, start.deadline_ms) == (CREDIT_BYTES, 60_500)
    assert start.envelope.choice_index == 0


def test_a_replay_is_told_how_far_and_what_text_and_no_ids() -> None:
    delivered = Delivered(array("I", [1, 2]), array("I", [5, 6, 7]))
    [frame] = frames(a_call(), ResumeMethod.REPLAY, delivered)
    resume = frame.start.resume
    assert resume.method == link_pb2.RESUME_METHOD_REPLAY
    assert (resume.prompt_tokens, resume.delivered_tokens, resume.text_digest) == (0, 3, 55)


def test_by_ids_all_ids_follow_the_body_in_parts() -> None:
    ids = array("I", range(IDS_PER_FRAME * 2 + 1))
    sent = frames(a_call(body=b"x" * (PART_BYTES_MAX + 1)), ResumeMethod.BY_IDS, Delivered(ids, array("I", [5, 6, 7])))
    assert [frame.WhichOneof("frame") for frame in sent] == ["start", "body", *["prefix"] * 4]
    resume = sent[0].start.resume
    assert resume.method == link_pb2.RESUME_METHOD_BY_IDS
    assert (resume.prompt_tokens, resume.delivered_tokens) == (len(ids), 3)
    prefixes = [frame.prefix for frame in sent[2:]]
    assert {prefix.stream for prefix in prefixes} == {9}
    assert [i for prefix in prefixes for i in prefix.prompt_token_ids] == ids.tolist()
    assert [i for prefix in prefixes for i in prefix.delivered_token_ids] == [5, 6, 7]
    assert max(frame.ByteSize() for frame in sent) <= PART_BYTES_MAX + 1024


@pytest.mark.parametrize(
    ("streaming", "buffered", "tells"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_only_what_may_have_to_be_continued_needs_ids(streaming: bool, buffered: bool, tells: bool) -> None:
    [frame] = frames(a_call(streaming=streaming, buffered=buffered), None)
    assert frame.start.tell_ids is tells
    assert frame.start.streaming is streaming


def test_a_deadline_that_has_passed_is_still_one() -> None:
    effect = do.StartAttempt(b"\x01" * 16, 1, 9, "node", 1)
    [frame] = frames_of(a_call(), effect, Delivered(), 0, 0, -5.0)
    # 0 on the wire would mean: none.
    assert frame.start.deadline_ms == 1
