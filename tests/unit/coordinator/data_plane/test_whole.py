"""Answers of which nothing is delivered before they are whole: in one document, or as a stream that is held back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shrk_contract.terms import ANSWER_BYTES_MAX, EVENT_BYTES_MAX, PART_BYTES_MAX, Fault
from shrk_coordinator.data_plane.http import BUFFER_HEADER
from shrk_coordinator.data_plane.relay import Patience
from shrk_coordinator.state import events as seen
from support.front import a_front, chunk, codes_of, rest_of
from support.network import events_of, text_of

JSON = {"response_format": {"type": "json_object"}}
BUFFER = {BUFFER_HEADER: "buffer"}
BRIEF = Patience(headers_after=0.02, keep_alive=0.02)
KEEP_ALIVE = b": keep-alive\n\n"


# --- in one document ------------------------------------------------------------------------------------


async def test_a_whole_answer_larger_than_any_event_comes_in_parts_and_is_counted_while_it_is_held() -> None:
    parts = 2 * EVENT_BYTES_MAX // PART_BYTES_MAX
    async with a_front() as front:
        asking = asyncio.ensure_future(front.chat(stream=False))
        attempt = await front.attempt()
        body = front.still_held()
        for _ in range(parts):
            attempt.say(b"x" * PART_BYTES_MAX, tokens=0, more=True)
        assert front.still_held() == body + parts * PART_BYTES_MAX
        attempt.say(b"!", tokens=0)
        attempt.end()
        async with await asking as answer:
            assert len(await answer.read()) == parts * PART_BYTES_MAX + 1
        await front.driver.idle()
        assert front.still_held() == 0
        assert front.links.cancelled.empty()


async def test_a_whole_answer_that_ends_in_the_middle_comes_from_another_node() -> None:
    async with a_front() as front:
        asking = asyncio.ensure_future(front.chat(stream=False))
        first = await front.attempt()
        first.say(b'{"half":', tokens=0, more=True)
        first.end()
        second = await front.attempt()
        assert not second.start.HasField("resume")
        second.say(b'{"whole":1}', tokens=0)
        second.end()
        async with await asking as answer:
            assert await answer.json() == {"whole": 1}


async def test_a_whole_answer_of_nothing_is_a_breach_and_comes_from_another_node() -> None:
    async with a_front() as front:
        asking = asyncio.ensure_future(front.chat(stream=False))
        first = await front.attempt()
        first.end()
        assert "had sent nothing" in (await front.links.cancelled.get())[1]
        second = await front.attempt()
        second.say(b'{"whole":1}', tokens=0)
        second.end()
        async with await asking as answer:
            assert await answer.json() == {"whole": 1}


async def test_the_tokens_of_a_whole_answer_are_written_down_as_its_engine_counts_them() -> None:
    async with a_front() as front:
        asking = asyncio.ensure_future(front.chat(stream=False))
        attempt = await front.attempt()
        attempt.say(b"{}", tokens=0)
        attempt.end(completion_tokens=42)
        async with await asking as answer:
            await answer.read()
        entry = front.driver.state.journal.find(attempt.start.request_id)
    assert entry is not None
    assert entry.tokens == 42


async def test_an_answer_that_is_too_large_is_refused_and_its_node_told_to_stop() -> None:
    async with a_front() as front:
        asking = asyncio.ensure_future(front.chat(stream=False))
        attempt = await front.attempt()
        for _ in range(ANSWER_BYTES_MAX // PART_BYTES_MAX + 1):
            attempt.say(b"x" * PART_BYTES_MAX, tokens=0, more=True)
        async with await asking as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (413, "answer_too_large")
        assert (await front.links.cancelled.get())[0] == attempt.start.stream
        assert front.still_held() == 0


@pytest.mark.parametrize("fields", [{"stream": False}, JSON])
async def test_a_failure_says_what_it_was_and_not_that_something_was_delivered(fields: dict[str, Any]) -> None:
    async with a_front(nodes=("only",)) as front:
        asking = asyncio.ensure_future(front.chat(headers=BUFFER, **fields))
        attempt = await front.attempt()
        attempt.say(b"data: half of it\n\n", tokens=3)
        attempt.fail("engine_nonsense")
        async with await asking as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (502, "engine_nonsense")


@pytest.mark.parametrize("fields", [{"stream": False}, JSON])
async def test_a_callers_fault_is_passed_on_as_one_whatever_had_come(fields: dict[str, Any]) -> None:
    async with a_front() as front:
        asking = asyncio.ensure_future(front.chat(headers=BUFFER, **fields))
        attempt = await front.attempt()
        attempt.say(b"data: half of it\n\n", tokens=3)
        attempt.fail("too_long", Fault.CALLER)
        async with await asking as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (400, "too_long")
        assert front.links.started.empty()


async def test_a_draining_node_hands_over_a_whole_answer_which_begins_anew() -> None:
    async with a_front() as front:
        asking = asyncio.ensure_future(front.chat(stream=False))
        first = await front.attempt()
        first.say(b'{"half":', tokens=0)
        attempt = front.driver.state.attempts.by_stream[first.start.stream]
        front.driver.post(seen.NodeDraining(front.driver.now(), attempt.node_id, attempt.link, 0.0))
        second = await front.attempt()
        first.say(b"late", tokens=0)
        second.say(b'{"whole":1}', tokens=0)
        second.end()
        async with await asking as answer:
            assert await answer.json() == {"whole": 1}
    assert front.counted("shrk_attempts_total", kind="first") == 1
    assert front.counted("shrk_attempts_total", kind="again") == 1


# --- a stream that is held back ------------------------------------------------------------------------------


async def test_a_buffered_stream_shows_nothing_but_signs_of_life_before_its_end() -> None:
    async with a_front(BRIEF) as front:
        asking = asyncio.ensure_future(front.chat(headers=BUFFER, **JSON))
        attempt = await front.attempt()
        attempt.say(chunk('{"a":'), ids=(1,))
        async with await asking as answer:
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            for _ in range(3):
                assert await answer.content.readuntil(b"\n\n") == KEEP_ALIVE
            attempt.say(chunk("1}"), ids=(2,))
            attempt.end()
            events = await rest_of(answer)
    assert text_of(events) == '{"a":1}'
    assert events[-2]["choices"][0]["finish_reason"] == "stop"
    assert events[-1] == "[DONE]"


async def test_a_buffered_stream_begins_anew_after_a_loss_and_nothing_of_the_lost_one_is_shown() -> None:
    async with a_front(BRIEF) as front:
        asking = asyncio.ensure_future(front.chat(headers=BUFFER, **JSON))
        first = await front.attempt()
        assert not first.start.tell_ids
        first.say(chunk('{"lost":'), tokens=4)
        async with await asking as answer:
            await answer.content.readuntil(b"\n\n")
            held = front.still_held()
            first.lose()
            second = await front.attempt()
            assert front.still_held() == held - len(chunk('{"lost":'))
            assert not second.start.HasField("resume")
            assert second.start.seed == first.start.seed
            first.say(chunk("late"))
            second.say(chunk('{"whole":1}'))
            second.end()
            assert text_of(await rest_of(answer)) == '{"whole":1}'
    assert front.still_held() == 0


async def test_a_buffered_answer_that_is_whole_quickly_needs_no_signs_of_life() -> None:
    async with a_front() as front:
        asking = asyncio.ensure_future(front.chat(headers=BUFFER, stream_options={"include_usage": True}, **JSON))
        attempt = await front.attempt()
        attempt.say_last(chunk("{}"))
        attempt.end(prompt_tokens=3, completion_tokens=1)
        async with await asking as answer:
            body = await answer.read()
    assert KEEP_ALIVE not in body
    events = events_of(body)
    assert events[-2]["usage"]["total_tokens"] == 4
    assert events[-1] == "[DONE]"


async def test_a_buffered_answer_that_fails_after_its_headers_is_an_event_without_done() -> None:
    async with a_front(BRIEF, nodes=("only",)) as front:
        asking = asyncio.ensure_future(front.chat(headers=BUFFER, **JSON))
        attempt = await front.attempt()
        attempt.say(chunk("{"))
        async with await asking as answer:
            await answer.content.readuntil(b"\n\n")
            attempt.fail("engine_nonsense")
            events = await rest_of(answer)
    assert codes_of(events) == ["engine_nonsense"]
    assert len(events) == 1


async def test_a_buffered_answer_counts_among_what_may_be_held() -> None:
    async with a_front() as front:
        asking = asyncio.ensure_future(front.chat(headers=BUFFER, **JSON))
        attempt = await front.attempt()
        front.hold_all_but(10)
        attempt.say(chunk("more than is left"))
        async with await asking as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (503, "overloaded")


async def test_several_answers_that_are_held_back_are_one_attempt() -> None:
    async with a_front() as front:
        asking = asyncio.ensure_future(front.chat(headers=BUFFER, n=2, **JSON))
        attempt = await front.attempt()
        attempt.say(chunk("{}", index=0) + chunk("{}", index=1), tokens=2)
        attempt.end()
        async with await asking as answer:
            assert events_of(await answer.read())[-1] == "[DONE]"
        assert front.links.started.empty()


# --- who chooses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "header", "fields", "buffered"),
    [
        (False, None, JSON, False),
        (True, None, JSON, True),
        (False, "buffer", JSON, True),
        (True, "stream", JSON, False),
        (True, None, {}, False),
        (False, "buffer", {}, False),
        (False, "buffer", {"tools": [], "tool_choice": "required"}, True),
        (True, None, {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]}, True),
    ],
)
async def test_only_structured_output_is_held_back_as_the_setting_or_the_request_says(
    setting: bool, header: str | None, fields: dict[str, Any], buffered: bool
) -> None:
    async with a_front(buffers=setting) as front:
        headers = {BUFFER_HEADER: header} if header else None
        asking = asyncio.ensure_future(front.chat(headers=headers, **fields))
        attempt = await front.attempt()
        assert attempt.start.streaming
        assert attempt.start.tell_ids is not buffered
        attempt.end()
        async with await asking as answer:
            assert events_of(await answer.read())[-1] == "[DONE]"


@pytest.mark.parametrize("value", ["", "Buffer", "yes"])
async def test_any_other_value_is_refused_by_name_before_a_node_is_asked(value: str) -> None:
    async with a_front() as front, front.chat(headers={BUFFER_HEADER: value}) as answer:
        error = (await answer.json())["error"]
        assert (answer.status, error["code"], error["param"]) == (400, "invalid_value", BUFFER_HEADER)
        assert BUFFER_HEADER in error["message"]
        assert front.links.started.empty()
