"""Token ids told as an answer, whole and chunk by chunk: what was said first and what is said later are one."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from shrk_node_agent.engine.simulated.server import Plan
from shrk_node_agent.engine.simulated.vocabulary import END, encode
from support.simulated_engine import MODEL, SimulatedEngine, simulated_engine

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"

WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"properties": {"city": {"type": "string"}}}},
}
NAMED = {"type": "function", "function": {"name": "get_weather"}}
#: How a chat may speak of tools.
TOOLS: dict[str, dict[str, Any]] = {
    "none": {},
    "offered": {"tools": [WEATHER]},
    "required": {"tools": [WEATHER], "tool_choice": "required"},
    "named": {"tools": [WEATHER], "tool_choice": NAMED},
    "forbidden": {"tools": [WEATHER], "tool_choice": "none"},
}


def asked(**more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "weather?"}], "temperature": 0, **more}


def chunk(ids: list[int] | None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"request_id": "g-1", "choices": [{"index": 0, "token_ids": ids, "finish_reason": finish}], **more}


class Reader:
    """Derenders one stream, carrying its state along."""

    def __init__(self, engine: SimulatedEngine, path: str, **more: Any) -> None:
        self._engine = engine
        self._path = f"{path}/derender"
        self._more = {"stream": True, "model": MODEL, **more}
        self.state: dict[str, Any] | None = None
        self.chunks: list[dict[str, Any]] = []

    async def read(self, given: dict[str, Any]) -> dict[str, Any]:
        body = self._more | {"generate_chunk": given, "stream_state": self.state}
        answer = await self._engine.post(self._path, **body)
        assert answer.keys() == {"chunk", "stream_state"}, answer
        self.state = answer["stream_state"]
        self.chunks.append(answer["chunk"])
        return self.chunks[-1]


async def streamed(engine: SimulatedEngine, chat: dict[str, Any]) -> tuple[list[int], list[int], list[Any]]:
    """(prompt ids, answer ids, events) of the engine's own stream."""
    events = await engine.events(CHAT, **chat, return_token_ids=True)
    ids = [token for event in events for choice in event["choices"] for token in choice.get("token_ids") or ()]
    return events[0]["prompt_token_ids"], ids, events


def told(chunks: list[Any]) -> tuple[str, list[str], str, str | None]:
    """(content, names of calls, arguments, finish reason) of a chat's chunks."""
    choices = [choice for event in chunks for choice in event["choices"]]
    content = "".join(choice["delta"].get("content") or "" for choice in choices)
    calls = [call["function"] for choice in choices for call in choice["delta"].get("tool_calls") or ()]
    names = [call["name"] for call in calls if call.get("name")]
    arguments = "".join(call.get("arguments") or "" for call in calls)
    return content, names, arguments, choices[-1]["finish_reason"]


@pytest.mark.parametrize("tools", TOOLS)
async def test_a_chat_reads_the_same_wherever_its_first_chunk_ends(tools: str) -> None:
    chat = asked(**TOOLS[tools])
    async with simulated_engine() as engine:
        prompt, ids, events = await streamed(engine, chat)
        *said, end = ids
        assert end == END
        for first in range(len(ids)):
            reader = Reader(engine, CHAT, chat_request=chat, prompt_token_ids=prompt)
            if first:
                await reader.read(chunk(said[:first]))
            for token in said[first:]:
                await reader.read(chunk([token]))
            await reader.read(chunk([], "stop"))
            assert told(reader.chunks) == told(events)


async def test_a_completion_reads_the_same_wherever_its_first_chunk_ends() -> None:
    async with simulated_engine() as engine:
        whole = await engine.post(COMPLETIONS, model=MODEL, prompt="Once", max_tokens=200, return_token_ids=True)
        choice = whole["choices"][0]
        ids = choice["token_ids"]
        assert ids[-1] == END
        for first in range(1, len(ids)):
            reader = Reader(engine, COMPLETIONS)
            await reader.read(chunk(ids[:first]))
            for token in ids[first:-1]:
                await reader.read(chunk([token]))
            last = await reader.read(chunk(ids[-1:], "stop"))
            assert "".join(one["choices"][0]["text"] for one in reader.chunks) == choice["text"]
            assert last["choices"][0]["finish_reason"] == "stop"


async def test_the_role_comes_with_the_first_choice_and_a_calls_id_stays() -> None:
    chat = asked(tools=[WEATHER])
    async with simulated_engine() as engine:
        prompt, ids, _ = await streamed(engine, chat)
        reader = Reader(engine, CHAT, chat_request=chat, prompt_token_ids=prompt, prompt_tokens=5)
        usage = await reader.read({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}})
        for token in ids:
            await reader.read(chunk([token], "stop" if token == END else None))
    roles = [one["choices"][0]["delta"]["role"] for one in reader.chunks[1:]]
    assert roles == ["assistant"] + [None] * (len(ids) - 1)
    assert usage["choices"] == []
    assert (usage["usage"]["prompt_tokens"], usage["usage"]["total_tokens"]) == (5, 7)
    given = [call["id"] for one in reader.chunks[1:] for call in one["choices"][0]["delta"].get("tool_calls") or ()]
    assert reader.state is not None
    assert [call_id for call_id in given if call_id] == reader.state["last_tool_call_ids"]
    assert reader.state["output_token_ids"] == ids
    assert reader.state["output_chunk_lens"] == [1] * len(ids)


async def test_a_call_that_was_told_before_keeps_its_id_whatever_is_read_anew() -> None:
    chat = asked(tools=[WEATHER])
    async with simulated_engine() as engine:
        prompt, ids, _ = await streamed(engine, chat)
        reader = Reader(engine, CHAT, chat_request=chat, prompt_token_ids=prompt)
        reader.state = {"last_tool_call_ids": ["call_mine"], "role_sent": True, "tools_streamed": True}
        last = await reader.read(chunk(ids))
    assert last["choices"][0]["delta"]["tool_calls"][0]["id"] == "call_mine"


@pytest.mark.parametrize(
    ("tools", "given", "finish"),
    [
        ("offered", "stop", "tool_calls"),
        ("offered", "length", "tool_calls"),
        ("required", "stop", "tool_calls"),
        ("named", "stop", "stop"),
        ("forbidden", "stop", "stop"),
        ("none", "length", "length"),
    ],
)
async def test_who_called_a_tool_ends_with_tool_calls_however_it_ended(tools: str, given: str, finish: str) -> None:
    chat = asked(**TOOLS[tools])
    async with simulated_engine() as engine:
        prompt, ids, _ = await streamed(engine, asked(tools=[WEATHER]))
        reader = Reader(engine, CHAT, chat_request=chat, prompt_token_ids=prompt)
        await reader.read(chunk(ids[:-1]))
        last = await reader.read(chunk([], given))
    assert last["choices"][0]["finish_reason"] == finish


async def test_an_end_token_is_seen_in_a_chat_and_not_in_a_completion() -> None:
    ids = [*encode("hello there"), END]
    async with simulated_engine() as engine:
        chat, completion = Reader(engine, CHAT, chat_request=asked(), prompt_token_ids=[1]), Reader(engine, COMPLETIONS)
        in_chat, in_completion = await chat.read(chunk(ids, "stop")), await completion.read(chunk(ids, "stop"))
        whole = await engine.post(f"{CHAT}/derender", generate_response=chunk(ids, "stop"), chat_request=asked())
    assert in_chat["choices"][0]["delta"]["content"] == "hello there<|end|>"
    assert whole["choices"][0]["message"]["content"] == "hello there<|end|>"
    assert in_completion["choices"][0]["text"] == "hello there"


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_character_spread_over_chunks_is_told_with_its_last_byte(path: str) -> None:
    text = "é ☃ 🦈!"
    ids = encode(text)
    assert len(ids) > len(text)
    async with simulated_engine() as engine:
        reader = Reader(engine, path, prompt_token_ids=[1], **({"chat_request": asked()} if path == CHAT else {}))
        for token in ids:
            await reader.read(chunk([token]))
    choices = [one["choices"][0] for one in reader.chunks]
    assert "".join((c["delta"]["content"] if path == CHAT else c["text"]) or "" for c in choices) == text


async def test_ids_that_are_none_are_passed_over() -> None:
    async with simulated_engine() as engine:
        reader = Reader(engine, COMPLETIONS)
        said = await reader.read(chunk([*encode("hello"), 10**9, -1, *encode(" there")]))
    assert said["choices"][0]["text"] == "hello there"


async def test_token_ids_are_told_where_the_chat_wanted_them() -> None:
    async with simulated_engine() as engine:
        reader = Reader(engine, CHAT, chat_request=asked(return_token_ids=True), prompt_token_ids=[1])
        assert (await reader.read(chunk([300, 301])))["choices"][0]["token_ids"] == [300, 301]


async def test_a_whole_chat_and_whole_completions_read_as_they_were_generated() -> None:
    chat = asked(tools=[WEATHER])
    async with simulated_engine() as engine:
        prompt, ids, events = await streamed(engine, chat)
        body = {"generate_response": chunk(ids, "stop"), "chat_request": chat, "prompt_tokens": len(prompt)}
        whole = await engine.post(f"{CHAT}/derender", **body)
        two = await engine.post(
            f"{COMPLETIONS}/derender",
            generate_responses=[chunk(encode("one"), "stop"), chunk(encode("two"), "length")],
            prompt_tokens=[3, 4],
        )
    call = whole["choices"][0]["message"]["tool_calls"][0]["function"]
    assert ([call["name"]], call["arguments"]) == told(events)[1:3]
    # Unlike a chunk, a whole answer ends as it was generated.
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert whole["usage"]["total_tokens"] == len(prompt) + len(ids)
    assert [(one["text"], one["finish_reason"]) for one in two["choices"]] == [("one", "stop"), ("two", "length")]
    assert (two["usage"]["prompt_tokens"], two["usage"]["completion_tokens"]) == (7, 2)


STATE = {"output_token_ids": [300], "output_chunk_lens": [1]}
STREAM = {"stream": True, "chat_request": asked(), "prompt_token_ids": [1], "generate_chunk": chunk([300])}
REFUSALS: dict[str, tuple[str, dict[str, Any], str]] = {
    "no request": (CHAT, {"chat_request": None}, "chat_request is required"),
    "no prompt": (CHAT, {"prompt_token_ids": None}, "prompt_token_ids is required"),
    "two choices": (CHAT, {"generate_chunk": {"choices": [{"index": 0}, {"index": 1}]}}, "at most one choice"),
    "too long": (CHAT, {"generate_chunk": chunk([300] * 100)}, "(1) plus output_token_ids length (0) plus delta (100)"),
    "too long in all": (CHAT, {"prompt_token_ids": [1] * 99, "stream_state": STATE}, "(99) plus output_token_ids"),
    "lengths that do not add up": (CHAT, {"stream_state": STATE | {"output_chunk_lens": [2]}}, "must sum to len"),
    "another model": (CHAT, {"model": "nope"}, "does not exist"),
    "tools that are none": (CHAT, {"chat_request": asked(tools=[])}, "`tools` must not be an empty array"),
    "text in place of ids": (CHAT, {"generate_chunk": chunk([1], output_mode="text")}, "Input should be 'tokens'"),
    "two choices, completions": (COMPLETIONS, {"generate_chunk": {"choices": [{"index": 0}] * 2}}, "at most one"),
    "a long prompt": (COMPLETIONS, {"prompt_token_ids": [1] * 101}, "prompt_token_ids length (101) exceeds"),
    "an endless memory": (COMPLETIONS, {"stream_state": {"prev_tokens": ["a"] * 1025}}, "exceeds maximum (1024)"),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_chunk_that_cannot_be_read_is_refused(name: str) -> None:
    path, change, words = REFUSALS[name]
    async with (
        simulated_engine(Plan(MODEL, context_tokens=100)) as engine,
        engine.session.post(f"{path}/derender", json=STREAM | change) as response,
    ):
        assert response.status == (404 if "model" in change else 400)
        assert words in orjson.loads(await response.read())["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        (CHAT, {"generate_response": chunk([300])}, "chat_request is required"),
        (CHAT, {"generate_response": chunk([]), "chat_request": asked()}, "choice 0 has empty or null token_ids"),
        (
            CHAT,
            {"generate_response": chunk([300] * 101), "chat_request": asked()},
            "token_ids length (101) in choice 0",
        ),
        (COMPLETIONS, {"generate_responses": []}, "must not be empty"),
        (COMPLETIONS, {"generate_responses": [chunk(None)]}, "choice 0 in response g-1 has empty"),
        (COMPLETIONS, {"generate_responses": [chunk([300])], "prompt_tokens": [1, 2]}, "prompt_tokens length (2)"),
    ],
)
async def test_a_whole_answer_that_cannot_be_read_is_refused(path: str, body: dict[str, Any], words: str) -> None:
    async with simulated_engine(Plan(MODEL, context_tokens=100)) as engine:
        refused = await engine.post(f"{path}/derender", **body)
    assert words in refused["error"]["message"]
