"""The path of a request: caller, coordinator, link, agent, engine, and back."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from support.network import Network, events_of, text_of, until

STREAMS = 200
AT_ONCE = 64


def a_chat(question: str = "hello", **fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": question}], "temperature": 0, **fields}


async def ask_engine(network: Network, body: dict[str, Any]) -> dict[str, Any]:
    """The engine's own answer, past everything of ours."""
    connector = aiohttp.UnixConnector(str(network.nodes["two"].engine_socket()))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.post("http://engine/v1/chat/completions", json=body) as answer,
    ):
        assert answer.status == 200
        parsed: dict[str, Any] = await answer.json()
    for choice in parsed["choices"]:
        del choice["token_ids"]  # between the engine and us
    return parsed


async def test_a_whole_answer_is_the_engines_own_in_the_coordinators_envelope(network: Network) -> None:
    async with (
        network.session() as session,
        session.post(f"{network.base_url}/chat/completions", json=a_chat()) as answer,
    ):
        assert answer.status == 200
        ours = await answer.json()
        request_id = answer.headers["x-request-id"]
        assert answer.headers["request-id"] == answer.headers["x-shiver-request-id"] == request_id
        assert answer.headers["x-shiver-node"].startswith("node-")
        assert answer.headers["openai-processing-ms"].isdigit()
    engine = await ask_engine(network, a_chat())
    assert ours["id"] == f"chatcmpl-{request_id.removeprefix('req_')}"
    assert ours["choices"] == engine["choices"]
    assert ours["usage"] == engine["usage"]


async def test_every_streamed_text_equals_the_engines_own(network: Network) -> None:
    gate = asyncio.Semaphore(AT_ONCE)
    async with network.session() as session:

        async def one(number: int) -> tuple[str, str]:
            body = a_chat(f"question {number}", stream=True, stream_options={"include_usage": True})
            async with gate, session.post(f"{network.base_url}/chat/completions", json=body) as answer:
                assert answer.status == 200
                events = events_of(await answer.read())
            assert events[-1] == "[DONE]"
            assert "error" not in json.dumps(events)
            usage = events[-2]["usage"]
            whole = await ask_engine(network, a_chat(f"question {number}"))
            assert usage.items() <= whole["usage"].items()
            assert {e["id"] for e in events[:-1]} == {events[0]["id"]}
            return text_of(events), whole["choices"][0]["message"]["content"]

        texts = await asyncio.gather(*(one(number) for number in range(STREAMS)))
    assert [ours for ours, _ in texts] == [engines for _, engines in texts]


async def test_callers_never_see_token_ids_they_did_not_ask_for(network: Network) -> None:
    async with network.session() as session:
        for body, wanted in ((a_chat(stream=True), False), (a_chat(stream=True, return_token_ids=True), True)):
            async with session.post(f"{network.base_url}/chat/completions", json=body) as answer:
                assert (b"token_ids" in await answer.read()) is wanted


async def test_a_stream_ends_with_one_finish_reason_and_done_and_usage_only_on_request(network: Network) -> None:
    async with (
        network.session() as session,
        session.post(f"{network.base_url}/chat/completions", json=a_chat(stream=True, max_tokens=3)) as answer,
    ):
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["X-Accel-Buffering"] == "no"
        events = events_of(await answer.read())
    reasons = [c["finish_reason"] for e in events[:-1] for c in e["choices"] if c["finish_reason"]]
    assert reasons == ["length"]
    assert not any("usage" in e for e in events[:-1])


async def test_several_choices_come_each_with_its_own_end(network: Network) -> None:
    async with network.session() as session:
        body = a_chat(stream=True, n=3, max_tokens=4, seed=1, temperature=1)
        async with session.post(f"{network.base_url}/chat/completions", json=body) as answer:
            events = events_of(await answer.read())
    ends = [c["index"] for e in events[:-1] for c in e["choices"] if c["finish_reason"]]
    assert sorted(ends) == [0, 1, 2]


async def test_a_large_request_travels_in_parts_and_arrives_whole(network: Network) -> None:
    question = "long " * 20_000
    async with network.session() as session:
        body = a_chat(question, max_tokens=5)
        async with session.post(f"{network.base_url}/chat/completions", json=body) as answer:
            ours = await answer.json()
            assert answer.status == 200, ours
    assert ours["choices"] == (await ask_engine(network, body))["choices"]


async def test_embeddings_and_completions_take_the_same_path(network: Network) -> None:
    async with network.session() as session:
        texts = [f"text {n}" for n in range(50)]
        async with session.post(f"{network.base_url}/embeddings", json={"model": "m-embed", "input": texts}) as answer:
            assert answer.status == 200
            embeddings = (await answer.json())["data"]
            assert [e["index"] for e in embeddings] == list(range(50))
        body = {"model": "m", "prompt": "Once", "max_tokens": 5, "stream": True}
        async with session.post(f"{network.base_url}/completions", json=body) as answer:
            events = events_of(await answer.read())
            assert events[-1] == "[DONE]"
            assert events[0]["id"].startswith("cmpl-")


@pytest.mark.parametrize("path", ["/v1/chat", "/api/v1/chat/completions", "/chat/completions"])
async def test_other_spellings_of_the_path_lead_to_the_same(network: Network, path: str) -> None:
    async with network.session() as session, session.post(network.root_url + path, json=a_chat()) as answer:
        assert answer.status == 200


async def test_work_is_spread_over_all_nodes(network: Network) -> None:
    async with network.session() as session:

        async def node() -> str:
            async with session.post(f"{network.base_url}/chat/completions", json=a_chat(stream=True)) as answer:
                await answer.read()
                return answer.headers["x-shiver-node"]

        # As many as all of them together take at once, however fast each has been.
        assert len(set(await asyncio.gather(*(node() for _ in range(180))))) == 3


async def test_an_engines_refusal_keeps_its_wording_and_blames_the_caller(network: Network) -> None:
    body = a_chat("too long " * 60_000)
    async with network.session() as session, session.post(f"{network.base_url}/chat/completions", json=body) as answer:
        ours = await answer.json()
        assert answer.status == 400
    assert ours["error"]["code"] == "context_length_exceeded"
    assert "maximum context length" in ours["error"]["message"]
    assert ours["request_id"] == answer.headers["x-request-id"]


async def test_nothing_is_left_of_requests_that_ended(network: Network) -> None:
    state = network.coordinator.driver.state
    await until(lambda: not network.coordinator.driver.open_requests, "all requests ended")
    assert not state.attempts.by_stream
    assert all(not link.sinks for link in network.coordinator.links.all())
    assert all(offer.in_flight == 0 for _, offer in state.roster.offers("m"))
