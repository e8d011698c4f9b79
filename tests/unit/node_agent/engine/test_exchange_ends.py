"""What an attempt's last token brings along, and an attempt that has no more time for one."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from aiohttp import web

from shrk_contract.terms import Endpoint, Fault
from shrk_node_agent.attempts import Envelope, Failed, Order
from shrk_node_agent.engine.exchange import EngineClient
from support.played_engine import DONE, Heard, Play, chat_event, event, played_engine, streaming, whole

ORDER = Order(Endpoint.CHAT_COMPLETIONS, "m", True, Envelope("id", 1, "m", "call_"), b"{}", tell_ids=True)
ROLE = chat_event("", role="assistant")
END = chat_event("", 2, end="stop")


async def asked(play: Play, order: Order = ORDER) -> Heard:
    """What one attempt came to."""
    heard = Heard()
    async with played_engine(play) as engine:
        client = EngineClient(engine.socket)
        try:
            await client.answer(order, heard)
        finally:
            await client.close()
    return heard


# --- how long the prompt was ---------------------------------------------------------------------------


async def test_the_last_token_brings_the_prompts_length_as_the_engine_counts_it() -> None:
    choices = [{"index": 0, "delta": {"content": "x"}, "finish_reason": reason} for reason in (None, "stop")]
    usages = [{"prompt_tokens": 30, "completion_tokens": count} for count in (1, 2)]
    events = [event(choices=[choice], usage=usage) for choice, usage in zip(choices, usages, strict=True)]
    heard = await asked(streaming(ROLE, *events, DONE))
    assert [piece.prompt_tokens for piece in heard.pieces] == [0, 30]


async def test_where_the_engine_counts_nothing_the_prompts_ids_do() -> None:
    told = event(prompt_token_ids=[1, 2, 3], choices=[{"index": 0, "delta": {"role": "assistant"}}])
    heard = await asked(streaming(told, chat_event("a", 5), END, DONE))
    assert [piece.prompt_tokens for piece in heard.pieces] == [0, 3]


# --- time ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
async def test_an_attempt_whose_time_is_over_is_ended_and_its_engine_told(stream: bool) -> None:
    left = asyncio.Event()

    async def play(request: web.Request) -> web.StreamResponse:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            left.set()
        raise AssertionError("nobody answers it")

    heard = await asked(play, replace(ORDER, streaming=stream, deadline_seconds=0.05))
    await left.wait()
    assert heard.failed is not None
    assert (heard.failed.fault, heard.failed.code) == (Fault.COORDINATOR, "deadline")


# --- an engine that is gone ------------------------------------------------------------------------------

DEAD = {"message": "EngineCore encountered an issue. See stack trace (above).", "type": "InternalServerError"}
DEAD_ANSWERS = {
    "whole": whole({"error": {**DEAD, "code": 500}}, status=500),
    "streamed": streaming(ROLE, event(error={**DEAD, "code": 500}), DONE),
}


@pytest.mark.parametrize("play", DEAD_ANSWERS)
async def test_an_engine_says_that_its_core_is_gone_and_what_comes_after_did_not_cause_it(play: str) -> None:
    order = replace(ORDER, streaming=play == "streamed")
    heard = [Heard(), Heard(), Heard()]
    async with played_engine(DEAD_ANSWERS[play]) as engine:
        client = EngineClient(engine.socket)
        try:
            await asyncio.gather(client.answer(order, heard[0]), client.answer(order, heard[1]))
            await client.answer(order, heard[2])
        finally:
            await client.close()
    assert [one.failed and one.failed.code for one in heard] == ["engine_crashed", "engine_crashed", "engine_lost"]


async def test_an_engine_that_is_not_there_did_not_crash_of_what_it_never_heard() -> None:
    async def explain(failed: Failed) -> Failed:
        raise AssertionError

    async with played_engine(whole({})) as engine:
        client = EngineClient(engine.socket.with_name("nobody.sock"))
    heard = Heard()
    await client.answer(ORDER, heard, explain)
    await client.close()
    assert heard.failed is not None
    assert (heard.failed.fault, heard.failed.code) == (Fault.ENGINE, "engine_lost")
