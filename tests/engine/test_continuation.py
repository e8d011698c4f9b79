"""Answers of real vLLM, cut off and continued by another attempt: the caller sees what an unbroken one says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import pytest

from shrk_contract.terms import CANNOT_RESUME, DIVERGED, Endpoint, ResumeMethod
from shrk_node_agent.attempts import Order
from shrk_node_agent.engine.continuation.asking import Asking
from shrk_node_agent.engine.continuation.chat import PARSED
from shrk_node_agent.engine.continuation.derender import CHUNKS_MAX, Derender
from shrk_node_agent.engine.exchange import EngineClient
from shrk_node_agent.engine.text_digest import TextDigest
from support.continued import answered, check_seamless, event_by_event, order_of, resumed, said, unbroken
from support.played_engine import played_engine
from support.real_engine import GENERATE_FLAGS, READY_SECONDS_MAX, vllm

pytestmark = pytest.mark.timeout(READY_SECONDS_MAX + 120)

MODEL = "shark-tiny"
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


@dataclass
class Engines:
    """Clients of one vLLM: as it is, and with every token in a piece of its own."""

    plain: EngineClient
    fine: EngineClient
    session: aiohttp.ClientSession


@pytest.fixture(scope="module")
async def engines() -> AsyncIterator[Engines]:
    async with vllm(MODEL, *GENERATE_FLAGS, "--enable-prompt-tokens-details") as socket:
        connector = aiohttp.UnixConnector(path=str(socket), limit=0)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            played_engine(event_by_event(session)) as one_by_one,
        ):
            plain, fine = EngineClient(socket), EngineClient(one_by_one.socket)
            yield Engines(plain, fine, session)
            await plain.close()
            await fine.close()


def chat(content: str, **body: Any) -> Order:
    messages = [{"role": "user", "content": content}]
    return order_of(Endpoint.CHAT_COMPLETIONS, {"model": MODEL, "messages": messages, "temperature": 0, **body})


def completion(prompt: str, **body: Any) -> Order:
    return order_of(Endpoint.COMPLETIONS, {"model": MODEL, "prompt": prompt, "temperature": 0, **body})


TEXT = chat("Count to 10")
TEXT_BESIDE_TOOLS = chat("Count to 10", tools=[WEATHER])
CUT_BY_LENGTH = chat("Count to 10", max_tokens=9)
SHOWN = {"return_token_ids": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
TEXT_WITH_IDS_AND_USAGE = chat("hello", **SHOWN)
TOOL_CALL = chat("weather in eindhoven", tools=[WEATHER])
TOOL_CALL_CUT_BY_LENGTH = chat("weather in eindhoven", tools=[WEATHER], max_tokens=31)
COMPLETION = completion("Count to", max_tokens=40, ignore_eos=True)
COMPLETION_WITHOUT_A_LIMIT = completion("Count to", ignore_eos=True)
JSON_ANSWER = chat("Give me a user as JSON", response_format={"type": "json_object"}, max_tokens=60)
CHOSEN_CALL = chat("weather in eindhoven", tools=[WEATHER], tool_choice="required", max_tokens=60)

BY_IDS = {
    "text": TEXT,
    "text beside tools": TEXT_BESIDE_TOOLS,
    "text cut by its length": CUT_BY_LENGTH,
    "text with ids and usage": TEXT_WITH_IDS_AND_USAGE,
    "a tool call": TOOL_CALL,
    "a tool call cut by its length": TOOL_CALL_CUT_BY_LENGTH,
    "a completion": COMPLETION,
    "a completion without a limit": COMPLETION_WITHOUT_A_LIMIT,
}
REPLAYED = {**BY_IDS, "json": JSON_ANSWER, "a call that had to be": CHOSEN_CALL}


@pytest.mark.parametrize("name", BY_IDS)
async def test_by_ids_it_goes_on_without_a_seam_after_every_token(engines: Engines, name: str) -> None:
    order = BY_IDS[name]
    first = await unbroken(engines.fine, order)
    assert len(first.pieces) > 6, said(first.pieces)
    for pieces in range(1, len(first.pieces)):
        check_seamless(first, pieces, await answered(engines.plain, resumed(order, first, pieces, ResumeMethod.BY_IDS)))


@pytest.mark.parametrize("name", REPLAYED)
async def test_by_a_replay_it_goes_on_without_a_seam_at_many_cuts(engines: Engines, name: str) -> None:
    order = REPLAYED[name]
    first = await unbroken(engines.fine, order)
    for pieces in range(1, len(first.pieces), 3):
        check_seamless(first, pieces, await answered(engines.plain, resumed(order, first, pieces, ResumeMethod.REPLAY)))


async def test_a_call_that_was_found_is_what_the_caller_gets(engines: Engines) -> None:
    for order in (TOOL_CALL, CHOSEN_CALL):
        first = await unbroken(engines.plain, order)
        [(name, call_id, arguments)] = said(first.pieces).calls.values()
        assert (name, call_id, "Eindhoven" in arguments) == ("get_weather", "call_x_0_0", True)


@pytest.mark.parametrize("name", ["a tool call", "text beside tools", "a long text beside tools"])
async def test_a_parser_reads_a_folded_history_like_one_of_single_tokens(engines: Engines, name: str) -> None:
    long = chat("Count to 10", tools=[WEATHER], max_tokens=12 * CHUNKS_MAX, ignore_eos=True)
    order = {**BY_IDS, "a long text beside tools": long}[name]
    first = await unbroken(engines.fine, order)
    *pieces, _ = first.pieces
    resume = resumed(order, first, len(pieces), ResumeMethod.BY_IDS).resume
    assert resume is not None
    derender = Derender(Asking(engines.session), PARSED, resume, json.loads(order.body))
    digest = TextDigest()
    for token in resume.delivered_ids:
        event = await derender.event([token])
        digest.add_delta(event["choices"][0]["delta"])
        await derender.fold(digest.value)
    assert digest.value == resume.text_digest
    assert derender.chunks <= CHUNKS_MAX < len(resume.delivered_ids), "it was folded on the way"


async def test_structured_answers_are_not_continued_by_ids(engines: Engines) -> None:
    for order in (JSON_ANSWER, CHOSEN_CALL):
        first = await unbroken(engines.fine, order)
        rest = await answered(engines.plain, resumed(order, first, 3, ResumeMethod.BY_IDS))
        assert rest.failed is not None
        assert (rest.failed.code, rest.pieces) == (CANNOT_RESUME, [])


async def test_what_does_not_begin_with_what_was_delivered_is_not_sent(engines: Engines) -> None:
    first = await unbroken(engines.fine, TEXT)
    for method, code in ((ResumeMethod.BY_IDS, CANNOT_RESUME), (ResumeMethod.REPLAY, DIVERGED)):
        asking = resumed(TEXT, first, 5, method)
        assert asking.resume is not None
        wrong = replace(asking, resume=replace(asking.resume, text_digest=1))
        heard = await answered(engines.plain, wrong)
        assert heard.failed is not None
        assert (heard.failed.code, heard.pieces) == (code, [])
