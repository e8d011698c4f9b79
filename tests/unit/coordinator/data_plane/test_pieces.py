"""Which pieces of an attempt count: fencing, order, credit, and events in several pieces."""

from __future__ import annotations

import pytest

from shrk_contract.terms import CREDIT_BYTES, PART_BYTES_MAX
from shrk_coordinator.data_plane.relay import EVENT_BYTES_MAX
from support.front import a_begun, a_front, chunk, rest_of
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
