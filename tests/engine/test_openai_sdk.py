"""The main job: an unchanged OpenAI SDK, answered by real vLLM on three nodes that dialled out."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from support.network import Network, until

pytestmark = pytest.mark.timeout(900)

MODEL = "shark-tiny"
COUNT: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Count to 10"}]
COUNTED = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10."
STREAMS = 50
WEATHER: list[ChatCompletionToolParam] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


@pytest.fixture
async def client(vllm_network: Network) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=vllm_network.base_url, api_key=vllm_network.api_key, max_retries=0
    ) as client:
        yield client


async def test_a_chat_is_answered(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model=MODEL, messages=COUNT, temperature=0)
    assert answer.choices[0].message.content == COUNTED
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == MODEL
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 10


async def test_a_chat_streams_token_by_token(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=MODEL, messages=COUNT, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == COUNTED
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    assert chunks[-1].usage is not None
    # Role, end and usage have events of their own; a busy engine may put several tokens into one.
    assert 3 + 1 < len(chunks) <= chunks[-1].usage.completion_tokens + 3
    assert len({chunk.id for chunk in chunks}) == 1


async def test_the_raw_stream_holds_no_token_ids_and_ends_with_done(vllm_network: Network) -> None:
    body = {"model": MODEL, "messages": COUNT, "stream": True}
    async with (
        vllm_network.session() as session,
        session.post(f"{vllm_network.base_url}/chat/completions", json=body) as answer,
    ):
        raw = await answer.read()
    assert b"token_ids" not in raw
    assert raw.endswith(b"data: [DONE]\n\n")


async def test_a_tool_is_called_and_its_result_is_used(client: openai.AsyncOpenAI) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "weather in eindhoven"}]
    answer = await client.chat.completions.create(model=MODEL, messages=messages, tools=WEATHER, temperature=0)
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.tool_calls is not None
    [call] = answer.choices[0].message.tool_calls
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Eindhoven"})
    assert call.id.startswith("call_")
    messages += [
        answer.choices[0].message.to_dict(),  # type: ignore[list-item]  # a message as the API gave it
        {"role": "tool", "tool_call_id": call.id, "content": "18 degrees and sunny"},
    ]
    closing = await client.chat.completions.create(model=MODEL, messages=messages, tools=WEATHER, temperature=0)
    assert closing.choices[0].message.content


async def test_a_tool_call_streams_with_one_id(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "weather in eindhoven"}],
        tools=WEATHER,
        temperature=0,
        stream=True,
    )
    calls = [call async for chunk in stream for c in chunk.choices for call in c.delta.tool_calls or ()]
    assert len({call.id for call in calls if call.id}) == 1
    arguments = "".join(call.function.arguments or "" for call in calls if call.function)
    assert json.loads(arguments) == {"city": "Eindhoven"}


async def test_json_mode_gives_json(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Give me a user as JSON"}],
        response_format={"type": "json_object"},
        temperature=0,
    )
    assert json.loads(answer.choices[0].message.content or "") == {"name": "Ada", "age": 36}


async def test_a_completion_is_answered_and_streams(client: openai.AsyncOpenAI) -> None:
    whole = await client.completions.create(model=MODEL, prompt="1, 2,", max_tokens=8, temperature=0)
    stream = await client.completions.create(model=MODEL, prompt="1, 2,", max_tokens=8, temperature=0, stream=True)
    text = "".join([c.choices[0].text async for c in stream if c.choices])
    assert text == whole.choices[0].text != ""


async def test_embeddings_are_vectors_of_one_length(client: openai.AsyncOpenAI) -> None:
    answer = await client.embeddings.create(model="shark-tiny-embed", input=["hello", "hello", "something else"])
    first, same, other = (e.embedding for e in answer.data)
    assert len(first) == len(other) > 10
    assert math.isclose(sum(x * x for x in first), 1.0, rel_tol=1e-3)
    assert math.isclose(sum(a * b for a, b in zip(first, same, strict=True)), 1.0, rel_tol=1e-3)


async def test_models_are_listed_and_retrieved(client: openai.AsyncOpenAI) -> None:
    listed = {model.id async for model in client.models.list()}
    assert listed == {MODEL, "shark-tiny-embed"}
    model: Any = await client.models.retrieve(MODEL)
    assert (model.id, model.shrk["nodes"], model.shrk["effective_n"]) == (MODEL, 3, 3)


async def test_the_engines_own_words_reach_the_caller(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="maximum context length") as caught:
        await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "word " * 70_000}], temperature=0
        )
    assert caught.value.code == "context_length_exceeded"


async def test_fifty_streams_at_once_all_say_what_the_engine_says(client: openai.AsyncOpenAI) -> None:
    async def one() -> str:
        stream = await client.chat.completions.create(model=MODEL, messages=COUNT, temperature=0, stream=True)
        return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])

    assert await asyncio.gather(*(one() for _ in range(STREAMS))) == [COUNTED] * STREAMS


async def test_a_caller_that_closes_its_stream_stops_vllm(vllm_network: Network, client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=MODEL, messages=COUNT, stream=True, max_tokens=60_000, extra_body={"ignore_eos": True}
    )
    async for _ in stream:
        break
    state = vllm_network.coordinator.driver.state
    [attempt] = state.attempts.by_stream.values()
    name = state.roster.nodes[attempt.node_id].owner
    [socket] = [s for s in vllm_network.nodes[name].directory.glob("engines/*/*.sock") if await serves(s, MODEL)]
    await until_running(socket, 1)
    await stream.close()
    await until_running(socket, 0)
    assert not state.attempts.by_stream


async def asked(socket: Any, path: str) -> str:
    """What an engine answers on its own socket."""
    connector = aiohttp.UnixConnector(str(socket))
    async with aiohttp.ClientSession(connector=connector) as session, session.get(f"http://engine{path}") as answer:
        return await answer.text()


async def serves(socket: Any, model: str) -> bool:
    return bool(json.loads(await asked(socket, "/v1/models"))["data"][0]["id"] == model)


async def until_running(socket: Any, wanted: int) -> None:
    """Wait until vLLM's core generates so many sequences; it tells only when asked."""
    running = -1
    while running != wanted:
        await asyncio.sleep(0.02)
        lines = (await asked(socket, "/metrics")).splitlines()
        running = int(sum(float(x.split()[-1]) for x in lines if x.startswith("vllm:num_requests_running{")))


async def test_kill_9_of_a_node_before_its_first_byte_is_only_a_delay(
    vllm_network: Network, client: openai.AsyncOpenAI
) -> None:
    """Last here: the killed node comes back, as under a service manager, but takes its time."""
    state = vllm_network.coordinator.driver.state
    words = "word " * 9_000
    asking = asyncio.create_task(
        client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": words}, *COUNT], max_tokens=5, temperature=0
        )
    )
    await until(lambda: bool(state.attempts.by_stream), "an attempt under way")
    [attempt] = state.attempts.by_stream.values()
    victim = vllm_network.nodes.pop(state.roster.nodes[attempt.node_id].owner)
    os.kill(victim.pid, signal.SIGKILL)
    answer = await asking
    assert answer.choices[0].message.content is not None
    await victim.process.wait()
    assert len(list(state.roster.offers(MODEL))) == 2
