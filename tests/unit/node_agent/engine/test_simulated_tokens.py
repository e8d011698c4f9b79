"""Going on from token ids: an answer that is taken up anywhere is the one that was broken off."""

from __future__ import annotations

from typing import Any

import pytest

from support.simulated_engine import MODEL, SimulatedEngine, simulated_engine

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    },
}

CHATS: dict[str, dict[str, Any]] = {
    "words": {"temperature": 0},
    "words by a seed": {"temperature": 1, "seed": 7},
    "words for at least a while": {"temperature": 0, "min_tokens": 40},
    "words by a seed for at least a while": {"temperature": 0.7, "seed": -3, "min_tokens": 70},
    "words up to a length": {"temperature": 0, "max_tokens": 12},
    "a tool call": {"temperature": 0, "tools": [WEATHER]},
    "a tool call by a seed": {"temperature": 1, "seed": 7, "tools": [WEATHER]},
    "a tool call and then words": {"temperature": 0, "min_tokens": 100, "tools": [WEATHER]},
}


def resumed(rendered: dict[str, Any], said: list[int]) -> dict[str, Any]:
    """The request for the rest of an answer."""
    sampling = dict(rendered["sampling_params"])
    sampling["max_tokens"] -= len(said)
    sampling["min_tokens"] = max(0, sampling.get("min_tokens", 0) - len(said))
    return rendered | {"token_ids": rendered["token_ids"] + said, "sampling_params": sampling}


async def rest_of(engine: SimulatedEngine, request: dict[str, Any], stream: bool) -> tuple[list[int], str]:
    """(ids, finish_reason)."""
    if not stream:
        choice = (await engine.post("/inference/v1/generate", **request))["choices"][0]
        return choice["token_ids"], choice["finish_reason"]
    events = await engine.events("/inference/v1/generate", **(request | {"stream": True}))
    choices = [choice for event in events for choice in event["choices"]]
    return [token for choice in choices for token in choice["token_ids"]], choices[-1]["finish_reason"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", CHATS)
async def test_a_chat_goes_on_from_its_ids_at_every_cut(name: str, stream: bool) -> None:
    chat = {"model": MODEL, "messages": [{"role": "user", "content": "weather?"}]} | CHATS[name]
    async with simulated_engine() as engine:
        rendered = await engine.post("/v1/chat/completions/render", **chat)
        events = await engine.events("/v1/chat/completions", **chat, return_token_ids=True)
        choices = [event["choices"][0] for event in events]
        ids = [token for choice in choices for token in choice.get("token_ids") or ()]
        finish = "stop" if choices[-1]["finish_reason"] == "tool_calls" else choices[-1]["finish_reason"]
        assert len(ids) > 10
        for cut in range(len(ids)):
            assert await rest_of(engine, resumed(rendered, ids[:cut]), stream) == (ids[cut:], finish)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_completion_goes_on_from_its_ids_at_every_cut(stream: bool) -> None:
    completion = {"model": MODEL, "prompt": "Once upon", "max_tokens": 40, "temperature": 1, "seed": 5}
    async with simulated_engine() as engine:
        [rendered] = await engine.post("/v1/completions/render", **completion)
        whole = await engine.post("/v1/completions", **completion, return_token_ids=True)
        ids, finish = whole["choices"][0]["token_ids"], whole["choices"][0]["finish_reason"]
        for cut in range(len(ids)):
            assert await rest_of(engine, resumed(rendered, ids[:cut]), stream) == (ids[cut:], finish)


async def test_of_what_went_before_and_what_comes_all_is_counted() -> None:
    async with simulated_engine() as engine:
        chat = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "temperature": 0}
        rendered = await engine.post("/v1/chat/completions/render", **chat)
        ids, _ = await rest_of(engine, rendered, False)
        request = resumed(rendered, ids[:3]) | {"stream": True, "stream_options": {"include_usage": True}}
        events = await engine.events("/inference/v1/generate", **request)
    assert events[-1]["usage"] == {
        "prompt_tokens": len(rendered["token_ids"]) + 3,
        "completion_tokens": len(ids) - 3,
        "total_tokens": len(rendered["token_ids"]) + len(ids),
    }


async def test_a_bound_of_16_tokens_is_not_rendered_as_it_is_a_default() -> None:
    chat = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
    async with simulated_engine() as engine:
        bounds = [
            (await engine.post("/v1/chat/completions/render", **chat, max_tokens=bound))["sampling_params"]
            for bound in (15, 16, 17)
        ]
        [completion] = await engine.post("/v1/completions/render", model=MODEL, prompt="hello")
    assert [bound.get("max_tokens") for bound in bounds] == [15, None, 17]
    assert "max_tokens" not in completion["sampling_params"]
