"""A stream that loses its node: what its caller sees, and what the next node is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shrk_contract.terms import CANNOT_RESUME, CREDIT_BYTES, DIVERGED, PART_BYTES_MAX, Fault
from shrk_contract.v1 import link_pb2
from shrk_coordinator.data_plane.relay import Patience
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.waiting import WAIT_SECONDS_MAX
from support.front import a_begun, a_front, chunk, codes_of, rest_of
from support.network import events_of, text_of
from support.states import OTHER_PIN

BY_IDS, REPLAY = link_pb2.RESUME_METHOD_BY_IDS, link_pb2.RESUME_METHOD_REPLAY
THREE = ("a", "b", "c")
#: asyncio's own mark at which a transport says that it is full.
HIGH_WATER = 64 * 1024


# --- what the next node is told -------------------------------------------------------------------------


async def test_a_stream_goes_on_from_another_node_by_ids_and_its_caller_sees_one_answer() -> None:
    async with a_front() as front, a_begun(front) as (first, answer):
        first.lose()
        second = await front.attempt()
        resume = second.start.resume
        assert (resume.method, resume.prompt_tokens, resume.delivered_tokens) == (BY_IDS, 3, 2)
        assert resume.text_digest == 6
        assert second.prefixes() == ([1, 2, 3], [10, 11])
        second.say(chunk(" world"), ids=(12,))
        second.end()
        events = await rest_of(answer)
    assert text_of(events) == " world"
    assert events[-2]["choices"][0]["finish_reason"] == "stop"
    assert events.count("[DONE]") == 1


async def test_what_is_the_callers_and_the_coordinators_is_equal_over_all_attempts() -> None:
    async with a_front() as front, a_begun(front, user="somebody") as (first, answer):
        first.lose()
        second = await front.attempt()
        for name in ("envelope", "seed", "body", "body_bytes", "endpoint", "model", "streaming", "request_id"):
            assert getattr(second.start, name) == getattr(first.start, name), name
        assert (first.start.attempt, second.start.attempt) == (1, 2)
        assert first.start.tell_ids
        assert second.start.tell_ids
        assert first.start.HasField("seed")
        assert 0 <= first.start.seed < 1 << 31
        assert not first.start.HasField("resume")
        second.end()
        assert answer.headers["x-shiver-node"] == "a"


async def test_the_longest_prompt_travels_in_frames_that_block_nobody() -> None:
    ids = list(range(50_000))
    async with a_front() as front:
        asking = asyncio.ensure_future(front.chat())
        first = await front.attempt()
        for begin in range(0, len(ids), 10_000):
            part = link_pb2.Prompt(stream=first.start.stream, first_index=begin, token_ids=ids[begin : begin + 10_000])
            first.sink.prompt(part)
        first.say(chunk("x"), ids=(7,))
        async with await asking as answer:
            first.lose()
            second = await front.attempt()
            assert second.prefixes() == (ids, [7])
            assert all(frame.ByteSize() <= PART_BYTES_MAX + 1024 for frame in second.frames)
            second.end()
            assert events_of(await answer.read())[-1] == "[DONE]"


@pytest.mark.parametrize("field", [{"response_format": {"type": "json_object"}}, {"stop": ["x"]}, {"logprobs": True}])
async def test_what_cannot_go_on_by_ids_is_replayed(field: dict[str, Any]) -> None:
    async with a_front() as front, a_begun(front, **field) as (first, answer):
        first.lose()
        second = await front.attempt()
        assert second.start.resume.method == REPLAY
        assert (second.start.resume.delivered_tokens, second.start.resume.text_digest) == (2, 6)
        assert second.prefixes() == ([], [])
        second.say(chunk("!"))
        second.end()
        assert text_of(await rest_of(answer)) == "!"


async def test_an_answer_of_which_not_all_ids_were_told_is_replayed() -> None:
    async with a_front() as front, a_begun(front) as (first, answer):
        first.say(chunk("?"), tokens=2)
        first.lose()
        second = await front.attempt()
        assert (second.start.resume.method, second.start.resume.delivered_tokens) == (REPLAY, 4)
        second.end()
        assert (await rest_of(answer))[-1] == "[DONE]"


async def test_an_answer_goes_on_over_many_nodes_and_each_is_told_all_that_was_said() -> None:
    async with a_front(nodes="abcdefg") as front, a_begun(front) as (current, answer):
        for number in range(5):
            current.lose()
            current = await front.attempt()
            assert current.start.resume.method == BY_IDS
            # The prompt may be read again there, and is not asked for.
            current.prompt(9, 9)
            current.say(chunk(f"-{number}"), ids=(100 + number, 200 + number), text_digest=50 + number)
        current.lose()
        last = await front.attempt()
        assert last.prefixes() == ([1, 2, 3], [10, 11, *(n + m for m in range(5) for n in (100, 200))])
        assert last.start.resume.text_digest == 54
        last.end()
        assert text_of(await rest_of(answer)) == "-0-1-2-3-4"


async def test_what_is_said_before_the_first_token_is_a_breach_and_is_not_said_twice() -> None:
    async with a_front() as front:
        asking = asyncio.ensure_future(front.chat())
        first = await front.attempt()
        first.prompt(1, 2)
        first.say(chunk("all"), tokens=0)
        assert "before its first token" in (await front.links.cancelled.get())[1]
        second = await front.attempt()
        assert not second.start.HasField("resume")
        second.prompt(1, 2)
        second.say(chunk("all of it"), ids=(5,))
        second.end()
        async with await asking as answer:
            events = await rest_of(answer)
    assert text_of(events) == "all of it"
    assert events[-1] == "[DONE]"


async def test_an_answer_without_any_token_says_its_role_with_its_end() -> None:
    async with a_front() as front:
        asking = asyncio.ensure_future(front.chat())
        attempt = await front.attempt()
        attempt.say_last(chunk(""), tokens=0)
        attempt.end()
        async with await asking as answer:
            events = await rest_of(answer)
    assert events[0]["choices"][0]["delta"] == {"content": ""}
    assert events[-1] == "[DONE]"


# --- the end --------------------------------------------------------------------------------------------------


async def test_a_node_lost_after_the_last_token_leaves_a_whole_answer_with_reason_usage_and_done() -> None:
    async with a_front() as front, a_begun(front, stream_options={"include_usage": True}) as (first, answer):
        first.say_last(chunk("!"), ids=(12,))
        first.lose()
        events = await rest_of(answer)
        assert front.links.started.empty()
    assert text_of(events) == "!"
    assert events[-3]["choices"][0]["finish_reason"] == "stop"
    assert events[-2]["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    assert events[-1] == "[DONE]"


async def test_usage_is_whole_also_where_the_prompts_ids_were_never_told() -> None:
    async with a_front() as front:
        asking = asyncio.ensure_future(front.chat(stream_options={"include_usage": True}))
        attempt = await front.attempt()
        attempt.say(chunk("x"))
        attempt.say_last(chunk("!"), prompt_tokens=7)
        attempt.lose()
        async with await asking as answer:
            events = await rest_of(answer)
    assert events[-2]["usage"] == {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    assert events[-1] == "[DONE]"


async def test_after_a_seam_the_whole_answer_is_counted_once() -> None:
    async with a_front() as front, a_begun(front, stream_options={"include_usage": True}) as (first, answer):
        first.lose()
        second = await front.attempt()
        second.say_last(chunk("!"), ids=(12,))
        second.lose()
        events = await rest_of(answer)
    assert events[-2]["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    assert events[-1] == "[DONE]"


async def test_a_finish_after_the_last_token_brings_the_engines_own_usage() -> None:
    async with a_front() as front, a_begun(front, stream_options={"include_usage": True}) as (first, answer):
        first.say_last(chunk("!"), ids=(12,))
        first.end(usage_json=b'{"prompt_tokens":3,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":2}}')
        events = await rest_of(answer)
    assert [event["usage"]["prompt_tokens_details"] for event in events if "usage" in event] == [{"cached_tokens": 2}]
    assert events.count("[DONE]") == 1


# --- what a node says of a continuation ------------------------------------------------------------------------


async def test_where_ids_do_not_work_the_same_node_replays() -> None:
    async with a_front() as front, a_begun(front) as (first, answer):
        first.lose()
        by_ids = await front.attempt()
        node = by_ids.node
        by_ids.fail(CANNOT_RESUME)
        replay = await front.attempt()
        assert (by_ids.start.resume.method, replay.start.resume.method) == (BY_IDS, REPLAY)
        assert replay.node == node
        replay.say(chunk("!"))
        replay.end()
        assert text_of(await rest_of(answer)) == "!"


async def test_replays_that_all_diverge_end_in_an_honest_error_without_done() -> None:
    async with a_front(nodes=THREE) as front, a_begun(front, stop="x") as (first, answer):
        first.lose()
        asked = []
        for _ in range(2):
            attempt = await front.attempt()
            asked.append(attempt.node)
            attempt.fail(DIVERGED, Fault.NODE)
        front.later(WAIT_SECONDS_MAX)
        events = await rest_of(answer)
    assert sorted(asked) == ["b", "c"]
    assert codes_of(events) == ["stream_lost"]
    assert "[DONE]" not in events


async def test_a_node_that_is_busy_while_an_answer_goes_on_is_followed_by_the_next() -> None:
    async with a_front(nodes=THREE) as front, a_begun(front) as (first, answer):
        first.lose()
        (await front.attempt()).reject()
        third = await front.attempt()
        assert third.prefixes() == ([1, 2, 3], [10, 11])
        third.say(chunk("!"), ids=(12,))
        third.end()
        assert text_of(await rest_of(answer)) == "!"


@pytest.mark.parametrize("nodes", [("only",), ("a", "b")])
async def test_a_callers_fault_after_delivery_is_not_passed_on_as_one(nodes: tuple[str, ...]) -> None:
    async with a_front(nodes=nodes) as front, a_begun(front) as (attempt, answer):
        attempt.fail("bad_request", Fault.CALLER)
        if len(nodes) > 1:
            (await front.attempt()).fail("bad_request", Fault.CALLER)
        front.later(WAIT_SECONDS_MAX)
        events = await rest_of(answer)
    assert codes_of(events) == ["stream_lost"]
    assert events[-1]["code"] == 502


# --- waiting and moving -----------------------------------------------------------------------------------------


async def test_an_answer_waits_for_a_node_shows_life_and_goes_on_as_soon_as_one_reports() -> None:
    brief = Patience(headers_after=0.02, keep_alive=0.02)
    async with a_front(brief, nodes=("only",)) as front, a_begun(front) as (first, answer):
        first.lose()
        assert await answer.content.readuntil(b"\n\n") == b": keep-alive\n\n"
        front.link("only")
        second = await front.attempt()
        assert second.prefixes() == ([1, 2, 3], [10, 11])
        second.say(chunk("!"), ids=(12,))
        second.end()
        assert text_of(await rest_of(answer)) == "!"


async def test_an_answer_that_waited_in_vain_ends_in_an_honest_error_without_done() -> None:
    async with a_front(nodes=("only",)) as front, a_begun(front) as (first, answer):
        first.lose()
        front.later(WAIT_SECONDS_MAX + 1)
        events = await rest_of(answer)
    assert codes_of(events) == ["stream_lost"]
    assert "[DONE]" not in events


async def test_a_request_that_has_said_nothing_waits_too_and_its_end_is_a_status() -> None:
    async with a_front(nodes=("only",)) as front:
        asking = asyncio.ensure_future(front.chat())
        (await front.attempt()).lose()
        front.later(WAIT_SECONDS_MAX + 1)
        async with await asking as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (502, "node_lost")


async def test_a_node_that_stops_hands_its_stream_over() -> None:
    async with a_front() as front, a_begun(front) as (first, answer):
        attempt = front.driver.state.attempts.by_stream[first.start.stream]
        front.driver.post(seen.NodeDraining(front.driver.now(), attempt.node_id, attempt.link, 0.0))
        assert (await front.links.cancelled.get())[0] == first.start.stream
        second = await front.attempt()
        first.say(chunk("late"), ids=(12,))
        second.say(chunk("!"), ids=(12,))
        second.end()
        assert text_of(await rest_of(answer)) == "!"


async def test_a_stream_that_stalls_is_seen_and_goes_on_elsewhere() -> None:
    async with a_front() as front, a_begun(front) as (first, answer):
        now = front.driver.now()
        assert front.relay().stalled(now + 1.9) is None
        stream = front.relay().stalled(now + 2.5)
        assert stream == first.start.stream
        front.driver.post(seen.AttemptStalled(now, stream))
        second = await front.attempt()
        # Its prompt takes as long as it takes.
        assert front.relay().stalled(now + 100) is None
        second.say_last(chunk("!"), ids=(12,))
        assert front.relay().stalled(now + 200) is None
        second.end()
        assert text_of(await rest_of(answer)) == "!"


async def test_an_answer_that_goes_on_is_counted_with_its_method_its_reason_and_its_gap() -> None:
    async with a_front(nodes=THREE) as front, a_begun(front) as (first, answer):
        first.lose()
        second = await front.attempt()
        second.say(chunk("!"), ids=(12,))
        second.fail("something of its own")
        third = await front.attempt()
        third.say(chunk("!"), ids=(13,))
        third.end()
        await rest_of(answer)
    for kind, count in (("first", 1), ("continuation", 2), ("again", 0)):
        assert front.counted("shrk_attempts_total", kind=kind) == count
    assert front.counted("shrk_continuations_total", method="by_ids", reason="node_lost") == 1
    # A node's own words are no label.
    assert front.counted("shrk_continuations_total", method="by_ids", reason="failed") == 1
    assert front.counted("shrk_continuation_gap_seconds_count", method="by_ids") == 2


async def test_an_unlike_engine_replays_and_is_counted_as_such() -> None:
    async with a_front(nodes=("only",)) as front, a_begun(front) as (first, answer):
        front.link("unlike", OTHER_PIN)
        first.lose()
        second = await front.attempt()
        assert second.start.resume.method == REPLAY
        second.say(chunk("!"), ids=(12,))
        second.end()
        await rest_of(answer)
    assert front.counted("shrk_continuations_total", method="replay", reason="node_lost") == 1


# --- slow callers --------------------------------------------------------------------------------------------------


async def test_a_caller_that_does_not_read_stalls_nobody_and_holds_no_more_over_many_nodes_than_with_one() -> None:
    async with a_front(nodes="abcd") as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port, limit=1024)
        body = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true}'
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nx-api-key: k\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        event = chunk("x" * 30_000)
        for _ in range(3):
            attempt = await front.attempt()
            stream, sent = attempt.start.stream, 0
            idle = 0
            # As an agent does: send while there is credit, until none has come for a while.
            while idle < 100:
                if sent + len(event) <= attempt.start.credit_bytes + front.links.credit_given.get(stream, 0):
                    attempt.say(event)
                    sent, idle = sent + len(event), 0
                idle += 1
                await asyncio.sleep(0)
            assert front.held() <= CREDIT_BYTES + HIGH_WATER
            # The node waits for credit, not the caller for the node.
            assert front.relay().stalled(front.driver.now() + 1000) is None
            attempt.lose()
        # Once the caller reads, the last node has credit again, and just as much as any.
        last = await front.attempt()
        while last.start.credit_bytes + front.links.credit_given.get(last.start.stream, 0) < CREDIT_BYTES * 3 // 4:
            await reader.read(65536)
        assert last.start.credit_bytes + front.links.credit_given[last.start.stream] <= CREDIT_BYTES
        writer.close()
