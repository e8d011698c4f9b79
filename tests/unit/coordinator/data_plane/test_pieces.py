"""Which pieces of an attempt count: fencing, order, credit, and events in several pieces."""

from __future__ import annotations

import asyncio

import pytest

from shrk_contract.terms import CREDIT_BYTES, EVENT_BYTES_MAX, IDS_MAX, IDS_PER_FRAME, PART_BYTES_MAX
from shrk_contract.v1 import link_pb2
from shrk_coordinator.data_plane.relay import ID_BYTES, IDS_STEP
from support.front import a_begun, a_front, chunk, codes_of, rest_of
from support.network import text_of

THREE = ("a", "b", "c")


# --- fencing ----------------------------------------------------------------------------------------------


async def test_what_an_earlier_node_still_says_reaches_nobody() -> None:
    async with a_front() as front, a_begun(front) as (first, answer):
        first.lose()
        second = await front.attempt()
        first.say(chunk("late"), ids=(66,))
        first.end()
        second.say(chunk(" wor"), ids=(12,))
        first.say(chunk("later"), ids=(67,))
        second.say(chunk("ld"), ids=(13,))
        first.index = second.index
        first.end()
        first.prompt(6)
        second.end()
        events = await rest_of(answer)
    assert text_of(events) == " world"
    assert events.count("[DONE]") == 1


async def test_a_repeated_piece_is_said_once() -> None:
    async with a_front() as front, a_begun(front) as (first, answer):
        first.sequence, first.index = 1, 1
        first.say(chunk("lo"), ids=(11,))
        first.say(chunk("!"), ids=(12,))
        first.end()
        assert text_of(await rest_of(answer)) == "!"


@pytest.mark.parametrize("off", [-1, 1])
async def test_a_node_that_does_not_go_on_with_the_token_that_is_due_is_left(off: int) -> None:
    async with a_front(nodes=THREE) as front, a_begun(front) as (first, answer):
        first.lose()
        second = await front.attempt()
        second.index += off
        second.say(chunk("wrong"), ids=(12,))
        assert (await front.links.cancelled.get())[0] == second.start.stream
        third = await front.attempt()
        assert third.prefixes() == ([1, 2, 3], [10, 11])
        third.say(chunk("right"), ids=(12,))
        third.end()
        assert text_of(await rest_of(answer)) == "right"


async def test_an_answer_that_ends_before_its_last_token_goes_on_elsewhere() -> None:
    async with a_front() as front, a_begun(front) as (first, answer):
        first.index += 1
        first.end()
        second = await front.attempt()
        assert second.start.resume.delivered_tokens == 2
        second.say(chunk("!"), ids=(12,))
        second.end()
        assert text_of(await rest_of(answer)) == "!"


async def test_tokens_beyond_a_nodes_credit_are_not_said_and_the_next_node_says_them() -> None:
    async with a_front() as front, a_begun(front) as (first, answer):
        first.say(b"x" * (CREDIT_BYTES + 1), ids=(12, 13), text_digest=9)
        second = await front.attempt()
        resume = second.start.resume
        assert (resume.delivered_tokens, resume.text_digest) == (2, 6)
        assert second.prefixes()[1] == [10, 11]
        second.say(chunk("!"), ids=(12,))
        second.end()
        assert text_of(await rest_of(answer)) == "!"


# --- more than any honest node sends -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tokens": 3_000_000}, "too many tokens"),
        ({"tokens": 2**32 - 1}, "too many tokens"),
        ({"tokens": IDS_PER_FRAME + 1, "token_ids": range(IDS_PER_FRAME + 1)}, "too many tokens"),
        ({"tokens": 0, "token_ids": [1, 2]}, "ids of none"),
        ({"tokens": 1, "end": link_pb2.ChoiceEnd(index=1, finish_reason="stop")}, "another answer"),
        ({"more": True}, "empty part"),
    ],
    ids=["tokens", "all that the wire can say", "ids", "ids without tokens", "another's end", "a part of nothing"],
)
async def test_a_piece_that_no_honest_node_sends_counts_for_nothing_and_costs_its_sender_the_attempt(
    fields: dict[str, object], words: str
) -> None:
    async with a_front() as front, a_begun(front) as (first, answer):
        place = {"stream": first.start.stream, "sequence": first.sequence, "first_index": first.index}
        first.sink.piece(link_pb2.Piece(**(place | fields)), 0, b"")  # type: ignore[arg-type]  # as the wire has them
        stream, why = await front.links.cancelled.get()
        assert (stream, words in why) == (first.start.stream, True)
        second = await front.attempt()
        assert (second.start.resume.delivered_tokens, second.prefixes()[1]) == (2, [10, 11])
        second.end()
        assert (await rest_of(answer))[-1] == "[DONE]"


async def test_no_answer_is_longer_than_any_context_and_who_makes_it_so_is_left() -> None:
    async with a_front() as front, a_begun(front) as (first, answer):
        first.say(b"", tokens=IDS_PER_FRAME - 2)
        for _ in range(IDS_MAX // IDS_PER_FRAME - 1):
            first.say(b"", tokens=IDS_PER_FRAME)
        assert front.links.cancelled.empty()
        first.say(b"", tokens=1)
        assert "any context" in (await front.links.cancelled.get())[1]
        second = await front.attempt()
        assert second.start.resume.delivered_tokens == IDS_MAX
        second.end()
        assert (await rest_of(answer))[-1] == "[DONE]"


async def test_a_stream_that_ends_another_answer_than_its_own_goes_on_elsewhere() -> None:
    async with a_front() as front, a_begun(front) as (first, answer):
        other = link_pb2.ChoiceEnd(index=3, finish_reason="stop")
        first.sink.finish(link_pb2.Finish(stream=first.start.stream, end_index=2, choices=[other]))
        assert "another answer" in (await front.links.cancelled.get())[1]
        (await front.attempt()).end()
        assert (await rest_of(answer))[-1] == "[DONE]"


# --- the ids that are kept -------------------------------------------------------------------------------------


async def test_ids_count_among_what_may_be_held_in_steps_until_their_answer_ends() -> None:
    async with a_front() as front:
        asking = asyncio.ensure_future(front.chat())
        attempt = await front.attempt()
        body = front.still_held()
        attempt.prompt(*range(IDS_STEP - 1))
        assert front.still_held() == body
        attempt.say(chunk("x"), ids=(1,))
        assert front.still_held() == body + IDS_STEP * ID_BYTES
        for _ in range(3):
            attempt.say(b"", ids=range(IDS_STEP))
        assert front.still_held() == body + 4 * IDS_STEP * ID_BYTES
        attempt.end()
        async with await asking as answer:
            await answer.read()
        await front.driver.idle()
        assert front.still_held() == 0


async def test_ids_of_an_answer_that_begins_anew_are_counted_once() -> None:
    async with a_front() as front:
        asking = asyncio.ensure_future(front.chat())
        first = await front.attempt()
        body = front.still_held()
        first.prompt(*range(IDS_STEP))
        first.lose()
        second = await front.attempt()
        assert front.still_held() == body
        second.prompt(*range(IDS_STEP))
        assert front.still_held() == body + IDS_STEP * ID_BYTES
        second.say(chunk("x"), ids=(1,))
        second.end()
        async with await asking as answer:
            assert (await rest_of(answer))[-1] == "[DONE]"


@pytest.mark.parametrize("at_the_prompt", [True, False])
async def test_an_answer_whose_ids_find_no_room_is_replayed(at_the_prompt: bool) -> None:
    async with a_front() as front:
        asking = asyncio.ensure_future(front.chat())
        first = await front.attempt()
        held = front.still_held()
        front.hold_all_but(10)
        first.prompt(*range(IDS_STEP if at_the_prompt else 3))
        first.say(chunk("x"), ids=range(IDS_STEP))
        async with await asking as answer:
            first.lose()
            second = await front.attempt()
            assert second.start.resume.method == link_pb2.RESUME_METHOD_REPLAY
            front.let_go()
            assert front.still_held() == held
            second.say(chunk("!"), ids=(12,))
            second.end()
            assert text_of(await rest_of(answer)) == "x!"


@pytest.mark.parametrize("fields", [{"stream": False}, {"response_format": {"type": "json_object"}}])
async def test_ids_that_nobody_asked_for_are_not_kept(fields: dict[str, object]) -> None:
    async with a_front(buffers=True) as front:
        asking = asyncio.ensure_future(front.chat(**fields))
        attempt = await front.attempt()
        held = front.still_held()
        attempt.prompt(*range(2 * IDS_STEP))
        assert front.still_held() == held
        attempt.say(b"{}")
        attempt.end()
        async with await asking as answer:
            assert answer.status == 200


# --- events in several pieces --------------------------------------------------------------------------------


async def test_an_event_in_parts_is_said_when_it_is_whole_with_the_tokens_of_its_last_part() -> None:
    async with a_front() as front, a_begun(front) as (first, answer):
        event = chunk("x" * 100)
        first.say(event[:50], tokens=0, more=True, text_digest=77)
        assert front.relay().cursor.digest == 6
        first.say(event[50:], ids=(12,), text_digest=7)
        assert await answer.content.readuntil(b"\n\n") == event
        first.lose()
        second = await front.attempt()
        assert (second.start.resume.text_digest, second.prefixes()[1]) == (7, [10, 11, 12])
        second.end()
        assert (await rest_of(answer))[-1] == "[DONE]"


async def test_tokens_with_half_an_event_are_a_breach_and_none_of_them_count() -> None:
    async with a_front() as front, a_begun(front) as (first, answer):
        first.say(b"data: {", ids=(12,), more=True)
        assert "half an event" in (await front.links.cancelled.get())[1]
        second = await front.attempt()
        assert (second.start.resume.delivered_tokens, second.prefixes()[1]) == (2, [10, 11])
        second.say(chunk("!"), ids=(12,))
        second.end()
        assert text_of(await rest_of(answer)) == "!"


async def test_an_answer_that_ends_in_half_an_event_is_not_whole() -> None:
    async with a_front() as front, a_begun(front) as (first, answer):
        first.say(b"data: {", tokens=0, more=True)
        first.end()
        second = await front.attempt()
        second.end()
        assert (await rest_of(answer))[-1] == "[DONE]"


async def test_an_event_without_end_is_a_breach() -> None:
    async with a_front() as front, a_begun(front) as (first, _):
        for _ in range(EVENT_BYTES_MAX // PART_BYTES_MAX):
            first.say(b"x" * PART_BYTES_MAX, tokens=0, more=True)
        assert front.links.cancelled.empty()
        first.say(b"x", tokens=0, more=True)
        assert "too long" in (await front.links.cancelled.get())[1]


async def test_the_credit_for_an_event_in_many_parts_adds_up() -> None:
    async with a_front() as front, a_begun(front) as (first, answer):
        sent = len(chunk("Hel") + chunk("lo"))
        stream = first.start.stream

        def credit() -> int:
            return CREDIT_BYTES + front.links.credit_given.get(stream, 0) - sent

        for _ in range(3):
            event = chunk("x" * (20 * PART_BYTES_MAX))
            parts = [event[i : i + PART_BYTES_MAX] for i in range(0, len(event), PART_BYTES_MAX)]
            for part in parts:
                assert credit() >= len(part)
                last = part is parts[-1]
                first.say(part, tokens=int(last), more=not last)
                sent += len(part)
            assert await answer.content.readexactly(len(event)) == event
            # All of it has been given back but for less than a step, and nothing twice.
            assert CREDIT_BYTES - CREDIT_BYTES // 4 < credit() <= CREDIT_BYTES
        first.end()
        assert (await rest_of(answer))[-1] == "[DONE]"


async def test_half_an_event_counts_among_what_may_be_held_until_its_caller_has_it() -> None:
    async with a_front() as front, a_begun(front) as (first, answer):
        body = front.still_held()
        event = chunk("x" * (3 * PART_BYTES_MAX))
        for begin in range(0, len(event), PART_BYTES_MAX):
            last = begin + PART_BYTES_MAX >= len(event)
            first.say(event[begin : begin + PART_BYTES_MAX], tokens=int(last), more=not last)
            assert front.still_held() == body + min(begin + PART_BYTES_MAX, 3 * PART_BYTES_MAX)
        assert await answer.content.readexactly(len(event)) == event
        assert front.still_held() == body
        first.end()
        assert (await rest_of(answer))[-1] == "[DONE]"


@pytest.mark.parametrize("loses", [True, False], ids=["its node is lost", "its caller leaves"])
async def test_half_an_event_that_is_of_no_use_any_more_is_let_go(loses: bool) -> None:
    async with a_front() as front, a_begun(front) as (first, answer):
        body = front.still_held()
        first.say(b"data: {", tokens=0, more=True)
        assert front.still_held() == body + len(b"data: {")
        if loses:
            first.lose()
            await front.attempt()
            assert front.still_held() == body
        else:
            answer.close()
            await front.driver.idle()
            assert front.still_held() == 0


async def test_half_an_event_that_finds_no_room_ends_its_answer_honestly() -> None:
    async with a_front() as front, a_begun(front) as (first, answer):
        front.hold_all_but(10)
        first.say(b"data: {" + b"x" * 10, tokens=0, more=True)
        events = await rest_of(answer)
        assert codes_of(events) == ["overloaded"]
        assert "[DONE]" not in events
