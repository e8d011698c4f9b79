"""Messages from the simulated engine: that they are the chat's own answer, and what a broken one looks like."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from shrk_node_agent.engine.engine import Task
from shrk_node_agent.engine.simulated.faults import Fault, Kind
from shrk_node_agent.engine.simulated.message_requests import CountRequest, chat_of
from shrk_node_agent.engine.simulated.messages import stop_reason
from shrk_node_agent.engine.simulated.server import Plan
from support.named_events import named_events_of
from support.simulated_engine import MODEL, SimulatedEngine, simulated_engine

MESSAGES = "/v1/messages"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"name": "get_weather", "input_schema": SCHEMA}


def said(content: Any, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": 200, "messages": [{"role": "user", "content": content}], **more}


async def streamed(engine: SimulatedEngine, **body: Any) -> list[Any]:
    async with engine.session.post(MESSAGES, json=body | {"stream": True}) as response:
        return named_events_of(await response.read())


def chat_messages(*turns: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    asked = CountRequest.model_validate({"model": MODEL, "messages": list(turns), **more})
    return [message.model_dump(exclude_none=True) for message in chat_of(asked, MODEL).messages]


async def test_a_message_says_what_the_chat_says_streamed_or_not() -> None:
    async with simulated_engine() as engine:
        chat = (await engine.chat("hello", temperature=0, max_tokens=200))["choices"][0]["message"]["content"]
        whole = await engine.post(MESSAGES, **said("hello", temperature=0))
        events = await streamed(engine, **said("hello", temperature=0))
    deltas = [event["delta"]["text"] for event in events if event["type"] == "content_block_delta"]
    assert whole["content"] == [{"type": "text", "text": chat}]
    assert "".join(deltas) == chat
    assert events[-2]["usage"] == whole["usage"]


async def test_a_streamed_call_brings_the_input_that_the_whole_one_has() -> None:
    async with simulated_engine() as engine:
        whole = await engine.post(MESSAGES, **said("weather", tools=[WEATHER]))
        events = await streamed(engine, **said("weather", tools=[WEATHER]))
    pieces = [event["delta"]["partial_json"] for event in events if event["type"] == "content_block_delta"]
    [block] = whole["content"]
    assert (block["name"], block["input"]) == ("get_weather", {"city": "river"})
    assert orjson.loads("".join(pieces)) == block["input"]
    assert events[-2]["delta"]["stop_reason"] == whole["stop_reason"] == "tool_use"


async def test_the_count_is_what_the_answer_is_charged_for() -> None:
    async with simulated_engine() as engine:
        whole = await engine.post(MESSAGES, **said("hello", system="Be short", tools=[WEATHER]))
        asked = {name: value for name, value in said("hello").items() if name != "max_tokens"}
        counted = await engine.post(f"{MESSAGES}/count_tokens", **asked, system="Be short", tools=[WEATHER])
    assert counted["input_tokens"] == whole["usage"]["input_tokens"]


async def test_an_engine_for_embeddings_has_no_messages() -> None:
    async with simulated_engine(Plan(MODEL, Task.EMBED)) as engine, engine.session.post(MESSAGES, json={}) as response:
        assert response.status == 404


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_garbled_answer_is_not_json(stream: bool) -> None:
    plan = Plan(MODEL, faults=(Fault(Kind.BAD_CHUNK, 1, 1),))
    async with (
        simulated_engine(plan) as engine,
        engine.session.post(MESSAGES, json=said("hello", stream=stream)) as response,
    ):
        raw = await response.read()
    read = named_events_of if stream else orjson.loads
    with pytest.raises(orjson.JSONDecodeError):
        read(raw)


def test_a_tools_result_becomes_a_message_of_its_own_before_the_rest_of_its_turn() -> None:
    call = {"type": "tool_use", "id": "t", "name": "get_weather", "input": {"city": "Rome"}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "dry"}]}
    assert chat_messages(
        {"role": "assistant", "content": [{"type": "thinking"}, call]},
        {"role": "user", "content": [{"type": "text", "text": "and?"}, result]},
    ) == [
        {
            "role": "assistant",
            "tool_calls": [{"id": "t", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}],
        },
        {"role": "tool", "content": "dry"},
        {"role": "user", "content": ["and?"]},
    ]


def test_a_clients_note_on_billing_is_no_part_of_the_prompt() -> None:
    note = {"type": "text", "text": "x-anthropic-billing-header: 1"}
    words = {"type": "text", "text": "Be short"}
    turn = {"role": "user", "content": "hello"}
    assert chat_messages(turn, system=[note, words])[0] == {"role": "system", "content": "Be short"}
    assert chat_messages({"role": "system", "content": [note]}, turn) == [turn]


async def test_a_change_of_tools_within_a_conversation_is_refused_in_plain_words() -> None:
    change = {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": WEATHER}}
    turns = [{"role": "user", "content": "hello"}, {"role": "system", "content": [change]}]
    async with simulated_engine() as engine:
        refused = await engine.post(MESSAGES, **said("") | {"messages": turns})
    assert refused["type"] == "error"
    assert (
        refused["error"]["message"] == "the simulated engine takes no tool_addition blocks: give the tools in `tools`"
    )


@pytest.mark.parametrize(
    ("finish", "stop", "called", "complete", "reason"),
    [
        ("stop", None, False, False, ("end_turn", None)),
        ("stop", ".", False, False, ("stop_sequence", ".")),
        ("stop", ".", True, False, ("stop_sequence", ".")),
        ("stop", ".", True, True, ("tool_use", None)),
        ("stop", None, True, False, ("tool_use", None)),
        ("length", None, True, True, ("max_tokens", None)),
        ("abort", None, False, False, (None, None)),
    ],
)
def test_a_stop_sequence_wins_over_a_call_that_it_cut_short(
    finish: str, stop: str | None, called: bool, complete: bool, reason: tuple[str | None, str | None]
) -> None:
    assert stop_reason(finish, stop, called=called, complete=complete) == reason
