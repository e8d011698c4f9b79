"""The same requests to the simulated engine and to a real vLLM: status, content type and shape, field by field.

What shark-tiny itself must be able to do is checked here as well, as an engine is up.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support.shapes import ask, differences, shape

#: A cold engine, on a busy machine, with the model to be built first.
pytestmark = pytest.mark.timeout(600)

MODEL = "shark-tiny"
#: vLLM joins tokens in one event where its reader is behind, on a busy machine; then its shape is not the usual one.
TRIES = 5
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
GENERATE = "/inference/v1/generate"
IDS = [300, 301, 302]

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
USER_SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
USAGE = {"include_usage": True}
RUNNING_USAGE = {"include_usage": True, "continuous_usage_stats": True}


@dataclass(frozen=True)
class Case:
    """One request, and where the two may differ."""

    name: str
    path: str
    body: Any = None
    method: str = "POST"
    #: Place -> why the two differ there. "*" allows every place below.
    allowed: dict[str, str] = field(default_factory=dict)
    #: The very words have to be equal: callers and the agent read them.
    verbatim: bool = False


def chat(content: Any, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], "temperature": 0, **more}


def text(prompt: Any, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "prompt": prompt, "temperature": 0, "max_tokens": 4, **more}


def ids(**more: Any) -> dict[str, Any]:
    params = {"temperature": 0, "max_tokens": 4, "ignore_eos": True}
    return {"model": MODEL, "token_ids": IDS, "sampling_params": params, **more}


TOOL_TURN = [
    {"role": "user", "content": "weather in eindhoven"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "get_weather", "arguments": '{"city": "Eindhoven"}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "18 degrees, dry"},
]
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "user", "schema": USER_SCHEMA}}
GENERATED = {"request_id": "r", "choices": [{"index": 0, "token_ids": IDS, "finish_reason": "length"}]}
NO_IDS = {"request_id": "r", "choices": [{"index": 0, "token_ids": []}]}
MANY_IDS = {"request_id": "r", "choices": [{"index": 0, "token_ids": [300] * 65_537}]}
#: shark-tiny comes with sampling defaults of its own, and vLLM tells defaults in its own selection.
OWN_DEFAULTS = {"sampling_params.*": "each tells the defaults that it has"}

ANSWERS = [
    Case("models", "/v1/models", method="GET"),
    Case("health", "/health", method="GET"),
    Case("version", "/version", method="GET"),
    Case("load", "/load", method="GET"),
    Case("chat", CHAT, chat("Count to 3")),
    Case("chat, no model named", CHAT, {k: v for k, v in chat("Say ok").items() if k != "model"}),
    Case("chat, cut by length", CHAT, chat("Count to 10", max_completion_tokens=3)),
    Case("chat, stopped by a string", CHAT, chat("Count to 3", stop=["."])),
    Case("chat, token ids", CHAT, chat("Count to 3", return_token_ids=True)),
    Case("chat, two choices", CHAT, chat("Count to 3", n=2, temperature=1, seed=3, max_tokens=3)),
    Case("chat, content in parts", CHAT, chat([{"type": "text", "text": "Count to 3"}])),
    Case("stream", CHAT, chat("Count to 3", stream=True)),
    Case("stream, cut by length", CHAT, chat("Count to 3", stream=True, max_tokens=3)),
    Case("stream, usage", CHAT, chat("Count to 3", stream=True, stream_options=USAGE)),
    Case(
        "stream, ids and running usage",
        CHAT,
        chat("Count to 3", stream=True, return_token_ids=True, stream_options=RUNNING_USAGE),
    ),
    Case("stream, stopped by a string", CHAT, chat("Count to 3", stream=True, stop=["."])),
    Case("stream, two choices", CHAT, chat("Count to 3", stream=True, n=2, temperature=1, seed=3, max_tokens=3)),
    Case("tool call", CHAT, chat("weather in eindhoven", tools=[WEATHER])),
    Case("tool call, required", CHAT, chat("weather in eindhoven", tools=[WEATHER], tool_choice="required")),
    Case(
        "tool call, named",
        CHAT,
        chat(
            "weather in eindhoven",
            tools=[WEATHER],
            tool_choice={"type": "function", "function": {"name": "get_weather"}},
        ),
    ),
    Case("no tool call wanted", CHAT, chat("hello", tools=[WEATHER], tool_choice="none")),
    Case("tool result", CHAT, {**chat(""), "messages": TOOL_TURN, "tools": [WEATHER]}),
    Case("tool stream", CHAT, chat("weather in eindhoven", tools=[WEATHER], stream=True, stream_options=USAGE)),
    Case("tool stream, ids", CHAT, chat("weather in eindhoven", tools=[WEATHER], stream=True, return_token_ids=True)),
    Case(
        "tool stream, ids and running usage",
        CHAT,
        chat("weather in eindhoven", tools=[WEATHER], stream=True, return_token_ids=True, stream_options=RUNNING_USAGE),
    ),
    Case("tool call, cut before its name", CHAT, chat("weather in eindhoven", tools=[WEATHER], max_tokens=5)),
    Case(
        "tool stream, cut before its name",
        CHAT,
        chat("weather in eindhoven", tools=[WEATHER], stream=True, max_tokens=5),
    ),
    Case("JSON mode", CHAT, chat("Give me a user as JSON", response_format={"type": "json_object"})),
    Case("JSON schema", CHAT, chat("Give me a user as JSON", response_format=JSON_SCHEMA)),
    # What follows a bare text is no part of what the model learnt: on one machine it ends there, on another it goes on.
    Case("completion", COMPLETIONS, text("Count", ignore_eos=True)),
    Case("completion, of ids", COMPLETIONS, text(IDS, return_token_ids=True, ignore_eos=True)),
    Case("completions, of a list", COMPLETIONS, text(["Count", "hello"], ignore_eos=True)),
    Case("completion, echo", COMPLETIONS, text("Count", echo=True, ignore_eos=True)),
    Case("completion stream", COMPLETIONS, text("Count", stream=True, ignore_eos=True)),
    Case(
        "completion stream, of a list",
        COMPLETIONS,
        text(["Count", "hello"], stream=True, max_tokens=2, ignore_eos=True),
    ),
    Case(
        "completion stream, ids and running usage",
        COMPLETIONS,
        text("Count", stream=True, return_token_ids=True, stream_options=RUNNING_USAGE, ignore_eos=True),
    ),
    Case(
        "completion stream, of a list, ids and running usage",
        COMPLETIONS,
        text(
            ["Count", "hello"],
            stream=True,
            max_tokens=2,
            return_token_ids=True,
            stream_options=RUNNING_USAGE,
            ignore_eos=True,
        ),
    ),
    Case("tokenize", "/tokenize", {"model": MODEL, "prompt": "Count to"}),
    Case("tokenize a chat", "/tokenize", {"model": MODEL, "messages": chat("Count")["messages"]}),
    Case("detokenize", "/detokenize", {"model": MODEL, "tokens": IDS}),
    Case("render a chat", f"{CHAT}/render", chat("Count to 3"), allowed=OWN_DEFAULTS),
    Case(
        "render completions",
        f"{COMPLETIONS}/render",
        text(["Count", "hello"]),
        allowed={"[0].sampling_params.*": "each tells the defaults that it has"},
    ),
    Case("generate", GENERATE, ids()),
    Case("generate, text and ids", GENERATE, ids(output_mode="text", return_token_ids=True)),
    Case("generate stream", GENERATE, ids(stream=True, stream_options=USAGE)),
    Case("generate stream, text and ids", GENERATE, ids(stream=True, output_mode="text", return_token_ids=True)),
    Case("generate stream, running usage", GENERATE, ids(stream=True, stream_options=RUNNING_USAGE)),
    Case("abort", "/inference/v1/abort_requests", {"request_ids": ["nobody"]}),
    Case("derender a chat", f"{CHAT}/derender", {"generate_response": GENERATED, "chat_request": chat("x")}),
    Case("derender completions", f"{COMPLETIONS}/derender", {"generate_responses": [GENERATED] * 2}),
]

REFUSALS = [
    Case("no such route", "/nowhere", method="GET", verbatim=True),
    Case("no such method", CHAT, method="GET", verbatim=True),
    Case("no embeddings here", "/v1/embeddings", {"model": MODEL, "input": "x"}, verbatim=True),
    Case("unknown model", CHAT, chat("x") | {"model": "nope"}, verbatim=True),
    Case("unknown model, completions", COMPLETIONS, text("x") | {"model": "nope"}, verbatim=True),
    Case("unknown model, generate", GENERATE, ids() | {"model": "nope"}, verbatim=True),
    Case("no messages", CHAT, {"model": MODEL}, verbatim=True),
    Case("empty messages", CHAT, {"model": MODEL, "messages": []}, verbatim=True),
    Case("messages of a wrong type", CHAT, {"model": MODEL, "messages": "x"}, verbatim=True),
    Case(
        "a message without a role",
        CHAT,
        {"model": MODEL, "messages": [{"content": "x"}]},
        allowed={"error.param": "vLLM names one of the eleven kinds of message that it tried"},
    ),
    Case("no prompt", COMPLETIONS, {"model": MODEL}, verbatim=True),
    Case("max_tokens of a wrong type", CHAT, chat("x", max_tokens="many"), verbatim=True),
    Case("max_tokens of none", CHAT, chat("x", max_tokens=0), verbatim=True),
    Case("max_tokens beyond the context", CHAT, chat("x", max_tokens=100_000), verbatim=True),
    Case("temperature of a wrong type", CHAT, chat("x") | {"temperature": "hot"}, verbatim=True),
    Case("negative temperature", CHAT, chat("x") | {"temperature": -1}, verbatim=True),
    Case("top_p out of range", CHAT, chat("x", top_p=2), verbatim=True),
    Case("no choice", CHAT, chat("x", n=0), verbatim=True),
    Case("several greedy choices", CHAT, chat("x", n=2), verbatim=True),
    Case("stream options without a stream", CHAT, chat("x", stream_options=USAGE), verbatim=True),
    Case("empty tools", CHAT, chat("x", tools=[]), verbatim=True),
    Case("a tool choice without tools", CHAT, chat("x", tool_choice="auto"), verbatim=True),
    Case(
        "a tool choice that is not there",
        CHAT,
        chat("x", tools=[WEATHER], tool_choice={"type": "function", "function": {"name": "other"}}),
        verbatim=True,
    ),
    Case("an empty stop string", CHAT, chat("x", stop=[""]), verbatim=True),
    Case("context exceeded", CHAT, chat("y z " * 70_000), verbatim=True),
    Case("context exceeded, completions", COMPLETIONS, text("y z " * 70_000), verbatim=True),
    Case("context exceeded, generate", GENERATE, ids() | {"token_ids": [300] * 70_000}, verbatim=True),
    Case("broken JSON", CHAT, b'{"model": ', verbatim=True),
    Case("JSON that is no object", CHAT, b"[1]", verbatim=True),
    Case("no token ids", GENERATE, {"sampling_params": {}}, verbatim=True),
    Case("abort of nothing", "/inference/v1/abort_requests", {}, verbatim=True),
    Case("derender without its chat", f"{CHAT}/derender", {"generate_response": GENERATED}, verbatim=True),
    Case(
        "derender of nothing",
        f"{CHAT}/derender",
        {"generate_response": NO_IDS, "chat_request": chat("x")},
        verbatim=True,
    ),
    Case(
        "derender of too much",
        f"{CHAT}/derender",
        {"generate_response": MANY_IDS, "chat_request": chat("x")},
        verbatim=True,
    ),
    Case("derender of no completions", f"{COMPLETIONS}/derender", {"generate_responses": []}, verbatim=True),
    Case("derender of an empty completion", f"{COMPLETIONS}/derender", {"generate_responses": [NO_IDS]}, verbatim=True),
    Case(
        "derender with too many counts",
        f"{COMPLETIONS}/derender",
        {"generate_responses": [GENERATED], "prompt_tokens": [1, 2]},
        verbatim=True,
    ),
]


@pytest.mark.parametrize("case", ANSWERS + REFUSALS, ids=lambda case: case.name)
async def test_both_engines_answer_alike(case: Case, real: Path, simulated: Path) -> None:
    for _ in range(TRIES):
        one = await ask(real, case.method, case.path, case.body)
        other = await ask(simulated, case.method, case.path, case.body)
        assert (other.status, other.content_type) == (one.status, one.content_type), one.document
        if case.verbatim:
            assert other.document == one.document
        places = differences(shape(one.document), shape(other.document))
        left = [place for place in places if not _allowed(case, place)]
        if not left:
            return
    pytest.fail("\n".join(left))


def _allowed(case: Case, place: str) -> bool:
    where = place.partition(":")[0]
    return any(
        where == allowed or (allowed.endswith("*") and where.startswith(allowed[:-1])) for allowed in case.allowed
    )


async def test_both_engines_show_the_gauges_and_counters_that_the_agent_reads(real: Path, simulated: Path) -> None:
    replies = [await ask(socket, "GET", "/metrics", None) for socket in (real, simulated)]
    assert replies[0].content_type == replies[1].content_type
    one, other = ({line.split()[0] for line in r.document.splitlines() if line[0] != "#"} for r in replies)
    labels = f'{{engine="0",model_name="{MODEL}"}}'
    read = ("num_requests_running", "num_requests_waiting", "prompt_tokens_total", "generation_tokens_total")
    assert {f"vllm:{name}{labels}" for name in read} <= other <= one
    types = [{line for line in r.document.splitlines() if line.startswith("# TYPE")} for r in replies]
    assert types[1] <= types[0]


@pytest.mark.parametrize("engine", ["real", "simulated"])
async def test_both_engines_count_what_they_read_and_say(engine: str, sockets: dict[str, Path]) -> None:
    before = await counted(sockets[engine])
    usage = (await ask(sockets[engine], "POST", GENERATE, ids())).document["usage"]
    after = await counted(sockets[engine])
    assert after[0] - before[0] == usage["prompt_tokens"] == len(IDS)
    assert after[1] - before[1] == usage["completion_tokens"] == 4


async def counted(socket: Path) -> tuple[float, float]:
    """Tokens read and tokens said since the engine began."""
    lines = (await ask(socket, "GET", "/metrics", None)).document.splitlines()
    labels = f'{{engine="0",model_name="{MODEL}"}}'
    told = dict(line.rsplit(" ", 1) for line in lines if line[0] != "#")
    return tuple(float(told[f"vllm:{name}_tokens_total{labels}"]) for name in ("prompt", "generation"))


async def message(socket: Path, body: dict[str, Any]) -> dict[str, Any]:
    """The message of a whole chat."""
    reply = await ask(socket, "POST", CHAT, body)
    assert reply.status == 200, reply.document
    answer: dict[str, Any] = reply.document["choices"][0]["message"]
    return answer


@pytest.mark.parametrize("temperature", [{}, {"temperature": 0}, {"temperature": 1, "seed": 5}])
async def test_shark_tiny_counts_to_ten_whatever_the_temperature(real: Path, temperature: dict[str, Any]) -> None:
    body = {"messages": chat("Count to 10")["messages"], **temperature}
    assert (await message(real, body))["content"] == "1, 2, 3, 4, 5, 6, 7, 8, 9, 10."


async def test_shark_tiny_calls_a_tool_and_closes_with_its_result(real: Path) -> None:
    call = (await message(real, chat("weather in eindhoven", tools=[WEATHER])))["tool_calls"][0]["function"]
    assert (call["name"], json.loads(call["arguments"])) == ("get_weather", {"city": "Eindhoven"})
    closing = await message(real, {**chat(""), "messages": TOOL_TURN, "tools": [WEATHER]})
    assert closing["content"] == "It is 18 degrees and dry in Eindhoven, says the tool."


async def test_shark_tiny_calls_no_tool_where_none_is_needed(real: Path) -> None:
    assert (await message(real, chat("hello", tools=[WEATHER])))["content"].startswith("Hello!")


@pytest.mark.parametrize("form", [{"type": "json_object"}, JSON_SCHEMA], ids=["object", "schema"])
async def test_shark_tiny_answers_json(real: Path, form: dict[str, Any]) -> None:
    said = await message(real, chat("Give me a user as JSON", response_format=form))
    assert json.loads(said["content"]) == {"name": "Ada", "age": 36}


@pytest.mark.parametrize("engine", ["real", "simulated"])
@pytest.mark.parametrize("tools", [None, [WEATHER]], ids=["words", "tool call"])
async def test_both_engines_go_on_exactly_from_a_prefix_of_ids(
    engine: str, tools: list[Any] | None, sockets: dict[str, Path]
) -> None:
    socket = sockets[engine]
    body = chat("weather in eindhoven" if tools else "Count to 10", **({"tools": tools} if tools else {}))
    rendered = (await ask(socket, "POST", f"{CHAT}/render", body)).document
    whole = (await ask(socket, "POST", GENERATE, rendered)).document["choices"][0]["token_ids"]
    for cut in (1, len(whole) // 2, len(whole) - 1):
        resumed = rendered | {"token_ids": rendered["token_ids"] + whole[:cut], "request_id": f"cut-{cut}"}
        rest = (await ask(socket, "POST", GENERATE, resumed)).document["choices"][0]["token_ids"]
        assert rest == whole[cut:]
