"""The same requests for `/v1/responses` to the simulated engine and to shark-tiny in a real vLLM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.shapes import Reply, ask, differences, shape

#: A cold engine, on a busy machine, with the model to be built first.
pytestmark = pytest.mark.timeout(600)

MODEL = "shark-tiny"
RESPONSES = "/v1/responses"

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
NAMED = {"type": "function", "name": "get_weather"}
USER_SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
TOOL_TURN = [
    {"role": "user", "content": "weather in eindhoven"},
    {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": '{"city": "Eindhoven"}'},
    {"type": "function_call_output", "call_id": "call_1", "output": "18 degrees, dry"},
]
EARLIER_TURN = [
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello!"}]},
    {"role": "user", "content": "Count to 3"},
]


def wanted(said: Any, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "input": said, "temperature": 0, **more}


def weather(**more: Any) -> dict[str, Any]:
    return wanted("weather in eindhoven", tools=[WEATHER], **more)


ANSWERS: dict[str, dict[str, Any]] = {
    "text": wanted("Count to 3"),
    "no model named": {"input": "Count to 3"},
    "items": wanted(EARLIER_TURN),
    "cut by length": wanted("Count to 10", max_output_tokens=3),
    "stopped by a string": wanted("Count to 3", stop=["."]),
    "instructions and metadata": wanted("hello", instructions="be brief", metadata={"a": "b"}, user="u"),
    "reasoning and penalties": wanted("hello", reasoning={"effort": "low"}, presence_penalty=0.5),
    "free text": wanted("hello", text={"format": {"type": "text"}}),
    "JSON mode": wanted("Give me a user as JSON", text={"format": {"type": "json_object"}}),
    "JSON schema": wanted(
        "Give me a user as JSON", text={"format": {"type": "json_schema", "name": "user", "schema": USER_SCHEMA}}
    ),
    "stream": wanted("Count to 3", stream=True),
    "stream, cut by length": wanted("Count to 10", max_output_tokens=3, stream=True),
    "tool call": weather(),
    "tool call, required": weather(tool_choice="required"),
    "tool call, named": weather(tool_choice=NAMED),
    "tool call, cut before its name": weather(max_output_tokens=5),
    "no tool call wanted": wanted("hello", tools=[WEATHER], tool_choice="none"),
    "no tools": wanted("hello", tools=[]),
    "tool result": wanted(TOOL_TURN, tools=[WEATHER]),
    "tool stream": weather(stream=True),
    "tool stream, required": weather(stream=True, tool_choice="required"),
    "tool stream, named": weather(stream=True, tool_choice=NAMED),
    "tool stream, cut before its name": weather(stream=True, max_output_tokens=5),
    "tool result, streamed": wanted(TOOL_TURN, tools=[WEATHER], stream=True),
}
REFUSALS: dict[str, Any] = {
    "no input": {"model": MODEL},
    "nothing at all": {},
    "unknown model": {"model": "nope", "input": "x"},
    "unknown model, streamed": {"model": "nope", "input": "x", "stream": True},
    "empty list": wanted([]),
    "input of a wrong type": wanted(5),
    "max_output_tokens of a wrong type": wanted("x", max_output_tokens="many"),
    "max_output_tokens of none": wanted("x", max_output_tokens=0),
    "max_output_tokens beyond the context": wanted("x", max_output_tokens=100_000),
    "context exceeded": wanted("y z " * 70_000),
    "temperature of a wrong type": wanted("x") | {"temperature": "hot"},
    "negative temperature": wanted("x") | {"temperature": -1},
    "top_p out of range": wanted("x", top_p=2),
    "an empty stop string": wanted("x", stop=[""]),
    "a required tool without tools": wanted("x", tool_choice="required"),
    "a named tool without tools": wanted("x", tool_choice=NAMED),
    "a tool choice that is not there": weather(tool_choice={"type": "function", "name": "other"}),
    "an earlier response": wanted("x", previous_response_id="resp_x"),
    "background": wanted("x", background=True),
    "background, not stored": wanted("x", background=True, store=False),
    "a prompt template": wanted("x", prompt={"id": "x"}),
    "broken JSON": b'{"model": ',
}
ROUTES = {
    "no such response": ("GET", f"{RESPONSES}/resp_x"),
    "no such response to cancel": ("POST", f"{RESPONSES}/resp_x/cancel"),
    "no such method": ("GET", RESPONSES),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_both_engines_answer_alike(name: str, real: Path, simulated: Path) -> None:
    one, other = [await ask(socket, "POST", RESPONSES, ANSWERS[name]) for socket in (real, simulated)]
    assert one.status == 200, one.document
    assert (other.status, other.content_type) == (one.status, one.content_type)
    assert list(differences(shape(one.document), shape(other.document))) == []
    assert ended(other) == ended(one)


def ended(reply: Reply) -> tuple[Any, ...]:
    """How a response ended and what it repeats of its request, word for word."""
    streamed = isinstance(reply.document, list)
    response = reply.document[-1]["response"] if streamed else reply.document
    if streamed:
        assert [event["sequence_number"] for event in reply.document] == list(range(len(reply.document)))
    repeated = ("incomplete_details", "metadata", "instructions", "tool_choice", "tools", "text", "reasoning", "user")
    statuses = [item["status"] for item in response["output"]]
    return response["status"], statuses, [response[name] for name in repeated]


@pytest.mark.parametrize("name", REFUSALS)
async def test_both_engines_refuse_in_the_same_words(name: str, real: Path, simulated: Path) -> None:
    one, other = [await ask(socket, "POST", RESPONSES, REFUSALS[name]) for socket in (real, simulated)]
    assert other == one


@pytest.mark.parametrize("name", ROUTES)
async def test_both_engines_have_stored_nothing(name: str, real: Path, simulated: Path) -> None:
    one, other = [await ask(socket, *ROUTES[name], None) for socket in (real, simulated)]
    assert other == one
