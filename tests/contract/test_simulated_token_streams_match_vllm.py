"""Streams of token ids read back as a chat or a completion, by the simulated engine and by a real vLLM.

What carrying a broken stream on elsewhere relies on is asked of both: whatever was said before a cut, told as one
chunk, and each token after it, tell what the engine's own unbroken stream told.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.shapes import ask, differences, shape

#: A cold engine, on a busy machine, with the model to be built first.
pytestmark = pytest.mark.timeout(600)

MODEL = "shark-tiny"
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
GENERATE = "/inference/v1/generate"

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
NAMED = {"type": "function", "function": {"name": "get_weather"}}


def chat(content: str, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], "temperature": 0, **more}


def weather(**more: Any) -> dict[str, Any]:
    return chat("weather in eindhoven", tools=[WEATHER], **more)


STREAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "words": (CHAT, chat("Count to 10")),
    "words beside tools": (CHAT, chat("weather in eindhoven", tools=[WEATHER], tool_choice="none")),
    "tool call": (CHAT, weather()),
    "tool call, required": (CHAT, weather(tool_choice="required")),
    "tool call, named": (CHAT, weather(tool_choice=NAMED)),
    "completion": (COMPLETIONS, {"model": MODEL, "prompt": "Count to", "temperature": 0, "max_tokens": 3}),
    "completion, to its end": (COMPLETIONS, {"model": MODEL, "prompt": "Count to", "temperature": 0, "max_tokens": 99}),
}


@dataclass(frozen=True)
class Told:
    """What a stream's reader makes of it."""

    text: str
    names: tuple[str, ...]
    arguments: str
    finish_reason: str | None


@dataclass(frozen=True)
class Said:
    """An engine's own unbroken stream."""

    prompt: list[int]
    #: Its last id is the end token where it ended by itself.
    ids: list[int]
    told: Told
    #: As `generate` would give it: it knows of no tool calls.
    finish_reason: str


def told(events: list[Any]) -> Told:
    choices = [choice for event in events for choice in event["choices"]]
    deltas = [choice.get("delta", {"content": choice.get("text")}) for choice in choices]
    calls = [call["function"] for delta in deltas for call in delta.get("tool_calls") or ()]
    return Told(
        "".join(delta.get("content") or "" for delta in deltas),
        tuple(call["name"] for call in calls if call.get("name")),
        "".join(call.get("arguments") or "" for call in calls),
        choices[-1]["finish_reason"],
    )


async def said(socket: Path, path: str, body: dict[str, Any]) -> Said:
    events = (await ask(socket, "POST", path, body | {"stream": True, "return_token_ids": True})).document
    choices = [choice for event in events for choice in event["choices"]]
    prompt = events[0].get("prompt_token_ids") or choices[0]["prompt_token_ids"]
    finish = choices[-1]["finish_reason"]
    ids = [token for choice in choices for token in choice.get("token_ids") or ()]
    return Said(prompt, ids, told(events), "stop" if finish == "tool_calls" else finish)


def chunk(ids: list[int], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "token_ids": ids, "finish_reason": finish, "stop_reason": None}
    return {"request_id": "r", "usage": None, "output_mode": "tokens", "choices": [choice]}


async def read_back(socket: Path, path: str, body: dict[str, Any], chunks: list[Any], prompt: list[int]) -> list[Any]:
    """The answers of `derender` to these chunks, one after the other."""
    asked = {"model": MODEL, "stream": True, "prompt_token_ids": prompt, "prompt_tokens": len(prompt)}
    asked["chat_request" if path == CHAT else "completion_request"] = body
    answers: list[Any] = []
    for given in chunks:
        state = answers[-1]["stream_state"] if answers else None
        reply = await ask(socket, "POST", f"{path}/derender", asked | {"generate_chunk": given, "stream_state": state})
        assert reply.status == 200, reply.document
        answers.append(reply.document)
    return answers


def chunks_of(spoken: Said, first: int, *, end: bool) -> list[Any]:
    """The first ids at once and each other by itself; without `end`, an end token gives way to no id at all."""
    ids = spoken.ids
    ended = spoken.finish_reason == "stop"
    before = [chunk(ids[:first])] if first else []
    between = [chunk([token]) for token in ids[max(first, 0) : -1]]
    return [*before, *between, chunk(ids[-1:] if end or not ended else [], spoken.finish_reason)]


def cuts(answers: list[Any], length: int) -> dict[str, int]:
    """Where a first chunk may end, by what an answer told token by token shows of its tool call."""
    calls = [i for i, answer in enumerate(answers) if answer["chunk"]["choices"][0].get("delta", {}).get("tool_calls")]
    places = {"after one": 1, "halfway": length // 2, "before the last": length - 1}
    if calls:
        places |= {"before the name": calls[0], "after the name": calls[0] + 1, "before the arguments": calls[1]}
        places |= {"amid the arguments": calls[len(calls) // 2] + 1, "after the arguments": calls[-1] + 1}
    return places


@pytest.mark.parametrize("name", STREAMS)
async def test_both_engines_read_a_stream_back_in_the_same_shape(name: str, real: Path, simulated: Path) -> None:
    path, body = STREAMS[name]
    shapes = []
    for socket in (real, simulated):
        spoken = await said(socket, path, body)
        singly = await read_back(socket, path, body, chunks_of(spoken, 0, end=True), spoken.prompt)
        runs = {"singly": shape(singly)}
        for place, cut in cuts(singly, len(spoken.ids)).items():
            answers = await read_back(socket, path, body, chunks_of(spoken, cut, end=True), spoken.prompt)
            runs[place] = shape(answers)
        shapes.append(runs)
    assert list(differences(*shapes)) == []


@pytest.mark.parametrize("engine", ["real", "simulated"])
@pytest.mark.parametrize("name", STREAMS)
async def test_a_cut_stream_tells_what_the_engine_itself_told(name: str, engine: str, sockets: dict[str, Path]) -> None:
    socket, (path, body) = sockets[engine], STREAMS[name]
    spoken = await said(socket, path, body)
    singly = await read_back(socket, path, body, chunks_of(spoken, 0, end=False), spoken.prompt)
    assert told([answer["chunk"] for answer in singly]) == spoken.told
    for cut in sorted({*cuts(singly, len(spoken.ids)).values(), *range(3, len(spoken.ids), 7)}):
        answers = await read_back(socket, path, body, chunks_of(spoken, cut, end=False), spoken.prompt)
        assert (cut, told([answer["chunk"] for answer in answers])) == (cut, spoken.told)


@pytest.mark.parametrize("engine", ["real", "simulated"])
@pytest.mark.parametrize(("name", "shown"), [("words", True), ("words beside tools", True), ("tool call", False)])
async def test_an_end_token_that_is_read_back_is_told_as_words(
    name: str, shown: bool, engine: str, sockets: dict[str, Path]
) -> None:
    # Of a chat only, and hidden behind a tool call: whoever reads a stream back leaves its end token out.
    socket, (path, body) = sockets[engine], STREAMS[name]
    spoken = await said(socket, path, body)
    for cut in (1, len(spoken.ids) - 1):
        answers = await read_back(socket, path, body, chunks_of(spoken, cut, end=True), spoken.prompt)
        text = told([answer["chunk"] for answer in answers]).text
        assert text == spoken.told.text + ("<|end|>" if shown else "")


@pytest.mark.parametrize("engine", ["real", "simulated"])
async def test_a_call_that_is_cut_by_its_length_is_told_as_a_call_that_ended(
    engine: str, sockets: dict[str, Path]
) -> None:
    # The engine's own stream says "length": whoever reads a stream back has to say that himself.
    socket = sockets[engine]
    whole = await said(socket, CHAT, weather())
    singly = await read_back(socket, CHAT, weather(), chunks_of(whole, 0, end=True), whole.prompt)
    body = weather(max_tokens=cuts(singly, len(whole.ids))["amid the arguments"])
    spoken = await said(socket, CHAT, body)
    answers = await read_back(socket, CHAT, body, chunks_of(spoken, 1, end=True), spoken.prompt)
    again = told([answer["chunk"] for answer in answers])
    assert (spoken.told.finish_reason, again.finish_reason) == ("length", "tool_calls")
    assert (again.names, again.arguments) == (spoken.told.names, spoken.told.arguments)


@pytest.mark.parametrize("engine", ["real", "simulated"])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_character_may_be_cut_in_two(path: str, engine: str, sockets: dict[str, Path]) -> None:
    text = "é ☃ 🦈!"
    body = {"model": MODEL, "prompt": text, "add_special_tokens": False}
    ids = (await ask(sockets[engine], "POST", "/tokenize", body)).document["tokens"]
    request = chat("x") if path == CHAT else {"prompt": "x"}
    for cut in range(1, len(ids)):
        chunks = [chunk(ids[:cut]), *(chunk([token]) for token in ids[cut:])]
        answers = await read_back(sockets[engine], path, request, chunks, [300])
        assert told([answer["chunk"] for answer in answers]).text == text


@pytest.mark.parametrize("engine", ["real", "simulated"])
@pytest.mark.parametrize("limit", [{}, {"max_tokens": 4}], ids=["to its end", "to its length"])
async def test_the_last_id_comes_with_the_reason(limit: dict[str, int], engine: str, sockets: dict[str, Path]) -> None:
    body = chat("Count to 10", stream=True, return_token_ids=True, stream_options={"include_usage": True}, **limit)
    *events, last, usage = (await ask(sockets[engine], "POST", CHAT, body)).document
    [choice] = last["choices"]
    assert choice["finish_reason"] == ("length" if limit else "stop")
    assert choice["token_ids"]
    ids = [token for event in (*events, last) for token in event["choices"][0].get("token_ids") or ()]
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], len(ids))
    assert not limit or len(ids) == 4


@pytest.mark.parametrize("engine", ["real", "simulated"])
async def test_what_was_said_before_counts_as_the_prompt(engine: str, sockets: dict[str, Path]) -> None:
    rendered = (await ask(sockets[engine], "POST", f"{CHAT}/render", chat("Count to 10"))).document
    spoken = await said(sockets[engine], CHAT, chat("Count to 10"))
    resumed = rendered | {"token_ids": spoken.prompt + spoken.ids[:4], "request_id": "after-4", "stream": True}
    resumed["stream_options"] = {"include_usage": True}
    *events, usage = (await ask(sockets[engine], "POST", GENERATE, resumed)).document
    assert [token for event in events for token in event["choices"][0]["token_ids"]] == spoken.ids[4:]
    assert usage["usage"]["prompt_tokens"] == len(spoken.prompt) + 4
    assert usage["usage"]["completion_tokens"] == len(spoken.ids) - 4


@pytest.mark.parametrize("engine", ["real", "simulated"])
async def test_a_rendered_request_knows_no_bound_where_it_was_16_tokens(engine: str, sockets: dict[str, Path]) -> None:
    # As that is the default of vLLM's sampling, which it leaves out, and `generate` goes on to the context's end.
    async def bound(path: str, body: dict[str, Any]) -> int | None:
        document = (await ask(sockets[engine], "POST", f"{path}/render", body)).document
        rendered = document[0] if isinstance(document, list) else document
        return rendered["sampling_params"].get("max_tokens")

    assert [await bound(CHAT, chat("x", max_tokens=tokens)) for tokens in (15, 16, 17)] == [15, None, 17]
    assert await bound(COMPLETIONS, {"model": MODEL, "prompt": "x"}) is None
    assert await bound(CHAT, chat("x")) is not None


STATE = {"output_token_ids": [300], "output_chunk_lens": [1]}
STREAM = {"stream": True, "chat_request": chat("x"), "prompt_token_ids": [300], "generate_chunk": chunk([300])}
TWO = {"choices": [{"index": 0, "token_ids": [300]}, {"index": 1, "token_ids": [300]}]}
REFUSALS: dict[str, tuple[str, dict[str, Any]]] = {
    "unknown model": (CHAT, STREAM | {"model": "nope"}),
    "no chat": (CHAT, STREAM | {"chat_request": None}),
    "no prompt": (CHAT, STREAM | {"prompt_token_ids": None}),
    "no chunk": (CHAT, {name: value for name, value in STREAM.items() if name != "generate_chunk"}),
    "a chunk without choices": (CHAT, STREAM | {"generate_chunk": {}}),
    "a chunk of text": (CHAT, STREAM | {"generate_chunk": chunk([300]) | {"output_mode": "text"}}),
    "two choices": (CHAT, STREAM | {"generate_chunk": TWO}),
    "too long": (CHAT, STREAM | {"generate_chunk": chunk([300] * 65_536)}),
    "too long with what was said": (CHAT, STREAM | {"prompt_token_ids": [300] * 65_535, "stream_state": STATE}),
    "a negative id in the prompt": (CHAT, STREAM | {"prompt_token_ids": [-1]}),
    "a state that is none": (CHAT, STREAM | {"stream_state": 5}),
    "lengths that do not add up": (CHAT, STREAM | {"stream_state": STATE | {"output_chunk_lens": [2]}}),
    "a length of nothing": (CHAT, STREAM | {"stream_state": {"output_chunk_lens": [0]}}),
    "options of no stream": (CHAT, STREAM | {"chat_request": chat("x", stream_options={"include_usage": True})}),
    "neither whole nor a stream": (CHAT, {}),
    "unknown model, completions": (COMPLETIONS, STREAM | {"model": "nope"}),
    "no chunk, completions": (COMPLETIONS, {"stream": True}),
    "two choices, completions": (COMPLETIONS, STREAM | {"generate_chunk": TWO}),
    "a long prompt, completions": (COMPLETIONS, STREAM | {"prompt_token_ids": [300] * 65_537}),
    "an endless memory, completions": (COMPLETIONS, STREAM | {"stream_state": {"prev_tokens": ["a"] * 1025}}),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_both_engines_refuse_to_read_back_in_the_same_words(name: str, real: Path, simulated: Path) -> None:
    path, body = REFUSALS[name]
    one, other = [await ask(socket, "POST", f"{path}/derender", body) for socket in (real, simulated)]
    assert one.status >= 400
    assert other == one


ODDITIES: dict[str, tuple[str, dict[str, Any]]] = {
    "only usage": (CHAT, STREAM | {"generate_chunk": {"choices": [], "usage": {"completion_tokens": 4}}}),
    "no ids": (CHAT, STREAM | {"generate_chunk": chunk([])}),
    "an end without ids": (CHAT, STREAM | {"generate_chunk": chunk([], "length")}),
    "an id that is none": (CHAT, STREAM | {"generate_chunk": chunk([99_999_999])}),
    "ids wanted": (CHAT, STREAM | {"chat_request": chat("x", return_token_ids=True)}),
    "no model named": (CHAT, {name: value for name, value in STREAM.items() if name != "model"}),
    "only usage, completions": (COMPLETIONS, {"stream": True, "generate_chunk": {"choices": [], "usage": {}}}),
    "an end without ids, completions": (COMPLETIONS, {"stream": True, "generate_chunk": chunk([], "stop")}),
    "an id that is none, completions": (COMPLETIONS, {"stream": True, "generate_chunk": chunk([300, 99_999_999])}),
}


@pytest.mark.parametrize("name", ODDITIES)
async def test_both_engines_read_odd_chunks_back_alike(name: str, real: Path, simulated: Path) -> None:
    path, body = ODDITIES[name]
    one, other = [await ask(socket, "POST", f"{path}/derender", body) for socket in (real, simulated)]
    assert (one.status, other.status) == (200, 200), (one.document, other.document)
    assert list(differences(shape(one.document), shape(other.document))) == []
