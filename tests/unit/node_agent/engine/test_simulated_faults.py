"""Faults that a user asks for: armed, listed, cleared, and what each does to an answer."""

from __future__ import annotations

import asyncio
import itertools
import re
from typing import Any

import orjson
import pytest

from shrk_node_agent.engine.engine import Task
from shrk_node_agent.engine.simulated.faults import Fault, Kind
from shrk_node_agent.engine.simulated.language import answer
from shrk_node_agent.engine.simulated.prompts import render_chat
from shrk_node_agent.engine.simulated.sequences import Pace
from shrk_node_agent.engine.simulated.server import Plan
from support.simulated_engine import MODEL, SimulatedEngine, events_of, simulated_engine, text_of, until


async def arm(engine: SimulatedEngine, **fault: Any) -> Any:
    return await engine.post("/simulated/faults", **fault)


async def test_faults_are_armed_listed_and_cleared() -> None:
    async with simulated_engine(Plan(MODEL, faults=(Fault(Kind.SLOW, 9),))) as engine:
        armed = await arm(engine, kind="empty-finish", times=1)
        assert [fault["kind"] for fault in armed["faults"]] == ["slow", "empty-finish"]
        empty = await engine.chat_events("hello")
        async with engine.session.delete("/simulated/faults") as response:
            assert await response.json() == {"faults": []}
    assert text_of(empty) == ""
    assert empty[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("fault", "param"),
    [
        ({"kind": "x"}, "kind"),
        ({}, "kind"),
        ({"kind": "hang", "token": -1}, "token"),
        ({"kind": "hang", "factor": 2}, "factor"),
        ({"kind": "slow", "factor": 0.5}, "factor"),
        ({"kind": "slow", "factor": "2"}, "factor"),
        ({"kind": "slow", "text": "x"}, "text"),
        ({"kind": "query-of-death", "text": ""}, "text"),
    ],
)
async def test_a_fault_that_is_none_is_refused_by_name(fault: dict[str, Any], param: str) -> None:
    async with simulated_engine() as engine:
        assert (await arm(engine, **fault))["error"]["param"] == param


async def test_a_bad_chunk_is_one_event_that_is_no_json() -> None:
    async with simulated_engine() as engine:
        await arm(engine, kind="bad-chunk", token=3)
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "stream": True}
        async with engine.session.post("/v1/chat/completions", json=body) as response:
            stream = await response.read()
    with pytest.raises(orjson.JSONDecodeError):
        events_of(stream)
    bad = [event for event in stream.split(b"\n\n")[:-2] if not event.endswith(b"}")]
    assert len(bad) == 1


#: Dialect -> where it is spoken, a request, and what the event of a token has.
REPEATABLE: dict[str, tuple[str, dict[str, Any], bytes]] = {
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hello"}]}, rb'"content":"[^"]'),
    "completion": ("/v1/completions", {"prompt": "hello"}, rb'"text":"[^"]'),
    "generate": ("/inference/v1/generate", {"token_ids": [300], "sampling_params": {}}, rb'"token_ids":\[\d'),
    "messages": (
        "/v1/messages",
        {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 64},
        rb"text_delta",
    ),
    "responses": ("/v1/responses", {"input": "hello"}, rb"event: response.output_text.delta"),
}


@pytest.mark.parametrize("token", [0, 3])
@pytest.mark.parametrize("dialect", REPEATABLE)
async def test_a_repeated_chunk_is_one_event_of_that_token_told_twice(dialect: str, token: int) -> None:
    path, body, says = REPEATABLE[dialect]
    body = {"model": MODEL, "stream": True, **body}
    async with simulated_engine() as engine:
        sound = await stream_of(engine, path, body)
        await arm(engine, kind="repeat-chunk", token=token, times=1)
        struck = await stream_of(engine, path, body)
        after = await stream_of(engine, path, body)
    events = struck.split(b"\n\n")
    [at] = [at for at, (one, other) in enumerate(itertools.pairwise(events)) if one and one == other]
    assert sum(bool(re.search(says, event)) for event in events[: at + 1]) == token + 1
    assert [len(stream.split(b"\n\n")) for stream in (sound, after)] == [len(events) - 1] * 2


async def stream_of(engine: SimulatedEngine, path: str, body: dict[str, Any]) -> bytes:
    async with engine.session.post(path, json=body) as response:
        return await response.read()


async def test_the_last_chunk_told_twice_is_still_followed_by_the_end() -> None:
    ids = answer(render_chat([{"role": "user", "content": "hello"}]))
    async with simulated_engine(Plan(MODEL, faults=(Fault(Kind.REPEAT_CHUNK, len(ids) - 1),))) as engine:
        events = await engine.chat_events("hello", return_token_ids=True, stream_options={"include_usage": True})
    *_, last, again, usage = events
    assert last == again
    assert last["choices"][0]["finish_reason"] == "stop"
    assert usage["usage"]["completion_tokens"] == len(ids)


async def test_a_query_of_death_crashes_an_armed_engine_only() -> None:
    async with simulated_engine() as engine:
        assert "choices" in await engine.chat("a query of death")
        await arm(engine, kind="query-of-death")
        assert "choices" in await engine.chat("harmless")
        asked = asyncio.create_task(engine.chat("a query of death"))
        await engine.crashed.wait()
        asked.cancel()


async def test_a_query_of_death_is_whatever_text_was_named() -> None:
    async with simulated_engine() as engine:
        armed = await arm(engine, kind="query-of-death", text="Überfluss, 3 mal")
        assert armed["faults"][0]["text"] == "Überfluss, 3 mal"
        assert "choices" in await engine.chat("a query of death")
        asked = asyncio.create_task(engine.chat("und nun Überfluss, 3 mal!"))
        await engine.crashed.wait()
        asked.cancel()


#: Where an answer can be had, and a request that is right.
ANSWERED: dict[str, dict[str, Any]] = {path: body for path, body, _ in REPEATABLE.values()}


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("path", ANSWERED)
async def test_an_error_is_told_at_once_as_often_as_it_was_asked_for(path: str, streamed: bool) -> None:
    body = {"model": MODEL, "stream": streamed, **ANSWERED[path]}
    async with simulated_engine() as engine:
        await arm(engine, kind="error", times=2)
        told = []
        for _ in range(3):
            async with engine.session.post(path, json=body) as response:
                told.append((response.status, b"InternalServerError" in await response.read()))
        assert engine.room.faults.armed() == []
    assert told == [(500, True), (500, True), (200, False)]


async def test_errors_go_on_until_they_are_cleared_and_leave_all_else_alone() -> None:
    async with simulated_engine() as engine:
        await arm(engine, kind="error")
        assert [(await engine.chat("hello"))["error"]["code"] for _ in range(3)] == [500] * 3
        assert "data" in await (await engine.session.get("/v1/models")).json()
        assert (await engine.post("/tokenize", prompt="hello"))["count"]
        await engine.session.delete("/simulated/faults")
        assert "choices" in await engine.chat("hello")


async def test_an_embedding_can_fail_as_well() -> None:
    async with simulated_engine(Plan(MODEL, task=Task.EMBED, faults=(Fault(Kind.ERROR, times=1),))) as engine:
        assert (await engine.post("/v1/embeddings", input="hello"))["error"]["code"] == 500
        assert "data" in await engine.post("/v1/embeddings", input="hello")


async def test_an_engine_is_slowed_by_a_factor() -> None:
    async with simulated_engine(Plan(MODEL, pace=Pace(first_token_seconds=0.001))) as engine:
        armed = await arm(engine, kind="slow", factor=10**9)
        assert armed["faults"] == [{"kind": "slow", "token": 0, "times": None, "factor": 1e9, "text": None}]
        asked = asyncio.create_task(engine.chat("hello"))
        await until(lambda: engine.room.stepper.running == 1)
        async with engine.session.delete("/simulated/faults"):
            assert "choices" in await engine.chat("hello")
        assert not asked.done()
        asked.cancel()
