"""The relay: what a caller sees of pieces, of silence, of slow reading and of failure."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from shrk_contract.terms import CREDIT_BYTES
from shrk_coordinator.data_plane.relay import Patience
from shrk_coordinator.state.journal import Outcome
from shrk_coordinator.state.waiting import WAIT_SECONDS_MAX
from support.front import KEY, a_front
from support.network import events_of

#: asyncio's own mark at which a transport says that it is full.
HIGH_WATER = 64 * 1024
EVENT = b'data: {"choices":[]}\n\n'
BRIEF = Patience(headers_after=0.02, keep_alive=0.02, caller_stall=0.05)


async def test_pieces_reach_the_caller_as_they_come_and_the_end_is_ours() -> None:
    async with a_front() as front:
        asking = asyncio.ensure_future(front.chat())
        attempt = await front.attempt()
        attempt.say(EVENT)
        async with await asking as answer:
            assert await answer.content.readuntil(b"\n\n") == EVENT
            attempt.say(b'data: {"more":1}\n\n')
            assert await answer.content.readuntil(b"\n\n") == b'data: {"more":1}\n\n'
            attempt.end()
            events = events_of(await answer.content.read())
    assert events[0]["choices"][0]["finish_reason"] == "stop"
    assert events[-1] == "[DONE]"
    assert not front.driver.open_requests


async def test_a_failed_attempt_before_the_first_piece_is_invisible() -> None:
    async with a_front() as front:
        asking = asyncio.ensure_future(front.chat())
        first = await front.attempt()
        first.fail()
        second = await front.attempt()
        assert second.start.envelope == first.start.envelope
        assert (first.start.attempt, second.start.attempt) == (1, 2)
        first.say(b"data: late words of the first\n\n")
        second.say(EVENT)
        second.end()
        async with await asking as answer:
            body = await answer.read()
    assert b"late words" not in body
    assert events_of(body)[-1] == "[DONE]"


async def test_a_whole_answer_starts_over_on_another_node_even_when_half_of_it_had_come() -> None:
    async with a_front() as front:
        asking = asyncio.ensure_future(front.chat(stream=False))
        first = await front.attempt()
        first.say(b'{"half":', tokens=0)
        first.fail()
        second = await front.attempt()
        second.say(b'{"whole":1}', tokens=0)
        second.end()
        async with await asking as answer:
            assert await answer.json() == {"whole": 1}


async def test_a_failure_in_the_middle_that_nobody_can_help_is_an_honest_error_without_done() -> None:
    async with a_front(nodes=("only",)) as front:
        asking = asyncio.ensure_future(front.chat())
        attempt = await front.attempt()
        attempt.say(EVENT)
        async with await asking as answer:
            await answer.content.readuntil(b"\n\n")
            attempt.fail("engine_nonsense")
            front.later(WAIT_SECONDS_MAX)
            events = events_of(await answer.content.read())
    assert "[DONE]" not in events
    assert events[-1]["error"]["code"] == "stream_lost"
    assert events[-1]["error"]["type"] == "server_error"
    assert events[-1]["request_id"] == answer.headers["x-request-id"]


async def test_a_slow_start_sends_headers_and_then_signs_of_life() -> None:
    async with a_front(BRIEF) as front:
        asking = asyncio.ensure_future(front.chat())
        attempt = await front.attempt()
        async with await asking as answer:
            assert answer.status == 200
            assert await answer.content.readuntil(b"\n\n") == b": keep-alive\n\n"
            attempt.say(EVENT)
            attempt.end()
            assert events_of(await answer.content.read())[-1] == "[DONE]"


async def test_an_error_after_the_headers_went_out_is_an_event() -> None:
    async with a_front(BRIEF, nodes=("only",)) as front:
        asking = asyncio.ensure_future(front.chat())
        attempt = await front.attempt()
        async with await asking as answer:
            await answer.content.readuntil(b"\n\n")
            attempt.fail("engine_nonsense")
            events = events_of(await answer.content.read())
    assert [e["error"]["code"] for e in events] == ["engine_nonsense"]


async def test_a_caller_that_does_not_read_holds_no_more_than_its_credit_and_is_given_up() -> None:
    async with a_front(BRIEF) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port, limit=1024)
        body = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true}'
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nx-api-key: k\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        attempt = await front.attempt()
        stream, event = attempt.start.stream, b"data: " + b"x" * 30_000 + b"\n\n"
        sent = held = 0
        # As an agent does: send while there is credit. Kernel buffers fill first, then nothing comes back.
        while front.links.cancelled.empty():
            if sent + len(event) <= CREDIT_BYTES + front.links.credit_given.get(stream, 0):
                attempt.say(event)
                sent += len(event)
            await asyncio.sleep(0)
            held = max(held, front.held())
        # The transport may take one write beyond its mark before it says that it is full.
        assert held <= CREDIT_BYTES + HIGH_WATER
        assert await front.links.cancelled.get() == (stream, "the caller left")
        assert not front.driver.open_requests
        assert (await reader.read()).count(b"0\r\n\r\n") == 0
        writer.close()


async def test_half_an_event_is_not_said_and_never_becomes_a_false_one() -> None:
    async with a_front() as front:
        asking = asyncio.ensure_future(front.chat())
        first = await front.attempt()
        first.say(EVENT)
        async with await asking as answer:
            assert await answer.content.readuntil(b"\n\n") == EVENT
            first.say(b'data: {"choices":[{"del', tokens=0, more=True)
            first.lose()
            second = await front.attempt()
            second.say(b'data: {"wh', tokens=0, more=True)
            second.say(b'ole":1}\n\n')
            second.end()
            events = events_of(await answer.content.read())
    assert events[0] == {"whole": 1}
    assert events[-1] == "[DONE]"


async def test_half_an_event_that_nobody_ends_is_left_out_of_an_honest_end() -> None:
    async with a_front(nodes=("only",)) as front:
        asking = asyncio.ensure_future(front.chat())
        attempt = await front.attempt()
        attempt.say(EVENT)
        attempt.say(b'data: {"choices":[{"del', tokens=0, more=True)
        async with await asking as answer:
            attempt.fail("engine_nonsense")
            front.later(WAIT_SECONDS_MAX)
            events = events_of(await answer.content.read())
    assert events[0] == {"choices": []}
    assert [e["error"]["code"] for e in events[1:]] == ["stream_lost"]


async def test_a_surprise_of_ours_in_the_middle_does_not_write_a_second_answer_into_the_first() -> None:
    async with a_front() as front:
        asking = asyncio.ensure_future(front.chat())
        attempt = await front.attempt()
        attempt.say(EVENT)
        async with await asking as answer:
            await answer.content.readuntil(b"\n\n")
            [relay] = front.driver._requests.values()
            relay._pending = [None]  # type: ignore[attr-defined]  # plants the surprise
            relay._wake.set()  # type: ignore[attr-defined]  # and wakes the handler into it
            with pytest.raises(aiohttp.ClientError):
                await answer.content.read()


async def test_a_large_whole_answer_reaches_a_caller_whole() -> None:
    async with a_front() as front:
        asking = asyncio.ensure_future(front.chat(stream=False))
        attempt = await front.attempt()
        for _ in range(20):
            attempt.say(b"x" * 50_000, tokens=0)
        attempt.end()
        async with await asking as answer:
            assert answer.headers["Content-Length"] == "1000000"
            assert len(await answer.read()) == 1_000_000


async def test_more_than_may_be_held_is_refused_before_a_node_is_asked_and_comes_back() -> None:
    async with a_front() as front:
        front.hold_all_but(10)
        async with front.chat() as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (503, "overloaded")
        front.let_go()
        asking = asyncio.ensure_future(front.chat())
        (await front.attempt()).end()
        async with await asking as answer:
            assert answer.status == 200


async def test_a_caller_that_leaves_cancels_the_attempt_at_once() -> None:
    async with a_front() as front:
        asking = asyncio.ensure_future(front.chat())
        attempt = await front.attempt()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert await front.links.cancelled.get() == (attempt.start.stream, "the caller left")


async def test_a_body_over_one_part_travels_in_several_frames() -> None:
    frames = []

    async with a_front() as front:
        keep = front.links.start

        def start(link, stream, sent, sink):  # type: ignore[no-untyped-def]  # the port's own signature
            frames.extend(sent)
            return keep(link, stream, sent, sink)

        front.links.start = start  # type: ignore[method-assign]  # a test's own port
        asking = asyncio.ensure_future(front.chat(user="x" * 200_000))
        attempt = await front.attempt()
        attempt.say(EVENT)
        attempt.end()
        async with await asking as answer:
            await answer.read()
    whole = attempt.start.body + b"".join(frame.body.data for frame in frames[1:])
    assert len(whole) == attempt.start.body_bytes
    assert all(len(frame.body.data) <= 65536 for frame in frames)


async def test_a_request_is_written_down_under_its_key_and_its_end_with_its_tokens() -> None:
    async with a_front() as front:
        asking = asyncio.ensure_future(front.chat())
        attempt = await front.attempt()
        attempt.say(EVENT, tokens=3)
        attempt.end()
        async with await asking as answer:
            await answer.read()
        entry = front.driver.state.journal.find(attempt.start.request_id)
    assert entry is not None
    assert (entry.key_id, entry.outcome, entry.tokens) == (KEY.id, Outcome.FINISHED, 3)
