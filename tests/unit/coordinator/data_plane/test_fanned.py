"""Several answers to one streamed request: each goes its own way, and the caller sees one stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from shrk_contract.terms import Fault
from shrk_contract.v1 import link_pb2
from shrk_coordinator.data_plane.relay import Patience
from shrk_coordinator.state.waiting import WAIT_SECONDS_MAX
from support.front import Front, PlayedAttempt, a_front, chunk, codes_of, rest_of
from support.network import events_of

USAGE = {"stream_options": {"include_usage": True}}


def texts_of(events: list[Any]) -> dict[int, str]:
    """The text of each answer."""
    texts: dict[int, str] = {}
    for choice in (c for e in events if isinstance(e, dict) for c in e.get("choices", ())):
        texts[choice["index"]] = texts.get(choice["index"], "") + (choice["delta"].get("content") or "")
    return texts


def ends_of(events: list[Any]) -> list[int]:
    """The answers that ended, in the order in which they did."""
    return [c["index"] for e in events if isinstance(e, dict) for c in e.get("choices", ()) if c.get("finish_reason")]


@contextlib.asynccontextmanager
async def strands(front: Front, count: int, **fields: Any) -> AsyncIterator[tuple[list[PlayedAttempt], Any]]:
    """So many answers asked for at once: their attempts, and the answer to come."""
    asking = asyncio.ensure_future(front.chat(n=count, **fields))
    attempts = [await front.attempt() for _ in range(count)]
    yield attempts, asking
    assert front.links.started.empty()


async def give_up(asking: Any) -> None:
    """The caller leaves before its answer begins."""
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


def body_of(attempt: PlayedAttempt) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(attempt.start.body)
    return body


# --- what nodes are asked ---------------------------------------------------------------------------------


async def test_each_answer_is_asked_for_alone_with_a_seed_and_an_index_of_its_own() -> None:
    async with a_front() as front, strands(front, 3, temperature=1) as (attempts, asking):
        starts = [attempt.start for attempt in attempts]
        seed = starts[0].seed
        assert [body_of(attempt)["seed"] for attempt in attempts] == [seed, seed + 1, seed + 2]
        assert [start.envelope.choice_index for start in starts] == [0, 1, 2]
        assert {"n" in body_of(attempt) for attempt in attempts} == {False}
        assert {body_of(attempt)["temperature"] for attempt in attempts} == {1}
        # One answer to its caller, and none like another to those who serve it.
        assert len({start.envelope.id for start in starts}) == 1
        assert len({start.request_id for start in starts}) == 3
        for attempt in attempts:
            attempt.end()
        async with await asking as answer:
            assert events_of(await answer.read())[-1] == "[DONE]"


async def test_a_callers_own_seed_counts_up_as_the_engines_own_do() -> None:
    async with a_front() as front, strands(front, 2, seed=40) as (attempts, asking):
        assert [body_of(attempt)["seed"] for attempt in attempts] == [40, 41]
        await give_up(asking)


async def test_every_prompt_gets_so_many_answers_with_the_same_seeds() -> None:
    async with a_front() as front:
        asking = asyncio.ensure_future(front.complete(["one", "two"], n=2, seed=7, **USAGE))
        attempts = [await front.attempt() for _ in range(4)]
        asked = [(body_of(a)["prompt"], body_of(a)["seed"], a.start.envelope.choice_index) for a in attempts]
        assert asked == [("one", 7, 0), ("one", 8, 1), ("two", 7, 2), ("two", 8, 3)]
        for attempt in attempts:
            prompt_tokens = 3 if body_of(attempt)["prompt"] == "one" else 5
            attempt.say(b"data: {}\n\n")
            attempt.end(prompt_tokens=prompt_tokens, completion_tokens=1)
        async with await asking as answer:
            events = events_of(await answer.read())
    # A prompt counts once, however many answers it gets.
    assert events[-2]["usage"] == {"prompt_tokens": 8, "completion_tokens": 4, "total_tokens": 12}


@pytest.mark.parametrize(
    ("prompt", "each"),
    [("one", ["one"]), ([1, 2], [[1, 2]]), (["one"], [["one"]]), ([[1], [2]], [[1], [2]]), (["a", "b"], ["a", "b"])],
)
async def test_one_prompt_is_asked_as_it_came_and_several_each_alone(prompt: Any, each: list[Any]) -> None:
    async with a_front() as front:
        asking = asyncio.ensure_future(front.complete(prompt))
        assert [body_of(await front.attempt())["prompt"] for _ in each] == each
        assert front.links.started.empty()
        await give_up(asking)


async def test_answers_in_one_document_are_the_engines_own_matter() -> None:
    async with a_front() as front:
        asking = asyncio.ensure_future(front.chat(n=3, stream=False))
        attempt = await front.attempt()
        assert body_of(attempt)["n"] == 3
        assert front.links.started.empty()
        await give_up(asking)


@pytest.mark.parametrize("seed", ["x", "5", 1.5, True, [], 2**63, 2**64 - 1, 2**63 - 1, 2**63 - 2, -(2**63) - 1])
async def test_a_seed_that_leaves_no_room_for_every_answer_is_refused_by_name(seed: Any) -> None:
    async with a_front() as front, front.chat(n=3, seed=seed) as answer:
        error = (await answer.json())["error"]
        assert (answer.status, error["code"], error["param"]) == (400, "invalid_value", "seed")
        assert front.links.started.empty()


@pytest.mark.parametrize("seed", [2**63 - 3, -(2**63), 0])
async def test_the_first_and_the_last_seeds_are_taken(seed: int) -> None:
    async with a_front() as front, strands(front, 3, seed=seed) as (attempts, asking):
        assert [body_of(attempt)["seed"] for attempt in attempts] == [seed, seed + 1, seed + 2]
        await give_up(asking)


async def test_prompts_that_would_each_take_a_large_field_along_are_refused_before_any_is_written_anew() -> None:
    async with a_front() as front, front.complete(["x"] * 128, user="u" * 500_000) as answer:
        error = (await answer.json())["error"]
        assert (answer.status, error["code"], error["param"]) == (400, "invalid_value", "prompt")
        assert "33,554,432 bytes" in error["message"]
        assert front.links.started.empty()


async def test_large_prompts_with_little_beside_them_are_taken() -> None:
    async with a_front() as front:
        asking = asyncio.ensure_future(front.complete(["x" * 8_000] * 120))
        # More than all slots together: those that have no place wait for one, however long that takes.
        for _ in range(120):
            (await front.attempt()).end()
        await give_up(asking)


async def test_a_body_that_grows_when_it_is_written_anew_is_refused_as_too_large() -> None:
    async with a_front() as front:
        # Ten characters come back as more: 1e15 is 1000000000000000.0.
        biases = ",".join(f'"{token}":1e15' for token in range(70_000))
        asked = '"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true,"n":2'
        text = "{" + asked + ',"logit_bias":{' + biases + "}}"
        assert len(text) < 1024 * 1024
        url = f"http://127.0.0.1:{front.port}/v1/chat/completions"
        async with front.session.post(url, data=text, headers={"Content-Type": "application/json"}) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (413, "request_too_large")
        assert front.links.started.empty()


# --- what the caller sees ---------------------------------------------------------------------------------------


async def test_answers_come_as_they_are_made_with_one_usage_and_one_done() -> None:
    async with a_front() as front, strands(front, 3, **USAGE) as (attempts, asking):
        attempts[1].say(chunk("b1", 1))
        async with await asking as answer:
            assert await answer.content.readuntil(b"\n\n") == chunk("b1", 1)
            attempts[0].say(chunk("a1", 0))
            attempts[1].say(chunk("b2", 1))
            attempts[1].end(prompt_tokens=5, completion_tokens=2)
            attempts[2].say(chunk("c1", 2))
            for number in (2, 0):
                attempts[number].end(prompt_tokens=5, completion_tokens=1)
            events = await rest_of(answer)
        assert texts_of(events) == {0: "a1", 1: "b2", 2: "c1"}
        assert sorted(ends_of(events)) == [0, 1, 2]
        usages = [event["usage"] for event in events if isinstance(event, dict) and "usage" in event]
        assert usages == [{"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}]
        assert events.count("[DONE]") == 1
        assert events[-1] == "[DONE]"
        await front.driver.idle()


async def test_no_usage_is_told_to_who_did_not_ask() -> None:
    async with a_front() as front, strands(front, 2) as (attempts, asking):
        for attempt in attempts:
            attempt.end(prompt_tokens=5, completion_tokens=1)
        async with await asking as answer:
            events = events_of(await answer.read())
        assert not [event for event in events if "usage" in event]


async def test_an_answer_that_loses_its_node_goes_on_alone_and_by_ids() -> None:
    async with a_front() as front:
        asking = asyncio.ensure_future(front.chat(n=2, **USAGE))
        first, second = await front.attempt(), await front.attempt()
        assert {first.node, second.node} == {"a", "b"}
        for number, attempt in enumerate((first, second)):
            attempt.prompt(1, 2, 3)
            attempt.say(chunk("x", number), ids=(10 + number,))
        async with await asking as answer:
            first.lose()
            again = await front.attempt()
            assert again.start.resume.method == link_pb2.RESUME_METHOD_BY_IDS
            assert again.prefixes() == ([1, 2, 3], [10])
            assert (again.start.request_id, again.start.envelope) == (first.start.request_id, first.start.envelope)
            assert again.start.body == first.start.body
            second.say(chunk("y", 1), ids=(20,))
            second.end(prompt_tokens=3, completion_tokens=2)
            again.say_last(chunk("z", 0), ids=(30,))
            again.lose()
            events = await rest_of(answer)
    assert texts_of(events) == {0: "xz", 1: "xy"}
    assert events[-2]["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    assert events.count("[DONE]") == 1


async def test_one_answer_that_cannot_go_on_ends_all_with_one_error_and_nothing_after_it() -> None:
    async with a_front(nodes=("only",)) as front, strands(front, 3) as (attempts, asking):
        for number, attempt in enumerate(attempts):
            attempt.say(chunk("x", number))
        async with await asking as answer:
            attempts[1].fail("engine_nonsense")
            front.later(WAIT_SECONDS_MAX)
            for _ in range(20):
                attempts[0].say(chunk("more", 0))
                await asyncio.sleep(0)
            events = await rest_of(answer)
        assert codes_of(events) == ["stream_lost"]
        assert "error" in events[-1]
        assert events[-1]["request_id"] == answer.headers["x-request-id"]
        stopped = {(await front.links.cancelled.get())[0] for _ in range(2)}
        assert stopped == {attempts[0].start.stream, attempts[2].start.stream}
        await front.driver.idle()


async def test_a_connection_that_told_an_error_serves_the_next_request() -> None:
    async with a_front(nodes=("only",)) as front:
        async with strands(front, 2) as (attempts, asking):
            for number, attempt in enumerate(attempts):
                attempt.say(chunk("x", number))
            async with await asking as answer:
                attempts[1].fail("engine_nonsense")
                front.later(WAIT_SECONDS_MAX)
                for _ in range(20):
                    attempts[0].say(chunk("more", 0))
                    await asyncio.sleep(0)
                await answer.read()
        front.link("only")
        asking = asyncio.ensure_future(front.chat())
        (await front.attempt()).end()
        async with await asking as answer:
            assert events_of(await answer.read())[-1] == "[DONE]"


async def test_an_error_before_anything_was_said_is_a_status_and_stops_the_others() -> None:
    async with a_front() as front, strands(front, 2) as (attempts, asking):
        attempts[0].fail("too_long", Fault.CALLER)
        async with await asking as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (400, "too_long")
        assert (await front.links.cancelled.get())[0] == attempts[1].start.stream


async def test_no_node_for_any_of_them_is_a_status() -> None:
    async with a_front(nodes=()) as front, front.chat(n=3) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (400, "model_not_found")
        await front.driver.idle()


async def test_a_slow_start_of_all_sends_headers_and_signs_of_life() -> None:
    brief = Patience(headers_after=0.02, keep_alive=0.02)
    async with a_front(brief) as front, strands(front, 2) as (attempts, asking), await asking as answer:
        assert await answer.content.readuntil(b"\n\n") == b": keep-alive\n\n"
        for number, attempt in enumerate(attempts):
            attempt.say(chunk("x", number))
            attempt.end()
        assert texts_of(await rest_of(answer)) == {0: "x", 1: "x"}


async def test_a_caller_that_leaves_stops_them_all() -> None:
    async with a_front() as front, strands(front, 3) as (attempts, asking):
        attempts[0].say(chunk("x"))
        answer = await asking
        answer.close()
        stopped = {(await front.links.cancelled.get())[0] for _ in range(3)}
        assert stopped == {attempt.start.stream for attempt in attempts}
        await front.driver.idle()
