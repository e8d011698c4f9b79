"""The simulated engine's `/v1/responses`: whole and streamed answers agree, and say what a chat would."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from shrk_node_agent.engine.simulated.faults import Fault, Kind
from shrk_node_agent.engine.simulated.server import Plan
from support.simulated_engine import MODEL, SimulatedEngine, simulated_engine

PATH = "/v1/responses"
WEATHER = {"type": "function", "name": "get_weather", "parameters": {"properties": {"city": {"type": "string"}}}}


async def events(engine: SimulatedEngine, said: Any, **more: Any) -> list[Any]:
    async with engine.session.post(PATH, json={"input": said, "stream": True, **more}) as response:
        *told, rest = (await response.read()).split(b"\n\n")
    assert rest == b""
    return [orjson.loads(event.partition(b"\ndata: ")[2]) for event in told]


def steady(output: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Items without the ids that are made up for each answer."""
    return [{name: value for name, value in item.items() if name not in ("id", "call_id")} for item in output]


async def test_a_response_says_what_the_chat_would() -> None:
    async with simulated_engine() as engine:
        response = await engine.post(PATH, model=MODEL, input="hello")
        chat = await engine.chat("hello")
    assert response["output"][0]["content"][0]["text"] == chat["choices"][0]["message"]["content"]
    assert response["usage"]["total_tokens"] == chat["usage"]["total_tokens"]


@pytest.mark.parametrize("more", [{}, {"tools": [WEATHER]}, {"max_output_tokens": 2}], ids=["words", "call", "cut"])
async def test_a_streamed_response_adds_up_to_the_whole_one(more: dict[str, Any]) -> None:
    async with simulated_engine() as engine:
        whole = await engine.post(PATH, input="hello", **more)
        told = await events(engine, "hello", **more)
    last = told[-1]["response"]
    assert (last["status"], last["usage"]) == (whole["status"], whole["usage"])
    assert steady(last["output"]) == steady(whole["output"])
    deltas = "".join(event["delta"] for event in told if event["type"].endswith(".delta"))
    item = whole["output"][0]
    assert deltas == (item["arguments"] if "tools" in more else item["content"][0]["text"])


async def test_a_call_cut_off_amid_its_arguments_is_text_when_whole_and_a_call_when_streamed() -> None:
    async with simulated_engine() as engine:
        whole = await engine.post(PATH, input="hello", tools=[WEATHER])
        cut = {"tools": [WEATHER], "max_output_tokens": whole["usage"]["output_tokens"] - 5}
        text = (await engine.post(PATH, input="hello", **cut))["output"]
        call = (await events(engine, "hello", **cut))[-1]["response"]["output"]
    assert ([item["type"] for item in text], [item["type"] for item in call]) == (["message"], ["function_call"])


async def test_a_response_with_nothing_said_has_no_items() -> None:
    async with simulated_engine(Plan(MODEL, faults=(Fault(Kind.EMPTY_FINISH),))) as engine:
        whole = await engine.post(PATH, input="hello")
        told = await events(engine, "hello")
    assert (whole["output"], told[-1]["response"]["output"]) == ([], [])
    assert [event["type"] for event in told] == ["response.created", "response.in_progress", "response.completed"]


async def test_an_item_that_is_nothing_known_is_refused_by_its_place() -> None:
    async with simulated_engine() as engine:
        answer = await engine.post(PATH, input=[{"role": "user", "content": "x"}, {"type": "teapot"}])
    assert (answer["error"]["code"], answer["error"]["param"]) == (400, "body.input.1")
