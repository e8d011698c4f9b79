"""What an attempt's last token brings along, and an attempt that has no more time for one."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from aiohttp import web

from shrk_contract.terms import Endpoint, Fault
from shrk_node_agent.attempts import Envelope, Order
from shrk_node_agent.engine.exchange import EngineClient
from support.played_engine import DONE, Heard, Play, chat_event, event, played_engine, streaming

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
