"""The simulated engine over its socket: what callers get, what a disconnect does, and its control route."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import struct
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from shrk_node_agent.engine.engine import Task
from shrk_node_agent.engine.simulated.embeddings import embed
from shrk_node_agent.engine.simulated.language import answer
from shrk_node_agent.engine.simulated.prompts import render_chat
from shrk_node_agent.engine.simulated.sequences import Pace
from shrk_node_agent.engine.simulated.server import Plan
from shrk_node_agent.engine.simulated.vocabulary import decode, encode
from support.simulated_engine import (
    CREATED,
    MODEL,
    events_of,
    simulated_engine,
    text_of,
    until,
)

WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"properties": {"city": {"type": "string"}}}},
}


def expected(content: str, seed: int = 0, **more: Any) -> str:
    return decode(answer(render_chat([{"role": "user", "content": content}]), seed, **more))


async def test_a_chat_says_what_anyone_can_compute() -> None:
    async with simulated_engine() as engine:
        whole = await engine.chat("hello")
        events = await engine.chat_events("hello")
    assert whole["choices"][0]["message"]["content"] == expected("hello") == text_of(events)
    assert whole["created"] == CREATED


async def test_many_streams_at_once_all_say_the_right_thing() -> None:
    async with simulated_engine(Plan(MODEL, slots=8)) as engine:
        streams = await asyncio.gather(*(engine.chat_events(f"question {i}") for i in range(64)))
    assert [text_of(events) for events in streams] == [expected(f"question {i}") for i in range(64)]


async def test_a_stream_opens_with_the_role_and_closes_with_the_reason() -> None:
    async with simulated_engine() as engine:
        first, *middle, last = await engine.chat_events("hello", max_tokens=4)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all(event["choices"][0]["finish_reason"] is None for event in middle)
    assert last["choices"][0]["finish_reason"] == "length"
    assert len(middle) == 3


async def test_token_ids_and_running_usage_come_with_every_chunk() -> None:
    async with simulated_engine() as engine:
        first, *chunks, usage = await engine.chat_events(
            "hello",
            return_token_ids=True,
            stream_options={"include_usage": True, "continuous_usage_stats": True},
        )
    prompt = render_chat([{"role": "user", "content": "hello"}])
    assert first["prompt_token_ids"] == prompt
    ids = [token for chunk in chunks for token in chunk["choices"][0]["token_ids"]]
    assert ids == answer(prompt)
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == list(range(1, len(ids) + 1))
    assert usage["usage"] == {
        "prompt_tokens": len(prompt),
        "completion_tokens": len(ids),
        "total_tokens": len(prompt) + len(ids),
    }


async def test_several_choices_differ_and_follow_the_seed() -> None:
    async with simulated_engine() as engine:
        whole = await engine.chat("hello", n=3, seed=7, temperature=1)
        events = await engine.chat_events("hello", n=3, seed=7, temperature=1)
    said = [choice["message"]["content"] for choice in whole["choices"]]
    assert said == [expected("hello", seed) for seed in (7, 8, 9)]
    assert said == [text_of(events, index) for index in range(3)]


async def test_a_seed_means_nothing_at_temperature_zero() -> None:
    async with simulated_engine() as engine:
        whole = await engine.chat("hello", seed=7, temperature=0)
    assert whole["choices"][0]["message"]["content"] == expected("hello")


async def test_a_stop_string_is_never_shown() -> None:
    stop = " ".join(expected("hello").split()[3:5])
    async with simulated_engine() as engine:
        events = await engine.chat_events("hello", stop=[stop])
        whole = await engine.chat("hello", stop=stop)
    assert text_of(events) == expected("hello").partition(stop)[0]
    assert events[-1]["choices"][0]["stop_reason"] == stop
    assert whole["choices"][0]["message"]["content"] == text_of(events)


async def test_a_tool_call_has_its_name_and_its_arguments_streamed_or_not() -> None:
    async with simulated_engine() as engine:
        whole = await engine.chat("weather?", tools=[WEATHER])
        events = await engine.chat_events("weather?", tools=[WEATHER])
        without = await engine.chat("weather?", tools=[WEATHER], tool_choice="none")
    call = whole["choices"][0]["message"]["tool_calls"][0]["function"]
    assert call == {"name": "get_weather", "arguments": '{"city": "river"}'}
    deltas = [c["function"] for e in events for c in e["choices"][0]["delta"].get("tool_calls", [])]
    assert deltas[0] == {"name": "get_weather"}
    assert "".join(delta["arguments"] for delta in deltas[1:]) == call["arguments"]
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert without["choices"][0]["message"]["content"] == expected("weather?")


async def test_a_tool_call_that_is_cut_off_has_as_much_as_was_said() -> None:
    async with simulated_engine() as engine:
        whole = await engine.chat("weather?", tools=[WEATHER], max_tokens=5)
    assert whole["choices"][0]["finish_reason"] == "length"
    assert whole["choices"][0]["message"]["content"].startswith("<tool_call>")


@pytest.mark.parametrize("said", range(1, 8))
async def test_of_a_call_that_never_got_its_name_a_stream_says_nothing(said: int) -> None:
    async with simulated_engine() as engine:
        events = await engine.chat_events("weather?", tools=[WEATHER], max_tokens=said)
    assert [choice["delta"] for event in events[1:] for choice in event["choices"]] == [{}]
    assert events[-1]["choices"][0]["finish_reason"] == "length"


async def test_a_call_that_is_whole_ends_a_whole_answer_even_where_the_length_cut_it() -> None:
    call = answer(render_chat([{"role": "user", "content": "weather?"}], [WEATHER]), max_tokens=200)
    async with simulated_engine() as engine:
        choices = [
            (await engine.chat("weather?", tools=[WEATHER], max_tokens=tokens))["choices"][0]
            for tokens in (len(call) - 3, len(call) - 4)
        ]
    assert [choice["finish_reason"] for choice in choices] == ["tool_calls", "length"]
    assert ["tool_calls" in choice["message"] for choice in choices] == [True, False]


async def test_json_mode_answers_json_that_keeps_to_the_schema() -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    form = {"type": "json_schema", "json_schema": {"name": "user", "schema": schema}}
    async with simulated_engine() as engine:
        free = await engine.chat("a user", response_format={"type": "json_object"})
        bound = await engine.chat_events("a user", response_format=form)
    assert json.loads(free["choices"][0]["message"]["content"]) == {"name": "Ada", "age": 36}
    assert json.loads(text_of(bound)) == {"age": 36}


async def test_completions_take_text_ids_and_lists_of_both() -> None:
    async with simulated_engine() as engine:
        ids = encode("Once upon")
        of_text = await engine.post("/v1/completions", model=MODEL, prompt="Once upon")
        of_ids = await engine.post("/v1/completions", model=MODEL, prompt=ids)
        of_list = await engine.post("/v1/completions", model=MODEL, prompt=["Once upon", "At last"])
        streamed = await engine.events("/v1/completions", model=MODEL, prompt=[ids, encode("At last")])
    once, last = (decode(answer(encode(text), max_tokens=16)) for text in ("Once upon", "At last"))
    assert of_text["choices"][0]["text"] == of_ids["choices"][0]["text"] == once
    assert [choice["text"] for choice in of_list["choices"]] == [once, last]
    choices = [choice for event in streamed for choice in event["choices"]]
    for index, text in enumerate((once, last)):
        assert "".join(c["text"] for c in choices if c["index"] == index) == text


async def test_embeddings_are_unit_vectors_and_base64_holds_the_same() -> None:
    async with simulated_engine(Plan(MODEL, Task.EMBED)) as engine:
        plain = await engine.post("/v1/embeddings", model=MODEL, input=["hello", "hi"])
        packed = await engine.post("/v1/embeddings", model=MODEL, input="hello", encoding_format="base64")
        chat = await engine.chat("hello")
    vector = plain["data"][0]["embedding"]
    assert vector == embed(encode("hello")) != plain["data"][1]["embedding"]
    assert sum(value * value for value in vector) == pytest.approx(1)
    unpacked = struct.unpack(f"<{len(vector)}f", base64.b64decode(packed["data"][0]["embedding"]))
    assert unpacked == pytest.approx(vector)
    assert chat == {"detail": "Not Found"}


async def test_json_mode_starts_again_when_it_is_continued() -> None:
    # As with vLLM: a grammar does not know what was said before the seam.
    async with simulated_engine() as engine:
        rendered = await engine.post(
            "/v1/chat/completions/render",
            model=MODEL,
            messages=[{"role": "user", "content": "a user"}],
            response_format={"type": "json_object"},
        )
        rendered["output_mode"] = "text"
        full = await engine.post("/inference/v1/generate", **rendered)
        rendered["token_ids"] += full["choices"][0]["token_ids"][:3]
        rest = await engine.post("/inference/v1/generate", **rendered)
    assert rest["choices"][0]["text"] == full["choices"][0]["text"]


async def test_a_caller_who_leaves_takes_the_sequence_along() -> None:
    async with simulated_engine(Plan(MODEL, pace=Pace(tokens_per_second=200))) as engine:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True, "ignore_eos": True}
        response = await engine.session.post("/v1/chat/completions", json=body)
        await response.content.readany()
        assert engine.room.stepper.running == 1
        response.close()
        await until(lambda: engine.room.stepper.running == 0)
        assert engine.room.in_flight == 0


async def test_an_aborted_request_ends_with_abort() -> None:
    async with simulated_engine(Plan(MODEL, pace=Pace(tokens_per_second=200))) as engine:
        endless = {"token_ids": [300], "sampling_params": {"ignore_eos": True, "max_tokens": 60_000}}
        asked = asyncio.create_task(engine.post("/inference/v1/generate", request_id="x", **endless))
        await until(lambda: engine.room.stepper.running == 1)
        async with engine.session.post(
            "/inference/v1/abort_requests", json={"request_ids": ["generate-tokens-x", "unknown"]}
        ) as response:
            assert response.status == 200
        ended = await asked
    assert ended["choices"][0]["finish_reason"] == "abort"


async def test_the_load_is_told_while_it_lasts() -> None:
    async with simulated_engine(Plan(MODEL, slots=1, pace=Pace(first_token_seconds=3600))) as engine:
        tasks = [asyncio.create_task(engine.chat("hi")) for _ in range(3)]
        await until(lambda: engine.room.in_flight == 3 and engine.room.stepper.running == 1)
        async with engine.session.get("/load") as response:
            assert await response.json() == {"server_load": 3}
        async with engine.session.get("/metrics") as response:
            metrics = await response.text()
        assert f'vllm:num_requests_running{{engine="0",model_name="{MODEL}"}} 1.0' in metrics
        assert f'vllm:num_requests_waiting{{engine="0",model_name="{MODEL}"}} 2.0' in metrics
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_was_read_and_what_was_said_is_counted() -> None:
    prompt = render_chat([{"role": "user", "content": "hello"}])
    async with simulated_engine() as engine:
        await engine.chat("hello")
        await engine.chat_events("hello", n=2, temperature=1, max_tokens=5)
        async with engine.session.get("/metrics") as response:
            metrics = await response.text()
    labels = f'{{engine="0",model_name="{MODEL}"}}'
    assert "# TYPE vllm:generation_tokens_total counter\n" in metrics
    assert f"vllm:generation_tokens_total{labels} {len(answer(prompt)) + 10:.1f}\n" in metrics
    assert f"vllm:prompt_tokens_total{labels} {3 * len(prompt):.1f}\n" in metrics


async def test_a_reader_who_does_not_read_stops_his_stream_within_the_backlog() -> None:
    async with simulated_engine() as engine:
        body = {"model": MODEL, "prompt": "hi", "stream": True, "ignore_eos": True, "max_tokens": 60_000}
        response = await engine.session.post("/v1/completions", json=body)
        quick = await engine.chat("hello")
        assert quick["choices"][0]["message"]["content"] == expected("hello")
        while engine.room.stepper.running:  # It stands still and goes on as it is read, to its end.
            await response.content.readany()
        rest = await response.read()
    assert rest.endswith(b"data: [DONE]\n\n")


async def read_into(parts: list[bytes], response: aiohttp.ClientResponse) -> None:
    while part := await response.content.readany():
        parts.append(part)


@pytest.mark.parametrize("runs", ["crash", "stop"])
async def test_the_program_serves_says_where_and_ends_as_it_is_told(runs: str, tmp_path: Path) -> None:
    socket = tmp_path / "engine.sock"
    flags = ["--uds", str(socket), "--model", MODEL, "--task", "generate", "--slots", "2", "--jitter-ms", "0.5"]
    flags += ["--fault", "crash@3"] if runs == "crash" else []
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "shrk_node_agent.engine.simulated", *flags, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert str(socket).encode() in await process.stdout.readline()
        connector = aiohttp.UnixConnector(path=str(socket))
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "stream": True}
        async with (
            aiohttp.ClientSession("http://engine", connector=connector) as session,
            session.post("/v1/chat/completions", json=body) as response,
        ):
            if runs == "crash":
                got: list[bytes] = []
                with pytest.raises(aiohttp.ClientPayloadError):
                    await read_into(got, response)
                assert b"".join(got).count(b'"content":"') == 4  # The role's and three tokens'.
            else:
                assert text_of(events_of(await response.read())) == expected("hello")
                process.terminate()
        assert await process.wait() == (-signal.SIGSEGV if runs == "crash" else 0)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_wrong_flag_is_refused_with_its_range() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "shrk_node_agent.engine.simulated", "--uds", "x", "--model", "m", "--slots", "0"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await process.communicate()
    assert process.returncode == 2
    assert b"--slots: '0' is not a whole number from 1" in told
